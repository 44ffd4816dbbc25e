"""Plain incremental pull, for a database without change data capture: what changed since the mark, as a landing file.

The rows whose cursor (such as `updated_at`) lies at or past the mark, less an overlap for those that were committed
later than they say, are read in one query, which sees one state of the database, through DuckDB's PostgreSQL scanner.
They become one file in the landing folder of the day; ingest does the rest. What the overlap gives again unchanged is
known by its hash and not delivered twice.

Deletes, and values a row had between two pulls, are not seen so: that takes `sluice.capture`.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from sluice.connections import problem, scrub, shown
from sluice.contracts import Contract, Pull
from sluice.errors import ConfigurationError, ContractError, PullError, PullUnavailableError
from sluice.extensions import install_extensions
from sluice.lake import Lake, literal, quoted

# What orders rows the same in both databases, and how far back an overlap reaches there.
_CURSORS = {
    "TIMESTAMP": "seconds", "TIMESTAMP WITH TIME ZONE": "seconds", "DATE": "days",
    "SMALLINT": "", "INTEGER": "", "BIGINT": "",
}  # fmt: skip


@dataclass(frozen=True)
class Pulled:
    """What a pull did: the file, relative to the landing folder (None: nothing new), its rows, and the mark now."""

    file: str | None
    rows: int
    mark: str | None


@dataclass(frozen=True)
class _Note:
    """What the lake knows of a source's pulls; `written` is false while the file of the next one is on its way."""

    number: int
    mark: str | None
    recent: list[str]
    file: str | None
    written: bool


def pull(lake: Lake, contract: Contract) -> Pulled:
    """Pull what changed since the last pull into a landing file of today (UTC).

    The mark moves when the file is in its place, in this order: the file's name is noted, the file is put there, the
    mark is noted. Who was killed between begins again with the same name, and the file is replaced.

    Args:
        lake: of the settings with the landing folder.
        contract: with a `pull`.

    Raises:
        ContractError: it has none, or its cursor is of no type with an order.
        ConfigurationError: the environment has no connection for it.
        PullError, PullUnavailableError: the database refuses, or cannot be reached.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    given = contract.pull
    if given is None:
        raise ContractError(f"{contract.path}: has no customProperty pull. See docs/cdc.md for how to write one.")
    settings = lake.settings
    lake.create()
    with _alone(settings.capture_path, contract), _source(given, contract) as con:
        note = _note(lake, contract)
        kind, names = _shape(con, given, contract)
        con.execute(f"CREATE TEMP TABLE pulled AS {_rows(given, kind, names, note.mark)}")
        hashed = f"md5(concat_ws(chr(31), {', '.join(_unambiguous(name) for name in names)}))"
        con.execute(
            f"CREATE TEMP TABLE fresh AS SELECT * FROM pulled WHERE NOT list_contains($recent::VARCHAR[], {hashed})",
            {"recent": note.recent},
        )
        cursor = f"TRY_CAST({quoted(given.cursor)} AS {kind})"
        (newest,) = con.execute(f"SELECT max_by({quoted(given.cursor)}, {cursor}) FROM pulled").fetchall()[0]
        mark = newest if newest is not None else note.mark
        (rows,) = con.execute("SELECT count(*) FROM fresh").fetchall()[0]
        # Whatever the next pull may give again: from its own lower bound on, and what has no cursor at all.
        recent = [
            digest
            for (digest,) in con.execute(
                f"SELECT DISTINCT {hashed} FROM pulled WHERE {cursor} IS NULL OR $mark IS NULL OR "
                f"{cursor} >= {_bound(kind, '$mark', given.overlap)}",
                {"mark": mark},
            ).fetchall()
        ]
        if not rows:
            if (mark, sorted(recent)) != (note.mark, sorted(note.recent)):
                _save(lake, contract, _Note(note.number, mark, recent, note.file, True), 0)
            return Pulled(None, 0, mark)
        number = note.number if not note.written else note.number + 1
        file = note.file if not note.written and note.file else _place(contract, number)
        _save(lake, contract, _Note(number, note.mark, note.recent, file, False), 0)
        _put(con, settings.landing_path / file)
        _save(lake, contract, _Note(number, mark, recent, file, True), rows)
        return Pulled(file, rows, mark)


def _place(contract: Contract, number: int) -> str:
    """Where a pull's file lies: named by its number, so that who is killed and begins anew replaces it."""
    folder = contract.landing.path.replace("{date}", datetime.now(UTC).date().isoformat())
    kind = "jsonl" if "jsonl" in contract.landing.formats else "parquet"
    return f"{folder}/pull-{number:08d}.{kind}"


