"""Verifying the lake: is every file that its catalog names there, and can it be read; and living on where one is not.

Belongs here: finding damage, saying what it means, taking damaged files out of the catalog so that their rows can be
made again. Making them again belongs to ingest and dbt; checking backups, to `sluice.backup`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from sluice.audits import record_audit
from sluice.errors import DataDamagedError
from sluice.lake import CATALOG, LAKE, Lake
from sluice.landing import STREAM_PREFIX
from sluice.publication import current_publication, expire
from sluice.sql import literal, quoted

# Notes that a build makes again; every other table of ops is a record nothing can be made again from.
_REMADE_IN_OPS = ("ops.builds", "ops.rewrites")

# Every file of every snapshot the catalog still has, with the names its table and schema have or had last.
_FILES = f"""
    WITH tables AS (
        SELECT table_id, arg_max(table_name, begin_snapshot) AS table_name,
            arg_max(schema_id, begin_snapshot) AS schema_id, arg_max(path, begin_snapshot) AS path,
            arg_max(path_is_relative, begin_snapshot) AS relative
        FROM {CATALOG}.ducklake_table GROUP BY table_id
    ), schemas AS (
        SELECT schema_id, arg_max(schema_name, begin_snapshot) AS schema_name, arg_max(path, begin_snapshot) AS path,
            arg_max(path_is_relative, begin_snapshot) AS relative
        FROM {CATALOG}.ducklake_schema GROUP BY schema_id
    ), files AS (
        SELECT data_file_id, NULL AS delete_file_id, table_id, begin_snapshot, end_snapshot, path,
            path_is_relative AS relative, record_count, file_size_bytes
        FROM {CATALOG}.ducklake_data_file
        UNION ALL
        SELECT data_file_id, delete_file_id, table_id, begin_snapshot, end_snapshot, path, path_is_relative,
            delete_count, file_size_bytes
        FROM {CATALOG}.ducklake_delete_file
    )
    SELECT f.data_file_id, f.delete_file_id, f.table_id, s.schema_name || '.' || t.table_name,
        CASE WHEN f.relative AND t.relative AND s.relative THEN $data ELSE '' END
            || CASE WHEN f.relative AND t.relative THEN s.path ELSE '' END
            || CASE WHEN f.relative THEN t.path ELSE '' END || f.path,
        f.record_count, f.file_size_bytes, f.begin_snapshot, f.end_snapshot
    FROM files AS f JOIN tables AS t USING (table_id) JOIN schemas AS s USING (schema_id)
    ORDER BY 4, f.data_file_id, f.delete_file_id NULLS FIRST
