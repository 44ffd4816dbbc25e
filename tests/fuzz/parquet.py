"""Parquet files: written by DuckDB from rows, of odd shapes, with bytes spoilt; and what is known of each."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import duckdb

from sluice.sql import literal, quoted, temp_table
from tests.fuzz import mutators, poison
from tests.fuzz.oracle import MOST_NEW
from tests.fuzz.sources import Row, Source

# Columns of other types than text, by name: what SQL makes them. What text they become is DuckDB's business.
ODD = (
    "NULL::INTEGER", "1::TINYINT", "1.5::DOUBLE", "'nan'::DOUBLE", "true", "DATE '2026-01-01'",
    "TIMESTAMP '2026-01-01'",
    "TIMESTAMPTZ '2026-01-01 00:00:00+00'", "INTERVAL '1 day'", "'\\x00\\xFF'::BLOB", "[1, NULL, 2]",
    "{'a': 1, 'b': [{'c': 'x'}]}",
    "MAP {'k': 'v'}", "UUID '00000000-0000-0000-0000-00000000000a'",
    "170141183460469231731687303715884105727::HUGEINT", "'x'::ENUM('x', 'y')",
    "12.3456::DECIMAL(18,4)",
    "repeat('x', 1000000)", "TIME '10:00:00'", "[]::VARCHAR[]", "DATE '-290307-01-01'", "'infinity'::TIMESTAMP",
)  # fmt: skip


def render(
    con: duckdb.DuckDBPyConnection, names: list[str], rows: list[Row], odd: dict[str, str], options: str = ""
) -> bytes:
    """A Parquet file with text columns `names` and the columns `odd`, which SQL makes."""
    columns = ", ".join(f"c{i} VARCHAR" for i in range(len(names)))
    temp_table(con, "fuzz_rows", columns, [tuple(_text(row.get(n)) for n in names) for row in rows])
    chosen = [f"c{i} AS {quoted(n)}" for i, n in enumerate(names)] + [f"{sql} AS {quoted(n)}" for n, sql in odd.items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.parquet"
        con.execute(
            f"COPY (SELECT {', '.join(chosen)} FROM fuzz_rows) TO {literal(str(path))} (FORMAT parquet{options})"
        )
        return path.read_bytes()


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def shapes(
    rng: Random, con: duckdb.DuckDBPyConnection, source: Source, rows: list[Row]
) -> tuple[str, bytes, list[Row] | None, int | None, str]:
    """An odd Parquet file: what is odd, its bytes, its rows where known, their number, the fault it must have."""
    names = [spec.get("physicalName", name) for name, spec in source.columns.items()]
    what = rng.choice(
        [
            "plain",
            "codec",
            "extra",
            "missing",
            "types",
            "no rows",
            "wide",
            "bytes",
            "bytes",
            "bytes",
            "footer",
            "cut",
            "other",
        ]
    )
    if what == "plain":
        return what, render(con, names, rows, {}), rows, len(rows), ""
    if what == "codec":
        codec = rng.choice(["uncompressed", "gzip", "zstd", "snappy", "lz4_raw"])
        return what, render(con, names, rows, {}, f", COMPRESSION {codec}, ROW_GROUP_SIZE 2048"), rows, len(rows), ""
    if what == "extra":
        hostile = {rng.choice(poison.ALL)[:100].replace("\0", "0") or "x": rng.choice(ODD) for _ in range(3)}
        odd: dict[str, str] = {}
        for name, sql in hostile.items():
            if name.lower() not in {n.lower() for n in [*names, *odd]}:
                odd[name] = sql
        return what, render(con, names, rows, odd), rows, len(rows), ""
    if what == "missing":
        gone = rng.choice(list(source.columns))
        left = [n for n in names if n != source.columns[gone].get("physicalName", gone)]
        fault = "missing_column" if source.columns[gone].get("required") else ""
        without = [{n: v for n, v in row.items() if n in left} for row in rows]
        return what, render(con, left, rows, {}), without, len(rows), fault
    if what == "types":
        picked = rng.sample(names, rng.randint(1, 3))
        made = render(con, [n for n in names if n not in picked], rows, {n: rng.choice(ODD) for n in picked})
        return what, made, None, len(rows), ""
    if what == "no rows":
        return what, render(con, names, [], {}), [], 0, ""
    if what == "wide":
        width = rng.choice([100, 1000])
        made = render(con, names, rows[:2], {f"x{i}": "1" for i in range(width)})
        fault = "too_many_columns" if width > MOST_NEW and source.evolution == "evolve" else ""
        return what, made, rows[:2], len(rows[:2]), fault
    data = render(con, names, rows, {})
    if what == "bytes":
        mutate = rng.choice(["flip", "flip", "overwrite", "insert", "delete", "repeat", "swap", "blank"])
        return f"{what} {mutate}", mutators.BYTES[mutate](rng, data), None, None, ""
    if what == "footer":  # where the schema, the sizes and the offsets are
        size = int.from_bytes(data[-8:-4], "little") + 8
        mutate = rng.choice(["flip", "overwrite", "blank", "swap"])
        spoilt = mutators.BYTES[mutate](rng, data[-size:-4])
        return f"{what} {mutate}", data[:-size] + spoilt + b"PAR1", None, None, ""
    if what == "cut":
        cut = data[: rng.randrange(len(data))]
        return what, cut, None, *((1, "unreadable_file") if cut else (0, "empty_file"))
    return (
        what,
        rng.choice(
            [b"PAR1" + rng.randbytes(200) + b"PAR1", b"PAR1PAR1", b"not parquet", b"PAR1" + b"\xff" * 8 + b"PAR1"]
        ),
        None,
        1,
        "unreadable_file",
    )
