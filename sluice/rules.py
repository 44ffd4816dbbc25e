"""From a contract to SQL: how a text becomes a typed value, and what makes a row a dead letter.

Pure: takes a contract, gives SQL text. Each rule stands once, as a condition that is true for a violating row; both
the quick yes or no over all rows and the reasons of the rejected ones are made from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from sluice import encodings
from sluice.contracts import Column, Contract
from sluice.errors import ContractError
from sluice.records import OPERATION, SEQUENCE, SOURCE_TS, further_sequence, json_path, steps
from sluice.sql import literal, quoted

_WHOLE = frozenset(["TINYINT", "SMALLINT", "INTEGER", "BIGINT"])

# ISO 8601 with a T or a blank; DuckDB's own cast would also take 'epoch', 'infinity' and drop a zone's offset.
_ISO_LOCAL = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.]\d{1,6}0*)?)?"
_ISO_ZONE = r"(Z|[+-](0\d|1[0-8])(:?[0-5]\d)?)"

# DuckDB's own cast would also take blanks around a number and underscores in it.
_DECIMAL_OR_E = r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"


_NO_NUMBER = "; text, as of SQL Server's LSNs and MySQL's binlog files, is not read: docs/contracts.md has what is"


@dataclass(frozen=True)
class Violation:
    """A rule as SQL: `condition` is true for a row that breaks it (null counts as kept).

    Attributes:
        rule: its name.
        column: whose it is.
        condition: SQL.
        detail: what is said of a row that breaks it.
        severity: what it does.
        hint: SQL of what is said besides, null where there is nothing.
    """

    rule: str
    column: str
    condition: str
    detail: str
    severity: str = "quarantine"
    hint: str | None = None


@dataclass(frozen=True)
class TypedColumn:
    """A column of bronze that comes from the file: name, SQL type, and the SQL that makes its value from the text."""

    name: str
    type: str
    expression: str


def text(name: str) -> str:
    """The column of `records` that holds a column's text."""
    return quoted(f"t_{name}")


def value(name: str) -> str:
    """The column beside it that holds the typed value."""
    return quoted(f"v_{name}")


def typed_columns(contract: Contract) -> list[TypedColumn]:
    """The bronze columns that come from a file's content, change feed columns first."""
    columns = []
    if contract.change_feed:
        columns += [
            TypedColumn(OPERATION, "VARCHAR", text(OPERATION)),
            TypedColumn(SEQUENCE, "BIGINT", exact_cast("BIGINT", text(SEQUENCE))),
            # Debezium gives milliseconds since 1970, UTC. TRY: more of them than a timestamp holds is an error in SQL.
            TypedColumn(SOURCE_TS, "TIMESTAMP", f"TRY(epoch_ms({exact_cast('BIGINT', text(SOURCE_TS))}))"),
        ]
        for number in range(2, len(contract.change_feed.paths) + 1):
            name = further_sequence(number)
            columns.append(TypedColumn(name, "BIGINT", exact_cast("BIGINT", text(name))))
    return columns + [TypedColumn(c.name, c.type, exact_cast(c.type, text(c.name), c.format)) for c in contract.columns]


def exact_cast(kind: str, text: str, fmt: str | None = None) -> str:
    """SQL that casts `text` to `kind`, null where it does not fit exactly: nothing is rounded, guessed or trimmed."""
    if fmt and encodings.encoding(fmt):
        value_ = encodings.decoded(text, fmt)
        return encodings.once(value_, "d", exact_cast(kind, "d")) if kind.startswith("DECIMAL") else value_
    if kind == "VARCHAR":
        return text
    if kind in _WHOLE:
        return f"CASE WHEN regexp_full_match({text}, '[+-]?[0-9]+') THEN TRY_CAST({text} AS {kind}) END"
    if kind.startswith("DECIMAL"):
        scale = Column("", "", kind).scale
        # More places than the scale would be rounded: not for money.
        return (
            f"CASE WHEN regexp_full_match({text}, '[+-]?[0-9]*([.][0-9]{{0,{scale}}}0*)?') "
            f"THEN TRY_CAST({text} AS {kind}) END"
        )
    if kind == "TIMESTAMP":
        if fmt:
            return f"try_strptime({text}, {literal(fmt)})"
        # An offset is applied by way of TIMESTAMPTZ, the session's zone being UTC; that way costs seven times the plain
        # cast, so times without one do not take it.
        return (
            f"CASE WHEN regexp_full_match({text}, '{_ISO_LOCAL}') THEN TRY_CAST({text} AS TIMESTAMP) "
            f"WHEN regexp_full_match({text}, '{_ISO_LOCAL}{_ISO_ZONE}') "
            f"THEN TRY_CAST({text} AS TIMESTAMPTZ)::TIMESTAMP END"
        )
    if kind == "DATE":
        if fmt:
            return f"CAST(try_strptime({text}, {literal(fmt)}) AS DATE)"
        return f"CASE WHEN regexp_full_match({text}, '\\d{{4}}-\\d{{2}}-\\d{{2}}') THEN TRY_CAST({text} AS DATE) END"
    if kind == "DOUBLE":
        return (
            f"CASE WHEN regexp_full_match({text}, '{_DECIMAL_OR_E}') AND isfinite(TRY_CAST({text} AS DOUBLE)) "
            f"THEN TRY_CAST({text} AS DOUBLE) END"
        )
    return f"TRY_CAST({text} AS {kind})"


