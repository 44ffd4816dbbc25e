"""What only a Kafka does to its readers: transactions, compaction, records let go of, topics made anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from sluice.errors import EventLogError, EventLogUnavailableError, OffsetLostError
from sluice.eventlog import Bounds, Message
from sluice.eventlog.kafka import KafkaLog
from tests.kafka import Broker
from tests.sluice.eventlog.kafka_topics import ALL, made, new_name, read


def wait_for_end(log: KafkaLog, topic: str, end: int) -> None:
    """A transaction is confirmed a moment before its markers are in the log."""
    deadline = time.monotonic() + 30
    while log.bounds(topic)[0].end < end and time.monotonic() < deadline:
        time.sleep(0.05)
    assert log.bounds(topic) == {0: Bounds(0, end)}


@pytest.fixture
def transactional(kafka: Broker) -> Iterator[Callable[[], Producer]]:
    """Makes producers whose transactions are their own."""
    opened: list[Producer] = []

    def make() -> Producer:
        producer = Producer({"bootstrap.servers": kafka.brokers, "transactional.id": new_name()})
        producer.init_transactions(30)
        opened.append(producer)
        return producer

    yield make
    del opened[:]


def send(producer: Producer, topic: str, *values: bytes, partition: int = 0) -> None:
    for value in values:
        producer.produce(topic, value, partition=partition)
    producer.flush(30)


def test_records_of_an_aborted_transaction_are_never_seen(log: KafkaLog, transactional: Callable[[], Producer]) -> None:
    topic = made(log)
    producer = transactional()
    for value, commit in ((b"a", True), (b"b", False), (b"c", True), (b"d", False)):
        producer.begin_transaction()
        send(producer, topic, value, value)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    # Four transactions of two records and a marker each; the last of them leaves nothing to read at the end.
    wait_for_end(log, topic, 12)
    assert read(log, topic, 0) == ([b"a", b"a", b"c", b"c"], 12)
    assert read(log, topic, 12) == ([], 12)
    # From within, and where a range holds no record at all: it must end, and move on.
    assert read(log, topic, 1) == ([b"a", b"c", b"c"], 12)
    assert read(log, topic, 9) == ([], 12)
    (nothing,) = log.read(topic, {0: 9}, **ALL)
    assert (nothing.start, nothing.stop, nothing.records.num_rows) == (9, 12, 0)


def test_pieces_of_a_topic_with_aborted_records_are_the_whole(
    log: KafkaLog, transactional: Callable[[], Producer]
) -> None:
    topic = made(log)
    producer = transactional()
    expected, end = [], 0
    for number in range(30):
        producer.begin_transaction()
        own = [b"%d-%d" % (number, n) for n in range(number % 4 + 1)]
        end += len(own) + 1
        send(producer, topic, *own)
        if number % 3:
            producer.commit_transaction(30)
            expected += own
        else:
            producer.abort_transaction(30)
    wait_for_end(log, topic, end)
    for rows in (1, 2, 7):
        seen: list[bytes | None] = []
        start = 0
        while found := log.read(topic, {0: start}, max_rows=rows, max_bytes=1 << 30):
            assert found[0].start == start < found[0].stop
            assert found[0].records.num_rows <= rows
            offsets = found[0].records.column("offset").to_pylist()
            assert all(start <= offset < found[0].stop for offset in offsets)
            seen += found[0].records.column("value").to_pylist()
            start = found[0].stop
        assert seen == expected
        assert start == end


def test_an_open_transaction_holds_back_all_behind_it(log: KafkaLog, transactional: Callable[[], Producer]) -> None:
    topic = made(log)
    log.append(topic, [Message(b"before")])
    slow, quick = transactional(), transactional()
    slow.begin_transaction()
    send(slow, topic, b"slow")
    quick.begin_transaction()
    send(quick, topic, b"quick")
    quick.commit_transaction(30)
    log.append(topic, [Message(b"behind")])
    # before, slow, quick, quick's marker, behind; all but the first wait.
    assert log.bounds(topic) == {0: Bounds(0, 1)}
    assert read(log, topic, 0) == ([b"before"], 1)
    assert read(log, topic, 1) == ([], 1)
    slow.commit_transaction(30)
    wait_for_end(log, topic, 6)
    assert read(log, topic, 1) == ([b"slow", b"quick", b"behind"], 6)


def test_what_compaction_has_taken_is_passed_over(
    log: KafkaLog, admin: AdminClient, transactional: Callable[[], Producer]
) -> None:
    topic = new_name()
    config = {"cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01"}
    admin.create_topics([NewTopic(topic, 1, config=config)])[topic].result(30)
    log.create(topic, 1)
    # Only closed segments are compacted: the filling closes some.
    for n in range(60):
        log.append(topic, [Message(b"%d" % n, b"k%d" % (n % 3)), Message(bytes(60_000), b"filling")])
    end = log.bounds(topic)[0].end
    deadline = time.monotonic() + 40
    while (rows := log.read(topic, {0: 0}, **ALL)[0].records).num_rows == end and time.monotonic() < deadline:
        log.close()  # what was fetched ahead may be of before
        time.sleep(0.2)
    offsets = rows.column("offset").to_pylist()
    assert len(offsets) < end == 120
    last = {(record["key"], record["value"]) for record in rows.to_pylist()[-6:]}
    assert {(b"k2", b"59"), (b"k1", b"58")} <= last
    # Piece by piece, beginning also within a gap.
    gap = next(n for n in range(end) if n not in offsets)
    for start in (0, gap):
        seen, at = [], start
        while found := log.read(topic, {0: at}, max_rows=5, max_bytes=1 << 30):
            seen += found[0].records.column("offset").to_pylist()
            at = found[0].stop
        assert at == end
        assert set(seen) <= set(offsets)
        assert seen == sorted(seen)


def test_records_that_were_let_go_of_unread_are_told(log: KafkaLog, admin: AdminClient) -> None:
    topic = made(log)
    log.append(topic, [Message(b"%d" % n) for n in range(10)])
    assert log.read(topic, {0: 0}, max_rows=2, max_bytes=100)[0].stop == 2
    admin.delete_records([TopicPartition(topic, 0, 6)])[TopicPartition(topic, 0, 6)].result(30)
    with pytest.raises(OffsetLostError, match=r"offset 2 was to be read next, but the log holds \[6, 10\)"):
        log.read(topic, {0: 2}, **ALL)
    assert read(log, topic, 6) == ([b"6", b"7", b"8", b"9"], 10)


def test_a_topic_made_anew_is_another(log: KafkaLog, admin: AdminClient) -> None:
    topic = made(log)
    log.append(topic, [Message(b"old %d" % n) for n in range(5)])
    known = log.topic_id(topic)
    assert read(log, topic, 0)[1] == 5
    admin.delete_topics([topic])[topic].result(30)
    wait_until_gone(log, topic)
    with pytest.raises(EventLogError, match=f"There is no topic '{topic}'"):
        log.read(topic, {0: 5}, **ALL)
    log.create(topic, 1)
    log.append(topic, [Message(b"new %d" % n) for n in range(3)])
    with pytest.raises(OffsetLostError, match=r"offset 5 was to be read next, but the log holds \[0, 3\)"):
        log.read(topic, {0: 5}, **ALL)
    log.append(topic, [Message(b"new %d" % n) for n in range(3, 8)])
    # By its offsets it could be the old one: only the id tells.
    assert log.topic_id(topic) != known
    assert read(log, topic, 0) == ([b"new %d" % n for n in range(8)], 8)
    assert read(log, topic, 6) == ([b"new 6", b"new 7"], 8)


def wait_until_gone(log: KafkaLog, topic: str) -> None:
    """A topic's end is confirmed a moment before the brokers know of it."""
    deadline = time.monotonic() + 30
    while topic in log.topics() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert topic not in log.topics()


