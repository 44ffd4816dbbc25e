"""Sessions, windows and funnel: whatever order events come in, what a plain reading of the definitions gives.

The events of the property stand in `fct_events` as it would have them; how they get there is shown elsewhere
(tests/test_any_order.py compares all of gold). The last test goes the whole way with a single late event.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from random import Random
from typing import Any
from uuid import UUID

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sluice.bronze import create_bronze_tables
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.settings import load_settings
from tests.conftest import Bench
from tests.warehouse import CONTRACTS, building

pytestmark = pytest.mark.slow

Row = dict[str, Any]
Build = Callable[..., None]

MODELS = ("fct_sessions", "agg_events_5min", "agg_events_15min_sliding", "mart_funnel")
UNKNOWN = UUID(int=0)
GAP = timedelta(minutes=30)
MILLISECOND = timedelta(milliseconds=1)
KINDS = ("page_view", "view", "add_to_cart", "remove_from_cart", "checkout", "purchase")

# From one event of a visitor to the next: on both sides of half an hour, and at it; at once; into another day.
STEPS = (
    timedelta(0),
    MILLISECOND,
    timedelta(minutes=4),
    GAP - MILLISECOND,
    GAP,
    GAP + MILLISECOND,
    timedelta(hours=20),
)

EVENT = {
    "event_id": "VARCHAR", "visitor_id": "VARCHAR", "customer_id": "VARCHAR", "customer_key": "UUID",
    "event_ts": "TIMESTAMP", "event_type": "VARCHAR", "channel": "VARCHAR", "stock_code": "VARCHAR",
    "invoice": "VARCHAR", "quantity": "INTEGER",
}  # fmt: skip


def life(random: Random, visitors: int) -> list[Row]:
    """The events of so many visitors, in no order."""
    events: list[Row] = []
    for visitor in range(visitors):
        # Some begin at the borders of windows and days.
        at = datetime(2024, 1, 1, 23, 50) + random.choice((timedelta(0), timedelta(seconds=random.randrange(1200))))
        for _ in range(random.randint(1, 12)):
            kind = random.choice(KINDS)
            customer = random.choice((None, None, "C1", "C2"))
            events.append(
                {
                    "event_id": f"{random.getrandbits(64):016x}",
                    "visitor_id": f"v{visitor}",
                    "customer_id": customer,
                    # Who looks a key up is fct_events; a session takes the one of its event.
                    "customer_key": UUID(int=random.randint(1, 9)) if customer else UNKNOWN,
                    "event_ts": at,
                    "event_type": kind,
                    "channel": random.choice(("web", "web", "app", None)),
                    "stock_code": random.choice((None, "A", "B")),
                    "invoice": random.choice((None, "1", "2")) if kind == "purchase" else None,
                    "quantity": random.choice((None, 1, 5)),
                }
            )
            at += random.choice(STEPS)
    random.shuffle(events)
    return events


# What must come of them ---------------------------------------------------------------------------------------------


def sessions_of(events: Iterable[Row]) -> list[Row]:
    """Sessions as they are defined: half an hour without an event ends one."""
    by_visitor: defaultdict[str, list[Row]] = defaultdict(list)
    for event in sorted(events, key=lambda e: (e["event_ts"], e["event_id"])):
        by_visitor[event["visitor_id"]].append(event)
    found = []
    for visitor in by_visitor.values():
        current: list[Row] = []
        for event in visitor:
            if current and event["event_ts"] - current[-1]["event_ts"] >= GAP:
                found.append(session_of(current))
                current = []
            current.append(event)
        found.append(session_of(current))
    return found


def session_of(events: list[Row]) -> Row:
    """One session, of its events in order."""
    first, last = events[0], events[-1]
    start, end = first["event_ts"], last["event_ts"]
    signed_in = [e for e in events if e["customer_id"]]
    bought = [e["invoice"] for e in events if e["event_type"] == "purchase" and e["invoice"]]
    counts = {kind: sum(e["event_type"] == kind for e in events) for kind in KINDS}

    def step(kind: str, after: datetime | None) -> datetime | None:
        if after is None:
            return None
        return min((e["event_ts"] for e in events if e["event_type"] == kind and e["event_ts"] >= after), default=None)

    viewed = step("view", start)
    carted = step("add_to_cart", viewed)
    text = start.strftime("%Y-%m-%dT%H:%M:%S.%f")
    visitor = first["visitor_id"]
    return {
        "session_key": UUID(hashlib.md5(f"{len(visitor)}:{visitor}{len(text)}:{text}".encode()).hexdigest()),
        "customer_key": signed_in[-1]["customer_key"] if signed_in else UNKNOWN,
        "date_key": int(start.strftime("%Y%m%d")),
        "visitor_id": visitor,
        "customer_id": signed_in[-1]["customer_id"] if signed_in else None,
        "started_at": start,
        "last_event_at": end,
        "expires_at": end + GAP,
        "duration_seconds": (end - start) // timedelta(seconds=1),
        "channel": first["channel"],
        "landing_event_type": first["event_type"],
        "landing_stock_code": first["stock_code"],
        "events": len(events),
        "page_views": counts["page_view"],
        "product_views": counts["view"],
        "cart_additions": counts["add_to_cart"],
        "cart_removals": counts["remove_from_cart"],
        "checkouts": counts["checkout"],
        "purchases": counts["purchase"],
        "has_purchase": counts["purchase"] > 0,
        "invoices": len(set(bought)),
        "invoice": bought[0] if bought else None,
        "viewed_at": viewed,
        "carted_at": carted,
        "purchased_at": step("purchase", carted),
    }


def windows_of(events: Iterable[Row], length: int) -> list[Row]:
    """Windows of so many minutes, one of which begins every five."""
    found: defaultdict[tuple[datetime, str, str], list[Row]] = defaultdict(list)
    for event in events:
        at = event["event_ts"]
        latest = at.replace(minute=at.minute - at.minute % 5, second=0, microsecond=0)
        for back in range(0, length, 5):
            start = latest - timedelta(minutes=back)
            assert start <= at < start + timedelta(minutes=length)
            found[start, event["event_type"], event["channel"] or "unknown"].append(event)
    return [
        {
            "window_start": start,
            "window_end": start + timedelta(minutes=length),
            "date_key": int(start.strftime("%Y%m%d")),
            "event_type": kind,
            "channel": channel,
            "events": len(inside),
            "visitors": len({e["visitor_id"] for e in inside}),
            "quantity": sum(e["quantity"] or 0 for e in inside),
        }
        for (start, kind, channel), inside in found.items()
    ]


def funnel_of(sessions: Iterable[Row]) -> list[Row]:
    """How far sessions came, by the day and channel they began in."""
    found: defaultdict[tuple[date, str], list[Row]] = defaultdict(list)
    for session in sessions:
        found[session["started_at"].date(), session["channel"] or "unknown"].append(session)

    def rate(part: int, whole: int) -> Decimal | None:
        return (Decimal(part) / whole).quantize(Decimal("0.000001"), ROUND_HALF_UP) if whole else None

    rows = []
    for (day, channel), inside in found.items():
        viewed, carted, bought = (
            sum(s[step] is not None for s in inside) for step in ("viewed_at", "carted_at", "purchased_at")
        )
        rows.append(
            {
                "date_key": int(day.strftime("%Y%m%d")),
                "calendar_date": day,
                "channel": channel,
                "sessions": len(inside),
                "viewed_sessions": viewed,
                "carted_sessions": carted,
                "purchased_sessions": bought,
                "view_rate": rate(viewed, len(inside)),
                "cart_rate": rate(carted, viewed),
                "purchase_rate": rate(bought, carted),
                "conversion_rate": rate(bought, len(inside)),
            }
        )
    return rows


# The slice of a row, as `ops.rewrites` writes it.
SLICES: dict[str, Callable[[Row], str]] = {
    "fct_sessions": lambda row: str(row["started_at"].date()),
    "agg_events_5min": lambda row: str(row["window_start"]),
    "agg_events_15min_sliding": lambda row: str(row["window_start"]),
    "mart_funnel": lambda row: str(row["date_key"]),
}


def wanted(events: Iterable[Row]) -> dict[str, set[str]]:
    """Each table as text of its rows."""
    events = list(events)
    sessions = sessions_of(events)
    tables = {
        "fct_sessions": sessions,
        "agg_events_5min": windows_of(events, 5),
        "agg_events_15min_sliding": windows_of(events, 15),
        "mart_funnel": funnel_of(sessions),
    }
    return {name: {f"{SLICES[name](row)} {row}" for row in rows} for name, rows in tables.items()}


# The lake ----------------------------------------------------------------------------------------------------------


class Shop:
    """A lake with events where `fct_events` stands, and the models that are made of them."""

    def __init__(self, con: duckdb.DuckDBPyConnection, build: Build) -> None:
        self.con, self.build = con, build
        self.there: dict[str, Row] = {}

    def change(self, came: Iterable[Row], went: Iterable[str] = ()) -> None:
        """Events come and go in one transaction, then the models are built."""
        self.con.execute("BEGIN")
        self.con.execute("DELETE FROM gold.fct_events WHERE list_contains(?, event_id)", [gone := list(went)])
        rows = list(came)
        self.con.execute(
            f"INSERT INTO gold.fct_events ({', '.join(EVENT)}) "
            "SELECT item.* FROM (SELECT unnest(from_json(?, ?)) AS item)",
            [json.dumps(rows, default=str), json.dumps([EVENT])],
        )
        self.con.execute("COMMIT")
        for event_id in gone:
            del self.there[event_id]
        self.there |= {row["event_id"]: row for row in rows}
        self.build(*MODELS)

    def rows(self, name: str) -> list[Row]:
        result = self.con.execute(f"SELECT * FROM gold.{name}")
        columns = [column[0] for column in result.description or []]
        return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]

    def rewritten(self, name: str, since: int) -> set[str]:
        """Slices of a table that builds since a snapshot have rewritten."""
        found = self.con.execute(
            "SELECT slice FROM ops.rewrites WHERE relation = ? AND snapshot_id >= ? AND slice IS NOT NULL",
            [f"gold.{name}", since],
        ).fetchall()
        return {slice_ for (slice_,) in found}

    def snapshot(self) -> int:
        return int(self.con.execute("SELECT id FROM ducklake_current_snapshot('lake')").fetchall()[0][0])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One lake and one parsed project for all examples."""
    given_settings = load_settings(home=str(tmp_path_factory.mktemp("event_time") / "home"), threads=1)
    lake = Lake(given_settings)
    create_bronze_tables(lake, CONTRACTS)
    with lake.connect() as con:
        con.execute("CREATE SCHEMA IF NOT EXISTS gold")
        con.execute(f"CREATE TABLE gold.fct_events ({', '.join(f'{n} {t}' for n, t in EVENT.items())})")
        with building(given_settings) as build:
            # A first build is whole, and names no slices.
            build(*MODELS)
            yield Shop(con, build)


