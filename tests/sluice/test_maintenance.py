"""Maintenance: fewer files and snapshots, the same rows, and nothing taken from readers or running writers."""

from __future__ import annotations

import os
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sluice import maintenance
from sluice.audits import record_audit
from sluice.errors import ConfigurationError
from sluice.maintenance import maintain
from sluice.publication import connect, kept_snapshots, publish, roll_back
from tests.conftest import Bench

COMMITS = 8  # more files than the ops tables get when their rows leave the catalog
ROWS = 50  # more than DuckLake keeps in the catalog instead of a file


@pytest.fixture
def busy(bench: Bench) -> Bench:
    """A lake with a table written in many small commits, published after the second."""
    bench.lake.create()
    bench.lake.write(lambda con: con.execute("CREATE TABLE gold.t (n BIGINT)"), "make")
    for number in range(COMMITS):
        bench.lake.write(
            lambda con, n=number: con.execute(f"INSERT INTO gold.t SELECT {n} * {ROWS} + range FROM range({ROWS})"),
            "a small commit",
        )
        if number == 1:
            bench.lake.write(lambda con: con.execute("DELETE FROM gold.t WHERE n = 3"), "a delete")
            record_audit(bench.lake, run_id="b", checks_passed=1, failed=[])
            publish(bench.lake, run_id="p")
    bench.lake.write(lambda con: con.execute("DELETE FROM gold.t WHERE n = 60"), "another delete")
    return bench


def test_no_row_is_kept_in_the_catalog_where_moving_it_would_hide_it_from_readers(bench: Bench) -> None:
    """However few are written; and what a lake of an earlier version has there is moved once."""
    few = "SELECT count(*) FROM ducklake_list_files('lake', 'few', schema => 'gold')"
    with bench.lake.connect() as con:
        con.execute("CREATE SCHEMA gold")
        con.execute("CREATE TABLE gold.few AS SELECT 1 AS n")
        assert con.execute(few).fetchall() == [(0,)], "DuckLake keeps few rows in files by itself by now"
    bench.lake.create()
    bench.lake.write(lambda con: con.execute("INSERT INTO gold.few VALUES (2)"), "a row")
    bench.lake.write(lambda con: con.execute("DELETE FROM gold.few WHERE n = 1"), "none of it")
    assert bench.sql(few) == [(1,)]
    assert bench.sql("FROM gold.few") == [(2,)]
    with sqlite3.connect(bench.settings.catalog_path) as catalog:
        tables = catalog.execute("SELECT table_name FROM ducklake_inlined_data_tables").fetchall()
        assert sum(catalog.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in tables) == 0


def parquet(bench: Bench) -> set[Path]:
    return set(Path(bench.settings.lake_data_path).rglob("*.parquet"))


def test_one_round_keeps_the_rows_and_what_is_published(busy: Bench) -> None:
    rows = busy.sql("SELECT n FROM gold.t ORDER BY n")
    assert [n for (n,) in rows] == [n for n in range(COMMITS * ROWS) if n not in (3, 60)]
    published = busy.sql("SELECT snapshot_id FROM ops.publications")[0][0]
    newest = busy.sql("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')")[0][0]
    with connect(busy.settings) as pinned:
        early = pinned.execute("SELECT n FROM t ORDER BY n").fetchall()
        done = maintain(busy.lake, keep_days=0, belief_days=0, orphan_age_hours=24)
        # A reader that was there before, and one that comes afterwards, see the published rows.
        assert pinned.execute("SELECT n FROM t ORDER BY n").fetchall() == early
    with connect(busy.settings) as later:
        assert later.execute("SELECT n FROM t ORDER BY n").fetchall() == early
    assert [n for (n,) in early] == [n for n in range(2 * ROWS) if n != 3]
    assert busy.sql("SELECT n FROM gold.t ORDER BY n") == rows
    assert done.files_after < done.files_before
    assert done.snapshots_expired > COMMITS and done.orphans_removed == 0
    # What was replaced goes only when no query can be reading it any more.
    assert done.files_removed == 0
    files = len(parquet(busy))
    assert maintain(busy.lake, keep_days=0, orphan_age_hours=0).files_removed > 0
    assert len(parquet(busy)) < files
    assert busy.sql("SELECT n FROM gold.t ORDER BY n") == rows
    kept = [n for (n,) in busy.sql("SELECT snapshot_id FROM ducklake_snapshots('lake') ORDER BY 1")]
    assert published in kept and max(kept) >= newest
    assert not set(range(published)) & set(kept)


