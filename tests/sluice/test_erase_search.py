"""The search for a person: what hides is found, what cannot be read is named, and nobody is found by chance.

What is done with what was found is in test_erase.py.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import sqlite3
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from sluice.cli import main
from sluice.contracts import Contract
from sluice.dead_letters import Choice, letters
from sluice.erasure.leftovers import SQLITE
from sluice.erasure.run import erase, find
from sluice.errors import ErasureError, LandingError
from sluice.replay import replay
from sluice.settings import PROJECT
from tests.conftest import ORDERS_HEADER, Bench, MakeBench, MakeContract
from tests.sluice.planted import ANN, BOB, DAY, Planted, nothing_to_build, order


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
        "Nothing was found, but 1 place could not be searched: mend or remove it, and look again.",
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
        told[-1]
        == "The person is still there, and 3 places could not be searched: mend or remove them, and look again."
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


def as_an_account(planted: Planted, how: str) -> tuple[int, list[str]]:
    """What erasing Ann says to an account without root's privileges, for which rights hold; and the exit code."""
    planted.bench.close()
    limited = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*limited, sys.executable, "-m", "sluice", "erase", "--customer", ANN, how],
        cwd=PROJECT,
        env={**os.environ, "SLUICE_HOME": str(planted.bench.settings.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, [line.strip() for line in done.stdout.splitlines()]


def test_what_an_account_may_not_read_is_not_searched(planted: Planted) -> None:
    bench, home = planted.bench, planted.bench.settings.home
    closed = [home / name for name in ("closed", "dump.csv", "dump.parquet", "names")]
    for path, mode in zip(closed, (0, 0, 0, stat.S_IRUSR), strict=True):
        if "dump" in path.name:
            path.write_text("of nobody")
        else:
            path.mkdir()
            (path / "log").write_text(f"of {ANN}")
        path.chmod(mode)
    kept = bench.put("elsewhere/kept.csv", f"{ANN}\n")
    kept.chmod(0)
    not_searched = sorted(
        f"NOT SEARCHED: {path} (cannot be {'listed' if path.is_dir() else 'read'})" for path in (*closed, kept)
    )
    code, told = as_an_account(planted, "--find")
    assert (code, [line for line in told if line.startswith("NOT SEARCHED")]) == (1, not_searched)
    assert any(line.startswith("FOUND: bronze.orders: customer_id") for line in told)
    assert told[-1].endswith("and 5 places could not be searched: mend or remove them, and look again.")
    # Whatever else there is of the person goes all the same.
    code, told = as_an_account(planted, "--yes")
    assert (code, [line for line in told if line.startswith(("NOT SEARCHED", "FOUND"))]) == (1, not_searched)
    assert bench.sql("SELECT state FROM ops.erasures") == [("built",)], "not done before all could be searched"
    for path in (*closed, kept):
        path.chmod(stat.S_IRWXU)
    code, told = as_an_account(planted, "--yes")
    assert (code, told[-1]) == (0, "Nothing was found.")
    assert (home / "closed" / "log").read_text() == "of *****"
    assert bench.sql("SELECT state FROM ops.erasures") == [("done",)]


def test_what_cannot_be_cleaned_is_named_and_all_else_goes(planted: Planted, tmp_path: Path) -> None:
    bench, home = planted.bench, planted.bench.settings.home
    logs, landed = home / "dagster", bench.landing / f"events/date={DAY}/hour=11"
    kept = logs / "kept.db"
    con = sqlite3.connect(kept)
    con.execute("CREATE TABLE event_logs AS SELECT '| ' || ? || ' |' AS event", [ANN])
    con.commit()
    con.close()
    kept.chmod(stat.S_IRUSR)
    torn = logs / "torn.db"
    torn.write_bytes(SQLITE + b"and no more")
    names = logs / "names"
    (names / "below").mkdir(parents=True)
    names.chmod(stat.S_IRUSR)
    landed.chmod(stat.S_IRUSR | stat.S_IXUSR)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(f"of {ANN}")
    link = logs / "link.log"
    link.symlink_to(elsewhere)
    # A link to what is searched anyway is none to elsewhere.
    (logs / "again").symlink_to(home / "lake")
    code, told = as_an_account(planted, "--yes")
    assert (code, [line for line in told if line.startswith("NOT SEARCHED")]) == (
        1,
        [
            f"NOT SEARCHED: {link} (a link to elsewhere)",
            f"NOT SEARCHED: {names} (cannot be listed)",
            f"NOT SEARCHED: {names / 'below'} (cannot be read)",
            f"NOT SEARCHED: {torn} (cannot be read)",
        ],
    )
    found = [line for line in told if line.startswith("FOUND")]
    for where in (str(landed), "kept.db"):
        assert [line for line in found if where in line], where
        found = [line for line in found if where not in line]
    assert found == []
    assert elsewhere.read_text() == f"of {ANN}"
    assert bench.sql("SELECT state FROM ops.erasures") == [("built",)]
    for path, mode in ((kept, 0o600), (names, 0o700), (landed, 0o755)):
        path.chmod(mode)
    torn.unlink()
    link.unlink()
    code, told = as_an_account(planted, "--yes")
    assert (code, told[-1]) == (0, "Nothing was found.")
    assert bench.sql("SELECT state FROM ops.erasures") == [("done",)]


def test_files_that_links_lead_to_are_theirs_whose_folder_it_is(planted: Planted, tmp_path: Path) -> None:
    """Loading follows a link in the place of a source's folder, and of a file."""
    bench, away = planted.bench, tmp_path / "away"
    away.mkdir()
    for name in ("orders", "cdc"):
        (bench.landing / name).rename(away / name)
        (bench.landing / name).symlink_to(away / name)
    one = bench.landing / f"events/date={DAY}/hour=10/e.jsonl"
    one.rename(away / "e.jsonl")
    one.symlink_to(away / "e.jsonl")
    (away / "orders" / "readme.txt").write_text(f"of {ANN}")
    lake = bench.settings.home / "lake"
    bench.close()
    lake.rename(away / "lake")
    lake.symlink_to(away / "lake")
    assert any(place.startswith(str(away / "orders")) for place in planted.find())
    done = planted.erase()
    assert (done.findings.found, done.findings.unsearched) == ({}, {})
    assert one.is_symlink() and ANN not in (away / "e.jsonl").read_text()
    assert (away / "orders" / "readme.txt").read_text() == "of *****"
    texts = [path.read_text() for path in (away / "orders").rglob("*.csv")]
    # What is left of these digits is a product.
    assert [line.split(",")[1] for text in texts for line in text.splitlines() if ANN in line] == [ANN, ANN]


def test_nothing_is_begun_where_a_source_cannot_be_listed(planted: Planted) -> None:
    bench = planted.bench
    bench.close()
    (bench.landing / "orders").rename(bench.landing / "taken")
    (bench.landing / "orders").write_text("no folder")
    with pytest.raises(LandingError, match=r"Cannot list .*orders: Not a directory"):
        planted.erase()
    bench.close()
    assert bench.sql("SELECT count(*) FROM ops.erasures") == [(0,)]
    assert planted.everything("customers")[0][0] is not None


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
    done = erase(bench.lake, list(contracts.values()), "customer", ANN, rebuild=nothing_to_build)
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
