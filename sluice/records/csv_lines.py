"""Lines of CSV as records: where each file's header puts the contract's columns, and the query that splits.

Reading the lines belongs to `lines`, what a field's text is worth to `sluice.rules`.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb

from sluice.contracts import Contract
from sluice.preflight import UNIT_SEPARATOR
from sluice.records.shape import NUL_DETAIL, TextColumn, misfit, note_columns
from sluice.sql import literal, temp_table

# Rule, column and detail for which a file is set aside.
Misfit = tuple[str, str | None, str]


@dataclass(frozen=True)
class _Layout:
    """Where a header puts the contract's columns (1-based; None where absent), and the columns it has besides."""

    positions: tuple[int | None, ...]
    width: int
    extra: tuple[tuple[str, int], ...]


def headers(con: duckdb.DuckDBPyConnection, file_ids: Sequence[int]) -> dict[int, str]:
    """The first line of each of these files in `lines` that has one; of one too long what was kept."""
    return dict(
        con.execute(
            "SELECT file_id, raw FROM lines WHERE line = 1 AND raw IS NOT NULL AND file_id IN (SELECT unnest($ids)) "
            "UNION ALL SELECT file_id, TRY(decode(from_base64(raw))) FROM taken_records WHERE line = 1 "
            "AND fault = 'too_long' AND file_id IN (SELECT unnest($ids)) AND TRY(decode(from_base64(raw))) IS NOT NULL",
            {"ids": list(file_ids)},
        ).fetchall()
    )


def csv_records(
    con: duckdb.DuckDBPyConnection, contract: Contract, columns: list[TextColumn], first_lines: Mapping[int, str | None]
) -> tuple[dict[int, Misfit], str]:
    """The query that takes the lines of CSV files apart; empty where no header fits.

    Args:
        con: with the view `lines` and the table `taken_records`.
        contract: of the files.
        columns: as `text_columns` gives them.
        first_lines: of each file by its number; of no account where the dialect has no headers.

    Returns:
        Of each file whose header does not fit why, and the query.
    """
    names = [c.source_name for c in columns]
    layouts: dict[int, _Layout] = {}
    misfits: dict[int, Misfit] = {}
    without = _without_header(con, [file_id for file_id, header in first_lines.items() if header is None])
    for file_id, header in first_lines.items():
        made: _Layout | Misfit
        if not contract.landing.csv.header:
            made = _Layout(tuple(range(1, len(names) + 1)), len(names), ())
        elif header is None:
            made = without[file_id]
        else:
            made = _layout(contract, columns, header)
        if isinstance(made, _Layout):
            layouts[file_id] = made
        else:
            misfits[file_id] = made
    if not layouts:
        return misfits, ""
    places = ", ".join(f"p{i} INTEGER" for i in range(len(columns)))
    distinct = list(dict.fromkeys(layouts.values()))

    def kept(layout: _Layout) -> tuple[tuple[str, int], ...]:
        return layout.extra if contract.schema_evolution == "evolve" else ()

    temp_table(
        con,
        "layouts",
        f"file_id INTEGER, layout INTEGER, width INTEGER, extra_names VARCHAR[], extra_places INTEGER[], {places}",
        [
            (file_id, distinct.index(y), y.width, [n for n, _ in kept(y)], [p for _, p in kept(y)], *y.positions)
            for file_id, y in layouts.items()
        ],
    )
    note_columns(
        con,
        [(file_id, name) for file_id, y in layouts.items() for name, _ in y.extra],
        [
            (file_id, name)
            for file_id, y in layouts.items()
            for name, at in zip(names, y.positions, strict=True)
            if not at
        ],
    )
    return misfits, _split_csv(contract, columns)


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
        "CASE WHEN contains(raw, chr(0)) THEN 'encoding' WHEN broken OR found <> width THEN 'malformed' END AS fault, "
        f"CASE WHEN contains(raw, chr(0)) THEN {literal(NUL_DETAIL)} "
        "WHEN broken THEN 'a quote is not closed, or text follows a closed one' "
        "WHEN found <> width THEN format('{} fields where the header has {}', found, width) END AS fault_detail, "
        "CASE WHEN len(extra_places) > 0 THEN to_json(map(extra_names, "
        f"list_transform(extra_places, lambda p: {at('p')})))::VARCHAR END AS extra{values} FROM counted)"
    )


def _without_header(con: duckdb.DuckDBPyConnection, file_ids: Sequence[int]) -> dict[int, Misfit]:
    """Of each of these files, which have no first line to read, why: it is blank, or no text."""
    blank = "The first line is blank where the header is expected. Deliver it with a header."
    found: dict[int, Misfit] = dict.fromkeys(file_ids, ("missing_header", None, blank))
    if found:
        for file_id, rule, detail in con.execute(
            "SELECT file_id, fault, fault_detail FROM taken_records WHERE line = 1 AND file_id IN (SELECT unnest(?))",
            [list(file_ids)],
        ).fetchall():
            found[file_id] = rule, None, f"The first line cannot be read: {detail}. Deliver it with a header of text."
    return found


def _layout(contract: Contract, columns: list[TextColumn], header: str) -> _Layout | Misfit:
    """Where a header puts each column, or the rule, column and detail for which the file is set aside."""
    dialect = contract.landing.csv
    if "\0" in header:
        return "malformed", None, f"The first line {NUL_DETAIL}. Deliver the file with a header of text."
    try:
        names = next(csv.reader([header], delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True))
    except csv.Error as error:
        return "malformed", None, f"The first line is no header ({error}). Deliver the file with a header."
    doubled = sorted(n for n, times in Counter(names).items() if times > 1)
    if doubled:
        return "malformed", doubled[0], f"The header names {doubled} twice. Deliver the file with each column once."
    known = [c.source_name for c in columns]
    unfit = misfit(contract, names)
    if unfit is not None:
        return unfit
    positions = tuple(names.index(n) + 1 if n in names else None for n in known)
    return _Layout(positions, len(names), tuple((n, i + 1) for i, n in enumerate(names) if n not in known))