def test_a_reader_in_the_middle_of_a_transaction_reads_on(busy: Bench) -> None:
    with connect(busy.settings) as pinned:
        pinned.execute("BEGIN")
        early = pinned.execute("SELECT n FROM t ORDER BY n").fetchall()
        maintain(busy.lake, keep_days=0)
        assert pinned.execute("SELECT n FROM t ORDER BY n").fetchall() == early
        pinned.execute("COMMIT")
        assert pinned.execute("SELECT n FROM t ORDER BY n").fetchall() == early


def test_what_killed_runs_left_is_removed_when_it_is_old(busy: Bench) -> None:
    old, young = (busy.settings.temp_path / f"ingest-{name}" for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "copy.txt").write_text("x")
    os.utime(old, (0, 0))
    spilled = busy.settings.temp_path / "duckdb_temp_storage_DEFAULT-0.tmp"
    copy = busy.settings.readers_path / ".catalog.sqlite.4711"
    copy.parent.mkdir(exist_ok=True)
    for path in (spilled, copy):
        path.write_text("x")
        os.utime(path, (0, 0))
    maintain(busy.lake)
    assert not old.exists() and not spilled.exists() and not copy.exists()
    assert young.exists()


def test_a_second_round_finds_nothing_more_to_merge(busy: Bench) -> None:
    first = maintain(busy.lake, keep_days=0)
    second = maintain(busy.lake, keep_days=0)
    assert second.files_after <= first.files_after
    assert second.files_before == first.files_after
    assert busy.sql("SELECT count(*) FROM gold.t") == [(COMMITS * ROWS - 2,)]


def test_young_snapshots_are_kept(busy: Bench) -> None:
    before = {n for (n,) in busy.sql("SELECT snapshot_id FROM ducklake_snapshots('lake')")}
    done = maintain(busy.lake, keep_days=7)
    assert done.snapshots_expired == 0
    assert before <= {n for (n,) in busy.sql("SELECT snapshot_id FROM ducklake_snapshots('lake')")}
    # Each of them can still be read.
    for snapshot in sorted(before)[-4:]:
        with busy.lake.reading(snapshot) as con:
            assert con.execute("SELECT count(*) > 0 FROM gold.t").fetchone() == (True,)


def test_orphans_are_removed_when_old_and_kept_when_young(busy: Bench) -> None:
    owned = parquet(busy)
    folder = next(iter(owned)).parent
    old, young = folder / "ducklake-orphan-old.parquet", folder / "ducklake-orphan-young.parquet"
    for orphan in (old, young):
        duckdb.sql(f"COPY (SELECT 1 AS n) TO '{orphan}'")
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    done = maintain(busy.lake, keep_days=7, orphan_age_hours=24)
    assert done.orphans_removed == 1
    assert not old.exists() and young.exists()
    assert busy.sql("SELECT count(*) FROM gold.t") == [(COMMITS * ROWS - 2,)]


