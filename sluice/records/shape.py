"""What all formats share: a file to be read, a file set aside, the text columns of `records`.

What only one format needs stays with it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass

from sluice.contracts import Contract
from sluice.lake import quoted
from sluice.preflight import Inspected

# Names of the columns a change feed has besides the contract's own.
OPERATION, SEQUENCE, SOURCE_TS = "_op", "_lsn", "_source_ts"


@dataclass(frozen=True)
class Origin:
    """A file records come from: its number among those at hand, its batch, and what its path and bytes say."""

    file_id: int
    batch_no: int
    path: str
    tokens: tuple[tuple[str, str], ...]
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


def text_columns(contract: Contract) -> list[TextColumn]:
    """The text columns of `records`, change feed columns first."""
    columns = []
    if contract.change_feed:
        columns += [
            TextColumn(OPERATION, "op"),
            TextColumn(SEQUENCE, contract.change_feed.sequence),
            TextColumn(SOURCE_TS, contract.change_feed.valid_from),
        ]
    return columns + [TextColumn(c.name, c.source_name) for c in contract.columns]


def missing_column(contract: Contract, names: Collection[str]) -> tuple[str, str, str] | None:
    """Rule, column and detail of the first required column that a file with columns `names` lacks; None if it has all.

    A file that has a column of a similar name, which the contract does not know, is asked whether it was renamed.
    """
    known = {c.source_name for c in text_columns(contract)}
    for column in contract.columns:
        if column.required and column.source_name not in names:
            close = difflib.get_close_matches(column.source_name, [n for n in names if n not in known], n=1, cutoff=0.5)
            hint = f" Was it renamed to {close[0]!r}?" if close else ""
            return (
                "missing_column",
                column.name,
                f"The file has no column {column.source_name!r}, which the contract requires.{hint} "
                "Mend the export or the contract.",
            )
    return None


def no_glob(path: str) -> str:
    """A path that DuckDB's file functions take literally."""
    return re.sub(r"([*?\[])", r"[\1]", path)
