"""Names of files, folders and partitions that would lead elsewhere if they were believed, and where they belong.

`belongs` is the oracle of paths, written from docs/contracts.md ("How it arrives").
"""

from __future__ import annotations

import re
from datetime import date, datetime
from random import Random

from tests.fuzz import poison
from tests.fuzz.sources import Source

_FLIGHT = (b".tmp", b".part", b".partial", b".crdownload", b".filepart")
_ENDINGS = {
    "csv": (".csv", ".csv.gz"),
    "jsonl": (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"),
    "parquet": (".parquet",),
}

START = date(2026, 1, 1)


def hostile(rng: Random) -> bytes:
    """One part of a path; never empty, `.`, `..` or with a slash."""
    made = rng.choice(
        [
            lambda: rng.choice(poison.ALL).encode("utf-8", "replace"),
            lambda: rng.choice(
                [
                    b"..%2f",
                    b"..\\..\\",
                    b"...",
                    b"%00",
                    b"%2e%2e%2fetc%2fpasswd",
                    b"~",
                    b"-rf",
                    b"--help",
                    b"CON",
                    b"a:b",
                ]
            ),
            lambda: rng.choice([b"*", b"?", b"[a]", b"[!a]", b"{a,b}", b"**", b"[[]", b"]", b"[", b"a*", b"c0*"]),
            lambda: rng.choice(
                [b"a\nb", b"a\rb", b"\n", b"'", b'"', b"a'b\"c", b"\t", b"\x1b[2J", b"\x07", b"\x7f", b" ", b"a b "]
            ),
            lambda: rng.choice([b"\xff\xfe", b"caf\xe9", b"\xed\xa0\x80", b"\xc0\xaf", b"\x80"]),
            lambda: rng.choice(["Übung 茶 🎉", "e\u0301", "\u202etxt", "\u2028", "ﷺ", "İ"]).encode(),
            lambda: rng.choice([b"a", "é".encode()]) * 300,
            lambda: rng.randbytes(rng.randint(1, 30)),
            lambda: b"date=2026-01-02",
        ]
    )()
    made = made.replace(b"/", b"%").replace(b"\0", b"0")
    return made if made not in (b"", b".", b"..") else b"dots"


def path_of(rng: Random, source: Source, number: int, day: str, ending: str) -> bytes:
    """A path below the landing folder with something hostile in one place."""
    unique = f"{number:06d}".encode()
    parts = [p.encode() for p in source.folder.replace("{date}", day).replace("{hour}", "07").split("/")]
    where = rng.choice(["name", "name", "name", "date", "token", "deeper", "higher", "flight", "ending", "folder"])
    name = b"c" + unique + ending.encode()
    if where == "name":
        name = hostile(rng)[: 248 - len(ending)] + unique + ending.encode()
        if rng.random() < 0.1:
            name = (name + b"x" * 255)[: 255 - len(ending)] + ending.encode()
    elif where == "date":
        value = rng.choice(
            [x.encode() for x in poison.DATES] + [hostile(rng), b"..", day.encode() + b" ", b" " + day.encode()]
        )
        parts[1] = b"date=" + value.replace(b"/", b"%")[:200]
    elif where == "token":
        parts[-1] = (b"hour=" if len(parts) == 3 else b"date=") + hostile(rng)[:200]
    elif where == "deeper":
        parts.append(hostile(rng)[:200])
    elif where == "higher":
        parts = parts[: rng.randint(1, len(parts) - 1)]
    elif where == "flight":
        name = rng.choice([b"." + name, b"_" + name, name + rng.choice(_FLIGHT)])
    elif where == "ending":
        name = (
            b"c"
            + unique
            + rng.choice(
                [
                    b"",
                    b".txt",
                    b".CSV",
                    b".csv.zip",
                    b".parquet.gz",
                    b".json",
                    b".csv.gz.gz",
                    b".gz",
                    b".csv~",
                    b".csv ",
                ]
            )
        )
    elif where == "folder":
        name = b"c" + unique + ending.encode() + b"/" + b"d" + unique + ending.encode()
    return b"/".join([*parts, name])


def belongs(source: Source, path: bytes) -> tuple[str, str, str]:
    """Where a file goes: ("read", day, hour), ("told", "", "") as unroutable, or ("left", "", "") as in flight."""
    parts = path.split(b"/")
    if any(p.startswith((b".", b"_")) or p.endswith(_FLIGHT) for p in parts[1:]):
        return "left", "", ""
    told = "told", "", ""
    try:
        texts = [p.decode() for p in parts]
    except UnicodeDecodeError:
        return told
    shape = source.folder.split("/")
    if len(texts) != len(shape) + 1 or "\\" in texts[-1]:
        return told
    values = {}
    for text, wanted in zip(texts, shape, strict=False):
        before, _, token = wanted.rstrip("}").partition("{")
        if not text.startswith(before) or (not token and text != before):
            return told
        if token and text == before:
            return told
        values[token] = text[len(before) :]
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", values["date"], re.ASCII):
        return told
    try:
        day = datetime.strptime(values["date"], "%Y-%m-%d").date()
    except ValueError:
        return told
    if day < START or not any(texts[-1].endswith(e) for f in source.formats for e in _ENDINGS[f]):
        return told
    return "read", values["date"], values.get("hour", "")