"""


@dataclass(frozen=True)
class NamedFile:
    """A file that the catalog names.

    Attributes:
        table: `schema.table`.
        deletes: it says which rows of its data file are deleted.
        rows: it holds.
        bytes: it has, by the catalog.
        begin, end: snapshots from and to which it belongs to the table, `[begin, end)`; no end while it does.
    """

    data_file_id: int
    delete_file_id: int | None
    table_id: int
    table: str
    path: str
    rows: int
    bytes: int
    begin: int
    end: int | None

    @property
    def identity(self) -> tuple[int, int | None]:
        """Stays when the file is replaced, and its `end` is noted."""
        return self.data_file_id, self.delete_file_id

    @property
    def deletes(self) -> bool:
        """Whether it says which rows are deleted, instead of holding rows."""
        return self.delete_file_id is not None

    def belongs_to(self, snapshot: int) -> bool:
        """Whether a snapshot names it."""
        return self.begin <= snapshot and (self.end is None or snapshot < self.end)


@dataclass(frozen=True)
class Damage:
    """A file that is missing or not what the catalog says.

    Attributes:
        problem: what is wrong with it.
        published: readers meet it.
        snapshots: kept snapshots that name it, less the newest.
        partitions: of a bronze table, those whose rows may be in it.
    """

    file: NamedFile
    problem: str
    published: bool
    snapshots: tuple[int, ...]
    partitions: tuple[str, ...] = ()

    @property
    def current(self) -> bool:
        """Whether the lake as it is now has lost something; otherwise only its past has."""
        return self.file.end is None

    @property
    def remakable(self) -> bool:
        """Whether its rows can be made again from what is left."""
        return not self.file.table.startswith("ops.") or self.file.table in _REMADE_IN_OPS


@dataclass(frozen=True)
class Verification:
    """What was looked at, and what is wrong with it.

    Attributes:
        unnamed: files in the data folder that the catalog does not name: of transactions under way or aborted.
    """

    files: int
    bytes: int
    damages: tuple[Damage, ...]
    unnamed: int


@dataclass(frozen=True)
class SetAside:
    """What was taken out of the catalog.

    Attributes:
        files: that were current.
        snapshots_expired: that named damaged files.
        partitions: by source, those of landing files whose rows are not in bronze as the books say.
        topics: from when on (UTC) messages of which rows are lacking are to be read again.
        models: gold tables that lack rows until the next build.
        left: what nothing can be done about here.
    """

    files: tuple[NamedFile, ...]
    snapshots_expired: int
    partitions: dict[str, list[str]]
    topics: dict[str, datetime]
    models: tuple[str, ...]
    left: tuple[Damage, ...]


def verify(lake: Lake, *, deep: bool = False) -> Verification:
    """Look at every file that any kept snapshot names: it is there, has its size, and can be read.

    A value changed within a file that still reads is not noticed: the lake keeps no checksums, backups do.

    Args:
        lake: to verify. Nothing is changed.
        deep: read every value, instead of each file's footer.

    Raises:
        LakeUnavailableError: there is no lake, or its catalog cannot be reached.
    """
    with lake.reading() as con:
        named = named_files(lake, con)
        problems = [(file, problem) for file in named if (problem := _problem(con, lake, file, deep))]
    if problems:
        # Maintenance may have removed what a query under way could not need any more.
        with lake.reading() as con:
            still = {file.identity: file for file in named_files(lake, con)}
            found = [(still[file.identity], problem) for file, problem in problems if file.identity in still]
            damages = _damages(lake, con, found)
    else:
        damages = ()
    return Verification(len(named), sum(f.bytes for f in named), damages, _unnamed(lake, named))


def named_files(lake: Lake, con: duckdb.DuckDBPyConnection) -> list[NamedFile]:
    """Every file that any kept snapshot names."""
    return [NamedFile(*row) for row in con.execute(_FILES, {"data": lake.settings.lake_data_path}).fetchall()]


def _unnamed(lake: Lake, named: Sequence[NamedFile]) -> int:
    if "://" in lake.settings.lake_data_path:
        return 0
    names = {file.path for file in named}
    there = (str(Path(folder, name)) for folder, _, files in os.walk(lake.settings.lake_data_path) for name in files)
    return sum(path not in names for path in there)


def _problem(con: duckdb.DuckDBPyConnection, lake: Lake, file: NamedFile, deep: bool) -> str | None:
    """What is wrong with a file; None if nothing is."""
    if "://" not in file.path:
        path = Path(file.path)
        if not path.is_file():
            return "is missing"
        size = path.stat().st_size
        if size != file.bytes:
            return f"has {size:,} bytes, the catalog says {file.bytes:,}"
    if not file.path.endswith(".parquet"):
        return None
    try:
        row = con.execute(f"SELECT num_rows FROM parquet_file_metadata({literal(file.path)})").fetchone()
        # Files of deletions may hold more rows than count at a snapshot.
        if row is None or (row[0] != file.rows and not file.deletes):
            return f"has {row[0] if row else 0:,} rows, the catalog says {file.rows:,}"
        if deep:
            # Of all columns: what is not asked for is not decoded.
            con.execute(f"SELECT bit_xor(hash(r)) FROM read_parquet({literal(file.path)}) AS r").fetchall()
    except duckdb.Error as error:
        told = str(error).strip().splitlines()[0]
        return f"cannot be read: {told}"
    return None


def _damages(lake: Lake, con: duckdb.DuckDBPyConnection, found: Sequence[tuple[NamedFile, str]]) -> tuple[Damage, ...]:
    """What it means that files are not as they should be; `found` are these, and what is wrong with each."""
    newest, published = lake.current_snapshot(con), _published(lake)
    kept = [n for (n,) in con.execute("SELECT snapshot_id FROM ducklake_snapshots(?) ORDER BY 1", [LAKE]).fetchall()]
    return tuple(
        Damage(
            file,
            problem,
            published is not None and file.belongs_to(published),
            tuple(n for n in kept if n != newest and file.belongs_to(n)),
            _partitions(con, file) if file.table.startswith("bronze.") and file.end is None else (),
        )
        for file, problem in found
    )


def _published(lake: Lake) -> int | None:
    """The snapshot readers see; None if there is none, or where even that cannot be read."""
    try:
        found = current_publication(lake)
    except duckdb.Error:
        # The table has never been made, or its own file is damaged, which is told of as such.
        return None
    return found.snapshot_id if found else None


def _partitions(con: duckdb.DuckDBPyConnection, file: NamedFile) -> tuple[str, ...]:
    """Partitions that may have rows in a bronze file: those between the least and the greatest the catalog notes."""
    row = con.execute(
        f"SELECT min_value, max_value FROM {CATALOG}.ducklake_file_column_stats AS s "
        f"JOIN {CATALOG}.ducklake_column AS c USING (table_id, column_id) "
        "WHERE s.data_file_id = ? AND s.table_id = ? AND c.column_name = '_partition_key' "
        "AND c.end_snapshot IS NULL",
        [file.data_file_id, file.table_id],
    ).fetchone()
    least, greatest = row or (None, None)
    try:
        rows = con.execute(
            "SELECT DISTINCT partition_key FROM ops.ledger WHERE source = $source AND status = 'accepted' "
            "AND superseded_by IS NULL AND rows_accepted > 0 AND ($least IS NULL OR partition_key >= $least) "
            "AND ($greatest IS NULL OR partition_key <= $greatest) ORDER BY 1",
            {"source": file.table.partition(".")[2], "least": least, "greatest": greatest},
        ).fetchall()
    except duckdb.Error:
        # The ledger's own file is damaged, which is told of as such.
        return tuple(dict.fromkeys(key for key in (least, greatest) if key))
    return tuple(key for (key,) in rows)


def set_aside(lake: Lake, found: Verification) -> SetAside:
    """Take damaged files out of the catalog: what was in them is then not there, and can be made again.

    The books no longer balance and nothing can be published until it has been made again. Kept snapshots that name a
    damaged file are expired, but for the one that is published: its readers go on meeting an error, and never see a
    part of a table for the whole of it.

    Raises:
        DataDamagedError: a table is damaged that cannot be made again; nothing was changed.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    hopeless = [d for d in found.damages if d.current and not d.remakable]
    if hopeless:
        raise DataDamagedError(
            f"{hopeless[0].file.path} of {hopeless[0].file.table} {hopeless[0].problem}: its rows cannot be made "
            "again. Nothing was changed. Put the file back from a backup, or restore the backup (docs/backup.md)."
        )
    files = {d.file.data_file_id: d.file for d in found.damages if d.current}
    tables = sorted({d.file.table for d in found.damages})
    with lake.connect() as con:
        if files:
            lake.change_catalog(con, lambda catalog: _end(con, catalog, list(files.values())))
        _forget_builds(lake, con, tables)
        expired = expire(lake, con, lambda c: _naming(lake, c, found))
        partitions: dict[str, list[str]] = {}
        topics: dict[str, datetime] = {}
        for source in [table.partition(".")[2] for table in tables if table.startswith("bronze.")]:
            keys, since = _lacking(con, source)
            partitions |= {source: keys} if keys else {}
            for topic, time in since.items():
                topics[topic] = min(time, topics.get(topic, time))
    models = tuple(sorted({file.table for file in files.values() if file.table.startswith("gold.")}))
    if files or expired:
        # What is left may pass every gate; it must not be published as it is, nor be taken for built. Nor may readers
        # be moved to a snapshot that has been expired.
        record_audit(lake, run_id="verify", checks_passed=0, failed=[f"data files set aside: {', '.join(tables)}"])
    left = tuple(d for d in found.damages if d.published)
    return SetAside(tuple(files.values()), expired, partitions, topics, models, left)