def test_notes_of_old_builds_go_but_for_the_newest_of_each_model(busy: Bench) -> None:
    old, new = (
        n for (n,) in busy.sql("SELECT unnest([min(snapshot_id), max(snapshot_id)]) FROM ducklake_snapshots('lake')")
    )

    def note(con: duckdb.DuckDBPyConnection) -> None:
        con.execute(
            "INSERT INTO ops.builds (relation, snapshot_id) "
            f"VALUES ('a', {old}), ('a', {new}), ('b', {old}), ('b', {old + 1})"
        )
        con.execute(f"INSERT INTO ops.rewrites (relation, snapshot_id) VALUES ('a', {old}), ('a', {new + 1000})")

    busy.lake.write(note, "notes")
    maintain(busy.lake, keep_days=0, belief_days=7)
    assert len(busy.sql("FROM ops.builds")) == 4
    maintain(busy.lake, keep_days=0, belief_days=0)
    assert busy.sql("SELECT relation, snapshot_id FROM ops.builds ORDER BY ALL") == [("a", new), ("b", old + 1)]
    assert busy.sql("SELECT relation, snapshot_id FROM ops.rewrites") == [("a", new + 1000)]


def test_what_came_after_a_snapshot_of_late_is_of_late(busy: Bench) -> None:
    """Whatever time a clock that was wrong has noted for it."""
    now = datetime.now(UTC)
    numbers = [n for (n,) in busy.sql("SELECT snapshot_id FROM ducklake_snapshots('lake') ORDER BY 1")]
    busy.close()
    *early, last = numbers
    middle = early[len(early) // 2]
    noted = {n: now - timedelta(days=30) for n in early if n < middle} | {middle: now - timedelta(days=2)}
    # Set back by years, ahead by years, right again.
    noted |= {n: now - timedelta(days=4000) for n in early if n > middle} | {middle + 2: now + timedelta(days=4000)}
    with sqlite3.connect(busy.settings.catalog_path) as con:
        for number, at in noted.items():
            con.execute(
                "UPDATE ducklake_snapshot SET snapshot_time = ? WHERE snapshot_id = ?", [f"{at:%F %T.%f}+00", number]
            )
    maintain(busy.lake, keep_days=7, belief_days=0)
    kept = {n for (n,) in busy.sql("SELECT snapshot_id FROM ducklake_snapshots('lake')")}
    published = busy.sql("SELECT snapshot_id FROM ops.publications")[0][0]
    assert {n for n in numbers if n <= last} & kept == {n for n in numbers if n >= middle} | {published}


def test_an_empty_lake_can_be_maintained(bench: Bench) -> None:
    done = maintain(bench.lake, keep_days=0)
    # Whose turn it is to move readers or to expire is a row of its own.
    assert (done.files_before, done.files_after, done.orphans_removed) == (0, 1, 0)


@pytest.mark.parametrize("look", [1, 2])
def test_what_readers_are_taken_back_to_meanwhile_is_kept(
    look: int, busy: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are moved after maintenance has looked what is needed, and before it expires the rest."""
    record_audit(busy.lake, run_id="b", checks_passed=1, failed=[])
    publish(busy.lake, run_id="p")
    looks: list[list[int]] = []

    def look_and_be_overtaken(con: duckdb.DuckDBPyConnection, since: datetime) -> list[int]:
        looks.append(kept_snapshots(con, since))
        if len(looks) == look:
            roll_back(busy.lake, by="ann", why="prices")
        return looks[-1]

    monkeypatch.setattr(maintenance, "kept_snapshots", look_and_be_overtaken)
    assert maintain(busy.lake, keep_days=0, belief_days=0, orphan_age_hours=0).snapshots_expired
    with connect(busy.settings) as con:
        assert con.sql("SELECT count(*), min(n), max(n) FROM t").fetchall() == [(2 * ROWS - 1, 0, 2 * ROWS - 1)]


@pytest.mark.parametrize(
    "wrong", [{"keep_days": -1}, {"belief_days": 10**7}, {"orphan_age_hours": 1e12}, {"orphan_age_hours": float("nan")}]
)
def test_times_no_calendar_holds_are_refused(wrong: dict[str, Any], bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match=r"is not from 0 to 36,500 days. Nothing was done"):
        maintain(bench.lake, **wrong)
    assert not bench.settings.catalog_path.exists()