def test_keys_go_where_java_clients_put_them(log: KafkaLog) -> None:
    topic = made(log, 7)
    # Partitions of Java's DefaultPartitioner: toPositive(murmur2(key)) % 7, from Kafka's own UtilsTest.
    hashes = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    log.append(topic, [Message(b"x", key) for key in hashes])
    found = {
        key: each.partition
        for each in log.read(topic, dict.fromkeys(range(7), 0), **ALL)
        for key in each.records.column("key").to_pylist()
    }
    assert found == {key: (murmur & 0x7FFFFFFF) % 7 for key, murmur in hashes.items()}


def test_nobody_makes_a_topic_by_asking_for_it(log: KafkaLog) -> None:
    for _ in range(2):
        with pytest.raises(EventLogError, match="There is no topic 'typo'"):
            log.append("typo", [Message(b"x")])
    assert "typo" not in log.topics()


def test_a_record_the_topic_does_not_take_is_refused(log: KafkaLog) -> None:
    topic = made(log)
    with pytest.raises(EventLogError, match=r"Raise max\.message\.bytes"):
        log.append(topic, [Message(b"small"), Message(bytes(3_000_000))])
    with pytest.raises(EventLogError, match="milliseconds since 1970"):
        log.append(topic, [Message(b"x", None, 0)])
    log.append(topic, [Message(b"next")])
    assert read(log, topic, 0)[0][-1] == b"next"