def violations(contract: Contract) -> list[Violation]:
    """Every rule of a contract, in the order of its columns, whatever a row that breaks it comes to."""
    found: list[Violation] = []
    whole_row = key_row = ""
    if contract.change_feed:
        operations = contract.change_feed.operations
        known = ", ".join(map(literal, operations))
        found += [
            Violation("required", OPERATION, f"{text(OPERATION)} IS NULL", "the envelope has no op"),
            Violation(
                "enum", OPERATION, f"{text(OPERATION)} NOT IN ({known})", f"must be one of {', '.join(operations)}"
            ),
        ]
        for name, path in ((SEQUENCE, contract.change_feed.sequence), (SOURCE_TS, contract.change_feed.valid_from)):
            source, typed = text(name), value(name)
            found += [
                Violation("required", name, f"{source} IS NULL", f"the envelope has no {path}"),
                Violation(
                    "type",
                    name,
                    f"{source} IS NOT NULL AND {typed} IS NULL",
                    f"{path} must be a whole number",
                    hint=f"CASE WHEN NOT regexp_full_match({source}, '[+-]?[0-9]+') THEN {literal(_NO_NUMBER)} END",
                ),
            ]
        # What is in no transaction, as a snapshot's rows, has no place in one.
        for number, path in enumerate(contract.change_feed.further, 2):
            name = further_sequence(number)
            wrong = f"{text(name)} IS NOT NULL AND {value(name)} IS NULL"
            found.append(Violation("type", name, wrong, f"{path} must be a whole number"))
        # History begins with the members' beginning of time, 1900; a year past 2100 is seconds taken for milliseconds.
        when = value(SOURCE_TS)
        found += [
            Violation("minimum", SOURCE_TS, f"{when} < TIMESTAMP '1900-01-01'", "must not lie before 1900"),
            Violation("maximum", SOURCE_TS, f"{when} >= TIMESTAMP '2100-01-01'", "must lie before 2100"),
        ]
        # A delete's image may hold the key alone: the other columns' rules are for states.
        whole_row = f"coalesce({text(OPERATION)}, '') <> 'd' AND "
        if contract.change_feed.truncates:
            # A truncate has neither key nor state.
            whole_row = f"coalesce({text(OPERATION)}, '') NOT IN ('d', 't') AND "
            key_row = f"coalesce({text(OPERATION)}, '') <> 't' AND "
    for column in contract.columns:
        only = key_row if column.primary_key else whole_row
        for violation in _column_violations(column):
            severity = column.severity(violation.rule)
            found.append(replace(violation, condition=f"{only}({violation.condition})", severity=severity))
    for rule in contract.rules:
        condition = _over_values(rule.condition, contract)
        found.append(
            Violation(
                rule.name,
                rule.column,
                f"{whole_row}NOT ({condition})",
                rule.description or rule.condition,
                rule.severity,
            )
        )
    return found


def rejecting(contract: Contract) -> list[Violation]:
    """The rules that set a row aside: all but those that only warn."""
    return [v for v in violations(contract) if v.severity != "warn"]


def failing(contract: Contract) -> list[Violation]:
    """The rules that refuse the batch a row comes with."""
    return [v for v in violations(contract) if v.severity == "fail"]


def telling(contract: Contract) -> list[Violation]:
    """The rules that only warn."""
    return [v for v in violations(contract) if v.severity == "warn"]


def _column_violations(column: Column) -> list[Violation]:
    source, typed = text(column.name), value(column.name)
    found: list[Violation] = []

    def add(rule: str, condition: str, detail: str, hint: str | None = None) -> None:
        found.append(Violation(rule, column.name, condition, detail, hint=hint))

    if column.required or column.primary_key:
        add("required", f"{source} IS NULL OR {source} = ''", "must have a value")
    if column.type != "VARCHAR":
        fmt = f" written {column.format}" if column.format else ""
        add(
            "type",
            f"{source} IS NOT NULL AND {source} <> '' AND {typed} IS NULL",
            f"must be {column.type}{fmt}",
            _hint(column),
        )
        if not column.required:
            add("type", f"{source} = ''", f"must be {column.type}, not an empty text")
    if column.pattern is not None:
        add("pattern", f"NOT regexp_matches({source}, {literal(column.pattern)})", f"must match {column.pattern}")
    for rule, operator, bound, words in (
        ("minimum", "<", column.minimum, "at least"),
        ("maximum", ">", column.maximum, "at most"),
        ("minimum", "<=", column.exclusive_minimum, "more than"),
        ("maximum", ">=", column.exclusive_maximum, "less than"),
    ):
        if bound is not None:
            add(rule, f"{typed} {operator} {_bound(bound, column.type)}", f"must be {words} {bound}")
    if column.min_length is not None:
        add(
            "min_length",
            f"length({source}) < {int(column.min_length)}",
            f"must have {column.min_length} characters or more",
        )
    if column.max_length is not None:
        add(
            "max_length",
            f"length({source}) > {int(column.max_length)}",
            f"must have at most {column.max_length} characters",
        )
    if column.enum:
        values = ", ".join(map(literal, column.enum))
        add("enum", f"{source} NOT IN ({values})", f"must be one of {', '.join(column.enum)}")
    return found


