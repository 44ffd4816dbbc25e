"""Erasing a person from bronze, dead letters, landing files, old snapshots and logs; without silver and gold.

What the warehouse makes of it is in tests/test_erasing_a_person.py. Every test first proves that the search finds the
person.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sluice.books import books
from sluice.cli import main
from sluice.contracts import Contract
from sluice.dead_letters import Choice, letters
from sluice.erasure import run
from sluice.erasure.run import Erased, erase, find
from sluice.errors import ErasureError
from sluice.replay import replay
from sluice.settings import PROJECT
from tests.conftest import ORDERS_HEADER, Bench, MakeBench, MakeContract

ANN, BOB = "15036", "12345"
MAIL = "ann@shop.example"
DAY = "2026-01-02"


def change(customer: str, mail: str | None, lsn: int, op: str = "c") -> str:
    image = {"customer_id": customer, "country": "France", "segment": "retail", "email": mail}
    before, after = (image, None) if op == "d" else (None if op == "c" else image, image)
    source = {"lsn": lsn, "ts_ms": 1767225600000 + lsn}
    return json.dumps({"op": op, "before": before, "after": after, "source": source}, separators=(",", ":"))


def event(number: int, customer: str | None, **more: Any) -> str:
    given = {"event_id": f"e{number}", "event_type": "view", "event_ts": f"{DAY}T10:00:00Z", "visitor_id": f"v{number}"}
    return json.dumps({**given, "customer_id": customer, "stock_code": "85048", "channel": "web", **more})


def order(number: int, customer: str, *, stock: str = "85048", quantity: object = 2) -> str:
    return f"{500000 + number},{stock},CUP,{quantity},{DAY} 10:00:00,2.50,{customer},France"


class Planted:
    """A small shop in which Ann (to be erased) and Bob (to stay) are everywhere."""

    def __init__(self, bench: Bench, contracts: dict[str, Contract]) -> None:
        self.bench = bench
        self.contracts = [dataclasses.replace(c, max_rejected_share=1.0) for c in contracts.values()]
        self.deliver()
        self.ingest()
        home = bench.settings.home
        (home / "dagster" / "storage").mkdir(parents=True)
        (home / "dagster" / "run.log").write_text(f"row of {ANN}, {MAIL}; of {BOB}\n")
        (home / "packed.txt").write_text("nothing")
        # Configuration is nobody's row, though a number in it be Ann's.
        (home / "settings.env").write_text(f"SLUICE_BELIEF_DAYS={ANN}\n")
        with sqlite3.connect(home / "dagster" / "storage" / "index.db") as con:
            con.execute("PRAGMA journal_mode = WAL")
            con.execute("CREATE TABLE event_logs (event TEXT)")
            con.executemany(
                "INSERT INTO event_logs VALUES (?)",
                [(f'{{"preview": "| {ANN} | France |", "pid": {ANN}}}',), (f'{{"preview": "| {BOB} |"}}',)],
            )
        con.close()

    def deliver(self) -> None:
        bench = self.bench
        changes = [change(ANN, "old@ann.example", 1), change(BOB, "bob@shop.example", 2), change(ANN, MAIL, 3, "u")]
        # Twice the same line, and a delete that breaks the envelope and so becomes a dead letter.
        bad = change(ANN, MAIL, 4, "d").replace('"after":null', '"after":{"customer_id":"15036"}')
        bench.put(f"cdc/customers/date={DAY}/c.jsonl.gz", "\n".join([*changes, changes[2], bad]) + "\n")
        bench.put_orders(
            f"{DAY}|uk",
            order(1, ANN),
            order(2, BOB),
            order(3, BOB, stock=ANN),  # a product with the digits of Ann's id
            order(4, ANN, quantity="two"),
            f"500005,{ANN}",
            order(6, BOB, stock=ANN, quantity="two"),
            order(7, ANN),
        )
        bench.put(
            f"events/date={DAY}/hour=10/e.jsonl", "\n".join([event(1, ANN), event(2, BOB), event(3, None)]) + "\n"
        )
        path = bench.landing / f"events/date={DAY}/hour=11/e.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect() as con:
            rows = "\n".join([event(4, ANN), event(5, BOB)])
            (path.parent / "rows.tmp").write_text(rows)
            read = f"read_json('{path.parent}/rows.tmp', format = 'newline_delimited', hive_partitioning = false)"
            con.execute(f"COPY (FROM {read}) TO '{path}'")
        (path.parent / "rows.tmp").unlink()
        bench.put("elsewhere/list.csv", f"name,id\nAnn,{ANN}\nBob,{BOB}\n")

    def ingest(self, **options: Any) -> dict[str, Any]:
        self.bench.close()
        return {c.name: self.bench.ingest(c, **options) for c in self.contracts}

    def find(self, who: str = ANN) -> dict[str, int]:
        self.bench.close()
        return find(self.bench.lake, self.contracts, "customer", who).found

    def erase(self, who: str = ANN, **options: Any) -> Erased:
        self.bench.close()
        return erase(
            self.bench.lake, self.contracts, "customer", who, rebuild=_nothing_to_build, by="a test", **options
        )

    def everything(self, source: str) -> list[tuple[Any, ...]]:
        return self.bench.sql(f"SELECT * EXCLUDE (_ingested_at) FROM bronze.{source} ORDER BY _file, _line")


def _nothing_to_build() -> None:
    raise AssertionError("there is no gold to build")


@pytest.fixture
def planted(bench: Bench, contracts: dict[str, Contract]) -> Planted:
    return Planted(bench, contracts)


def test_a_person_is_found_everywhere_and_then_nowhere(planted: Planted) -> None:
    bench = planted.bench
    found = planted.find()
    for place in (
        "c.jsonl.gz", "orders.csv", "e.jsonl", "elsewhere/list.csv", "run.log", "index.db",
        "bronze.customers: customer_id", "bronze.customers: email", "bronze.orders: customer_id",
        "bronze.events: customer_id", "hour=11: customer_id", "ops/dead_letters: raw",
    ):  # fmt: skip
        assert any(place in where for where in found), f"{place} is not in {sorted(found)}"
    orders, events = planted.everything("orders"), planted.everything("events")

    done = planted.erase()
    assert done.findings.found == {}
    assert planted.find() == {}
    assert (done.rows.rows_removed, done.rows.rows_emptied, done.rows.letters_emptied) == (2, 4, 3)
    assert done.landing_files == 5
    # Not the search, which might be blind: grep.
    home = bench.settings.home
    for path in (p for p in home.rglob("*") if p.is_file()):
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        assert MAIL.encode() not in data, path
        assert b"old@ann.example" not in data, path

    # Bob, and whatever was not Ann's, is as it was; so is what Ann bought, without Ann.
    def blank(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return [tuple(None if v == ANN and i != stock_at else v for i, v in enumerate(r)) for r in rows]

    columns = bench.sql("SELECT column_name FROM (DESCRIBE SELECT * EXCLUDE (_ingested_at) FROM bronze.orders)")
    names = [name for (name,) in columns]
    stock_at = names.index("stock_code")
    assert planted.everything("orders") == blank(orders)
    stock_at = -1
    assert planted.everything("events") == blank(events)
    assert bench.sql("SELECT customer_id, email FROM bronze.customers") == [(BOB, "bob@shop.example")]
    assert planted.find(BOB), "the other person is still there"
    # Ann's digits as a product are told of, not touched; so is Bob's dead letter about it.
    assert any("stock_code" in place for place in done.findings.elsewhere)
    assert [raw for (raw,) in bench.sql("SELECT raw FROM ops.dead_letters WHERE raw IS NOT NULL")] == [
        order(6, BOB, stock=ANN, quantity="two")
    ]
    assert bench.sql("SELECT count(*) FROM ops.dead_letters WHERE status = 'discarded'") == [(3,)]
    assert all(b.balanced for b in books(bench.lake, ["customers", "orders", "events"]))
    with sqlite3.connect(home / "dagster/storage/index.db") as con:
        assert [r[0] for r in con.execute("SELECT event FROM event_logs")] == [
            f'{{"preview": "| ***** | France |", "pid": {ANN}}}',
            f'{{"preview": "| {BOB} |"}}',
        ]


def test_nothing_is_loaded_again_for_the_rewritten_files(planted: Planted) -> None:
    times = {p: p.stat().st_mtime_ns for p in planted.bench.landing.rglob("*") if p.is_file()}
    planted.erase()
    for path, before in times.items():
        assert path.stat().st_mtime_ns == before
    rows = {source: planted.everything(source) for source in ("customers", "orders", "events")}
    noted = planted.bench.sql("SELECT file, size, mtime_ns FROM ops.positions ORDER BY file")
    for file, size, mtime in noted:
        stat = (planted.bench.landing / file).stat()
        assert (stat.st_size, stat.st_mtime_ns) == (size, mtime), "to the sensor no file is new"
    again = planted.ingest()
    assert all(b.unchanged for result in again.values() for b in result.batches)
    assert not any(result.problems for result in again.values())

    # Read again by force, the rewritten files give the same rows under the same numbers.
    forced = planted.ingest(force=True)
    assert not any(b.unchanged for result in forced.values() for b in result.batches)
    assert {source: planted.everything(source) for source in rows} == rows
    assert planted.find() == {}
    # Somebody else in the same files: what was delivered is still known.
    planted.erase(BOB)
    assert all(b.unchanged for result in planted.ingest().values() for b in result.batches)


def test_who_was_erased_does_not_come_back(planted: Planted) -> None:
    planted.erase()
    planted.deliver()
    # Not the very files of before: those are in the books.
    planted.bench.put_orders(
        f"{DAY}|uk", order(1, ANN), order(2, BOB), order(4, ANN, quantity="two"), f"500005,{ANN}", name="later.csv"
    )
    planted.bench.put(f"cdc/customers/date={DAY}/d.jsonl", change(ANN, "new@ann.example", 9, "u") + "\n")
    result = planted.ingest()
    (orders,) = [b for b in result["orders"].batches if not b.unchanged]
    assert (orders.rows_emptied, orders.rows_erased) == (3, 0)
    (customers,) = [b for b in result["customers"].batches if not b.unchanged]
    assert (customers.rows_emptied, customers.rows_erased) == (0, 2 + 1)
    assert all(b.balanced for b in books(planted.bench.lake, ["customers", "orders", "events"]))
    found = planted.find()
    # The lake, whose snapshots are all there still, never had them; what was delivered waits for its own erasure.
    assert [place for place in found if "/landing/" not in place and "hour=11" not in place] == [], found
    assert any("/landing/" in place for place in found)
    lake = planted.bench.settings.home / "lake"
    assert not any(b"new@ann.example" in p.read_bytes() for p in lake.rglob("*") if p.is_file())
    assert planted.bench.sql("SELECT count(*) FROM bronze.orders WHERE customer_id IS NULL") == [(3,)]
    again = planted.erase()
    assert again.again
    assert again.findings.found == {}


def test_cut_short_anywhere_it_goes_on(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    class PulledTheCordError(BaseException):
        """Neither an error nor anything that is caught on the way."""

    def cord(*_: object, **__: object) -> None:
        raise PulledTheCordError

    steps = [
        (run.landing.os, "utime"),
        (run, "erase_rows"),
        (run.purge, "compact"),
        (run.purge, "forget_the_past"),
        (run.purge, "wipe_sqlite"),
    ]
    for module, name in steps:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, cord)
            with pytest.raises(PulledTheCordError):
                planted.erase()
        # Nobody comes back in between.
        again = planted.ingest()
        assert [b for result in again.values() for b in result.batches if not b.unchanged] == [], name
        assert planted.bench.sql("SELECT count(*) FROM ops.erasures WHERE state <> 'done'") == [(1,)]
    done = planted.erase()
    assert done.findings.found == {}
    assert planted.find() == {}
    state, removed, emptied, letters, digest = planted.bench.sql(
        "SELECT state, rows_removed, rows_emptied, letters_emptied, subject_hash FROM ops.erasures"
    )[0]
    assert (state, removed, emptied, letters) == ("done", 2, 4, 3)
    assert ANN not in digest
    assert all(b.balanced for b in books(planted.bench.lake, ["customers", "orders", "events"]))


def test_without_the_key_of_the_list_nothing_is_loaded(planted: Planted) -> None:
    planted.erase()
    path = planted.bench.settings.erasure_key_path
    assert path.stat().st_mode & 0o777 == 0o600
    key = path.read_text()
    os.truncate(path, 0)
    planted.bench.put_orders(f"{DAY}|eu", order(1, ANN))
    with pytest.raises(ErasureError, match=r"Put erasure\.key back"):
        planted.ingest()
    assert planted.bench.sql("SELECT count(*) FROM bronze.orders WHERE region = 'eu'") == [(0,)]
    # Nor does an erasure make one in its place, which would be taken for it: as in a home restored without its key.
    path.unlink()
    with pytest.raises(ErasureError, match=r"Put erasure\.key back"):
        planted.erase(BOB)
    assert not path.exists()
    path.write_text(key)
    planted.ingest()
    assert planted.bench.sql("SELECT customer_id FROM bronze.orders WHERE region = 'eu'") == [(None,)]


def test_a_value_others_have_too_is_not_searched_for(bench: Bench, contracts: dict[str, Contract]) -> None:
    lines = [change(ANN, "family@shop.example", 1), change(BOB, "family@shop.example", 2)]
    bench.put(f"cdc/customers/date={DAY}/c.jsonl", "\n".join(lines) + "\n")
    bench.ingest(contracts["customers"])
    done = erase(bench.lake, list(contracts.values()), "customer", ANN, rebuild=_nothing_to_build)
    assert (done.values_shared, done.findings.found) == (1, {})
    bench.close()
    assert bench.sql("SELECT customer_id, email FROM bronze.customers") == [(BOB, "family@shop.example")]


def test_the_search_sees_what_hides(planted: Planted, tmp_path: Path) -> None:
    """Compressed pages, freed pages of SQLite, packed logs, files of transactions cut short."""
    planted.erase()
    home, data = planted.bench.settings.home, Path(planted.bench.settings.lake_data_path)
    assert planted.find() == {}

    def hidden(make: Callable[[], Path]) -> None:
        path = make()
        assert planted.find(), path
        path.unlink()
        assert planted.find() == {}, path

    def orphan() -> Path:
        with duckdb.connect() as con:
            path = data / "bronze" / "orders" / "orphan.parquet"
            con.execute(
                "COPY (SELECT CAST(10000 + i AS VARCHAR) AS customer_id FROM range(9999) AS r(i)) "
                f"TO '{path}' (COMPRESSION zstd)"
            )
        assert ANN.encode() not in path.read_bytes(), "only its columns tell"
        return path

    def freed() -> Path:
        path = home / "some.db"
        con = sqlite3.connect(path)
        con.execute("PRAGMA secure_delete = OFF")
        con.execute("CREATE TABLE t (a TEXT)")
        con.execute("INSERT INTO t VALUES (?)", [f"of {ANN}."])
        con.commit()
        con.execute("DELETE FROM t")
        con.commit()
        con.close()
        return path

    def packed() -> Path:
        path = home / "old.log.gz"
        path.write_bytes(gzip.compress(f"row of {ANN}".encode()))
        return path

    for make in (orphan, freed, packed):
        hidden(make)
    orphan()
    assert planted.erase().findings.found == {}, "a file of no transaction goes with the person"


def test_what_cannot_be_searched_is_neither_found_nor_passed_over(
    planted: Planted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = planted.bench
    monkeypatch.setenv("SLUICE_HOME", str(bench.settings.home))

    def said(*arguments: str) -> list[str]:
        assert main(["erase", "--yes", *arguments]) == 1
        return [line.strip() for line in "".join(capsys.readouterr()).splitlines()]

    torn = gzip.compress(b"whatever" * 1000)[:-9]
    log = bench.settings.home / "torn.log.gz"
    log.write_bytes(torn)
    told = said("--customer", "15063", "--find")
    assert told[-2:] == [
        f"NOT SEARCHED: {log} (cannot be unpacked)",
        "Nothing was found, but 1 file could not be searched: mend or remove it, and look again.",
    ]
    # Nobody is taken for known because of it, whatever was asked for.
    for more in ((), ("--from-logs",)):
        (told,) = [line for line in said("--customer", "15063", *more) if line.startswith("sluice: ")]
        assert told.startswith("sluice: There is no customer of this id: ") and "It stands in" not in told
        assert told.endswith(f" {log} could not be searched: mend or remove such files and run the same command again.")
    assert bench.sql("SELECT count(*) FROM ops.erasures") == [(0,)]
    file = bench.put(f"orders/region=eu/date={DAY}/torn.csv", torn)
    file = file.rename(file.with_name("torn.csv.gz"))
    cut = bench.put("elsewhere/cut.parquet", b"PAR1 and no more")
    told = said("--customer", ANN, "--find")
    assert [line for line in told if line.startswith("NOT SEARCHED")] == [
        f"NOT SEARCHED: {path} ({why})"
        for path, why in ((cut, "cannot be read"), (file, "cannot be unpacked"), (log, "cannot be unpacked"))
    ]
    assert (
        told[-1] == "The person is still there, and 3 files could not be searched: mend or remove them, and look again."
    )
    bench.close()
    # What no transaction has is removed where it may hold the person.
    orphan = Path(bench.settings.lake_data_path) / "bronze" / "orders" / "orphan.parquet"
    orphan.write_bytes(b"PAR1 and no more")
    assert planted.erase().findings.unsearched.keys() == {str(cut), str(file), str(log)}
    assert not orphan.exists()
    assert bench.sql("SELECT state FROM ops.erasures") == [("built",)], "not done before all could be searched"
    for path in (cut, file, log):
        path.unlink()
    assert planted.erase().findings.nowhere
    bench.close()
    assert bench.sql("SELECT state FROM ops.erasures") == [("done",)]


def test_what_an_account_may_not_read_is_not_searched(planted: Planted) -> None:
    home = planted.bench.settings.home
    planted.bench.close()
    # Root may read what nobody may, unless it is without its privileges.
    limited = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []

    def said() -> tuple[int, str]:
        done = subprocess.run(
            [*limited, sys.executable, "-m", "sluice", "erase", "--customer", ANN, "--find"],
            cwd=PROJECT,
            env={**os.environ, "SLUICE_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    closed = [home / "dump.csv", home / "dump.parquet", home / "closed"]
    for path in closed[:2]:
        path.write_bytes(b"PAR1 NOBODY-7777")
        path.chmod(0)
    code, told = said()
    assert code == 1 and [line.strip() for line in told.splitlines() if "dump" in line] == [
        f"NOT SEARCHED: {path} (cannot be read)" for path in closed[:2]
    ]
    assert "and 2 files could not be searched: mend or remove them, and look again.\n" in told
    # Of a folder nobody knows what is in it.
    closed[2].mkdir(0)
    assert said() == (1, f"sluice: {closed[2]}: Permission denied. Check the path and its rights.\n")
    closed[2].rmdir()
    # Likewise of a landing area that is no folder.
    (home / "landing").rename(home / "landed")
    (home / "landing").write_text("")
    assert said() == (1, f"sluice: {home / 'landing'}: Not a directory. Check the path and its rights.\n")


@pytest.mark.parametrize("name", ["a#b", "100%25x", "what?"])
def test_a_home_may_have_a_name_that_means_something_in_a_uri(
    make_bench: MakeBench, contracts: dict[str, Contract], name: str
) -> None:
    bench = make_bench(name)
    bench.put_orders(f"{DAY}|uk", order(1, ANN), order(2, BOB))
    bench.ingest(contracts["orders"])
    log = bench.settings.home / "dagster.db"
    with sqlite3.connect(log) as con:
        con.execute("CREATE TABLE event_logs (event TEXT)")
        con.execute("INSERT INTO event_logs VALUES (?)", [f"| {ANN} |"])
    con.close()

    def found() -> dict[str, int]:
        bench.close()
        return find(bench.lake, list(contracts.values()), "customer", ANN).found

    assert any("dagster.db: event_logs.event" in place for place in found())
    bench.close()
    done = erase(bench.lake, list(contracts.values()), "customer", ANN, rebuild=_nothing_to_build)
    assert (done.rows.rows_emptied, done.findings.found, found()) == (1, {}, {})
    assert bench.sql("SELECT customer_id FROM bronze.orders ORDER BY 1 NULLS FIRST") == [(None,), (BOB,)]


def test_an_id_that_stands_in_packed_bytes_by_chance_is_nobody(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract(
        {
            "customer": {"customProperties": [{"property": "subject", "value": "customer"}]},
            "x": {"physicalType": "DOUBLE"},
        },
        formats=["parquet"],
    )
    file = bench.landing / "things/date=2026-01-01/a.parquet"
    file.parent.mkdir(parents=True)
    with duckdb.connect() as con:
        (number,) = struct.unpack("<d", b"\x00 15036\x00")
        con.execute("CREATE TABLE t AS SELECT '7' AS customer, ?::DOUBLE AS x", [number])
        con.execute(f"COPY t TO '{file}' (FORMAT parquet, COMPRESSION uncompressed)")
    assert b" 15036\x00" in file.read_bytes()
    bench.ingest(contract)
    bench.close()
    assert find(bench.lake, [contract], "customer", ANN).found == {}
    with pytest.raises(ErasureError, match="There is no customer of this id"):
        erase(bench.lake, [contract], "customer", ANN, rebuild=lambda: None)
    assert find(bench.lake, [contract], "customer", "7").found


def test_a_letter_is_of_nobody_whose_digits_its_failed_correction_has_elsewhere(
    bench: Bench, contracts: dict[str, Contract]
) -> None:
    orders = dataclasses.replace(contracts["orders"], max_rejected_share=1.0)
    bench.put("orders/region=eu/date=2026-01-02/o.csv", "\n".join([ORDERS_HEADER, order(1, BOB, quantity="x")]) + "\n")
    bench.ingest(orders)
    (letter,) = letters(bench.lake, Choice(), 10)
    # A spreadsheet's number in the place of a date, which the reasons quote.
    wrong = order(1, BOB, quantity=2).replace(f"{DAY} 10:00:00", ANN)
    assert replay(bench.lake, orders, Choice(), corrections={letter.dead_letter_id: wrong}).failed == 1
    bench.close()
    assert find(bench.lake, [orders], "customer", ANN).found == {}
    assert find(bench.lake, [orders], "customer", BOB).found


def test_nobody_is_named_by_the_contracts(bench: Bench, contracts: dict[str, Contract]) -> None:
    with pytest.raises(ErasureError, match="They name: customer"):
        erase(bench.lake, list(contracts.values()), "employee", "1", rebuild=_nothing_to_build)
    with pytest.raises(ErasureError, match="The id is empty"):
        erase(bench.lake, list(contracts.values()), "customer", " ", rebuild=_nothing_to_build)
    assert ORDERS_HEADER


def test_an_id_of_nobody_changes_nothing(
    planted: Planted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = planted.bench
    snapshots = "SELECT count(*) FROM ducklake_snapshots('lake')"
    before = bench.sql(snapshots)
    with pytest.raises(ErasureError, match="There is no customer of this id"):
        planted.erase("15063")
    with pytest.raises(ErasureError, match="in another form"):
        planted.erase(f" {ANN}")
    # A number in a log may be any number: a mistyped id is not taken for somebody because of it.
    log = bench.settings.home / "dagster" / "seconds.log"
    log.write_text("took 417 ms\n")
    with pytest.raises(ErasureError, match=r"It stands in .*seconds\.log, where it may be any other number"):
        planted.erase("417")
    assert log.read_text() == "took 417 ms\n"
    monkeypatch.setenv("SLUICE_HOME", str(bench.settings.home))
    for words in (["--customer", ""], ["--customer", "", "--find"], ["--customer", f"{ANN} ", "--find"]):
        assert main(["erase", *words]) == 1
        assert "searched" not in capsys.readouterr().out
    assert bench.sql(snapshots) == before
    assert bench.sql("SELECT count(*) FROM ops.erasures") == [(0,)]
    assert not bench.settings.erasure_key_path.exists()
    # Of whom there is nothing but a landing file is not refused.
    bench.put("elsewhere/more.csv", "15063\n")
    assert planted.erase("15063").landing_files == 1
    assert planted.erase("15063").again
    assert planted.erase("417", from_logs=True).logs == 1
    assert "417" not in log.read_text()


def test_on_a_terminal_it_asks_first(
    planted: Planted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(planted.bench.settings.home))
    for answer in ("no\n", "y\n", ""):
        terminal = io.StringIO(answer)
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdin", terminal)
        assert main(["erase", "--customer", ANN]) == 1
        assert capsys.readouterr().out.endswith("Type yes to go on: Nothing was changed.\n")
    assert planted.bench.sql("SELECT count(*) FROM ops.erasures") == [(0,)]
    assert planted.bench.sql("SELECT count(*) > 0 FROM bronze.customers WHERE customer_id = ?", [int(ANN)]) == [(True,)]


def test_what_the_contract_no_longer_knows_loses_the_person_too(bench: Bench, make_contract: MakeContract) -> None:
    """A column taken out of the contract, and a text beside the typed column it became, are in bronze as they were."""
    subject = [{"property": "subject", "value": "customer"}]
    who: dict[str, dict[str, Any]] = {"n": {}, "who": {"customProperties": subject}}
    bench.put(f"things/date={DAY}/a.csv", "n,who,mail,born\n1,A77,ann@shop.example,in May\n2,B88,bob@shop.example,?\n")
    bench.ingest(make_contract(who | {"mail": {}}))
    later = make_contract(who | {"birth": {"physicalName": "born", "physicalType": "DATE"}}, version="2.0.0")
    bench.put("things/date=2026-01-09/b.csv", "n,who,born\n3,A77,2000-05-01\n")
    bench.ingest(later, ["2026-01-09"])
    erase(bench.lake, [later], "customer", "A77", rebuild=_nothing_to_build)
    bench.close()
    assert bench.sql("SELECT n, who, mail, born, birth FROM bronze.things ORDER BY n") == [
        ("1", None, None, None, None),
        ("2", "B88", "bob@shop.example", "?", None),
        ("3", None, None, None, date(2000, 5, 1)),
    ]
