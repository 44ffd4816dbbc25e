"""Files that are small where they lie and large where they are read: one delivered, beside good ones, and measured.

`python -m tests.fuzz.bombs FOLDER NAME MEGABYTES` ingests it, where memory is limited, and prints the outcome as JSON.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb

from sluice.books import books
from sluice.contracts import load_contracts
from sluice.errors import SluiceError
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.settings import load_settings
from sluice.sql import literal
from tests.fuzz.round import peak_mb
from tests.fuzz.sources import SOURCES

MB = 1024 * 1024
HEADER = b"Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
GOOD = b"489434,85048,CUP,1,2026-01-01 10:00:00,1.50,12345,United Kingdom\n"
CLICK = b'{"event_id":"e1","event_ts":"2026-01-01T10:00:00Z"'


def _repeat(piece: bytes) -> Callable[[int], Iterator[bytes]]:
    """As many whole `piece`s as make so many megabytes."""

    def pieces(megabytes: int) -> Iterator[bytes]:
        block = piece * max(MB // len(piece), 1)
        for _ in range(max(megabytes * MB // len(block), 1)):
            yield block

    return pieces


def _once(before: bytes, piece: bytes, after: bytes = b"") -> Callable[[int], Iterator[bytes]]:
    """`before`, then one line of pieces, then `after`."""

    def pieces(megabytes: int) -> Iterator[bytes]:
        yield before
        yield from _repeat(piece)(megabytes)
        yield after

    return pieces


def _wide(megabytes: int) -> Iterator[bytes]:
    yield HEADER.strip() + b"".join(b",x%d" % i for i in range(10_000)) + b"\n"
    for number in range(max(megabytes * 50, 1)):
        yield b"%06d" % (100_000 + number) + GOOD.strip()[6:] + b",1" * 10_000 + b"\n"


def _write_parquet(path: Path, megabytes: int) -> None:
    """Rows of one text of 100 kB, which Parquet keeps once."""
    with duckdb.connect() as con:
        con.execute(
            "COPY (SELECT 'e' || i AS event_id, '2026-01-01 10:00:00' AS event_ts, repeat('x', 100000) AS page "
            f"FROM range({megabytes * 10}) AS r(i)) TO {literal(str(path))} (FORMAT parquet, ROW_GROUP_SIZE 2048)"
        )


# Source, ending, and the unpacked content of so many megabytes.
BOMBS: dict[str, tuple[str, str, Callable[[int], Iterator[bytes]]]] = {
    # One line that never ends.
    "zeros": ("tills", "csv", _once(HEADER, b"\0")),
    "one long line of JSON": ("clicks", "jsonl", _once(CLICK + b',"page":"', b"x", b'"}\n')),
    # Lines without end.
    "blank lines": ("tills", "csv", _once(HEADER, b"\n")),
    "short lines": ("tills", "csv", _once(HEADER, b"x\n")),
    "equal rows": ("tills", "csv", _once(HEADER, GOOD)),
    "lines that are no text": ("tills", "csv", _once(HEADER, b"\xff\n")),
    "long lines": ("tills", "csv", _once(HEADER, b"x" * 3_000_000 + b"\n")),
    "lines of the longest kind": ("tills", "csv", _once(HEADER, b"x" * 1_899_999 + b"\n")),
    # Lines that take themselves apart.
    "delimiters": ("tills", "csv", _once(HEADER, b"," * 1_899_999 + b"\n")),
    "quotes": ("tills", "csv", _once(HEADER, b'"' * 1_899_999 + b"\n")),
    "quotes and delimiters": ("tills", "csv", _once(HEADER, b'"",' * 600_000 + b"\n")),
    "an open quote": ("notes", "csv", _once(b"id;note\n1;'open\n", b"2;x\n")),
    "10,000 columns": ("tills", "csv", _wide),
    # JSON within JSON.
    "deep": ("clicks", "jsonl", _repeat(CLICK + b',"x":' + b"[" * 900_000 + b"]" * 900_000 + b"}\n")),
    "deep, not closed": ("clicks", "jsonl", _repeat(CLICK + b',"x":' + b'{"a":' * 300_000 + b"\n")),
    "many keys": (
        "clicks",
        "jsonl",
        _repeat(CLICK + b"".join(b',"x%d":%d' % (i, i) for i in range(100_000)) + b"}\n"),
    ),
    "a long array": ("clicks", "jsonl", _repeat(CLICK + b',"x":[' + b"1," * 800_000 + b"1]}\n")),
    # `_write_parquet` makes it.
    "Parquet": ("clicks", "parquet", lambda megabytes: iter(())),
}


def main(arguments: list[str]) -> int:
    """Deliver, ingest, measure."""
    folder, name, megabytes = Path(arguments[0]), arguments[1], int(arguments[2])
    options: dict[str, Any] = json.loads(arguments[3]) if len(arguments) > 3 else {}
    source, kind, pieces = BOMBS[name]
    (folder / "contracts").mkdir(parents=True)
    for each in SOURCES.values():
        each.write_contract(folder / "contracts")
    settings = load_settings(
        home=folder / "home", contracts=folder / "contracts", threads=2, **{"memory_limit": "1GB", **options}
    )
    contract = load_contracts(settings.contracts)[source]
    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        place = settings.landing_path / SOURCES[source].folder.format(date=day, hour="07")
        place.mkdir(parents=True)
        if day == "2026-01-02":
            if kind == "parquet":
                _write_parquet(place / "bomb.parquet", megabytes)
                continue
            with gzip.open(place / f"bomb.{kind}.gz", "wb", compresslevel=1) as file:
                file.writelines(pieces(megabytes))
        else:
            good = {"tills": HEADER + GOOD, "clicks": CLICK + b"}\n", "notes": b"id;note\n1;x\n"}[source]
            (place / f"good.{kind.replace('parquet', 'jsonl')}").write_bytes(good)
    told: dict[str, Any] = {"error": "", "problems": []}
    lake = Lake(settings)
    try:
        result = ingest(lake, contract)
        told["problems"] = [(p.rule, p.detail) for p in result.problems]
    except SluiceError as error:
        told["error"] = f"{type(error).__name__}: {error}"
    told["peak_mb"] = peak_mb()
    (kept,) = books(lake, [source])
    with lake.reading() as con:
        told["ledger"] = con.execute(
            "SELECT partition_key, rows_read, rows_accepted, rows_dead_lettered, rows_duplicate FROM ops.ledger "
            "ORDER BY 1"
        ).fetchall()
    told["balanced"] = kept.balanced
    told["scratch"] = [p.name for p in settings.temp_path.iterdir()]
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
