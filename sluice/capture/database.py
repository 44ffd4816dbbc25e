"""What is asked of the captured database besides its changes: is all as it must be, where is the slot, how far behind.

Through DuckDB's PostgreSQL scanner, which the lake needs anyway. Reading changes belongs to `sluice.capture.engine`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb

from sluice.capture.configuration import Capture
from sluice.connections import scrub, shown
from sluice.errors import CaptureError, CaptureUnavailableError
from sluice.extensions import install_extensions
from sluice.sql import literal, quoted

# By which Debezium finds our own marks among other messages of the log.
MARK_PREFIX = "sluice"


# Kinds of messages of PostgreSQL's `pgoutput` (protocol 1), by their first byte. A relation is told of before the first
# change of it; the others begin with the number of theirs.
_RELATION, _TRUNCATE = b"R", b"T"
_ROW_CHANGES = (b"I", b"U", b"D")


@dataclass(frozen=True)
class Slot:
    """A replication slot. Positions are bytes of the database's log since it was made (LSN), as Debezium gives them.

    Attributes:
        active: somebody reads from it now.
        confirmed: up to where its reader has said that it has all.
        restart: from where the server must read its log again to decode what follows; 0 of a lost slot.
        wal_status: `reserved`, `extended`, `unreserved` or `lost`.
    """

    plugin: str
    database: str
    active: bool
    confirmed: int
    restart: int
    wal_status: str


class Database:
    """The captured database, asked with SQL; made by `connected`."""

    def __init__(self, con: duckdb.DuckDBPyConnection, capture: Capture, connection: str) -> None:
        self._con, self._capture, self._connection = con, capture, connection

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query that writes nothing.

        Raises:
            CaptureError, CaptureUnavailableError: the server refuses it, or is gone.
        """
        try:
            return self._con.execute("FROM postgres_query('source', ?)", [sql]).fetchall()
        except duckdb.Error as error:
            raise _told(error, self._capture, self._connection) from None

    def position(self) -> int:
        """Where the database's log ends now, in bytes."""
        return int(self.rows("SELECT (pg_current_wal_lsn() - '0/0')::bigint AS position")[0][0])

    def slot(self) -> Slot | None:
        """The capture's slot; None if it is not there."""
        found = self.rows(
            "SELECT plugin, coalesce(database, '') AS database, active, "
            "coalesce(confirmed_flush_lsn - '0/0', 0)::bigint AS confirmed, "
            "coalesce(restart_lsn - '0/0', 0)::bigint AS restart, coalesce(wal_status, '') AS wal_status "
            f"FROM pg_replication_slots WHERE slot_name = {literal(self._capture.slot)}"
        )
        return Slot(*found[0]) if found else None

    def numbers(self) -> dict[str, int]:
        """By `<schema>.<table>` the number (OID) each captured table keeps for as long as it exists."""
        return dict(
            self.rows(
                "SELECT n.nspname || '.' || c.relname AS name, c.oid::bigint AS number FROM pg_class AS c "
                "JOIN pg_namespace AS n ON n.oid = c.relnamespace "
                f"WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN ({self._wanted()})"
            )
        )

    def waiting(self) -> int:
        """How many changes of captured tables were committed and lie behind the slot; nothing is taken from it.

        The server decodes its log from `Slot.restart` on, so ask only where that is not far.

        Raises:
            CaptureError: somebody reads from the slot, or it is lost.
        """
        whole = ", ".join(str(kind[0]) for kind in (_RELATION, _TRUNCATE))
        changes = ", ".join(str(kind[0]) for kind in _ROW_CHANGES)
        found = self.rows(
            # Of a change no more than its kind and table: five bytes. What rows hold stays where it is.
            f"SELECT CASE WHEN get_byte(data, 0) IN ({whole}) THEN data ELSE substring(data FROM 1 FOR 5) END "
            f"AS message, count(*) AS times FROM pg_logical_slot_peek_binary_changes({literal(self._capture.slot)}, "
            f"NULL, NULL, 'proto_version', '1', 'publication_names', {literal(quoted(self._capture.publication))}) "
            f"WHERE get_byte(data, 0) IN ({whole}, {changes}) GROUP BY 1"
        )
        return _captured([(bytes(message), int(times)) for message, times in found], self._capture)

    def drop_slot(self) -> None:
        """Drop the capture's slot if it is there.

        Raises:
            CaptureError: somebody reads from it.
        """
        if self.slot() is not None:
            self._run(f"SELECT pg_drop_replication_slot({literal(self._capture.slot)})")

    def mark(self, token: str) -> None:
        """Write a mark into the database's log; whoever reads it has read all that was committed before."""
        self._run(f"SELECT pg_logical_emit_message(true, {literal(MARK_PREFIX)}, {literal(token)})")

    def check(self, *, streaming: bool) -> None:
        """See whether the database is set up for this capture, which is at the stage `streaming` or before.

        Raises:
            CaptureError: it is not; the message has every reason, and the SQL that mends each.
        """
        published = list(self._wrong_publication())
        if published and streaming:
            published.append(
                "what the publication leaves out until then never comes: once it is mended, `sluice capture resnapshot "
                f"{self._capture.name}`, then run it again."
            )
        wrong = [*self._wrong_server(), *published, *self._wrong_tables()]
        if wrong:
            raise CaptureError(
                f"The database of the capture {self._capture.name} ({shown(self._connection)}) is not set up for it:"
                + "".join(f"\n  - {reason}" for reason in wrong)
                + "\nSee docs/cdc.md."
            )

    def _wrong_server(self) -> Iterator[str]:
        level, user, may, standby = self.rows(
            "SELECT current_setting('wal_level') AS level, current_user::text AS role, rolreplication OR rolsuper "
            "AS may, pg_is_in_recovery() AS standby FROM pg_roles WHERE rolname = current_user"
        )[0]
        if level != "logical":
            yield f"wal_level is {level}. As superuser: ALTER SYSTEM SET wal_level = 'logical'; and restart."
        if not may:
            yield f"{user} may not read the log. As a superuser: ALTER ROLE {quoted(user)} REPLICATION;"
        if standby:
            yield "this server is a standby. Connect to the primary."

    def _wrong_publication(self) -> Iterator[str]:
        name = self._capture.publication
        listed = ", ".join(f"{quoted(s)}.{quoted(t)}" for s, t in self._capture.tables)
        found = self.rows(
            f"SELECT pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication WHERE pubname = {literal(name)}"
        )
        if not found:
            yield (
                f"there is no publication {name}. As the tables' owner: CREATE PUBLICATION {quoted(name)} "
                f"FOR TABLE {listed};"
            )
            return
        if not all(found[0]):
            yield (
                f"the publication {name} leaves out some operations: ALTER PUBLICATION {quoted(name)} SET (publish = "
                "'insert, update, delete, truncate');"
            )
        published = set(
            self.rows(
                "SELECT schemaname::text AS schema, tablename::text AS name FROM pg_publication_tables "
                f"WHERE pubname = {literal(name)}"
            )
        )
        for schema, table in self._capture.tables:
            if (schema, table) not in published:
                yield (
                    f"the publication {name} does not have {schema}.{table}: ALTER PUBLICATION {quoted(name)} ADD "
                    f"TABLE {quoted(schema)}.{quoted(table)};"
                )
        for schema, table, filtered, listed_only in self._published_in_part():
            what = " and ".join([*(["a row filter"] if filtered else []), *(["a column list"] if listed_only else [])])
            of = f"{quoted(schema)}.{quoted(table)}"
            yield (
                f"the publication {name} has {schema}.{table} with {what}, so that changes would be missing: BEGIN; "
                f"ALTER PUBLICATION {quoted(name)} DROP TABLE {of}; ALTER PUBLICATION {quoted(name)} ADD TABLE {of}; "
                "COMMIT;"
            )

    def _published_in_part(self) -> list[tuple[Any, ...]]:
        """Captured tables of which the publication has some rows or columns only: schema, table, which of the two."""
        # Before PostgreSQL 15 there is neither. Of the catalog, for its view names all columns where there is no list.
        if self.rows("SELECT current_setting('server_version_num')::int AS version")[0][0] < 150_000:
            return []
        return self.rows(
            "SELECT n.nspname::text AS schema, c.relname::text AS name, r.prqual IS NOT NULL AS filtered, "
            "r.prattrs IS NOT NULL AS listed FROM pg_publication_rel AS r "
            "JOIN pg_publication AS p ON p.oid = r.prpubid JOIN pg_class AS c ON c.oid = r.prrelid "
            "JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            f"WHERE p.pubname = {literal(self._capture.publication)} AND (n.nspname, c.relname) IN ({self._wanted()}) "
            "AND (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL) ORDER BY 1, 2"
        )

    def _wanted(self) -> str:
        """The captured tables as a list of SQL."""
        return ", ".join(f"({literal(schema)}, {literal(table)})" for schema, table in self._capture.tables)

    def _wrong_tables(self) -> Iterator[str]:
        # What may be stored out of line (TOAST) is not in the log of an update that left it as it was, unless the
        # whole old row is.
        found = self.rows(
            "SELECT n.nspname::text AS schema, c.relname::text AS name, c.relreplident::text AS identity, "
            "has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS readable, "
            "(SELECT string_agg(a.attname::text, ', ' ORDER BY a.attnum) FROM pg_attribute AS a WHERE a.attrelid = "
            "c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attlen = -1 AND a.attstorage <> 'p') AS large "
            "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            f"WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN ({self._wanted()})"
        )
        there = {(schema, table): rest for schema, table, *rest in found}
        for schema, table in self._capture.tables:
            name = f"{quoted(schema)}.{quoted(table)}"
            if (schema, table) not in there:
                yield f"there is no table {schema}.{table}. Mend tables of the capture."
                continue
            identity, readable, large = there[(schema, table)]
            if not readable:
                yield (
                    f"{schema}.{table} may not be read: GRANT USAGE ON SCHEMA {quoted(schema)} and GRANT SELECT ON "
                    f"{name} to the role of the capture."
                )
            if identity != "f" and large:
                yield (
                    f"{schema}.{table} has columns that may be stored out of line ({large}), whose values an update "
                    "that leaves them as they are would not bring. As its owner: "
                    f"ALTER TABLE {name} REPLICA IDENTITY FULL;"
                )

    def _run(self, sql: str) -> None:
        try:
            self._con.execute("CALL postgres_execute('source', ?)", [sql])
        except duckdb.Error as error:
            raise _told(error, self._capture, self._connection) from None