def _put(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Write the new rows to a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(path.suffix + ".tmp")
    form = "JSON" if path.suffix == ".jsonl" else "PARQUET"
    con.execute(f"COPY fresh TO {literal(str(unfinished))} (FORMAT {form})")
    # On the disk before its name is, and its name before the mark.
    _keep(unfinished)
    unfinished.replace(path)
    _keep(path.parent)


def _keep(path: Path) -> None:
    """Have the disk keep a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shape(con: duckdb.DuckDBPyConnection, given: Pull, contract: Contract) -> tuple[str, list[str]]:
    """The cursor's type in DuckDB, and the names of all columns in order."""
    shape = con.execute(f"DESCRIBE {_remote(f'SELECT * FROM {_from(given)} LIMIT 0')}").fetchall()
    columns = {name: kind for name, kind, *_ in shape}
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


def _rows(given: Pull, kind: str, names: list[str], mark: str | None) -> str:
    """The query of the rows at or past the mark, every value as the source's text of it: nothing is rounded."""
    texts = ", ".join(f"{quoted(name)}::text AS {quoted(name)}" for name in names)
    where = ""
    if mark is not None:
        bound = _bound(kind, literal(mark), given.overlap)
        where = f" WHERE {quoted(given.cursor)} >= {bound} OR {quoted(given.cursor)} IS NULL"
    return _remote(f"SELECT {texts} FROM {_from(given)}{where}")


def _bound(kind: str, mark: str, overlap: int) -> str:
    """The lower bound of a pull, in SQL that both databases read alike; `mark` is a literal or a parameter."""
    unit = _CURSORS[kind]
    back = f"INTERVAL '{overlap} {unit}'" if unit else str(overlap)
    return f"(CAST({mark} AS {kind}) - {back})"


def _from(given: Pull) -> str:
    if given.query:
        return f"({given.query}) AS pulled"
    return ".".join(quoted(part) for part in given.table.split("."))


def _remote(sql: str) -> str:
    return f"FROM postgres_query('source', {literal(sql)})"


def _unambiguous(name: str) -> str:
    # Null and empty text differ, and no value can pass for the border between two.
    return f"coalesce('=' || replace({quoted(name)}, chr(31), chr(31) || chr(31)), '')"


@contextmanager
def _alone(folder: Path, contract: Contract) -> Iterator[None]:
    """Be the only one that pulls a source: of two, one could move the mark past what the other's file lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{contract.name}.pull.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PullError(f"{contract.name} is being pulled already. Wait until that has ended.") from None
        yield


@contextmanager
def _source(given: Pull, contract: Contract) -> Iterator[duckdb.DuckDBPyConnection]:
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


def _note(lake: Lake, contract: Contract) -> _Note:
    with lake.reading() as con:
        rows = con.execute(
            "SELECT number, mark, recent, file, written FROM ops.pulls WHERE source = ?", [contract.name]
        ).fetchall()
    return _Note(*rows[0]) if rows else _Note(0, None, [], None, True)


def _save(lake: Lake, contract: Contract, note: _Note, rows: int) -> None:
    def write(con: duckdb.DuckDBPyConnection) -> None:
        con.execute("DELETE FROM ops.pulls WHERE source = ?", [contract.name])
        con.execute(
            "INSERT INTO ops.pulls BY NAME SELECT ? AS source, ? AS number, ? AS mark, ?::VARCHAR[] AS recent, "
            "? AS file, ? AS written, ? AS rows, now()::TIMESTAMP AS pulled_at",
            [contract.name, note.number, note.mark, note.recent, note.file, note.written, rows],
        )

    lake.write(write, f"mark of the pull of {contract.name}")
