"""Rules: what text becomes which value, what breaks which rule, and that a row keeps every reason against it."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.contracts import Contract
from sluice.records import text_columns
from sluice.rules import broken, reasons, typed_columns, value, violations
from tests.conftest import MakeContract

Judge = Callable[..., list[tuple[bool, list[tuple[str, str, str | None]], dict[str, Any]]]]

FEED = {"envelope": "debezium", "sequence": "source.lsn", "validFrom": "source.ts_ms"}


@pytest.fixture(scope="module")
def judge(memory: duckdb.DuckDBPyConnection) -> Judge:
    """Judges rows of text under a contract's SQL: (rejected, (rule, column, value) of each reason, typed values)."""

    def run(contract: Contract, *rows: dict[str, str | None]) -> list[Any]:
        names = [c.name for c in text_columns(contract)]
        memory.execute(
            "CREATE OR REPLACE TEMP TABLE texts (n INTEGER"
            + "".join(f", {c.sql} VARCHAR" for c in text_columns(contract))
            + ")"
        )
        memory.executemany(
            f"INSERT INTO texts VALUES (?{', ?' * len(names)})",
            [[n, *(row.get(name) for name in names)] for n, row in enumerate(rows)],
        )
        columns = typed_columns(contract)
        rules = violations(contract)
        typed = ", ".join(f"{c.expression} AS {value(c.name)}" for c in columns)
        found = memory.execute(
            f"SELECT {broken(rules)}, {reasons(rules)}, {', '.join(value(c.name) for c in columns)} "
            f"FROM (SELECT *, {typed} FROM texts) ORDER BY n"
        ).fetchall()
        return [
            (
                bad,
                [(r["rule"], r["column"], r["value"]) for r in why],
                dict(zip([c.name for c in columns], values, strict=True)),
            )
            for bad, why, *values in found
        ]

    return run


GOOD: dict[str, list[tuple[str, Any]]] = {
    "INTEGER": [
        ("7", 7),
        ("+7", 7),
        ("-7", -7),
        ("007", 7),
        ("-0", 0),
        ("2147483647", 2147483647),
        ("-2147483648", -2147483648),
    ],
    "TINYINT": [("127", 127), ("-128", -128)],
    "SMALLINT": [("32767", 32767)],
    "BIGINT": [("9223372036854775807", 9223372036854775807)],
    "DECIMAL(38,0)": [("9" * 38, Decimal("9" * 38))],
    "DECIMAL(12,4)": [
        ("1.2345", Decimal("1.2345")),
        ("1.23450", Decimal("1.2345")),
        ("1.500000000000000000", Decimal("1.5")),
        ("-.5", Decimal("-0.5")),
        ("1.", Decimal(1)),
        ("+12", Decimal(12)),
        ("99999999.9999", Decimal("99999999.9999")),
    ],
    "DECIMAL(5,0)": [("99999", Decimal(99999)), ("1.000", Decimal(1))],
    "DOUBLE": [("1.5", 1.5), ("-1e3", -1000.0), (".5", 0.5), ("1.", 1.0), ("+1E-2", 0.01), ("0", 0.0)],
    "BOOLEAN": [("true", True), ("FALSE", False), ("1", True), ("0", False)],
    "DATE": [("2026-02-28", date(2026, 2, 28)), ("2024-02-29", date(2024, 2, 29))],
    "TIMESTAMP": [
        ("2026-01-01 10:00:00", datetime(2026, 1, 1, 10)),
        ("2026-01-01T10:00", datetime(2026, 1, 1, 10)),
        ("2026-01-01T10:00:00.123456", datetime(2026, 1, 1, 10, 0, 0, 123456)),
        ("2026-01-01T10:00:00Z", datetime(2026, 1, 1, 10)),
        ("2026-01-01T10:00:00+02:00", datetime(2026, 1, 1, 8)),
        ("2026-01-01 10:00:00-0530", datetime(2026, 1, 1, 15, 30)),
        ("2026-01-01 10:00:00+01", datetime(2026, 1, 1, 9)),
        ("2026-03-29 02:30:00", datetime(2026, 3, 29, 2, 30)),
        ("2025-12-31T23:30:00-01:00", datetime(2026, 1, 1, 0, 30)),
        # ISO 8601 writes the end of a day so.
        ("2026-01-01 24:00:00", datetime(2026, 1, 2)),
    ],
    "UUID": [("00000000-0000-0000-0000-00000000000a", UUID(int=10))],
    "VARCHAR": [(" x ", " x "), ("", ""), ("é茶", "é茶"), ("NULL", "NULL")],
}

