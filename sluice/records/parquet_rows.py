"""Rows of Parquet as records, in the table of what is no line of text. Their values become text, as those of CSV are.

What a text is worth belongs to `sluice.rules`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import duckdb

from sluice.contracts import Contract
from sluice.lake_errors import no_room
from sluice.records.json_paths import path_of
from sluice.records.shape import (
    NUL_DETAIL,
    FileFault,
    SourceFile,
    TextColumn,
    listed,
    misfit,
    no_glob,
    note_columns,
    unexpected,
)
from sluice.sql import literal, quoted, temp_table

# Columns that DuckDB's reader adds: a row's number in its file, which is its line in the books, and the file's path.
_ROW_NUMBER, _PATH = "file_row_number", "_sluice_path"

# Bytes of dead letters in one statement: DuckDB keeps each document, as it is parsed, until 2,048 rows are done.
_LETTERS_AT_ONCE = 16 * 1024 * 1024


def insert_parquet(
    con: duckdb.DuckDBPyConnection, contract: Contract, columns: list[TextColumn], files: list[SourceFile]
) -> list[FileFault]:
    """Parquet files, those of one set of columns in one statement; a broken one is set aside alone."""
    faults: list[FileFault] = []
    shapes: dict[tuple[tuple[str, ...], tuple[str, ...]], list[SourceFile]] = {}
    for file in files:
        try:
            shapes.setdefault(names_of(con, no_glob(str(file.inspected.readable))), []).append(file)
        except duckdb.Error as error:
            faults.append(_broken_parquet(file, error))
    for (names, given), group in shapes.items():
        unfit = _ambiguous(names, given) or misfit(contract, names)
        if unfit is not None:
            rule, column, detail = unfit
            for file in group:
                count = con.execute(
                    "SELECT count(*) FROM read_parquet(?)", [no_glob(str(file.inspected.readable))]
                ).fetchone()
                faults.append(FileFault(file.file_id, rule, detail, max(count[0] if count else 0, 1), column))
            continue
        try:
            _insert_parquet_group(con, contract, columns, names, group)
        except duckdb.Error:
            for file in group:
                try:
                    _insert_parquet_group(con, contract, columns, names, [file])
                except duckdb.Error as error:
                    faults.append(_broken_parquet(file, error))
    return faults


def names_of(con: duckdb.DuckDBPyConnection, path: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a file's columns as DuckDB has them, and as the file has."""
    described = con.execute(
        "SELECT column_name FROM (DESCRIBE SELECT * FROM read_parquet(?, hive_partitioning = false))", [path]
    ).fetchall()
    # The footer has a tree, in order: below the root each column, and right behind it what that is made of.
    given, below = [], 0
    for name, children in con.execute("SELECT name, num_children FROM parquet_schema(?) OFFSET 1", [path]).fetchall():
        if not below:
            given.append(name)
        below += (children or 0) - bool(below)
    return tuple(name for (name,) in described), tuple(given)


def _ambiguous(names: Sequence[str], given: Sequence[str]) -> tuple[str, str | None, str] | None:
    """Rule, column and detail for which a file's columns cannot be told apart by their names; None if they can.

    DuckDB knows no case in a name, and renames the second of two that are the same to it: its values would be another
    column's.
    """
    if any("\0" in name for name in given):
        return "malformed", None, f"The name of a column {NUL_DETAIL}. Deliver the file with names of text."
    # A column without a name has one of DuckDB's. A damaged footer may name more columns than it has.
    renamed = {name.lower() for name, own in zip(given, names, strict=False) if name and name != own}
    alike = [name for name in given if name.lower() in renamed]
    if alike:
        return (
            "malformed",
            alike[0],
            f"Columns cannot be told apart by their names, in which Parquet's reader knows no case: {listed(alike)}. "
            "Deliver the file with each column once.",
        )
    taken = [name for name in given if name.lower() in (_ROW_NUMBER, _PATH)]
    if taken:
        return (
            "malformed",
            taken[0],
            f"The file has a column {taken[0]!r}, a name that Parquet's reader needs for a column of its own. Deliver "
            "it under another name.",
        )
    return None


def row_text(values: Mapping[str, str]) -> str:
    """SQL of the text that stands for a row among the dead letters, of the SQL of each column's value by its name."""
    return "to_json({" + ", ".join(f"{literal(n)}: {sql}::VARCHAR" for n, sql in values.items()) + "})::VARCHAR"


