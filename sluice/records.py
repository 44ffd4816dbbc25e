"""Turning landing files into records of text: one row per record, every contract column as text, nothing judged yet.

CSV, JSON lines and Parquet end in the same temporary view `records`, with the line or row number and the raw text.
Everything is SQL over all files at once; Python only looks at headers and file footers. What makes a value good or
bad belongs to `sluice.rules`.

Only the lines are stored. `records` takes them apart when it is read, so that a statement which needs no column does
not split, and no text is written that nobody keeps.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

import duckdb

from sluice.contracts import Contract
from sluice.errors import BooksDoNotBalanceError
from sluice.lake import literal, quoted, temp_table
from sluice.preflight import UNIT_SEPARATOR, Inspected

# Columns a change feed has besides the contract's own: name, SQL type, place in the envelope (None: from the contract).
OPERATION, SEQUENCE, SOURCE_TS = "_op", "_lsn", "_source_ts"


@dataclass(frozen=True)
class SourceFile:
    """A file of the chunk being ingested: its number in it, the batch it belongs to, and what its bytes said."""

    file_id: int
    batch_no: int
    inspected: Inspected


@dataclass(frozen=True)
class FileFault:
    """A file that is set aside as a whole: why, and for how many rows it stands in the books."""

    file_id: int
    rule: str
    detail: str
    rows: int
    column: str | None = None


@dataclass(frozen=True)
class TextColumn:
    """A column of `records`, named `t_<name>` there, and the name or JSON path it has in the files."""

    name: str
    source_name: str

    @property
    def sql(self) -> str:
        """Its quoted name in `records`."""
        return quoted(f"t_{self.name}")


def text_columns(contract: Contract) -> list[TextColumn]:
    """The text columns of `records`, change feed columns first."""
    columns = []
    if contract.change_feed:
        columns += [
            TextColumn(OPERATION, "op"),
            TextColumn(SEQUENCE, contract.change_feed.sequence),
            TextColumn(SOURCE_TS, contract.change_feed.valid_from),
        ]
    return columns + [TextColumn(c.name, c.source_name) for c in contract.columns]


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
        _load_lines(con, text, contract)
        found, select = _csv_records(con, contract, columns, [f for f in text if f.inspected.file.format == "csv"])
        faults += found
        selects += [
            select,
            _json_records(con, contract, columns, [f for f in text if f.inspected.file.format == "jsonl"]),
        ]
    faults += _insert_parquet(con, contract, columns, [f for f in readable if f.inspected.file.format == "parquet"])
    con.execute(f"CREATE OR REPLACE TEMP VIEW records AS {' UNION ALL BY NAME '.join(filter(None, selects))}")
    return faults


def keep_lines(con: duckdb.DuckDBPyConnection, row_ids: str) -> None:
    """Forget all lines but those of the records the query `row_ids` names; `records` then holds no others of text."""
    if not con.execute("SELECT 1 FROM duckdb_views() WHERE view_name = 'lines' AND temporary").fetchone():
        return
    con.execute(f"CREATE OR REPLACE TEMP TABLE kept_lines AS SELECT * FROM lines WHERE row_id IN ({row_ids})")
    con.execute("CREATE OR REPLACE TEMP VIEW lines AS SELECT * FROM kept_lines")
    con.execute("DROP TABLE IF EXISTS temp.raw_lines")
    con.execute("DROP TABLE IF EXISTS temp.joined_lines")


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


def _load_lines(con: duckdb.DuckDBPyConnection, files: list[SourceFile], contract: Contract) -> None:
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
        [[_no_glob(str(f.inspected.readable)) for f in files]],
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
    bad = [(f.file_id, b.line, b.rule, b.detail, b.raw_base64) for f in files for b in f.inspected.bad_lines]
    if bad:
        temp_table(con, "bad_lines", "file_id INTEGER, line BIGINT, rule VARCHAR, detail VARCHAR, raw VARCHAR", bad)
        con.execute(
            "INSERT INTO taken_records BY NAME SELECT b.file_id, s.batch_no, b.line, b.raw, 'base64' AS raw_encoding, "
            "b.rule AS fault, b.detail AS fault_detail FROM bad_lines AS b JOIN line_spans AS s USING (file_id)"
        )


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


@dataclass(frozen=True)
class _Layout:
    """Where a header puts the contract's columns (1-based; None where absent), and the columns it has besides."""

    positions: tuple[int | None, ...]
    width: int
    extra: tuple[tuple[str, int], ...]


