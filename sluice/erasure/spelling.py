"""Texts however they are written in CSV, JSON, logs and databases, found in bytes. Pure.

Whose texts they are belongs to `person`.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from mmap import mmap

from sluice.sql import literal

# Stands for what was erased where a text must keep its length.
BLANK = b"*"
_INK = re.compile(rb"[^\r\n]")

Bytes = bytes | mmap

# Of a text within a text within a log each escape is escaped again: any number of backslashes. All of a run at once,
# never less of it: else one of 40,000 took five seconds.
_RUN = rb"(?:\\(?:u005[cC])?)++"
_QUOTE, _APOSTROPHE = (
    rb"(?:(?:%s)?+%s|%su002%s)" % (_RUN, sign, _RUN, code) for sign, code in ((b'"', b"2"), (b"'", b"7"))
)
# What means something else than its bytes say. A lone quote is left out, being itself.
_QUOTED = (
    rb'(?P<quotes>"(?:%(q)s)++|(?!")(?:%(q)s)++)|'
    rb"(?P<apostrophes>'(?:%(a)s)++|(?!')(?:%(a)s)++)"
) % {b"q": _QUOTE, b"a": _APOSTROPHE}
_WRITTEN = _QUOTED + (
    rb"|(?P<end>\r\n?|%(run)s(?:r%(run)sn|u000[dD]%(run)su000[aA]))|"
    rb"%(run)s(?:u(?P<high>[dD][89abAB][0-9A-Fa-f]{2})%(run)su(?P<low>[dD][c-fC-F][0-9A-Fa-f]{2})|"
    rb"u(?P<code>[0-9A-Fa-f]{4})|(?P<short>[bfnrt])|(?P<slash>/)|(?P<bare>(?=[0-9A-Za-z_]))|)"
) % {b"run": _RUN}
# The same bytes where a backslash is one, and escapes nothing but quotes: CORP\\natalie is no line end and atalie.
_LITERAL = _QUOTED + rb"|(?P<end>\r\n?)|%(run)s(?:(?P<slash>/)|(?P<bare>(?=[0-9A-Za-z_]))|)" % {b"run": _RUN}
# Likewise where a source has not kept to UTF-8: a byte that is none of it stands for itself in Latin-1.
_LATIN = (
    rb"(?P<utf8>(?:[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3})++)|"
    rb"(?P<latin>[\x80-\xff])|"
)
_READINGS = {latin: [re.compile(latin + way) for way in (_WRITTEN, _LITERAL)] for latin in (b"", _LATIN)}
_MEANT = _READINGS[b""][0]
_SHORT = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\n", b"t": b"\t"}

_WORD = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_LETTERS = frozenset(bytes([byte]) for byte in _WORD)
_DIGITS = frozenset(b"0123456789")
_POINT = ord(".")
# A text of nothing else, once it is read, is none to look for.
_SIGNS = b"\"' \t\n\b\f"

# Stretches of a text that stand in it as they are unless a character is written by its code, of ASCII and of any.
_STRETCH = re.compile(r"[ !#-&(-.0-\[\]-~]+")
_ANY_STRETCH = re.compile(r"[^\x00-\x1f\"'/\\]+")
# A shorter one is in too many texts to be looked for first.
_LEAST_STRETCH = 3


@dataclass(frozen=True)
class Finder:
    """Finds texts as tokens: no letter, digit or _ on either side, whatever a character there is written as.

    A text is found as it is; as JSON escapes it, any character by its code or its short form (RFC 8259, section 7); as
    CSV and SQL double quotes (RFC 4180); with any line ends; in UTF-8, and in Latin-1 where bytes are no UTF-8; and as
    a text within a text is written in all these ways at once. A number's digits before or after its point are no token:
    12345 is not in 12345.67. A text of nothing but quotes, blanks and backslashes is never found.
    """

    texts: tuple[str, ...]

    @cached_property
    def _wanted(self) -> list[bytes]:
        return sorted(
            text for text in {_Read(bytes_of(text), _MEANT).text for text in self.texts} if text.strip(_SIGNS)
        )

    @cached_property
    def _stretches(self) -> tuple[frozenset[str], bool]:
        """Of each text what stands there as it is but for codes, looked for first; and whether only ASCII's matter."""
        found = [max(_STRETCH.findall(text), key=len, default="") for text in self.texts]
        if all(
            len(stretch) >= _LEAST_STRETCH or stretch == text for stretch, text in zip(found, self.texts, strict=True)
        ):
            return frozenset(found), True
        return frozenset(max(_ANY_STRETCH.findall(text), key=len, default="") for text in self.texts), False

    @cached_property
    def _first(self) -> tuple[list[bytes], re.Pattern[bytes]]:
        stretches, ascii_only = self._stretches
        ways = {s.encode("utf-8", "surrogateescape") for s in stretches}
        ways |= {s.encode("latin-1") for s in stretches if all(c <= "\u00ff" for c in s)}
        return sorted(ways, key=len), re.compile(rb"\\u00[2-7]" if ascii_only else rb"\\u")

    @cached_property
    def _readings(self) -> list[tuple[re.Pattern[bytes], list[bytes]]]:
        """How bytes are to be read, and what is looked for in them then."""
        latin = any("\u0080" <= c <= "\u00ff" for text in self.texts for c in text)
        meant, literally = _READINGS[_LATIN if latin else b""]
        # Behind a backslash these may be taken for an escape.
        escapes = [text for text in self._wanted if text.lstrip(b"\"'")[:1] in (b"b", b"f", b"n", b"r", b"t", b"u")]
        return [(meant, self._wanted), *([(literally, escapes)] if escapes else [])]

    def may_be_in_sql(self, expression: str) -> str:
        """SQL of whether it is worth looking into a text: cheap, and true wherever one of the texts is."""
        stretches, ascii_only = self._stretches
        codes = f" AND regexp_matches({expression}, '\\\\u00[2-7]')" if ascii_only else ""
        found = [f"contains({expression}, {literal(stretch)})" for stretch in sorted(stretches)]
        return " OR ".join([*found, f"(contains({expression}, '\\u'){codes})"])

    def spans(self, data: Bytes) -> Iterator[tuple[int, int]]:
        """Where tokens begin and end in the bytes, in order and apart. Quotes at either end of a text are left out."""
        for start, end in self._parts(data):
            part = data[start:end]
            found: list[tuple[int, int]] = []
            # Without a backslash both readings are the same.
            for pattern, wanted in self._readings if b"\\" in part else self._readings[:1]:
                read = _Read(part, pattern)
                places = (_without_quotes(read.text, *place) for text in wanted for place in _tokens(read.text, text))
                found += [(read.place(first)[0], read.place(last - 1)[1]) for first, last in places]
            for first, last in _apart(found):
                yield start + first, start + last

    def _parts(self, data: Bytes) -> Iterator[tuple[int, int]]:
        """Where in the bytes it is worth looking: lines, or all of them between if a text may run over lines."""
        if not self._wanted:
            return
        stretches, codes = self._first
        if not all(stretches):
            yield 0, len(data)
            return
        lines: set[tuple[int, int]] = set()
        for stretch in stretches:
            at = data.find(stretch)
            while at >= 0:
                line = _line(data, at)
                lines.add(line)
                # On a line with one nothing more is to be learned.
                at = data.find(stretch, line[1])
        looked = 0
        for match in codes.finditer(data):
            if match.start() >= looked:
                line = _line(data, match.start())
                lines.add(line)
                looked = line[1]
        over = max(text.count(b"\n") for text in self._wanted)
        if over and lines:
            start, end = min(lines)[0], max(lines)[1]
            for _ in range(over):
                start = data.rfind(b"\n", 0, max(start - 1, 0)) + 1
                end = data.find(b"\n", end) + 1 or len(data)
            lines = {(start, end)}
        yield from sorted(lines)

    def is_in(self, data: Bytes) -> bool:
        """Whether a token is in the bytes."""
        return next(self.spans(data), None) is not None

    def blanked(self, data: bytes) -> bytes:
        """The same bytes with every token blanked, as long as before, and with the same line ends."""
        return blanked(data, self.spans(data))