def _broken_parquet(file: SourceFile, error: duckdb.Error) -> FileFault:
    said = str(error).splitlines()[0]
    if no_room(error):
        raise error
    if isinstance(error, duckdb.OutOfMemoryException):
        # A damaged file may ask for any amount, and few bytes of a sound one may stand for as many.
        return FileFault(
            file.file_id,
            "too_large",
            f"The file takes more memory than there is ({said}). Ask for it in parts, or raise SLUICE_MEMORY_LIMIT and "
            "materialize the partition with force: true.",
            rows=1,
        )
    return FileFault(
        file.file_id,
        "unreadable_file",
        f"The file cannot be read ({said}). Deliver it again under the same name.",
        rows=1,
    )


def _insert_parquet_group(
    con: duckdb.DuckDBPyConnection,
    contract: Contract,
    columns: list[TextColumn],
    names: Iterable[str],
    group: list[SourceFile],
) -> None:
    present = list(names)
    temp_table(
        con,
        "parquet_files",
        "file_id INTEGER, batch_no INTEGER, path VARCHAR",
        [(f.file_id, f.batch_no, str(f.inspected.readable)) for f in group],
    )
    values = "".join(
        f", {'p.' + quoted(c.source_name) + '::VARCHAR' if c.source_name in present else 'NULL'} AS {c.sql}"
        for c in columns
    )
    others = unexpected(contract, present)
    # As text: JSON's numbers would round the widest ones, and two different rows would look like twins.
    extra = "NULL"
    if others and contract.schema_evolution == "evolve":
        extra = "to_json({" + ", ".join(f"{literal(n)}: p.{quoted(n)}::VARCHAR" for n in others) + "})::VARCHAR"
    whole = row_text({n: f"p.{quoted(n)}" for n in present})
    con.execute(
        f"INSERT INTO taken_records BY NAME SELECT f.file_id, f.batch_no, p.{_ROW_NUMBER} + 1 AS line, "
        f"{whole} AS raw, 'utf-8' AS raw_encoding, NULL AS fault, NULL AS fault_detail, {extra} AS extra{values} "
        f"FROM read_parquet(?, filename = '{_PATH}', {_ROW_NUMBER} = true, hive_partitioning = false) AS p "
        f"JOIN parquet_files AS f ON f.path = p.{_PATH}",
        [[no_glob(str(f.inspected.readable)) for f in group]],
    )
    lacking = [c.source_name for c in columns if c.source_name not in present]
    note_columns(con, [(f.file_id, n) for f in group for n in others], [(f.file_id, n) for f in group for n in lacking])


def insert_letters(con: duckdb.DuckDBPyConnection, columns: list[TextColumn], file_ids: Sequence[int]) -> None:
    """Rows of Parquet that are dead letters, kept as JSON of texts: from `chosen_letters` into `taken_records`."""
    known = ", ".join(literal(c.source_name) for c in columns)
    paths = ", ".join(literal(path_of([c.source_name])) for c in columns)
    values = "".join(f", fields[{i}] AS {c.sql}" for i, c in enumerate(columns, 1))
    own = "FROM chosen_letters WHERE file_id IN (SELECT unnest($files))"
    pieces = con.execute(
        "SELECT min(row_id), max(row_id) FROM (SELECT row_id, sum(strlen(payload)) OVER (ORDER BY row_id) "
        f"// {_LETTERS_AT_ONCE} AS piece {own}) GROUP BY piece",
        {"files": list(file_ids)},
    ).fetchall()
    for first, last in pieces:
        con.execute(
            "INSERT INTO taken_records BY NAME SELECT file_id, batch_no, line, payload AS raw, "
            "'utf-8' AS raw_encoding, CASE WHEN NOT valid THEN 'malformed' END AS fault, "
            "CASE WHEN NOT valid THEN 'not a JSON object with each key once, as which rows of Parquet are kept' END "
            "AS fault_detail, CASE WHEN len(others) > 0 THEN to_json(map_from_entries(others))::VARCHAR END AS extra"
            f"{values} FROM (SELECT *, CASE WHEN valid THEN list_filter(list_zip(json_keys(payload), "
            # All values at once: to extract each key's from the payload copied the payload for each.
            f"json_extract_string(payload, '$.*')), lambda e: e[1] NOT IN ({known})) END AS others, "
            f"CASE WHEN valid THEN json_extract_string(payload, [{paths}]) END AS fields FROM "
            "(SELECT *, CASE WHEN json_valid(payload) THEN CASE WHEN json_type(payload) = 'OBJECT' THEN "
            "list_unique(json_keys(payload)) = len(json_keys(payload)) ELSE false END ELSE false END AS valid "
            f"{own} AND row_id BETWEEN $first AND $last))",
            {"files": list(file_ids), "first": first, "last": last},
        )
