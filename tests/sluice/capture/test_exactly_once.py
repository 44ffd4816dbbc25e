"""Each change once and in the order of commits, whatever is killed: against the real database and the real Debezium."""

from __future__ import annotations

import json
import random
import signal
import time
from typing import Any

import pytest

from sluice.eventlog import open_log
from tests.faults import deep
from tests.sluice.capture.source import CAPTURE_SECONDS, Event, Source

pytestmark = pytest.mark.slow


def replayed(events: list[Event]) -> dict[int, Any]:
    """The table as its topic tells it: the last word on each key. A truncate concerns those of all partitions."""
    state: dict[int, Any] = {}
    for event in sorted(events, key=position):
        if event.value is None:
            # A tombstone follows the delete it belongs to.
            assert event.key["id"] not in state
        elif event.op == "t":
            state.clear()
        elif event.op == "d":
            del state[event.key["id"]]
        else:
            state[event.key["id"]] = event.value["after"]
    return state


def position(event: Event) -> tuple[int, ...]:
    return tuple(map(int, event.headers["sluice.position"].split(b"/")))


def table(source: Source, name: str) -> dict[int, Any]:
    rows = source.sql(f"SELECT row_to_json(t) FROM {name} AS t")
    return {row["id"]: row for row in map(json.loads, rows)}


def written(source: Source) -> int:
    """Records in all topics."""
    log = open_log(source.settings)
    return sum(bounds.end for topic in log.topics() for bounds in log.bounds(topic).values())


def random_transaction(rng: random.Random, number: int, truncates: bool) -> str:
    """A transaction of up to eight statements on two tables, some of which come to nothing."""
    statements = []
    for step in range(rng.randint(1, 8)):
        name, key, value = rng.choice(["items", "others"]), rng.randint(1, 30), f"{number}.{step}"
        statements.append(
            rng.choices(
                [
                    f"INSERT INTO {name} VALUES ({key}, '{value}') ON CONFLICT (id) DO UPDATE SET v = excluded.v",
                    f"UPDATE {name} SET v = '{value}' WHERE id = {key}",
                    f"DELETE FROM {name} WHERE id = {key}",
                    f"UPDATE {name} SET id = {10**6 + number * 10 + step} WHERE id = {key}",
                    f"INSERT INTO {name} SELECT i, '{value}' FROM generate_series({1000 + number * 100}, "
                    f"{1000 + number * 100 + rng.randint(0, 20)}) AS i ON CONFLICT DO NOTHING",
                    f"TRUNCATE {name}",
                ],
                weights=[8, 8, 4, 3, 1, 0.3 if truncates else 0],
            )[0]
        )
    end = "ROLLBACK" if rng.random() < 0.1 else "COMMIT"
    return "; ".join(["BEGIN", *statements, f"INSERT INTO tally VALUES ({number})", end])


@pytest.mark.parametrize("partitions", [3, pytest.param(1, marks=deep)])
def test_killed_at_random_points_each_change_is_there_once(source: Source, partitions: int) -> None:
    rng = random.Random(20260105 + partitions)
    session = source.session()
    session("CREATE TABLE items (id INT PRIMARY KEY, v TEXT); CREATE TABLE others (id INT PRIMARY KEY, v TEXT)")
    session("CREATE TABLE tally (id INT PRIMARY KEY)")
    session("INSERT INTO items SELECT i, 'before' FROM generate_series(1, 300) AS i")
    source.define("public.items", "public.others", "public.tally", partitions=partitions)
    transactions = 0
    streams = False

    def change(seconds: float) -> None:
        nonlocal transactions
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            transactions += 1
            # To a snapshot under way PostgreSQL shows a table that is truncated meanwhile as empty, whatever it was.
            session(random_transaction(rng, transactions, truncates=streams))
            time.sleep(rng.uniform(0, 0.05))

    for number in range(7):
        process = source.start("run", source.name)
        before = written(source)
        if number < 2:
            # While it begins, or takes its snapshot.
            change(rng.uniform(2.0, 6.0))
        else:
            # While it writes: how long Java takes to begin differs by the load of the machine.
            limit = time.monotonic() + CAPTURE_SECONDS
            while written(source) == before:
                assert process.poll() is None and time.monotonic() < limit
                change(0.2)
            change(rng.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if number == 2:
            # From here on it streams, and is killed doing so.
            source.once()
            streams = True
    change(1)
    source.once()

    for name in ("items", "others", "tally"):
        assert replayed(source.events(name)) == table(source, name), name
    events = [e for name in ("items", "others", "tally") for e in source.events(name)]
    streamed = [e for e in events if e.value is not None and e.value["transaction"] is not None]
    # Once: no two of a stream have one place in the database's log and in their transaction.
    identities = [(e.value["source"]["txId"], e.value["transaction"]["total_order"]) for e in streamed]
    assert len(set(identities)) == len(identities)
    # In order: of each partition as written, and the commits of all of them as the database had them.
    for name in ("items", "others", "tally"):
        for number in range(partitions):
            places = [position(e) for e in source.events(name) if e.partition == number]
            assert places == sorted(places)
    counted = [e for e in source.events("tally") if e.op == "c"]
    order = [e.value["after"]["id"] for e in sorted(counted, key=lambda e: e.place)]
    assert order == sorted(order)
    # Each: of a transaction all events are there, numbered without a gap.
    by_transaction: dict[int, list[int]] = {}
    for transaction, place in identities:
        by_transaction.setdefault(transaction, []).append(place)
    assert all(sorted(places) == list(range(1, len(places) + 1)) for places in by_transaction.values())
    assert len(streamed) > 200


@pytest.mark.parametrize("stopped", ["killed", "properly"])
def test_what_was_open_when_it_stopped_is_captured_when_it_commits(source: Source, stopped: str) -> None:
    source.sql("CREATE TABLE items (id INT PRIMARY KEY, v TEXT)")
    source.define("public.items")
    source.once()
    sessions = [source.session() for _ in range(3)]
    # Their changes lie before what is captured meanwhile, their commits behind it.
    for number, session in enumerate(sessions):
        session(f"BEGIN; INSERT INTO items SELECT {number} * 10 + i, 'open' FROM generate_series(1, 5) AS i")
    process = source.start("run", source.name)
    for number in range(100, 110):
        source.sql(f"INSERT INTO items VALUES ({number}, 'between')")
        sessions[0](f"INSERT INTO items VALUES ({number + 100}, 'open')")
    end = time.monotonic() + CAPTURE_SECONDS
    while written(source) < 10:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    # One commits before it goes on, one while nobody looks, one when it has gone on.
    process.send_signal(signal.SIGKILL if stopped == "killed" else signal.SIGTERM)
    process.communicate()
    sessions[0]("COMMIT")
    source.once()
    sessions[1]("COMMIT")
    sessions[2]("COMMIT")
    source.once()
    events = source.events("items")
    assert sorted(e.key["id"] for e in events) == sorted(table(source, "items"))
    assert replayed(events) == table(source, "items")
    assert [position(e) for e in events] == sorted({position(e) for e in events})
