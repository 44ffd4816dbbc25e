"""What every event log must do, shown on both: the embedded one and Kafka."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluice.errors import EventLogError, OffsetLostError
from sluice.eventlog import RECORDS, Bounds, EventLog, Message
from sluice.eventlog.embedded import EmbeddedLog
from sluice.eventlog.kafka import KafkaLog

ALL = {"max_rows": 1_000_000, "max_bytes": 1 << 40}
NUMBERS = itertools.count()


@pytest.fixture(params=["embedded", "kafka"])
def make_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], EventLog]]:
    """Opens the log; each call as another process would."""
    opened: list[EventLog] = []

    def make() -> EventLog:
        if request.param == "embedded":
            opened.append(EmbeddedLog(tmp_path / "topics"))
        else:
            opened.append(KafkaLog({"bootstrap.servers": request.getfixturevalue("kafka").brokers}))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def log(make_log: Callable[[], EventLog]) -> EventLog:
    return make_log()


def made(log: EventLog, partitions: int = 1) -> str:
    """A topic nobody else has."""
    topic = f"topic-{next(NUMBERS)}"
    log.create(topic, partitions)
    return topic


def values(log: EventLog, topic: str, partition: int = 0, start: int = 0) -> list[bytes | None]:
    """Of everything from an offset to the end."""
    return [
        value
        for each in log.read(topic, {partition: start}, **ALL)
        for value in each.records.column("value").to_pylist()
    ]


def test_what_was_appended_is_read(log: EventLog) -> None:
    topic = made(log)
    at = datetime(2026, 1, 5, 12, tzinfo=UTC)
    ms = int(at.timestamp() * 1000)
    messages = [
        Message(b"plain", b"key", ms),
        Message(None, b"tombstone", ms + 1),
        Message(b"", b"", ms + 2),
        Message(b"no key", None, ms + 3),
        Message(bytes(range(256)), b"\xff\xfe\x00", ms + 4, (("trace", b"\x00\xff"), ("trace", b"again"), ("", b""))),
    ]
    assert log.append(topic, messages) == 5
    (read,) = log.read(topic, {0: 0}, **ALL)
    assert (read.topic, read.partition, read.start, read.stop) == (topic, 0, 0, 5)
    assert read.records.schema.equals(RECORDS)
    assert read.records.to_pylist() == [
        {
            "offset": offset,
            "timestamp_ms": ms + offset,
            "key": message.key,
            "value": message.value,
            "headers": [{"name": name, "value": value} for name, value in message.headers] or None,
        }
        for offset, message in enumerate(messages)
    ]


def test_a_time_that_is_not_given_is_now(log: EventLog) -> None:
    topic = made(log)
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    log.append(topic, [Message(b"x")])
    (read,) = log.read(topic, {0: 0}, **ALL)
    (ms,) = read.records.column("timestamp_ms").to_pylist()
    assert before.timestamp() * 1000 <= ms <= datetime.now(UTC).timestamp() * 1000


def test_reading_goes_on_where_it_stopped(log: EventLog) -> None:
    topic = made(log)
    log.append(topic, [Message(b"%d" % n) for n in range(10)])
    seen, start = [], 0
    while read := log.read(topic, {0: start}, max_rows=3, max_bytes=1 << 30):
        assert read[0].start == start
        assert read[0].records.num_rows <= 3
        seen += read[0].records.column("value").to_pylist()
        start = read[0].stop
    assert seen == [b"%d" % n for n in range(10)]
    assert start == 10
    log.append(topic, [Message(b"later")])
    assert values(log, topic, start=start) == [b"later"]


def test_reading_again_gives_the_same(log: EventLog) -> None:
    topic = made(log)
    log.append(topic, [Message(b"%d" % n) for n in range(20)])
    first = log.read(topic, {0: 5}, max_rows=7, max_bytes=1 << 30)
    assert [values(log, topic, start=s)[:1] for s in (0, 19, 3)] == [[b"0"], [b"19"], [b"3"]]
    (again,) = log.read(topic, {0: 5}, max_rows=7, max_bytes=1 << 30)
    assert again.records.equals(first[0].records)
    assert (again.start, again.stop) == (5, 12)


def test_an_empty_topic_and_the_end_give_nothing(log: EventLog) -> None:
    topic = made(log, 2)
    assert log.bounds(topic) == {0: Bounds(0, 0), 1: Bounds(0, 0)}
    assert log.read(topic, {0: 0, 1: 0}, **ALL) == []
    log.append(topic, [Message(b"x")], partition=1)
    assert log.read(topic, {0: 0, 1: 1}, **ALL) == []
    assert log.read(topic, {}, **ALL) == []
    assert log.append(topic, []) == 0


def test_bounds_follow_what_is_appended(log: EventLog) -> None:
    topic = made(log, 3)
    log.append(topic, [Message(b"x")] * 4, partition=1)
    assert log.bounds(topic) == {0: Bounds(0, 0), 1: Bounds(0, 4), 2: Bounds(0, 0)}


def test_what_a_reader_sees_begins_and_ends_with_the_partition_it_asked_for(log: EventLog) -> None:
    topic = made(log, 3)
    for number in range(3):
        log.append(topic, [Message(b"%d-%d" % (number, n)) for n in range(5)], partition=number)
    read = log.read(topic, {2: 4, 0: 1}, **ALL)
    assert [(r.partition, r.start, r.stop, r.records.column("value").to_pylist()) for r in read] == [
        (0, 1, 5, [b"0-1", b"0-2", b"0-3", b"0-4"]),
        (2, 4, 5, [b"2-4"]),
    ]
    assert values(log, topic, 1, 3) == [b"1-3", b"1-4"]


def test_records_of_one_key_stay_in_one_partition_in_order(log: EventLog) -> None:
    topic = made(log, 4)
    log.append(topic, [Message(b"%d" % n, b"k%d" % (n % 10)) for n in range(200)])
    log.append(topic, [Message(b"%d" % n, b"k%d" % (n % 10)) for n in range(200, 300)])
    places: dict[bytes, set[int]] = {}
    orders: dict[bytes, list[int]] = {}
    for read in log.read(topic, dict.fromkeys(range(4), 0), **ALL):
        for record in read.records.to_pylist():
            places.setdefault(record["key"], set()).add(read.partition)
            orders.setdefault(record["key"], []).append(int(record["value"]))
    assert {key: len(found) for key, found in places.items()} == {b"k%d" % n: 1 for n in range(10)}
    assert orders == {b"k%d" % n: list(range(n, 300, 10)) for n in range(10)}
    assert len(set.union(*places.values())) > 1


def test_records_without_a_key_go_in_turns_also_one_by_one(log: EventLog) -> None:
    topic = made(log, 3)
    log.append(topic, [Message(b"x")] * 6)
    for _ in range(3):
        log.append(topic, [Message(b"y")])
    assert {n: b.end for n, b in log.bounds(topic).items()} == {0: 3, 1: 3, 2: 3}


def test_partitions_share_what_is_read(log: EventLog) -> None:
    topic = made(log, 3)
    for number, count in enumerate((100, 100, 4)):
        log.append(topic, [Message(b"v" * 10)] * count, partition=number)
    starts = {0: 0, 1: 0, 2: 0}
    # The third has little, and leaves the rest of its share to the others.
    read = log.read(topic, starts, max_rows=44, max_bytes=1 << 30)
    assert {r.partition: (r.records.num_rows, r.stop) for r in read} == {0: (20, 20), 1: (20, 20), 2: (4, 4)}
    read = log.read(topic, starts, max_rows=1000, max_bytes=300)
    rows = {r.partition: r.records.num_rows for r in read}
    assert rows[2] == 4
    assert min(rows[0], rows[1]) >= 10 and 10 * sum(rows.values()) <= 300
    # However little is allowed, nobody starves.
    read = log.read(topic, starts, max_rows=1, max_bytes=1)
    assert {r.partition: (r.records.num_rows, r.stop) for r in read} == {0: (1, 1), 1: (1, 1), 2: (1, 1)}


def test_a_record_larger_than_what_is_allowed_is_read_alone(log: EventLog) -> None:
    topic = made(log)
    large = bytes(900_000)
    log.append(topic, [Message(b"small"), Message(large), Message(b"behind")])
    assert [r.records.column("value").to_pylist() for r in log.read(topic, {0: 0}, max_rows=9, max_bytes=100)] == [
        [b"small"]
    ]
    (read,) = log.read(topic, {0: 1}, max_rows=9, max_bytes=100)
    assert (read.records.column("value").to_pylist(), read.stop) == ([large], 2)
    assert values(log, topic, start=2) == [b"behind"]


def test_the_offset_of_a_time(log: EventLog) -> None:
    topic = made(log, 2)
    noon = datetime(2026, 1, 5, 12, tzinfo=UTC)
    ms = int(noon.timestamp() * 1000)
    # Out of order, as producers are: the first that is late enough counts.
    log.append(topic, [Message(b"x", None, ms + late) for late in (0, 1000, 500, 3000)], partition=0)
    second = timedelta(seconds=1)
    assert log.offsets_at(topic, noon - second) == {0: 0, 1: 0}
    assert log.offsets_at(topic, noon) == {0: 0, 1: 0}
    assert log.offsets_at(topic, noon + timedelta(microseconds=1)) == {0: 1, 1: 0}
    assert log.offsets_at(topic, noon + 2 * second) == {0: 3, 1: 0}
    assert log.offsets_at(topic, noon + 3 * second) == {0: 3, 1: 0}
    assert log.offsets_at(topic, noon + 4 * second) == {0: 4, 1: 0}
    assert log.offsets_at(topic, datetime(1960, 1, 1)) == {0: 0, 1: 0}


def test_a_start_that_the_log_does_not_hold_is_told(log: EventLog) -> None:
    topic = made(log)
    log.append(topic, [Message(b"x")] * 3)
    with pytest.raises(OffsetLostError, match=r"offset 4 was to be read next, but the log holds \[0, 3\)"):
        log.read(topic, {0: 4}, **ALL)
    assert log.read(topic, {0: 3}, **ALL) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../up", "a b", "x" * 250, "ä", "a\n"])
def test_names_that_no_topic_may_have(log: EventLog, name: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: log.create(name, 1),
        lambda: log.bounds(name),
        lambda: log.read(name, {0: 0}, **ALL),
        lambda: log.append(name, [Message(b"x")]),
    ]
    for call in calls:
        with pytest.raises(EventLogError, match="cannot be named"):
            call()


def test_a_topic_or_partition_that_is_not_there(log: EventLog) -> None:
    topic = made(log)
    calls: list[Callable[[], Any]] = [
        lambda: log.bounds("absent"),
        lambda: log.topic_id("absent"),
        lambda: log.read("absent", {0: 0}, **ALL),
        lambda: log.append("absent", [Message(b"x")]),
        lambda: log.offsets_at("absent", datetime.now(UTC)),
    ]
    for call in calls:
        with pytest.raises(EventLogError, match=r"There is no topic 'absent'.*sluice topics create absent"):
            call()
    assert "absent" not in log.topics()
    for call in (lambda: log.read(topic, {1: 0}, **ALL), lambda: log.append(topic, [Message(b"x")], partition=1)):
        with pytest.raises(EventLogError, match=f"{topic} has no partition 1; it has 1"):
            call()
    with pytest.raises(EventLogError, match="needs a partition"):
        log.create("none", 0)


def test_making_a_topic_again_leaves_it_as_it_is(log: EventLog) -> None:
    topic = made(log, 2)
    log.append(topic, [Message(b"x")], partition=1)
    known = log.topic_id(topic)
    log.create(topic, 5)
    assert log.bounds(topic) == {0: Bounds(0, 0), 1: Bounds(0, 1)}
    assert log.topic_id(topic) == known
    assert topic in log.topics()
    assert log.topic_id(made(log)) != known


def test_the_longest_name(log: EventLog) -> None:
    name = f"{next(NUMBERS)}-".ljust(249, "x")
    log.create(name, 1)
    log.append(name, [Message(b"v")])
    assert values(log, name) == [b"v"]


def test_who_cannot_make_all_records_has_appended_none(log: EventLog) -> None:
    topic = made(log)

    def failing() -> Iterator[Message]:
        yield Message(b"x")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        log.append(topic, failing())
    assert log.append(topic, [Message(b"y")]) == 1
    assert values(log, topic) == [b"y"]


def test_another_process_reads_it_and_a_closed_log_opens_again(make_log: Callable[[], EventLog]) -> None:
    with make_log() as writer:
        topic = made(writer)
        writer.append(topic, [Message(b"x")])
    assert values(make_log(), topic) == [b"x"]
    assert values(writer, topic) == [b"x"]
    writer.close()
    writer.close()


ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"),
            st.lists(
                st.tuples(
                    st.integers(0, 2),
                    st.one_of(st.none(), st.binary(max_size=4)),
                    st.one_of(st.none(), st.binary(max_size=200)),
                ),
                max_size=12,
            ),
        ),
        st.tuples(st.just("read"), st.integers(1, 9), st.integers(1, 400)),
        st.tuples(st.just("back"), st.integers(0, 2), st.floats(0, 1)),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_any_appends_and_reads_give_back_what_was_appended(log: EventLog, actions: list[tuple[Any, ...]]) -> None:
    topic = made(log, 3)
    expected: dict[int, list[tuple[bytes | None, bytes | None]]] = {0: [], 1: [], 2: []}
    at = {0: 0, 1: 0, 2: 0}

    def read(max_rows: int, max_bytes: int) -> bool:
        found = log.read(topic, at, max_rows=max_rows, max_bytes=max_bytes)
        assert [each.partition for each in found] == [n for n in expected if at[n] < len(expected[n])]
        for each in found:
            records = each.records.to_pylist()
            assert records and each.start == at[each.partition] and each.stop == each.start + len(records)
            assert [r["offset"] for r in records] == list(range(each.start, each.stop))
            assert [(r["key"], r["value"]) for r in records] == expected[each.partition][each.start : each.stop]
            at[each.partition] = each.stop
        assert sum(each.records.num_rows for each in found) <= max(max_rows, len(found))
        return bool(found)

    for action, *details in actions:
        if action == "append":
            for number in range(3):
                own = [(key, value) for place, key, value in details[0] if place == number]
                log.append(topic, [Message(value, key) for key, value in own], partition=number)
                expected[number] += own
        elif action == "read":
            read(*details)
        else:
            number, share = details
            at[number] = int(at[number] * share)
    while read(1000, 1 << 30):
        pass
    assert at == {n: len(own) for n, own in expected.items()}