def _naming(lake: Lake, con: duckdb.DuckDBPyConnection, found: Verification) -> list[int]:
    """The kept snapshots that name a damaged file and need not stay: neither the newest nor the published one."""
    kept = {n for (n,) in con.execute("SELECT snapshot_id FROM ducklake_snapshots(?)", [LAKE]).fetchall()}
    needed = {lake.current_snapshot(con), _published(lake)}
    return sorted(n for n in kept - needed if any(d.file.belongs_to(n) for d in found.damages))


def _end(con: duckdb.DuckDBPyConnection, catalog: str, files: Sequence[NamedFile]) -> None:
    """As DuckLake does when all rows of a data file are deleted, which it can only do by reading the file."""
    row = con.execute(f"SELECT max(snapshot_id) + 1 FROM {catalog}.ducklake_snapshot").fetchone()
    assert row is not None, "an aggregate has a row"
    con.execute(
        f"INSERT INTO {catalog}.ducklake_snapshot SELECT snapshot_id + 1, now(), schema_version, next_catalog_id, "
        f"next_file_id FROM {catalog}.ducklake_snapshot ORDER BY snapshot_id DESC LIMIT 1"
    )
    changes = ",".join(f"deleted_from_table:{n}" for n in sorted({f.table_id for f in files}))
    con.execute(
        f"INSERT INTO {catalog}.ducklake_snapshot_changes VALUES (?, ?, 'sluice', 'verify: damaged files set aside', "
        "NULL)",
        [row[0], changes],
    )
    for table in ("ducklake_data_file", "ducklake_delete_file"):
        con.execute(
            f"UPDATE {catalog}.{table} SET end_snapshot = ? WHERE end_snapshot IS NULL "
            "AND data_file_id IN (SELECT unnest(?))",
            [row[0], [f.data_file_id for f in files]],
        )


