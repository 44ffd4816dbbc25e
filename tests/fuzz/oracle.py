"""What must become of a file: a naive reader in plain Python, line by line, written from docs/contracts.md.

It shares no code with the engine and reads only the delivered bytes. For every row it says where it must be, with
which values or which raw bytes; where the documentation leaves that open the verdict is UNSURE, and the row must be
somewhere.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.sources import Source
from tests.fuzz.values import ANY, BAD, GOOD, UNSURE, judge_value, milliseconds, typed

LONGEST_LINE = 1_900_000  # docs/contracts.md: `too_long`
MOST_NEW = 100  # docs/contracts.md: `too_many_columns`


@dataclass
class Row:
    """A row as the oracle sees it: its line, its bytes as they must stand in a dead letter, and its verdict."""

    line: int
    raw: str | bytes
    verdict: str
    values: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    layout: Any = 0


@dataclass
class Reading:
    """A whole file: its rows, or the rule by which it is set aside and the rows it stands for then.

    `rules` are the rules a set-aside file may have; `certain` is False where the file may be read or set aside.
    `new` are columns the contract does not know that a file read has for sure, `rumoured` those it may have: None if
    nobody can say.
    """

    rows: list[Row] = field(default_factory=list)
    rules: tuple[str, ...] = ()
    stands_for: int | None = 0
    certain: bool = True
    new: frozenset[str] = frozenset()
    rumoured: frozenset[str] | None = frozenset()


def read_file(source: Source, name: str, data: bytes) -> Reading:
    """Read a file of text as it must be read; of Parquet see `round`, which asks the file who it is."""
    if name.endswith(".gz"):
        unpacked = _gunzip(data)
        if unpacked is None:
            return Reading(rules=("unreadable_file",), stands_for=1)
        data, name = unpacked, name.removesuffix(".gz")
    if data in (b"", b"\xef\xbb\xbf"):
        return Reading(rules=("empty_file",), stands_for=0)
    kind = name.rpartition(".")[2]
    encoding = source.csv["encoding"] if kind == "csv" else "utf-8"
    lines = _lines(data, encoding)
    if kind == "csv":
        return _csv(source, lines)
    rows = [
        Row(n, text, *(_json_row(source, text) if not why else (BAD, {}, why)))
        for n, text, why in lines
        if text != "" or why
    ]
    return _with_keys(source, rows)


def _gunzip(data: bytes) -> bytes | None:
    """All members, zeros behind them allowed; None where it is no whole gzip file."""
    if not data:
        return b""
    out = []
    while data:
        decoder = zlib.decompressobj(31)
        try:
            out.append(decoder.decompress(data))
        except zlib.error:
            return None
        if not decoder.eof:
            return None
        data = decoder.unused_data.lstrip(b"\0")
    return b"".join(out)


def _lines(data: bytes, encoding: str) -> list[tuple[int, Any, str]]:
    """Number, text (bytes where it is none) and complaint of every line; lines end at LF, CR LF or CR."""
    found: list[tuple[int, Any, str]] = []
    for number, raw in enumerate(re.split(b"\r\n|\n|\r", data), 1):
        if len(raw) > LONGEST_LINE:
            found.append((number, raw, "too_long"))
            continue
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            found.append((number, raw, "encoding"))
            continue
        if "\x1f" in text:
            found.append((number, raw, "encoding"))
            continue
        if len(text.encode()) > LONGEST_LINE:
            found.append((number, raw, "too_long"))
            continue
        if number == 1 and encoding == "utf-8":
            text = text.removeprefix("\ufeff")
        found.append((number, text, ""))
    if found and found[-1][1] in ("", b"") and not found[-1][2]:
        found.pop()  # what follows the last line end is no line
    return found


# CSV


def split(text: str, delimiter: str, quote: str) -> list[str | None] | None:
    """The fields of a record: an empty one is None, a quoted empty one ''. None where a quote is not closed."""
    fields: list[str | None] = []
    at = 0
    while True:
        if text[at : at + 1] == quote:
            parts = []
            at += 1
            while True:
                end = text.find(quote, at)
                if end < 0:
                    return None
                parts.append(text[at:end])
                at = end + 1
                if text[at : at + 1] != quote:
                    break
                parts.append(quote)
                at += 1
            fields.append("".join(parts))
            if at < len(text) and text[at] != delimiter:
                return None
        else:
            end = text.find(delimiter, at)
            end = len(text) if end < 0 else end
            fields.append(text[at:end] or None)
            at = end
        if at >= len(text):
            return fields
        at += 1


def _csv(source: Source, lines: list[tuple[int, Any, str]]) -> Reading:
    dialect = source.csv
    delimiter, quote = dialect["delimiter"], dialect["quote"]
    columns = {spec.get("physicalName", name): (name, spec) for name, spec in source.columns.items()}
    torn = [why for _, _, why in lines if why]
    physical = len(lines)
    if dialect["multiline"]:
        if torn:
            return Reading(rules=(torn[0],), stands_for=max(len(lines) - 1, 1))
        lines = _joined(lines, quote)
    names: list[str | None] = list(columns)
    if dialect["header"]:
        first, lines = lines[:1], lines[1:]
        behind = sum(1 for _, text, why in lines if text != "" or why)
        if first and isinstance(first[0][1], str) and "\n" in first[0][1]:
            # What it has swallowed were rows, as likely as not.
            behind = max(physical - 1, 1)
        if not first or first[0][1] == "" or first[0][2]:
            # A header that is no text counts, too: nobody knows that it is none of the rows.
            why = first[0][2] if first else ""
            # Of one too long the beginning may be text, and is taken for the header.
            rules = {"": ("missing_header",), "encoding": ("encoding",), "too_long": ("too_long", "malformed")}[why]
            return Reading(rules=rules, stands_for=behind + bool(why))
        header = split(first[0][1], delimiter, quote)
        if "\0" in first[0][1]:
            return Reading(rules=("malformed",), stands_for=behind)
        # A header over several lines, where a quote of the rows' swallowed its end: no header, or without a column.
        if header is None or len(first[0][1]) > 100_000 or set(first[0][1]) & {"\r", "\n"}:
            return Reading(rules=("malformed", "missing_column"), stands_for=behind)
        names = [n or "" for n in header]
        if len(set(names)) < len(names):
            return Reading(rules=("malformed",), stands_for=behind)
        if any(spec.get("required") and n not in names for n, (_, spec) in columns.items()):
            return Reading(rules=("missing_column",), stands_for=behind)
        unknown = frozenset(names) - frozenset(columns)
        if source.evolution == "evolve" and len(unknown) > MOST_NEW:
            return Reading(rules=("too_many_columns",), stands_for=behind)
    rows = []
    for number, text, why in lines:
        if why:
            rows.append(Row(number, text, BAD, why=why))
            continue
        if text == "":
            continue
        if "\0" in text:
            rows.append(Row(number, text, BAD, why="encoding"))
            continue
        fields = split(text, delimiter, quote)
        if fields is None or len(fields) != len(names):
            rows.append(Row(number, text, BAD, why="malformed"))
            continue
        given = dict(zip(names, fields, strict=True))
        rows.append(Row(number, text, *_judged({n: given.get(s) for s, (n, _) in columns.items()}, source.columns)))
    for row in rows:
        row.layout = tuple(names)
    new = frozenset(n or "" for n in names) - frozenset(columns)
    return Reading(rows, new=new, rumoured=new)


def _joined(lines: list[tuple[int, Any, str]], quote: str) -> list[tuple[int, Any, str]]:
    """Records that run over lines: one begins where the number of quotes before it in the file is even."""
    joined: list[tuple[int, Any, str]] = []
    quotes = 0
    for number, text, why in lines:
        if quotes % 2:
            joined[-1] = (joined[-1][0], f"{joined[-1][1]}\n{text}", "")
        else:
            joined.append((number, text, why))
        quotes += text.count(quote)
    return joined


# JSON


class _Twice(ValueError):
    """An object names a key twice."""


class _Pairs(dict):  # type: ignore[type-arg]
    """An object, and whether one of its keys came twice."""

    twice = False


class _Number(str):
    """A JSON number with a point or an exponent, as it is written."""


class _Whole(str):
    """A JSON number without."""


def _object(pairs: list[tuple[str, Any]]) -> _Pairs:
    made = _Pairs(pairs)
    made.twice = len(made) < len(pairs)
    return made


def _no_constant(text: str) -> Any:
    raise ValueError(text)


def parse(text: str) -> tuple[str, Any]:
    """A JSON document by RFC 8259: GOOD and the object, BAD, or UNSURE where readers differ, and what some read."""
    try:
        made = _loads(text)
    except RecursionError:
        return UNSURE, None
    except ValueError:
        # A comma too many, and numbers that are none: the reader's liberty.
        liberty = re.search(r",\s*[}\]]|nan|inf", text, re.IGNORECASE)
        if not liberty or not text.lstrip(" \t").startswith("{"):
            return BAD, None
        try:
            return UNSURE, _loads(re.sub(r",(\s*[}\]])", r"\1", text))
        except (RecursionError, ValueError):
            return UNSURE, None
    if not isinstance(made, dict):
        return BAD, None
    if re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            json.dumps(made, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return BAD, None
        except RecursionError:
            return UNSURE, None
    return GOOD, made


def _loads(text: str) -> Any:
    return json.loads(
        text, object_pairs_hook=_object, parse_int=_Whole, parse_float=_Number, parse_constant=_no_constant
    )


def _text(value: Any) -> Any:
    """A JSON value as text."""
    if value is None:
        return None
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, _Number):
        plain = "e" not in value.lower() and len(value.replace("-", "").replace(".", "").strip("0")) <= 15
        return value if plain else _Loose(value)
    if isinstance(value, _Whole):
        return str(value) if value != "-0" else _Loose(value)
    return value if isinstance(value, str) else ANY


def _with_keys(source: Source, rows: list[Row]) -> Reading:
    """Documents, and the keys in them that the contract does not know."""
    known = {spec.get("physicalName", name) for name, spec in source.columns.items()}
    new: set[str] = set()
    rumoured: set[str] | None = set()
    for row in rows:
        verdict, document = parse(row.raw) if isinstance(row.raw, str) else (BAD, None)
        if verdict == UNSURE:
            rumoured = None
        if verdict != GOOD:
            continue
        images = [document]
        if source.feed:
            event = document["payload"] if "payload" in document and "schema" in document else document
            images = [event.get("before"), event.get("after")] if isinstance(event, dict) else []
        keys = set().union(*(set(i) for i in images if isinstance(i, dict))) - known
        if source.evolution == "evolve" and len(keys) > MOST_NEW:
            row.verdict, row.why = (BAD, "too many keys") if not source.feed else (UNSURE, "")
            continue
        if row.verdict == GOOD and not source.feed:
            new |= keys
        if rumoured is not None:
            rumoured |= keys
    return Reading(rows, new=frozenset(new), rumoured=None if rumoured is None else frozenset(rumoured))


class _Loose(str):
    """A number whose text is the reader's choice."""


