"""Attaching the lake, and writing to it in transactions that are retried when another writer is in the way.

Belongs here: connections, the schemas and ops tables everything relies on, retries. What is written belongs to the
modules that write it.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

import duckdb

from sluice.connections import scrub, secret_sql
from sluice.errors import LakeUnavailableError, PublicationError
from sluice.extensions import install_extensions, opened
from sluice.lake_errors import explain, holds_data, no_catalog, transient
from sluice.ops_tables import OPS_TABLES
from sluice.settings import Settings
from sluice.sql import literal, quoted
from sluice.writers import beside

LAKE = "lake"
# The catalog's own tables, of a published form (the DuckLake specification), beside the lake in every connection.
CATALOG = f"__ducklake_metadata_{LAKE}"
SCHEMAS = ("bronze", "silver", "gold", "ops")

# Evidence for the retry: with the SQLite catalog, 4 processes of 20 contended commits each met `database is locked`
# past the 5 s busy timeout only in bursts; six waits, 0.2 s doubling to at most 5 s, ride out a foreign commit of 15 s.
ATTEMPTS = 7
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 5.0

# Schemas and ops tables come in one transaction, the last of making a lake; before it there is DuckLake's `main` alone.
_MADE = "SELECT 1 FROM duckdb_schemas() WHERE database_name = ? AND schema_name <> 'main'"
T = TypeVar("T")


@contextmanager
def aside(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Work on temporary tables alone, with no lake as the default catalog.

    DuckDB asks the default catalog first for every function by its name, and outside of a transaction DuckLake then
    looks for its newest snapshot: 2.4 ms a statement, more than most of them take.
    """
    con.execute("USE memory")
    try:
        yield
    finally:
        con.execute(f"USE {LAKE}")


