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
from sluice.errors import PublicationError
from sluice.eventlog import Message, open_log
from sluice.live import refresh_live_views
from sluice.publication import connect, publish, roll_back
from sluice.simulation.live import live_events
from sluice.streams import read_stream
from tests.conftest import Bench
from tests.warehouse import CONTRACTS, building

pytestmark = pytest.mark.slow

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


def test_what_failed_its_gates_is_not_live(home: Bench, build: Callable[..., None]) -> None:
    """After the test above: what was built since has not been published, and its tables are no part of the answer."""
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
