"""Kafka, PostgreSQL, Debezium, everybody killed at random: the lake ends as database and producer tell it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from deploy.kafka_broker import missing as no_kafka
from sluice.bronze import create_bronze_tables
from sluice.eventlog import open_log
from sluice.lake import Lake
from sluice.stream_positions import broken_ranges, lag
from tests import kafka, postgres
from tests.conftest import go_without
from tests.faults import SEED, STREAM_CHANGES, STREAM_EVENTS, STREAM_KILLS
from tests.faults.invariants import books_hold
from tests.faults.stream_sources import events_truth
from tests.faults.streaming import CAPTURED, KINDS, SOURCES, Platform
from tests.sluice.capture.source import missing
from tests.warehouse import building

pytestmark = pytest.mark.slow

# What is made is made in this time for each kill, about what one takes with all that comes back after it: what is left
# after the last one is made as fast as it goes.
SECONDS_A_KILL = 8.0

# What each captured table has besides its key, and what of it makes a version (an e-mail address is masked in gold).
COLUMNS = {
    "customers": ("customer_id", ("country", "segment", "email"), ("country", "segment"), "dim_customer"),
    "products": ("stock_code", ("description", "list_price"), ("description", "list_price"), "dim_product"),
}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    lacking = missing() or no_kafka()
    found = postgres.programs()
    if lacking or found is None:
        go_without(f"{lacking} (apt install postgresql default-jre-headless maven; make .venv/dev)")
    with (
        postgres.serving(found, wal_level="logical", track_commit_timestamp="on") as server,
        kafka.serving() as broker,
    ):
        seconds = SECONDS_A_KILL * STREAM_KILLS
        made = Platform(tmp_path, server, broker, changes=STREAM_CHANGES, events=STREAM_EVENTS, seconds=seconds)
        yield made
        made.close()


def test_whoever_is_killed_the_lake_is_what_database_and_producer_say(platform: Platform) -> None:
    rng = random.Random(SEED)
    create_bronze_tables(Lake(platform.settings), platform.contracts)
    platform.wait(platform.at_work, 120)
    kinds: list[str] = []
    while platform.killed.total() < STREAM_KILLS:
        # In rounds, so that none is left out, each in another order.
        kinds = kinds or rng.sample(KINDS, len(KINDS))
        platform.kill(kinds.pop(), rng)
        platform.wait(lambda: False, rng.uniform(0, 3))
    platform.drain()
    with building(platform.settings, platform.dbt_project, platform.contracts) as build:
        build("+fct_events", "+dim_customer", "+dim_product")

    books_hold(platform.settings)
    with Lake(platform.settings).reading() as con:
        for contract in platform.contracts:
            assert broken_ranges(con, contract) == [] if contract.stream else True
        with open_log(platform.settings) as log:
            streams = [c for c in platform.contracts if c.name in SOURCES]
            assert [each.records for contract in streams for each in lag(con, contract, log) if each.records] == []
        assert con.execute("SELECT source, count(*) FROM ops.dead_letters GROUP BY ALL").fetchall() == []
        events_are_the_producers(con)
        for source in CAPTURED:
            changes_are_the_databases(con, platform, source)
        counts = con.execute(
            "SELECT (SELECT count(*) FROM bronze.events), (SELECT count(*) FROM bronze.customers WHERE _op <> 'r'), "
            "(SELECT count(*) FROM bronze.products WHERE _op <> 'r'), (SELECT count(*) FROM ops.stream_positions)"
        ).fetchone()
    assert counts is not None
    assert counts[1] + counts[2] >= STREAM_CHANGES
    print(
        f"seed {SEED}: killed {dict(platform.killed)}; {counts[0]} events, {counts[1]} changes of customers, "
        f"{counts[2]} of products, in {counts[3]} batches: nothing lost, nothing twice"
    )


def events_are_the_producers(con: duckdb.DuckDBPyConnection) -> None:
    """Each event that was committed once, and nothing of what was aborted, in bronze and in the fact."""
    truth = events_truth(STREAM_EVENTS)
    columns = "event_id, event_type, event_ts, visitor_id, customer_id, stock_code, quantity, channel"
    for table in ("bronze.events", "gold.fct_events"):
        assert_same(con, table, f"SELECT {columns} FROM {table}", f"SELECT {columns} FROM ({truth})")


def changes_are_the_databases(con: duckdb.DuckDBPyConnection, platform: Platform, source: str) -> None:
    """Each change that was committed once and in order, and the dimension what the table is, was, and when."""
    key, columns, versioned, dimension = COLUMNS[source]
    con.execute(f"CREATE TEMP TABLE account_{source} AS {_account(platform, source)}")
    con.execute(f"CREATE TEMP TABLE table_{source} AS {_exported(platform, source, f'SELECT * FROM {source}')}")
    types = dict(con.execute(f"SELECT column_name, column_type FROM (DESCRIBE bronze.{source})").fetchall())
    listed = ", ".join(f"CAST({name} AS {types[name]}) AS {name}" for name in (key, *columns))
    # Of each key its changes in their order: which it is is part of what is compared.
    nth = f"row_number() OVER (PARTITION BY {key} ORDER BY"
    assert_same(
        con,
        f"bronze.{source}",
        f"SELECT {listed}, _op AS op, {nth} _lsn, _seq_2) AS nth FROM bronze.{source}",
        f"SELECT {listed}, op, {nth} CAST(id AS BIGINT)) AS nth FROM account_{source}",
    )
    shown = ", ".join(f"CAST({name} AS {types[name]}) AS {name}" for name in (key, *versioned))
    known = f"FROM gold.{dimension} WHERE NOT is_unknown AND NOT is_inferred"
    assert_same(
        con,
        f"{dimension}, current",
        f"SELECT {', '.join((key, *versioned))} {known} AND is_current",
        f"SELECT {shown} FROM table_{source}",
    )
    assert_same(
        con,
        f"{dimension}, history",
        f"SELECT {', '.join((key, *versioned))}, is_deleted, CASE WHEN valid_from >= (SELECT min(committed) FROM "
        f"account_{source} WHERE op <> 'r') THEN valid_from END AS valid_from {known}",
        _history(source, key, versioned, shown),
    )


def _account(platform: Platform, source: str) -> str:
    """A query for what the database noted of its own changes: in what order, when committed (UTC), what came of it."""
    key, columns, _, _ = COLUMNS[source]
    images = ", ".join(f"image ->> '{name}' AS {name}" for name in (key, *columns))
    exported = _exported(
        platform,
        f"account_{source}",
        f"SELECT id, op, {images}, pg_xact_commit_timestamp(xid) AT TIME ZONE 'UTC' AS committed FROM account "
        f"WHERE source = '{source}'",
    )
    # Debezium tells the time in milliseconds.
    return (
        "SELECT * REPLACE (CAST(id AS BIGINT) AS id, date_trunc('milliseconds', CAST(committed AS TIMESTAMP)) AS "
        f"committed) FROM ({exported})"
    )


def _exported(platform: Platform, name: str, sql: str) -> str:
    """A query for the rows of a query on the database, as text."""
    path = platform.folder / f"{name}.csv"
    path.write_text(platform.server.run(platform.database, f"COPY ({sql}) TO STDOUT WITH (FORMAT csv, HEADER)"))
    return f"SELECT * FROM read_csv('{path}', header = true, all_varchar = true)"


def _history(source: str, key: str, columns: tuple[str, ...], shown: str) -> str:
    """A query for the versions the account makes, by the rules of docs/scd.md, in plain SQL."""
    image = f"struct_pack({', '.join(columns)})"
    return f"""
    WITH states AS (
        SELECT {key}, id, op, committed, op = 'd' AS is_deleted,
            -- What a delete says of the row does not count, the last image before it does.
            last_value(CASE WHEN op <> 'd' THEN {image} END IGNORE NULLS)
                OVER (PARTITION BY {key} ORDER BY id) AS image
        FROM account_{source}
    ),
    instants AS (
        SELECT * FROM states
        QUALIFY id = max(id) OVER (PARTITION BY {key}, CASE WHEN op <> 'r' THEN committed END)
    ),
    versions AS (
        SELECT * FROM instants
        QUALIFY (is_deleted, image) IS DISTINCT FROM lag((is_deleted, image)) OVER (PARTITION BY {key} ORDER BY id)
    ),
    told AS (
        SELECT {key}, unnest(image), is_deleted, CASE WHEN op <> 'r' THEN committed END AS valid_from FROM versions
    )
    SELECT {shown}, is_deleted, valid_from FROM told"""


def assert_same(con: duckdb.DuckDBPyConnection, what: str, found: str, wanted: str) -> None:
    """Two queries have the same rows, each as often."""
    con.execute(f"CREATE OR REPLACE TEMP TABLE found AS {found}")
    con.execute(f"CREATE OR REPLACE TEMP TABLE wanted AS {wanted}")
    lacking = con.execute("(FROM wanted) EXCEPT ALL (FROM found) ORDER BY ALL LIMIT 5").fetchall()
    surplus = con.execute("(FROM found) EXCEPT ALL (FROM wanted) ORDER BY ALL LIMIT 5").fetchall()
    assert (lacking, surplus) == ([], []), what
    assert con.execute("SELECT count(*) > 0 FROM wanted").fetchone() == (True,), what