def blanked(data: bytes, spans: Iterator[tuple[int, int]]) -> bytes:
    """The same bytes with these parts blanked."""
    out, at = [], 0
    for start, end in spans:
        out += [data[at:start], _INK.sub(BLANK, data[start:end])]
        at = end
    return b"".join([*out, data[at:]]) if out else data


class _Read:
    """Bytes as they are meant: each character as its UTF-8, each run of quotes as one, each line end as LF.

    Backslashes are gone, but for one where a letter, digit or _ follows that is no escape. Two ways to write a text are
    the same then. It is never written back, so that other texts are the same, too, is of no account: they differ in
    nothing but backslashes and quotes.
    """

    def __init__(self, data: bytes, pattern: re.Pattern[bytes]) -> None:
        # Pieces: where each begins in the text, and in the data; and the end there of those that mean something else, 0
        # of others. Numbers alone: a file may have millions.
        self._begins, self._starts, self._ends = array("q"), array("q"), array("q")
        made = bytearray()
        at = 0
        for match in pattern.finditer(data):
            if match.lastgroup == "utf8":
                continue
            start, end = match.span()
            for part, begin, behind in ((data[at:start], at, 0), (_meaning(match), start, end)):
                if part:
                    self._begins.append(len(made))
                    self._starts.append(begin)
                    self._ends.append(behind)
                    made += part
            at = end
        self._begins.append(len(made))
        self._starts.append(at)
        self._ends.append(0)
        self.text = bytes(made + data[at:])

    def place(self, index: int) -> tuple[int, int]:
        """Where the character, of which this is a byte of the text, begins and ends in the data."""
        piece = bisect_right(self._begins, index) - 1
        begin, end = self._starts[piece], self._ends[piece]
        if end:
            return begin, end
        begin += index - self._begins[piece]
        return begin, begin + 1


