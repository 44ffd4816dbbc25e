"""One line of a landing file: whose it is, and the line without the person. Pure.

A number like 15036 may be a customer in one column and a product in the next, so a line is taken apart by its contract
and only the columns that name the person, or hold personal data, are looked at. A line that cannot be taken apart is
blanked wherever the person's id or values stand in it.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sluice.erasure.json_text import Node, at_path, emptied, parse, scalars
from sluice.erasure.person import Person, Place
from sluice.erasure.spelling import BLANK, Finder, bytes_of, readable
from sluice.preflight import KEPT_BYTES
from sluice.records import lines
from sluice.records.json_paths import json_path, steps

# As ingest has it: a line ends at LF, CR LF or a lone CR, and at nothing else that looks like an end.
LINE_END = re.compile(r"\r\n|\n|\r")

# What decoding leaves of bytes that are no text (`surrogateescape`).
_NO_TEXT = re.compile("[\udc80-\udcff]")
# A byte that is nowhere in UTF-8: it says nothing of the letter that stood in its place.
_NO_LETTER = "\udcff"

Verdict = Literal["theirs", "unclear", "other"]


@dataclass(frozen=True)
class Line:
    """A line after the erasure, and what it was: theirs, unclear (no record, but the person stands in it), or other.

    `ends` are the line ends that went with values over lines. As blank lines, which are no records, they follow it, so
    that the lines after it keep their numbers.
    """

    verdict: Verdict
    text: str
    ends: str = ""


def without(place: Place, person: Person, text: str, form: str, header: Sequence[str] | None) -> Line:
    """A record without the person.

    Args:
        place: the source.
        person: who.
        text: of the record, without its line end.
        form: csv, jsonl or parquet; a row of Parquet, as the dead letters have it, is JSON.
        header: names of the fields of a CSV record.
    """
    if not may_hold(place, person, text, form):
        return Line("other", text)
    made = _csv(place, person, text, header or ()) if form == "csv" else _json(place, person, text, form)
    if made is None:
        blank = _blank(place, form)
        return Line("unclear", _masked(person.tokens, text, blank)) if person.is_in(text) else Line("other", text)
    if person.value_tokens is not None and person.is_in_by_value(made.text):
        # A value of the person in a record that does not name them, or outside its personal columns.
        return Line("theirs", _masked(person.value_tokens, made.text, _blank(place, form)), made.ends)
    return made


def may_hold(place: Place | None, person: Person, text: str, form: str) -> bool:
    """Whether a text is worth taking apart: a number has many forms, and JSON may write its digits as their codes."""
    if person.is_in(text):
        return True
    numeric = place is not None and place.numeric and person.number is not None
    return numeric and ((form != "csv" and "\\u" in text) or re.search(person.number_pattern, text) is not None)


def _is_read(text: str) -> bool:
    """Whether a record is taken apart when it is loaded: it is text, and not too long.

    One that is not becomes none that is, which would be a new row: what is taken out of it leaves as much behind.
    """
    size = len(bytes_of(text))
    return not _NO_TEXT.search(text) and size <= KEPT_BYTES and len(LINE_END.findall(text)) < lines.MOST_JOINED


def variants(place: Place, text: str, form: str) -> Iterator[str]:
    """The same record written in other ways, all of the same values: blanks in JSON, quotes around fields of CSV.

    Equal lines are duplicates, and lines that differed in nothing but the person must not become that. There is no end
    of those of JSON, and as many of CSV as there are sets of fields that can have quotes or do without.
    """
    if form != "csv":
        body, brace, rest = text.rpartition("}")
        for number in itertools.count(1):
            yield body + " " * number + brace + rest
    dialect = place.contract.landing.csv
    changes = []
    for start, end, value in _fields(text, dialect.delimiter, dialect.quote) or ():
        if value and dialect.quote not in value:
            if text[start:end] == value:
                changes.append((start, end, dialect.quote + value + dialect.quote))
            elif dialect.delimiter not in value and not LINE_END.search(value):
                changes.append((start, end, value))
    for count in range(1, len(changes) + 1):
        for chosen in itertools.combinations(changes, count):
            out = text
            for start, end, value in reversed(chosen):
                out = out[:start] + value + out[end:]
            yield out


def header_of(place: Place, line: str | None) -> list[str] | None:
    """The names in a CSV header, or those of the contract where files have none; None if it is no header."""
    dialect = place.contract.landing.csv
    if not dialect.header:
        return [c.source_name for c in place.contract.columns]
    if line is None:
        return None
    try:
        return next(csv.reader([LINE_END.sub("\n", line)], delimiter=dialect.delimiter, quotechar=dialect.quote))
    except (csv.Error, StopIteration):
        return None


def _masked(finder: Finder, text: str, blank: Callable[[str], str]) -> str:
    """A text with what is found in it blanked."""
    data, out, at = bytes_of(text), "", 0
    for start, end in finder.spans(data):
        before, found = (data[a:b].decode("utf-8", "surrogateescape") for a, b in ((at, start), (start, end)))
        out += before + blank(found)
        at = end
    return out + data[at:].decode("utf-8", "surrogateescape")


def _blank(place: Place, form: str) -> Callable[[str], str]:
    """What makes of a text as many bytes, with its line ends and, of CSV, its quotes; no text remains none."""
    quote = re.escape(place.contract.landing.csv.quote) if form == "csv" else ""
    ink = re.compile(f"[^\r\n{quote}\udc80-\udcff]+")
    in_utf8 = form != "csv" or place.contract.landing.csv.encoding == "utf-8"

    def blank(text: str) -> str:
        left = ink.sub(lambda match: BLANK.decode() * len(match.group().encode()), text)
        return _NO_TEXT.sub(_NO_LETTER, left) if in_utf8 else left

    return blank


def _csv(place: Place, person: Person, text: str, header: Sequence[str]) -> Line | None:
    dialect = place.contract.landing.csv
    fields = _fields(text, dialect.delimiter, dialect.quote)
    if fields is None or not header or len(fields) != len(header):
        return None
    ids = {c.source_name: c for c in place.ids}

    def names_them(name: str, value: str) -> bool:
        return name in ids and person.is_named(ids[name], readable(value))

    if not any(names_them(name, field[2]) for name, field in zip(header, fields, strict=True)):
        return Line("other", text)
    if place.about:
        return Line("theirs", "", "".join(LINE_END.findall(text)))
    known = {c.source_name for c in place.contract.columns}
    personal = {c.source_name for c in place.personal}
    out, ends, is_read, blank = text, "", _is_read(text), _blank(place, "csv")
    for name, (start, end, value) in reversed(list(zip(header, fields, strict=True))):
        # What the contract does not know may be anything.
        if names_them(name, value) or name in personal or name not in known:
            if is_read:
                ends = "".join(LINE_END.findall(out[start:end])) + ends
            out = out[:start] + ("" if is_read else blank(out[start:end])) + out[end:]
    return Line("theirs", out, ends)


def _fields(text: str, delimiter: str, quote: str) -> list[tuple[int, int, str]] | None:
    """Where each field stands (quotes included) and its value; None if a quote is left open or text follows one."""
    found = []
    at = 0
    d, q = re.escape(delimiter), re.escape(quote)
    # All of a field at once, never less of it: else what may be less is remembered, for each letter of a long one.
    field = re.compile(f"{q}((?:[^{q}]++|{q}{q})*+){q}|([^{d}{q}][^{d}]*+|)")
    while True:
        match = field.match(text, at)
        if match is None or (match.end() < len(text) and text[match.end()] != delimiter):
            return None
        value = match.group(2) if match.group(1) is None else match.group(1).replace(quote * 2, quote)
        found.append((match.start(), match.end(), value))
        if match.end() == len(text):
            return found
        at = match.end() + 1


def _json(place: Place, person: Person, text: str, form: str) -> Line | None:
    """A JSON line, its columns found by their whole paths, as they are when it is loaded."""
    document = parse(text)
    if document is None or document.kind != "object":
        return None
    # A column of Parquet has a name, whatever it looks like.
    paths = {
        c.name: [c.source_name] if form == "parquet" else steps(json_path(c.source_name))
        for c in place.contract.columns
    }
    images, taken = _images(place, document)
    gone: list[Node] = []
    for image in images:
        found = {name: at_path(image, path) for name, path in paths.items()}
        ids = [
            n for c in place.ids for n in found[c.name] if n.text is not None and person.is_named(c, readable(n.text))
        ]
        if not ids:
            continue
        if place.about and image is taken:
            return Line("theirs", "")
        gone += ids
        gone += [node for c in place.personal for node in found[c.name] if node.text is not None or node.members]
        # What the contract does not know may name them as well.
        known = [node for nodes in found.values() for node in nodes]
        gone += [n for n in scalars(image, known) if n.text is not None and person.is_in(n.text)]
    if not gone:
        return Line("other", text)
    blank = _blank(place, "jsonl")

    def as_long(value: str) -> str:
        return '"' + blank(value[1:-1]) + '"' if value.startswith('"') else blank(value)

    return Line("theirs", emptied(text, gone, None if _is_read(text) else as_long))


def _images(place: Place, document: Node) -> tuple[list[Node], Node | None]:
    """The states of a row a document holds, and the one of them that is loaded."""
    if place.contract.change_feed is None:
        return [document], document
    wrapped = at_path(document, ["payload"]) if at_path(document, ["schema"]) else []
    event = wrapped[0] if wrapped and wrapped[0].kind == "object" else document
    before, after = ([node for node in at_path(event, [name]) if node.kind == "object"] for name in ("before", "after"))
    if not before and not after:
        # A row of Parquet among the dead letters is no envelope.
        return [document], document
    deleted = [node.text for node in at_path(event, ["op"])] == ["d"]
    taken = before if deleted else after
    return [*before, *after], taken[0] if taken else None
