"""The database a source is pulled from, through DuckDB's PostgreSQL scanner: attached to read, and asked.

SQL for it, and its time, belong here; what is done with the rows is `sluice.pull`'s, the mark `sluice.pull_marks`'.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb

from sluice.connections import problem, scrub, shown
from sluice.contracts import Contract, Pull
from sluice.errors import ConfigurationError, ContractError, PullError, PullUnavailableError
from sluice.extensions import install_extensions
from sluice.sql import literal, quoted

# What orders rows the same in both databases, and how far back an overlap reaches there.
_CURSORS = {
    "TIMESTAMP": "seconds", "TIMESTAMP WITH TIME ZONE": "seconds", "DATE": "days",
    "SMALLINT": "", "INTEGER": "", "BIGINT": "",
}  # fmt: skip

# Where a time is no longer believed to be one of now: clocks differ by seconds, times without a zone by 14 hours.
_AHEAD = "INTERVAL '1 day'"

# What `mark_of` takes for a pull of everything.
BEGINNING = "beginning"


@dataclass(frozen=True)
class Now:
    """The source's own time before it is read, in the cursor's type; None where that is a number.

    Up to `cap` the mark may move; what is past `future` is of the future in whatever zone.
    """

    cap: str | None
    future: str | None


@contextmanager
def source(given: Pull, contract: Contract) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection with the source attached, which it cannot write to; what fails on it is told."""
    connection = os.environ.get(given.connection, "")
    if not connection:
        raise ConfigurationError(
            f"{contract.name} is pulled with {given.connection}, which is not set. Set it to a libpq connection string."
        )
    wrong = problem(connection)
    if wrong:
        raise ConfigurationError(f"{given.connection} must be a libpq connection string, and {wrong}.")
    install_extensions()
    with duckdb.connect() as con:
        try:
            con.execute("SET TimeZone = 'UTC'")
            con.execute("LOAD postgres_scanner")
            con.execute(f"ATTACH {literal(connection)} AS source (TYPE postgres, READ_ONLY)")
            yield con
        except duckdb.Error as error:
            said = scrub(str(error), connection).strip()
            where = f"The source of {contract.name} ({shown(connection)})"
            if re.search(
                r"refused|timed out|closed the connection|starting up|shutting down|could not translate", said
            ):
                raise PullUnavailableError(f"{where} cannot be reached: {said}. Try again.") from None
            raise PullError(
                f"{where} refuses: {said}. The mark has not moved; mend pull in {contract.path.name}, the rights, or "
                f"{given.connection}."
            ) from None


def shape(con: duckdb.DuckDBPyConnection, given: Pull, contract: Contract) -> tuple[str, list[str]]:
    """The cursor's type in DuckDB, and the names of all columns in order."""
    found = con.execute(f"DESCRIBE {_remote(f'SELECT * FROM {_from(given)} LIMIT 0')}").fetchall()
    columns = {name: kind for name, kind, *_ in found}
    if given.cursor not in columns:
        raise ContractError(
            f"{contract.path}: pull.cursor {given.cursor!r} is no column of what is pulled; those are "
            f"{', '.join(columns)}."
        )
    kind = columns[given.cursor]
    if kind not in _CURSORS:
        raise ContractError(
            f"{contract.path}: pull.cursor {given.cursor} is {kind}; it must be a time, a date or a whole number."
        )
    return kind, list(columns)


def rows_since(given: Pull, kind: str, names: list[str], mark: str | None) -> str:
    """The query of the rows at or past the mark, every value as the source's text of it: nothing is rounded."""
    texts = ", ".join(f"{quoted(name)}::text AS {quoted(name)}" for name in names)
    where = ""
    if mark is not None:
        lower = bound(kind, literal(mark), given.overlap)
        where = f" WHERE {quoted(given.cursor)} >= {lower} OR {quoted(given.cursor)} IS NULL"
    return _remote(f"SELECT {texts} FROM {_from(given)}{where}")


def bound(kind: str, mark: str, overlap: int) -> str:
    """The lower bound of a pull, in SQL that both databases read alike; `mark` is a literal or a parameter."""
    unit = _CURSORS[kind]
    back = f"INTERVAL '{overlap} {unit}'" if unit else str(overlap)
    return f"(CAST({mark} AS {kind}) - {back})"


def now_of(con: duckdb.DuckDBPyConnection, kind: str) -> Now:
    """The source's time, to be asked for before its rows are."""
    if not _CURSORS[kind]:
        return Now(None, None)
    utc = "now()" if kind == "TIMESTAMP WITH TIME ZONE" else "(now() AT TIME ZONE 'UTC')"
    # Without a zone it is the server's or UTC, and nobody says which: the mark stays behind both.
    cap = f"least({utc}, now()::{kind})"
    asked = f"SELECT ({cap})::{kind}::text, ({utc} + {_AHEAD})::{kind}::text"
    return Now(*con.execute(_remote(asked)).fetchall()[0])


def mark_of(con: duckdb.DuckDBPyConnection, kind: str, since: str) -> str | None:
    """The mark that somebody gave, as the source writes it, which refuses what is none."""
    if since == BEGINNING:
        return None
    mark: str | None
    ((mark,),) = con.execute(_remote(f"SELECT {literal(since)}::{kind}::text")).fetchall()
    return mark


def _from(given: Pull) -> str:
    if given.query:
        return f"({given.query}) AS pulled"
    return ".".join(quoted(part) for part in given.table.split("."))


def _remote(sql: str) -> str:
    return f"FROM postgres_query('source', {literal(sql)})"
