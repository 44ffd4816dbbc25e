"""SQL as text, where DuckDB binds no values, and temporary tables of what Python knows.

Belongs here: what any module that speaks SQL needs, of no table and no lake. The lake's own catalog and its connections
are `sluice.lake`'s.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import duckdb


def quoted(identifier: str) -> str:
    """An SQL identifier in double quotes."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(value: str) -> str:
    """An SQL string literal, for the places where DuckDB binds no values (ATTACH, table functions' options)."""
    return "'" + value.replace("'", "''") + "'"


def temp_table(con: duckdb.DuckDBPyConnection, name: str, columns: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Make a temporary table of what Python knows about files and batches (never of their rows).

    Args:
        con: the connection that will own it.
        name: of the table; one of that name is replaced.
        columns: `name TYPE, name TYPE`, each quoted by this function; types are scalars or lists (`VARCHAR[]`).
        rows: values that JSON can carry, one tuple per row.
    """
    pairs = [part.rsplit(" ", 1) for part in columns.split(", ")]
    con.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({', '.join(f'{quoted(n)} {kind}' for n, kind in pairs)})")
    if rows:
        shape = {n: [kind[:-2]] if kind.endswith("[]") else kind for n, kind in pairs}
        values = [dict(zip(shape, row, strict=True)) for row in rows]
        con.execute(
            f"INSERT INTO {name} SELECT item.* FROM (SELECT unnest(from_json(?, ?)) AS item)",
            [json.dumps(values), json.dumps([shape])],
        )
