"""What goes wrong outside: each accident is one clear error or one dead letter, and nothing else is lost by it.

One test for each entry of the issue's list: unreadable file, empty file, file of no partition, missing landing folder,
misspelt contract, full disk, unreachable catalog.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from sluice.backup import back_up, restore
from sluice.contracts import Contract, load_contracts
from sluice.dead_letters import Choice
from sluice.errors import ContractError, LakeUnavailableError, LandingError, StorageFullError
from sluice.ingest import ingest
from sluice.inventory import take_inventory
from sluice.lake import Lake
from sluice.replay import replay
from sluice.settings import PROJECT, load_settings
from tests.conftest import Bench, MakeContract
from tests.warehouse import dbt_test

GOOD = "489434,85048,CUP,1,2026-01-01 10:00:00,1.50,12345,United Kingdom"
KEY = "2026-01-01|uk"
FOLDER = "orders/region=uk/date=2026-01-01"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait hundredths of a second instead of seconds."""
    monkeypatch.setattr("sluice.lake.FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr("sluice.lake.LONGEST_WAIT_SECONDS", 0.01)


def many(count: int) -> list[str]:
    return [GOOD.replace("489434", str(500_000 + n)) for n in range(count)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_set_aside_alone(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put_orders(KEY, *many(40))
    secret = bench.put_orders(KEY, GOOD, name="secret.csv")
    secret.chmod(0)
    result = bench.ingest(contracts["orders"])
    assert bench.ledger("orders") == {KEY: (41, 40, 1, 0)}
    (problem,) = result.problems
    assert (problem.file, problem.rule) == (f"{FOLDER}/secret.csv", "unreadable_file")
    assert "Permission denied" in problem.detail
    secret.chmod(0o644)
    bench.ingest(contracts["orders"])
    assert bench.ledger("orders") == {KEY: (41, 41, 0, 0)}


def test_a_damaged_file_is_set_aside_alone_until_it_comes_again(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put_orders(KEY, *many(40))
    whole = bench.put(f"{FOLDER}/packed.csv.gz", bench.put_orders(KEY, GOOD, name="x.csv").read_text())
    (bench.landing / FOLDER / "x.csv").unlink()
    data = whole.read_bytes()
    whole.write_bytes(data[:-10])
    (problem,) = bench.ingest(contracts["orders"]).problems
    assert (problem.file, problem.rule, problem.rows) == (f"{FOLDER}/packed.csv.gz", "unreadable_file", 1)
    assert problem.detail.endswith("Deliver it again under the same name.")
    assert bench.ledger("orders") == {KEY: (41, 40, 1, 0)}
    assert bench.letters("orders") == [(f"{FOLDER}/packed.csv.gz", None, 1, ["unreadable_file"])]
    whole.write_bytes(data)
    assert bench.ingest(contracts["orders"]).problems == ()
    assert bench.ledger("orders") == {KEY: (41, 41, 0, 0)}
    assert bench.letters("orders") == []


def test_links_that_lead_nowhere_are_told(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put_orders(KEY, GOOD)
    (bench.landing / FOLDER / "loop.csv").symlink_to("loop.csv")
    (bench.landing / FOLDER / "gone.csv").symlink_to("nothing.csv")
    _, found = take_inventory(bench.lake, [contracts["orders"]])
    assert [Path(u.path).name for u in found.unroutable] == ["gone.csv", "loop.csv"]
    bench.ingest(contracts["orders"])
    assert bench.ledger("orders")[KEY] == (1, 1, 0, 0)


def test_an_empty_file_is_told_and_counts_no_row(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put(f"{FOLDER}/empty.csv", "")
    result = bench.ingest(contracts["orders"])
    (batch,) = result.batches
    assert (batch.status, batch.rows_read, batch.rows_dead_lettered) == ("accepted", 0, 0)
    (problem,) = result.problems
    assert (problem.rule, problem.rows) == ("empty_file", 0)
    assert problem.detail == "The file has no bytes, not even a header. Ask for it to be delivered again."
    assert bench.letters("orders") == [(f"{FOLDER}/empty.csv", None, 0, ["empty_file"])]


def test_a_file_of_no_partition_is_in_the_books(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put("orders/region=mars/date=2026-01-01/o.csv", "x")
    bench.put("orders/region=uk/date=2026-13-01/o.csv", "x")
    bench.put_orders(KEY, GOOD)
    result = bench.ingest(contracts["orders"])
    assert [b.partition_key for b in result.batches] == [KEY]
    take_inventory(bench.lake, [contracts["orders"]])
    details = bench.sql("SELECT reasons[1].detail FROM ops.dead_letters WHERE status = 'open' ORDER BY file")
    assert [d for (d,) in details] == [
        "unknown region 'mars'; known are uk, eu, row. Move or rename it, or mend the setting or the "
        "contract that leaves it out.",
        "'2026-13-01' is no date like 2026-01-31. Move or rename it, or mend the setting or the contract "
        "that leaves it out.",
    ]


def test_a_missing_landing_folder_stops_the_run_and_changes_nothing(
    bench: Bench, contracts: dict[str, Contract]
) -> None:
    bench.put_orders(KEY, GOOD)
    bench.ingest(contracts["orders"])
    before = bench.bronze("orders"), bench.snapshots()
    bench.landing.rename(bench.landing.with_name("elsewhere"))
    for call in (
        lambda: bench.ingest(contracts["orders"]),
        lambda: take_inventory(bench.lake, [contracts["orders"]]),
    ):
        with pytest.raises(LandingError, match="Create it, mount it, or set SLUICE_LANDING"):
            call()
    assert (bench.bronze("orders"), bench.snapshots()) == before


def test_a_misspelt_contract_is_named_with_the_remedy(tmp_path: Path) -> None:
    text = (PROJECT / "contracts" / "orders.odcs.yaml").read_text(encoding="utf-8")
    (tmp_path / "orders.odcs.yaml").write_text(text.replace("maxRejectedShare", "maxRejectShare"))
    with pytest.raises(ContractError) as caught:
        load_contracts(tmp_path)
    assert "orders.odcs.yaml: customProperties.gates has 'maxRejectShare'" in str(caught.value)
    assert "Did you mean 'maxRejectedShare'?" in str(caught.value)


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB of its own; skipped where none can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a file system can only be mounted by root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_commits_nothing_and_is_mended_by_room(
    small_disk: Path, tmp_path: Path, contracts: dict[str, Contract]
) -> None:
    bench = Bench(small_disk, landing=tmp_path / "landing")
    bench.put_orders(KEY, GOOD)
    bench.ingest(contracts["orders"])
    before = bench.bronze("orders"), bench.ledger("orders"), bench.snapshots()
    bench.put_orders("2026-01-02|uk", *many(60_000))
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(b"\0" * 65536)
                file.flush()
        except OSError:
            pass
    ballast.write_bytes(b"")
    with ballast.open("wb") as file:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        file.write(b"\0" * (free - 100_000))
    with pytest.raises(StorageFullError) as caught:
        bench.ingest(contracts["orders"])
    message = str(caught.value)
    assert f"The disk under {small_disk} is full" in message
    assert "Nothing of this batch was committed" in message and "run it again" in message
    ballast.unlink()
    assert (bench.bronze("orders"), bench.ledger("orders"), bench.snapshots()) == before
    bench.ingest(contracts["orders"])
    assert bench.ledger("orders") == {KEY: (1, 1, 0, 0), "2026-01-02|uk": (60_000, 60_000, 0, 0)}
    bench.close()


def test_no_room_for_a_clean_copy_is_a_full_disk(
    small_disk: Path, tmp_path: Path, contracts: dict[str, Contract]
) -> None:
    bench = Bench(small_disk, landing=tmp_path / "landing")
    bench.put(f"{FOLDER}/o.csv", b"\xff\n" + (b"x" * 99 + b"\n") * 400_000)
    with pytest.raises(StorageFullError, match="Nothing of this batch was committed"):
        bench.ingest(contracts["orders"])
    assert list(bench.settings.temp_path.iterdir()) == []
    assert bench.sql("SELECT count(*) FROM ops.ledger") == [(0,)]
    bench.close()


def test_a_file_size_limit_is_an_error_and_commits_nothing(bench: Bench, contracts: dict[str, Contract]) -> None:
    """Where nothing can be mounted: a process that may write only 200 kB to a file."""
    bench.put_orders(KEY, GOOD)
    bench.ingest(contracts["orders"])
    before = bench.bronze("orders"), bench.ledger("orders"), bench.snapshots()
    bench.put_orders("2026-01-02|uk", *[f"{500_000 + n},{n * 7919 % 104_729},{GOOD[13:]}" for n in range(80_000)])
    script = (
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import resource, sys\nfrom pathlib import Path\nfrom sluice.contracts import load_contracts\n"
        "from sluice.errors import SluiceError\nfrom sluice.ingest import ingest\nfrom sluice.lake import Lake\n"
        "from sluice.settings import PROJECT, load_settings\n"
        "lake = Lake(load_settings(home=Path(sys.argv[1])))\n"
        "contract = load_contracts(PROJECT / 'contracts')['orders']\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try:\n    ingest(lake, contract)\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    path = bench.settings.home / "limited.py"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, str(path), str(bench.settings.home)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("StorageFullError") and "File too large" in done.stdout
    assert (bench.bronze("orders"), bench.ledger("orders"), bench.snapshots()) == before
    bench.ingest(contracts["orders"])
    assert bench.ledger("orders")["2026-01-02|uk"] == (80_000, 80_000, 0, 0)


# A catalog that cannot be reached


def test_a_catalog_that_is_a_folder(bench: Bench, contracts: dict[str, Contract], impatient: None) -> None:
    bench.settings.catalog_path.mkdir(parents=True)
    with pytest.raises(LakeUnavailableError) as caught:
        bench.ingest(contracts["orders"])
    message = str(caught.value)
    assert f"The catalog {bench.settings.catalog_path} cannot be opened" in message
    assert "Check SLUICE_HOME and SLUICE_CATALOG" in message and "\n" not in message


@pytest.mark.parametrize("content", [b"this is no database " * 500, b"SQLite format 3\0" + b"\xa5" * 8000])
def test_a_catalog_that_is_damaged_is_left_as_it_is(
    content: bytes, bench: Bench, contracts: dict[str, Contract], impatient: None
) -> None:
    bench.settings.catalog_path.parent.mkdir(parents=True)
    bench.settings.catalog_path.write_bytes(content)
    with pytest.raises(LakeUnavailableError, match="cannot be opened"):
        bench.ingest(contracts["orders"])
    assert bench.settings.catalog_path.read_bytes() == content


@pytest.mark.parametrize("emptied", [False, True])
def test_a_lost_catalog_is_not_replaced_by_an_empty_lake(
    emptied: bool, bench: Bench, contracts: dict[str, Contract], tmp_path: Path
) -> None:
    bench.put_orders(KEY, *many(40))
    bench.ingest(contracts["orders"])
    before = bench.bronze("orders")
    bench.close()
    back_up(bench.settings, tmp_path / "backup")
    for path in bench.settings.catalog_path.parent.glob("catalog.sqlite*"):
        path.unlink()
    if emptied:
        bench.settings.catalog_path.touch()
    there = sorted(path for path in bench.settings.home.rglob("*") if path.is_file())
    for call in (lambda: bench.ingest(contracts["orders"]), bench.lake.create, lambda: bench.sql("SELECT 1")):
        with pytest.raises(LakeUnavailableError, match=r"the catalog is gone.*Nothing was made anew.*restore a backup"):
            call()
    # dbt attaches the lake by itself.
    with pytest.raises(AssertionError, match="creating a new DuckLake is explicitly disabled"):
        dbt_test(bench.settings, "books_balance_over_the_lake")
    ours = sorted(
        p for p in bench.settings.home.rglob("*") if p.is_file() and (bench.settings.home / "dbt") not in p.parents
    )
    assert [p for p in ours if p.name not in ("catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm")] == [
        p for p in there if p.name != "catalog.sqlite"
    ]
    # Both ways out that the message names.
    restored = tmp_path / "restored"
    restore(tmp_path / "backup", restored, bench.settings)
    with Lake(load_settings(home=restored)).reading() as con:
        assert con.execute("SELECT count(_line) FROM bronze.orders").fetchall() == [(40,)]
    Path(bench.settings.lake_data_path).rename(tmp_path / "old")
    bench.ingest(contracts["orders"])
    assert [row[:-1] for row in bench.bronze("orders")] == [row[:-1] for row in before]


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeUnavailableError, match=r"Cannot write to .*/file: .*Check SLUICE_HOME and its rights"):
        Lake(load_settings(home=tmp_path / "file")).create()


def test_reading_before_there_is_a_lake(bench: Bench) -> None:
    with pytest.raises(LakeUnavailableError, match=r"There is no lake at .* yet\. Run `make demo`"):
        bench.sql("SELECT 1")
    assert not bench.settings.catalog_path.exists()


@pytest.mark.parametrize(
    "connection",
    [
        "host=127.0.0.1 port={port} user=sluice password=hunter2 dbname=lake",
        "host=127.0.0.1 port={port} user=sluice password = 'hunter2 and more' dbname=lake",
        "postgresql://sluice:hunter2@127.0.0.1:{port}/lake",
    ],
)
def test_a_postgresql_server_that_is_down(
    connection: str, tmp_path: Path, contracts: dict[str, Contract], impatient: None
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, but nobody listens
        catalog = "postgres:" + connection.format(port=closed.getsockname()[1])
        settings = load_settings(home=tmp_path, catalog=catalog)
        settings.landing_path.mkdir()
        with pytest.raises(LakeUnavailableError) as caught:
            ingest(Lake(settings), contracts["orders"])
    assert "PostgreSQL catalog stayed locked or unreachable" in str(caught.value)
    assert "Connection refused" in str(caught.value)
    # Neither the message, nor what is printed around it, nor the settings show the password.
    assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + repr(settings) + str(settings)


def test_a_contract_file_that_is_mended_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "orders.odcs.yaml"
    document = yaml.safe_load((PROJECT / "contracts" / "orders.odcs.yaml").read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**document, "stauts": "active"}))
    with pytest.raises(ContractError, match="Did you mean 'status'"):
        load_contracts(tmp_path)
    path.write_text(yaml.safe_dump(document))
    assert list(load_contracts(tmp_path)) == ["orders"]


@pytest.mark.parametrize(
    "column",
    [
        {"quality": [{"name": "r", "type": "custom", "engine": "sluice", "implementation": "qantity <> 0"}]},
        {"quality": [{"name": "r", "type": "custom", "engine": "sluice", "implementation": "quantity <>"}]},
        {"logicalTypeOptions": {"pattern": "^(?=x)"}},
    ],
)
def test_a_rule_sql_cannot_evaluate_is_a_mistake_of_the_contract(
    column: dict[str, Any], bench: Bench, make_contract: MakeContract
) -> None:
    bench.put("things/date=2026-01-01/a.csv", "quantity\n1\n")
    with pytest.raises(ContractError, match="quantity"):
        bench.ingest(make_contract({"quantity": column}))


def test_a_nul_in_a_value_or_name_sets_its_record_aside(bench: Bench, make_contract: MakeContract) -> None:
    """DuckLake's questions to its catalog end at one: with such a value in bronze, no join on its column works."""
    contract = make_contract({"name": {}, "n": {"physicalType": "INTEGER"}}, formats=["csv", "jsonl", "parquet"])
    day = "things/date=2026-01-01"
    bench.put(f"{day}/a.csv", b"name,n\na\0b,1\ngood,2\n")
    bench.put(f"{day}/b.csv", b"name,n,x\0y\nlost,3,4\n")
    documents = [r'{"name":"a\u0000b","n":1}', r'{"x\\\u0000y":"a","n":2}', r'{"name":"a\\u0000b","n":3}']
    bench.put(f"{day}/c.jsonl", "\n".join(documents) + "\n")
    with duckdb.connect() as con:
        rows = "(VALUES ('a' || chr(0), 1, 'x'), ('fine', 2, chr(0)), ('sound', 3, 'x')) AS t(name, n, odd)"
        con.execute(f"COPY (FROM {rows}) TO '{bench.landing / day / 'd.parquet'}' (FORMAT parquet)")
        con.execute(f"COPY (SELECT 'lost' AS name, 1 AS x_y) TO '{bench.landing / day / 'e.parquet'}' (FORMAT parquet)")
    named = bench.landing / day / "e.parquet"
    named.write_bytes(named.read_bytes().replace(b"x_y", b"x\0y"))
    bench.ingest(contract)
    in_bronze = "SELECT name FROM bronze.things WHERE name IN (SELECT name FROM bronze.things) ORDER BY name"
    assert bench.sql(in_bronze) == [("a\\u0000b",), ("good",), ("sound",)]
    assert bench.letters("things") == [
        (f"{day}/a.csv", 2, 1, ["encoding"]),
        (f"{day}/b.csv", None, 1, ["malformed"]),
        (f"{day}/c.jsonl", 1, 1, ["encoding"]),
        (f"{day}/c.jsonl", 2, 1, ["encoding"]),
        (f"{day}/d.parquet", 1, 1, ["encoding"]),
        (f"{day}/d.parquet", 2, 1, ["encoding"]),
        (f"{day}/e.parquet", None, 1, ["malformed"]),
    ]
    # Taken again they are judged likewise, Parquet's as JSON.
    done = replay(bench.lake, contract, Choice())
    assert (done.accepted, done.failed) == (0, 5)
    assert {rules[0] for _, line, _, rules in bench.letters("things") if line} == {"encoding"}