def _holds_nul(value: Any) -> bool:
    """Whether a name or a text in a document has a character U+0000."""
    if isinstance(value, dict):
        return any(_holds_nul(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return any(map(_holds_nul, value))
    return isinstance(value, str) and "\0" in value


def _json_row(source: Source, text: str) -> tuple[str, dict[str, Any], str]:
    parsed, document = parse(text)
    if document is None:
        return parsed, {}, "malformed"
    if _holds_nul(document):
        return BAD, {}, "encoding"
    feed: dict[str, Any] = {}
    columns = source.columns
    verdicts = [parsed]
    if source.feed:
        event = document
        if "payload" in document and "schema" in document:
            event = document["payload"]
        if document.twice or getattr(event, "twice", False):
            return BAD, {}, "malformed"
        if not isinstance(event, dict):
            return BAD, {}, "no event"
        inner = event.get("source")
        inner = inner if isinstance(inner, dict) else {}
        if getattr(inner, "twice", False):
            return BAD, {}, "malformed"
        op = _text(event.get("op"))
        lsn, moment = _text(inner.get("lsn")), _text(inner.get("ts_ms"))
        # A moment of 0 is none: the connector did not know it.
        if op not in ("c", "u", "d", "r") or lsn in (None, ANY) or moment in (None, ANY, "0"):
            return BAD, {}, "envelope"
        for name, (verdict, value) in {"_lsn": typed("BIGINT", lsn), "_source_ts": milliseconds(moment)}.items():
            verdicts.append(verdict)
            feed[name] = value
        feed["_op"] = op
        document = event.get("before") if op == "d" else event.get("after")
        if not isinstance(document, dict) or (op == "d" and event.get("after") is not None):
            return BAD, {}, "envelope"
        if op == "d":  # only its key is judged; what is not a value of its column is none
            columns = {
                n: s if s.get("primaryKey") else {"physicalType": s.get("physicalType", "VARCHAR")}
                for n, s in columns.items()
            }
    if document.twice:
        return BAD, {}, "malformed"
    texts = {n: _text(document.get(s.get("physicalName", n))) for n, s in columns.items()}
    lenient = source.feed is not None and feed.get("_op") == "d"
    judged, values, why = _judged(texts, columns, lenient=lenient)
    return _worst([*verdicts, judged]), {**feed, **values}, why


def _judged(
    texts: dict[str, Any], columns: dict[str, dict[str, Any]], *, lenient: bool = False
) -> tuple[str, dict[str, Any], str]:
    verdicts, values, why = [GOOD], {}, ""
    for name, spec in columns.items():
        text = texts[name]
        verdict, value = judge_value(name, spec, text)
        if lenient and verdict == BAD and not spec.get("primaryKey"):
            verdict, value = GOOD, None
        if isinstance(text, _Loose) and verdict != BAD:
            verdict, value = UNSURE, ANY
        elif isinstance(text, _Loose):
            verdict = UNSURE
        if isinstance(text, _Number) and spec.get("physicalType", "VARCHAR") == "VARCHAR":
            value = ANY
            verdict = UNSURE if "logicalTypeOptions" in spec else verdict
        if verdict == BAD:
            why = why or name
        verdicts.append(verdict)
        values[name] = value
    return _worst(verdicts), values, why


def _worst(verdicts: list[str]) -> str:
    return BAD if BAD in verdicts else UNSURE if UNSURE in verdicts else GOOD
