"""One line of a landing file: whose it is, and the line without the person. Pure.

A number like 15036 may be a customer in one column and a product in the next, so a line is taken apart by its contract
and only the columns that name the person, or hold personal data, are looked at. A line that cannot be taken apart is
blanked wherever the person's id or values stand in it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sluice.erasure.person import Person, Place

Verdict = Literal["theirs", "unclear", "other"]


@dataclass(frozen=True)
class Line:
    """A line after the erasure, and what it was: theirs, unclear (no record, but the person stands in it), or other."""

    verdict: Verdict
    text: str


def without(place: Place, person: Person, text: str, form: str, header: Sequence[str] | None) -> Line:
    """A record without the person.

    Args:
        place: the source.
        person: who.
        text: of the record, without its line end.
        form: csv or jsonl; a row of Parquet among the dead letters is JSON, too.
        header: names of the fields of a CSV record.
    """
    if not may_hold(person, text, form):
        return Line("other", text)
    made = _csv(place, person, text, header or ()) if form == "csv" else _json(place, person, text)
    if made is None:
        return Line("unclear", _masked(person, text)) if person.is_in(text) else Line("other", text)
    if made.verdict == "theirs" and place.about:
        # A blank line is no record, and the lines after it keep their numbers.
        return Line("theirs", "\n" * text.count("\n"))
    values = person.value_pattern
    if values is not None and values.search(made.text.encode("utf-8", "surrogateescape")):
        # A value of the person in a record that does not name them, or outside its personal columns.
        return Line("theirs", _masked(Person(person.subject, *_apart(person)), made.text))
    return made


def may_hold(person: Person, text: str, form: str) -> bool:
    """Whether a text is worth taking apart: JSON may write any character as its code."""
    return person.is_in(text) or (form != "csv" and "\\u" in text)


def header_of(place: Place, line: str | None) -> list[str] | None:
    """The names in a CSV header, or those of the contract where files have none; None if it is no header."""
    dialect = place.contract.landing.csv
    if not dialect.header:
        return [c.source_name for c in place.contract.columns]
    if line is None:
        return None
    try:
        return next(csv.reader([line], delimiter=dialect.delimiter, quotechar=dialect.quote))
    except (csv.Error, StopIteration):
        return None


def _apart(person: Person) -> tuple[str, tuple[str, ...]]:
    return person.values[0], person.values[1:]


def _masked(person: Person, text: str) -> str:
    return person.mask(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def _csv(place: Place, person: Person, text: str, header: Sequence[str]) -> Line | None:
    dialect = place.contract.landing.csv
    fields = _fields(text, dialect.delimiter, dialect.quote)
    if fields is None or not header or len(fields) != len(header):
        return None
    ids = {c.source_name for c in place.ids}
    if not any(name in ids and field[2] == person.id for name, field in zip(header, fields, strict=True)):
        return Line("other", text)
    known = {c.source_name for c in place.contract.columns}
    emptied = ids | {c.source_name for c in place.personal}
    out = text
    for name, (start, end, value) in reversed(list(zip(header, fields, strict=True))):
        # What the contract does not know may be anything.
        if (name in emptied and (name not in ids or value == person.id)) or name not in known:
            out = out[:start] + out[end:]
    return Line("theirs", out)


def _fields(text: str, delimiter: str, quote: str) -> list[tuple[int, int, str]] | None:
    """Where each field stands (quotes included) and its value; None if a quote is left open or text follows one."""
    found = []
    at = 0
    d, q = re.escape(delimiter), re.escape(quote)
    field = re.compile(f"{q}((?:[^{q}]|{q}{q})*){q}|([^{d}{q}][^{d}]*|)")
    while True:
        match = field.match(text, at)
        if match is None or (match.end() < len(text) and text[match.end()] != delimiter):
            return None
        value = match.group(2) if match.group(1) is None else match.group(1).replace(quote * 2, quote)
        found.append((match.start(), match.end(), value))
        if match.end() == len(text):
            return found
        at = match.end() + 1


def _json(place: Place, person: Person, text: str) -> Line | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    if not isinstance(document, dict):
        return None
    ids = {_last(c.source_name) for c in place.ids}
    if not _names(document, ids, person.id):
        return Line("other", text)
    emptied = ids | {_last(c.source_name) for c in place.personal}
    out = text
    for key in sorted(emptied):
        # In the text, so that numbers keep the digits they were sent with.
        value = r'("(?:[^"\\]|\\.)*"|[^\s,}\]\[{"]+)'
        out = re.sub(rf"({re.escape(json.dumps(key))}\s*:\s*){value}", r"\1null", out)
    if _names(json.loads(out), ids, person.id):
        _empty(document, emptied)
        out = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return Line("theirs", out)


def _last(path: str) -> str:
    """The key a JSON path ends in."""
    return re.split(r"[.\[\]\"']+", path.strip("]\"'"))[-1]


def _names(value: Any, keys: set[str], wanted: str) -> bool:
    """Whether one of these keys, however deep, has this value."""
    if isinstance(value, dict):
        return any(
            (key in keys and not isinstance(item, dict | list) and str(item) == wanted) or _names(item, keys, wanted)
            for key, item in value.items()
        )
    return isinstance(value, list) and any(_names(item, keys, wanted) for item in value)


def _empty(value: Any, keys: set[str]) -> None:
    """Set these keys to null, however deep."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in keys:
                value[key] = None
            else:
                _empty(item, keys)
    elif isinstance(value, list):
        for item in value:
            _empty(item, keys)
