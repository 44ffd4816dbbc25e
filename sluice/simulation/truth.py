"""The right answers of a simulated landing area, and their JSON form.

What belongs here: the shapes of the truth and how they are written and read. What does not: how any number
comes about, which the modules do that make the rows.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class LedgerTruth:
    """What must become of the rows of a source or of one of its partitions.

    Always `rows_read == accepted + dead_lettered + duplicates`.

    Attributes:
        rows_read: data lines in the files; headers are not counted, a malformed line is one row.
        accepted: rows that meet their contract, the first of each set of duplicates included.
        dead_lettered: rows that break their contract, again the first of each set of duplicates.
        duplicates: exact repetitions of an earlier line of the same file (events: of the same date).

    """

    rows_read: int
    accepted: int
    dead_lettered: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Version:
    """A state of a product or customer during a half-open interval of time.

    Attributes:
        key: the stock code or customer id.
        valid_from: first instant of the state, UTC with milliseconds.
        valid_to: first instant after the state, UTC; None while it lasts.
        attributes: the columns other than the key; for a deleted version the last ones before the deletion.
        is_deleted: whether the source had no row of this key during the interval.

    """

    key: str
    valid_from: datetime
    valid_to: datetime | None
    attributes: dict[str, str | None]
    is_deleted: bool


@dataclass(frozen=True)
class Truth:
    """Everything a correct platform must arrive at after all files of a landing area are loaded.

    Attributes:
        ledger: rows by source: orders, products, customers, events.
        ledger_by_partition: the same by source and partition: `YYYY-MM-DD`, for orders `YYYY-MM-DD|uk`. Only
            partitions that have a file are listed.
        reasons: rejected rows by source and rule; a row that breaks two rules counts in both, a dropped
            duplicate of a rejected row in none.
        arrivals: (day index from 0, path relative to the landing folder) of every file, in that order.
        versions: the versions of products and customers, ordered by key and valid_from.
        facts: the totals of the marts; counts as int, money as decimal text with 4 places.
        revenue_by_day_region: quantity x price by `YYYY-MM-DD|region`, decimal text with 4 places.

    """

    ledger: dict[str, LedgerTruth]
    ledger_by_partition: dict[str, dict[str, LedgerTruth]]
    reasons: dict[str, dict[str, int]]
    arrivals: list[tuple[int, str]]
    versions: dict[str, list[Version]]
    facts: dict[str, str | int]
    revenue_by_day_region: dict[str, str]

    def write(self, path: Path) -> None:
        """Write the truth as JSON (UTF-8; instants as ISO-8601 text with offset).

        Args:
            path: the file to write; its folder must exist.

        Raises:
            OSError: the file cannot be written.

        """
        text = json.dumps(asdict(self), ensure_ascii=False, indent=1, default=datetime.isoformat)
        path.write_text(text + "\n", encoding="utf-8", newline="\n")

    @classmethod
    def read(cls, path: Path) -> Truth:
        """Read what `write` wrote.

        Args:
            path: the JSON file.

        Returns:
            A truth equal to the one written.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is not JSON or holds an invalid instant.
            KeyError: a part is missing.

        """
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            ledger={source: LedgerTruth(**counts) for source, counts in raw["ledger"].items()},
            ledger_by_partition={
                source: {key: LedgerTruth(**counts) for key, counts in partitions.items()}
                for source, partitions in raw["ledger_by_partition"].items()
            },
            reasons=raw["reasons"],
            arrivals=[(day, name) for day, name in raw["arrivals"]],
            versions={source: [_version(entry) for entry in entries] for source, entries in raw["versions"].items()},
            facts=raw["facts"],
            revenue_by_day_region=raw["revenue_by_day_region"],
        )


def _version(entry: dict[str, Any]) -> Version:
    ends = entry["valid_to"]
    return Version(
        key=entry["key"],
        valid_from=datetime.fromisoformat(entry["valid_from"]),
        valid_to=None if ends is None else datetime.fromisoformat(ends),
        attributes=entry["attributes"],
        is_deleted=entry["is_deleted"],
    )
