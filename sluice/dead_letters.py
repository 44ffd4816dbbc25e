"""Dead letters as people meet them: found, grouped by reason, shown, discarded, exported.

Belongs here: choosing letters and telling about them. Setting rows aside belongs to `sluice.booking`, taking them again
to `sluice.replay`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from sluice.errors import DeadLetterError
from sluice.lake import Lake, literal

# A letter that has failed so often, and each time for the same reasons, is not tried again by itself.
POISON_ATTEMPTS = 3

STATUSES = ("open", "replayed", "discarded", "superseded")

EXPORTS = {".csv": "FORMAT csv, HEADER", ".jsonl": "FORMAT json", ".parquet": "FORMAT parquet"}


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
        parts, given = [], {}
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
            short = [i for i in self.ids if len(i) < 6]
            if short:
                raise DeadLetterError(
                    f"{short[0]!r} is too short for the id of a dead letter; give 6 characters or more."
                )
            parts.append("list_any_value(list_filter($ids, lambda i: starts_with(dead_letter_id, i))) IS NOT NULL")
            given["ids"] = list(self.ids)
        return " AND ".join(parts) or "true", given


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
    attempts: int = 1
    first_failed_at: datetime | None = None
    last_failed_at: datetime | None = None
    decided_by: str | None = None
    decided_why: str | None = None
    decided_at: datetime | None = None


def groups(lake: Lake, choice: Choice) -> list[Group]:
    """The letters chosen by source, rule and column, most rows first. One that broke two rules is in two groups."""
    condition, given = choice.condition()
    with lake.reading() as con:
        rows = con.execute(
            'SELECT source, r."rule", coalesce(r."column", \'\'), count(*), sum(rows)::BIGINT, '
            f"count(*) FILTER (coalesce(attempts, 1) >= {POISON_ATTEMPTS}), min(first_failed_at), "
            "max(coalesce(last_failed_at, first_failed_at)), coalesce(any_value(left(raw, 120)), any_value(file)) "
            "FROM (SELECT *, unnest(reasons) AS r FROM ops.dead_letters "
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
            f"SELECT {', '.join(names)} FROM ops.dead_letters WHERE {condition} "
            "ORDER BY first_failed_at, source, file, line NULLS FIRST LIMIT $limit",
            {**given, "limit": limit},
        ).fetchall()
    return [Letter(**dict(zip(names, row, strict=True))) for row in rows]


def discard(lake: Lake, choice: Choice, *, by: str, why: str) -> int:
    """Give open letters up; their rows stay in the books as dead-lettered. Returns how many.

    Raises:
        DeadLetterError: no open letter is meant, or nobody or no reason is named.
    """
    if not by.strip() or not why.strip():
        raise DeadLetterError("Who discards dead letters, and why, is kept with them: name both.")
    condition, given = choice.condition()

    def work(con: duckdb.DuckDBPyConnection) -> int:
        row = con.execute(
            "UPDATE ops.dead_letters SET status = 'discarded', decided_by = $by, decided_why = $why, "
            f"decided_at = $now WHERE status = 'open' AND {condition}",
            {**given, "by": by, "why": why, "now": datetime.now(UTC).replace(tzinfo=None)},
        ).fetchone()
        return int(row[0]) if row else 0

    found = lake.write(work, f"discard dead letters: {why}")
    if not found:
        raise DeadLetterError("No open dead letter is meant. See `sluice dead-letters list`.")
    return found


def export(lake: Lake, choice: Choice, path: Path) -> int:
    """Write the letters chosen to a file, CSV, JSON lines or Parquet by its ending. Returns how many.

    With a column `corrected` filled in, `sluice dead-letters replay --corrections` takes the file back.

    Raises:
        DeadLetterError: the ending is another.
    """
    options = EXPORTS.get(path.suffix)
    if options is None:
        raise DeadLetterError(f"{path}: the ending says the format; give one of {', '.join(EXPORTS)}.")
    condition, given = choice.condition()
    reasons = "to_json(reasons)::VARCHAR AS reasons" if path.suffix == ".csv" else "reasons"
    with lake.reading() as con:
        con.execute(
            f"CREATE TEMP TABLE exported AS SELECT * REPLACE ({reasons}) FROM ops.dead_letters "
            f"WHERE {condition} ORDER BY source, file, line",
            given,
        )
        try:
            row = con.execute(f"COPY exported TO {literal(str(path))} ({options})").fetchone()
        except duckdb.Error as error:
            raise DeadLetterError(
                f"{path} cannot be written: {str(error).splitlines()[0]}. Name another file."
            ) from error
    return int(row[0]) if row else 0


def corrections_of(path: Path) -> dict[str, str]:
    """Corrected payloads by `dead_letter_id`, from a file as `export` writes it; rows without one do not count.

    Raises:
        DeadLetterError: it cannot be read, or lacks the columns.
    """
    if path.suffix not in EXPORTS:
        raise DeadLetterError(f"{path}: the ending says the format; give one of {', '.join(EXPORTS)}.")
    name = literal(str(path))
    read = {
        ".csv": f"read_csv({name}, all_varchar = true, header = true)",
        ".jsonl": f"read_json({name}, format = 'newline_delimited')",
        ".parquet": f"read_parquet({name})",
    }[path.suffix]
    with duckdb.connect() as con:
        try:
            rows = con.execute(
                f"SELECT dead_letter_id::VARCHAR, corrected::VARCHAR FROM {read} WHERE corrected IS NOT NULL"
            ).fetchall()
        except duckdb.Error as error:
            raise DeadLetterError(
                f"{path} cannot be read as corrections: {str(error).splitlines()[0]}. It needs the columns dead_letter_id "
                "and corrected; `sluice dead-letters export` writes such a file."
            ) from error
    return dict(rows)


def ids_by_source(lake: Lake, choice: Choice, corrections: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The sources of the open letters chosen, and of each the corrections that are for its letters, by whole id.

    Raises:
        DeadLetterError: a correction is for no open letter, or its short id for several.
    """
    condition, given = choice.condition()
    with lake.reading() as con:
        sources = con.execute(
            f"SELECT DISTINCT source FROM ops.dead_letters WHERE status = 'open' AND {condition} ORDER BY 1", given
        ).fetchall()
        known = con.execute(
            "SELECT c, d.source, d.dead_letter_id FROM (SELECT unnest(?) AS c) LEFT JOIN ops.dead_letters AS d "
            "ON d.status = 'open' AND starts_with(d.dead_letter_id, c)",
            [list(corrections)],
        ).fetchall()
    found: dict[str, dict[str, str]] = {source: {} for (source,) in sources}
    seen: set[str] = set()
    for given_id, source, whole in known:
        if source is None:
            raise DeadLetterError(f"{given_id} is no open dead letter. See `sluice dead-letters list`.")
        if given_id in seen:
            raise DeadLetterError(f"{given_id} is the begin of several dead letters' ids; give more of it.")
        seen.add(given_id)
        found.setdefault(source, {})[whole] = corrections[given_id]
    return found


def poison_condition() -> str:
    """SQL of whether a letter is poison."""
    return f"coalesce(attempts, 1) >= {POISON_ATTEMPTS}"


def counts(lake: Lake) -> Mapping[str, int]:
    """Letters by status."""
    with lake.reading() as con:
        return dict(con.execute("SELECT status, count(*) FROM ops.dead_letters GROUP BY ALL").fetchall())
