"""Kafka as an event log, through librdkafka.

Partitions are assigned with the offsets asked for: no consumer group keeps a position, for the lake does. What is read
ends at the last stable offset, so that records of open transactions wait and those of aborted ones never show.

Belongs here: topics, offsets, and writing. What a client's error means is `sluice.eventlog.kafka_client`'s to say, how
records are fetched `sluice.eventlog.kafka_reader`'s; what settings may say is checked in `sluice.connections`; which
records were read is the lake's to know.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from confluent_kafka import (
    OFFSET_INVALID,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka import Message as Received
from confluent_kafka.admin import NewTopic, OffsetSpec  # type: ignore[attr-defined]

from sluice.errors import EventLogError, EventLogUnavailableError, OffsetLostError
from sluice.eventlog.kafka_client import LET_BE, PASSING, Clients
from sluice.eventlog.kafka_reader import Reader
from sluice.eventlog.protocol import Bounds, EventLog, Message, Slice, checked_name, lost, milliseconds

_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]

# No record came and nothing was confirmed for so long: the brokers are not there. A broker of a test restarts in 5
# seconds, one with many partitions within 30.
PATIENCE_SECONDS = 30.0

# A leader was chosen anew, and the client goes on asking by what it knows of the one before: it looks leaders up again
# for other errors only, and by itself after minutes.
_OUTDATED = {KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH}

_WRITING: dict[str, Any] = {
    # How large a record may be is the broker's and the topic's to say.
    "message.max.bytes": 1_000_000_000,
    "reconnect.backoff.max.ms": 1_000,
}
_WRITING_FIXED: dict[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    # As Java's clients do, so that a key is in one partition whoever sends it.
    "partitioner": "murmur2_random",
}


@dataclass(frozen=True)
class _Described:
    """A topic as the brokers describe it."""

    topic_id: str
    partitions: tuple[int, ...]
    led: bool


class KafkaLog(EventLog):
    """Topics of a Kafka. Nothing is connected to until it is asked for.

    Args:
        settings: of librdkafka, as `sluice.connections.kafka_client` gives them. They may hold passwords.
        patience: seconds without a sign of the brokers after which they count as unavailable.
    """

    def __init__(self, settings: Mapping[str, Any], *, patience: float = PATIENCE_SECONDS) -> None:
        self._clients = Clients(settings, patience)
        self._producer: Producer | None = None
        self._readers: dict[str, Reader] = {}
        # Not from the first partition, each time: who appends one record at a time would fill no other.
        self._turns = itertools.count(random.randrange(1 << 16))

    @property
    def name(self) -> str:
        """The brokers, which is what people call it."""
        return self._clients.name

    def close(self) -> None:
        """Let go of connections and of records fetched ahead."""
        for topic in list(self._readers):
            self._readers.pop(topic).close()
        self._producer = None
        self._clients.close()

    def topics(self) -> list[str]:
        """Names of the topics there are, Kafka's own left out, in order."""
        return self._clients.topics()

    def topic_id(self, topic: str) -> str:
        """The topic's UUID, which Kafka gives anew to each topic that is made (from Kafka 2.8 on)."""
        return self._described(topic).topic_id

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """The offsets of each partition; `end` is the last stable one."""
        return self._bounds(topic, self._described(topic).partitions)

    def read(self, topic: str, starts: Mapping[int, int], *, max_rows: int, max_bytes: int) -> list[Slice]:
        """Committed records from `starts` to the last stable offset, partitions sharing what is read."""
        described = self._described(topic)
        for number in starts:
            self._check(topic, described, number)
        bounds = self._bounds(topic, sorted(starts))
        for number, start in sorted(starts.items()):
            if not bounds[number].start <= start <= bounds[number].end:
                raise lost(topic, number, start, bounds[number])
        ends = {number: bounds[number].end for number, start in starts.items() if start < bounds[number].end}
        if not ends:
            return []
        reader = self._readers.get(topic)
        if reader is None or reader.topic_id != described.topic_id:
            self._forget(topic)
            reader = self._readers[topic] = Reader(
                self._clients, topic, described.topic_id, lambda number: self._bounds(topic, [number])[number]
            )
        try:
            found = reader.read(starts, ends, max_rows, max_bytes)
            if self._described(topic).topic_id != described.topic_id:
                raise OffsetLostError(f"The topic {topic} was deleted and made anew while it was read. Nothing counts.")
        except BaseException:
            # What it holds, and where it stands, may belong to what went wrong.
            self._forget(topic)
            raise
        return found

    def offsets_at(self, topic: str, when: datetime) -> dict[int, int]:
        """Of each partition the first offset of `when` or later."""
        partitions = self._described(topic).partitions
        at, ends = self._offsets(topic, partitions, OffsetSpec.for_timestamp(milliseconds(when)), _LATEST)
        # -1 where there is none.
        return {number: min(at[number], ends[number]) if at[number] >= 0 else ends[number] for number in partitions}

    def create(self, topic: str, partitions: int) -> None:
        """Make a topic with as many replicas as the brokers make by themselves, if it is not there."""
        checked_name(topic)
        if partitions < 1:
            raise EventLogError(f"The topic {topic} needs a partition or more, not {partitions}.")
        admin = self._clients.administration()
        try:
            self._clients.result(
                admin.create_topics([NewTopic(topic, partitions)], request_timeout=self._clients.patience)[topic]
            )
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise self._clients.failed(f"Cannot make the topic {topic}", error.args[0]) from None
        # The brokers learn of it one after the other, and who writes at once must not be told it is not there.
        deadline = time.monotonic() + self._clients.patience
        while True:
            try:
                described = self._described(topic)
                if described.led:
                    self._bounds(topic, described.partitions)
                    return
            except (EventLogError, EventLogUnavailableError):
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                raise EventLogUnavailableError(f"The topic {topic} was made, but has no leader yet. Try again.")
            time.sleep(0.05)

    def append(self, topic: str, messages: Iterable[Message], *, partition: int | None = None) -> int:
        """Append records, and wait until every replica in sync has them.

        Raises:
            EventLogError: one of them was refused. Those before it, and of other partitions, may have been appended.
            EventLogUnavailableError: not all were confirmed in time. Those that were not may still have been appended.
        """
        described = self._described(topic)
        if partition is not None:
            self._check(topic, described, partition)
        # Whole before the first is sent: who cannot make them all has appended none.
        given = list(messages)
        for message in given:
            if message.timestamp_ms is not None and message.timestamp_ms <= 0:
                raise EventLogError(
                    f"A record of {topic} is of {message.timestamp_ms} milliseconds since 1970, which Kafka's client "
                    "takes for now. Leave the time out, or mend it."
                )
        if self._producer is None:
            timeout = {"message.timeout.ms": max(int(self._clients.patience * 1000), 1)}
            self._producer = self._clients.client(Producer, timeout | _WRITING, _WRITING_FIXED)
        producer = self._producer
        unsent: list[KafkaError] = []
        try:
            for number, message in enumerate(given):
                self._send(producer, topic, message, self._place(described, message, partition), unsent)
                if number % 1_000 == 0:
                    producer.poll(0)
                if unsent:
                    break
            left = self._flushed(producer, unsent)
        except BaseException:
            self._abandon(producer)
            raise
        if unsent or left:
            self._abandon(producer)
            error = next((e for e in unsent if e.code() not in PASSING), unsent[0] if unsent else None)
            raise self._clients.failed(f"Not all of {len(given)} records for {topic} were appended", error, topic)
        return len(given)

    def _place(self, described: _Described, message: Message, partition: int | None) -> int:
        if partition is not None:
            return partition
        # -1 leaves it to the client, which goes by the key.
        return -1 if message.key is not None else described.partitions[next(self._turns) % len(described.partitions)]

    def _send(self, producer: Producer, topic: str, message: Message, place: int, unsent: list[KafkaError]) -> None:
        def delivered(error: KafkaError | None, _: Received) -> None:
            if error is not None:
                unsent.append(error)

        given: dict[str, Any] = {} if message.timestamp_ms is None else {"timestamp": message.timestamp_ms}
        while True:
            try:
                producer.produce(
                    topic,
                    value=message.value,
                    key=message.key,
                    partition=place,
                    headers=list(message.headers) or None,
                    on_delivery=delivered,
                    **given,
                )
                return
            except BufferError:
                # The queue is full: room comes with what is confirmed, or with what times out.
                producer.poll(0.1)
            except KafkaException as error:
                unsent.append(error.args[0])
                return

    def _flushed(self, producer: Producer, unsent: list[KafkaError]) -> int:
        """Wait for what was sent; how much of it nobody has heard of."""
        # As long as something is confirmed; the client itself gives each record up after `patience`.
        deadline = time.monotonic() + self._clients.patience + 1
        left = len(producer)
        while left and not any(error.code() not in PASSING for error in unsent) and time.monotonic() < deadline:
            now = producer.flush(0.2)
            if now < left:
                deadline = time.monotonic() + self._clients.patience + 1
            left = now
            self._clients.refuse()
        return left

    def _abandon(self, producer: Producer) -> None:
        """Have a producer forget what it has not sent, that it may not come later, and be used no more."""
        producer.purge()
        producer.flush(0)
        self._producer = None

    def _check(self, topic: str, described: _Described, partition: int) -> None:
        if partition not in described.partitions:
            raise EventLogError(f"The topic {topic} has no partition {partition}; it has {len(described.partitions)}.")

    def _described(self, topic: str) -> _Described:
        checked_name(topic)
        deadline = time.monotonic() + self._clients.patience
        found = None
        while found is None:
            request = self._clients.administration().describe_topics(
                TopicCollection([topic]), request_timeout=self._clients.patience
            )
            try:
                found = self._clients.result(request[topic])
            except KafkaException as error:
                # A broker that did not answer for a while is there again, by another connection.
                if error.args[0].code() != KafkaError._DESTROY_BROKER or time.monotonic() > deadline:
                    raise self._clients.failed(f"Cannot look the topic {topic} up", error.args[0], topic) from None
        numbers = sorted(p.id for p in found.partitions)
        led = all(p.leader is not None for p in found.partitions)
        return _Described(str(found.topic_id), tuple(numbers), led)

    def _bounds(self, topic: str, partitions: Sequence[int]) -> dict[int, Bounds]:
        starts, ends = self._offsets(topic, partitions, _EARLIEST, _LATEST)
        return {number: Bounds(starts[number], ends[number]) for number in partitions}

    def _offsets(self, topic: str, partitions: Sequence[int], *which: OffsetSpec) -> list[dict[int, int]]:
        """Of each partition an offset, for each that is asked for; the latest is the last stable one."""
        if not partitions:
            return [{} for _ in which]
        deadline = time.monotonic() + self._clients.patience
        while True:
            admin = self._clients.administration()
            requests = [
                admin.list_offsets(
                    {TopicPartition(topic, number): each for number in partitions},
                    isolation_level=IsolationLevel.READ_COMMITTED,
                    request_timeout=self._clients.patience,
                )
                for each in which
            ]
            trouble: KafkaError | None = None
            try:
                found = [
                    {place.partition: self._clients.result(r).offset for place, r in each.items()} for each in requests
                ]
                # The client's answer for a leader that gave none in time is no error but this, for each of its
                # partitions.
                if not any(OFFSET_INVALID in each.values() for each in found):
                    return found
            except KafkaException as error:
                # A partition changes its leader, or was made this moment.
                trouble = error.args[0]
            if (trouble is not None and trouble.code() not in LET_BE) or time.monotonic() > deadline:
                raise self._clients.failed(f"Cannot look up the offsets of {topic}", trouble, topic)
            if trouble is not None and trouble.code() in _OUTDATED:
                self._clients.close()
            time.sleep(0.05)

    def _forget(self, topic: str) -> None:
        reader = self._readers.pop(topic, None)
        if reader is not None:
            reader.close()
