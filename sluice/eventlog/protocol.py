"""What an event log is: the few calls ingest, capture and replay need, whoever keeps the log.

Records travel as Arrow tables, so that nothing between log and lake handles them one by one. How an implementation
stores or fetches them belongs to its own module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import pyarrow as pa

# A record as every log gives it. Times are milliseconds since 1970, UTC, as Kafka has them. A null value is a
# tombstone.
RECORDS = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp_ms", pa.int64(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))),
    ]
)


@dataclass(frozen=True)
class Message:
    """A record to be appended: key and value as bytes, either of which may be absent, and headers in order."""

    value: bytes | None
    key: bytes | None = None
    timestamp_ms: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Bounds:
    """The offsets a partition has now, `[start, end)`. `end` is where readers of committed records may go."""

    start: int
    end: int


@dataclass(frozen=True)
class Slice:
    """What was read of one partition: the records with offsets in `[start, stop)`, in order, as `RECORDS`.

    Offsets may be missing within, where a log was compacted or holds records of aborted transactions: `stop` is where
    the next read begins, not the last record's offset and one.
    """

    topic: str
    partition: int
    start: int
    stop: int
    records: pa.Table


class EventLog(Protocol):
    """A log that is read by range. Positions are the reader's to keep: no call here remembers any.

    Raises (every method):
        EventLogError: the topic is not there, or what was asked cannot be had; the message says what to do.
        EventLogUnavailableError: the log cannot be reached now; trying again may help.
    """

    @property
    def name(self) -> str:
        """What people call it, without secrets: `embedded`, or the brokers of a Kafka."""
        ...

    def topics(self) -> list[str]:
        """Names of the topics there are, in order."""
        ...

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """The offsets of each partition of a topic.

        Only committed records count: one whose transaction is open, and all behind it, lie past `end`.
        """
        ...

    def read(self, topic: str, starts: Mapping[int, int], *, max_rows: int, max_bytes: int) -> list[Slice]:
        """Read committed records of partitions, from `starts` (partition to offset) up to their end as of now.

        Partitions share `max_rows` and `max_bytes` (of keys and values) fairly, so that none starves; at least one
        record is read where there is one, however large. A partition with nothing new has no slice.

        Raises:
            OffsetLostError: a start lies before what the log still holds, or past its end.
        """
        ...

    def offsets_at(self, topic: str, when: datetime) -> dict[int, int]:
        """Of each partition the first offset whose record is of `when` (UTC) or later; the end where there is none."""
        ...

    def create(self, topic: str, partitions: int) -> None:
        """Make a topic, if it is not there; an existing one is left as it is, whatever number of partitions it has."""
        ...

    def append(self, topic: str, messages: Iterable[Message], *, partition: int | None = None) -> int:
        """Append records durably, in order within a partition; the number appended.

        Args:
            topic: an existing one.
            messages: to be appended. A message's time is now unless it says.
            partition: where they go; else those of one key to one partition, chosen by the key's hash, and those
                without a key in turns.
        """
        ...


def records(rows: Iterable[tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes]] | None]]) -> pa.Table:
    """An Arrow table of `RECORDS` of (offset, milliseconds, key, value, headers)."""
    columns: list[list[object]] = [[], [], [], [], []]
    for row in rows:
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    headers = [None if h is None else [{"name": n, "value": v} for n, v in h] for h in columns[4]]  # type: ignore[attr-defined]
    return pa.table([*columns[:4], headers], schema=RECORDS)
