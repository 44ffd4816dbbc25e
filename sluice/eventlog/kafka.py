"""Kafka as an event log, through librdkafka.

Partitions are assigned with the offsets asked for: no consumer group keeps a position, for the lake does. What is read
ends at the last stable offset, so that records of open transactions wait and those of aborted ones never show.

Belongs here: everything that knows Kafka's client. What its settings may say is checked in `sluice.connections`; which
records were read is the lake's to know.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka import Message as Received
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from sluice.errors import ConfigurationError, EventLogError, EventLogUnavailableError, OffsetLostError, SluiceError
from sluice.eventlog.protocol import (
    RECORDS,
    Bounds,
    Message,
    Slice,
    checked_name,
    fair_share,
    lost,
    milliseconds,
    unknown_topic,
    weight,
    within,
)

_T = TypeVar("_T")

_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]

# Kafka's own: positions of consumer groups, transactions.
_INTERNAL = "__"

# No record came and nothing was confirmed for so long: the brokers are not there. A broker of a test restarts in 5
# seconds, one with many partitions within 30.
PATIENCE_SECONDS = 30.0

# Taken from the client at once. Of more than some thousand a call costs nothing to speak of.
_BATCH = 10_000

# What a partition may be ahead of what is asked of it, while others are waited for: records that are fetched together
# with theirs. Past it the partition pauses, or memory would fill.
_AHEAD_ROWS = 200_000
_AHEAD_BYTES = 64 * 1024 * 1024

# Only speaks when it cannot go on: what goes wrong is raised here, with the client's own words. `log_level` and `debug`
# among the settings make it talk.
_QUIET = {"log_level": 2}

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

_REFUSED = {
    KafkaError._AUTHENTICATION: "Mend the user or password in SLUICE_KAFKA.",
    KafkaError.SASL_AUTHENTICATION_FAILED: "Mend the user or password in SLUICE_KAFKA.",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "Grant the user the right to describe, read and write the topic.",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "Grant the user the right.",
    KafkaError.MSG_SIZE_TOO_LARGE: "Raise max.message.bytes of the topic, or send smaller records.",
    KafkaError.INVALID_TIMESTAMP: "Mend the records' times, or message.timestamp.after.max.ms of the topic.",
}
# Kafka says these itself may pass, or the client could not reach it.
_PASSING = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._WAIT_COORD,
    KafkaError._RESOLVE,
    # Also what a broker says that is just coming up.
    KafkaError._SSL,
    KafkaError._PURGE_QUEUE,
    KafkaError._PURGE_INFLIGHT,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_CONTROLLER,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}
# Said of partitions whose brokers the client is about to look up anew, and of the group nobody joins.
_LET_BE = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
}
_UNKNOWN = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}

# Values of settings that a message may show.
_TOLD = {"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI"}


@dataclass(frozen=True)
class _Described:
    """A topic as the brokers describe it."""

    topic_id: str
    partitions: tuple[int, ...]
    led: bool


class KafkaLog:
    """Topics of a Kafka; an `EventLog`. Nothing is connected to until it is asked for.

    Args:
        settings: of librdkafka, as `sluice.connections.kafka_client` gives them. They may hold passwords.
        patience: seconds without a sign of the brokers after which they count as unavailable.
    """

    def __init__(self, settings: Mapping[str, Any], *, patience: float = PATIENCE_SECONDS) -> None:
        self._settings = {**_QUIET, **settings}
        self._patience = patience
        # What a client said of its connections last, for the message of the error that follows from it.
        self._said: KafkaError | None = None
        self._said_at = 0.0
        self._admin: AdminClient | None = None
        self._producer: Producer | None = None
        self._readers: dict[str, _Reader] = {}
        # Not from the first partition, each time: who appends one record at a time would fill no other.
        self._turns = itertools.count(random.randrange(1 << 16))

    @property
    def name(self) -> str:
        """The brokers, which is what people call it."""
        return str(self._settings["bootstrap.servers"])

    def close(self) -> None:
        """Let go of connections and of records fetched ahead."""
        for topic in list(self._readers):
            self._readers.pop(topic).close()
        self._producer = self._admin = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def topics(self) -> list[str]:
        """Names of the topics there are, Kafka's own left out, in order."""
        admin = self._administration()
        deadline = time.monotonic() + self._patience
        while True:
            try:
                # By the second: while it waits, the client does not tell that it is refused.
                found = admin.list_topics(timeout=min(self._patience, 1))
                return sorted(name for name in found.topics if not name.startswith(_INTERNAL))
            except KafkaException as error:
                admin.poll(0)
                self._refuse()
                if error.args[0].code() not in _PASSING or time.monotonic() > deadline:
                    raise self._failed("Cannot list the topics", error.args[0]) from None

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
            reader = self._readers[topic] = _Reader(self, topic, described.topic_id)
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
        admin = self._administration()
        try:
            self._result(admin.create_topics([NewTopic(topic, partitions)], request_timeout=self._patience)[topic])
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise self._failed(f"Cannot make the topic {topic}", error.args[0]) from None
        # The brokers learn of it one after the other, and who writes at once must not be told it is not there.
        deadline = time.monotonic() + self._patience
        while True:
            try:
                described = self._described(topic)
                if described.led:
                    self._bounds(topic, described.partitions)
                    return
            except EventLogError:
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
            timeout = {"message.timeout.ms": max(int(self._patience * 1000), 1)}
            self._producer = self._client(Producer, timeout | _WRITING, _WRITING_FIXED)
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
            error = next((e for e in unsent if e.code() not in _PASSING), unsent[0] if unsent else None)
            raise self._failed(f"Not all of {len(given)} records for {topic} were appended", error, topic)
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
        deadline = time.monotonic() + self._patience + 1
        left = len(producer)
        while left and not any(error.code() not in _PASSING for error in unsent) and time.monotonic() < deadline:
            now = producer.flush(0.2)
            if now < left:
                deadline = time.monotonic() + self._patience + 1
            left = now
            self._refuse()
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
        request = self._administration().describe_topics(TopicCollection([topic]), request_timeout=self._patience)
        try:
            found = self._result(request[topic])
        except KafkaException as error:
            raise self._failed(f"Cannot look the topic {topic} up", error.args[0], topic) from None
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
        admin = self._administration()
        deadline = time.monotonic() + self._patience
        while True:
            requests = [
                admin.list_offsets(
                    {TopicPartition(topic, number): each for number in partitions},
                    isolation_level=IsolationLevel.READ_COMMITTED,
                    request_timeout=self._patience,
                )
                for each in which
            ]
            try:
                return [{place.partition: self._result(r).offset for place, r in each.items()} for each in requests]
            except KafkaException as error:
                # A partition changes its leader, or was made this moment.
                if error.args[0].code() not in _LET_BE or time.monotonic() > deadline:
                    raise self._failed(f"Cannot look up the offsets of {topic}", error.args[0], topic) from None
            time.sleep(0.05)

    def _administration(self) -> AdminClient:
        if self._admin is None:
            self._admin = self._client(AdminClient, {"reconnect.backoff.max.ms": 1_000}, {})
        return self._admin

    def _client(self, kind: Callable[[dict[str, Any]], _T], usual: Mapping[str, Any], fixed: Mapping[str, Any]) -> _T:
        self._said = None
        try:
            return kind({**usual, **self._settings, **fixed, "error_cb": self._heard})
        except (KafkaException, TypeError, ValueError) as error:
            told = self._scrubbed(error.args[0].str() if isinstance(error, KafkaException) else str(error))
            raise ConfigurationError(f"SLUICE_KAFKA: Kafka's client does not take its settings: {told}") from None

    def _heard(self, error: KafkaError) -> None:
        # That no broker can be reached follows from what was said before, which tells why.
        if self._said is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._said, self._said_at = error, time.monotonic()

    def _refuse(self) -> None:
        """Raise at once what the client would try again until its time is up."""
        if self._said is not None and self._said.code() in _REFUSED:
            said, self._said = self._said, None
            raise self._failed("Kafka lets nobody in", said)

    def _result(self, request: concurrent.futures.Future[_T]) -> _T:
        while not concurrent.futures.wait([request], timeout=0.1).done:
            # Only then it tells of its connections.
            self._administration().poll(0)
            self._refuse()
        return request.result()

    def _forget(self, topic: str) -> None:
        reader = self._readers.pop(topic, None)
        if reader is not None:
            reader.close()

    def _failed(self, what: str, error: KafkaError | None, topic: str = "") -> SluiceError:
        """What went wrong, as the error that says whether to try again."""
        code = None if error is None else error.code()
        if topic and code in _UNKNOWN:
            return unknown_topic(topic, f"Kafka ({self.name})", self.topics())
        told = "no answer" if error is None else self._scrubbed(error.str())
        if code in _REFUSED:
            return EventLogError(f"{what}: {told}. {_REFUSED[code]}")
        if error is None or code in _PASSING or error.retriable():
            recent = self._said is not None and time.monotonic() - self._said_at < 2 * self._patience
            why = f" ({self._scrubbed(self._said.str())})" if self._said is not None and recent else ""
            return EventLogUnavailableError(
                f"{what}: Kafka ({self.name}) cannot be reached: {told}{why}. Look whether its brokers run, and "
                "whether SLUICE_KAFKA names them; then try again."
            )
        return EventLogError(f"{what}: {told} ({error.name()}). Look into the broker's log.")

    def _scrubbed(self, text: str) -> str:
        """A message of the client without any value of its settings that might be a secret, put in the wrong place."""
        for key, value in self._settings.items():
            if key != "bootstrap.servers" and isinstance(value, str) and value and value.upper() not in _TOLD:
                text = text.replace(value, "***")
        return text


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


class _Reader:
    """A consumer of one topic, which goes on from read to read as long as each begins where the last has ended."""

    def __init__(self, log: KafkaLog, topic: str, topic_id: str) -> None:
        self.topic_id = topic_id
        self._log = log
        self._topic = topic
        self._consumer: Consumer = log._client(Consumer, _READING, _READING_FIXED)
        # Where the next read is expected to begin.
        self._next: dict[int, int] = {}
        self._held: dict[int, _Held] = {}
        self._paused: set[int] = set()

    def close(self) -> None:
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
        deadline = time.monotonic() + self._log._patience
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
                deadline = time.monotonic() + self._log._patience
            elif time.monotonic() > deadline:
                raise self._log._failed(f"Nothing came of {self._topic} for {self._log._patience:g} seconds", None)
            self._log._refuse()
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
            raise lost(
                self._topic, number, self._held[number].reached, self._log._bounds(self._topic, [number])[number]
            )
        if code in _LET_BE or (code not in _UNKNOWN and error.retriable()):
            return False
        raise self._log._failed(f"Cannot read {self._topic}", error, self._topic)

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
