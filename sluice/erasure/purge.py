"""The past without the person: files rewritten, old snapshots expired, their files deleted, the catalog cleared.

What a delete leaves is still there: rows in files that a delete only marks, files of older snapshots, values kept in
the catalog (the smallest and largest of files), pages SQLite has freed but not wiped.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import duckdb

from sluice.errors import ErasureError
from sluice.lake import LAKE, Lake
from sluice.publication import expire

# Seconds to wait for whoever reads the catalog.
_PATIENCE = 30


def compact(lake: Lake) -> None:
    """Write anew every data file of which rows have been deleted."""
    rewrite = f"CALL ducklake_rewrite_data_files('{LAKE}', delete_threshold => 0.0)"
    with lake.connect() as con:
        lake.transaction(con, lambda c: c.execute(rewrite), "erasure: rewrite files with deleted rows")


def forget_the_past(lake: Lake) -> tuple[int, int]:
    """Expire every snapshot but the newest and the published one, and delete files nobody refers to any more, at once.

    Returns:
        How many snapshots, and how many files.
    """

    def past(con: duckdb.DuckDBPyConnection) -> list[int]:
        rows = con.execute(
            "SELECT snapshot_id FROM ducklake_snapshots($lake) WHERE snapshot_id IS DISTINCT FROM "
            "(SELECT arg_max(snapshot_id, publication_id) FROM ops.publications) "
            "AND snapshot_id < (SELECT max(snapshot_id) FROM ducklake_snapshots($lake)) ORDER BY snapshot_id",
            {"lake": LAKE},
        ).fetchall()
        return [n for (n,) in rows]

    with lake.connect() as con:
        expired = expire(lake, con, past)
        removed = lake.call(con, f"CALL ducklake_cleanup_old_files('{LAKE}', cleanup_all => true)")
    return expired, len(removed)


def orphans(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Data files the catalog does not know: of transactions that were cut short, or are under way."""
    return [
        str(row[0])
        for row in con.execute(
            f"CALL ducklake_delete_orphaned_files('{LAKE}', dry_run => true, cleanup_all => true)"
        ).fetchall()
    ]


def wipe_sqlite(path: Path) -> None:
    """Rebuild an SQLite file, so that nothing stands in freed pages or in its write-ahead log.

    Raises:
        ErasureError: somebody holds it.
    """
    try:
        con = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)
        try:
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            con.execute("VACUUM")
            busy = con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy and busy[0]:
                raise sqlite3.OperationalError("a reader holds the write-ahead log")
        finally:
            con.close()
    except sqlite3.OperationalError as error:
        raise ErasureError(
            f"{path} cannot be wiped: {error}. Close whoever has it open (shells, notebooks, `make dev`), and run the "
            "same command again: it goes on where it stopped."
        ) from error
