"""Dead letters as people meet them: found, grouped by reason, shown, discarded, exported.

Belongs here: choosing letters and telling about them. Setting rows aside belongs to `sluice.booking`, taking them again
to `sluice.replay`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from sluice.errors import DeadLetterError, unknown
from sluice.lake import Lake
from sluice.ops_tables import OPS_TABLES, now_utc
from sluice.records.shape import no_glob
from sluice.sql import literal, quoted

# A letter that has failed so often in a row, and each time for the same reasons, is not tried again by itself. Two
# may be a contract mended too little; what fails a third time waits for somebody who looks at it.
POISON_ATTEMPTS = 3

# SQL of whether a letter is poison.
POISON = f"coalesce(same_failures, attempts, 1) >= {POISON_ATTEMPTS}"

# Why a letter was decided whose row was not needed: `decided_why`.
DUPLICATE_WHY = "replayed: the row is there already"

# The table with all its columns, also in a lake of an earlier version that nobody has written to since.
_LETTERS = (
    "(FROM ops.dead_letters UNION ALL BY NAME SELECT "
    + ", ".join(f"NULL::{kind} AS {quoted(name)}" for name, kind in OPS_TABLES["dead_letters"].items())
    + " WHERE false)"
)

_SHORTEST_ID = 6

# SQL of `w`, the ids or beginnings of ids in $ids, and of whether `w` names a letter. A file of corrections names tens
# of thousands: so they come as JSON, for DuckDB takes a list a hundred times slower, and the first condition, which the
# second implies, is one to hash: comparing each with each of 40,000 takes most of a minute.
_WANTED = "(SELECT unnest(from_json($ids, '[\"VARCHAR\"]')) AS id) AS w"
_NAMES = f"left(w.id, {_SHORTEST_ID}) = left(dead_letter_id, {_SHORTEST_ID}) AND starts_with(dead_letter_id, w.id)"

STATUSES = ("open", "replayed", "discarded", "superseded")

EXPORTS = {".csv": "FORMAT csv, HEADER", ".jsonl": "FORMAT json", ".parquet": "FORMAT parquet"}

# A spreadsheet takes a cell that begins so for a formula, and what a dead letter holds is of anybody's making. In CSV
# such a text has one more apostrophe before it, which is taken off when the file comes back.
_FORMULA = r"[=+\-@\t\r\n]"

# DuckDB refuses longer lines of CSV by default, and one holds a letter's payload, header, reasons and correction.
_LONGEST_CSV_LINE = 16_000_000

# Read at once of a file that is only looked through: it may be of any size, and must not be held whole.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Choice:
    """Which letters are meant: all conditions given must hold; an empty one does not count.

    Attributes:
        ids: `dead_letter_id`s, or beginnings of them of at least 6 characters.
        source: name of the contract.
        partition: partition key.
        rule: a rule the row broke.
        column: a column that broke a rule.
        status: one of STATUSES.
    """

    ids: tuple[str, ...] = ()
    source: str = ""
    partition: str = ""
    rule: str = ""
    column: str = ""
    status: str = "open"

    def condition(self) -> tuple[str, dict[str, Any]]:
        """SQL of the condition on a row of `ops.dead_letters`, and its parameters."""
        parts: list[str] = []
        given: dict[str, Any] = {}
        for name, sql in (
            ("source", "source = $source"),
            ("partition", "partition_key = $partition"),
            ("status", "status = $status"),
            ("rule", 'list_contains(list_transform(reasons, lambda r: r."rule"), $rule)'),
            ("column", 'list_contains(list_transform(reasons, lambda r: r."column"), $column)'),
        ):
            value = getattr(self, name)
            if value:
                parts.append(sql)
                given[name] = value
        if self.ids:
            _check_length(self.ids)
            parts.append(f"EXISTS (FROM {_WANTED} WHERE {_NAMES})")
            given["ids"] = json.dumps(self.ids)
        return " AND ".join(parts) or "true", given


def _check_length(ids: Iterable[str]) -> None:
    for given in ids:
        if len(given) < _SHORTEST_ID:
            raise DeadLetterError(
                f"{given!r} is too short for the id of a dead letter; give {_SHORTEST_ID} characters or more."
            )


@dataclass(frozen=True)
class Group:
    """Letters of one source that failed for one reason."""

    source: str
    rule: str
    column: str
    letters: int
    rows: int
    poison: int
    first_failed_at: datetime
    last_failed_at: datetime
    sample: str


@dataclass(frozen=True)
class Letter:
    """One dead letter, whole."""

    dead_letter_id: str
    source: str
    partition_key: str
    file: str
    line: int | None
    rows: int
    status: str
    error_class: str
    raw: str | None
    raw_encoding: str | None
    corrected: str | None
    header: str | None
    reasons: list[dict[str, str | None]] = field(default_factory=list)
    contract_version: str = ""
    batch_id: str = ""
    checksum: str | None = None
    attempts: int | None = None
    same_failures: int | None = None
    first_failed_at: datetime | None = None
    last_failed_at: datetime | None = None
    decided_by: str | None = None
    decided_why: str | None = None
    decided_at: datetime | None = None
    message_key: str | None = None
    message_ts: datetime | None = None
    headers: str | None = None


def check_source(lake: Lake, source: str, contracts: Callable[[], Iterable[str]]) -> None:
    """Refuse a source that neither a dead letter nor a contract has: a mistyped name would mean no letter, silently.

    Args:
        lake: with the letters.
        source: the name given, empty for every source.
        contracts: the contracts' names; asked only where no letter has the name, for letters outlive their contracts.

    Raises:
        DeadLetterError: nothing has the name.
    """
    if not source:
        return
    with lake.reading() as con:
        known = {name for (name,) in con.execute("SELECT DISTINCT source FROM ops.dead_letters").fetchall()}
    if source not in known and source not in (known := known | set(contracts())):
        raise DeadLetterError(unknown("source", source, known))


def groups(lake: Lake, choice: Choice) -> list[Group]:
    """The letters chosen by source, rule and column, most rows first. One that broke two rules is in two groups."""
    condition, given = choice.condition()
    with lake.reading() as con:
        rows = con.execute(
            'SELECT source, r."rule", coalesce(r."column", \'\'), count(*), sum(rows)::BIGINT, '
            f"count(*) FILTER ({POISON}), min(first_failed_at), "
            "max(coalesce(last_failed_at, first_failed_at)), coalesce(any_value(left(raw, 120)), any_value(file)) "
            f"FROM (SELECT *, unnest(reasons) AS r FROM {_LETTERS} "
            f"WHERE {condition}) GROUP BY ALL ORDER BY 5 DESC, 1, 2, 3",
            given,
        ).fetchall()
    return [Group(*row) for row in rows]


def letters(lake: Lake, choice: Choice, limit: int = 20) -> list[Letter]:
    """The letters chosen, oldest first, at most `limit`."""
    condition, given = choice.condition()
    names = list(Letter.__dataclass_fields__)
    with lake.reading() as con:
        rows = con.execute(
            f"SELECT {', '.join(map(quoted, names))} FROM {_LETTERS} WHERE {condition} "
            "ORDER BY first_failed_at, source, file, line NULLS FIRST LIMIT $limit",
            {**given, "limit": limit},
        ).fetchall()
    return [Letter(**dict(zip(names, row, strict=True))) for row in rows]


def discard(lake: Lake, choice: Choice, *, by: str, why: str) -> int:
    """Give open letters up; their rows stay in the books as dead-lettered. Returns how many.

    Raises:
        DeadLetterError: no open letter is meant, an id is of none or of several, or nobody or no reason is named.
    """
    if not by.strip() or not why.strip():
        raise DeadLetterError("Who discards dead letters, and why, is kept with them: name both.")
    choice = resolved(lake, choice)
    condition, given = dataclasses.replace(choice, status="open").condition()
    if not letters(lake, dataclasses.replace(choice, status="open"), 1):
        raise DeadLetterError("No open dead letter matches. See `sluice dead-letters show`.")

    def work(con: duckdb.DuckDBPyConnection) -> int:
        # Whoever ingests or replays the same letters meanwhile starts over.
        con.execute(
            f"UPDATE ops.turns SET n = n + 1 WHERE source IN (SELECT source FROM ops.dead_letters WHERE {condition})",
            given,
        )
        row = con.execute(
            "UPDATE ops.dead_letters SET status = 'discarded', decided_by = $by, decided_why = $why, "
            f"decided_at = $now WHERE {condition}",
            {**given, "by": by, "why": why, "now": now_utc()},
        ).fetchone()
        return int(row[0]) if row else 0

    with lake.connect() as con:
        lake.create(con)
        return lake.transaction(con, work, f"discard dead letters: {why}")


def export(lake: Lake, choice: Choice, path: Path, *, overwrite: bool = False) -> int:
    """Write the letters chosen to a file, CSV, JSON lines or Parquet by its ending. Returns how many.

    With a column `corrected` filled in, `sluice dead-letters replay --corrections` takes the file back. In CSV a text
    that a spreadsheet would take for a formula has an apostrophe before it.

    Raises:
        DeadLetterError: the ending is another, the file cannot be written, or is there and not to be overwritten.
    """
    options = _export_options(path)
    if path.exists() and not overwrite:
        raise DeadLetterError(f"{path} is there already, with corrections perhaps. Name another file, or --overwrite.")
    condition, given = choice.condition()
    shown = "*"
    if path.suffix == ".csv":
        formula = literal(f"^'*{_FORMULA}")
        guarded = [
            f"CASE WHEN regexp_matches({quoted(n)}, {formula}) THEN chr(39) || {quoted(n)} "
            f"ELSE {quoted(n)} END AS {quoted(n)}"
            for n, kind in OPS_TABLES["dead_letters"].items()
            if kind == "VARCHAR"
        ]
        shown = f"* REPLACE ({', '.join(guarded)}, to_json(reasons)::VARCHAR AS reasons)"
    with lake.reading() as con:
        con.execute(
            f"CREATE TEMP TABLE exported AS SELECT {shown} FROM {_LETTERS} WHERE {condition} "
            "ORDER BY source, file, line",
            given,
        )
        try:
            row = con.execute(f"COPY exported TO {literal(str(path))} ({options})").fetchone()
        except duckdb.Error as error:
            raise DeadLetterError(
                f"{path} cannot be written: {str(error).splitlines()[0]}. Name another file."
            ) from error
    return int(row[0]) if row else 0


def _export_options(path: Path) -> str:
    options = EXPORTS.get(path.suffix)
    if options is None:
        raise DeadLetterError(f"{path}: the ending says the format; give one of {', '.join(EXPORTS)}.")
    return options


def corrections_of(path: Path) -> dict[str, str]:
    """Corrected payloads by `dead_letter_id`, from a file as `export` writes it; rows without one do not count.

    Raises:
        DeadLetterError: it cannot be read, lacks the columns, or corrects a letter twice.
    """
    _export_options(path)
    if path.suffix != ".parquet":
        _check_text(path)
    name = literal(no_glob(str(path)))
    read = {
        # Nothing of the dialect is guessed: what is in the cells holds every delimiter there is.
        ".csv": f"read_csv({name}, all_varchar = true, header = true, delim = ',', quote = '\"', escape = '\"', "
        f"max_line_size = {_LONGEST_CSV_LINE})",
        # As JSON, which keeps texts from being taken for dates.
        ".jsonl": f"(SELECT json->>'dead_letter_id' AS dead_letter_id, json->>'corrected' AS corrected "
        f"FROM read_ndjson_objects({name}))",
        ".parquet": f"read_parquet({name})",
    }[path.suffix]
    with duckdb.connect() as con:
        try:
            rows = con.execute(
                f"SELECT dead_letter_id::VARCHAR, corrected::VARCHAR FROM {read} WHERE corrected IS NOT NULL"
            ).fetchall()
        except duckdb.Error as error:
            if "Maximum line size" in str(error):
                raise DeadLetterError(
                    f"{path} has a line of more than {_LONGEST_CSV_LINE:,} bytes. Leave out columns other than "
                    "dead_letter_id and corrected, or give the corrections as .jsonl."
                ) from error
            # A column that is not there has DuckDB speak of its own FROM clause.
            lacking = isinstance(error, duckdb.BinderException)
            why = "it lacks a column" if lacking else str(error).splitlines()[0].rstrip(".")
            raise DeadLetterError(
                f"{path} cannot be read as corrections: {why}. It needs the columns "
                "dead_letter_id and corrected; `sluice dead-letters export` writes such a file."
            ) from error
    found: dict[str, str] = {}
    guarded = re.compile(f"'+{_FORMULA}")
    for letter, corrected in rows:
        if letter is None or letter in found:
            said = "corrects no letter" if letter is None else f"corrects {letter!r} twice"
            raise DeadLetterError(f"{path} {said}; each correction needs a dead_letter_id of its own.")
        found[letter] = corrected[1:] if path.suffix == ".csv" and guarded.match(corrected) else corrected
    return found


def _check_text(path: Path) -> None:
    """Refuse what DuckDB takes for something else, or of which it does not say what is wrong."""
    begun = ""
    try:
        with path.open(encoding="utf-8") as file:
            while block := file.read(_BLOCK):
                begun = begun or block.lstrip()[:1]
    except UnicodeDecodeError as error:
        raise DeadLetterError(
            f"{path} is no text in UTF-8: {error.reason}. Save it as UTF-8 (a spreadsheet calls it 'CSV UTF-8')."
        ) from error
    except OSError as error:
        raise DeadLetterError(
            f"{path} cannot be read as corrections: {error.strerror}. Check the path and its rights."
        ) from error
    if path.suffix == ".jsonl" and begun == "\ufeff":
        raise DeadLetterError(f"{path} begins with a byte order mark. Save it as UTF-8 without one.")
    if path.suffix == ".jsonl" and begun == "[":
        raise DeadLetterError(
            f"{path} is a JSON array. Write JSON lines, as `sluice dead-letters export` does: an object a line, with "
            "nothing around or between them."
        )


def as_loaded(payload: str) -> str:
    """A payload over lines with the line ends a load gives it; a spreadsheet writes CR LF into its cells."""
    return re.sub(r"\r\n?", "\n", payload)


def applied(lake: Lake, corrections: Mapping[str, str]) -> set[str]:
    """Of corrected payloads by id, the ids of letters that were replayed with just this payload."""
    if not corrections:
        return set()
    _check_length(corrections)
    with lake.reading() as con:
        rows = con.execute(
            f"SELECT w.id, corrected FROM ops.dead_letters JOIN {_WANTED} ON {_NAMES} WHERE status = 'replayed'",
            {"ids": json.dumps(list(corrections))},
        ).fetchall()
    return {letter for letter, corrected in rows if as_loaded(corrected) == as_loaded(corrections[letter])}


def resolved(lake: Lake, choice: Choice) -> Choice:
    """The choice with whole ids for those it has.

    Raises:
        DeadLetterError: an id is of no open letter, or of several.
    """
    return dataclasses.replace(choice, ids=tuple(whole for whole, _ in _open_letters(lake, choice.ids).values()))


def ids_by_source(lake: Lake, choice: Choice, corrections: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The sources of the open letters chosen, and of each the corrections that are for its letters, by whole id.

    Raises:
        DeadLetterError: a correction is for no open letter, its short id for several, or two are for the same.
    """
    condition, given = dataclasses.replace(choice, status="open").condition()
    with lake.reading() as con:
        sources = con.execute(
            f"SELECT DISTINCT source FROM ops.dead_letters WHERE {condition} ORDER BY 1", given
        ).fetchall()
    found: dict[str, dict[str, str]] = {source: {} for (source,) in sources}
    for short, (whole, source) in _open_letters(lake, corrections).items():
        own = found.setdefault(source, {})
        if whole in own:
            raise DeadLetterError(
                f"{whole!r} is corrected twice, once under {short!r}; leave one of the corrections out."
            )
        own[whole] = corrections[short]
    return found


