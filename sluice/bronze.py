"""The bronze table of a source: the columns its contract gives it, and how it comes to be and grows.

What is written into it belongs to `sluice.booking`.
"""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from sluice.contracts import Contract
from sluice.errors import ContractError
from sluice.lake import LAKE, Lake, literal, quoted
from sluice.rules import typed_columns

META_COLUMNS = (
    ("_batch_id", "VARCHAR"),
    ("_partition_key", "VARCHAR"),
    ("_file", "VARCHAR"),
    ("_line", "BIGINT"),
    ("_extra", "VARCHAR"),
    ("_ingested_at", "TIMESTAMP"),
)


def bronze_columns(contract: Contract) -> list[tuple[str, str]]:
    """Name and SQL type of every column of a source's bronze table, in order."""
    tokens = [(name, "DATE" if name == "date" else "VARCHAR") for name in contract.landing.tokens]
    return tokens + [(c.name, c.type) for c in typed_columns(contract)] + list(META_COLUMNS)


def bronze_changes(con: duckdb.DuckDBPyConnection, contract: Contract) -> list[str]:
    """The SQL that makes a source's bronze table, or adds the columns its contract has gained; none when all is there.

    Raises:
        ContractError: a column's type differs from the table's.
    """
    present = dict(
        con.execute(
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = ? AND schema_name = 'bronze' AND table_name = ?",
            [LAKE, contract.name],
        ).fetchall()
    )
    table = f"bronze.{quoted(contract.name)}"
    dimensions = 1 + len(contract.landing.partitions)
    other = con.execute(
        "SELECT partition_key FROM ops.ledger WHERE source = ? AND status = 'accepted' AND superseded_by IS NULL "
        "AND len(string_split(partition_key, '|')) <> ? LIMIT 1",
        [contract.name, dimensions],
    ).fetchone()
    if other:
        # The same files would be loaded a second time under other keys.
        raise ContractError(
            f"{contract.path.name}: {table} holds partitions such as {other[0]!r}, but the contract now cuts a day "
            "differently. Keep landing.partitions, or load the source under a new name."
        )
    if not present:
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in bronze_columns(contract))
        return [f"CREATE TABLE IF NOT EXISTS {table} ({columns})"]
    changes = []
    for name, kind in bronze_columns(contract):
        if name not in present:
            changes.append(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {kind}")
        elif present[name] != kind:
            raise ContractError(
                f"{contract.path.name}: {name} is {kind} in the contract but {present[name]} in {table}. "
                "Keep the type, or load the source under a new name."
            )
    return changes


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
    """Make the bronze table of one source, or add the columns its contract has gained.

    Raises:
        ContractError: a column's type differs from the table's.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    changes = bronze_changes(con, contract)
    if not con.execute("SELECT 1 FROM ops.turns WHERE source = ?", [contract.name]).fetchone():
        changes.append(f"INSERT INTO ops.turns VALUES ({literal(contract.name)}, 0)")
    if changes:
        lake.transaction(con, lambda c: [c.execute(sql) for sql in changes], f"bronze table of {contract.name}")