def test_large_records_are_read_beside_small_ones(log: KafkaLog, admin: AdminClient) -> None:
    topic = new_name()
    config = {"max.message.bytes": str(20 << 20)}
    admin.create_topics([NewTopic(topic, 1, config=config)])[topic].result(30)
    log.create(topic, 1)
    sent = [bytes([n]) * size for n, size in enumerate((10, 12 << 20, 10, 2 << 20, 10))]
    log.append(topic, [Message(value) for value in sent])
    assert read(log, topic, 0) == (sent, 5)


def test_a_reader_far_ahead_in_one_partition_pauses_it(log: KafkaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = made(log, 2)
    monkeypatch.setattr("sluice.eventlog.kafka_reader._AHEAD_ROWS", 50)
    monkeypatch.setattr("sluice.eventlog.kafka_reader._BATCH", 20)
    log.append(topic, [Message(b"%d" % n) for n in range(5_000)], partition=0)
    log.append(topic, [Message(b"%d" % n) for n in range(3_000)], partition=1)
    at, seen = {0: 0, 1: 0}, {0: [], 1: []}  # type: ignore[var-annotated]
    while found := log.read(topic, at, max_rows=900, max_bytes=1 << 30):
        for each in found:
            seen[each.partition] += each.records.column("value").to_pylist()
            at[each.partition] = each.stop
    assert seen == {0: [b"%d" % n for n in range(5_000)], 1: [b"%d" % n for n in range(3_000)]}


def test_a_topic_made_anew_while_its_offsets_are_asked_for_is_to_be_tried_again(
    log: KafkaLog, admin: AdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = made(log, 3)
    own = log._clients.administration()
    ask = own.list_offsets

    def asking(*args: Any, **given: Any) -> Any:
        monkeypatch.undo()
        admin.delete_topics([topic])[topic].result()
        log.create(topic, 1)
        return ask(*args, **given)

    monkeypatch.setattr(own, "list_offsets", asking)
    with pytest.raises(EventLogUnavailableError, match=f"the topic {topic} .* was made anew meanwhile.* Try again"):
        log.bounds(topic)
    assert log.bounds(topic) == {0: Bounds(0, 0)}


def test_no_position_is_left_with_the_brokers(log: KafkaLog, kafka: Broker, admin: AdminClient) -> None:
    topic = made(log)
    log.append(topic, [Message(b"x")])
    assert read(log, topic, 0)[1] == 1
    log.close()
    assert not admin.list_consumer_groups().result(30).valid
    group = Consumer({"bootstrap.servers": kafka.brokers, "group.id": "sluice"})
    assert [p.offset for p in group.committed([TopicPartition(topic, 0)], 30)] == [-1001]
    group.close()
