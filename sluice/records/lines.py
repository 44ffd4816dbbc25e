"""Files of text as the view `lines`: a row per line, or per record where a quoted value runs over line ends.

Taking a line apart belongs to `csv_lines` and `json_lines`.
"""

from __future__ import annotations

from dataclasses import astuple

import duckdb

from sluice.contracts import Contract
from sluice.errors import BooksDoNotBalanceError
from sluice.lake import literal, temp_table
from sluice.preflight import KEPT_BYTES, UNIT_SEPARATOR
from sluice.records.shape import SourceFile, no_glob

# Bytes of bad lines that Python and JSON hold at once, and what one costs besides its own.
_BAD_LINES_AT_ONCE = 8 * 1024 * 1024
_BAD_LINE_OVERHEAD = 500

# Lines that are joined to one record. Each takes 100 bytes of memory besides its own, of which DuckDB's limit knows
# nothing: 26 million short lines behind an open quote took 3.4 GB.
MOST_JOINED = 1_000_000


def load_lines(con: duckdb.DuckDBPyConnection, files: list[SourceFile], contract: Contract) -> None:
    """Read all lines into the view `lines(row_id, file_id, batch_no, line, raw)`; check their number.

    Unreadable ones go to `taken_records`.
    """
    joins = [contract.landing.csv.multiline and f.inspected.file.format == "csv" for f in files]
    temp_table(
        con,
        "line_files",
        "file_index BIGINT, file_id INTEGER, batch_no INTEGER, path VARCHAR, lines BIGINT, joins BOOLEAN",
        [
            (index, f.file_id, f.batch_no, str(f.inspected.readable), f.inspected.lines, joins[index])
            for index, f in enumerate(files)
        ],
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
    if any(joins):
        _join_lines(con, by_line, contract.landing.csv.quote)
        by_line = "SELECT row_id, file_id, batch_no, line, raw FROM joined_lines"
    con.execute(f"CREATE OR REPLACE TEMP VIEW lines AS {by_line}")
    _take_bad_lines(con, files)


def _take_bad_lines(con: duckdb.DuckDBPyConnection, files: list[SourceFile]) -> None:
    """Lines that are no text into `taken_records`, some megabytes at a time: a file may have any number of them."""
    held: list[tuple[object, ...]] = []
    size = 0

    def pass_on() -> None:
        columns = "file_id INTEGER, line BIGINT, rule VARCHAR, detail VARCHAR, raw VARCHAR, digest VARCHAR"
        temp_table(con, "bad_lines", columns, held)
        con.execute(
            "INSERT INTO taken_records BY NAME SELECT b.file_id, s.batch_no, b.line, b.raw, 'base64' AS raw_encoding, "
            "b.digest, b.rule AS fault, b.detail AS fault_detail FROM bad_lines AS b "
            "JOIN line_spans AS s USING (file_id)"
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


def _join_lines(con: duckdb.DuckDBPyConnection, by_line: str, quote: str) -> None:
    """Make `joined_lines`: the physical lines, those joined over whose ends a quoted value runs.

    A record starts where the number of quotes before it, in its file, is even: the lines with an odd number open and
    close in turn. A quote never closed swallows the rest of its file into one record, which is then malformed and kept
    as it came. What is longer than `KEPT_BYTES` or `MOST_JOINED` lines goes to `taken_records`.
    """
    quotes = f"length(raw) - length(replace(raw, {literal(quote)}, ''))"
    odd = f"CASE WHEN contains(raw, {literal(quote)}) THEN ({quotes}) % 2 = 1 ELSE false END"
    con.execute(
        "CREATE OR REPLACE TEMP TABLE quoted_spans AS WITH odd AS (SELECT file_id, line, "
        f"row_number() OVER (PARTITION BY file_id ORDER BY line) AS nth FROM ({by_line}) "
        f"WHERE file_id IN (SELECT file_id FROM line_spans WHERE joins) AND {odd}) "
        "SELECT o.file_id, min(o.line) AS first, CASE WHEN count(*) = 2 THEN max(o.line) ELSE any_value(s.lines) END "
        "AS last FROM odd AS o JOIN line_spans AS s USING (file_id) GROUP BY o.file_id, (o.nth - 1) // 2"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE quoted_lines AS SELECT file_id, first, last, "
        f"unnest(range(first, least(last + 1, first + {MOST_JOINED}))) AS line FROM quoted_spans"
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE joined_lines AS WITH placed AS (SELECT l.*, q.first, q.last, "
        "strlen(coalesce(raw, '')) + 1 AS size, "
        "sum(size) OVER (PARTITION BY file_id, first ORDER BY line) AS size_so_far "
        f"FROM ({by_line}) AS l JOIN quoted_lines AS q USING (file_id, line)) "
        f"SELECT l.*, NULL::HUGEINT AS bytes, 1 AS lines FROM ({by_line}) AS l "
        "ANTI JOIN quoted_lines AS q ON q.file_id = l.file_id AND q.line = l.line "
        f"ANTI JOIN (FROM quoted_spans WHERE last - first >= {MOST_JOINED}) AS q "
        "ON q.file_id = l.file_id AND l.line >= q.first AND l.line <= q.last "
        "UNION ALL BY NAME SELECT min(row_id) AS row_id, file_id, batch_no, first AS line, "
        f"string_agg(coalesce(raw, ''), chr(10) ORDER BY line) FILTER (size_so_far - 1 <= {KEPT_BYTES}) AS raw, "
        "sum(size) - 1 AS bytes, last - first + 1 AS lines FROM placed GROUP BY file_id, batch_no, first, last"
    )
    _take_endless(con, by_line)
    con.execute("DROP TABLE raw_lines")


def _take_endless(con: duckdb.DuckDBPyConnection, by_line: str) -> None:
    """Records without end from `joined_lines` into `taken_records`: to take one apart would cost many times its size.

    Only the beginning is kept, so a digest of the whole tells one from others that begin alike.
    """
    endless = f"(bytes > {KEPT_BYTES} OR lines > {MOST_JOINED})"
    con.execute(
        "INSERT INTO taken_records BY NAME SELECT j.file_id, j.batch_no, j.line, base64(encode(j.raw)) AS raw, "
        "'base64' AS raw_encoding, d.digest, 'too_long' AS fault, format('{:,} lines behind a quote, as if it were "
        "never closed; at most {:,} lines and {:,} bytes are read, and those are kept here', lines, "
        f"{MOST_JOINED}, {KEPT_BYTES}) AS fault_detail FROM joined_lines AS j JOIN (SELECT q.file_id, q.first, "
        f"bit_xor(hash(l.line - q.first, l.raw))::VARCHAR AS digest FROM ({by_line}) AS l "
        f"JOIN (SELECT file_id, line AS first, line + lines AS stop FROM joined_lines WHERE {endless}) AS q "
        "ON q.file_id = l.file_id AND l.line >= q.first AND l.line < q.stop GROUP BY ALL) AS d "
        f"ON d.file_id = j.file_id AND d.first = j.line WHERE {endless}"
    )
    con.execute(f"DELETE FROM joined_lines WHERE {endless}")


def keep_lines(con: duckdb.DuckDBPyConnection, row_ids: str) -> None:
    """Forget all lines but those of the records the query `row_ids` names; `records` then holds no others of text."""
    if not con.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'lines' AND temporary").fetchone():
        return
    con.execute(f"CREATE OR REPLACE TEMP TABLE kept_lines AS SELECT * FROM lines WHERE row_id IN ({row_ids})")
    con.execute("CREATE OR REPLACE TEMP VIEW lines AS SELECT * FROM kept_lines")
    con.execute("DROP TABLE IF EXISTS temp.raw_lines")
    con.execute("DROP TABLE IF EXISTS temp.joined_lines")