def _csv_records(
    con: duckdb.DuckDBPyConnection, contract: Contract, columns: list[TextColumn], files: list[SourceFile]
) -> tuple[list[FileFault], str]:
    """The files set aside for their headers, and the query of the others' records; empty without any."""
    if not files:
        return [], ""
    dialect = contract.landing.csv
    faults: list[FileFault] = []
    names = [c.source_name for c in columns]
    layouts: dict[int, _Layout] = {}
    if dialect.header:
        headers = dict(con.execute("SELECT file_id, raw FROM lines WHERE line = 1").fetchall())
        for file in files:
            made = _layout(contract, columns, headers.get(file.file_id))
            if isinstance(made, _Layout):
                layouts[file.file_id] = made
            else:
                rule, column, detail = made
                faults.append(FileFault(file.file_id, rule, detail, _rows(con, file), column))
    else:
        layouts = {f.file_id: _Layout(tuple(range(1, len(names) + 1)), len(names), ()) for f in files}
    if faults:
        con.execute("DELETE FROM taken_records WHERE file_id IN (SELECT unnest(?))", [[f.file_id for f in faults]])
    if not layouts:
        return faults, ""
    places = ", ".join(f"p{i} INTEGER" for i in range(len(columns)))
    distinct = list(dict.fromkeys(layouts.values()))
    temp_table(
        con,
        "layouts",
        f"file_id INTEGER, layout INTEGER, width INTEGER, extra_names VARCHAR[], extra_places INTEGER[], {places}",
        [
            (file_id, distinct.index(y), y.width, [n for n, _ in y.extra], [p for _, p in y.extra], *y.positions)
            for file_id, y in layouts.items()
        ],
    )
    return faults, _split_csv(contract, columns)


def _rows(con: duckdb.DuckDBPyConnection, file: SourceFile) -> int:
    """How many rows a file with a header stands for in the books."""
    row = con.execute("SELECT count(raw) FROM lines WHERE line > 1 AND file_id = ?", [file.file_id]).fetchone()
    return (row[0] if row else 0) + len(file.inspected.bad_lines)


