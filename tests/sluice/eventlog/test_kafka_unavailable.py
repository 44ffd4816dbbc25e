"""Brokers that are away, fall silent, or come again: told in time, waited for, and nothing lost by it."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from sluice.errors import EventLogUnavailableError
from sluice.eventlog import Bounds, Message
from sluice.eventlog.kafka import KafkaLog
from tests.kafka import START_SECONDS, Broker
from tests.sluice.eventlog.kafka_topics import ALL, made, read

T = TypeVar("T")


def once_it_answers(call: Callable[[], T]) -> T:
    """What a broker says that was silent: it needs a moment, on a busy machine more than the patience of a test."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return call()
        except EventLogUnavailableError:
            if time.monotonic() > deadline:
                raise


def test_a_broker_restarted_between_reads_and_while_one_waits(kafka: Broker) -> None:
    with KafkaLog({"bootstrap.servers": kafka.brokers}, patience=START_SECONDS) as log:
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
        reading.join(2 * START_SECONDS)
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
        assert once_it_answers(lambda: read(log, topic, 10))[0][:490] == [b"%d" % n for n in range(10, 500)]


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
            assert once_it_answers(lambda: log.bounds(topic)) == {0: Bounds(0, 50)}


def test_a_broker_that_ends_before_it_tells_offsets_is_waited_for(
    kafka: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with KafkaLog({"bootstrap.servers": kafka.brokers}, patience=START_SECONDS) as log:
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
            stopped.wait(START_SECONDS)
            # Here and not in a thread of its own: with whoever has started it, it would end.
            kafka.start()
            assert told.result() == {0: Bounds(0, 50)}
        assert len(asked) > 2


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
        assert once_it_answers(lambda: log.read(topic, {0: 0}, **ALL))[0].records.num_rows == 400


def test_no_broker_where_the_settings_say() -> None:
    with KafkaLog({"bootstrap.servers": "127.0.0.1:1"}, patience=1) as log:
        for call in (log.topics, lambda: log.bounds("x"), lambda: log.create("x", 1)):
            with pytest.raises(EventLogUnavailableError, match=r"127\.0\.0\.1:1.*cannot be reached"):
                call()


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