def checked(shop: Shop, came: list[Row], went: list[str]) -> None:
    """After a change all tables are as defined, and what was rewritten is what is different."""
    before, since = wanted(shop.there.values()), shop.snapshot()
    shop.change(came, went)
    now = wanted(shop.there.values())
    for name in MODELS:
        rows = shop.rows(name)
        found = {f"{SLICES[name](row)} {row}" for row in rows}
        assert len(found) == len(rows)
        assert found == now[name], (name, sorted(found - now[name])[:2], sorted(now[name] - found)[:2])
        different = {SLICES[name](row) for row in rows if f"{SLICES[name](row)} {row}" not in before[name]}
        different |= {text.split(" {")[0] for text in before[name] - now[name]}
        assert shop.rewritten(name, since) == different, name


@settings(
    # Three lives of eighty visitors: an example takes seven seconds of five builds, its visitors next to nothing.
    max_examples=3,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
@given(seed=st.integers(0, 2**32))
def test_events_in_any_order_and_batches_make_the_tables_they_are_defined_to(shop: Shop, seed: int) -> None:
    random = Random(seed)
    events = life(random, visitors=80)
    # A whole life first, in whose place the next one comes, as with a partition that is delivered again.
    checked(shop, events[: len(events) // 2], list(shop.there))
    rest = events[len(events) // 2 :]
    cut = random.randrange(1, len(rest))
    checked(shop, rest[:cut], [])
    # Corrected away, and with the last batch back again.
    withdrawn = random.sample(sorted(shop.there), 20)
    back = [shop.there[event_id] for event_id in withdrawn[:10]]
    checked(shop, [], withdrawn)
    checked(shop, rest[cut:] + back, [])
    # A few late ones touch a few visitors and windows.
    late = life(random, visitors=3)
    checked(shop, late, [])
    since = shop.snapshot()
    shop.build(*MODELS)
    assert shop.snapshot() == since


def line(event_id: str, visitor: str, at: str, kind: str = "view") -> str:
    return json.dumps(
        {"event_id": event_id, "event_type": kind, "event_ts": at, "visitor_id": visitor, "channel": "web"}
    )


def test_a_late_event_merges_two_sessions_and_taken_back_splits_them(bench: Bench) -> None:
    early = [
        line("e1", "v1", "2026-01-01T10:00:00Z"),
        line("e2", "v1", "2026-01-01T10:50:00Z", "add_to_cart"),
        line("e3", "v1", "2026-01-01T15:00:00Z"),
        line("e4", "v2", "2026-01-01T10:25:00Z"),
        line("e5", "v2", "2026-01-02T10:25:00Z"),
    ]
    events = next(contract for contract in CONTRACTS if contract.name == "events")
    bench.put("events/date=2026-01-01/hour=23/a.jsonl", "\n".join(early))
    create_bronze_tables(bench.lake, CONTRACTS)
    columns = "visitor_id, CAST(started_at AS VARCHAR), CAST(last_event_at AS VARCHAR), events, carted_at IS NOT NULL"
    query = f"SELECT {columns} FROM gold.fct_sessions ORDER BY ALL"
    others = [
        ("v1", "2026-01-01 15:00:00", "2026-01-01 15:00:00", 1, False),
        ("v2", "2026-01-01 10:25:00", "2026-01-01 10:25:00", 1, False),
        ("v2", "2026-01-02 10:25:00", "2026-01-02 10:25:00", 1, False),
    ]
    apart = [
        ("v1", "2026-01-01 10:00:00", "2026-01-01 10:00:00", 1, False),
        ("v1", "2026-01-01 10:50:00", "2026-01-01 10:50:00", 1, False),
    ]
    merged = [("v1", "2026-01-01 10:00:00", "2026-01-01 10:50:00", 3, True)]
    # What the late event changes, and what taking it back does: removed and added rows of each slice.
    moved = {
        "gold.fct_sessions": {("2026-01-01", 2, 1)},
        "gold.agg_events_5min": {("2026-01-01 10:20:00", 0, 1)},
        "gold.agg_events_15min_sliding": {(f"2026-01-01 10:{m}:00", m != 10, 1) for m in (10, 15, 20)},
        "gold.mart_funnel": {("20260101", 1, 1)},
    }

    def built() -> dict[str, set[tuple[str, int, int]]]:
        """Ingest what is new, build all, and tell what was rewritten of these tables."""
        since = int(bench.sql("SELECT id FROM ducklake_current_snapshot('lake')")[0][0])
        ingest(bench.lake, events, ["2026-01-01", "2026-01-02"])
        build()
        found = bench.sql(
            "SELECT relation, slice, rows_removed, rows_added FROM ops.rewrites WHERE snapshot_id >= ?", [since]
        )
        return {name: {row[1:] for row in found if row[0] == name} for name in moved}

    with building(bench.settings) as build:
        built()
        assert bench.sql(query) == sorted(apart + others)
        # v1 at 10:24 is within half an hour of both; it arrives a day later.
        late = bench.put("events/date=2026-01-02/hour=05/late.jsonl", line("e6", "v1", "2026-01-01T10:24:00Z"))
        rewritten = built()
        assert bench.sql(query) == sorted(merged + others)
        assert rewritten == moved
        # It was an error: the file is delivered again, with another event in it.
        late.write_text(line("e7", "v3", "2026-01-02T05:00:00Z"))
        built()
        assert bench.sql(query) == sorted(
            [*apart, *others, ("v3", "2026-01-02 05:00:00", "2026-01-02 05:00:00", 1, False)]
        )
