"""Every way a text may be written in CSV, JSON, logs and databases, as a regular expression. Pure.

Whose text it is, and where a word of it ends, belongs to `person`.
"""

from __future__ import annotations

import re

# Of a text within a text within a log each escape is escaped again: any number of backslashes.
_ESCAPE = r"\\+"
_RETURN, _FEED = rf"(?:\r|{_ESCAPE}r|{_ESCAPE}u000[dD])", rf"(?:\n|{_ESCAPE}n|{_ESCAPE}u000[aA])"
_LINE_END = f"{_RETURN}?{_FEED}|{_RETURN}"
_SHORT = {"\b": "b", "\f": "f", "\t": "t"}


def spelt(text: str) -> str:
    """A regular expression, for Python's and DuckDB's, that matches a text however it is written.

    As it is; as JSON escapes it, any character by its code or by its short form (RFC 8259, section 7); as CSV doubles
    quotes (RFC 4180); its line ends as any.
    """
    return "".join(f"(?:{'|'.join(_ways(c))})" for c in _characters(text))


def spelt_bytes(text: str) -> bytes:
    """Likewise for the bytes of a file: in UTF-8, or in Latin-1 where a source has not kept to it."""
    found = []
    for character in _characters(text):
        ways = [way.encode("utf-8", "surrogateescape") for way in _ways(character)]
        if "\u00c0" <= character <= "\u00ff":
            # In UTF-8 such a byte begins a character, and is followed by the rest of it.
            ways.append(re.escape(character.encode("latin-1")) + rb"(?![\x80-\xbf])")
        found.append(b"(?:" + b"|".join(ways) + b")")
    return b"".join(found)


def beginnings(text: str) -> bytes:
    """Every byte a match of `spelt_bytes` may begin with."""
    first = next(iter(_characters(text)))
    if first == "\n":
        return b"\r\n\\"
    latin = first.encode("latin-1") if "\u00c0" <= first <= "\u00ff" else b""
    return first.encode("utf-8", "surrogateescape")[:1] + latin + b"\\"


def plain(text: str) -> set[str]:
    """The ways to write a text that have no backslash it does not have: what is looked for first, for it is cheap."""
    ends = [re.sub(r"\r\n|\n|\r", lambda _, end=end: end, text) for end in ("\n", "\r\n", "\r")]  # type: ignore[misc]
    return {way for given in ends for way in (given, given.replace('"', '""'), given.replace("'", "''"))}


def _characters(text: str) -> list[str]:
    """The characters of a text, a line end as one."""
    return list(re.sub(r"\r\n|\r", "\n", text))


def _ways(character: str) -> list[str]:
    if character == "\n":
        return [_LINE_END]
    codes = character.encode("utf-16-be", "surrogatepass").hex()
    code = "".join(
        _ESCAPE + "u" + "".join(f"[{d}{d.upper()}]" if d.isalpha() else d for d in codes[at : at + 4])
        for at in range(0, len(codes), 4)
    )
    ways = [re.escape(character), code]
    if character in "\"'":
        ways.append(re.escape(character * 2))
    if character in '"/':
        ways.append(_ESCAPE + re.escape(character))
    elif character == "\\":
        ways.append(_ESCAPE)
    elif character in _SHORT:
        ways.append(_ESCAPE + _SHORT[character])
    return ways
