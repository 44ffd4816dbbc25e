"""What an event log is: the few calls ingest, capture and replay need, whoever keeps the log.

Records travel as Arrow tables, so that nothing between log and lake handles them one by one. How an implementation
stores or fetches them belongs to its own module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc

from sluice.errors import EventLogError, OffsetLostError

# Kafka's rule for names, so that a topic can move from one log to the other. The embedded log's folders are named so.
TOPIC = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

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
    the next read begins, not the last record's offset and one. A slice may hold no record at all, and moves on all the
    same: a range in which every transaction was aborted.
    """

    topic: str
    partition: int
    start: int
    stop: int
    records: pa.Table


class EventLog(Protocol):
    """A log that is read by range; implementations inherit it. Positions are the reader's to keep: none is remembered.

    For one thread at a time. A context manager that closes at its end.

    Raises (every method):
        EventLogError: the topic is not there, or what was asked cannot be had; the message says what to do.
        EventLogUnavailableError: the log cannot be reached now; trying again may help.
    """

    @property
    def name(self) -> str:
        """What people call it, without secrets: `embedded`, or the brokers of a Kafka."""
        ...

    def close(self) -> None:
        """Let go of connections. It may be called twice, and a later call of another method opens them anew."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def topics(self) -> list[str]:
        """Names of the topics there are, in order."""
        ...

    def topic_id(self, topic: str) -> str:
        """What tells a topic from another of the same name, made after it was deleted.

        Offsets of the one mean nothing in the other. Whoever keeps positions keeps this with them, and compares: by
        offsets alone it shows only until the new one has as many records.
        """
        ...

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """The offsets of each partition of a topic.

        Only committed records count: one whose transaction is open, and all behind it, lie past `end`.
        """
        ...

    def read(self, topic: str, starts: Mapping[int, int], *, max_rows: int, max_bytes: int) -> list[Slice]:
        """Read committed records of partitions, from `starts` (partition to offset) up to their end as of now.

        Partitions share `max_rows` and `max_bytes` (of keys and values) fairly, so that none starves; of each at least
        one record is read where there is one, however large. A partition with nothing new has no slice.

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


def checked_name(topic: str) -> str:
    """The name, if a topic may be called so.

    Raises:
        EventLogError: it may not.
    """
    if not TOPIC.fullmatch(topic):
        raise EventLogError(
            f"A topic cannot be named {topic!r}. Use letters, digits, dots, underscores and hyphens, at most 249."
        )
    return topic


def unknown_topic(topic: str, place: str, known: Iterable[str]) -> EventLogError:
    """The error for a topic that is not there; `known` are those that are."""
    names = list(known)
    # Enough to see a typo by; a cluster may hold thousands.
    listed = (
        ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") if names else "none yet"
    )
    return EventLogError(
        f"There is no topic {topic!r} in {place}; there are: {listed}. If the name is right, "
        f"`sluice topics create {topic}` makes it."
    )


def lost(topic: str, partition: int, start: int, bounds: Bounds) -> OffsetLostError:
    """The error for a start that the log does not hold."""
    return OffsetLostError(
        f"{topic} partition {partition}: offset {start} was to be read next, but the log holds "
        f"[{bounds.start}, {bounds.end}). Records were let go of unread, or the topic was made anew."
    )


def milliseconds(when: datetime) -> int:
    """The first whole millisecond since 1970 that is not before `when` (UTC unless it says), and not below zero."""
    since = when.replace(tzinfo=when.tzinfo or UTC) - _EPOCH
    # In whole numbers: as a float of seconds it would be off by a microsecond, and a record left out.
    return max(-(-since // timedelta(milliseconds=1)), 0)


def fair_share(total: int, ready: Iterable[int], others: int = 0) -> int:
    """The most each partition may take so that all together take no more than `total`, but at least one.

    Who has less than the share leaves the rest to the others.

    Args:
        total: what there is for all.
        ready: what some partitions have, and no more than that.
        others: how many more there are, with plenty each.
    """
    amounts = sorted(ready)
    count = len(amounts) + others
    for amount in amounts:
        if amount * count > total:
            break
        total -= amount
        count -= 1
    # Nobody is cut short.
    return max(total // count, 1) if count else max([*amounts, 1])


def within(table: pa.Table, max_rows: int, max_bytes: int, *, least: int = 1) -> pa.Table:
    """As many of a table's first records as the bounds allow, at least `least`; bytes are of keys and values."""
    table = table.slice(0, max(max_rows, least))
    if table.num_rows <= least or weight(table) <= max_bytes:
        return table
    sums = pc.cumulative_sum(_sizes(table))
    return table.slice(0, max(pc.sum(pc.less_equal(sums, max_bytes)).as_py(), least))


def weight(table: pa.Table) -> int:
    """Bytes of the keys and values of a table of records."""
    return int(pc.sum(_sizes(table)).as_py() or 0)


def _sizes(table: pa.Table) -> pa.ChunkedArray:
    lengths = [pc.fill_null(pc.binary_length(table.column(name)), 0).cast(pa.int64()) for name in ("key", "value")]
    return pc.add(*lengths)
