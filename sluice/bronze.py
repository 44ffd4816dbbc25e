"""The bronze table of a source: the columns its contract gives it, and how it comes to be and grows.

What is written into it belongs to `sluice.booking`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

import duckdb

from sluice.contracts import Contract
from sluice.errors import ContractError
from sluice.lake import LAKE, Lake
from sluice.landing import STREAM_PREFIX, dimensions
from sluice.rules import exact_cast, typed_columns
from sluice.sql import literal, quoted

META_COLUMNS = (
    ("_batch_id", "VARCHAR"),
    ("_partition_key", "VARCHAR"),
    ("_file", "VARCHAR"),
    ("_line", "BIGINT"),
    ("_extra", "VARCHAR"),
    ("_ingested_at", "TIMESTAMP"),
)

# What a record that came by a stream has besides; null of one that came in a file.
MESSAGE_COLUMNS = (("_message_key", "VARCHAR"), ("_message_ts", "TIMESTAMP"), ("_headers", "VARCHAR"))

# What else has a name where bronze is read: its change feed has rowid, snapshot_id and change_type, files the others.
_RESERVED = frozenset(["rowid", "snapshot_id", "change_type", "filename", "file_row_number", "file_index"])

# PostgreSQL's limit, and a width people read; names of files have been 1.9 MB long.
_LONGEST_NAME = 63

# Digits that the largest value of a type has.
_WHOLE_DIGITS = {"TINYINT": 3, "SMALLINT": 5, "INTEGER": 10, "BIGINT": 19, "HUGEINT": 39}


def bronze_columns(contract: Contract) -> list[tuple[str, str]]:
    """Name and SQL type of every column of a source's bronze table, in order."""
    tokens = [(name, "DATE" if name == "date" else "VARCHAR") for name in contract.landing.tokens]
    return tokens + [(c.name, c.type) for c in typed_columns(contract)] + meta_columns(contract)


def meta_columns(contract: Contract) -> list[tuple[str, str]]:
    """Those of them that Sluice keeps: where a row came from, and when."""
    return [*META_COLUMNS, *(MESSAGE_COLUMNS if contract.stream else ())]


def table_columns(con: duckdb.DuckDBPyConnection, table: str, schema: str = "bronze") -> dict[str, str]:
    """Name and SQL type of every column a table of the lake has; empty where there is no such table."""
    return dict(
        con.execute(
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = ? AND schema_name = ? AND table_name = ?",
            [LAKE, schema, table],
        ).fetchall()
    )


def evolved_columns(con: duckdb.DuckDBPyConnection, source: str) -> dict[str, str]:
    """The columns bronze has taken in besides those of the contract: name in bronze by name in the files."""
    return {column: held for column, held in _undeclared(con, source).items() if held is not None}


def _undeclared(con: duckdb.DuckDBPyConnection, source: str) -> dict[str, str | None]:
    """The columns of files that were not the contract's, and are not by now: name in bronze, if any, by their own.

    Chosen here, not by DuckDB: DuckLake asks its catalog for every condition on a column, 4 ms each. The table has few
    rows (`sluice.drift.MOST_NOTED` a source).
    """
    rows = con.execute(
        'SELECT "column", bronze_column, kind, action FROM ops.schema_drift WHERE source = ?', [source]
    ).fetchall()
    return {column: held for column, held, kind, action in rows if kind == "unexpected" and action != "declared"}


