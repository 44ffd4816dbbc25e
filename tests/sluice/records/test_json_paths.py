"""JSON paths: what their steps lead to is what DuckDB extracts by them."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.erasure.json_text import at_path, parse
from sluice.records.json_paths import Step, json_path, path_of, steps

KEYS = st.text(st.sampled_from("ab01*#-.[]\"\\ \n'$ä"), min_size=1, max_size=4).filter(lambda key: key != "*")
INDEXES = st.tuples(st.integers(0, 2), st.booleans()).filter(lambda step: step != (0, True))
WRITTEN = st.one_of(
    KEYS.map(lambda key: f".{key}"),
    KEYS.map(lambda key: f'."{key}"'),
    st.sampled_from(["[0]", "[1]", "[#-1]", "[-1]", "[-0]", "[#-0]", "[01]", "[#]", "[*]", "..a", ".*", '."a\\x"']),
)


def extracted(text: str, path: str) -> str | None:
    with duckdb.connect() as con:
        row = con.execute("SELECT json_extract_string(?, [?])[1]", [text, path]).fetchone()
    assert row is not None
    found: str | None = row[0]
    return found


def led_to(text: str, path: str) -> str | None:
    document = parse(text)
    assert document is not None
    found = at_path(document, steps(path))
    return found[0].text if found else None


def holding(path: list[Step], value: str) -> str:
    """A document with a value where a path leads to, and others beside it."""
    made: Any = value
    for step in reversed(path):
        if isinstance(step, str):
            made = {"other": "no", step: made}
        else:
            index, from_end = step
            beside: list[Any] = ["no"] * 3
            beside[-index if from_end else index] = made
            made = beside
    return json.dumps(made, ensure_ascii=False)


@settings(deadline=None)
@given(st.lists(st.one_of(KEYS, INDEXES), min_size=1, max_size=4))
def test_any_steps_make_a_path_that_leads_there(path: list[Step]) -> None:
    text = holding(path, "here")
    assert steps(path_of(path)) == path
    assert extracted(text, path_of(path)) == led_to(text, path_of(path)) == "here"


@settings(deadline=None)
@given(st.lists(WRITTEN, min_size=1, max_size=3).map(lambda parts: "$" + "".join(parts)))
def test_what_is_taken_for_a_path_leads_where_duckdb_goes(path: str) -> None:
    try:
        found = steps(path)
    except ValueError:
        return
    text = holding(found, "here")
    assert extracted(text, path) == led_to(text, path) == "here"


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("$", []),
        ("$.a.b", ["a", "b"]),
        ("$.a[-1]", ["a", (1, True)]),
        ("$.a[#-1]", ["a", (1, True)]),
        ("$.a[-0]", ["a", (0, False)]),
        ('$.a"b".c', ['a"b"', "c"]),
        ('$."a\\"b"', ['a"b']),
        ('$."a\\\\b"', ["a\\b"]),
        ('$."a\\b"', ["a\\b"]),
        ('$."\\u0061"', ["\\u0061"]),
        ('$."a.b"[0]', ["a.b", (0, False)]),
    ],
)
def test_steps(path: str, keys: list[Step]) -> None:
    assert steps(path) == keys


@pytest.mark.parametrize(
    "path", ["$.a[*]", "$..a", '$["a"]', "$.", "$a", '$."a', "$.*", '$."*"', "$.a[#]", "$.\0", '$.""']
)
def test_what_leads_to_no_one_value_has_no_steps(path: str) -> None:
    with pytest.raises(ValueError, match=r"not understood|every key|NUL"):
        steps(path)


def test_a_name_is_a_path_or_a_key() -> None:
    assert json_path("$.a.b") == "$.a.b"
    assert json_path("source.lsn", nested=True) == '$."source"."lsn"'
    assert json_path("source.lsn") == '$."source.lsn"'
    assert json_path("a\nb") == '$."a\nb"'
    assert path_of(["$.a"]) == '$."$.a"'
