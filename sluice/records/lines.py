"""Files of text as the view `lines`: a row per line, or per record where a quoted value runs over line ends.

Taking a line apart belongs to `csv_lines` and `json_lines`.
"""

from __future__ import annotations

from dataclasses import astuple

import duckdb

from sluice.contracts import Contract
from sluice.errors import BooksDoNotBalanceError
from sluice.lake import literal, temp_table
from sluice.preflight import UNIT_SEPARATOR
from sluice.records.shape import SourceFile, no_glob

# Bytes of bad lines that Python and JSON hold at once, and what one costs besides its own.
_BAD_LINES_AT_ONCE = 8 * 1024 * 1024
_BAD_LINE_OVERHEAD = 500


def load_lines(con: duckdb.DuckDBPyConnection, files: list[SourceFile], contract: Contract) -> None:
    """Read all lines into the view `lines(row_id, file_id, batch_no, line, raw)`; check their number.

    Unreadable ones go to `taken_records`.
    """
    temp_table(
        con,
        "line_files",
        "file_index BIGINT, file_id INTEGER, batch_no INTEGER, path VARCHAR, lines BIGINT",
        [(index, f.file_id, f.batch_no, str(f.inspected.readable), f.inspected.lines) for index, f in enumerate(files)],
    )
    # One column per line: the delimiter is a character the preflight guarantees absent, quoting is off. The file's
    # number and not its name: a text on every line took three times as long to store.
    con.execute(
        "CREATE OR REPLACE TEMP TABLE raw_lines AS SELECT file_index::BIGINT AS file_index, line FROM read_csv(?, "
        f"auto_detect = false, header = false, delim = {literal(UNIT_SEPARATOR)}, quote = '', escape = '', "
        "comment = '', strict_mode = false, columns = {'line': 'VARCHAR'}, hive_partitioning = false)",
        [[no_glob(str(f.inspected.readable)) for f in files]],
    )
    # Rows stand in file order, so a row's number less the first of its file is its place in the file.
    con.execute(
        "CREATE OR REPLACE TEMP TABLE line_spans AS SELECT f.*, coalesce(s.first_row, 0) AS first_row, "
        "coalesce(s.found, 0) AS found FROM line_files AS f LEFT JOIN "
        "(SELECT file_index, min(rowid) AS first_row, count(*) AS found FROM raw_lines GROUP BY file_index) AS s "
        "USING (file_index)"
    )
    wrong = con.execute("SELECT path, lines, found FROM line_spans WHERE lines <> found LIMIT 1").fetchone()
    if wrong:
        raise BooksDoNotBalanceError(
            f"{wrong[0]} has {wrong[1]} lines by its bytes but {wrong[2]} were read. Nothing was committed. "
            "The file may have changed while it was read: run the partition again."
        )
    by_line = (
        "SELECT r.rowid AS row_id, s.file_id, s.batch_no, r.rowid - s.first_row + 1 AS line, r.line AS raw "
        "FROM raw_lines AS r JOIN line_spans AS s USING (file_index)"
    )
    if contract.landing.csv.multiline and any(f.inspected.file.format == "csv" for f in files):
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE joined_lines AS {_joined_records(by_line, contract.landing.csv.quote)}"
        )
        by_line = "SELECT * FROM joined_lines"
    con.execute(f"CREATE OR REPLACE TEMP VIEW lines AS {by_line}")
    _take_bad_lines(con, files)


def _take_bad_lines(con: duckdb.DuckDBPyConnection, files: list[SourceFile]) -> None:
    """Lines that are no text into `taken_records`, some megabytes at a time: a file may have any number of them."""
    held: list[tuple[object, ...]] = []
    size = 0

    def pass_on() -> None:
        temp_table(con, "bad_lines", "file_id INTEGER, line BIGINT, rule VARCHAR, detail VARCHAR, raw VARCHAR", held)
        con.execute(
            "INSERT INTO taken_records BY NAME SELECT b.file_id, s.batch_no, b.line, b.raw, 'base64' AS raw_encoding, "
            "b.rule AS fault, b.detail AS fault_detail FROM bad_lines AS b JOIN line_spans AS s USING (file_id)"
        )

    for file in files:
        for bad in file.inspected.bad_lines or ():
            held.append((file.file_id, *astuple(bad)))
            size += len(bad.raw_base64) + _BAD_LINE_OVERHEAD
            if size > _BAD_LINES_AT_ONCE:
                pass_on()
                held, size = [], 0
    if held:
        pass_on()


def _joined_records(by_line: str, quote: str) -> str:
    """Join physical lines into records where a quoted value runs over a line end.

    A record starts where the number of quotes before it, in its file, is even. A quote never closed swallows the rest
    of its file into one record, which is then malformed and kept as it came.
    """
    quotes = f"length(raw) - length(replace(raw, {literal(quote)}, ''))"
    return (
        f"WITH numbered AS ({by_line}), "
        f"counted AS (SELECT *, coalesce(sum({quotes}) OVER (PARTITION BY file_id ORDER BY line "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) % 2 AS open FROM numbered), "
        "grouped AS (SELECT *, sum(1 - open) OVER (PARTITION BY file_id ORDER BY line) AS record FROM counted) "
        "SELECT min(row_id) AS row_id, file_id, batch_no, min(line) AS line, CASE WHEN count(*) = 1 THEN "
        "any_value(raw) ELSE string_agg(coalesce(raw, ''), chr(10) ORDER BY line) END AS raw "
        "FROM grouped GROUP BY file_id, batch_no, record"
    )


def keep_lines(con: duckdb.DuckDBPyConnection, row_ids: str) -> None:
    """Forget all lines but those of the records the query `row_ids` names; `records` then holds no others of text."""
    if not con.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'lines' AND temporary").fetchone():
        return
    con.execute(f"CREATE OR REPLACE TEMP TABLE kept_lines AS SELECT * FROM lines WHERE row_id IN ({row_ids})")
    con.execute("CREATE OR REPLACE TEMP VIEW lines AS SELECT * FROM kept_lines")
    con.execute("DROP TABLE IF EXISTS temp.raw_lines")
    con.execute("DROP TABLE IF EXISTS temp.joined_lines")
