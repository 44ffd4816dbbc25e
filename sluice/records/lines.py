"""Files of text as the view `lines`: a row per line, or per record where a quoted value runs over line ends.

Taking a line apart belongs to `csv_lines` and `json_lines`.
"""

from __future__ import annotations

from dataclasses import astuple

import duckdb

from sluice.contracts import Contract
from sluice.errors import BooksDoNotBalanceError
from sluice.preflight import KEPT_BYTES, UNIT_SEPARATOR
from sluice.records.shape import SourceFile, no_glob
from sluice.sql import literal, temp_table

# Bytes of bad lines that Python and JSON hold at once, and what one costs besides its own.
_BAD_LINES_AT_ONCE = 8 * 1024 * 1024
_BAD_LINE_OVERHEAD = 500

# Lines that are joined to one record. Each takes 100 bytes of memory besides its own, of which DuckDB's limit knows
# nothing: 26 million short lines behind an open quote took 3.4 GB.
MOST_JOINED = 1_000_000

# Lines among which records are joined at once, by their bytes and what each costs besides: some 600,000 short ones. All
# at once, six million records of two lines each were more than fits into 1 GB.
_JOINED_AT_ONCE = 64 * 1024 * 1024
_JOINED_OVERHEAD = 100


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
    if any(joins) and _find_spans(con, contract.landing.csv.quote):
        _join_lines(con)
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


def _find_spans(con: duckdb.DuckDBPyConnection, quote: str) -> bool:
    """Make `quoted_spans` of the numbers of the first and the last line of each record over several; are there any?

    A record starts where the number of quotes before it, in its file, is even: the lines with an odd number open and
    close in turn. A quote never closed swallows the rest of its file into one record, which is then malformed and kept
    as it came.
    """
    quotes = f"length(line) - length(replace(line, {literal(quote)}, ''))"
    con.execute(
        "CREATE OR REPLACE TEMP TABLE odd_lines AS SELECT rowid AS row_id, file_index FROM raw_lines "
        f"WHERE CASE WHEN contains(line, {literal(quote)}) THEN ({quotes}) % 2 = 1 ELSE false END"
    )
    # They stand in order, too. A window without one sorts nothing: of 40 million it holds a block at a time.
    con.execute(
        "CREATE OR REPLACE TEMP TABLE quoted_spans AS SELECT o.row_id AS first, "
        "CASE WHEN next_file = file_index THEN next ELSE s.first_row + s.found - 1 END AS last FROM (SELECT *, "
        "rowid AS nth, lead(row_id) OVER () AS next, lead(file_index) OVER () AS next_file FROM odd_lines) AS o "
        "JOIN (SELECT file_index, min(rowid) AS first_nth FROM odd_lines GROUP BY file_index) AS f USING (file_index) "
        "JOIN line_spans AS s USING (file_index) WHERE s.joins AND (nth - first_nth) % 2 = 0"
    )
    con.execute("DROP TABLE odd_lines")
    return con.execute("SELECT 1 FROM quoted_spans LIMIT 1").fetchone() is not None


def _join_lines(con: duckdb.DuckDBPyConnection) -> None:
    """Make `joined_lines`: the physical lines, those of `quoted_spans` joined, a part of all lines at a time.

    What is longer than `KEPT_BYTES` or `MOST_JOINED` lines goes to `taken_records`.
    """
    # DuckDB skips the blocks of a table by what a column holds, not by `rowid`: each part would be a look at all lines.
    con.execute("CREATE OR REPLACE TEMP TABLE numbered_lines AS SELECT rowid AS row_id, * FROM raw_lines")
    con.execute("DROP TABLE raw_lines")
    con.execute(
        "CREATE OR REPLACE TEMP TABLE joined_lines "
        "(row_id BIGINT, file_id INTEGER, batch_no INTEGER, line BIGINT, raw VARCHAR)"
    )
    ends = con.execute(
        "SELECT 1000 * (max(thousand) + 1) FROM (SELECT thousand, sum(size) OVER (ORDER BY thousand) "
        f"// {_JOINED_AT_ONCE} AS part FROM (SELECT row_id // 1000 AS thousand, "
        f"sum(strlen(coalesce(line, '')) + {_JOINED_OVERHEAD}) AS size FROM numbered_lines GROUP BY ALL)) "
        "GROUP BY part ORDER BY 1"
    ).fetchall()
    start = 0
    for (end,) in ends:
        while start < end:
            last, long_first, long_last = con.execute(
                "SELECT coalesce(max(last), 0), min(first) FILTER (long), min(last) FILTER (long) FROM (SELECT *, "
                f"last - first >= {MOST_JOINED} AS long FROM quoted_spans WHERE first >= {start} AND first < {end})"
            ).fetchall()[0]
            # A part ends behind a whole record, or before one that has no end.
            if long_first is None:
                stop = max(end, last + 1)
                _join_part(con, start, stop)
            else:
                stop = long_last + 1
                if start < long_first:
                    _join_part(con, start, long_first)
                _take_endless(con, long_first, long_last)
            start = stop
    con.execute("DROP TABLE numbered_lines")
    con.execute("DROP TABLE quoted_spans")


