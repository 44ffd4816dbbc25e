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
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb

from sluice.connections import problem, scrub, shown
from sluice.contracts import Contract, Pull
from sluice.errors import ConfigurationError, ContractError, PullError, PullUnavailableError
from sluice.extensions import install_extensions
from sluice.lake import Lake, literal, quoted
from sluice.pull_marks import Note, State, save, state
from sluice.settings import Settings

# What orders rows the same in both databases, and how far back an overlap reaches there.
_CURSORS = {
    "TIMESTAMP": "seconds", "TIMESTAMP WITH TIME ZONE": "seconds", "DATE": "days",
    "SMALLINT": "", "INTEGER": "", "BIGINT": "",
}  # fmt: skip


# Where a time is no longer believed to be one of now: clocks differ by seconds, times without a zone by 14 hours.
_AHEAD = "INTERVAL '1 day'"

# What `since` says for a pull of everything.
BEGINNING = "beginning"


@dataclass(frozen=True)
class Pulled:
    """What a pull did: the file, relative to the landing folder (None: nothing new), its rows, and the mark now.

    `warnings` are for people: rows from the future, and files that were lost.
    """

    file: str | None
    rows: int
    mark: str | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Now:
    """The source's own time before it is read, in the cursor's type; None where that is a number.

    Up to `cap` the mark may move; what is past `future` is of the future in whatever zone.
    """

    cap: str | None
    future: str | None


