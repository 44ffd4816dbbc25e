"""What random sales seldom meet: keys that repeat, nulls, slices that are no days."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sluice.scd_harness import Harness

pytestmark = pytest.mark.slow

MODEL = """{{{{ config(materialized='healed', unique_key='id', {options}) }}}}
select id, k, t, amount from lake.logs.{name}_log where {{{{ touched_rows() }}}}
"""

OPTIONS = {
    "daily": "event_time='t', changes_in=[{'table': 'logs.daily_log'}]",
    "monthly": "event_time='t', slice_by=\"date_trunc('month', t)\", changes_in=[{'table': 'logs.monthly_log'}]",
    "by_key": "slice_by='k', changes_in=[{'table': 'logs.by_key_log', 'rows': 'k'}]",
}


@pytest.fixture(scope="module")
def lake(harness: Harness) -> Iterator[Harness]:
    """A log and a model for each way to tell what is touched."""
    for name in OPTIONS:
        harness.con.execute(f"CREATE TABLE logs.{name}_log (id INTEGER, k VARCHAR, t TIMESTAMP, amount INTEGER)")
    harness.define_sql({name: MODEL.format(name=name, options=options) for name, options in OPTIONS.items()})
    yield harness


def rows(lake: Harness, name: str) -> list[tuple[object, ...]]:
    return sorted(((r["id"], r["k"], r["t"], r["amount"]) for r in lake.read(name)), key=repr)


def follows(lake: Harness, name: str, *statements: str) -> None:
    """After each statement and a build the table has the rows of its log."""
    lake.con.execute(f"DELETE FROM logs.{name}_log")
    assert lake.build([name], full_refresh=True) == {name: None}
    for statement in statements:
        lake.con.execute(statement)
        assert lake.build([name]) == {name: None}
        wanted = lake.con.execute(f"SELECT id, k, t, amount FROM logs.{name}_log").fetchall()
        assert rows(lake, name) == sorted(wanted, key=repr), statement


@pytest.mark.parametrize("name", OPTIONS)
def test_nulls_and_infinite_times_are_followed_like_other_values(lake: Harness, name: str) -> None:
    follows(
        lake,
        name,
        f"INSERT INTO logs.{name}_log "
        "VALUES (1, 'a', '2024-01-10', 1), (2, NULL, NULL, 1), (NULL, 'b', '2024-01-11', 1)",
        f"INSERT INTO logs.{name}_log VALUES (3, NULL, '2024-01-20', 1), (4, 'c', 'infinity', 1), (5, NULL, NULL, 7)",
        f"UPDATE logs.{name}_log SET amount = 2 WHERE id IS NULL",
        f"UPDATE logs.{name}_log SET amount = 3 WHERE k IS NULL",
        f"DELETE FROM logs.{name}_log WHERE t IS NULL",
        f"INSERT INTO logs.{name}_log VALUES (6, 'd', '2024-01-31', 1)",
        f"DELETE FROM logs.{name}_log",
    )


def test_a_key_that_comes_twice_is_refused_whole_or_in_part(lake: Harness) -> None:
    lake.con.execute("DELETE FROM logs.daily_log")
    lake.con.execute("INSERT INTO logs.daily_log VALUES (1, 'a', '2024-01-01', 1)")
    assert lake.build(["daily"], full_refresh=True) == {"daily": None}
    before = rows(lake, "daily")
    lake.con.execute("INSERT INTO logs.daily_log VALUES (1, 'a', '2024-01-01', 2)")
    for full_refresh in (False, True):
        assert "The key must be unique" in str(lake.build(["daily"], full_refresh=full_refresh)["daily"])
        assert rows(lake, "daily") == before
    lake.con.execute("DELETE FROM logs.daily_log WHERE amount = 2")
    assert lake.build(["daily"]) == {"daily": None}
    assert rows(lake, "daily") == before
    # On another day, which the day it is on has no part in.
    lake.con.execute("INSERT INTO logs.daily_log VALUES (1, 'a', '2024-01-02', 1)")
    for full_refresh in (False, True):
        assert "The key must be unique" in str(lake.build(["daily"], full_refresh=full_refresh)["daily"])
        assert rows(lake, "daily") == before
    lake.con.execute("UPDATE logs.daily_log SET id = 2 WHERE t = '2024-01-02'")
    assert lake.build(["daily"]) == {"daily": None}
    # What moves from day to day is no clash.
    lake.con.execute("UPDATE logs.daily_log SET t = t + INTERVAL 1 DAY")
    assert lake.build(["daily"]) == {"daily": None}
    assert [(id_, str(t)) for id_, _, t, _ in rows(lake, "daily")] == [
        (1, "2024-01-02 00:00:00"),
        (2, "2024-01-03 00:00:00"),
    ]


@pytest.mark.parametrize(
    "alter",
    [
        "ALTER TABLE logs.daily_log ALTER amount TYPE BIGINT",
        "ALTER TABLE logs.daily_log DROP amount; ALTER TABLE logs.daily_log ADD COLUMN amount BIGINT DEFAULT 7",
        "ALTER TABLE logs.daily_log RENAME amount TO was; ALTER TABLE logs.daily_log ADD COLUMN amount BIGINT",
    ],
)
def test_a_table_that_was_altered_is_read_anew(lake: Harness, alter: str) -> None:
    lake.con.execute("CREATE OR REPLACE TABLE logs.daily_log (id INTEGER, k VARCHAR, t TIMESTAMP, amount INTEGER)")
    lake.con.execute("INSERT INTO logs.daily_log VALUES (1, 'a', '2024-01-01', 1), (2, 'b', '2024-01-02', 2)")
    assert lake.build(["daily"], full_refresh=True) == {"daily": None}
    lake.con.execute(alter)
    lake.con.execute("INSERT INTO logs.daily_log (id, k, t, amount) VALUES (3, 'c', '2024-01-03', 5000000000)")
    assert lake.build(["daily"]) == {"daily": None}
    wanted = lake.con.execute("SELECT id, k, t, amount FROM logs.daily_log").fetchall()
    assert rows(lake, "daily") == sorted(wanted, key=repr)


@pytest.fixture(scope="module")
def known(harness: Harness) -> Iterator[Harness]:
    """Sales whose thing is known and blue: an inner join, and a filter on what was looked up."""
    harness.con.execute("CREATE TABLE logs.known_things (k VARCHAR, since TIMESTAMP, colour VARCHAR)")
    harness.con.execute("CREATE TABLE logs.known_sales (id INTEGER, k VARCHAR, t TIMESTAMP)")
    harness.define_sql(
        {
            "known_dim": """{{ config(
                materialized='scd', natural_key='k', surrogate_key='thing_key', columns={'colour': 2},
                sequence_by=['since'], valid_from='since', changes_in=[{'table': 'logs.known_things'}]
            ) }}
            select k, since, colour from lake.logs.known_things""",
            "known_facts": """{{ config(
                materialized='healed', unique_key='id', event_time='t',
                changes_in=[{'table': 'logs.known_sales'}, {'table': 'gold.known_dim', 'lookup': 'k'}]
            ) }}
            with sales as (select * from lake.logs.known_sales where {{ touched_rows() }})
            select sales.id, sales.k, sales.t, things.colour
            from sales
            inner join {{ ref('known_dim') }} as things on sales.k = things.k and {{ valid_at('things', 'sales.t') }}
            where things.colour = 'blue'""",
        }
    )
    yield harness


def test_a_row_left_out_for_its_dimension_comes_when_the_dimension_does(known: Harness) -> None:
    def facts(*statements: str) -> list[tuple[object, ...]]:
        for statement in statements:
            known.con.execute(statement)
        assert known.build(["known_dim", "known_facts"]) == {"known_dim": None, "known_facts": None}
        return sorted((r["id"], str(r["t"])[:10]) for r in known.read("known_facts"))

    sales = "INSERT INTO logs.known_sales VALUES (1, 'a', '2024-01-01'), (2, 'a', '2024-01-05'), (3, 'b', '2024-01-05')"
    assert facts(sales) == []
    assert facts("INSERT INTO logs.known_things VALUES ('a', '2024-01-03', 'blue')") == [(2, "2024-01-05")]
    assert facts("INSERT INTO logs.known_things VALUES ('a', '2023-12-01', 'blue')") == [
        (1, "2024-01-01"),
        (2, "2024-01-05"),
    ]
    assert facts("INSERT INTO logs.known_things VALUES ('a', '2024-01-04', 'red'), ('b', '2024-01-01', 'red')") == [
        (1, "2024-01-01")
    ]
    assert facts("INSERT INTO logs.known_things VALUES ('b', '2024-01-04', 'blue')") == [
        (1, "2024-01-01"),
        (3, "2024-01-05"),
    ]