def _split_csv(contract: Contract, columns: list[TextColumn]) -> str:
    """The query that takes `lines` apart by `layouts`. An empty field is null, a quoted empty field an empty text.

    DuckDB computes a CASE row by row where its rows take different ways, and copies what each gives; with lists that
    cost as much as all the rest. So lines without quotes and those whose quotes only enclose whole fields (`simple`)
    go one way: the latter are written anew with fields apart by a character that is in no field. What is left
    (`special`: doubled quotes, empty quotes, quotes inside a field, broken ones) goes another, and a vector of
    2,048 lines that has none of it pays nothing for it.
    """
    dialect = contract.landing.csv
    delimiter, quote, apart = literal(dialect.delimiter), literal(dialect.quote), literal(UNIT_SEPARATOR)
    d, q = re.escape(dialect.delimiter), re.escape(dialect.quote)
    simple = f"(?:{q}[^{q}]+{q}|[^{d}{q}]*)"
    field = f"(?:{q}(?:[^{q}]|{q}{q})*{q}|[^{d}{q}][^{d}]*|)"
    # Between the first quote and the second, the third and the fourth, ... a delimiter is text.
    rewritten = (
        f"array_to_string(list_transform(string_split(raw, {quote}), lambda part, i: "
        f"CASE WHEN i % 2 = 1 THEN replace(part, {delimiter}, {apart}) ELSE part END), '')"
    )
    # A leading delimiter lets every field, an empty first one too, be found behind a delimiter.
    by_field = (
        f"list_transform(regexp_extract_all({delimiter} || raw, {literal(f'{d}({field})')}, 1), "
        f"lambda x: CASE WHEN starts_with(x, {quote}) THEN replace(x[2:-2], {quote} || {quote}, {quote}) "
        "ELSE nullif(x, '') END)"
    )

    def whole(pattern: str) -> str:
        return f"regexp_full_match(raw, {literal(f'{pattern}(?:{d}{pattern})*')})"

    def at(place: str) -> str:
        return f"CASE WHEN special THEN special_fields[{place}] ELSE nullif(fields[{place}], '') END"

    values = "".join(f", {at(f'p{i}')} AS {c.sql}" for i, c in enumerate(columns))
    return (
        "(WITH quoting AS (SELECT l.*, y.* EXCLUDE (file_id), "
        # CASE and not AND: an AND would match the expression on every line.
        f"CASE WHEN contains(raw, {quote}) THEN {whole(simple)} END AS simple "
        "FROM lines AS l JOIN layouts AS y USING (file_id) "
        f"WHERE raw IS NOT NULL{' AND line > 1' if dialect.header else ''}), "
        "ways AS (SELECT *, coalesce(NOT simple, false) AS special, coalesce(simple, false) AS rewrite FROM quoting), "
        f"split AS (SELECT *, CASE WHEN special THEN NOT {whole(field)} ELSE false END AS broken, "
        f"string_split(CASE WHEN rewrite THEN {rewritten} ELSE raw END, "
        f"CASE WHEN rewrite THEN {apart} ELSE {delimiter} END) AS fields, "
        f"CASE WHEN special THEN {by_field} END AS special_fields FROM ways), "
        "counted AS (SELECT *, CASE WHEN special THEN len(special_fields) ELSE len(fields) END AS found FROM split) "
        "SELECT row_id, file_id, batch_no, line, raw, 'utf-8' AS raw_encoding, layout, "
        "CASE WHEN broken OR found <> width THEN 'malformed' END AS fault, "
        "CASE WHEN broken THEN 'a quote is not closed, or text follows a closed one' "
        "WHEN found <> width THEN format('{} fields where the header has {}', found, width) END AS fault_detail, "
        "CASE WHEN len(extra_places) > 0 THEN to_json(map(extra_names, "
        f"list_transform(extra_places, lambda p: {at('p')})))::VARCHAR END AS extra{values} FROM counted)"
    )


def _layout(contract: Contract, columns: list[TextColumn], header: str | None) -> _Layout | tuple[str, str | None, str]:
    """Where a header puts each column, or the rule, column and detail for which the file is set aside."""
    dialect = contract.landing.csv
    if header is None:
        return "missing_header", None, "The first line is blank where the header is expected. Deliver it with a header."
    try:
        names = next(csv.reader([header], delimiter=dialect.delimiter, quotechar=dialect.quote))
    except csv.Error as error:
        return "malformed", None, f"The first line is no header ({error}). Deliver the file with a header."
    doubled = sorted({n for n in names if names.count(n) > 1})
    if doubled:
        return "malformed", doubled[0], f"The header names {doubled} twice. Deliver the file with each column once."
    known = [c.source_name for c in columns]
    for column in contract.columns:
        if column.required and column.source_name not in names:
            close = difflib.get_close_matches(column.source_name, [n for n in names if n not in known], n=1, cutoff=0.5)
            hint = f" Was it renamed to {close[0]!r}?" if close else ""
            return (
                "missing_column",
                column.name,
                f"The header has no {column.source_name!r}, which the contract requires.{hint} "
                "Mend the export or the contract.",
            )
    positions = tuple(names.index(n) + 1 if n in names else None for n in known)
    return _Layout(positions, len(names), tuple((n, i + 1) for i, n in enumerate(names) if n not in known))


