"""Cases: one spoilt file each, made from a seed and a number alone, so that any of them can be made again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random

import duckdb

from tests.fuzz import mutators, names, parquet
from tests.fuzz.oracle import ANY, BAD, Reading, Row, read_file
from tests.fuzz.sources import SOURCES, WEIGHTS, Source
from tests.fuzz.sources import Row as Record

# Cases that share a partition, and so a batch: only a share of bad rows, or columns that are not as agreed, may make
# one touch the others.
TOGETHER = 4
# Partitions before the dates begin again; more than any round has.
DAYS = 1000


@dataclass
class Case:
    """A file to be delivered, and what must come of it.

    `path` is relative to the landing folder, as bytes; `place` where it belongs (`names.belongs`); `reading` what its
    rows are; `link` makes it a symbolic link to there.
    """

    number: int
    family: str
    how: str
    source: Source
    path: bytes
    data: bytes
    place: tuple[str, str, str]
    reading: Reading = field(default_factory=Reading)
    link: str = ""

    @property
    def title(self) -> str:
        """What it is, in a line."""
        return (
            f"case {self.number}: {self.source.name}, {self.family}, {self.how}, {self.path!r}, {len(self.data)} bytes"
        )


def make_case(con: duckdb.DuckDBPyConnection, seed: int, number: int) -> Case:
    """The case of this number. `con` writes Parquet."""
    group = number // TOGETHER
    group_rng = Random(f"{seed}/{group}")
    source = SOURCES[group_rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]]
    day = (names.START + timedelta(days=group % DAYS)).isoformat()
    rng = Random(f"{seed}/{group}/{number}")
    rows = [
        source.row(rng, group_rng.randrange(10_000) if rng.random() < 0.1 else rng.randrange(80_000))
        for _ in range(rng.randint(1, 25))
    ]
    kind = rng.choice(source.formats)
    if rng.random() < 0.1:
        rows.append(rng.choice(rows))
    if rng.random() < 0.08:
        return _of_name(con, rng, source, number, day, rows)
    if kind == "parquet":
        how, data, known, count, fault = parquet.shapes(rng, con, source, rows)
        made = _placed(number, f"parquet {how.split()[0]}", how, source, day, ".parquet", data)
        made.reading = _parquet_reading(source, known, count, fault)
        return made
    family = rng.choices(["bytes", "gzip", "shape", "values", "mislabelled"], [30, 12, 25, 28, 5])[0]
    ending = f".{kind}"
    if family == "values":
        how, rows = mutators.poisoned(rng, source, rows)
        data = mutators.render(source, kind, rows, rng)
    elif family == "shape":
        how, data = (mutators.csv_shapes if kind == "csv" else mutators.json_shapes)(rng, source, rows)
    else:
        data = mutators.render(source, kind, rows, rng)
        how = ""
    if family == "bytes":
        names_ = [rng.choice(list(mutators.BYTES)) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        for name in names_:
            data = mutators.BYTES[name](rng, data)
        how = "+".join(names_)
    elif family == "gzip":
        how = rng.choice(list(mutators.GZIP))
        data = mutators.GZIP[how](rng, data)
        ending += ".gz"
    elif family == "mislabelled":
        how = rng.choice(["gzip as text", "parquet as text", "text as parquet", "the other text", "html", "zeros"])
        data, ending = _mislabelled(rng, con, source, kind, rows, data, how)
    if family in ("values", "shape", "bytes") and rng.random() < 0.1:
        data, ending = mutators.pack(data), ending + ".gz"
    made = _placed(number, f"{kind} {family}", how, source, day, ending, data)
    if ending == ".parquet":
        made.reading = _parquet_reading(source, None, 1 if data else 0, "unreadable_file" if data else "empty_file")
    else:
        made.reading = read_file(source, "f" + ending, data)
    return made


def _placed(number: int, family: str, how: str, source: Source, day: str, ending: str, data: bytes) -> Case:
    folder = source.folder.replace("{date}", day).replace("{hour}", "07")
    path = f"{folder}/c{number:06d}{ending}".encode()
    return Case(number, family, how, source, path, data, names.belongs(source, path))


def _mislabelled(
    rng: Random, con: duckdb.DuckDBPyConnection, source: Source, kind: str, rows: list[Record], data: bytes, how: str
) -> tuple[bytes, str]:
    if how == "gzip as text":
        return mutators.pack(data), f".{kind}"
    if how == "parquet as text":
        return parquet.render(con, list(rows[0]), rows, {}), f".{kind}"
    if how == "text as parquet":
        return data, ".parquet" if "parquet" in source.formats else f".{kind}"
    if how == "the other text":
        other = "jsonl" if kind == "csv" else "csv"
        return mutators.render(source, other, rows), f".{kind}"
    if how == "html":
        return (
            b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head>\n<body>\n</body></html>\n",
            f".{kind}",
        )
    return b"\0" * rng.choice([1, 100, 100_000]), f".{kind}"


def _parquet_reading(source: Source, known: list[Record] | None, count: int | None, fault: str) -> Reading:
    if fault:
        return Reading(rules=(fault,), stands_for=count)
    if known is None:
        return Reading(stands_for=count, certain=False, rumoured=None)
    from tests.fuzz.oracle import _judged

    rows = []
    for line, record in enumerate(known, 1):
        texts = {n: _text(record.get(s.get("physicalName", n))) for n, s in source.columns.items()}
        # The payload is JSON of texts: two rows are twins where all columns are equal.
        judged = _judged(texts, source.columns)
        if any("\0" in str(value) for value in record.values()):
            judged = (BAD, {}, "encoding")
        rows.append(Row(line, repr(sorted(texts.items())), *judged, layout=ANY))
    return Reading(rows, rumoured=None)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _of_name(
    con: duckdb.DuckDBPyConnection, rng: Random, source: Source, number: int, day: str, rows: list[Record]
) -> Case:
    """A good file under a bad name, or a link that leads away."""
    kind = rng.choice([f for f in source.formats if f != "parquet"])
    data = mutators.render(source, kind, rows, rng)
    ending = f".{kind}" + (".gz" if rng.random() < 0.2 else "")
    if ending.endswith(".gz"):
        data = mutators.pack(data)
    path = names.path_of(rng, source, number, day, ending)
    made = Case(
        number, "name", "", source, path, data, names.belongs(source, path), read_file(source, "f" + ending, data)
    )
    if rng.random() < 0.1:
        made = _placed(number, "name", "", source, day, ending, b"")
        made.link = rng.choice(
            [
                "/etc/passwd",
                "/dev/zero",
                "/dev/stdin",
                "../../../../outside/secret.csv",
                "nowhere",
                ".",
                "/proc/self/environ",
            ]
        )
        made.place = ("told", "", "")
        made.how = f"link to {made.link}"
    if made.place[0] == "read":
        # The ending of the name decides what the file is; what only looks alike may be another format.
        made.reading = read_file(source, made.path.decode().rpartition("/")[2], data)
    return made


def day_of(case: Case) -> date:
    """The partition of a case that is read."""
    return date.fromisoformat(case.place[1])
