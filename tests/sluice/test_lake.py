"""The lake: transactions are whole, locks are waited for, and who cannot be helped is not tried again."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from sluice import lake as module
from sluice.errors import LakeUnavailableError, NoLakeError
from sluice.lake import SCHEMAS, Lake
from sluice.ops_tables import OPS_TABLES
from sluice.publication import current_publication
from tests.conftest import Bench, MakeBench


def test_create_makes_everything_once(bench: Bench) -> None:
    bench.lake.create()
    found = bench.sql("SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE database_name = 'lake'")
    assert sorted(name for (name,) in found) == sorted(f"ops.{table}" for table in OPS_TABLES)
    schemas = {name for (name,) in bench.sql("SELECT schema_name FROM duckdb_schemas() WHERE database_name = 'lake'")}
    assert set(SCHEMAS) <= schemas
    count = bench.snapshots()
    bench.lake.create()
    assert bench.snapshots() == count


def test_two_that_create_at_once_make_one_lake(bench: Bench) -> None:
    errors: list[BaseException] = []

    def create() -> None:
        try:
            Lake(bench.settings).create()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert bench.sql("SELECT count(*) FROM duckdb_tables() WHERE database_name = 'lake'") == [(len(OPS_TABLES),)]


def test_a_catalog_whose_maker_died_before_it_was_one_is_no_lake_and_is_made_whole(bench: Bench) -> None:
    bench.settings.catalog_path.parent.mkdir(parents=True)
    with sqlite3.connect(bench.settings.catalog_path) as begun:
        # As a process killed between the file's first table and its write-ahead log leaves it.
        begun.execute("CREATE TABLE begun (n INTEGER)")
    with pytest.raises(LakeUnavailableError, match=r"There is no lake at .* yet"), bench.lake.reading():
        pass
    bench.lake.create()
    assert bench.sql("SELECT count(*) FROM duckdb_tables() WHERE database_name = 'lake'") == [(len(OPS_TABLES),)]


KILLED = """
import os, signal, sqlite3, sys, time
con = sqlite3.connect(sys.argv[1], isolation_level=None)
con.execute("CREATE TABLE IF NOT EXISTS begun (text)")
# So small that pages are written, and their former content to the journal, before the commit.
con.execute("PRAGMA cache_size = 1")
con.execute("BEGIN")
con.executemany("INSERT INTO begun VALUES (?)", [["x" * 500]] * 3000)
print("writing", flush=True)
time.sleep(float(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_maker_left_half_written_is_undone_by_whoever_reads(bench: Bench) -> None:
    catalog = bench.settings.catalog_path
    catalog.parent.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", KILLED, str(catalog), "0"], check=False)
    journal = catalog.with_name("catalog.sqlite-journal")
    assert journal.stat().st_size > 0
    with pytest.raises(NoLakeError, match=r"There is no lake at .* yet"), bench.lake.reading():
        pass
    assert not journal.exists()
    # Likewise of a lake that is one: nothing of it is lost.
    # It is of use where the catalog is put back: nothing is made in its place by whoever reads.
    subprocess.run([sys.executable, "-c", KILLED, str(catalog), "0"], check=False)
    kept, away = journal.read_bytes(), catalog.rename(catalog.with_name("away"))
    with pytest.raises(NoLakeError), bench.lake.reading():
        pass
    assert (catalog.exists(), journal.read_bytes()) == (False, kept)
    away.rename(catalog)
    bench.lake.create()
    with closing(sqlite3.connect(catalog)) as con:
        con.execute("PRAGMA journal_mode = DELETE")
    tables = "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'lake'"
    subprocess.run([sys.executable, "-c", KILLED, str(catalog), "0"], check=False)
    assert journal.stat().st_size > 0
    assert bench.sql(tables) == [(len(OPS_TABLES),)]
    bench.close()
    # Whenever it is killed: here while DuckDB waits for it, which asks for 5 seconds, as SQLite did before.
    with subprocess.Popen([sys.executable, "-c", KILLED, str(catalog), "7"], stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None and maker.stdout.readline() == b"writing\n"
        assert bench.sql(tables) == [(len(OPS_TABLES),)]
    assert not journal.exists()


def test_whoever_reads_while_the_lake_is_made_is_told_that_there_is_none_yet(make_bench: MakeBench) -> None:
    seen = set()
    for number in range(4):
        bench = make_bench(f"home{number}")
        making = threading.Thread(target=bench.lake.create)
        making.start()
        while making.is_alive():
            try:
                seen.add(f"publication {current_publication(bench.lake)}")
            except NoLakeError:
                seen.add("no lake")
        making.join()
        assert current_publication(bench.lake) is None
    # Whatever the moment: never an error about a table or a file of a lake that is half made.
    assert "no lake" in seen and seen <= {"no lake", "publication None"}


def test_a_table_that_is_missing_is_no_variable_of_the_caller(bench: Bench) -> None:
    bench.lake.create()
    with bench.lake.connect(read_only=True) as con:
        nowhere = con.sql("SELECT 1 AS n")
        with pytest.raises(duckdb.CatalogException, match="Table with name nowhere does not exist"):
            con.execute("FROM nowhere")
    assert nowhere is not None


def test_a_transaction_is_whole_or_not_at_all(bench: Bench) -> None:
    bench.lake.create()

    def half(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("INSERT INTO ops.publications (publication_id) VALUES (1)")
        con.execute("CREATE TABLE bronze.half (n INTEGER)")
        raise ZeroDivisionError

    count = bench.snapshots()
    with pytest.raises(ZeroDivisionError):
        bench.lake.write(half, "half")
    assert bench.sql("SELECT count(*) FROM ops.publications") == [(0,)]
    assert bench.snapshots() == count
    done = bench.lake.write(
        lambda con: con.execute("INSERT INTO ops.publications (publication_id) VALUES (1)") and 42, "it's done"
    )
    assert done == 42
    assert bench.sql("SELECT publication_id FROM ops.publications") == [(1,)]
    assert bench.sql(
        "SELECT author, commit_message FROM ducklake_snapshots('lake') ORDER BY snapshot_id DESC LIMIT 1"
    ) == [("sluice", "it's done")]


def test_a_connection_may_be_pinned_and_cannot_write_when_read_only(bench: Bench) -> None:
    bench.lake.create()
    with bench.lake.reading() as con:
        before = bench.lake.current_snapshot(con)
    bench.lake.write(lambda con: con.execute("CREATE TABLE gold.t AS SELECT 1 AS n"), "later")
    with bench.lake.reading(before) as pinned:
        with pytest.raises(duckdb.CatalogException):
            pinned.execute("FROM gold.t")
        with pytest.raises(duckdb.Error, match="read-only"):
            pinned.execute("CREATE TABLE gold.u (n INTEGER)")
    with bench.lake.reading() as con:
        assert con.execute("FROM gold.t").fetchall() == [(1,)]
        assert con.execute("SELECT current_setting('TimeZone')").fetchone() == ("UTC",)


HOLDER = """
import sqlite3, sys, time
con = sqlite3.connect(sys.argv[1], isolation_level=None)
con.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
print(time.monotonic(), flush=True)
con.execute("ROLLBACK")
"""


def holding(path: Path, seconds: float) -> subprocess.Popen[str]:
    """Another process that holds the catalog's write lock for some seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    return process


def insert(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("INSERT INTO ops.publications (publication_id) VALUES (1)")


def test_a_lock_of_another_process_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.05)
    bench.lake.create()
    process = holding(bench.settings.catalog_path, 1.0)
    bench.lake.write(insert, "waited")
    written = time.monotonic()
    # It let go after it had said so; one clock serves all processes of a machine.
    assert process.stdout is not None and float(process.stdout.readline()) < written
    process.wait()
    assert bench.sql("SELECT count(*) FROM ops.publications") == [(1,)]


def test_readers_do_not_wait_for_a_lock(bench: Bench) -> None:
    bench.lake.create()
    process = holding(bench.settings.catalog_path, 60.0)
    try:
        with Lake(bench.settings).reading() as con:
            assert con.execute("SELECT count(*) FROM ops.publications").fetchone() == (0,)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_lock_that_stays_is_told_after_a_bounded_wait(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(module, "LONGEST_WAIT_SECONDS", 0.01)
    bench.lake.create()
    con = bench.lake.connect()
    attempts = 0

    def work(c: duckdb.DuckDBPyConnection) -> None:
        nonlocal attempts
        attempts += 1
        insert(c)
        # As SQLite tells it; the real wait of 5 s seven times over is left out.
        raise duckdb.TransactionException("Failed to commit DuckLake transaction: database is locked")

    with con, pytest.raises(LakeUnavailableError, match="stayed locked or unreachable") as caught:
        bench.lake.transaction(con, work, "never")
    assert attempts == module.ATTEMPTS
    assert "Nothing of this batch was committed. See who else writes" in str(caught.value)
    assert bench.sql("SELECT count(*) FROM ops.publications") == [(0,)]


def test_an_attempt_that_lost_leaves_nothing_in_temporary_tables(bench: Bench) -> None:
    """Of a commit that meets another's the lake forgets everything; what was noted beside it must be forgotten, too."""
    bench.lake.create()
    bench.lake.write(lambda con: con.execute("CREATE TABLE bronze.turns AS SELECT 0 AS n"), "made")
    seen = []

    def work(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("UPDATE bronze.turns SET n = n + 1")
        seen.append(con.execute("FROM noted").fetchall())
        con.execute("CREATE OR REPLACE TEMP TABLE noted AS SELECT 'changed' AS what")
        con.execute("CREATE TEMP TABLE more AS SELECT 1 AS n")
        if len(seen) == 1:
            bench.lake.write(lambda other: other.execute("UPDATE bronze.turns SET n = n + 10"), "another")

    with bench.lake.connect() as con:
        con.execute("CREATE TEMP TABLE noted AS SELECT 'before' AS what")
        bench.lake.transaction(con, work, "test")
        assert con.execute("FROM noted").fetchall() == [("changed",)]
    assert seen == [[("before",)]] * 2
    assert bench.sql("FROM bronze.turns") == [(11,)]


@pytest.mark.parametrize(
    "said",
    ["basic_string::_M_create", "Failed to get path for schema with id 281471621436160 - schema not found in metadata"],
)
def test_a_commit_that_fails_by_a_known_fault_of_ducklake_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr("sluice.lake.FIRST_WAIT_SECONDS", 0.01)
    bench.lake.create()
    calls = []

    def work(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("CREATE TABLE bronze.once AS SELECT 1 AS n")
        calls.append(len(calls))
        if len(calls) == 1:
            raise duckdb.TransactionException(f"Failed to commit DuckLake transaction.\n{said}")

    bench.lake.write(work, "test")
    assert len(calls) == 2
    assert bench.sql("SELECT n FROM bronze.once") == [(1,)]


def test_what_cannot_be_helped_by_trying_again_is_not_tried_again(bench: Bench) -> None:
    bench.lake.create()
    attempts = 0

    def wrong(con: duckdb.DuckDBPyConnection) -> None:
        nonlocal attempts
        attempts += 1
        con.execute("SELECT * FROM nowhere")

    with pytest.raises(duckdb.CatalogException):
        bench.lake.write(wrong, "wrong")
    assert attempts == 1


def test_the_catalog_is_in_wal_mode(bench: Bench) -> None:
    bench.lake.create()
    with sqlite3.connect(bench.settings.catalog_path) as con:
        assert con.execute("PRAGMA journal_mode").fetchone() == ("wal",)