def _join_part(con: duckdb.DuckDBPyConnection, start: int, stop: int) -> None:
    """Add the lines with numbers from `start` to below `stop` to `joined_lines`: whole records."""
    part = (
        "(SELECT row_id, s.file_id, s.batch_no, row_id - s.first_row + 1 AS line, r.line AS raw FROM numbered_lines "
        f"AS r JOIN line_spans AS s USING (file_index) WHERE row_id >= {start} AND row_id < {stop})"
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE quoted_lines AS SELECT first, last, unnest(range(first, last + 1)) AS row_id "
        f"FROM quoted_spans WHERE first >= {start} AND first < {stop}"
    )
    con.execute(f"INSERT INTO joined_lines FROM {part} ANTI JOIN quoted_lines USING (row_id)")
    endless = con.execute(
        "SELECT first, last FROM (SELECT first, last, sum(strlen(coalesce(raw, '')) + 1) - 1 AS bytes "
        f"FROM {part} JOIN quoted_lines USING (row_id) GROUP BY ALL) WHERE bytes > {KEPT_BYTES}"
    ).fetchall()
    for first, last in endless:
        _take_endless(con, first, last)
        con.execute(f"DELETE FROM quoted_lines WHERE first = {first}")
    # A list that is sorted when it is whole: an aggregate with an order of its own took four times as long.
    con.execute(
        "INSERT INTO joined_lines SELECT first, file_id, batch_no, min(line), array_to_string(list_transform("
        "list_sort(list({'row_id': row_id, 'raw': coalesce(raw, '')})), lambda x: x.raw), chr(10)) "
        f"FROM {part} JOIN quoted_lines USING (row_id) GROUP BY first, file_id, batch_no"
    )


def _take_endless(con: duckdb.DuckDBPyConnection, first: int, last: int) -> None:
    """A record without end into `taken_records`, by its lines' numbers: to take one apart costs many times its size.

    Only the beginning is kept, so a digest of the whole tells one from others that begin alike.
    """
    con.execute(
        "INSERT INTO taken_records BY NAME SELECT s.file_id, s.batch_no, $first - s.first_row + 1 AS line, "
        "base64(encode(k.raw)) AS raw, 'base64' AS raw_encoding, d.digest, 'too_long' AS fault, "
        "format('{:,} lines behind a quote, as if it were never closed; at most {:,} lines and {:,} bytes are read, "
        "and those are kept here', $last - $first + 1, $most, $kept) AS fault_detail FROM (SELECT "
        "any_value(file_index) AS file_index, bit_xor(hash(row_id - $first, line))::VARCHAR AS digest "
        "FROM numbered_lines WHERE row_id BETWEEN $first AND $last) AS d JOIN line_spans AS s USING (file_index), "
        "(SELECT string_agg(coalesce(line, ''), chr(10) ORDER BY row_id) AS raw FROM (SELECT *, "
        "sum(strlen(coalesce(line, '')) + 1) OVER (ORDER BY row_id) AS size_so_far FROM numbered_lines "
        "WHERE row_id BETWEEN $first AND least($last, $first + $most - 1)) WHERE size_so_far - 1 <= $kept) AS k",
        {"first": first, "last": last, "most": MOST_JOINED, "kept": KEPT_BYTES},
    )


def keep_lines(con: duckdb.DuckDBPyConnection, row_ids: str) -> None:
    """Forget all lines but those of the records the query `row_ids` names; `records` then holds no others of text."""
    if not con.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'lines' AND temporary").fetchone():
        return
    con.execute(f"CREATE OR REPLACE TEMP TABLE kept_lines AS SELECT * FROM lines WHERE row_id IN ({row_ids})")
    con.execute("CREATE OR REPLACE TEMP VIEW lines AS SELECT * FROM kept_lines")
    con.execute("DROP TABLE IF EXISTS temp.raw_lines")
    con.execute("DROP TABLE IF EXISTS temp.joined_lines")