def _json_records(
    con: duckdb.DuckDBPyConnection, contract: Contract, columns: list[TextColumn], files: list[SourceFile]
) -> str:
    """The query of the records of JSON lines; empty without any."""
    if not files:
        return ""
    temp_table(con, "json_files", "file_id INTEGER", [(f.file_id,) for f in files])
    own = columns[3:] if contract.change_feed else columns
    paths = [json_path(c.source_name) for c in own]
    known = [c.source_name for c in own]
    # CASE and not AND: DuckDB may evaluate both sides of an AND, and json_type raises on what is no JSON.
    valid = "CASE WHEN json_valid(raw) THEN json_type(raw) = 'OBJECT' ELSE false END"
    if contract.change_feed:
        meta = [json_path(c.source_name, nested=True) for c in columns[:3]]
        # A converter may wrap the event as {schema, payload}. A delete's image is what was there before it.
        events = (
            "events AS (SELECT *, CASE WHEN valid THEN CASE WHEN json_exists(raw, '$.payload') AND json_exists(raw, "
            "'$.schema') THEN json_extract(raw, '$.payload') ELSE raw::JSON END END AS event FROM docs), "
            f"imaged AS (SELECT *, json_extract_string(event, {_sql_list(meta)}) AS meta, "
            "nullif(json_extract(event, '$.before'), 'null') AS before, "
            "nullif(json_extract(event, '$.after'), 'null') AS after FROM events), "
            "taken AS (SELECT *, CASE WHEN meta[1] = 'd' THEN before ELSE after END AS doc FROM imaged)"
        )
        fault = (
            "CASE WHEN NOT valid THEN 'malformed' "
            "WHEN meta[1] = 'd' AND after IS NOT NULL THEN 'envelope' "
            "WHEN meta[1] IN ('c', 'u', 'r', 'd') AND coalesce(json_type(doc), 'NULL') <> 'OBJECT' THEN 'envelope' END"
        )
        detail = (
            "CASE WHEN NOT valid THEN 'not a JSON object' "
            "WHEN meta[1] = 'd' AND after IS NOT NULL THEN 'a delete with a state after it' "
            "WHEN meta[1] = 'd' AND doc IS NULL THEN 'a delete without the row before it (is REPLICA IDENTITY set?)' "
            "WHEN meta[1] IN ('c', 'u', 'r', 'd') AND coalesce(json_type(doc), 'NULL') <> 'OBJECT' "
            "THEN 'no row state where the operation needs one' END"
        )
        values = "".join(f", meta[{i + 1}] AS {c.sql}" for i, c in enumerate(columns[:3]))
    else:
        events = "taken AS (SELECT *, CASE WHEN valid THEN raw::JSON END AS doc FROM docs)"
        fault = "CASE WHEN NOT valid THEN 'malformed' END"
        detail = "CASE WHEN NOT valid THEN 'not a JSON object' END"
        values = ""
    values += "".join(f", fields[{i + 1}] AS {c.sql}" for i, c in enumerate(own))
    return (
        f"(WITH docs AS (SELECT l.*, {valid} AS valid FROM lines AS l JOIN json_files USING (file_id) "
        f"WHERE raw IS NOT NULL), {events}, "
        f"split AS (SELECT *, json_extract_string(doc, {_sql_list(paths)}) AS fields, "
        "CASE WHEN json_type(doc) = 'OBJECT' THEN "
        f"list_filter(json_keys(doc), lambda k: k NOT IN ({', '.join(map(literal, known))})) END AS others FROM taken) "
        f"SELECT row_id, file_id, batch_no, line, raw, 'utf-8' AS raw_encoding, 0 AS layout, {fault} AS fault, "
        f"{detail} AS fault_detail, "
        "CASE WHEN len(others) > 0 THEN to_json(map_from_entries(list_transform(list_distinct(others), "
        "lambda k: (k, json_extract(doc, '/' || replace(replace(k, '~', '~0'), '/', '~1'))))))::VARCHAR END AS extra"
        f"{values} FROM split)"
    )


