"""Erasing a person from bronze, dead letters, landing files, old snapshots and logs; without silver and gold.

What the warehouse makes of it is in tests/test_erasing_a_person.py. Every test first proves that the search finds the
person.
"""

from __future__ import annotations

import gzip
import io
import os
import sqlite3
from datetime import date
from typing import Any

import pytest

from sluice.books import books
from sluice.cli import main
from sluice.contracts import Contract
from sluice.erasure import run
from sluice.erasure.run import erase
from sluice.errors import ErasureError
from tests.conftest import Bench, MakeContract
from tests.sluice.planted import ANN, BOB, DAY, MAIL, Planted, change, nothing_to_build, order


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
    done = erase(bench.lake, list(contracts.values()), "customer", ANN, rebuild=nothing_to_build)
    assert (done.values_shared, done.findings.found) == (1, {})
    bench.close()
    assert bench.sql("SELECT customer_id, email FROM bronze.customers") == [(BOB, "family@shop.example")]


def test_nobody_is_named_by_the_contracts(bench: Bench, contracts: dict[str, Contract]) -> None:
    with pytest.raises(ErasureError, match="They name: customer"):
        erase(bench.lake, list(contracts.values()), "employee", "1", rebuild=nothing_to_build)
    with pytest.raises(ErasureError, match="The id is empty"):
        erase(bench.lake, list(contracts.values()), "customer", " ", rebuild=nothing_to_build)


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
    erase(bench.lake, [later], "customer", "A77", rebuild=nothing_to_build)
    bench.close()
    assert bench.sql("SELECT n, who, mail, born, birth FROM bronze.things ORDER BY n") == [
        ("1", None, None, None, None),
        ("2", "B88", "bob@shop.example", "?", None),
        ("3", None, None, None, date(2000, 5, 1)),
    ]