def _meaning(match: re.Match[bytes]) -> bytes:
    kind = match.lastgroup
    if kind == "quotes":
        return b'"'
    if kind == "apostrophes":
        return b"'"
    if kind == "end":
        return b"\n"
    if kind == "short":
        return _SHORT[match["short"]]
    if kind == "bare":
        return b"\\"
    if kind == "slash":
        return b"/"
    if kind == "latin":
        return match["latin"].decode("latin-1").encode()
    if kind == "code":
        coded = chr(int(match["code"], 16)).encode("utf-8", "surrogatepass").replace(b"\r", b"\n")
        if b"u" in match.group()[:-5] and coded in _LETTERS:
            # There is a backslash before it, which is coded, too.
            return _SHORT.get(coded, b"\\" + coded)
        return coded
    if kind == "low":
        return bytes.fromhex((match["high"] + match["low"]).decode()).decode("utf-16-be").encode()
    return b""


def _line(data: Bytes, at: int) -> tuple[int, int]:
    """Where the line begins and ends in which `at` is."""
    return data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at) + 1 or len(data)


def _apart(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Spans in order, those that overlap as one."""
    begun = ended = -1
    for start, end in sorted(spans):
        if start >= ended > -1:
            yield begun, ended
        if start >= ended:
            begun = start
        ended = max(ended, end)
    if ended > -1:
        yield begun, ended


def _without_quotes(text: bytes, start: int, end: int) -> tuple[int, int]:
    """A part of a text without the quotes at its ends, if anything is left of it: they may be those around a field."""
    inner = text[start:end].strip(b"\"'")
    if not inner:
        return start, end
    start = text.index(inner, start)
    return start, start + len(inner)


def _tokens(text: bytes, wanted: bytes) -> Iterator[tuple[int, int]]:
    """Where one text stands in another as a token."""
    at = text.find(wanted)
    while at >= 0:
        end = at + len(wanted)
        before, after = text[max(at - 2, 0) : at], text[end : end + 2]
        part_of_a_word = not _WORD.isdisjoint(before[-1:] + after[:1])
        of_a_number = (wanted[0] in _DIGITS and len(before) == 2 and before[1] == _POINT and before[0] in _DIGITS) or (
            wanted[-1] in _DIGITS and len(after) == 2 and after[0] == _POINT and after[1] in _DIGITS
        )
        if not part_of_a_word and not of_a_number:
            yield at, end
        at = text.find(wanted, at + 1)


def spoken(text: str) -> str:
    """A text without what is of no account where it is looked for: backslashes, doubled quotes, quotes at its ends."""
    return _Read(bytes_of(text), _MEANT).text.strip(b"\"'").decode("utf-8", "replace")


def bytes_of(text: str) -> bytes:
    """The bytes of a text, those that were no UTF-8 as they were; half a character of JSON's, which has none, as ?."""
    return re.sub("[\ud800-\udc7f\udd00-\udfff]", "?", text).encode("utf-8", "surrogateescape")


def readable(text: str) -> str:
    """A text with what decoding left of bytes that are no UTF-8 (`surrogateescape`) as Latin-1 has it."""
    return re.sub("[\udc80-\udcff]", lambda byte: chr(ord(byte.group()) - 0xDC00), text)