def _hint(column: Column) -> str | None:
    """SQL of what a value that is no value of its column may be, null where nothing comes to mind."""
    source = text(column.name)
    if column.format is None and column.type in ("DATE", "TIMESTAMP"):
        named = [fmt for fmt, kind in encodings.ENCODINGS.items() if kind == column.type]
        looks, say = "'-?[0-9]+'", f"; if it is a count since 1970, set format to {' or '.join(named)}"
    elif column.format is None and column.type.startswith("DECIMAL"):
        looks = "'([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?|[{].*\"value\".*[}]'"
        say = "; if it is bytes in base 64, set format to decimal_base64:<scale>, or decimal.handling.mode to string"
    else:
        return None
    return f"CASE WHEN regexp_full_match({source}, {looks}) THEN {literal(say)} END"


def _bound(bound: Any, kind: str) -> str:
    return f"CAST({literal(str(bound))} AS {'VARCHAR' if kind == 'VARCHAR' else kind})"


def _over_values(condition: str, contract: Contract) -> str:
    """A contract's SQL condition with its column names, bare or in double quotes, bound to the typed values."""
    names = "|".join(map(re.escape, sorted((c.name for c in contract.columns), key=len, reverse=True)))
    pattern = re.compile(rf"""('(?:[^']|'')*')|(?<!\.)"({names})"|(?<![\w."])({names})(?![\w"(])""")
    return pattern.sub(lambda m: m.group(1) or value(m.group(2) or m.group(3)), condition)


def check_rules(contract: Contract) -> None:
    """Have DuckDB plan a contract's casts, rules and JSON paths over no rows.

    Raises:
        ContractError: a rule's SQL names no column, is no SQL, a pattern is none DuckDB can match, or a path in JSON
            lines none that leads to one value.
    """
    texts = ", ".join(f"NULL::VARCHAR AS {text(c.name)}" for c in typed_columns(contract))
    typed = ", ".join(f"{c.expression} AS {value(c.name)}" for c in typed_columns(contract))
    with duckdb.connect() as con:
        con.execute(f"CREATE TEMP TABLE typed AS SELECT *, {typed} FROM (SELECT {texts})")
        for rule in violations(contract):
            try:
                con.execute(f"SELECT ({rule.condition})::BOOLEAN FROM typed")
            except duckdb.Error as error:
                said = str(error).splitlines()[0]
                raise ContractError(
                    f"{contract.path}: the rule {rule.rule!r} of {rule.column} cannot be evaluated: {said}. "
                    "Conditions are DuckDB SQL over the contract's column names, patterns RE2."
                ) from error
        for column in contract.columns if "jsonl" in contract.landing.formats else ():
            path = json_path(column.source_name)
            try:
                steps(path)
                con.execute(f"SELECT json_extract_string('{{}}', [{literal(path)}])")
            except (ValueError, duckdb.Error) as error:
                said = str(error).splitlines()[0]
                raise ContractError(
                    f"{contract.path}: the physicalName {column.source_name!r} of {column.name} leads to no one value "
                    f"of JSON: {said}. Write it like $.device.ids[0], a key with other signs in double quotes."
                ) from error


def reasons(rules: list[Violation]) -> str:
    """SQL giving the list of every reason why a row is rejected."""
    parts = [
        f"CASE WHEN {v.condition} THEN {{'rule': {literal(v.rule)}, 'column': {literal(v.column)}, "
        f"'value': {text(v.column)}, 'detail': {_said(v)}}} END"
        for v in rules
    ]
    return f"list_filter([{', '.join(parts)}], lambda r: r IS NOT NULL)"


def _said(rule: Violation) -> str:
    return literal(rule.detail) if rule.hint is None else f"concat({literal(rule.detail)}, {rule.hint})"


def broken(rules: list[Violation]) -> str:
    """SQL that is true where a row breaks any rule."""
    # A rule that is null among others that are false makes null of the whole, one that is true makes it true.
    return f"coalesce({' OR '.join(f'({v.condition})' for v in rules)}, false)" if rules else "false"
