"""Where a number comes from: from rows of a published table back to files, lines, batches, contracts and runs.

The lake itself says what a table is made of (`ops.builds`) and each bronze row carries its file and line, so nothing
but the lake is asked. Column lineage, which explains an expression, belongs to `sluice.lineage`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal, InvalidOperation

import duckdb

from sluice.errors import TraceError
from sluice.lake import LAKE
from sluice.publication import connect
from sluice.settings import Settings
from sluice.sql import quoted

SCHEMAS = ("gold", "silver", "bronze")

# Whole numbers and decimals, to which DuckDB rounds.
_EXACT = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DECIMAL.*")

_PLACE = ("_batch_id", "_file", "_line")
# The field's names for what identifies a thing: natural, durable and surrogate keys.
_KEY = re.compile(r"(^|_)(id|code|key)$")


@dataclass(frozen=True)
class ReplayedLine:
    """A line that was set aside first: what the file says of it need not be what the row says.

    Attributes:
        decided_at: UTC.
    """

    line: int
    dead_letter_id: str
    corrected: bool
    decided_by: str
    decided_at: datetime


@dataclass(frozen=True)
class Origin:
    """Rows of one file, and how they came in.

    Attributes:
        file: path below the landing folder.
        lines: how many of its lines are meant.
        first, last: the first and last of them.
        batch_id: of the batch, whose books in rows are `read`, `accepted`, `dead_lettered` and `duplicate`.
        contract_version, contract_hash: under which it was judged.
        run_id: of the Dagster run that wrote it; empty when none did.
        ingested_at: UTC.
        replayed: those of the lines that came in by way of a dead letter, which may have been corrected.
    """

    source: str
    partition_key: str
    file: str
    lines: int
    first: int
    last: int
    batch_id: str
    contract_version: str
    contract_hash: str
    run_id: str
    ingested_at: datetime
    read: int
    accepted: int
    dead_lettered: int
    duplicate: int
    replayed: tuple[ReplayedLine, ...] = ()


@dataclass(frozen=True)
class Step:
    """Rows of one table on the way.

    Attributes:
        table: `schema.table`.
        by: what they were found by, in words.
        rows: how many there are.
        origins: by file; empty where the table keeps no place of its rows: then its parents follow as steps.
        looked_up: tables that gave these rows keys or attributes.
        untraced: tables it is made of that share no key with it: all of their rows may have a part in these.
    """

    table: str
    depth: int
    by: str
    rows: int
    origins: tuple[Origin, ...] = ()
    looked_up: tuple[str, ...] = ()
    untraced: tuple[str, ...] = ()


def trace(
    settings: Settings, table: str, conditions: Sequence[tuple[str, str]], as_of: datetime | None = None
) -> list[Step]:
    """Walk rows of a published table back to the files they come from, table by table.

    Args:
        settings: of the lake.
        table: `schema.table`, or a name that is looked for in gold, silver and bronze.
        conditions: (column, value) pairs that all hold for the rows meant; none: the whole table.
        as_of: what readers saw then, instead of now.

    Raises:
        TraceError: there is no such table or column, a value is not of its column's type, or no row is meant.
        PublicationError: nothing is published.
    """
    with connect(settings, as_of=as_of) as con:
        name = _resolved(con, table)
        columns = _columns(con, name)
        for column, value in conditions:
            if column not in columns:
                raise TraceError(f"{name} has no column {column!r}; it has {', '.join(columns)}.")
            if not _is_of(con, value, columns[column]):
                raise TraceError(f"{column} of {name} is {columns[column]}, and {value!r} is none.")
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE chosen_0 AS FROM {_sql(name)} WHERE "
            + (" AND ".join(f"{quoted(c)} = CAST(? AS {columns[c]})" for c, _ in conditions) or "true"),
            [value for _, value in conditions],
        )
        by = " and ".join(f"{column} = {value}" for column, value in conditions) or "all of it"
        steps = _walk(con, name, 0, by, [column for column, _ in conditions], ())
        if not steps[0].rows:
            raise TraceError(f"{name} has no row where {by}.")
        return steps


def trace_day(settings: Settings, day: date, as_of: datetime | None = None) -> list[Step]:
    """The rows of a day in every fact table (`date_key` and file in it), by file.

    Raises:
        TraceError: no fact table has a row of that day.
        PublicationError: nothing is published.
    """
    with connect(settings, as_of=as_of) as con:
        facts = con.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_columns() WHERE database_name = ? "
            "AND schema_name = 'gold' GROUP BY ALL HAVING list_has_all(list(column_name), ?) ORDER BY ALL",
            [LAKE, ["date_key", *_PLACE]],
        ).fetchall()
        key = f"{day:%Y%m%d}"
        steps = []
        for (name,) in facts:
            con.execute(
                f"CREATE OR REPLACE TEMP TABLE chosen_0 AS FROM {_sql(name)} WHERE CAST(date_key AS VARCHAR) = ?", [key]
            )
            steps += _walk(con, name, 0, f"date_key = {key}", ["date_key"], ())
    steps = [step for step in steps if step.rows]
    if not steps:
        raise TraceError(f"No fact of {day} is published.")
    return steps


def _resolved(con: duckdb.DuckDBPyConnection, table: str) -> str:
    """The table as `schema.table`."""
    schemas, name = ([table.split(".")[0]], table.split(".", 1)[1]) if "." in table else (list(SCHEMAS), table)
    for schema in schemas:
        found = con.execute(
            "SELECT 1 FROM information_schema.tables WHERE table_catalog = ? AND table_schema = ? AND table_name = ?",
            [LAKE, schema, name],
        ).fetchall()
        if found:
            return f"{schema}.{name}"
    names = [
        f"{schema}.{name}"
        for schema, name in con.execute(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = ?", [LAKE]
        ).fetchall()
        if schema in SCHEMAS
    ]
    close = difflib.get_close_matches(table if "." in table else f"gold.{table}", names, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    raise TraceError(
        f"There is no table {table!r} among what is published.{meant} "
        '`sluice query "select schema, name from (show all tables)"` lists them.'
    )


def _is_of(con: duckdb.DuckDBPyConnection, value: str, kind: str) -> bool:
    """Whether a text is a value of a type; of a whole number or DECIMAL as it stands: DuckDB rounds 20260105.4."""
    row = con.execute(f"SELECT CAST(TRY_CAST(? AS {kind}) AS VARCHAR)", [value]).fetchone()
    taken = None if row is None else row[0]
    if taken is None or not _EXACT.fullmatch(kind):
        return taken is not None
    try:
        return Decimal(value) == Decimal(taken)
    except InvalidOperation:
        # 0x10, which is no other number for it.
        return True


def _sql(table: str) -> str:
    schema, name = table.split(".", 1)
    return f"{LAKE}.{quoted(schema)}.{quoted(name)}"


def _columns(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    schema, name = table.split(".", 1)
    return dict(
        con.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = ? AND schema_name = ? "
            "AND table_name = ? ORDER BY column_index",
            [LAKE, schema, name],
        ).fetchall()
    )


def _parents(con: duckdb.DuckDBPyConnection, table: str) -> list[str]:
    """The tables whose changes a table follows, as its last build noted them; none before dbt has made the notes."""
    if not con.execute("SELECT 1 FROM duckdb_tables() WHERE schema_name = 'ops' AND table_name = 'builds'").fetchall():
        return []
    rows = con.execute(
        "SELECT unnest(map_keys(feeds)) FROM (SELECT feeds FROM ops.builds WHERE relation = ? "
        "ORDER BY snapshot_id DESC LIMIT 1) ORDER BY 1",
        [table],
    ).fetchall()
    return [name for (name,) in rows]


def _walk(
    con: duckdb.DuckDBPyConnection, table: str, depth: int, by: str, asked: Sequence[str], path: tuple[str, ...]
) -> list[Step]:
    """The step of the rows in the temporary table `chosen_<depth>`, and those of what they are made of."""
    chosen = f"chosen_{depth}"
    counted = con.execute(f"SELECT count(*) FROM {chosen}").fetchone()
    rows = counted[0] if counted else 0
    columns = _columns(con, table)
    parents = [p for p in _parents(con, table) if p not in path]
    if set(_PLACE) <= set(columns):
        looked_up = tuple(p for p in parents if p.startswith("gold.") and _shared_keys(columns, _columns(con, p)))
        return [Step(table, depth, by, rows, _origins(con, chosen), looked_up)]
    below: list[Step] = []
    untraced = []
    for parent in parents:
        there = _columns(con, parent)
        # What was asked for holds for the parent's rows, if it has the columns; else they share keys.
        common = list(asked) if asked and set(asked) <= set(there) else _shared_keys(columns, there)
        if not common:
            untraced.append(parent)
            continue
        names = ", ".join(quoted(c) for c in common)
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE chosen_{depth + 1} AS FROM {_sql(parent)} AS parent "
            f"SEMI JOIN (SELECT DISTINCT {names} FROM {chosen}) AS wanted ON "
            + " AND ".join(f"parent.{quoted(c)} IS NOT DISTINCT FROM wanted.{quoted(c)}" for c in common)
        )
        below += _walk(con, parent, depth + 1, f"the same {', '.join(common)}", common, (*path, table))
    return [Step(table, depth, by, rows, (), (), tuple(untraced)), *below]


def _shared_keys(one: Sequence[str] | dict[str, str], other: dict[str, str]) -> list[str]:
    return [name for name in one if name in other and _KEY.search(name)]


def _origins(con: duckdb.DuckDBPyConnection, chosen: str) -> tuple[Origin, ...]:
    rows = con.execute(
        "SELECT l.source, l.partition_key, c.file, c.lines, c.first, c.last, c.batch_id, l.contract_version, "
        "l.contract_hash, coalesce(l.run_id, ''), l.ingested_at, l.rows_read, l.rows_accepted, l.rows_dead_lettered, "
        "l.rows_duplicate FROM (SELECT _batch_id AS batch_id, _file AS file, count(*) AS lines, min(_line) AS first, "
        f"max(_line) AS last FROM {chosen} GROUP BY ALL) AS c "
        "LEFT JOIN ops.ledger AS l USING (batch_id) ORDER BY c.file, c.batch_id"
    ).fetchall()
    letters: dict[tuple[str, str], list[ReplayedLine]] = {}
    for batch, file, *letter in con.execute(
        "SELECT d.batch_id, d.file, d.line, d.dead_letter_id, d.corrected IS NOT NULL, coalesce(d.decided_by, ''), "
        "d.decided_at FROM ops.dead_letters AS d SEMI JOIN "
        f"(SELECT _batch_id AS batch_id, _file AS file, _line AS line FROM {chosen}) AS c USING (batch_id, file, line) "
        "WHERE d.status = 'replayed' ORDER BY ALL"
    ).fetchall():
        letters.setdefault((batch, file), []).append(ReplayedLine(*letter))
    return tuple(replace(Origin(*row), replayed=tuple(letters.get((row[6], row[2]), ()))) for row in rows)