@contextmanager
def connected(capture: Capture) -> Iterator[Database]:
    """The database of a capture, for a while.

    Raises:
        ConfigurationError: the environment has no connection for it.
        CaptureUnavailableError: it cannot be reached.
        CaptureError: it lets nobody in so.
    """
    connection = capture.connection_string()
    install_extensions()
    with duckdb.connect() as con:
        try:
            con.execute("LOAD postgres_scanner")
            con.execute(f"ATTACH {literal(connection)} AS source (TYPE postgres)")
        except duckdb.Error as error:
            raise _told(error, capture, connection) from None
        yield Database(con, capture, connection)


def _captured(messages: list[tuple[bytes, int]], capture: Capture) -> int:
    """How many of some messages of `pgoutput`, each with how often it came, are changes of captured tables."""
    relations = [(message[1:5], tuple(message[5:].split(b"\0")[:2])) for message, _ in messages if message[:1] == b"R"]
    wanted = {(schema.encode(), table.encode()) for schema, table in capture.tables}
    numbers = {number for number, name in relations if name in wanted}
    rows = sum(times for message, times in messages if message[:1] in _ROW_CHANGES and message[1:5] in numbers)
    # A truncate may be of several tables: behind their count and its options come their numbers.
    truncates = sum(
        times
        for message, times in messages
        if message[:1] == _TRUNCATE and numbers & {message[at : at + 4] for at in range(6, len(message), 4)}
    )
    return rows + truncates


def _told(error: duckdb.Error, capture: Capture, connection: str) -> CaptureError | CaptureUnavailableError:
    """What the server said, without a secret, and whether trying again may help."""
    said = scrub(str(error), connection).strip().splitlines()
    what = next((line for line in reversed(said) if "ERROR" in line or "FATAL" in line), said[0])
    where = f"The database of the capture {capture.name} ({shown(connection)})"
    if re.search(r"refused|timed out|closed the connection|starting up|shutting down|could not translate|reset", what):
        return CaptureUnavailableError(f"{where} cannot be reached: {what}. Is it up? Try again.")
    if re.search(r"slot .* is active", what):
        return CaptureError(f"{where}: {what}. Stop the capture that runs, or name another slot.")
    return CaptureError(f"{where} refuses: {what}. Mend {capture.connection}, or the role's rights (docs/cdc.md).")