def free_name(name: str, taken: Collection[str]) -> str:
    """What a new column of a file is called in bronze: lower-case letters, digits, underscores, and nobody else's name.

    Args:
        name: its name in the files.
        taken: the columns the table has.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:_LONGEST_NAME].rstrip("_") or "unnamed"
    plain = plain if plain[0].isalpha() else f"c_{plain}"
    free, number = plain, 1
    while free in taken or free in _RESERVED:
        number += 1
        free = f"{plain}_{number}"
    return free


def bronze_changes(con: duckdb.DuckDBPyConnection, contract: Contract) -> list[str]:
    """The SQL that makes a source's bronze table, or makes it follow its contract; none when all is as it should be.

    A column the contract has gained is added; one it declares now that came in by itself before is taken over; a type
    it has widened is widened.

    Raises:
        ContractError: a column's type is not that of the table, nor wider; or keys of partitions look otherwise now.
    """
    present = table_columns(con, contract.name)
    table = f"bronze.{quoted(contract.name)}"
    parts = dimensions(contract)
    other = con.execute(
        "SELECT any_value(partition_key) FILTER (status = 'accepted' AND superseded_by IS NULL "
        "AND NOT starts_with(partition_key, ?) "
        # A partition's other name may sort on the other side of `date`: then the parts of its keys change places.
        "AND (len(string_split(partition_key, '|')) <> ? "
        "OR NOT regexp_full_match(split_part(partition_key, '|', ?), '\\d{4}-\\d{2}-\\d{2}'))) "
        "FROM ops.ledger WHERE source = ?",
        [STREAM_PREFIX, len(parts), 1 + parts.index("date"), contract.name],
    ).fetchone()
    if other and other[0] is not None:
        # The same files would be loaded a second time under other keys.
        raise ContractError(
            f"{contract.path.name}: {table} holds partitions such as {other[0]!r}, but the contract now cuts or names "
            "them differently. Keep landing.partitions, or load the source under a new name."
        )
    if not present:
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in bronze_columns(contract))
        return [f"CREATE TABLE IF NOT EXISTS {table} ({columns})"]
    changes = []
    undeclared = _undeclared(con, contract.name)
    evolved = {column: held for column, held in undeclared.items() if held is not None}
    for name, kind in bronze_columns(contract):
        old = present.get(name, kind)
        if old == kind or name in evolved.values():
            continue
        if not widens(old, kind):
            raise ContractError(
                f"{contract.path.name}: {name} is {kind} in the contract but {old} in {table}, and not every {old} is "
                f"a {kind}. Nothing was written. Keep the type, widen it, or load the source under a new name."
            )
        changes.append(f"ALTER TABLE {table} ALTER {quoted(name)} SET DATA TYPE {kind}")
    changes += _adoptions(con, contract, evolved, present)
    # What was discarded or refused as long as the contract did not know it.
    known = {column.source_name for column in contract.columns}
    kept_out = [column for column, held in undeclared.items() if held is None and column in known]
    changes += [_settled(contract, column, "declared", None) for column in kept_out]
    changes += [
        f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {kind}"
        for name, kind in bronze_columns(contract)
        if name not in present
    ]
    return changes


def _adoptions(
    con: duckdb.DuckDBPyConnection, contract: Contract, evolved: dict[str, str], present: dict[str, str]
) -> list[str]:
    """The SQL by which columns that came in by themselves become the contract's own; `present` is kept up to date.

    Text stays text. Where the contract gives another type, the values are cast exactly, and the text stays beside them
    if one of them does not fit.
    """
    table = f"bronze.{quoted(contract.name)}"
    declared = {c.source_name: c for c in contract.columns if c.source_name in evolved}
    own = {name for name, _ in bronze_columns(contract)}
    before, names = dict(present), dict(evolved)
    changes: list[str] = []

    def rename(column: str, new: str) -> None:
        changes.append(f"ALTER TABLE {table} RENAME COLUMN {quoted(names[column])} TO {quoted(new)}")
        present[new] = present.pop(names[column])
        names[column] = new

    for column, held in evolved.items():
        stays = column in declared and declared[column].name == held and declared[column].type == "VARCHAR"
        if held in own and not stays:
            rename(column, free_name(held, present.keys() | own))
            changes.append(_settled(contract, column, "evolved", names[column]))
    for column, wanted in declared.items():
        kept = None
        if wanted.name != names[column] and wanted.type == "VARCHAR" and wanted.name not in present:
            rename(column, wanted.name)
        elif wanted.name != names[column]:
            if wanted.name not in present:
                changes.append(f"ALTER TABLE {table} ADD COLUMN {quoted(wanted.name)} {wanted.type}")
                present[wanted.name] = wanted.type
            old, target = quoted(evolved[column]), quoted(wanted.name)
            cast = exact_cast(wanted.type, old, wanted.format)
            taken = (
                f" OR ({target} IS NOT NULL AND {target} IS DISTINCT FROM ({cast}))"
                if wanted.name in before and wanted.name not in evolved.values()
                else ""
            )
            unfit = con.execute(
                f"SELECT count(*) FROM {table} WHERE {old} IS NOT NULL AND (({cast}) IS NULL{taken})"
            ).fetchone()
            text = quoted(names[column])
            changes.append(
                f"UPDATE {table} SET {target} = {exact_cast(wanted.type, text, wanted.format)} "
                f"WHERE {text} IS NOT NULL AND {target} IS NULL"
            )
            if unfit == (0,):
                changes.append(f"ALTER TABLE {table} DROP COLUMN {text}")
                del present[names[column]]
            else:
                kept = names[column]
        changes.append(_settled(contract, column, "declared", kept))
    return changes


def _settled(contract: Contract, column: str, action: str, bronze_column: str | None) -> str:
    return (
        f"UPDATE ops.schema_drift SET action = {literal(action)}, contract_version = {literal(contract.version)}, "
        f"bronze_column = {literal(bronze_column) if bronze_column else 'NULL'}, decided_at = now()::TIMESTAMP "
        f"WHERE source = {literal(contract.name)} AND kind = 'unexpected' AND \"column\" = {literal(column)}"
    )


def widens(old: str, new: str) -> bool:
    """Whether every value of one type is, exactly, one of another, and DuckLake alters the first into the second.

    A date is no timestamp here: a table altered so (DuckLake 1.5, small tables kept in the catalog) found rows of other
    times of the day when asked for midnight.
    """
    digits, wider = _digits(old), _digits(new)
    if digits and wider and (old in _WHOLE_DIGITS or new not in _WHOLE_DIGITS):
        return digits[0] <= wider[0] and digits[1] <= wider[1]
    # A double holds whole numbers up to 2^53 exactly.
    return old in ("TINYINT", "SMALLINT", "INTEGER") and new == "DOUBLE"


def _digits(kind: str) -> tuple[int, int] | None:
    """Places before and behind the point that a number's type has; None of what is no number, or no exact one."""
    if kind in _WHOLE_DIGITS:
        return _WHOLE_DIGITS[kind], 0
    match = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind)
    return (int(match.group(1)) - int(match.group(2)), int(match.group(2))) if match else None


def create_bronze_tables(lake: Lake, contracts: Iterable[Contract]) -> None:
    """Make the bronze tables of these sources as far as they are not there, so that what reads them can be built.

    Raises:
        ContractError: a column's type differs from the table's.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    with lake.connect() as con:
        lake.create(con)
        for contract in contracts:
            create_bronze(lake, con, contract)


def create_bronze(lake: Lake, con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Make the bronze table of one source, or make it follow its contract.

    Raises:
        ContractError: a column's type is not that of the table, nor wider.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """

    def changes(c: duckdb.DuckDBPyConnection) -> list[str]:
        needed = bronze_changes(c, contract)
        if not c.execute("SELECT 1 FROM ops.turns WHERE source = ?", [contract.name]).fetchone():
            needed.append(f"INSERT INTO ops.turns VALUES ({literal(contract.name)}, 0)")
        return needed

    if changes(con):
        # Asked again within: somebody else may have made them by now.
        lake.transaction(con, lambda c: [c.execute(sql) for sql in changes(c)], f"bronze table of {contract.name}")
