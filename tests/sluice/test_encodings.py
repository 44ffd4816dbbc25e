"""Encodings: what a count of time, a decimal in bytes or bits are worth, held against Python's own."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice import encodings

Sql = Callable[[str], str]


def worth(con: duckdb.DuckDBPyConnection, sql: Sql, *texts: str | None) -> list[Any]:
    """What SQL makes of texts, each in a row of its own."""
    rows = con.execute(
        f"SELECT {sql('t')} FROM (SELECT unnest(?::VARCHAR[]) AS t, unnest(range(?)) AS n) ORDER BY n",
        [list(texts), len(texts)],
    ).fetchall()
    return [value for (value,) in rows]


def packed(number: int) -> str:
    """A whole number as Java's BigInteger has it, in base 64."""
    size = max(1, (number if number >= 0 else ~number).bit_length() // 8 + 1)
    return base64.b64encode(number.to_bytes(size, "big", signed=True)).decode()


DIGITS = 10**38 - 1


@settings(max_examples=40, deadline=None)
@given(
    numbers=st.lists(st.integers(-DIGITS, DIGITS) | st.integers(-300, 300), min_size=1, max_size=20),
    scale=st.integers(-10, 40),
)
def test_a_decimal_in_bytes_keeps_every_digit(
    numbers: list[int], scale: int, memory: duckdb.DuckDBPyConnection
) -> None:
    found = worth(memory, lambda t: encodings.decimal_text(t, str(scale)), *map(packed, numbers))
    exact = Context(prec=200)
    assert [Decimal(text) for text in found] == [exact.scaleb(Decimal(n), -scale) for n in numbers]
    brought = [json.dumps({"scale": scale, "value": packed(n)}) for n in numbers]
    assert worth(memory, encodings.scaled_decimal_text, *brought) == found


def test_what_is_no_decimal_in_bytes_is_null(memory: duckdb.DuckDBPyConnection) -> None:
    # Not base 64, without its padding, nothing, more than 16 bytes.
    texts = ["12.5", "AMg", "", packed(2**128), None]
    assert worth(memory, lambda t: encodings.decimal_text(t, "2"), *texts) == [None] * 5
    assert worth(memory, lambda t: encodings.decimal_text(t, "NULL"), packed(1)) == [None]
    assert worth(memory, lambda t: encodings.decimal_text(t, "128"), packed(1)) == [None]
    broken = ["{", '{"scale":2}', '{"value":"AQ=="}', '{"scale":"x","value":"AQ=="}', "7", None]
    assert worth(memory, encodings.scaled_decimal_text, *broken) == [None] * 6


@settings(max_examples=40, deadline=None)
@given(moment=st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)))
def test_a_count_of_time_is_the_moment_it_counts_to(moment: datetime, memory: duckdb.DuckDBPyConnection) -> None:
    since = moment - datetime(1970, 1, 1)
    micros = since // timedelta(microseconds=1)
    assert worth(memory, lambda t: encodings.decoded(t, "epoch_micros"), str(micros)) == [moment]
    whole = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    assert worth(memory, lambda t: encodings.decoded(t, "epoch_millis"), str(micros // 1000)) == [whole]
    assert worth(memory, lambda t: encodings.decoded(t, "epoch_seconds"), str(micros // 10**6)) == [
        moment.replace(microsecond=0)
    ]
    assert worth(memory, lambda t: encodings.decoded(t, "epoch_days"), str(since.days)) == [moment.date()]


@pytest.mark.parametrize(
    ("fmt", "text", "expected"),
    [
        ("epoch_days", "0", date(1970, 1, 1)),
        ("epoch_days", "-719162", date(1, 1, 1)),
        ("epoch_days", "-719163", None),
        ("epoch_days", "2932897", None),
        ("epoch_days", "2026-01-01", None),
        ("epoch_days", "1.5", None),
        ("epoch_days", "99999999999999999999", None),
        ("epoch_nanos", "1500", None),
        ("epoch_nanos", "-1000", datetime(1969, 12, 31, 23, 59, 59, 999999)),
        # What PostgreSQL's infinity comes as.
        ("epoch_micros", "9223372036825200000", None),
        ("epoch_millis", "-9223372036832400000", None),
    ],
)
def test_what_a_count_may_be(fmt: str, text: str, expected: Any, memory: duckdb.DuckDBPyConnection) -> None:
    assert worth(memory, lambda t: encodings.decoded(t, fmt), text) == [expected]


def test_a_time_of_day_may_be_negative_and_past_a_day(memory: duckdb.DuckDBPyConnection) -> None:
    texts = ["36803000000", "-1", "3020399000000", "52200123400", "9223372036854775807", "x"]
    assert worth(memory, lambda t: encodings.time_text(t, 10**6), *texts) == [
        "10:13:23",
        "-00:00:00.000001",
        "838:59:59",
        "14:30:00.1234",
        None,
        None,
    ]
    assert worth(memory, lambda t: encodings.time_text(t, 10**9), "36803000000001") == ["10:13:23.000000001"]


def test_bits_are_little_endian(memory: duckdb.DuckDBPyConnection) -> None:
    nine = base64.b64encode(bytes(9)).decode()
    texts = ["xwcAAAAAAAA=", "AQ==", "//////////8=", nine, "", "?"]
    assert worth(memory, encodings.bits_text, *texts) == ["1991", "1", str(2**64 - 1), None, None, None]


@pytest.mark.parametrize("fmt", ["epoch_days", "decimal_base64", "decimal_base64:2", "decimal_base64:-3"])
def test_a_format_is_known_by_its_name(fmt: str) -> None:
    assert encodings.encoding(fmt) == fmt.partition(":")[0]


@pytest.mark.parametrize("fmt", [None, "%Y", "epoch", "epoch_days:2", "decimal_base64:", "decimal_base64:200", 7])
def test_any_other_is_none_of_them(fmt: Any) -> None:
    assert encodings.encoding(fmt) is None
