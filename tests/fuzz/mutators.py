"""Ways to spoil bytes and files. Each takes a generator of its own, so that a case is made again from its number.

What is spoilt is decided in `cases`; texts put into fields are in `poison`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from tests.fuzz import poison
from tests.fuzz.sources import Row, Source

# Bytes that mean something to a reader of text.
SPECIAL = (
    b"\0", b"\xff", b"\xfe", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x28\xa1", b"\r",
    b"\n", b"\r\n", b"\n\r",
    b'"', b"'", b",", b";", b"\t", b"\x1f", b"\x1a", b"\xef\xbb\xbf", b"\\", b"{", b"}", b"[", b"\x85", b"\x0b",
    b"\x0c", b"\x1c", b"\x1e",
    b"\xe2\x80\xa8", b"\x80", b"\x81", b"\xa0", b" ", b"\n\n\n", b'""', b'"""', b"'''",
)  # fmt: skip

Bytes = Callable[[Random, bytes], bytes]


def _place(rng: Random, data: bytes) -> int:
    return rng.randint(0, len(data))


def flip(rng: Random, data: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        if made:
            made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


def overwrite(rng: Random, data: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(rng.choice([1, 3, 10])):
        at, what = _place(rng, data), rng.choice(SPECIAL)
        made[at : at + len(what)] = what
    return bytes(made)


def insert(rng: Random, data: bytes) -> bytes:
    for _ in range(rng.choice([1, 1, 3, 10])):
        at = _place(rng, data)
        data = data[:at] + rng.choice([*SPECIAL, rng.randbytes(rng.randint(1, 40))]) + data[at:]
    return data


def delete(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice([1, 2, 10, 100]) :]


def truncate(rng: Random, data: bytes) -> bytes:
    return data[: _place(rng, data)]


def behead(rng: Random, data: bytes) -> bytes:
    return data[_place(rng, data) :]


def repeat(rng: Random, data: bytes) -> bytes:
    at, end = sorted((_place(rng, data), _place(rng, data)))
    return data[:end] + data[at:end] * rng.choice([1, 2, 20]) + data[end:]


def swap(rng: Random, data: bytes) -> bytes:
    a, b, c = sorted(_place(rng, data) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def blank(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    size = rng.choice([1, 10, 500])
    return data[:at] + rng.choice([b"\0", b" ", b"\n", b"\xff", b"\r"]) * size + data[at + size :]


def noise(rng: Random, data: bytes) -> bytes:
    return rng.randbytes(rng.choice([1, 3, 50, 3000]))


def line_ends(rng: Random, data: bytes) -> bytes:
    """Each line end replaced by another kind, all alike or mixed; or the last one taken away."""
    kinds = [b"\n", b"\r\n", b"\r", b"\n\n", b"\r\r\n", b"\n\r"]
    one = rng.choice(kinds)
    mixed = rng.random() < 0.5
    made = b"".join(line + (rng.choice(kinds) if mixed else one) for line in data.split(b"\n"))
    return made if rng.random() < 0.5 else made.rstrip(b"\r\n")


def encode(rng: Random, data: bytes) -> bytes:
    """In another encoding than is said."""
    text = data.decode("utf-8", "replace")
    return text.encode(
        rng.choice(["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-7", "utf-8-sig", "cp037"]), "replace"
    )


BYTES: dict[str, Bytes] = {
    f.__name__: f for f in (flip, overwrite, insert, delete, truncate, behead, repeat, swap, blank, noise, line_ends,
    encode)
}  # fmt: skip


# Gzip


def pack(data: bytes, flags: int = 0, level: int = 6) -> bytes:
    """One member, with the header's optional parts that `flags` names (RFC 1952)."""
    head = b"\x1f\x8b\x08" + bytes([flags]) + b"\0\0\0\0\0\xff"
    if flags & 4:
        head += struct.pack("<H", 7) + b"ab\x03\0xyz"
    if flags & 8:
        head += b"na\xefme'; DROP TABLE x; --.csv\0"
    if flags & 16:
        head += b"a comment\0"
    if flags & 2:
        head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    body = zlib.compressobj(level, zlib.DEFLATED, -15)
    return head + body.compress(data) + body.flush() + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def _halves(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return pack(data[:at]) + pack(data[at:], rng.choice([0, 0, 8, 31]))


GZIP: dict[str, Bytes] = {
    "plain": lambda rng, data: pack(data),
    "stored": lambda rng, data: pack(data, level=0),
    "flags": lambda rng, data: pack(data, rng.randrange(32)),
    "reserved flags": lambda rng, data: pack(data, 32 << rng.randrange(3)),
    "members": _halves,
    "empty member": lambda rng, data: pack(data) + pack(b""),
    "padded": lambda rng, data: pack(data) + b"\0" * rng.choice([1, 7, 512, 70_000]),
    "garbage behind": lambda rng, data: pack(data) + rng.randbytes(20),
    "cut": lambda rng, data: pack(data)[: -rng.randint(1, 30)],
    "wrong checksum": lambda rng, data: pack(data)[:-8] + rng.randbytes(8),
    "wrong length": lambda rng, data: pack(data)[:-4] + rng.randbytes(4),
    "spoilt": lambda rng, data: rng.choice([flip, overwrite, delete, truncate, repeat, swap])(rng, pack(data)),
    "twice": lambda rng, data: pack(pack(data)),
    "not packed": lambda rng, data: data,
    "empty": lambda rng, data: b"",
    "nothing packed": lambda rng, data: pack(b""),
    "blanks": lambda rng, data: pack(data + b"\n" * 300_000),
    "zip": lambda rng, data: b"PK\x03\x04" + data,
    "method": lambda rng, data: pack(data)[:2] + bytes([rng.randrange(256)]) + pack(data)[3:],
}


# Rows as text


def csv_field(value: Any, delimiter: str, quote: str, rng: Random | None = None) -> str:
    """A field as RFC 4180 has it."""
    if value is None:
        return ""
    text = str(value)
    needs = (
        text == "" or any(c in text for c in (delimiter, quote, "\r", "\n")) or (rng is not None and rng.random() < 0.1)
    )
    return quote + text.replace(quote, quote * 2) + quote if needs else text


def csv_line(values: list[Any], dialect: dict[str, Any], rng: Random | None = None) -> str:
    """A record of CSV."""
    return dialect["delimiter"].join(csv_field(v, dialect["delimiter"], dialect["quote"], rng) for v in values)


def render(source: Source, kind: str, rows: list[Row], rng: Random | None = None) -> bytes:
    """A file of good form, whatever its values are; what the encoding does not have becomes a question mark."""
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "replace")
    names = [spec.get("physicalName", name) for name, spec in source.columns.items()]
    lines = [csv_line([row.get(n) for n in names], source.csv, rng) for row in rows]
    if source.csv["header"]:
        lines.insert(0, csv_line(names, source.csv))
    return ("\n".join(lines) + "\n").encode(source.csv["encoding"], "replace")


# CSV as a whole


def _with_header(source: Source, names: list[Any], rows: list[list[Any]]) -> bytes:
    return ("\n".join(csv_line(line, source.csv) for line in [names, *rows]) + "\n").encode(
        source.csv["encoding"], "replace"
    )


def csv_shapes(rng: Random, source: Source, rows: list[Row]) -> tuple[str, bytes]:
    """A CSV file whose form is odd: its header, its width, its quotes, the length of a field."""
    names = [spec.get("physicalName", name) for name, spec in source.columns.items()]
    cells = [[row.get(n) for n in names] for row in rows]
    d, q = source.csv["delimiter"], source.csv["quote"]
    text = render(source, "csv", rows).decode(source.csv["encoding"])
    lines = text.split("\n")
    what = rng.choice(
        ["reordered", "extra", "missing", "twice", "renamed", "hostile header", "wide", "wide row", "open quote",
         "quotes",
         "long field", "long line", "header only", "no header", "blank lines", "delimiter", "one column", "trailing",
         "nul",
         "many quotes", "header again", "spaces in header"]
    )  # fmt: skip
    at = rng.randrange(len(cells)) if cells else 0
    if what == "reordered":
        order = rng.sample(range(len(names)), len(names))
        return what, _with_header(source, [names[i] for i in order], [[c[i] for i in order] for c in cells])
    if what in ("extra", "hostile header"):
        new = [rng.choice(poison.ALL)[:200].replace("\n", " ").replace("\r", " ") for _ in range(rng.randint(1, 5))]
        return what, _with_header(
            source, names + new, [c + [rng.choice(["x", None, "", *poison.SQL])] * len(new) for c in cells]
        )
    if what == "missing":
        gone = rng.randrange(len(names))
        return what, _with_header(source, names[:gone] + names[gone + 1 :], [c[:gone] + c[gone + 1 :] for c in cells])
    if what == "twice":
        return what, _with_header(source, [*names, rng.choice(names)], [[*c, "x"] for c in cells])
    if what == "renamed":
        return what, _with_header(
            source, [rng.choice([str.upper, str.strip, lambda n: n + "_"])(n) for n in names], cells
        )
    if what == "wide":
        count = rng.choice([100, 1000, 10_000])
        few = cells[:3]
        return f"{what} {count}", _with_header(
            source, names + [f"x{i}" for i in range(count)], [c + ["1"] * count for c in few]
        )
    if what == "wide row":
        lines.insert(1 + at, d * rng.choice([len(names), 10_000, 200_000]))
    elif what == "open quote":
        lines.insert(1 + at, q + "open" + d * 3)
    elif what == "quotes":
        lines.insert(1 + at, "".join(rng.choice([q, q * 2, d, "x", " ", q + d + q]) for _ in range(rng.randint(1, 40))))
    elif what == "long field":
        cells[at][rng.randrange(len(names))] = rng.choice(["x", q, "é", " "]) * rng.choice([131_073, 300_000, 900_000])
        return what, _with_header(source, names, cells)
    elif what == "long line":
        lines.insert(
            1 + at, rng.choice(["x", q, d]) * rng.choice([1_899_999, 1_900_000, 1_900_001, 2_000_001, 2_500_000])
        )
    elif what == "header only":
        lines = lines[:1]
    elif what == "no header":
        lines = lines[1:]
    elif what == "blank lines":
        lines = [x for line in lines for x in (line, *[""] * rng.choice([0, 1, 50]))]
    elif what == "delimiter":
        lines = [line.replace(d, rng.choice([";", "\t", "|", ",", "  "])) for line in lines]
    elif what == "one column":
        lines = [line.split(d)[0] for line in lines]
    elif what == "trailing":
        lines = [line + d * (line != "") for line in lines]
    elif what == "nul":
        lines = [line.replace(" ", "\0") for line in lines]
    elif what == "many quotes":
        lines = [line.replace(d, q + d + q) for line in lines]
    elif what == "header again":
        lines.insert(1 + at, lines[0])
    elif what == "spaces in header":
        lines[0] = lines[0].replace(d, d + " ")
    return what, "\n".join(lines).encode(source.csv["encoding"], "replace")


# JSON lines as a whole


def _deep(rng: Random) -> str:
    depth = rng.choice([100, 1000, 10_000, 100_000, 900_000])
    opened, closed = rng.choice([("[", "]"), ('{"a":', "}")])
    return opened * min(depth, 300_000) + "1" + closed * min(depth, 300_000) * rng.choice([1, 1, 1, 0])


def json_shapes(rng: Random, source: Source, rows: list[Row]) -> tuple[str, bytes]:
    """JSON lines in which one line or value is odd: nested, endless, doubled, of another type."""
    what = rng.choice(
        ["deep", "long array", "many keys", "same key", "number", "type", "no object", "pretty", "array file",
         "commas", "escape",
         "hostile key", "long key", "long text", "surrogate", "two in a line", "comment", "nul", "case", "white",
         "envelope"]
    )  # fmt: skip
    at = rng.randrange(len(rows))
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    key = rng.choice(list(rows[at]))
    odd = json.dumps(rows[at])[:-1]
    if what == "deep":
        lines[at] = rng.choice([f'{odd}, "x": {_deep(rng)}}}', _deep(rng), f'{{"{key}": {_deep(rng)}}}'])
    elif what == "long array":
        lines[at] = f'{odd}, "x": [{",".join(["1"] * rng.choice([1000, 100_000, 600_000]))}]}}'
    elif what == "many keys":
        lines[at] = odd + "".join(f', "x{i}": {i}' for i in range(rng.choice([1000, 10_000, 50_000]))) + "}"
    elif what == "same key":
        lines[at] = f"{odd}, {json.dumps(key)}: {json.dumps(rng.choice(['other', None, 5]))}}}"
    elif what == "number":
        number = rng.choice(
            ["1e999999", "-1e999999", "1e-999999", "9" * 5000, "0." + "1" * 5000, "1" + "0" * 30, "-0", "0123", "+1",
             ".5", "5.", "1e5",
             "NaN", "Infinity", "0x1F", "1_000", "12345678901234.5678", "18446744073709551616", "9223372036854775808"]
        )  # fmt: skip
        lines[at] = json.dumps({**rows[at], key: "@@"}).replace('"@@"', number)
    elif what == "type":
        lines[at] = json.dumps(
            {**rows[at], key: rng.choice([None, True, False, 0, 1.5, [], {}, [1, 2], {"a": "b"}, ""])}
        )
    elif what == "no object":
        lines[at] = rng.choice(
            ["null", "5", '"x"', "[]", "true", "{", "}", '{"a"', "{a:1}", "undefined", "[" * 50_000, '{"a":' * 50_000]
        )
    elif what == "pretty":
        lines[at] = json.dumps(rows[at], indent=2)
    elif what == "array file":
        lines = ["[", *[line + "," for line in lines], "]"]
    elif what == "commas":
        lines[at] = rng.choice([odd + ",}", lines[at] + ",", "," + lines[at], lines[at].replace(",", ",,")])
    elif what == "escape":
        lines[at] = lines[at].replace("a", rng.choice(["\\u0061", "\\x61", "\\u00", "\\uD83D\\uDE00", "\\/"]))
    elif what == "hostile key":
        text = json.dumps(rng.choice(poison.ALL))
        lines[at] = f"{odd}, {text}: {text}}}"
    elif what == "long key":
        lines[at] = f'{odd}, "{"k" * rng.choice([1000, 500_000])}": 1}}'
    elif what == "long text":
        lines[at] = json.dumps(
            {**rows[at], key: rng.choice(["x", "é", '"', "\n", "\0"]) * rng.choice([100_000, 299_000, 1_000_000])}
        )
    elif what == "surrogate":
        lines[at] = json.dumps({**rows[at], key: "@@"}).replace(
            "@@", rng.choice(["\\ud83d", "\\ude00", "\\ude00\\ud83d", "\\ud83dx"])
        )
    elif what == "two in a line":
        lines[at] = lines[at] + rng.choice(["", " ", ","]) + lines[at]
    elif what == "comment":
        lines[at] = rng.choice(["// x", "/* x */" + lines[at], "# x", lines[at] + " // x"])
    elif what == "nul":
        lines[at] = rng.choice(
            [lines[at] + "\0", "\0" + lines[at], lines[at].replace(":", "\0:", 1), f'{odd}, "x": "\0"}}']
        )
    elif what == "case":
        lines[at] = json.dumps({k.upper(): v for k, v in rows[at].items()})
    elif what == "white":
        lines[at] = rng.choice([" ", "\t", "\u00a0", "\x0c"]) + lines[at] + rng.choice(["", " ", "\t\t"])
    elif what == "envelope":
        lines[at] = json.dumps(_spoilt_event(rng, rows[at]))
    return what, "".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass")


def _spoilt_event(rng: Random, row: Row) -> Any:
    """A change event of which a part is gone, null, or of another type; of any other row the same."""
    event = json.loads(json.dumps(row))
    inner = event["payload"] if isinstance(event.get("payload"), dict) else event
    part = rng.choice(list(inner))
    if isinstance(inner[part], dict) and rng.random() < 0.6:
        inner = inner[part]
        part = rng.choice(list(inner))
    what = rng.choice(
        ["gone", None, [], {}, "x", 0, -1, 1.5, 2**63, "12", "1e3", True, inner[part], [inner[part]], *poison.SQL[:4]]
    )
    if what == "gone":
        del inner[part]
    else:
        inner[part] = what
    return event


# Values


def poisoned(rng: Random, source: Source, rows: list[Row]) -> tuple[str, list[Row]]:
    """Rows of which some fields, or every one, hold a text from `poison`."""
    made = [json.loads(json.dumps(row)) for row in rows]
    texts = rng.choice([poison.SQL, poison.SHELL, poison.PATHS, poison.TEXTS, poison.NUMBERS, poison.DATES, poison.ALL])
    everywhere = rng.random() < 0.15
    for row in made:
        if not everywhere and rng.random() < 0.5:
            continue
        target = row
        if source.feed:
            target = row.get("payload", row)
            target = rng.choice([t for t in (target["before"], target["after"], target["source"], target) if t])
        for name in list(target):
            if everywhere or rng.random() < 0.3:
                target[name] = rng.choice(texts)
    return "everywhere" if everywhere else "some fields", made
