"""JSON documents, taken apart and written again with nothing lost: numbers keep their digits, keys their doubles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# DuckDB reads a JSON number with a point or an exponent as a double, which holds so many digits.
_DOUBLE_DIGITS = 15

# Rows are written level by level, two of Python's 1,000 frames for each, below those of whoever asked (Dagster: some
# 200). APIs nest ten levels; .NET's reader stops at 64 by itself.
MOST_LEVELS = 100


@dataclass(frozen=True)
class Number:
    """A number as it was written."""

    text: str


class Object(dict[str, Any]):
    """An object; `pairs` are its members as they came, a key that stood twice included."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def parse(body: bytes) -> Any:
    """The document in a body of UTF-8, UTF-16 or UTF-32.

    Raises:
        ValueError: it is no JSON, or not all of one.
        RecursionError: it is nested deeper than MOST_LEVELS.
    """
    document = json.loads(
        body, parse_int=Number, parse_float=Number, parse_constant=_no_number, object_pairs_hook=Object
    )
    level = [document]
    for _ in range(MOST_LEVELS):
        level = [member for value in level for member in _members(value) if isinstance(member, dict | list)]
        if not level:
            return document
    raise RecursionError(f"nested deeper than {MOST_LEVELS} levels")


def _members(value: Any) -> list[Any]:
    # Of a key that stood twice, both: `write` writes both.
    if isinstance(value, Object):
        return [member for _, member in value.pairs]
    return value if isinstance(value, list) else []


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def write(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Object):
        return "{" + ",".join(f"{_text(key)}:{write(member)}" for key, member in value.pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(write(member) for member in value) + "]"
    if isinstance(value, Number):
        return _text(value.text) if _too_long(value.text) else value.text
    if isinstance(value, str):
        return _text(value)
    return json.dumps(value)


def _text(value: str) -> str:
    written = json.dumps(value, ensure_ascii=False)
    try:
        written.encode()
    except UnicodeEncodeError:
        # Half of a pair of surrogates: no text, and for ingest to say so.
        return json.dumps(value)
    return written


def _too_long(number: str) -> bool:
    mantissa, _, exponent = number.lower().partition("e")
    digits = "".join(c for c in mantissa if c.isdigit()).lstrip("0")
    return ("." in mantissa or bool(exponent)) and len(digits) > _DOUBLE_DIGITS


def at(document: Any, path: Sequence[str]) -> Any:
    """What is at a path of keys; None where there is nothing."""
    for key in path:
        if not isinstance(document, dict):
            return None
        document = document.get(key)
    return document


def whole_number(value: Any) -> int | None:
    """A count in a document, written as a number or as text; None if it is none."""
    text = value.text if isinstance(value, Number) else value
    # No count has twenty digits, and Python refuses thousands of them.
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    return None