def json_path(name: str, *, nested: bool = False) -> str:
    """JSON path of a column: a name as it stands, a `$…` path itself, with `nested` a dotted name taken apart."""
    if name.startswith("$"):
        return name
    parts = name.split(".") if nested else [name]
    return "$" + "".join("." + json.dumps(part, ensure_ascii=False) for part in parts)


def _insert_parquet(
    con: duckdb.DuckDBPyConnection, contract: Contract, columns: list[TextColumn], files: list[SourceFile]
) -> list[FileFault]:
    """Parquet files, those of one set of columns in one statement; a broken one is set aside alone."""
    faults: list[FileFault] = []
    shapes: dict[tuple[str, ...], list[SourceFile]] = {}
    for file in files:
        try:
            described = con.execute(
                "SELECT column_name FROM (DESCRIBE SELECT * FROM read_parquet(?, hive_partitioning = false))",
                [_no_glob(str(file.inspected.readable))],
            ).fetchall()
            shapes.setdefault(tuple(name for (name,) in described), []).append(file)
        except duckdb.Error as error:
            faults.append(_broken_parquet(file, error))
    for names, group in shapes.items():
        header = _layout_of_names(contract, list(names))
        if header is not None:
            rule, column, detail = header
            for file in group:
                count = con.execute(
                    "SELECT count(*) FROM read_parquet(?)", [_no_glob(str(file.inspected.readable))]
                ).fetchone()
                faults.append(FileFault(file.file_id, rule, detail, max(count[0] if count else 0, 1), column))
            continue
        try:
            _insert_parquet_group(con, columns, names, group)
        except duckdb.Error:
            for file in group:
                try:
                    _insert_parquet_group(con, columns, names, [file])
                except duckdb.Error as error:
                    faults.append(_broken_parquet(file, error))
    return faults


def _broken_parquet(file: SourceFile, error: duckdb.Error) -> FileFault:
    said = str(error).splitlines()[0]
    return FileFault(
        file.file_id,
        "unreadable_file",
        f"The file cannot be read ({said}). Deliver it again under the same name.",
        rows=1,
    )


def _layout_of_names(contract: Contract, names: list[str]) -> tuple[str, str | None, str] | None:
    for column in contract.columns:
        if column.required and column.source_name not in names:
            close = difflib.get_close_matches(column.source_name, names, n=1, cutoff=0.5)
            hint = f" Was it renamed to {close[0]!r}?" if close else ""
            detail = f"The file has no column {column.source_name!r}, which the contract requires.{hint}"
            return "missing_column", column.name, detail + " Mend the export or the contract."
    return None


def _insert_parquet_group(
    con: duckdb.DuckDBPyConnection, columns: list[TextColumn], names: Iterable[str], group: list[SourceFile]
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
    known = {c.source_name for c in columns}
    others = [n for n in present if n not in known]
    extra = "NULL"
    if others:
        extra = "to_json({" + ", ".join(f"{literal(n)}: p.{quoted(n)}" for n in others) + "})::VARCHAR"
    # As text: JSON's numbers would round the widest ones, and two different rows would look like twins.
    whole = "to_json({" + ", ".join(f"{literal(n)}: p.{quoted(n)}::VARCHAR" for n in present) + "})::VARCHAR"
    con.execute(
        "INSERT INTO taken_records BY NAME SELECT f.file_id, f.batch_no, p.file_row_number + 1 AS line, "
        f"{whole} AS raw, 'utf-8' AS raw_encoding, NULL AS fault, NULL AS fault_detail, {extra} AS extra{values} "
        "FROM read_parquet(?, filename = '_sluice_path', file_row_number = true, hive_partitioning = false) AS p "
        "JOIN parquet_files AS f ON f.path = p._sluice_path",
        [[_no_glob(str(f.inspected.readable)) for f in group]],
    )


def _sql_list(texts: list[str]) -> str:
    return "[" + ", ".join(map(literal, texts)) + "]"


def _no_glob(path: str) -> str:
    """A path that DuckDB's file functions take literally."""
    return re.sub(r"([*?\[])", r"[\1]", path)