BAD: dict[str, list[str]] = {
    "INTEGER": [
        "1.5",
        "1.0",
        "1e3",
        "1_000",
        "0x10",
        "٣",
        "１",
        " 7",
        "7 ",
        "2147483648",
        "-",
        "seven",
        "1,000",
        "--1",
    ],
    "TINYINT": ["128", "-129"],
    "BIGINT": ["9223372036854775808"],
    "DECIMAL(38,0)": ["1" + "0" * 38],
    "DECIMAL(12,4)": [
        "1.23456",
        "100000000",
        "1e3",
        "12,5",
        "1_000",
        "0x10",
        ".",
        "-",
        "nan",
        "inf",
        " 1",
        "£5",
        "1.2.3",
        "٣",
    ],
    "DECIMAL(5,0)": ["1.5", "100000"],
    "DOUBLE": [
        "nan",
        "NaN",
        "inf",
        "-inf",
        "infinity",
        "1e400",
        "1_000",
        " 1.5",
        "1.5 ",
        "0x10",
        "1e",
        ".",
        "1,5",
        "1.5f",
    ],
    "BOOLEAN": ["maybe", "2", " true", "on", "-1"],
    "DATE": [
        "2026-02-30",
        "2023-02-29",
        "2026-2-1",
        "26-02-01",
        "2026-02-01 ",
        "2026-02-01T00:00",
        "epoch",
        "infinity",
        "today",
        "01/02/2026",
    ],
    "TIMESTAMP": [
        "2026-02-30 10:00:00",
        "2026-01-01",
        "2026-01-01 25:00:00",
        "2026-01-01 24:00:01",
        "2026-01-01 23:60:00",
        "2026-01-01 23:59:60",
        "infinity",
        "-infinity",
        "epoch",
        "now",
        "yesterday",
        "2026-01-01T10:00:00 Z",
        "2026-01-01 10:00:00 Europe/Berlin",
        "2026-01-01T10:00:00+99:99",
        "2026-01-01T10:00:00+01:60",
        "1767261600",
        " 2026-01-01 10:00:00",
    ],
    "UUID": ["x", "00000000-0000-0000-0000-00000000000", "0000-00000000000000000000000000001"],
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_text_becomes_exactly_its_value(kind: str, make_contract: MakeContract, judge: Judge) -> None:
    contract = make_contract({"x": {"physicalType": kind}})
    found = judge(contract, *({"x": text} for text, _ in GOOD[kind]))
    assert [(bad, typed["x"]) for bad, _, typed in found] == [(False, expected) for _, expected in GOOD[kind]]


@pytest.mark.parametrize("kind", BAD)
def test_a_text_that_does_not_fit_exactly_is_rejected(kind: str, make_contract: MakeContract, judge: Judge) -> None:
    contract = make_contract({"x": {"physicalType": kind}})
    found = judge(contract, *({"x": text} for text in BAD[kind]))
    assert [why for _, why, _ in found] == [[("type", "x", text)] for text in BAD[kind]]
    assert [typed["x"] for *_, typed in found] == [None] * len(found)
    assert all(bad for bad, *_ in found)


@pytest.mark.parametrize("kind", [k for k in GOOD if k != "VARCHAR"])
def test_null_is_no_text_and_an_empty_text_is_no_value(kind: str, make_contract: MakeContract, judge: Judge) -> None:
    optional = judge(make_contract({"x": {"physicalType": kind}}), {"x": None}, {"x": ""})
    assert [why for _, why, _ in optional] == [[], [("type", "x", "")]]
    required = judge(make_contract({"x": {"physicalType": kind, "required": True}}), {"x": None}, {"x": ""})
    assert [why for _, why, _ in required] == [[("required", "x", None)], [("required", "x", "")]]


@pytest.mark.parametrize(
    ("kind", "form", "text", "expected"),
    [
        ("DATE", "%d.%m.%Y", "28.02.2026", date(2026, 2, 28)),
        ("DATE", "%d.%m.%Y", "30.02.2026", None),
        ("DATE", "%d.%m.%Y", "2026-02-28", None),
        ("TIMESTAMP", "%d/%m/%Y %H:%M", "01/02/2026 10:30", datetime(2026, 2, 1, 10, 30)),
        ("TIMESTAMP", "%d/%m/%Y %H:%M", "31/02/2026 10:30", None),
        ("TIMESTAMP", "%d/%m/%Y %H:%M", "2026-02-01 10:30:00", None),
    ],
)
def test_a_format_of_the_contract_is_the_only_one(
    kind: str, form: str, text: str, expected: Any, make_contract: MakeContract, judge: Judge
) -> None:
    contract = make_contract({"x": {"physicalType": kind, "logicalTypeOptions": {"format": form}}})
    ((bad, why, typed),) = judge(contract, {"x": text})
    assert (bad, typed["x"]) == (expected is None, expected)
    assert why == ([] if expected else [("type", "x", text)])


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(st.sampled_from("0123456789+-.eE_, x٣"), max_size=9), min_size=1, max_size=8))
def test_numbers_are_read_as_python_reads_them_or_not_at_all(
    texts: list[str], make_contract: MakeContract, judge: Judge
) -> None:
    columns = {"i": "INTEGER", "m": "DECIMAL(8,2)", "f": "DOUBLE"}
    contract = make_contract({n: {"physicalType": k} for n, k in columns.items()})
    for text, (_, why, typed) in zip(texts, judge(contract, *({"i": t, "m": t, "f": t} for t in texts)), strict=True):
        assert {column for _, column, _ in why} == {n for n in columns if typed[n] is None}
        if typed["i"] is not None:
            assert typed["i"] == int(text)
        if typed["m"] is not None:
            assert typed["m"] == Decimal(text)
        if typed["f"] is not None:
            assert typed["f"] == float(text) and math.isfinite(typed["f"])