def _open_letters(lake: Lake, ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Of each id, or begin of one, the whole id and the source of the open letter it means."""
    wanted = list(ids)
    if not wanted:
        return {}
    _check_length(wanted)
    with lake.reading() as con:
        rows = con.execute(
            f"SELECT w.id, dead_letter_id, source FROM ops.dead_letters JOIN {_WANTED} ON {_NAMES} "
            "WHERE status = 'open'",
            {"ids": json.dumps(wanted)},
        ).fetchall()
    found: dict[str, tuple[str, str]] = {}
    for short, whole, source in rows:
        if found.get(short, (whole,))[0] != whole:
            raise DeadLetterError(f"{short!r} is the begin of several dead letters' ids; give more of it.")
        found[short] = (whole, source)
    for short in wanted:
        if short not in found:
            raise DeadLetterError(f"{short!r} is no open dead letter{_what_became(lake, short)}.")
    return {short: found[short] for short in wanted}


def _what_became(lake: Lake, short: str) -> str:
    """What is said of an id, or begin of one, that means no open letter: what was decided of the one it means."""
    with lake.reading() as con:
        rows = con.execute(
            f"SELECT status, decided_by, decided_why FROM {_LETTERS} JOIN {_WANTED} ON {_NAMES} LIMIT 2",
            {"ids": json.dumps([short])},
        ).fetchall()
    return any_more(*rows[0]) if len(rows) == 1 else ". See `sluice dead-letters show`, which tells their ids"


def any_more(status: str, by: str | None, why: str | None) -> str:
    """What is said of a letter that is open no more."""
    if status == "superseded":
        # Who decided about it did so before.
        return " any more: it was superseded by a later delivery of its partition"
    return f" any more: it was {status}{f' by {by}' if by else ''}{f' ({why})' if why else ''}"


def counts(lake: Lake, choice: Choice | None = None) -> Mapping[str, int]:
    """Letters by status: of those chosen, whatever status is asked for, or all of the lake's."""
    condition, given = dataclasses.replace(choice or Choice(), status="").condition()
    with lake.reading() as con:
        rows = con.execute(f"SELECT status, count(*) FROM ops.dead_letters WHERE {condition} GROUP BY ALL", given)
        return dict(rows.fetchall())