def pull(lake: Lake, contract: Contract, since: str | None = None) -> Pulled:
    """Pull what changed since the last pull into a landing file of today (UTC).

    The mark moves when the file is in its place, in this order: the file's name is noted, the file is put there, the
    mark is noted. Who was killed between begins again with the same name, and the file is replaced.

    Args:
        lake: of the settings with the landing folder.
        contract: with a `pull`.
        since: the mark to go on from instead of the one noted, a value of the cursor, or BEGINNING: rows at or past it,
            less the overlap, are delivered again.

    Raises:
        ContractError: it has none, or its cursor is of no type with an order.
        ConfigurationError: the environment has no connection for it.
        PullError, PullUnavailableError: the database refuses, or cannot be reached; the mark is of another table, query
            or cursor than the contract's, or lies in the future; `since` is no value of the cursor.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    given = contract.pull
    if given is None:
        raise ContractError(f"{contract.path}: has no customProperty pull. See docs/cdc.md for how to write one.")
    lake.create()
    with _alone(lake.settings.capture_path, contract), _source(given, contract) as con:
        known = state(lake, contract)
        if since is None:
            _check_fits(contract, given, known.note)
        kind, names = _shape(con, given, contract)
        now = _now(con, kind)
        if since is not None:
            wound = Note(known.note.number, _mark(con, kind, since), [], None, True, _what(given))
            known = State(wound, [wound.number], False, (), known.read)
        _check_past(con, contract, kind, known.note, now)
        if since is not None:
            # So that it holds also if this pull does not end.
            save(lake, contract, known.note, [], 0)
        return _pull(lake, contract, given, con, known, kind, names, now)


def _pull(
    lake: Lake,
    contract: Contract,
    given: Pull,
    con: duckdb.DuckDBPyConnection,
    known: State,
    kind: str,
    names: list[str],
    now: _Now,
) -> Pulled:
    note, kept, landing = known.note, known.kept, lake.settings.landing_path
    con.execute(f"CREATE TEMP TABLE pulled AS {_rows(given, kind, names, note.mark)}")
    hashed = f"md5(concat_ws(chr(31), {', '.join(_unambiguous(name) for name in names)}))"
    con.execute(
        f"CREATE TEMP TABLE fresh AS SELECT * FROM pulled WHERE NOT list_contains($recent::VARCHAR[], {hashed})",
        {"recent": note.recent},
    )
    cursor = f"TRY_CAST({quoted(given.cursor)} AS {kind})"
    mark = _newest(con, given, kind, cursor, note.mark, now)
    warnings = (*known.told, *_future(con, contract, given, kind, cursor, now))
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
    what = _what(given)
    if not rows:
        if known.wound_back or (mark, sorted(recent), what) != (note.mark, sorted(note.recent), note.pulled):
            # Lost, or killed before it was there: no file that could be missed.
            gone = note.file is None or known.wound_back or not (note.written or (landing / note.file).exists())
            save(lake, contract, Note(note.number, mark, recent, None if gone else note.file, True, what), kept, 0)
        return Pulled(None, 0, mark, warnings)
    number, file = _place(contract, lake.settings, known)
    save(lake, contract, Note(number, note.mark, note.recent, file, False, what), kept, 0)
    _put(con, landing / file)
    save(lake, contract, Note(number, mark, recent, file, True, what), kept, rows)
    return Pulled(file, rows, mark, warnings)


def _what(given: Pull) -> str:
    """What is pulled by which cursor; a mark of another means nothing here."""
    return f"{given.table or given.query} by {given.cursor}"


def _check_fits(contract: Contract, given: Pull, note: Note) -> None:
    if note.pulled is not None and (note.mark or note.recent) and note.pulled != _what(given):
        raise PullError(
            f"{contract.name} was pulled from {note.pulled} up to {note.mark}; the contract now says {_what(given)}, "
            f"where that mark means nothing. Nothing was pulled. Go on from a mark that fits (`sluice pull "
            f"{contract.name} --from MARK`), or deliver all rows again (`--from {BEGINNING}`)."
        )


def _now(con: duckdb.DuckDBPyConnection, kind: str) -> _Now:
    if not _CURSORS[kind]:
        return _Now(None, None)
    utc = "now()" if kind == "TIMESTAMP WITH TIME ZONE" else "(now() AT TIME ZONE 'UTC')"
    # Without a zone it is the server's or UTC, and nobody says which: the mark stays behind both.
    cap = f"least({utc}, now()::{kind})"
    asked = f"SELECT ({cap})::{kind}::text, ({utc} + {_AHEAD})::{kind}::text"
    return _Now(*con.execute(_remote(asked)).fetchall()[0])


def _mark(con: duckdb.DuckDBPyConnection, kind: str, since: str) -> str | None:
    """The mark that somebody gave, as the source writes it, which refuses what is none."""
    if since == BEGINNING:
        return None
    mark: str | None
    ((mark,),) = con.execute(_remote(f"SELECT {literal(since)}::{kind}::text")).fetchall()
    return mark


def _check_past(con: duckdb.DuckDBPyConnection, contract: Contract, kind: str, note: Note, now: _Now) -> None:
    """A mark of the future, as a row without sense could set it in an earlier version, would find nothing new."""
    if note.mark is None or now.future is None:
        return
    asked = f"SELECT CAST($mark AS {kind}) > CAST($future AS {kind})"
    if con.execute(asked, {"mark": note.mark, "future": now.future}).fetchall()[0][0]:
        raise PullError(
            f"The mark of {contract.name}, {note.mark}, lies in the future of its database: nothing new would be "
            f"found. Wind it back to when it was right (`sluice pull {contract.name} --from MARK`, or "
            f"`--from {BEGINNING}`)."
        )


def _newest(
    con: duckdb.DuckDBPyConnection, given: Pull, kind: str, cursor: str, mark: str | None, now: _Now
) -> str | None:
    """The mark after this pull: it does not go back, and no row of the future moves it.

    Else all that comes before that row would be passed over.
    """
    newest: str | None
    ((newest,),) = con.execute(
        f"SELECT max_by(mark, value) FROM (SELECT {quoted(given.cursor)} AS mark, {cursor} AS value FROM pulled "
        f"UNION ALL SELECT $mark, CAST($mark AS {kind})) WHERE $cap IS NULL OR value <= CAST($cap AS {kind}) OR "
        f"value <= CAST($mark AS {kind})",
        {"mark": mark, "cap": now.cap},
    ).fetchall()
    return newest


def _future(
    con: duckdb.DuckDBPyConnection, contract: Contract, given: Pull, kind: str, cursor: str, now: _Now
) -> Iterator[str]:
    if now.future is None:
        return
    rows, newest = con.execute(
        f"SELECT count(*), max({cursor})::VARCHAR FROM pulled WHERE {cursor} > CAST($future AS {kind})",
        {"future": now.future},
    ).fetchall()[0]
    if rows:
        yield (
            f"{contract.name} has rows whose {given.cursor} lies in the future ({rows}, up to {newest}). They are "
            "delivered and do not move the mark; each pull reads them again. Mend them in the database."
        )


def _place(contract: Contract, settings: Settings, known: State) -> tuple[int, str]:
    """Number and place of the next file: those of one that was on its way, so that who begins anew replaces it."""
    note, landing = known.note, settings.landing_path
    if not note.written and note.file:
        return note.number, note.file
    today = day = datetime.now(UTC).date()
    # Ingest refuses a day whole of which a file it has read is gone, as in a home that was restored without its landing
    # area: then the file is of the day before.
    while any(f.startswith(_folder(contract, day) + "/") and not (landing / f).exists() for f in known.read):
        day -= timedelta(days=1)
    folder = _folder(contract, day if day >= settings.start_date else today)
    kind = "jsonl" if "jsonl" in contract.landing.formats else "parquet"
    number = note.number + 1
    # Beside a home that was restored, later files may be there already.
    while (landing / (file := f"{folder}/pull-{number:08d}.{kind}")).exists():
        number += 1
    return number, file


def _folder(contract: Contract, day: date) -> str:
    return contract.landing.path.replace("{date}", day.isoformat())


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