RULES: dict[str, tuple[dict[str, Any], list[str | None], list[str], str]] = {
    "required": ({"required": True}, ["x", " "], ["", None], "required"),
    "primary key": ({"primaryKey": True}, ["x"], ["", None], "required"),
    "pattern": (
        {"logicalTypeOptions": {"pattern": r"^\d{5}$"}},
        ["12345", None],
        ["1234", "12345\n", "", "x12345"],
        "pattern",
    ),
    "pattern anywhere": ({"logicalTypeOptions": {"pattern": "b+"}}, ["abc"], ["ac"], "pattern"),
    "enum": (
        {
            "quality": [
                {
                    "name": "known",
                    "type": "library",
                    "metric": "invalidValues",
                    "arguments": {"validValues": ["a", "it's", 5]},
                    "mustBe": 0,
                }
            ]
        },
        ["a", "it's", "5", None],
        ["A", "a ", ""],
        "enum",
    ),
    "length": ({"logicalTypeOptions": {"minLength": 2}}, ["ab", "é茶", None], ["a", "", "🎉"], "min_length"),
    "longest": ({"logicalTypeOptions": {"maxLength": 2}}, ["ab", "é茶", "", None], ["abc"], "max_length"),
    "minimum": (
        {"physicalType": "INTEGER", "logicalTypeOptions": {"minimum": -1}},
        ["-1", "0", None],
        ["-2"],
        "minimum",
    ),
    "maximum": (
        {"physicalType": "DECIMAL(6,2)", "logicalTypeOptions": {"maximum": 9.99}},
        ["9.99", "-5"],
        ["10", "10.00"],
        "maximum",
    ),
    "exclusive minimum": (
        {"physicalType": "DECIMAL(6,2)", "logicalTypeOptions": {"exclusiveMinimum": 0}},
        ["0.01"],
        ["0", "0.00", "-1"],
        "minimum",
    ),
    "exclusive maximum": (
        {"physicalType": "INTEGER", "logicalTypeOptions": {"exclusiveMaximum": 10}},
        ["9"],
        ["10", "11"],
        "maximum",
    ),
    "earliest": (
        {"physicalType": "DATE", "logicalTypeOptions": {"minimum": "2026-01-01"}},
        ["2026-01-01"],
        ["2025-12-31"],
        "minimum",
    ),
    "row rule": (
        {
            "physicalType": "INTEGER",
            "quality": [{"name": "even", "type": "custom", "engine": "sluice", "implementation": "x % 2 = 0"}],
        },
        ["2", None],
        ["3"],
        "even",
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_takes_what_it_may_and_rejects_the_rest(name: str, make_contract: MakeContract, judge: Judge) -> None:
    column, good, bad, rule = RULES[name]
    contract = make_contract({"x": column})
    found = judge(contract, *({"x": text} for text in [*good, *bad]))
    assert [why for _, why, _ in found[: len(good)]] == [[]] * len(good)
    assert [why for _, why, _ in found[len(good) :]] == [[(rule, "x", text)] for text in bad]
    assert [rejected for rejected, *_ in found] == [False] * len(good) + [True] * len(bad)


def test_a_row_rule_sees_other_columns_but_not_its_own_text(make_contract: MakeContract, judge: Judge) -> None:
    rule = {"type": "custom", "engine": "sluice", "description": "Ends after it begins."}
    contract = make_contract(
        {
            "begin": {"physicalType": "DATE"},
            "end": {
                "physicalType": "DATE",
                "quality": [
                    {**rule, "name": "order", "implementation": "\"end\" >= begin OR begin = DATE '2000-01-01'"}
                ],
            },
            "kind": {"quality": [{**rule, "name": "kind", "implementation": "kind <> 'kind' AND length(kind) < 9"}]},
        }
    )
    found = judge(
        contract,
        {"begin": "2026-01-01", "end": "2026-01-01", "kind": "k"},
        {"begin": "2026-01-02", "end": "2026-01-01", "kind": "kind"},
        {"begin": None, "end": "2026-01-01", "kind": None},
    )
    assert [[rule for rule, *_ in why] for _, why, _ in found] == [[], ["order", "kind"], []]


def test_every_reason_is_kept(contracts: dict[str, Contract], judge: Judge) -> None:
    row = {
        "invoice": "53A1",
        "stock_code": "",
        "quantity": "0",
        "invoiced_at": "yesterday",
        "unit_price": "-4.95",
        "customer_id": "12",
        "country": None,
    }
    ((bad, why, _),) = judge(contracts["orders"], row)
    assert bad
    assert why == [
        ("pattern", "invoice", "53A1"),
        ("required", "stock_code", ""),
        ("type", "invoiced_at", "yesterday"),
        ("minimum", "unit_price", "-4.95"),
        ("pattern", "customer_id", "12"),
        ("required", "country", None),
        ("quantity_not_zero", "quantity", "0"),
    ]


def test_a_delete_event_needs_its_key_only(make_contract: MakeContract, judge: Judge) -> None:
    contract = make_contract(
        {
            "id": {"primaryKey": True, "logicalTypeOptions": {"pattern": r"^\d+$"}},
            "price": {
                "physicalType": "DECIMAL(6,2)",
                "required": True,
                "quality": [
                    {"name": "cheap", "type": "custom", "engine": "sluice", "implementation": "price < 5"},
                ],
            },
        },
        formats=["jsonl"],
        feed=FEED,
    )
    meta = {"_lsn": "5", "_source_ts": "1767261600123"}
    found = judge(
        contract,
        {**meta, "_op": "d", "id": "1"},
        {**meta, "_op": "d", "id": "1", "price": "99"},
        {**meta, "_op": "d"},
        {**meta, "_op": "d", "id": "x"},
        {**meta, "_op": "u", "id": "1"},
        {**meta, "_op": "u", "id": "1", "price": "99"},
        {**meta, "_op": "u", "id": "1", "price": "1.5"},
    )
    assert [[rule for rule, *_ in why] for _, why, _ in found] == [
        [],
        [],
        ["required"],
        ["pattern"],
        ["required"],
        ["cheap"],
        [],
    ]
    assert found[6][2] == {
        "_op": "u",
        "_lsn": 5,
        "_source_ts": datetime(2026, 1, 1, 10, 0, 0, 123000),
        "id": "1",
        "price": Decimal("1.50"),
    }


def test_a_truncate_has_an_operation_and_a_place(make_contract: MakeContract, judge: Judge) -> None:
    feed = {**FEED, "sequence": ["position.commit", "position.order"], "truncates": True}
    contract = make_contract({"id": {"primaryKey": True}, "price": {"required": True}}, formats=["jsonl"], feed=feed)
    good = {"_op": "t", "_lsn": "5", "_seq_2": "1", "_source_ts": "0"}
    found = judge(
        contract,
        good,
        # What is in no transaction has no place in one.
        {**good, "_seq_2": None},
        {**good, "_seq_2": "x"},
        {**good, "_lsn": None},
        {**good, "_op": "c"},
    )
    assert [[(rule, column) for rule, column, _ in why] for _, why, _ in found] == [
        [],
        [],
        [("type", "_seq_2")],
        [("required", "_lsn")],
        [("required", "id"), ("required", "price")],
    ]


def test_an_envelopes_own_values_are_checked(make_contract: MakeContract, judge: Judge) -> None:
    contract = make_contract({"id": {"primaryKey": True}}, formats=["jsonl"], feed=FEED)
    good = {"_op": "c", "_lsn": "5", "_source_ts": "0", "id": "1"}
    found = judge(
        contract,
        good,
        {**good, "_op": None},
        {**good, "_op": "x"},
        {**good, "_lsn": None},
        {**good, "_lsn": "5.0"},
        {**good, "_source_ts": None},
        {**good, "_source_ts": "2026-01-01"},
        # More milliseconds than a timestamp holds.
        {**good, "_source_ts": "9223372036854775807"},
    )
    assert [[(rule, column) for rule, column, _ in why] for _, why, _ in found] == [
        [],
        [("required", "_op")],
        [("enum", "_op")],
        [("required", "_lsn")],
        [("type", "_lsn")],
        [("required", "_source_ts")],
        [("type", "_source_ts")],
        [("type", "_source_ts")],
    ]


def test_names_and_values_with_quotes_do_not_break_the_sql(make_contract: MakeContract, judge: Judge) -> None:
    contract = make_contract({"select": {"logicalTypeOptions": {"pattern": '^it\'s "fine"$'}}, "order": {}})
    found = judge(contract, {"select": 'it\'s "fine"', "order": "'; DROP TABLE texts; --"}, {"select": "'"})
    assert [why for _, why, _ in found] == [[], [("pattern", "select", "'")]]
    assert found[0][2]["order"] == "'; DROP TABLE texts; --"
