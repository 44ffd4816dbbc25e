"""Live views: what is published and what has streamed in since are one answer, the one the next build gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sluice.audits import record_audit
from sluice.bronze import create_bronze_tables
from sluice.dead_letters import Choice
from sluice.errors import PublicationError
from sluice.eventlog import Message, open_log
from sluice.live import refresh_live_views
from sluice.publication import connect, publish, roll_back
from sluice.replay import replay
from sluice.simulation.live import live_events
from sluice.streams import read_stream
from tests.conftest import Bench
from tests.warehouse import CONTRACTS, building, dbt_test

EVENTS = next(c for c in CONTRACTS if c.name == "events")
MODELS = ("+fct_sessions", "+agg_events_5min")
VIEWS = {
    "live_events_5min": (
        "agg_events_5min",
        "window_start, window_end, event_type, channel, events, visitors, quantity",
    ),
    "live_sessions": (
        "fct_sessions",
        "visitor_id, started_at, last_event_at, events, product_views, cart_additions, purchases",
    ),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("live"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def build(home: Bench) -> Iterator[Callable[..., None]]:
    create_bronze_tables(home.lake, CONTRACTS)
    with building(home.settings) as made:
        yield made


def stream(home: Bench, messages: list[Message]) -> None:
    """Append messages to the topic of the events, and read them."""
    log = open_log(home.settings)
    assert EVENTS.stream is not None
    log.create(EVENTS.stream.topic, 3)
    log.append(EVENTS.stream.topic, messages)
    while read_stream(home.lake, EVENTS, log).batches:
        pass


def published(home: Bench) -> None:
    record_audit(home.lake, run_id="r", checks_passed=1, failed=[])
    publish(home.lake, run_id="r")


def rows(con: duckdb.DuckDBPyConnection, table: str, columns: str) -> list[tuple[Any, ...]]:
    return con.execute(f"SELECT {columns} FROM gold.{table} ORDER BY ALL").fetchall()


def test_a_live_view_says_what_the_next_build_will(home: Bench, build: Callable[..., None]) -> None:
    day = live_events(3, 0.1, date(2026, 1, 31))
    half = len(day) // 2
    stream(home, day[:half])
    build(*MODELS)
    published(home)
    with connect(home.settings, live=True) as con:
        for view, (table, columns) in VIEWS.items():
            assert rows(con, view, columns) == rows(con, table, columns) != []
            assert con.execute(f"SELECT count(*) FROM gold.{view} WHERE is_live").fetchall() == [(0,)]

    first = json.loads(next(m.value for m in day if m.value and m.key))
    # One that was delivered before comes again; one comes late, of a visitor who was there; the rest of the day.
    late = {**first, "event_id": "11111111-1111-4111-8111-111111111111", "event_type": "view"}
    again = [
        Message(json.dumps(each).encode(), first["visitor_id"].encode(), 1_769_900_000_000) for each in (first, late)
    ]
    stream(home, again + day[half:])
    home.close()
    with connect(home.settings, live=True) as con, connect(home.settings) as pinned:
        live = {view: rows(con, view, columns) for view, (_, columns) in VIEWS.items()}
        for view, (table, columns) in VIEWS.items():
            before = rows(pinned, table, columns)
            # Readers who are pinned see nothing of it yet.
            assert before == rows(con, table, columns)
            assert len(live[view]) > len(before)
    build(*MODELS)
    home.close()
    with home.lake.reading() as con:
        for view, (table, columns) in VIEWS.items():
            assert live[view] == rows(con, table, columns)


def assert_live_is_the_next_build(home: Bench, build: Callable[..., None]) -> list[tuple[Any, ...]]:
    """Look at the live views, then build; returns what has come and gone."""
    home.close()
    with connect(home.settings, live=True) as con, connect(home.settings) as pinned:
        live = {view: rows(con, view, columns) for view, (_, columns) in VIEWS.items()}
        found = con.execute("SELECT event_id, is_gone FROM gold.live_arrivals ORDER BY ALL").fetchall()
        for view, (table, columns) in VIEWS.items():
            assert live[view] != rows(pinned, table, columns), "nothing of it shows"
    build(*MODELS)
    home.close()
    with home.lake.reading() as con:
        for view, (table, columns) in VIEWS.items():
            assert live[view] == rows(con, table, columns)
    return found


def test_a_replayed_dead_letter_is_live(home: Bench, build: Callable[..., None]) -> None:
    """It joins the batch it came with, which is published without it."""
    given = json.loads(next(m.value for m in live_events(3, 0.1, date(2026, 1, 31)) if m.value))
    bad = {**given, "event_id": "22222222-2222-4222-8222-222222222222", "quantity": "12,5"}
    stream(home, [Message(json.dumps(bad).encode(), given["visitor_id"].encode(), 1_769_900_000_000)])
    build(*MODELS)
    published(home)
    home.close()
    [(letter,)] = home.sql("SELECT dead_letter_id FROM ops.dead_letters WHERE status = 'open'")
    good = json.dumps({**bad, "quantity": 12})
    assert replay(home.lake, EVENTS, Choice(ids=(letter,)), corrections={letter: good}, by="me").accepted == 1
    assert assert_live_is_the_next_build(home, build) == [(bad["event_id"], False)]


def test_a_partition_delivered_again_is_live(home: Bench, build: Callable[..., None]) -> None:
    """Events that are in it no more are gone, one that it tells otherwise is changed, the others are as published."""
    kept, changed, gone = (f"{n}3333333-3333-4333-8333-333333333333" for n in range(3))
    given = next(m.value for m in live_events(3, 0.1, date(2026, 1, 31)) if m.value)
    first = {**json.loads(given), "event_ts": "2026-01-30T10:00:00Z", "event_type": "view"}

    def deliver(*events: dict[str, Any]) -> None:
        text = "".join(json.dumps(first | event) + "\n" for event in events)
        home.put("events/date=2026-01-30/hour=10/events.jsonl", text)
        home.ingest(EVENTS)

    deliver({"event_id": kept}, {"event_id": changed}, {"event_id": gone, "visitor_id": "v-of-one-event"})
    build(*MODELS)
    published(home)
    deliver({"event_id": kept}, {"event_id": changed, "event_ts": "2026-01-30T10:55:00Z"})
    assert assert_live_is_the_next_build(home, build) == [(changed, False), (changed, True), (gone, True)]


def test_a_fact_that_is_behind_bronze_fails_a_gate(home: Bench, build: Callable[..., None]) -> None:
    """As after a build of other models alone: published so, what came between would be neither built nor live."""
    assert dbt_test(home.settings, "events_equal_bronze") == 0
    given = json.loads(next(m.value for m in live_events(3, 0.1, date(2026, 1, 31)) if m.value))
    other = {**given, "event_id": "44444444-4444-4444-8444-444444444444"}
    stream(home, [Message(json.dumps(other).encode(), given["visitor_id"].encode(), 1_769_900_000_000)])
    assert dbt_test(home.settings, "events_equal_bronze") == 1
    build(*MODELS)
    assert dbt_test(home.settings, "events_equal_bronze") == 0


def test_an_event_delivered_again_with_an_earlier_time_is_live(home: Bench, build: Callable[..., None]) -> None:
    """Of two deliveries the earlier counts, whichever came first."""
    published(home)
    given = json.loads(next(m.value for m in live_events(3, 0.1, date(2026, 1, 31)) if m.value))
    earlier = {**given, "event_ts": "2026-01-30T10:07:00Z"}
    stream(home, [Message(json.dumps(earlier).encode(), given["visitor_id"].encode(), 1_769_900_000_000)])
    assert assert_live_is_the_next_build(home, build) == [(given["event_id"], False), (given["event_id"], True)]


def test_what_failed_its_gates_is_not_live(home: Bench, build: Callable[..., None]) -> None:
    """After the tests above: what was built since has not been published, and its tables are no part of the answer."""
    with connect(home.settings, live=True) as con:
        before = rows(con, "live_sessions", VIEWS["live_sessions"][1])
    home.lake.write(lambda con: con.execute("DELETE FROM gold.fct_sessions"), "a bad build")
    with connect(home.settings, live=True) as con:
        assert rows(con, "live_sessions", VIEWS["live_sessions"][1]) == before != []


def test_views_follow_readers_back(home: Bench, build: Callable[..., None]) -> None:
    build("fct_sessions", "--full-refresh")
    published(home)
    with connect(home.settings, live=True) as con:
        now = con.execute("SELECT count(*) FROM gold.live_sessions WHERE is_live").fetchall()
        assert now == [(0,)]
    roll_back(home.lake, by="me", why="a test")
    with connect(home.settings, live=True) as con:
        # What was streamed since the older publication is live again.
        assert con.execute("SELECT count(*) > 0 FROM gold.live_sessions WHERE is_live").fetchall() == [(True,)]


def test_a_view_that_cannot_be_made_is_told_of_and_the_others_are(home: Bench, tmp_path: Path) -> None:
    (tmp_path / "live_bad.sql").write_text("select * from gold.nothing at (version => {{ published }})")
    (tmp_path / "live_good.sql").write_text("select {{ published }} as published")
    with home.lake.connect() as con:
        snapshot = home.lake.current_snapshot(con)
    problems = refresh_live_views(home.lake, snapshot, tmp_path)
    assert list(problems) == ["live_bad"]
    assert "nothing" in problems["live_bad"]
    with home.lake.reading() as con:
        assert con.execute("SELECT published FROM gold.live_good").fetchall() == [(snapshot,)]


def test_live_and_a_moment_exclude_each_other(home: Bench) -> None:
    with pytest.raises(PublicationError, match="without a moment"):
        connect(home.settings, as_of=datetime(2026, 1, 1), live=True)
