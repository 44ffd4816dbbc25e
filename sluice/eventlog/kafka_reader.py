"""Fetching a Kafka topic's records: what was fetched and not yet asked for is held, as Arrow, and not fetched again.

Belongs here: one consumer of one topic. Which offsets there are, and whether the topic is still the same, its user
asks (`sluice.eventlog.kafka`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as Received

from sluice.eventlog.kafka_client import LET_BE, UNKNOWN, Clients
from sluice.eventlog.protocol import RECORDS, Bounds, Slice, fair_share, lost, weight, within

# Taken from the client at once. Of more than some thousand a call costs nothing to speak of.
_BATCH = 10_000

# What a partition may be ahead of what is asked of it, while others are waited for: records that are fetched together
# with theirs. Past it the partition pauses, or memory would fill.
_AHEAD_ROWS = 200_000
_AHEAD_BYTES = 64 * 1024 * 1024

_READING: dict[str, Any] = {
    # The client asks for one, and the name is all there is to it: it joins nothing and commits nothing.
    "group.id": "sluice",
    # How long a broker waits at the end of a partition before it says so. A transaction ends in a marker that is no
    # record: behind it every read waits for this answer.
    "fetch.wait.max.ms": 50,
    # The client stops fetching with 100,000 records in store, by default for a second: a reader who is faster idles.
    # Of a million small records on two busy cores it gave 170,000 a second by default, and so 700,000.
    "fetch.queue.backoff.ms": 10,
    "fetch.error.backoff.ms": 100,
    # A broker gives a record whole, however large; the client refuses answers above this.
    "receive.message.max.bytes": 2_147_483_647,
    # Ten seconds by default: a restarted broker would be found too late.
    "reconnect.backoff.max.ms": 1_000,
}
_READING_FIXED: dict[str, Any] = {
    "isolation.level": "read_committed",
    "enable.partition.eof": True,
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # Whoever asks for an offset that is gone must be told, not given another.
    "auto.offset.reset": "error",
    "check.crcs": True,
}


@dataclass
class _Held:
    """Records of a partition that were fetched and not yet handed out."""

    # Every record before this offset was handed out or is held.
    reached: int
    # As Arrow at once: a million messages as objects cost more in Python's garbage collector than in all else.
    tables: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0

    def add(self, table: pa.Table) -> None:
        """Hold records that follow those held."""
        self.tables.append(table)
        self.rows += table.num_rows
        self.bytes += weight(table)
        self.reached = table.column("offset")[-1].as_py() + 1

    def below(self, end: int) -> tuple[int, int]:
        """Records and bytes of them that lie before an offset."""
        if not self.tables or self.tables[-1].column("offset")[-1].as_py() < end:
            return self.rows, self.bytes
        found = self._before(end)
        return found.num_rows, weight(found)

    def take(self, end: int, max_rows: int, max_bytes: int) -> tuple[pa.Table, bool]:
        """Hand out the first ones before an offset, one at least where there is one; whether that is all of them."""
        before = self._before(end)
        taken = within(before, max_rows, max_bytes)
        whole = pa.concat_tables([RECORDS.empty_table(), *self.tables])
        self.tables = [whole.slice(taken.num_rows)] if taken.num_rows < self.rows else []
        self.rows -= taken.num_rows
        self.bytes -= weight(taken)
        # Few large pieces are quicker to go on with than many small ones, and copying them costs less than reading.
        return taken.combine_chunks(), taken.num_rows == before.num_rows

    def _before(self, end: int) -> pa.Table:
        held = pa.concat_tables([RECORDS.empty_table(), *self.tables])
        return held.slice(0, pc.sum(pc.less(held.column("offset"), end)).as_py() or 0)


class Reader:
    """A consumer of one topic, which goes on from read to read as long as each begins where the last has ended.

    Args:
        clients: of the Kafka.
        topic: to read.
        topic_id: of the topic as it was when reading began.
        bounds: tells the offsets of a partition there are.
    """

    def __init__(self, clients: Clients, topic: str, topic_id: str, bounds: Callable[[int], Bounds]) -> None:
        self.topic_id = topic_id
        self._clients = clients
        self._topic = topic
        self._bounds = bounds
        self._consumer: Consumer = clients.client(Consumer, _READING, _READING_FIXED)
        # Where the next read is expected to begin.
        self._next: dict[int, int] = {}
        self._held: dict[int, _Held] = {}
        self._paused: set[int] = set()

    def close(self) -> None:
        """Let go of the connection, and of what is held."""
        self._consumer.close()

    def read(self, starts: Mapping[int, int], ends: Mapping[int, int], max_rows: int, max_bytes: int) -> list[Slice]:
        """Records of partitions from `starts` to `ends`; those with nothing between are in `starts` alone."""
        if self._next != dict(starts):
            self._held = {number: _Held(start) for number, start in starts.items()}
            self._next = dict(starts)
            self._assign()
        elif self._paused:
            self._assign()
        self._fetch(ends, max_rows, max_bytes)
        rows, size = self._shares(ends, max_rows, max_bytes)
        found = []
        for number, end in sorted(ends.items()):
            held = self._held[number]
            reached = held.reached
            taken, all_ = held.take(end, rows, size)
            stop = end if all_ and reached >= end else taken.column("offset")[-1].as_py() + 1
            found.append(Slice(self._topic, number, starts[number], stop, taken))
            self._next[number] = stop
        return found

    def _assign(self) -> None:
        if self._paused:
            # Or it stays paused: the client keeps that for the partition, whoever assigns it anew.
            self._consumer.resume([TopicPartition(self._topic, number) for number in self._paused])
            self._paused = set()
        self._consumer.assign([TopicPartition(self._topic, n, held.reached) for n, held in self._held.items()])

    def _shares(self, ends: Mapping[int, int], max_rows: int, max_bytes: int) -> tuple[int, int]:
        """Records and bytes each partition may hand out, as far as is known what they have."""
        rows, sizes, open_ = [], [], 0
        for number, end in ends.items():
            held = self._held[number]
            if held.reached >= end or number in self._paused:
                count, size = held.below(end)
                rows.append(count)
                sizes.append(size)
            else:
                open_ += 1
        return fair_share(max_rows, rows, open_), fair_share(max_bytes, sizes, open_)

    def _fetch(self, ends: Mapping[int, int], max_rows: int, max_bytes: int) -> None:
        """Hold what a read will hand out: of each partition its share, or all before its end."""
        deadline = time.monotonic() + self._clients.patience
        while True:
            rows, size = self._shares(ends, max_rows, max_bytes)
            wanted = 0
            for number, end in ends.items():
                held = self._held[number]
                if number in self._paused or held.reached >= end or held.bytes >= size:
                    continue
                wanted += max(min(rows - held.rows, end - held.reached), 0)
            if not wanted:
                return
            # Without waiting, for it would wait until there are so many; and if there is none, for one.
            batch = self._consumer.consume(min(wanted, _BATCH), 0) or self._consumer.consume(1, 0.1)
            if self._keep(batch):
                deadline = time.monotonic() + self._clients.patience
            elif time.monotonic() > deadline:
                raise self._clients.failed(
                    f"Nothing came of {self._topic} for {self._clients.patience:g} seconds", None
                )
            self._clients.refuse()
            self._pause(ends, rows, size)

    def _keep(self, batch: list[Any]) -> bool:
        """Take in what the client has fetched; whether it brings anybody on."""
        moved = False
        told = [message for message in batch if message.error() is not None]
        messages = [message for message in batch if message.error() is None] if told else batch
        # They come in runs, a partition's share of a fetch.
        for number, run in itertools.groupby(messages, Received.partition):
            held = self._held.get(number or 0)
            own = list(run)
            if held is not None and own[0].offset() < held.reached:
                own = [message for message in own if message.offset() >= held.reached]
            if held is not None and own:
                held.add(_table(own))
                moved = True
        # Only then: the end of a partition lies behind its records.
        for message in told:
            moved = self._told(message, message.error()) or moved
        return moved

    def _told(self, message: Any, error: KafkaError) -> bool:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            # Up to here nothing that may be read is left: what is missing was compacted, aborted, or a marker.
            held = self._held[message.partition()]
            moved: bool = message.offset() > held.reached
            held.reached = max(held.reached, message.offset())
            return moved
        if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION, KafkaError.OFFSET_OUT_OF_RANGE):
            number = message.partition()
            raise lost(self._topic, number, self._held[number].reached, self._bounds(number))
        if code in LET_BE or (code not in UNKNOWN and error.retriable()):
            return False
        raise self._clients.failed(f"Cannot read {self._topic}", error, self._topic)

    def _pause(self, ends: Mapping[int, int], rows: int, size: int) -> None:
        ahead = [
            number
            for number, held in self._held.items()
            if number not in self._paused
            and (
                (held.rows > rows + _AHEAD_ROWS or held.bytes > size + _AHEAD_BYTES)
                or (number not in ends and (held.rows > _AHEAD_ROWS or held.bytes > _AHEAD_BYTES))
            )
        ]
        if ahead:
            self._paused.update(ahead)
            self._consumer.pause([TopicPartition(self._topic, number) for number in ahead])


def _table(messages: Sequence[Any]) -> pa.Table:
    # Column by column, and each without a line of Python for a record.
    columns = [
        pa.array(list(map(Received.offset, messages)), pa.int64()),
        pa.array([ms for _, ms in map(Received.timestamp, messages)], pa.int64()),
        pa.array(list(map(Received.key, messages)), pa.binary()),
        pa.array(list(map(Received.value, messages)), pa.binary()),
        pa.array(list(map(Received.headers, messages)), RECORDS.field("headers").type),
    ]
    return pa.Table.from_arrays(columns, schema=RECORDS)
