"""The two kinds of catalog: copying one as of an instant, which files it names, and moving it to another folder.

Both are DuckLake's own tables; only how they are read and written differs.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb

from sluice.connections import password_of, scrub, without_password
from sluice.errors import BackupError, LakeUnavailableError
from sluice.extensions import install_extensions
from sluice.lake import Lake
from sluice.lake_errors import explain
from sluice.settings import Settings
from sluice.sql import literal
from sluice.sqlite_catalog import copy_sqlite

SQLITE, POSTGRES = "sqlite", "postgres"
COPIES = {SQLITE: "catalog.sqlite", POSTGRES: "catalog.pgdump"}

# Every file of every snapshot the catalog still has. A table keeps its folder when it is renamed; a file that waits to
# be deleted (ducklake_files_scheduled_for_deletion) belongs to no snapshot any more.
_FILES = """
    SELECT s.path || t.path || f.path, f.file_size_bytes, s.relative AND t.relative AND f.relative
    FROM (
        SELECT table_id, path, path_is_relative AS relative, file_size_bytes FROM ducklake_data_file
        UNION ALL SELECT table_id, path, path_is_relative, file_size_bytes FROM ducklake_delete_file
    ) f
    LEFT JOIN (SELECT DISTINCT table_id, schema_id, path, path_is_relative AS relative FROM ducklake_table) t
        ON t.table_id = f.table_id
    LEFT JOIN (SELECT DISTINCT schema_id, path, path_is_relative AS relative FROM ducklake_schema) s
        ON s.schema_id = t.schema_id
"""
_SNAPSHOT = "SELECT max(snapshot_id) FROM ducklake_snapshot"


@dataclass(frozen=True)
class Contents:
    """What a catalog speaks of: its newest snapshot, and bytes of each file by path relative to the data folder."""

    snapshot_id: int
    files: dict[str, int]


def copy_catalog(settings: Settings, folder: Path) -> Contents:
    """Copy the lake's catalog as of one instant into a folder, replacing a copy there; writers are not held up.

    Raises:
        LakeUnavailableError: there is no lake, or its catalog cannot be read.
        BackupError: it names files outside the lake's data folder, or `pg_dump` is absent or fails.
    """
    if settings.uses_postgres:
        return _dump_postgres(settings, folder / COPIES[POSTGRES])
    target = folder / COPIES[SQLITE]
    copy_sqlite(settings, target)
    return read_sqlite(target)


def read_sqlite(path: Path) -> Contents:
    """What a copy of a SQLite catalog speaks of; the copy is left as it is.

    Raises:
        BackupError: it is damaged, or names files outside the data folder.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)) as con:
            (state,) = con.execute("PRAGMA integrity_check").fetchone()
            if state != "ok":
                raise BackupError(f"The catalog {path} is damaged: {state}. Use another backup.")
            return _contents(con.execute(_SNAPSHOT).fetchone(), con.execute(_FILES).fetchall())
    except sqlite3.DatabaseError as error:
        raise BackupError(f"The catalog {path} is damaged: {error}. Use another backup.") from error


def move_sqlite(path: Path, data_path: str) -> None:
    """Tell a copied SQLite catalog where its data files lie from now on."""
    with closing(sqlite3.connect(path)) as con, con:
        # As a lake's catalog is: one who may only read cannot switch it.
        con.execute("PRAGMA journal_mode = WAL")
        con.execute("UPDATE ducklake_metadata SET value = ? WHERE key = 'data_path' AND scope IS NULL", [data_path])
        # They waited to be deleted where the catalog was copied; they are not in the backup.
        con.execute("DELETE FROM ducklake_files_scheduled_for_deletion")


def _dump_postgres(settings: Settings, target: Path) -> Contents:
    with _attached(settings, read_only=True) as con:
        con.execute("BEGIN")
        # pg_dump reads in the very snapshot of this transaction, so that the list of files is that of the dump.
        row = con.execute("SELECT * FROM postgres_query('catalog', 'SELECT pg_export_snapshot()')").fetchone()
        assert row is not None, "a function call has a row"
        contents = _contents(con.execute(_SNAPSHOT).fetchone(), con.execute(_FILES).fetchall())
        _client(
            settings, "pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--table=public.ducklake_*",
            f"--snapshot={row[0]}", f"--file={target}",
        )  # fmt: skip
        con.execute("COMMIT")
    return contents


def restore_postgres(settings: Settings, dump: Path, data_path: str) -> Contents:
    """Load a dumped catalog into the empty database of SLUICE_CATALOG, with its data files in another folder.

    Raises:
        BackupError: the database has a lake already, or `pg_restore` is absent or fails; the database is as it was.
        LakeUnavailableError: the server cannot be reached.
    """
    with _attached(settings, read_only=False) as con:
        if con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name LIKE 'ducklake_%' LIMIT 1").fetchone():
            raise BackupError("The database of SLUICE_CATALOG has a lake already. Make an empty one, and name that.")
    _client(
        settings, "pg_restore", "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error", str(dump)
    )
    with _attached(settings, read_only=False) as con:
        con.execute("BEGIN")
        con.execute("UPDATE ducklake_metadata SET value = ? WHERE key = 'data_path' AND scope IS NULL", [data_path])
        con.execute("DELETE FROM ducklake_files_scheduled_for_deletion")
        contents = _contents(con.execute(_SNAPSHOT).fetchone(), con.execute(_FILES).fetchall())
        con.execute("COMMIT")
    return contents


def _attached(settings: Settings, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    """A connection with the catalog's database itself attached and in use, not the lake."""
    install_extensions()
    con = duckdb.connect()
    try:
        mode = ", READ_ONLY" if read_only else ""
        con.execute(f"ATTACH {literal(settings.connection)} AS catalog (TYPE postgres{mode})")
        con.execute("USE catalog.public")
    except duckdb.Error as error:
        con.close()
        # Its cause would spell out the connection's password.
        raise explain(error, settings) or LakeUnavailableError(scrub(str(error), settings.connection)) from None
    return con


def _contents(snapshot: Iterable[object] | None, rows: Iterable[tuple[str | None, int, object]]) -> Contents:
    (number,) = snapshot or (None,)
    files: dict[str, int] = {}
    for path, size, relative in rows:
        if path is None or not relative:
            raise BackupError(
                f"The catalog names a file that is not in the lake's own data folder ({path}). Such a lake cannot be "
                "backed up: rewrite the table that holds it (CREATE TABLE … AS) and run maintenance."
            )
        files[path] = size
    if not isinstance(number, int):
        raise BackupError("The catalog has no snapshot: there is no lake in it.")
    return Contents(number, files)


def _client(settings: Settings, program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs on the catalog's database; the password goes by the environment alone."""
    # Debian has those of each version in a folder of its own, which need not be on the PATH.
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda p: float(p.parts[-3]))
    found = shutil.which(program) or (str(newest[-1]) if newest else None)
    if found is None:
        raise BackupError(f"{program} is not installed; a PostgreSQL catalog needs it (apt install postgresql-client).")
    connection = settings.connection
    password = password_of(connection)
    environment = {**os.environ, **({"PGPASSWORD": password} if password else {})}
    done = subprocess.run(
        [found, f"--dbname={without_password(connection)}", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BackupError(f"{program} failed: {scrub(done.stderr, connection).strip()[:1000]}")


def opens(settings: Settings) -> int:
    """Attach a lake read-only and return its newest snapshot."""
    lake = Lake(settings)
    with lake.reading() as con:
        return lake.current_snapshot(con)