class Lake:
    """The lake of these settings. Cheap to make; each `connect` is a connection of its own.

    Raises (every method that talks to the lake):
        NoLakeError: it was to be read, and nobody has made it.
        LakeUnavailableError: the catalog cannot be reached, or stayed locked through every retry.
        PublicationError: this account can read only what is published, and nothing has been yet.
        StorageFullError: no room; nothing of the transaction was committed.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def connect(
        self, *, read_only: bool = False, snapshot: int | None = None, copy: Path | None = None
    ) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection with the lake attached as `lake` and made the default catalog.

        Args:
            read_only: refuse writes; the lake must exist.
            snapshot: pin the connection to this snapshot of the lake.
            copy: read this copy of the SQLite catalog, which nobody writes to.
        """
        install_extensions()
        catalog = copy or self._catalog(read_only)
        if not read_only:
            self._make_folders()

        def attempt(*, again: bool = True) -> duckdb.DuckDBPyConnection:
            if read_only:
                _roll_back_killed(catalog)
            # SQLite takes an empty file for an empty database, and DuckLake would make a lake of it.
            absent = not self.settings.uses_postgres and not _has_bytes(catalog)
            if absent and (read_only or holds_data(self.settings)):
                raise no_catalog(self.settings)
            try:
                return self._attach(catalog, read_only or copy is not None, snapshot)
            except duckdb.Error:
                if not (again and read_only and _rolls_back(catalog)):
                    raise
                # Who held the file was killed while this waited for it.
                return attempt(again=False)

        return self._retry(attempt)

    def _make_folders(self) -> None:
        try:
            for folder in (self.settings.home / "lake", self.settings.temp_path):
                folder.mkdir(parents=True, exist_ok=True)
            if "://" not in self.settings.lake_data_path:
                Path(self.settings.lake_data_path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain(error, self.settings) or LakeUnavailableError(
                f"Cannot write to {self.settings.home}: {error}. Check SLUICE_HOME and its rights."
            ) from error

    def _catalog(self, read_only: bool) -> Path:
        """The SQLite catalog to open: the copy for readers, where this account may not write beside the catalog.

        SQLite reads a database with a write-ahead log only where it may make the files of that log.
        """
        folder = self.settings.catalog_path.parent
        if self.settings.uses_postgres or not read_only or not folder.exists() or os.access(folder, os.W_OK):
            return self.settings.catalog_path
        copy = newest_copy(self.settings)
        if copy is not None:
            return copy
        readers = self.settings.readers_path
        if readers.exists() and not os.access(readers, os.R_OK | os.X_OK):
            raise PublicationError(
                f"What readers see is in {readers}, which this account may not read. Who administers the lake lets it "
                "in (docs/deploy.md, 'Readers')."
            )
        if not os.access(folder, os.X_OK) or _has_bytes(self.settings.catalog_path):
            raise PublicationError(
                f"Nothing has been published yet of the lake in {self.settings.home}: an account that may not write in "
                f"{folder} reads the copy that the first publication makes in {readers} "
                "(docs/deploy.md, 'Readers'). Wait for it, or use an account that may write there."
            )
        return self.settings.catalog_path

    def _attach(self, catalog: Path, read_only: bool, snapshot: int | None) -> duckdb.DuckDBPyConnection:
        settings = self.settings
        options = [f"DATA_PATH {literal(settings.lake_data_path)}"]
        attach_path, temp_path = settings.attach_path, settings.temp_path
        if not settings.uses_postgres and catalog != settings.catalog_path:
            attach_path = f"ducklake:sqlite:{catalog}"
            if not os.access(settings.catalog_path.parent, os.W_OK):
                temp_path = Path(tempfile.gettempdir()) / f"sluice-{os.getuid()}"
        elif not settings.uses_postgres:
            # The busy timeout rides out a short commit of somebody else.
            options.append("META_BUSY_TIMEOUT 5000")
            if not read_only:
                # Lets many read while one writes. The file keeps it: a reader need not ask for it, and cannot where
                # whoever was making the file died before.
                options.append("META_JOURNAL_MODE 'WAL'")
        if read_only:
            options.append("READ_ONLY")
        elif holds_data(settings):
            options.append("CREATE_IF_NOT_EXISTS false")
        if snapshot is not None:
            options.append(f"SNAPSHOT_VERSION {int(snapshot)}")

        def attach(con: duckdb.DuckDBPyConnection) -> None:
            con.execute("SET TimeZone = 'UTC'")
            # A table that is not there is missing, whatever the caller has a variable of its name for.
            con.execute("SET python_enable_replacements = false")
            con.execute(f"SET temp_directory = {literal(str(temp_path))}")
            if settings.threads:
                con.execute(f"SET threads = {settings.threads}")
            if settings.memory_limit:
                con.execute(f"SET memory_limit = {literal(settings.memory_limit)}")
            for secret in secrets:
                con.execute(secret_sql(secret))
            con.execute(f"ATTACH {literal(attach_path)} AS {LAKE} ({', '.join(options)})")
            con.execute(f"USE {LAKE}")
            if not read_only:
                self._know_the_erased(con)
            elif snapshot is None and not con.execute(_MADE, [LAKE]).fetchone():
                raise no_catalog(settings)

        secrets = bucket_secrets(settings)
        return opened(f"{'postgres' if settings.uses_postgres else 'sqlite'} {bool(secrets)}", attach)

    @contextmanager
    def reading(self, snapshot: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection that is closed at the end."""
        with self.connect(read_only=True, snapshot=snapshot) as con:
            yield con

    def write(self, work: Callable[[duckdb.DuckDBPyConnection], T], message: str) -> T:
        """Run `work` in one transaction and commit; on a conflict or a lock roll back and do all of it again.

        Args:
            work: writes through the connection it is given; must be repeatable, for it may run several times. What
                an attempt that failed did to temporary tables is undone, too.
            message: what the commit did, kept with the snapshot.

        Returns:
            What `work` returned in the run that was committed.
        """
        with self.connect() as con:
            return self.transaction(con, work, message)

    def transaction(
        self, con: duckdb.DuckDBPyConnection, work: Callable[[duckdb.DuckDBPyConnection], T], message: str
    ) -> T:
        """As `write`, on a connection that is already there (with temporary tables `work` reads)."""

        def attempt() -> T:
            # Again: the first person may have been erased since the connection was opened.
            self._know_the_erased(con)
            con.execute("BEGIN")
            try:
                # DuckDB commits what joined a transaction last first. Temporary tables must come after the lake: else
                # they keep what `work` did to them when the lake's commit fails, and the next attempt meets it.
                con.execute("CREATE TEMP TABLE IF NOT EXISTS joined_first (n INTEGER)")
                result = work(con)
                con.execute("CALL ducklake_set_commit_message(?, 'sluice', ?)", [LAKE, message])
                con.execute("COMMIT")
            except BaseException:
                _rollback(con)
                raise
            return result

        return self._retry(attempt, writes=True)

    def _know_the_erased(self, con: duckdb.DuckDBPyConnection) -> None:
        """Give a connection the key by which whoever writes rows recognises the erased."""
        # Deferred: the register is made of the lake.
        from sluice.erasure.register import register_key
        from sluice.pseudonyms import ERASURE

        register_key(self.settings).put(con, ERASURE)

    def change_catalog(self, con: duckdb.DuckDBPyConnection, work: Callable[[str], T]) -> T:
        """Write to the catalog's own tables in one transaction, for what DuckLake has no statement; retried as `write`.

        Args:
            con: a connection of this lake that may write.
            work: is given the name of the catalog's schema, in SQL; must be repeatable, and write to nothing else.
        """

        def attempt() -> T:
            con.execute("BEGIN")
            try:
                result = work(CATALOG)
                con.execute("COMMIT")
            except BaseException:
                _rollback(con)
                raise
            return result

        return self._retry(attempt, writes=True)

    def call(
        self, con: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()
    ) -> list[tuple[object, ...]]:
        """Rows of a statement that commits by itself and does no more when it runs again (maintenance); retried."""
        return self._retry(lambda: con.execute(sql, parameters).fetchall(), writes=True)

    def _retry(self, attempt: Callable[[], T], *, writes: bool = False) -> T:
        """Call `attempt` until it succeeds, an error is not transient, or the attempts run out; writers in turn."""
        wait = FIRST_WAIT_SECONDS
        for number in range(1, ATTEMPTS + 1):
            try:
                with beside(self.settings) if writes else nullcontext():
                    return attempt()
            except (duckdb.Error, OSError) as error:
                if number == ATTEMPTS or not transient(error):
                    told = explain(error, self.settings)
                    hidden = scrub(str(error), self.settings.connection)
                    if hidden != str(error):
                        # A cause is printed with its effect, and would spell out the connection's password.
                        raise told or LakeUnavailableError(hidden) from None
                    if told is None:
                        raise
                    raise told from error
            time.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def create(self, con: duckdb.DuckDBPyConnection | None = None) -> None:
        """Make schemas and ops tables that are not there yet; safe to call often and from several processes.

        Args:
            con: a connection of this lake to use; one of its own when None.
        """
        if con is None:
            with self.connect() as own:
                self.create(own)
            return
        present = set(
            con.execute(
                "SELECT schema_name, NULL, NULL FROM duckdb_schemas() WHERE database_name = $lake UNION ALL "
                "SELECT schema_name, table_name, column_name FROM duckdb_columns() "
                "WHERE database_name = $lake AND schema_name = 'ops' UNION ALL "
                f"SELECT 'nothing inlined', NULL, NULL FROM ducklake_options('{LAKE}') "
                "WHERE option_name = 'data_inlining_row_limit' AND scope = 'GLOBAL' AND value = '0'",
                {"lake": LAKE},
            ).fetchall()
        )
        # A table has a column: asking for the tables, too, would cost as much again.
        present |= {(schema, table, None) for schema, table, _ in present}
        if ("nothing inlined", None, None) not in present:
            self._keep_rows_in_files(con)
        missing = [f"CREATE SCHEMA IF NOT EXISTS {s}" for s in SCHEMAS if (s, None, None) not in present]
        for table, columns in OPS_TABLES.items():
            if ("ops", table, None) not in present:
                declared = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items())
                missing.append(f"CREATE TABLE IF NOT EXISTS ops.{table} ({declared})")
            else:
                # A lake made by an earlier version: its rows have null there.
                missing += [
                    f"ALTER TABLE ops.{table} ADD COLUMN IF NOT EXISTS {quoted(name)} {kind}"
                    for name, kind in columns.items()
                    if ("ops", table, name) not in present
                ]
        if missing:
            self.transaction(con, lambda c: [c.execute(sql) for sql in missing], "create schemas and ops tables")

    def _keep_rows_in_files(self, con: duckdb.DuckDBPyConnection) -> None:
        """Have DuckLake write few rows into files like many; what a lake of an earlier version has in its catalog, too.

        It would keep them as text in the catalog, until maintenance moves them into files. Measured: whoever reads a
        table while that happens, at whatever snapshot, may find its rows in neither place, and is not told; nor can
        it read a list or struct back from there in which a value holds a lone brace.
        """
        never = f"CALL {LAKE}.set_option('data_inlining_row_limit', 0)"
        self.transaction(con, lambda c: c.execute(never), "rows are kept in files")
        flush = f"CALL ducklake_flush_inlined_data('{LAKE}')"
        self.transaction(con, lambda c: c.execute(flush), "rows moved from the catalog into files")

    def current_snapshot(self, con: duckdb.DuckDBPyConnection) -> int:
        """The number of the newest snapshot this connection sees."""
        row = con.execute(f"SELECT id FROM {LAKE}.current_snapshot()").fetchone()
        assert row is not None, "every lake has a snapshot from its creation on"
        return int(row[0])


def copies(settings: Settings) -> list[Path]:
    """The readers' copies of the SQLite catalog, oldest first; what they are is said in `sluice.readers`."""
    numbered = {int(p.stem.partition("-")[2]): p for p in settings.readers_path.glob("catalog-*.sqlite")}
    return [numbered[number] for number in sorted(numbered)]


def newest_copy(settings: Settings) -> Path | None:
    """The readers' newest copy; None where there is none, as with PostgreSQL, or before anything was published."""
    found = [] if settings.uses_postgres else copies(settings)
    return found[-1] if found else None


def _has_bytes(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _rolls_back(catalog: Path) -> bool:
    """Whether somebody is writing, or was killed in the midst of it, before the file had its write-ahead log."""
    return catalog.with_name(f"{catalog.name}-journal").exists()


def _roll_back_killed(catalog: Path) -> None:
    """Undo what somebody was killed in the midst of before the file had its write-ahead log.

    SQLite does so by itself for whoever opens the file to write; a reader it tells that the file cannot be written.
    """
    # Of an empty file, or one that is not there, SQLite would make a database, and throw its journal away.
    if _has_bytes(catalog) and _rolls_back(catalog):
        # By DuckDB's own SQLite: another one in this process would, closing the file, let go of the locks that the
        # first holds on it for whoever is making the lake here. Where this account may not, attaching says so.
        with suppress(duckdb.Error), opened("sqlite alone", lambda con: _attach_sqlite(con, catalog)):
            pass


def _attach_sqlite(con: duckdb.DuckDBPyConnection, catalog: Path) -> None:
    con.execute("LOAD sqlite_scanner")
    con.execute(f"ATTACH {literal(str(catalog))} AS catalog (TYPE sqlite)")
    con.execute("SELECT count(*) FROM duckdb_tables() WHERE database_name = 'catalog'")


def _rollback(con: duckdb.DuckDBPyConnection) -> None:
    """Roll back; a failed COMMIT has already ended the transaction, which is no further error."""
    try:
        con.execute("ROLLBACK")
    except duckdb.TransactionException as error:
        if "no transaction is active" not in str(error):
            raise


def bucket_secrets(settings: Settings) -> list[dict[str, str]]:
    """What DuckDB needs to reach the lake's bucket, from the usual AWS_ variables; empty for data in a folder."""
    if not settings.data_path.startswith("s3://"):
        return []
    names = {
        "key_id": "AWS_ACCESS_KEY_ID",
        "secret": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
        "region": "AWS_REGION",
        "endpoint": "SLUICE_S3_ENDPOINT",
        "url_style": "SLUICE_S3_URL_STYLE",
        "use_ssl": "SLUICE_S3_USE_SSL",
    }
    given = {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}
    return [{"type": "s3", "provider": "config", **given}]
