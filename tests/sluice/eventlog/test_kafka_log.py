"""What only a Kafka does to its readers: transactions, compaction, brokers that go and come, topics made anew."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from sluice.connections import kafka_client
from sluice.errors import ConfigurationError, EventLogError, EventLogUnavailableError, OffsetLostError
from sluice.eventlog import Bounds, Message, open_log
from sluice.eventlog.kafka import KafkaLog
from sluice.settings import load_settings
from tests.kafka import PASSWORD, USER, Broker

ALL = {"max_rows": 1_000_000, "max_bytes": 1 << 40}
NUMBERS = itertools.count()


@pytest.fixture
def log(kafka: Broker) -> Iterator[KafkaLog]:
    with KafkaLog({"bootstrap.servers": kafka.brokers}) as opened:
        yield opened


@pytest.fixture
def admin(kafka: Broker) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.brokers})


def made(log: KafkaLog, partitions: int = 1) -> str:
    topic = f"kafka-{next(NUMBERS)}"
    log.create(topic, partitions)
    return topic


def wait_for_answers(log: KafkaLog, topic: str) -> None:
    """A broker that was silent needs a moment, on a busy machine more than the patience of a test."""
    deadline = time.monotonic() + 60
    while True:
        try:
            log.bounds(topic)
            return
        except EventLogUnavailableError:
            if time.monotonic() > deadline:
                raise


def wait_for_end(log: KafkaLog, topic: str, end: int) -> None:
    """A transaction is confirmed a moment before its markers are in the log."""
    deadline = time.monotonic() + 30
    while log.bounds(topic)[0].end < end and time.monotonic() < deadline:
        time.sleep(0.05)
    assert log.bounds(topic) == {0: Bounds(0, end)}


def read(log: KafkaLog, topic: str, start: int, partition: int = 0) -> tuple[list[bytes | None], int]:
    """Values from an offset to the end, and where the next read begins."""
    found = log.read(topic, {partition: start}, **ALL)
    assert len(found) < 2
    return (found[0].records.column("value").to_pylist(), found[0].stop) if found else ([], start)


@pytest.fixture
def transactional(kafka: Broker) -> Iterator[Callable[[], Producer]]:
    """Makes producers whose transactions are their own."""
    opened: list[Producer] = []

    def make() -> Producer:
        producer = Producer({"bootstrap.servers": kafka.brokers, "transactional.id": f"t-{next(NUMBERS)}"})
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
    topic = f"kafka-{next(NUMBERS)}"
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
    with pytest.raises(EventLogError, match=f"There is no topic '{topic}'"):
        log.read(topic, {0: 5}, **ALL)
    again(log, topic)
    log.append(topic, [Message(b"new %d" % n) for n in range(3)])
    with pytest.raises(OffsetLostError, match=r"offset 5 was to be read next, but the log holds \[0, 3\)"):
        log.read(topic, {0: 5}, **ALL)
    log.append(topic, [Message(b"new %d" % n) for n in range(3, 8)])
    # By its offsets it could be the old one: only the id tells.
    assert log.topic_id(topic) != known
    assert read(log, topic, 0) == ([b"new %d" % n for n in range(8)], 8)
    assert read(log, topic, 6) == ([b"new 6", b"new 7"], 8)


def again(log: KafkaLog, topic: str) -> None:
    """Make a topic that is being deleted."""
    deadline = time.monotonic() + 30
    while topic in log.topics() and time.monotonic() < deadline:
        time.sleep(0.05)
    log.create(topic, 1)


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
    topic = f"kafka-{next(NUMBERS)}"
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


def test_a_broker_restarted_between_reads_and_while_one_waits(log: KafkaLog, kafka: Broker) -> None:
    topic = made(log)
    log.append(topic, [Message(b"%d" % n) for n in range(1000)])
    found = log.read(topic, {0: 0}, max_rows=100, max_bytes=1 << 30)
    kafka.kill()
    done: list[object] = []

    def read_all() -> None:
        try:
            seen, start = found[0].records.column("value").to_pylist(), found[0].stop
            while more := log.read(topic, {0: start}, max_rows=300, max_bytes=1 << 30):
                seen += more[0].records.column("value").to_pylist()
                start = more[0].stop
            done.append(seen)
        except Exception as error:
            done.append(error)

    reading = threading.Thread(target=read_all)
    reading.start()
    time.sleep(1)
    kafka.start()
    reading.join(60)
    assert done == [[b"%d" % n for n in range(1000)]]
    assert log.append(topic, [Message(b"after")]) == 1
    assert read(log, topic, 1000) == ([b"after"], 1001)


def test_a_broker_that_is_away_is_told_in_time(kafka: Broker) -> None:
    with KafkaLog({"bootstrap.servers": kafka.brokers}, patience=3) as log:
        topic = made(log)
        log.append(topic, [Message(b"%d" % n) for n in range(500)])
        assert log.read(topic, {0: 0}, max_rows=10, max_bytes=1 << 30)[0].stop == 10
        # It keeps its connections and says nothing: worse than one that is gone.
        kafka.freeze()
        try:
            calls: list[Callable[[], object]] = [
                lambda: log.read(topic, {0: 10}, **ALL),
                lambda: log.append(topic, [Message(b"x")]),
                log.topics,
            ]
            for call in calls:
                began = time.monotonic()
                with pytest.raises(EventLogUnavailableError, match=f"{kafka.brokers}.* cannot be reached"):
                    call()
                assert time.monotonic() - began < 10
        finally:
            kafka.thaw()
        wait_for_answers(log, topic)
        assert read(log, topic, 10)[0][:490] == [b"%d" % n for n in range(10, 500)]


@pytest.mark.parametrize("answered", [0, 1], ids=["neither first nor last offset", "no last offset"])
def test_a_broker_that_falls_silent_before_it_tells_offsets_has_lost_none(
    kafka: Broker, monkeypatch: pytest.MonkeyPatch, answered: int
) -> None:
    with KafkaLog({"bootstrap.servers": kafka.brokers}) as patient:
        topic = made(patient)
        patient.append(topic, [Message(b"%d" % n) for n in range(50)])
    with KafkaLog({"bootstrap.servers": kafka.brokers}, patience=3) as log:
        ask = AdminClient.list_offsets
        asked: list[object] = []

        def asking(*args: Any, **given: Any) -> Any:
            # It has described the topic, and perhaps told the first of two offsets.
            if len(asked) == answered:
                kafka.freeze()
            asked.append(args)
            told = ask(*args, **given)
            if len(asked) <= answered:
                concurrent.futures.wait(told.values())
            return told

        calls: list[Callable[[], object]] = [
            lambda: log.bounds(topic),
            lambda: log.read(topic, {0: 10}, **ALL),
            lambda: log.offsets_at(topic, datetime(2020, 1, 1, tzinfo=UTC)),
        ]
        for call in calls:
            asked.clear()
            with monkeypatch.context() as patched:
                patched.setattr(AdminClient, "list_offsets", asking)
                try:
                    with pytest.raises(EventLogUnavailableError, match="Cannot look up the offsets"):
                        call()
                finally:
                    kafka.thaw()
            wait_for_answers(log, topic)
        assert log.bounds(topic) == {0: Bounds(0, 50)}


def test_a_broker_that_ends_before_it_tells_offsets_is_waited_for(
    kafka: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KafkaLog({"bootstrap.servers": kafka.brokers}, patience=60) as log:
        topic = made(log)
        log.append(topic, [Message(b"%d" % n) for n in range(50)])
        ask = AdminClient.list_offsets
        asked: list[object] = []
        stopped = threading.Event()

        def asking(*args: Any, **given: Any) -> Any:
            if not asked:
                # As in a restart of one broker: the client finds no leader of the topic any more.
                kafka.stop()
                stopped.set()
            asked.append(args)
            return ask(*args, **given)

        monkeypatch.setattr(AdminClient, "list_offsets", asking)
        with concurrent.futures.ThreadPoolExecutor() as threads:
            told = threads.submit(log.bounds, topic)
            stopped.wait(60)
            # Here and not in a thread of its own: with whoever has started it, it would end.
            kafka.start()
            assert told.result() == {0: Bounds(0, 50)}
        assert len(asked) > 2


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


def test_a_broker_that_falls_silent_in_a_read_gives_nothing_half_read(
    kafka: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KafkaLog({"bootstrap.servers": kafka.brokers}) as patient:
        topic = made(patient)
        patient.append(topic, [Message(bytes(50_000)) for _ in range(400)])
    with KafkaLog({"bootstrap.servers": kafka.brokers}, patience=2) as log:
        kept: list[int] = []
        import sluice.eventlog.kafka_reader as module

        keep = module.Reader._keep

        def keeping(self: module.Reader, batch: list[object]) -> bool:
            # The first polls may bring nothing: it falls silent with the first record, not with the first poll.
            if batch and not any(kept):
                kafka.freeze()
            kept.append(len(batch))
            return keep(self, batch)

        monkeypatch.setattr(module.Reader, "_keep", keeping)
        monkeypatch.setattr(module, "_BATCH", 1)
        monkeypatch.setitem(module._READING, "queued.max.messages.kbytes", 500)
        try:
            with pytest.raises(EventLogUnavailableError, match="Nothing came"):
                log.read(topic, {0: 0}, **ALL)
        finally:
            kafka.thaw()
        assert sum(kept) > 0
        wait_for_answers(log, topic)
        assert log.read(topic, {0: 0}, **ALL)[0].records.num_rows == 400


def test_no_broker_where_the_settings_say() -> None:
    with KafkaLog({"bootstrap.servers": "127.0.0.1:1"}, patience=1) as log:
        for call in (log.topics, lambda: log.bounds("x"), lambda: log.create("x", 1)):
            with pytest.raises(EventLogUnavailableError, match=r"127\.0\.0\.1:1.*cannot be reached"):
                call()


def test_a_password_lets_in_and_a_wrong_one_is_told_without_showing_it(kafka: Broker, log: KafkaLog) -> None:
    topic = made(log)
    given = {
        "bootstrap.servers": f"127.0.0.1:{kafka.sasl_port}",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": USER,
        "sasl.password": PASSWORD,
    }
    settings = load_settings(kafka=json.dumps(given))
    assert PASSWORD not in repr(settings)
    with open_log(settings) as opened:
        assert isinstance(opened, KafkaLog)
        opened.append(topic, [Message(b"x")])
        assert [s.records.num_rows for s in opened.read(topic, {0: 0}, **ALL)] == [1]
        assert opened.name == f"127.0.0.1:{kafka.sasl_port}"
    wrong = "rowan-jelly-77"
    with KafkaLog(kafka_client(json.dumps(given | {"sasl.password": wrong}))) as refused:
        for call in (refused.topics, lambda: refused.bounds(topic), lambda: refused.append(topic, [Message(b"x")])):
            began = time.monotonic()
            with pytest.raises(EventLogError, match="SLUICE_KAFKA") as told:
                call()
            assert time.monotonic() - began < 15
            assert wrong not in str(told.value)
            assert USER not in str(told.value)


def test_rights_that_are_needed_and_rights_that_are_not(kafka: Broker, log: KafkaLog, admin: AdminClient) -> None:
    open_, closed = made(log), made(log)
    for topic in (open_, closed):
        log.append(topic, [Message(b"x")])

    def forbid(kind: ResourceType, name: str, operation: AclOperation) -> None:
        rule = AclBinding(
            kind, name, ResourcePatternType.LITERAL, f"User:{USER}", "*", operation, AclPermissionType.DENY
        )
        admin.create_acls([rule])[rule].result(30)

    forbid(ResourceType.GROUP, "sluice", AclOperation.ALL)
    forbid(ResourceType.TOPIC, closed, AclOperation.READ)
    forbid(ResourceType.TOPIC, closed, AclOperation.WRITE)
    given = {
        "bootstrap.servers": f"127.0.0.1:{kafka.sasl_port}",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": USER,
        "sasl.password": PASSWORD,
    }
    with KafkaLog(given, patience=10) as other:
        assert read(other, open_, 0) == ([b"x"], 1)
        with pytest.raises(EventLogError, match="Grant the user the right"):
            other.read(closed, {0: 0}, **ALL)
        with pytest.raises(EventLogError, match="Grant the user the right"):
            other.append(closed, [Message(b"y")])
    assert read(log, closed, 0) == ([b"x"], 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense", "neither host:port"),
        ("host:port", "neither host:port"),
        ("u:quince-9@h:9092", "neither host:port"),
        ('{"bootstrap.servers": "h:1", "sasl.password": "quince-9"', "no JSON"),
        ('{"sasl.password": "quince-9"}', "bootstrap.servers"),
        ('{"bootstrap.servers": "h:1", "isolation.level": "read_uncommitted"}', "isolation.level is not to be chosen"),
        ('{"bootstrap.servers": "h:1", "sasl.password": ["quince-9"]}', "sasl.password is neither a text"),
    ],
)
def test_settings_that_cannot_be_meant(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match="SLUICE_KAFKA") as error:
        load_settings(kafka=text)
    assert told in str(error.value)
    assert "quince" not in str(error.value)


@pytest.mark.parametrize("text", ["h:9092", "a.b:1, c-d:2", "[::1]:9092,127.0.0.1:9093"])
def test_brokers_that_can_be_meant(text: str) -> None:
    assert load_settings(kafka=text).uses_kafka
    assert kafka_client(text) == {"bootstrap.servers": text}


def test_what_the_client_refuses_is_told_without_values() -> None:
    for extra in (
        {"sasl.pasword": "quince-9"},
        {"security.protocol": "quince-9"},
        {"ssl.ca.location": "/quince-9"},
        {"stats_cb": "quince-9"},
        {"socket.timeout.ms": "quince-9"},
    ):
        log = KafkaLog({"bootstrap.servers": "127.0.0.1:1", "security.protocol": "SSL", **extra})
        with pytest.raises(ConfigurationError, match="SLUICE_KAFKA") as error:
            log.topics()
        assert "quince" not in str(error.value)


def test_a_question_whose_connection_was_given_up_is_asked_again(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client says so, once in many tries, when a broker that was silent answers again."""
    topic = made(log)
    log.append(topic, [Message(b"x")])
    result = log._clients.result
    given_up = [KafkaException(KafkaError(KafkaError._DESTROY_BROKER)) for _ in range(2)]

    def once_not(request: Future[Any]) -> Any:
        if given_up:
            raise given_up.pop()
        return result(request)

    monkeypatch.setattr(log._clients, "result", once_not)
    assert read(log, topic, 0)[0] == [b"x"]
    assert given_up == []


def test_no_position_is_left_with_the_brokers(log: KafkaLog, kafka: Broker, admin: AdminClient) -> None:
    topic = made(log)
    log.append(topic, [Message(b"x")])
    assert read(log, topic, 0)[1] == 1
    log.close()
    assert not admin.list_consumer_groups().result(30).valid
    group = Consumer({"bootstrap.servers": kafka.brokers, "group.id": "sluice"})
    assert [p.offset for p in group.committed([TopicPartition(topic, 0)], 30)] == [-1001]
    group.close()
