"""Which columns of which tables a column of a model comes from, read from the model's compiled SQL.

Pure text work by sqlglot; the result is kept in a file beside the SQL, for it changes only when the SQL does.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Columns = Mapping[str, Mapping[str, str]]
"""Table name (`schema.table`) to its columns and types."""

Lineage = dict[str, list[tuple[str, str]]]
"""Column to the (table, column) pairs it is made from."""

_DIALECT = "duckdb"


def column_lineage(sql: str, tables: Columns) -> Lineage:
    """Trace every output column of a query to columns of `tables`.

    A query sqlglot cannot analyse has no lineage: it is said in the log and an empty mapping is returned, for a picture
    must not stop a load.
    """
    if not tables:
        return {}  # a query of constants comes from nowhere
    # Deferred: sqlglot takes a third of a second to import and most processes never trace anything.
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage
    from sqlglot.optimizer import optimize

    schema: dict[str, Any] = {"lake": {}}
    for name, columns in tables.items():
        owner, table = name.split(".", 1)
        schema["lake"].setdefault(owner, {})[table] = dict(columns)
    try:
        query = optimize(parse_one(sql, dialect=_DIALECT), schema=schema, dialect=_DIALECT)
        text = query.sql(dialect=_DIALECT)
        found: Lineage = {}
        for column in query.named_selects if isinstance(query, exp.Query) else ():
            sources: set[tuple[str, str]] = set()
            for node in lineage(column, text, schema=schema, dialect=_DIALECT).walk():
                leaf = node.expression.find(exp.Table)
                if not node.downstream and leaf is not None and leaf.db:
                    sources.add((f"{leaf.db}.{leaf.name}", exp.to_column(node.name).name))
            found[column] = sorted(sources)
        return found
    except (SqlglotError, ValueError, KeyError) as error:
        logging.getLogger(__name__).warning("no column lineage: %s", str(error).splitlines()[0])
        return {}


def cached_lineage(sql: str, tables: Columns, folder: Path) -> Lineage:
    """`column_lineage`, kept in `folder` under a name made from its inputs."""
    key = hashlib.sha256(json.dumps([sql, {k: dict(v) for k, v in sorted(tables.items())}]).encode()).hexdigest()[:24]
    path = folder / f"{key}.json"
    if path.exists():
        return {column: [(t, c) for t, c in sources] for column, sources in json.loads(path.read_text()).items()}
    made = column_lineage(sql, tables)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(made))
    temporary.replace(path)
    return made
