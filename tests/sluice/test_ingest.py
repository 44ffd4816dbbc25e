"""Ingest: whatever arrives in whatever order and however often, bronze, dead letters and books say the same."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluice.books import books, dead_letter_reasons
from sluice.contracts import Contract
from sluice.errors import ContractError
from sluice.settings import PROJECT
from sluice.simulation import Truth, generate
from tests.conftest import Bench, MakeBench, MakeContract

DAYS = 3
SOURCES = ("orders", "products", "customers", "events")
GOOD = "489434,85048,CUP,1,2026-01-01 10:00:00,1.50,12345,United Kingdom"
BAD = "489434,85048,CUP,one,2026-01-01 10:00:00,1.50,12345,United Kingdom"


def lines(count: int) -> list[str]:
    """Good order lines, all different."""
    return [GOOD.replace("489434", f"{500_000 + n}") for n in range(count)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    """A simulated shop's landing area and the truth about it."""
    landing = tmp_path_factory.mktemp("shop") / "landing"
    return landing, generate(landing, days=DAYS, scale=0.6)


@pytest.fixture(scope="module")
def loaded(shop: tuple[Path, Truth], contracts: dict[str, Contract], tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The shop loaded at once. Tests that use it leave it as it is."""
    bench = Bench(tmp_path_factory.mktemp("loaded"), landing=shop[0])
    for source in SOURCES:
        bench.ingest(contracts[source], run_id="first")
    return bench


def agreement(bench: Bench) -> None:
    """The ledger's current batches, bronze, dead letters and positions say the same, batch by batch."""
    for (source,) in bench.sql(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' AND schema_name = 'bronze'"
    ):
        booked = bench.sql(
            "SELECT batch_id, partition_key, rows_accepted, rows_dead_lettered FROM ops.ledger "
            "WHERE source = ? AND superseded_by IS NULL",
            [source],
        )
        assert len({key for _, key, *_ in booked}) == len(booked)
        held = dict(bench.sql(f"SELECT _batch_id, count(*) FROM bronze.{source} GROUP BY ALL"))
        dead = dict(bench.sql("SELECT batch_id, sum(rows)::BIGINT FROM ops.dead_letters WHERE rows > 0 GROUP BY ALL"))
        assert held == {batch: accepted for batch, _, accepted, _ in booked if accepted}
        assert {b: n for b, n in dead.items() if b in {x[0] for x in booked}} == {
            batch: rows for batch, _, _, rows in booked if rows
        }
        noted = {b for (b,) in bench.sql("SELECT DISTINCT batch_id FROM ops.positions WHERE source = ?", [source])}
        assert noted == {batch for batch, *_ in booked}


# The shop, which knows its truth


@pytest.mark.parametrize("source", SOURCES)
def test_the_ledger_of_every_partition_is_the_true_one(source: str, loaded: Bench, shop: tuple[Path, Truth]) -> None:
    truth = shop[1].ledger_by_partition[source]
    assert loaded.ledger(source) == {
        key: (t.rows_read, t.accepted, t.dead_lettered, t.duplicates) for key, t in truth.items()
    }
    assert loaded.sql(f"SELECT _partition_key, count(*) FROM bronze.{source} GROUP BY ALL ORDER BY 1") == [
        (key, t.accepted) for key, t in sorted(truth.items())
    ]


@pytest.mark.parametrize("source", SOURCES)
def test_the_reasons_are_the_true_ones(source: str, loaded: Bench, shop: tuple[Path, Truth]) -> None:
    found: Counter[str] = Counter()
    for rule, _, rows, _ in dead_letter_reasons(loaded.lake, source):
        found[rule] += rows
    assert found == shop[1].reasons[source]


def test_the_shop_has_something_to_reject(shop: tuple[Path, Truth]) -> None:
    assert sum(t.dead_lettered for t in shop[1].ledger.values()) > 10
    assert sum(t.duplicates for t in shop[1].ledger.values()) > 10
    assert sum(len(rules) for rules in shop[1].reasons.values()) > 5


def test_the_books_balance_over_the_whole_lake(loaded: Bench, shop: tuple[Path, Truth]) -> None:
    agreement(loaded)
    for found in books(loaded.lake, list(SOURCES)):
        truth = shop[1].ledger[found.source]
        assert found.balanced and found.refused == 0
        assert (found.rows_read, found.rows_accepted, found.rows_dead_lettered, found.rows_duplicate) == (
            truth.rows_read,
            truth.accepted,
            truth.dead_lettered,
            truth.duplicates,
        )
    assert books(loaded.lake, ["nothing"]) == []


def test_the_books_notice_a_row_that_went_astray(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put_orders("2026-01-01|uk", *lines(3))
    bench.ingest(contracts["orders"])
    assert [b.balanced for b in books(bench.lake, ["orders"])] == [True]
    bench.lake.write(lambda con: con.execute("DELETE FROM bronze.orders WHERE _line = 3"), "an accident")
    assert [b.balanced for b in books(bench.lake, ["orders"])] == [False]


def test_a_dead_letter_holds_the_line_as_it_came(loaded: Bench, shop: tuple[Path, Truth]) -> None:
    rows = loaded.sql(
        "SELECT file, line, raw FROM ops.dead_letters WHERE source = 'orders' AND file LIKE '%.csv' ORDER BY file, line"
    )
    packed = loaded.sql("SELECT count(*) FROM ops.dead_letters WHERE raw IS NULL")
    assert packed == [(0,)] and rows
    for file, line, raw in rows:
        text = (shop[0] / file).read_bytes().decode().splitlines()
        assert text[line - 1] == raw


def test_running_again_changes_nothing(loaded: Bench, contracts: dict[str, Contract]) -> None:
    before = {s: loaded.bronze(s) for s in SOURCES}, loaded.snapshots()
    for source in SOURCES:
        again = loaded.ingest(contracts[source], run_id="second")
        assert all(b.unchanged for b in again.batches)
        assert {b.partition_key: (b.rows_read, b.rows_accepted) for b in again.batches} == {
            key: counts[:2] for key, counts in loaded.ledger(source).items()
        }
    assert ({s: loaded.bronze(s) for s in SOURCES}, loaded.snapshots()) == before
    assert loaded.sql("SELECT DISTINCT run_id FROM ops.ledger") == [("first",)]


@pytest.mark.parametrize("order", ["as they came", "shuffled and replayed"])
def test_any_order_of_arrival_gives_the_same_rows(
    order: str, loaded: Bench, shop: tuple[Path, Truth], contracts: dict[str, Contract], make_bench: MakeBench
) -> None:
    bench = make_bench("arriving")
    names = [name for _, name in shop[1].arrivals]
    sources = ("events",) if order == "as they came" else ("orders", "products")
    if order == "as they came":
        rounds = [[name for day, name in shop[1].arrivals if day == index] for index in range(DAYS)]
    else:
        random.Random(1).shuffle(names)
        rounds = [names[::2], names[1::2], names[:5]]
    for delivered in rounds:
        for name in delivered:
            target = bench.landing / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(shop[0] / name, target)
        for source in sources:
            bench.ingest(contracts[source])
        agreement(bench)
    for source in sources:
        assert bench.bronze(source) == loaded.bronze(source)
        assert bench.ledger(source) == loaded.ledger(source)
        assert bench.letters(source) == loaded.letters(source)


def test_one_by_one_in_chunks_or_at_once_is_the_same(
    loaded: Bench, shop: tuple[Path, Truth], contracts: dict[str, Contract], make_bench: MakeBench
) -> None:
    orders = contracts["orders"]
    keys = sorted(loaded.ledger("orders"))
    tiny = make_bench("tiny", landing=shop[0], chunk_bytes=1)
    result = tiny.ingest(orders)
    assert [b.partition_key for b in result.batches] == keys
    assert tiny.bronze("orders") == loaded.bronze("orders")
    commits = "SELECT commit_message FROM ducklake_snapshots('lake') WHERE commit_message LIKE 'ingest%'"
    assert [m for (m,) in tiny.sql(commits)] == [f"ingest orders {key} (1 batch)" for key in keys]
    assert len(loaded.sql(commits)) == len(SOURCES)
    single = make_bench("single", landing=shop[0])
    last = keys[-3:]  # one of them brings a column besides the contract's
    for key in reversed(last):
        (batch,) = single.ingest(orders, [key]).batches
        assert batch.partition_key == key
    assert single.bronze("orders") == loaded.sql(
        "SELECT * EXCLUDE (_ingested_at) FROM bronze.orders WHERE _partition_key IN (SELECT unnest(?)) "
        "ORDER BY _partition_key, _file, _line",
        [last],
    )
    assert single.letters("orders") == [x for x in loaded.letters("orders") if "|".join(parts(x[0])) in last]
    agreement(single)


def parts(file: str) -> tuple[str, str]:
    """Date and region of an orders file."""
    _, region, day, _ = file.split("/")
    return day.removeprefix("date="), region.removeprefix("region=")


# One partition and what may happen to it


def test_rows_arrive_with_where_they_came_from(bench: Bench, contracts: dict[str, Contract]) -> None:
    path = bench.put_orders("2026-01-05|eu", GOOD, "", BAD, GOOD)
    (batch,) = bench.ingest(contracts["orders"], run_id="r1").batches
    assert (batch.rows_read, batch.rows_accepted, batch.rows_dead_lettered, batch.rows_duplicate) == (3, 0, 2, 1)
    assert batch.status == "refused"
    bench.put("orders/region=eu/date=2026-01-06/o.csv", path.read_text().replace(BAD, ""))
    (batch,) = bench.ingest(contracts["orders"], ["2026-01-06|eu"], run_id="r2").batches
    assert bench.sql("SELECT * EXCLUDE (_ingested_at, _batch_id) FROM bronze.orders") == [
        (
            "eu",
            date(2026, 1, 6),
            "489434",
            "85048",
            "CUP",
            1,
            *bench.sql("SELECT TIMESTAMP '2026-01-01 10:00:00', 1.5::DECIMAL(12,4)")[0],
            "12345",
            "United Kingdom",
            "2026-01-06|eu",
            "orders/region=eu/date=2026-01-06/o.csv",
            2,
            None,
        )
    ]
    assert bench.sql("SELECT _batch_id FROM bronze.orders") == [(batch.batch_id,)]
    assert bench.sql("SELECT run_id, contract_version, status FROM ops.ledger ORDER BY ingested_at") == [
        ("r1", "1.0.0", "refused"),
        ("r2", "1.0.0", "accepted"),
    ]


def test_a_partition_without_files_is_named(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put_orders("2026-01-01|uk", GOOD)
    result = bench.ingest(contracts["orders"], ["2026-01-01|uk", "2026-01-02|uk"])
    assert result.empty_partitions == ("2026-01-02|uk",)
    assert [b.partition_key for b in result.batches] == ["2026-01-01|uk"]
    assert result.total("rows_accepted") == 1 and result.refused == ()


def test_a_late_file_replaces_its_partition_and_no_other(bench: Bench, contracts: dict[str, Contract]) -> None:
    orders = contracts["orders"]
    bench.put_orders("2026-01-01|uk", *lines(3))
    bench.put_orders("2026-01-01|eu", *lines(2))
    bench.ingest(orders)
    other = bench.sql("SELECT * FROM bronze.orders WHERE region = 'eu' ORDER BY ALL")
    bench.put_orders("2026-01-01|uk", *lines(5)[3:], BAD.replace("489434", "C100000"), *lines(40)[5:], name="late.csv")
    first, second = bench.ingest(orders).batches
    assert (first.partition_key, first.unchanged) == ("2026-01-01|eu", True)
    assert (second.partition_key, second.unchanged, second.files) == ("2026-01-01|uk", False, 2)
    assert bench.ledger("orders") == {"2026-01-01|eu": (2, 2, 0, 0), "2026-01-01|uk": (41, 40, 1, 0)}
    assert bench.sql("SELECT * FROM bronze.orders WHERE region = 'eu' ORDER BY ALL") == other
    superseded = bench.sql("SELECT superseded_by FROM ops.ledger WHERE superseded_by IS NOT NULL")
    assert superseded == [(second.batch_id,)]
    agreement(bench)


def test_a_refused_batch_leaves_what_was_there_until_it_is_repaired(
    bench: Bench, contracts: dict[str, Contract]
) -> None:
    orders = contracts["orders"]
    key = "2026-01-01|uk"
    path = bench.put_orders(key, *lines(40), BAD)
    (first,) = bench.ingest(orders).batches
    assert (first.status, first.rows_accepted, first.rows_dead_lettered) == ("accepted", 40, 1)
    held, original = bench.bronze("orders"), path.read_bytes()

    bench.put_orders(key, *lines(10), BAD, BAD + "x", GOOD)
    (refused,) = bench.ingest(orders).batches
    assert (refused.status, refused.rows_read, refused.rows_accepted, refused.rows_dead_lettered) == (
        "refused",
        13,
        0,
        13,
    )
    assert bench.bronze("orders") == held
    file = "orders/region=uk/date=2026-01-01/orders.csv"
    # The first batch still stands, and so does its dead letter.
    assert bench.letters("orders") == [
        (file, 12, 1, ["type"]),
        (file, 13, 1, ["type"]),
        (file, 42, 1, ["type"]),
        (file, None, 11, ["batch_refused"]),
    ]
    (detail,) = bench.sql("SELECT reasons[1].detail FROM ops.dead_letters WHERE line IS NULL")[0]
    assert detail.startswith("2 of 13 rows were rejected, more than the contract allows")
    # Running again without a change stays refused and writes nothing.
    count = bench.snapshots()
    assert [(b.status, b.unchanged) for b in bench.ingest(orders).batches] == [("refused", True)]
    assert bench.snapshots() == count

    bench.put_orders(key, *lines(12), BAD.replace("one", "two"), *lines(50)[12:])
    (repaired,) = bench.ingest(orders).batches
    assert (repaired.status, repaired.rows_accepted, repaired.rows_dead_lettered) == ("accepted", 50, 1)
    assert bench.letters("orders") == [(file, 14, 1, ["type"])]
    assert len(bench.letters("orders", "superseded")) == 4
    assert bench.sql("SELECT count(*) FROM ops.ledger WHERE superseded_by = ?", [repaired.batch_id]) == [(2,)]
    agreement(bench)

    # The very first file delivered again is the first batch again.
    path.write_bytes(original)
    (again,) = bench.ingest(orders).batches
    assert (again.batch_id, again.unchanged, again.rows_accepted) == (first.batch_id, False, 40)
    assert bench.bronze("orders") == held
    assert bench.letters("orders") == [(file, 42, 1, ["type"])]
    agreement(bench)


def test_the_threshold_itself_is_allowed(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract({"n": {"physicalType": "INTEGER"}}, share=0.25)
    bench.put("things/date=2026-01-01/at.csv", "n\n1\n2\n3\nx\n")
    bench.put("things/date=2026-01-02/over.csv", "n\n1\n2\nx\ny\n")
    assert [b.status for b in bench.ingest(contract).batches] == ["accepted", "refused"]
    assert bench.sql("SELECT n FROM bronze.things ORDER BY n") == [(1,), (2,), (3,)]


def test_a_broken_file_does_not_take_its_partition_down(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract({"n": {"physicalType": "INTEGER", "required": True}}, formats=["csv", "parquet"])
    folder = "things/date=2026-01-01"
    bench.put(f"{folder}/good.csv", "n\n1\n2\n")
    bench.put(f"{folder}/header.csv", "n,n\n1,1\n2,2\n3,3\n")
    bench.put(f"{folder}/empty.csv", "")
    bench.put(f"{folder}/mark.csv", b"\xef\xbb\xbf")
    (bench.put(f"{folder}/cut.csv.gz", "n\n" * 999)).write_bytes(b"\x1f\x8b\x08 and no more")
    bench.put(f"{folder}/no.parquet", "PAR1 is not enough PAR1")
    bench.put(f"{folder}/bytes.csv", b"n\n5\n\xff\n")
    result = bench.ingest(contract)
    assert bench.ledger("things") == {"2026-01-01": (9, 3, 6, 0)}
    assert {(Path(p.file).name, p.rule, p.rows) for p in result.problems} == {
        ("header.csv", "malformed", 3),
        ("empty.csv", "empty_file", 0),
        ("mark.csv", "empty_file", 0),
        ("cut.csv.gz", "unreadable_file", 1),
        ("no.parquet", "unreadable_file", 1),
    }
    assert bench.sql("SELECT n FROM bronze.things ORDER BY n") == [(1,), (2,), (5,)]
    # A second run tells them again: they are still there.
    assert {(p.file, p.rule, p.detail) for p in bench.ingest(contract).problems} == {
        (p.file, p.rule, p.detail) for p in result.problems
    }
    agreement(bench)


def test_duplicates_are_sought_in_the_file_or_in_the_batch(bench: Bench, make_contract: MakeContract) -> None:
    for name, scope, expected in (("ones", "file", (6, 4, 0, 2)), ("twos", "batch", (6, 3, 0, 3))):
        contract = make_contract({"n": {}}, name=name, duplicates=scope)
        bench.put(f"{name}/date=2026-01-01/a.csv", "n\na\nb\na\n")
        bench.put(f"{name}/date=2026-01-01/b.csv", "n\nb\nc\nc\n")
        bench.ingest(contract)
        assert bench.ledger(name) == {"2026-01-01": expected}
    assert bench.sql("SELECT n, _line FROM bronze.twos ORDER BY n") == [("a", 2), ("b", 3), ("c", 3)]


def test_of_a_unique_value_the_first_good_row_is_kept(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract({"id": {"unique": True}, "n": {"physicalType": "INTEGER"}})
    bench.put("things/date=2026-01-01/a.csv", "id,n\na,x\na,1\na,2\n,3\n,4\nb,5\n")
    bench.put("things/date=2026-01-01/b.csv", "id,n\nb,6\nc,7\n")
    bench.put("things/date=2026-01-02/c.csv", "id,n\na,8\n")
    bench.ingest(contract)
    assert bench.sql("SELECT n FROM bronze.things ORDER BY n") == [(n,) for n in (1, 3, 4, 5, 7, 8)]
    assert bench.letters("things") == [
        ("things/date=2026-01-01/a.csv", 2, 1, ["type"]),
        ("things/date=2026-01-01/a.csv", 4, 1, ["unique"]),
        ("things/date=2026-01-01/b.csv", 2, 1, ["unique"]),
    ]
    # A contract without any rule of its own can be loaded, too.
    plain = make_contract({"id": {}, "n": {"unique": True}}, name="plain")
    bench.put("plain/date=2026-01-01/a.csv", "id,n\n1,a\n2,a\n3\n")
    bench.ingest(plain)
    assert [rules for *_, rules in bench.letters("plain")] == [["unique"], ["malformed"]]


def test_force_writes_again_and_leaves_the_same_rows(bench: Bench, contracts: dict[str, Contract]) -> None:
    orders = contracts["orders"]
    bench.put_orders("2026-01-01|uk", *lines(40), BAD)
    bench.ingest(orders, run_id="first")
    before = bench.bronze("orders"), bench.ledger("orders"), bench.letters("orders")
    (batch,) = bench.ingest(orders, run_id="again", force=True).batches
    assert not batch.unchanged
    assert (bench.bronze("orders"), bench.ledger("orders"), bench.letters("orders")) == before
    assert bench.sql("SELECT run_id FROM ops.ledger") == [("again",)]
    agreement(bench)


def test_a_touched_file_is_noted_and_not_loaded_again(bench: Bench, contracts: dict[str, Contract]) -> None:
    orders = contracts["orders"]
    path = bench.put_orders("2026-01-01|uk", GOOD)
    bench.put_orders("2026-01-02|uk", GOOD)
    bench.ingest(orders, run_id="first")
    noted = bench.sql("SELECT file, size, sha256 FROM ops.positions ORDER BY file")
    os.utime(path, ns=(1_700_000_000_000_000_000, 1_700_000_000_000_000_000))
    assert all(b.unchanged for b in bench.ingest(orders, run_id="second").batches)
    assert bench.sql("SELECT file, size, sha256 FROM ops.positions ORDER BY file") == noted
    times = dict(bench.sql("SELECT partition_key, mtime_ns FROM ops.positions"))
    assert times["2026-01-01|uk"] == 1_700_000_000_000_000_000 != times["2026-01-02|uk"]
    assert bench.sql("SELECT DISTINCT run_id FROM ops.ledger") == [("first",)]
    # The rows of a file that was taken away are not given up unasked.
    bench.put_orders("2026-01-02|uk", *lines(2), name="more.csv")
    bench.ingest(orders)
    (bench.landing / "orders/region=uk/date=2026-01-02/more.csv").unlink()
    held = bench.ingest(orders)
    assert [(p.rule, p.partition_key, p.rows) for p in held.held_back] == [("file_vanished", "2026-01-02|uk", 2)]
    assert bench.ledger("orders") == {"2026-01-01|uk": (1, 1, 0, 0), "2026-01-02|uk": (3, 3, 0, 0)}
    agreement(bench)
    bench.ingest(orders, force=True)
    assert bench.ledger("orders") == {"2026-01-01|uk": (1, 1, 0, 0), "2026-01-02|uk": (1, 1, 0, 0)}
    agreement(bench)


def test_the_temporary_folder_is_left_empty(bench: Bench, make_contract: MakeContract) -> None:
    bench.put("things/date=2026-01-01/a.csv", b"n\n1\n\xff\n")
    bench.ingest(make_contract({"n": {}}))
    assert list(bench.settings.temp_path.iterdir()) == []


# Accidents

SCRIPT = """
import sys, time
from pathlib import Path
from sluice.contracts import load_contracts
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.settings import PROJECT, load_settings
home, landing, mode, start = sys.argv[1:]
lake = Lake(load_settings(home=Path(home), landing=Path(landing), chunk_bytes=1 if mode == "forever" else 10**8))
contract = load_contracts(PROJECT / "contracts")["orders"]
print("ready", flush=True)
while time.time() < float(start):
    time.sleep(0.001)
while True:
    ingest(lake, contract, force=mode != "once", run_id=mode)
    if mode != "forever":
        break
"""


def started(bench: Bench, landing: Path, mode: str, start: float = 0.0) -> subprocess.Popen[str]:
    script = bench.settings.home / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(
        [sys.executable, str(script), str(bench.settings.home), str(landing), mode, str(start)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_killed_ingest_leaves_whole_batches(
    bench: Bench,
    make_bench: MakeBench,
    loaded: Bench,
    shop: tuple[Path, Truth],
    contracts: dict[str, Contract],
) -> None:
    rng = random.Random(5)
    for _ in range(5):
        process = started(bench, shop[0], "forever")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.4, 1.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        if bench.settings.catalog_path.exists():
            bench.lake.create()
            agreement(bench)
    again = make_bench("home", landing=shop[0])
    again.ingest(contracts["orders"])
    assert again.bronze("orders") == loaded.bronze("orders")
    assert again.ledger("orders") == loaded.ledger("orders")
    agreement(again)


@pytest.mark.parametrize("mode", ["once", "forced"])
def test_two_processes_on_the_same_partitions_end_as_one(
    mode: str, bench: Bench, loaded: Bench, shop: tuple[Path, Truth]
) -> None:
    start = time.time() + 1.5
    both = [started(bench, shop[0], mode, start) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert bench.bronze("orders") == loaded.bronze("orders")
    assert bench.ledger("orders") == loaded.ledger("orders")
    assert bench.sql("SELECT count(*), count(DISTINCT batch_id) FROM ops.ledger") == [
        (len(loaded.ledger("orders")),) * 2
    ]
    agreement(bench)


# Any rows at all

ROW = st.one_of(
    st.builds(
        lambda k, n, u: f"{k},{n},{u}",
        st.sampled_from(["a", "bb", "c d", "A", ""]),
        st.sampled_from(["1", "2", "-3", "x", "1.5", ""]),
        st.sampled_from(["p", "q", "r", ""]),
    ),
    st.sampled_from(["", "a,1", "a,1,p,4", '"a,1,p', '"a",1,"p"', '"a""",1,p', ",,"]),
)
FILES = st.lists(st.lists(ROW, max_size=12), min_size=1, max_size=3)


def naive(batch: list[list[str]], scope: str) -> tuple[Counter[tuple[Any, ...]], tuple[int, int, int, int]]:
    """What a plain reading of the contract makes of a batch: the accepted rows and the balance."""
    accepted: Counter[tuple[Any, ...]] = Counter()
    read = dead = twins = 0
    seen: set[str] = set()
    taken: set[str] = set()
    for rows in batch:
        if scope == "file":
            seen = set()
        for row in rows:
            if row == "":
                continue
            read += 1
            if row in seen:
                twins += 1
                continue
            seen.add(row)
            fields = {'"a",1,"p"': ["a", "1", "p"], '"a""",1,p': ['a"', "1", "p"], '"a,1,p': None}.get(
                row, row.split(",")
            )
            good = (
                fields is not None
                and len(fields) == 3
                and fields[0] != ""
                and all(c.islower() and c.isalpha() for c in fields[0])
                and fields[1] in ("", "1", "2")
                and (fields[2] == "" or fields[2] not in taken)
            )
            if fields is None or not good:
                dead += 1
                continue
            taken.add(fields[2])
            accepted[fields[0], int(fields[1]) if fields[1] else None, fields[2] or None] += 1
    return accepted, (read, accepted.total(), dead, twins)


@pytest.fixture(scope="module")
def any_rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, list[date]]:
    """A lake for all examples, each on days of its own, and the first free day."""
    return Bench(tmp_path_factory.mktemp("any")), [date(2026, 1, 1)]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batches=st.lists(FILES, min_size=1, max_size=6), scope=st.sampled_from(["file", "batch"]))
def test_any_rows_are_accepted_dead_lettered_or_duplicates(
    batches: list[list[list[str]]], scope: str, any_rows: tuple[Bench, list[date]], make_contract: MakeContract
) -> None:
    bench, next_day = any_rows
    contract = make_contract(
        {
            "k": {"required": True, "logicalTypeOptions": {"pattern": "^[a-z]+$"}},
            "n": {"physicalType": "INTEGER", "logicalTypeOptions": {"minimum": 0}},
            "u": {"unique": True},
        },
        name=f"{scope}s",
        duplicates=scope,
    )
    keys = []
    for files in batches:
        key = next_day[0].isoformat()
        next_day[0] += timedelta(days=1)
        keys.append(key)
        for number, rows in enumerate(files):
            bench.put(f"{scope}s/date={key}/{number}.csv", "\n".join(["k,n,u", *rows]) + "\n")
    result = bench.ingest(contract, keys)
    assert [b.partition_key for b in result.batches] == keys
    held: dict[str, Counter[tuple[Any, ...]]] = {key: Counter() for key in keys}
    for key, *row in bench.sql(
        f"SELECT _partition_key, k, n, u FROM bronze.{scope}s WHERE _partition_key IN (SELECT unnest(?))", [keys]
    ):
        held[key][tuple(row)] += 1
    for files, outcome in zip(batches, result.batches, strict=True):
        accepted, balance = naive(files, scope)
        assert held[outcome.partition_key] == accepted
        assert balance == (
            outcome.rows_read,
            outcome.rows_accepted,
            outcome.rows_dead_lettered,
            outcome.rows_duplicate,
        )
        assert outcome.balanced


@pytest.mark.parametrize("now", [None, "area"])
def test_partitions_of_another_cut_are_refused_before_rows_are_loaded_twice(
    now: str | None, bench: Bench, make_contract: MakeContract
) -> None:
    """The same files would have other keys: fewer parts or, for `area` sorts before `date`, the same turned round."""

    def cut(name: str | None) -> Contract:
        parted = {"partitions": {name: ["uk", "eu"]}} if name else {}
        return make_contract({"n": {}}, path=f"things/{{{name or 'region'}}}/{{date}}", **parted)

    bench.put("things/uk/2026-01-01/a.csv", "n\n1\n")
    bench.ingest(cut("region"))
    with pytest.raises(ContractError, match=r"partitions such as '2026-01-01\|uk'.*Keep landing.partitions"):
        bench.ingest(cut(now))
    assert bench.sql("SELECT _partition_key, n FROM bronze.things") == [("2026-01-01|uk", "1")]
    bench.ingest(cut("shop"))
    assert bench.sql("SELECT _partition_key, n FROM bronze.things") == [("2026-01-01|uk", "1")]
