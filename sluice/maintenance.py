"""Keeping the lake small: merge small files, expire snapshots nobody needs, remove files and notes nobody refers to.

Never touches what is published or may still be, nor what was published of late (`sluice.publication.kept_snapshots`).
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb

from sluice.errors import ConfigurationError
from sluice.lake import LAKE, Lake, newest_copy
from sluice.publication import expire, kept_snapshots
from sluice.readers import refresh_readers
from sluice.settings import LONGEST_DAYS, Settings


@dataclass(frozen=True)
class Maintenance:
    """What one round did."""

    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    snapshots_expired: int
    files_removed: int
    orphans_removed: int


def maintain(
    lake: Lake, *, keep_days: int = 7, belief_days: int | None = None, orphan_age_hours: float = 24.0
) -> Maintenance:
    """Do one round of maintenance.

    Args:
        lake: to tidy.
        keep_days: snapshots younger than this stay, published or not: models follow the change feed from the snapshot
            they last read, and compute everything where that is gone.
        belief_days: what readers saw within so many days stays; the setting's when left out.
        orphan_age_hours: files that merging and expiring have replaced, and those of aborted transactions, are removed
            when that long replaced or old: a running query or transaction may still own younger ones.

    Raises:
        ConfigurationError: a time is negative or longer than a century; nothing was done.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    believed = lake.settings.belief_days if belief_days is None else belief_days
    for name, days in (("keep_days", keep_days), ("belief_days", believed), ("grace_hours", orphan_age_hours / 24)):
        if not 0 <= days <= LONGEST_DAYS:
            raise ConfigurationError(f"{name} is not from 0 to {LONGEST_DAYS:,} days. Nothing was done.")
    lake.create()
    now = datetime.now(UTC)
    seen_since = now - timedelta(days=believed)
    with lake.connect() as con:
        before = _size(con)
        _forget_builds(lake, con, max(_old_snapshots(con, seen_since, now), default=-1))
        lake.transaction(
            con, lambda c: c.execute(f"CALL ducklake_merge_adjacent_files('{LAKE}')"), "maintenance: merge files"
        )

        def unneeded(c: duckdb.DuckDBPyConnection) -> list[int]:
            kept = set(kept_snapshots(c, seen_since))
            return [n for n in _old_snapshots(c, now - timedelta(days=keep_days), now) if n not in kept]

        expired = expire(lake, con, unneeded)
        if newest_copy(lake.settings):
            # Readers are to ask for the new files before the old ones go.
            refresh_readers(lake.settings)
        # Not at once: a reader in the middle of a query still has the former files on its list.
        old = [now - timedelta(hours=orphan_age_hours)]
        removed = lake.call(con, f"CALL ducklake_cleanup_old_files('{LAKE}', older_than => ?)", old)
        orphans = lake.call(con, f"CALL ducklake_delete_orphaned_files('{LAKE}', older_than => ?)", old)
        after = _size(con)
    _remove_leftovers(lake.settings, now - timedelta(hours=orphan_age_hours))
    return Maintenance(before[0], after[0], before[1], after[1], expired, len(removed), len(orphans))


def _old_snapshots(con: duckdb.DuckDBPyConnection, before: datetime, now: datetime) -> list[int]:
    """Snapshots that lie before a moment, by the time they note and by their number; never the newest.

    Numbers tell the order whatever the clock said: what came after a snapshot of late is of late, too, though a clock
    that was set back noted an early time. A time that still lies ahead was noted by a clock that was wrong.
    """
    rows = con.execute(
        "WITH s AS (SELECT snapshot_id, snapshot_time FROM ducklake_snapshots($lake)) SELECT snapshot_id FROM s "
        "WHERE snapshot_time < $before AND snapshot_id < (SELECT coalesce(min(snapshot_id) FILTER "
        "(snapshot_time >= $before AND snapshot_time <= $now), max(snapshot_id)) FROM s) ORDER BY snapshot_id",
        {"lake": LAKE, "before": before, "now": now},
    ).fetchall()
    return [n for (n,) in rows]


def _forget_builds(lake: Lake, con: duckdb.DuckDBPyConnection, last: int) -> None:
    """Remove what models noted about builds up to a snapshot, but for the newest of each, which the next follows."""

    def work(c: duckdb.DuckDBPyConnection) -> None:
        c.execute(
            "DELETE FROM ops.builds WHERE snapshot_id <= ? AND (relation, snapshot_id) NOT IN "
            "(SELECT (relation, max(snapshot_id)) FROM ops.builds GROUP BY relation)",
            [last],
        )
        c.execute("DELETE FROM ops.rewrites WHERE snapshot_id <= ?", [last])

    lake.transaction(con, work, "maintenance: forget old builds")


def _remove_leftovers(settings: Settings, before: datetime) -> None:
    """Remove what processes that were killed have left: copies of files, what DuckDB spilled, copies for readers."""
    left = [
        *settings.temp_path.glob("ingest-*"),
        *settings.temp_path.glob("duckdb_temp_*"),
        *settings.readers_path.glob(".*"),
    ]
    for path in left:
        # Whose it was may have ended meanwhile, and taken it away.
        with suppress(FileNotFoundError):
            if datetime.fromtimestamp(path.stat().st_mtime, UTC) >= before:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _size(con: object) -> tuple[int, int]:
    row = con.execute(  # type: ignore[attr-defined]
        "SELECT coalesce(sum(file_count), 0)::BIGINT, coalesce(sum(file_size_bytes), 0)::BIGINT "
        "FROM ducklake_table_info(?)",
        [LAKE],
    ).fetchone()
    return row[0], row[1]
