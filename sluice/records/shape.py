"""What all formats share: a file to be read, a file set aside, the text columns of `records`.

What only one format needs stays with it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import duckdb

from sluice.contracts import Column, Contract
from sluice.preflight import Inspected
from sluice.records.json_paths import steps
from sluice.sql import quoted, temp_table

# Names of the columns a change feed has besides the contract's own.
OPERATION, SEQUENCE, SOURCE_TS = "_op", "_lsn", "_source_ts"


def further_sequence(number: int) -> str:
    """Name of the column with the second (2) or a later part of a change feed's order; the first is `SEQUENCE`."""
    return f"_seq_{number}"


# Rules of a file's columns: what breaks one refuses the batch.
SCHEMA_RULES = ("missing_column", "unexpected_column", "too_many_columns")

# A source grows by a few columns a year; more than this is another file, or data in the place of names. A hundred
# columns cost the transaction that adds them 0.6 s.
MOST_NEW_COLUMNS = 100

# A message is read by a person.
_LISTED = 5

# DuckLake writes the texts a query asks for into a question to its catalog, which ends at such a character. Measured: a
# single value with one, and every join on its column, every update and every build of what follows fails.
NUL_DETAIL = "holds the control character U+0000"

# What a CSV file's header numbers from 0 (`layout`) is this of JSON lines, and of what is no line of text.
JSON_LAYOUT, TAKEN_LAYOUT = -1, -2

# SQL of whether `raw`, a document of JSON, has the character in a name or text, where it stands only as this escape; an
# even number of backslashes before that are texts of their own.
JSON_HAS_NUL = r"CASE WHEN contains(raw, '\u0000') THEN regexp_matches(raw, '(^|[^\\])(\\\\)*\\u0000') ELSE false END"


@dataclass(frozen=True)
class Origin:
    """A file records come from: its number among those at hand, its batch, and what its path and bytes say."""

    file_id: int
    batch_no: int
    path: str
    tokens: tuple[tuple[str, str | None], ...]
    sha256: str = ""


@dataclass(frozen=True)
class SourceFile:
    """A file of the chunk being ingested: its number in it, the batch it belongs to, and what its bytes said."""

    file_id: int
    batch_no: int
    inspected: Inspected

    @property
    def origin(self) -> Origin:
        """Where its records come from."""
        file = self.inspected.file
        return Origin(self.file_id, self.batch_no, file.path, file.tokens, self.inspected.sha256)


@dataclass(frozen=True)
class LetterFile:
    """A file of which dead letters are taken again: where they come from, its format, the first line of a CSV file."""

    origin: Origin
    format: str
    header: str | None


@dataclass(frozen=True)
class FileFault:
    """A file that is set aside as a whole: why, and for how many rows it stands in the books."""

    file_id: int
    rule: str
    detail: str
    rows: int
    column: str | None = None


@dataclass(frozen=True)
class TextColumn:
    """A column of `records`, named `t_<name>` there, and the name or JSON path it has in the files."""

    name: str
    source_name: str

    @property
    def sql(self) -> str:
        """Its quoted name in `records`."""
        return quoted(f"t_{self.name}")


def feed_columns(contract: Contract) -> list[TextColumn]:
    """The text columns of a change feed's envelope: the operation first; none of a source that is no feed."""
    feed = contract.change_feed
    if feed is None:
        return []
    return [
        TextColumn(OPERATION, "op"),
        TextColumn(SEQUENCE, feed.sequence),
        TextColumn(SOURCE_TS, feed.valid_from),
        *(TextColumn(further_sequence(number), path) for number, path in enumerate(feed.further, 2)),
    ]


def text_columns(contract: Contract) -> list[TextColumn]:
    """The text columns of `records`, change feed columns first."""
    return feed_columns(contract) + [TextColumn(c.name, c.source_name) for c in contract.columns]


def misfit(contract: Contract, names: Collection[str]) -> tuple[str, str | None, str] | None:
    """Rule, column and detail for which no row of a file with columns `names` can be taken; None if they can.

    That is the first required column it lacks, or more new columns than a table can take in.
    """
    new = unexpected(contract, names)
    for column in contract.columns:
        if (column.required or column.primary_key) and column.source_name not in names:
            return "missing_column", column.name, lacks(contract, column, new)
    if contract.schema_evolution == "evolve" and len(new) > MOST_NEW_COLUMNS:
        return "too_many_columns", None, too_many(new)
    return None


def unexpected(contract: Contract, names: Collection[str]) -> list[str]:
    """Those of a file's columns that the contract does not know, in order."""
    known = {c.source_name for c in text_columns(contract)}
    return [n for n in names if n not in known]


def lacks(contract: Contract, column: Column, new: Collection[str], subject: str = "The file has no column") -> str:
    """What is said of a required column that is not there, and of what it is probably called now."""
    close = similar(column.source_name, new)
    hint = f"; it has {close!r}: if it was renamed, set physicalName of {column.name}" if close else ""
    return (
        f"{subject} {column.source_name!r}, which the contract requires{hint}. Mend the export and deliver it again, "
        f"or mend {contract.path.name}."
    )


def too_many(new: Collection[str], also: int = 0) -> str:
    """What is said of more new columns than a table can take in; it has `also` others already."""
    there = f" and {also} came before" if also else ""
    return (
        f"The file has {len(new)} columns that the contract does not know ({listed(new)}){there}; at most "
        f"{MOST_NEW_COLUMNS} come into a table. Declare them, or set schemaEvolution: discard."
    )


def similar(name: str, among: Collection[str]) -> str | None:
    """The one of some names that is most like `name`, whatever their case; None if none is."""
    folded = {n.strip().casefold(): n for n in among}
    close = difflib.get_close_matches(name.strip().casefold(), folded, n=1, cutoff=0.5)
    return folded[close[0]] if close else None


def listed(names: Collection[str]) -> str:
    """Names for a message: the first few, each as code would spell it."""
    shown = ", ".join(repr(n) for n in list(names)[:_LISTED])
    return shown + (" …" if len(names) > _LISTED else "")


def path_roots(contract: Contract) -> frozenset[str]:
    """The members of a JSON document of which the contract takes parts (`$.device.id`: device)."""
    if "jsonl" not in contract.landing.formats:
        return frozenset()
    paths = [c.source_name for c in text_columns(contract) if c.source_name.startswith("$")]
    return frozenset(step for path in paths for step in steps(path)[:1] if isinstance(step, str))


def note_columns(
    con: duckdb.DuckDBPyConnection, new: Sequence[tuple[int, str]], lacking: Sequence[tuple[int, str]]
) -> None:
    """Note in `file_drift` which columns files have that the contract does not know, and which of its own they lack."""
    rows = [(*pair, False) for pair in new] + [(*pair, True) for pair in lacking]
    if rows:
        temp_table(con, "noted_columns", "file_id INTEGER, name VARCHAR, lacking BOOLEAN", rows)
        con.execute("INSERT INTO file_drift FROM noted_columns")


def no_glob(path: str) -> str:
    """A path that DuckDB's file functions take literally."""
    return re.sub(r"([*?\[])", r"[\1]", path)
