"""Turning landing files into records of text: one row per record, every contract column as text, nothing judged yet.

CSV, JSON lines and Parquet end in the same temporary view `records`, with the line or row number and the raw text.
Everything is SQL over all files at once; Python only looks at headers and file footers. What makes a value good or
bad belongs to `sluice.rules`.

Only the lines are stored. `records` takes them apart when it is read, so that a statement which needs no column does
not split, and no text is written that nobody keeps.
"""

from __future__ import annotations

import duckdb

from sluice.contracts import Contract
from sluice.records.csv_lines import csv_records
from sluice.records.json_lines import json_path, json_records
from sluice.records.lines import keep_lines, load_lines
from sluice.records.parquet_rows import insert_parquet
from sluice.records.shape import OPERATION, SEQUENCE, SOURCE_TS, FileFault, SourceFile, TextColumn, text_columns

__all__ = [
    "OPERATION",
    "SEQUENCE",
    "SOURCE_TS",
    "FileFault",
    "SourceFile",
    "TextColumn",
    "extract",
    "json_path",
    "keep_lines",
    "text_columns",
]


def extract(con: duckdb.DuckDBPyConnection, contract: Contract, files: list[SourceFile]) -> list[FileFault]:
    """Make the temporary view `records` of `files`; return the files set aside as a whole.

    `records` has row_id, file_id, batch_no, line (1-based line or row number), raw, raw_encoding (utf-8 or base64),
    layout (equal texts below different headers are different records), fault and
    fault_detail (why the record cannot be taken apart, else null), extra (JSON of columns the contract does not know)
    and one VARCHAR column `t_<name>` per contract column. Blank lines are no records.

    Raises:
        BooksDoNotBalanceError: SQL read another number of lines than the preflight counted.
    """
    columns = text_columns(contract)
    declared = "".join(f", {c.sql} VARCHAR" for c in columns)
    # What is no line of text: lines of unreadable bytes, and rows of Parquet.
    con.execute(
        "CREATE OR REPLACE TEMP TABLE taken_records (file_id INTEGER, batch_no INTEGER, line BIGINT, raw VARCHAR, "
        f"raw_encoding VARCHAR, layout INTEGER DEFAULT 0, fault VARCHAR, fault_detail VARCHAR, extra VARCHAR{declared})"
    )
    faults = [_unreadable(f) for f in files if f.inspected.readable is None]
    readable = [f for f in files if f.inspected.readable is not None]
    if contract.landing.csv.multiline:
        torn = [f for f in readable if f.inspected.bad_lines and f.inspected.file.format == "csv"]
        faults += [_torn(f) for f in torn]
        readable = [f for f in readable if f not in torn]
    text = [f for f in readable if f.inspected.file.format != "parquet"]
    # Negative, for the lines' numbers count from 0.
    selects = ["SELECT -1 - rowid AS row_id, * FROM taken_records"]
    if text:
        load_lines(con, text, contract)
        found, select = csv_records(con, contract, columns, [f for f in text if f.inspected.file.format == "csv"])
        faults += found
        selects += [
            select,
            json_records(con, contract, columns, [f for f in text if f.inspected.file.format == "jsonl"]),
        ]
    faults += insert_parquet(con, contract, columns, [f for f in readable if f.inspected.file.format == "parquet"])
    con.execute(f"CREATE OR REPLACE TEMP VIEW records AS {' UNION ALL BY NAME '.join(filter(None, selects))}")
    return faults


def _unreadable(file: SourceFile) -> FileFault:
    problem = file.inspected.problem or ""
    if problem == "empty_file":
        detail = "The file has no bytes, not even a header. Ask for it to be delivered again."
        return FileFault(file.file_id, "empty_file", detail, rows=0)
    # Nobody can say how many rows an unreadable file holds: it stands in the books as one.
    detail = f"The file cannot be read ({problem}). Deliver it again under the same name."
    return FileFault(file.file_id, "unreadable_file", detail, rows=1)


def _torn(file: SourceFile) -> FileFault:
    """Where records run over lines, nobody can say which record a line that is no text was part of."""
    first = file.inspected.bad_lines[0]
    detail = (
        f"Line {first.line} is {first.detail}, and records run over lines. Mend the line and deliver the file again."
    )
    return FileFault(file.file_id, first.rule, detail, rows=max(file.inspected.lines - 1, 1))
