"""Turning landing files into records of text: one row per record, every contract column as text, nothing judged yet.

CSV, JSON lines and Parquet end in the same temporary view `records`, with the line or row number and the raw text.
Everything is SQL over all files at once; Python only looks at headers and file footers. What makes a value good or
bad belongs to `sluice.rules`.

Only the lines are stored. `records` takes them apart when it is read, so that a statement which needs no column does
not split, and no text is written that nobody keeps.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from sluice.contracts import Contract
from sluice.records.csv_lines import csv_records, headers
from sluice.records.json_lines import json_records
from sluice.records.json_paths import json_path, steps
from sluice.records.lines import keep_lines, load_lines
from sluice.records.messages import (
    MessageFile,
    load_messages,
    make_messages,
    message_partition,
    message_path,
    twin_tombstones,
)
from sluice.records.parquet_rows import insert_letters, insert_parquet
from sluice.records.shape import (
    JSON_HAS_NUL,
    MOST_NEW_COLUMNS,
    NUL_DETAIL,
    OPERATION,
    SCHEMA_RULES,
    SEQUENCE,
    SOURCE_TS,
    TAKEN_LAYOUT,
    FileFault,
    LetterFile,
    Origin,
    SourceFile,
    TextColumn,
    further_sequence,
    lacks,
    listed,
    path_roots,
    similar,
    text_columns,
    too_many,
)
from sluice.sql import literal, temp_table

__all__ = [
    "MOST_NEW_COLUMNS",
    "OPERATION",
    "SCHEMA_RULES",
    "SEQUENCE",
    "SOURCE_TS",
    "FileFault",
    "LetterFile",
    "MessageFile",
    "Origin",
    "SourceFile",
    "TextColumn",
    "extract",
    "extract_letters",
    "extract_messages",
    "further_sequence",
    "json_path",
    "keep_lines",
    "lacks",
    "listed",
    "message_partition",
    "message_path",
    "path_roots",
    "similar",
    "steps",
    "text_columns",
    "too_many",
    "twin_tombstones",
]


def extract(con: duckdb.DuckDBPyConnection, contract: Contract, files: list[SourceFile]) -> list[FileFault]:
    """Make the temporary view `records` of `files`; return the files set aside as a whole.

    `records` has row_id, file_id, batch_no, line (1-based line or row number), raw, raw_encoding (utf-8 or base64),
    layout (equal texts below different headers, or of different formats, are different records), digest (of the whole
    record where raw is only its beginning, else null), fault and fault_detail (why the record cannot be taken apart,
    else null), extra (JSON of columns the contract does not know; of CSV and Parquet only where it lets them in)
    and one VARCHAR column `t_<name>` per contract column. Blank lines are no records. The temporary table
    `file_headers` has the first line of each CSV file by which its records are taken apart, `file_drift` the columns by
    which files of CSV and Parquet differ from the contract: those they have besides, and those they lack.

    Raises:
        BooksDoNotBalanceError: SQL read another number of lines than the preflight counted.
    """
    columns = text_columns(contract)
    _make_taken_records(con, columns)
    faults = [_unreadable(f) for f in files if f.inspected.readable is None]
    readable = [f for f in files if f.inspected.readable is not None]
    if contract.landing.csv.multiline:
        torn = [f for f in readable if f.inspected.bad_lines and f.inspected.file.format == "csv"]
        faults += [_torn(f) for f in torn]
        readable = [f for f in readable if f not in torn]
    by_format: dict[str, list[SourceFile]] = {"csv": [], "jsonl": [], "parquet": []}
    for file in readable:
        by_format[file.inspected.file.format].append(file)
    selects = []
    first_lines: dict[int, str] = {}
    if by_format["csv"] or by_format["jsonl"]:
        load_lines(con, by_format["csv"] + by_format["jsonl"], contract)
    if by_format["csv"]:
        ids = [f.file_id for f in by_format["csv"]]
        # Of these files alone: whether a letter of JSON is one known before must not depend on its neighbours.
        first_lines = headers(con, ids) if contract.landing.csv.header else {}
        misfits, select = csv_records(con, contract, columns, {id_: first_lines.get(id_) for id_ in ids})
        selects.append(select)
        for file in by_format["csv"]:
            if file.file_id in misfits:
                rule, column, detail = misfits[file.file_id]
                rows = _rows(con, file, first_lines.get(file.file_id))
                faults.append(FileFault(file.file_id, rule, detail, rows, column))
        con.execute("DELETE FROM taken_records WHERE file_id IN (SELECT unnest(?::INTEGER[]))", [list(misfits)])
    selects.append(json_records(con, contract, columns, [f.file_id for f in by_format["jsonl"]]))
    faults += insert_parquet(con, contract, columns, by_format["parquet"])
    temp_table(con, "file_headers", "file_id INTEGER, header VARCHAR", list(first_lines.items()))
    _make_records(con, selects)
    return faults


def extract_letters(con: duckdb.DuckDBPyConnection, contract: Contract, files: Sequence[LetterFile]) -> list[FileFault]:
    """Likewise of dead letters: `chosen_letters`, a temporary table of row_id, file_id, batch_no, line, payload.

    A file whose header does not fit the contract (any more) is returned with 0 rows: its letters stay what they are.
    """
    columns = text_columns(contract)
    _make_taken_records(con, columns)
    con.execute(
        "CREATE OR REPLACE TEMP VIEW lines AS "
        "SELECT row_id, file_id, batch_no, line, payload AS raw FROM chosen_letters"
    )
    ids: dict[str, list[int]] = {"csv": [], "jsonl": [], "parquet": []}
    for file in files:
        ids[file.format].append(file.origin.file_id)
    first_lines = {f.origin.file_id: f.header for f in files if f.format == "csv"}
    misfits, select = csv_records(con, contract, columns, first_lines)
    selects = [select, json_records(con, contract, columns, ids["jsonl"])]
    if ids["parquet"]:
        insert_letters(con, columns, ids["parquet"])
    temp_table(con, "file_headers", "file_id INTEGER, header VARCHAR", list(first_lines.items()))
    make_messages(con, "SELECT file_id, line, message_key, message_ts, headers FROM chosen_letters")
    _make_records(con, selects)
    return [FileFault(id_, rule, detail, 0, column) for id_, (rule, column, detail) in misfits.items()]


def extract_messages(con: duckdb.DuckDBPyConnection, contract: Contract, files: Sequence[MessageFile]) -> None:
    """Likewise of messages of an event log: `line` is the offset, and nothing is set aside as a whole."""
    _make_taken_records(con, text_columns(contract))
    select = load_messages(con, contract, files)
    temp_table(con, "file_headers", "file_id INTEGER, header VARCHAR", [])
    _make_records(con, [select])


def _make_taken_records(con: duckdb.DuckDBPyConnection, columns: list[TextColumn]) -> None:
    """The tables of what is no line of text (unreadable bytes, rows of Parquet) and of columns that differ."""
    con.execute("CREATE OR REPLACE TEMP TABLE file_drift (file_id INTEGER, name VARCHAR, lacking BOOLEAN)")
    declared = "".join(f", {c.sql} VARCHAR" for c in columns)
    con.execute(
        "CREATE OR REPLACE TEMP TABLE taken_records (file_id INTEGER, batch_no INTEGER, line BIGINT, raw VARCHAR, "
        f"raw_encoding VARCHAR, layout INTEGER DEFAULT {TAKEN_LAYOUT}, digest VARCHAR, fault VARCHAR, "
        f"fault_detail VARCHAR, extra VARCHAR{declared})"
    )
    make_messages(con)


def _make_records(con: duckdb.DuckDBPyConnection, selects: list[str]) -> None:
    # Of what is kept as JSON; `fault` says so of all that is not.
    con.execute(
        f"UPDATE taken_records SET fault = 'encoding', fault_detail = {literal(NUL_DETAIL)}, extra = NULL "
        f"WHERE fault IS NULL AND {JSON_HAS_NUL}"
    )
    # Negative, for the lines' numbers count from 0.
    taken = "SELECT -1 - rowid AS row_id, * FROM taken_records"
    con.execute(f"CREATE OR REPLACE TEMP VIEW records AS {' UNION ALL BY NAME '.join([taken, *filter(None, selects)])}")


def _rows(con: duckdb.DuckDBPyConnection, file: SourceFile, header: str | None) -> int:
    """How many rows a file with a header stands for in the books, where that does not fit."""
    if header is not None and "\n" in header:
        # A quote in it was not closed, as likely as not: the rows it has swallowed are lines.
        return max(file.inspected.lines - 1, 1)
    row = con.execute(
        "SELECT (SELECT count(raw) FROM lines WHERE line > 1 AND file_id = $file) "
        "+ (SELECT count(*) FROM taken_records WHERE file_id = $file)",
        {"file": file.file_id},
    ).fetchone()
    return row[0] if row else 0


def _unreadable(file: SourceFile) -> FileFault:
    problem = file.inspected.problem or ""
    if problem == "empty_file":
        detail = "The file has no bytes, not even a header. Ask for it to be delivered again."
        return FileFault(file.file_id, "empty_file", detail, rows=0)
    bad = file.inspected.bad_lines
    if problem == "encoding" and bad is not None:
        detail = (
            f"More than {bad.count - 1:,} of its lines are no text (line {bad.first.line}: {bad.first.detail}). "
            "Deliver the file in the encoding the contract declares, or mend the contract."
        )
        return FileFault(file.file_id, "encoding", detail, rows=max(file.inspected.lines - 1, 1))
    if problem == "too_large":
        detail = (
            f"The file holds more than {file.inspected.unpacked_bytes / 1e6:,.0f} MB unpacked, and no more is read of "
            "one. Ask for it in parts, or raise SLUICE_FILE_BYTES and materialize the partition."
        )
        return FileFault(file.file_id, "too_large", detail, rows=1)
    # Nobody can say how many rows an unreadable file holds: it stands in the books as one.
    detail = f"The file cannot be read ({problem}). Deliver it again under the same name."
    return FileFault(file.file_id, "unreadable_file", detail, rows=1)


def _torn(file: SourceFile) -> FileFault:
    """Where records run over lines, nobody can say which record a line that is no text was part of."""
    bad = file.inspected.bad_lines
    assert bad is not None, "only a file that has some is torn"
    first = bad.first
    detail = (
        f"Line {first.line} cannot be read ({first.detail}), and records run over lines. Mend it and deliver the file "
        "again."
    )
    return FileFault(file.file_id, first.rule, detail, rows=max(file.inspected.lines - 1, 1))
