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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb

from sluice.contracts import Contract, Pull
from sluice.errors import ContractError, PullError
from sluice.lake import Lake
from sluice.pull_marks import Note, State, save, state
from sluice.pull_source import BEGINNING, Now, bound, mark_of, now_of, rows_since, shape, source
from sluice.settings import Settings
from sluice.sql import literal, quoted


@dataclass(frozen=True)
class Pulled:
    """What a pull did: the file, relative to the landing folder (None: nothing new), its rows, and the mark now.

    `warnings` are for people: rows from the future, and files that were lost.
    """

    file: str | None
    rows: int
    mark: str | None
    warnings: tuple[str, ...] = ()


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
        LandingError: files that have not been read are gone, and so is the landing folder.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    given = contract.pull
    if given is None:
        raise ContractError(f"{contract.path}: has no customProperty pull. See docs/cdc.md for how to write one.")
    lake.create()
    with _alone(lake.settings.capture_path, contract), source(given, contract) as con:
        known = state(lake, contract)
        if since is None:
            _check_fits(contract, given, known.note)
        kind, names = shape(con, given, contract)
        now = now_of(con, kind)
        if since is not None:
            wound = Note(known.note.number, mark_of(con, kind, since), [], None, True, _what(given))
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
    now: Now,
) -> Pulled:
    note, kept, landing = known.note, known.kept, lake.settings.landing_path
    con.execute(f"CREATE TEMP TABLE pulled AS {rows_since(given, kind, names, note.mark)}")
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
            f"{cursor} >= {bound(kind, '$mark', given.overlap)}",
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
    if not kept:
        # Where it began, should the first file be lost.
        kept = [0]
        save(lake, contract, Note(0, None, [], None, True, what), kept, 0)
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


def _check_past(con: duckdb.DuckDBPyConnection, contract: Contract, kind: str, note: Note, now: Now) -> None:
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
    con: duckdb.DuckDBPyConnection, given: Pull, kind: str, cursor: str, mark: str | None, now: Now
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
    con: duckdb.DuckDBPyConnection, contract: Contract, given: Pull, kind: str, cursor: str, now: Now
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

    def refused(folder: str) -> bool:
        # As ingest does a day whole of which a file it has read is gone: after a restore without the landing area.
        return any(f.startswith(f"{folder}/") and not (landing / f).exists() for f in known.read)

    if not note.written and note.file and not refused(note.file.rpartition("/")[0]):
        return note.number, note.file
    today = day = datetime.now(UTC).date()
    while refused(_folder(contract, day)):
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