def _forget_builds(lake: Lake, con: duckdb.DuckDBPyConnection, tables: Sequence[str]) -> None:
    """Have the models that make or follow these tables computed whole: their change feeds lead through lost files."""
    if not con.execute(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = ? AND schema_name = 'ops' AND table_name = 'builds'",
        [LAKE],
    ).fetchone():
        return
    lake.transaction(
        con,
        lambda c: c.execute(
            "DELETE FROM ops.builds WHERE list_contains($tables, relation) OR list_has_any(map_keys(feeds), $tables)",
            {"tables": list(tables)},
        ),
        "verify: models of damaged tables are to be computed whole",
    )


def _lacking(con: duckdb.DuckDBPyConnection, source: str) -> tuple[list[str], dict[str, datetime]]:
    """Of what bronze has not the rows that the books say: partitions of landing files, and topics, since when."""
    rows = con.execute(
        f"SELECT l.partition_key, l.batch_id FROM ops.ledger AS l LEFT JOIN (SELECT _batch_id, count(*) AS rows FROM "
        f"bronze.{quoted(source)} GROUP BY ALL) AS b ON b._batch_id = l.batch_id WHERE l.source = ? "
        "AND l.status = 'accepted' AND l.superseded_by IS NULL "
        "AND l.rows_accepted - coalesce(l.rows_erased, 0) <> coalesce(b.rows, 0) ORDER BY 1",
        [source],
    ).fetchall()
    keys = [key for key, _ in rows if not key.startswith(STREAM_PREFIX)]
    batches = [batch for key, batch in rows if key.startswith(STREAM_PREFIX)]
    # Making rows again begins with the batch that holds the first message of a time: any message of a batch will do.
    since = con.execute(
        "SELECT topic, min(coalesce(newest_message, TIMESTAMP '1970-01-01')) FROM ops.stream_positions "
        "WHERE source = ? AND list_contains(?, batch_id) GROUP BY topic",
        [source, batches],
    ).fetchall()
    return keys, dict(since)
