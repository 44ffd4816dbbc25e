"""What random sales seldom meet: keys that repeat, nulls, slices that are no days."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sluice.scd_harness import Harness

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


# Facts that look up a dimension, each in its way: what they select, their unique key, and their lookup.
LOOKUPS = {
    "inner": ("select s.id, s.k, s.t, d.colour {from_} inner {join} where d.colour = 'blue'", "'id'", "'k'"),
    "renamed": ("select s.id, upper(s.k) as k, s.t, d.colour {from_} left {join}", "'id'", "'k'"),
    "coarser": ("select s.id, s.k, cast(s.t as date) as t, d.colour {from_} left {join}", "'id'", "'k'"),
    "current": ("select s.id, s.k, s.t, d.is_current {from_} left {join}", "'id'", "'k'"),
    "ends": ("select s.id, s.k, s.t, d.valid_to as until {from_} left {join}", "'id'", "'k'"),
    "only_current": ("select s.id, s.k, s.t, d.colour {from_} inner {join} where d.is_current", "'id'", "'k'"),
    "grouped": (
        "select s.day, s.k, max(s.t) as t, count(*) as n, max(d.colour) as colour {from_} left {join} group by all",
        "['day', 'k']",
        "'k'",
    ),
    "first_of": (
        "select s.day, s.k, s.t, d.colour {from_} left {join} "
        "qualify row_number() over (partition by s.day, s.k order by s.t) = 1",
        "['day', 'k']",
        "'k'",
    ),
    "shipped": (
        "select s.id, s.k, s.ship, s.t, d.colour {from_} left join {{{{ ref('known_dim') }}}} as d "
        "on s.ship = d.k and {{{{ valid_at('d', 's.t') }}}}",
        "'id'",
        "{'ship': 'k'}",
    ),
    "added": ("select s.id, s.k, s.t, s.day as added, d.colour {from_} left {join}", "'id'", "'k'"),
}
FROM = "from (select * from lake.logs.known_sales where {{ touched_rows() }}) as s"
JOIN = "join {{ ref('known_dim') }} as d on s.k = d.k and {{ valid_at('d', 's.t') }}"
FACTS = """{{{{ config(
    materialized='healed', unique_key={key}, event_time='t',
    changes_in=[{{'table': 'logs.known_sales'}}, {{'table': 'gold.known_dim', 'lookup': {lookup}}}]
) }}}}
{select}"""
STEPS = [
    "INSERT INTO logs.known_sales VALUES (1, 'A', 'B', '2024-01-01 08:00', '2024-01-01'), "
    "(2, 'A', 'B', '2024-01-05 08:00', '2024-01-05'), (3, 'A', NULL, '2024-01-05 13:00', '2024-01-05'), "
    "(4, 'B', 'A', '2024-01-05 09:00', '2024-01-05'), (5, 'a', 'A', '2024-01-05 14:00', '2024-01-05')",
    "INSERT INTO logs.known_things VALUES ('A', '2024-01-03', 'blue')",
    "INSERT INTO logs.known_things VALUES ('A', '2023-12-01', 'blue')",
    # In the middle of a day of sales, and at the very time of none.
    "INSERT INTO logs.known_things VALUES ('A', '2024-01-05 12:00', 'green'), ('B', '2024-01-01', 'red')",
    "UPDATE logs.known_things SET colour = 'white' WHERE since = '2024-01-03'",
    "INSERT INTO logs.known_things VALUES ('B', '2024-01-04', 'blue'), ('A', '2024-02-01', 'black')",
    "DELETE FROM logs.known_things WHERE since = '2024-01-05 12:00'",
    "INSERT INTO logs.known_sales VALUES (6, 'B', 'A', '2024-02-02 10:00', '2024-02-02')",
]


@pytest.fixture(scope="module")
def known(harness: Harness) -> Iterator[Harness]:
    """Sales and what they look up in a dimension of things."""
    harness.con.execute("CREATE TABLE logs.known_things (k VARCHAR, since TIMESTAMP, colour VARCHAR)")
    harness.con.execute("CREATE TABLE logs.known_sales (id INTEGER, k VARCHAR, ship VARCHAR, t TIMESTAMP, day DATE)")
    harness.define_sql(
        {
            "known_dim": """{{ config(
                materialized='scd', natural_key='k', surrogate_key='thing_key', columns={'colour': 2},
                sequence_by=['since'], valid_from='since', changes_in=[{'table': 'logs.known_things'}]
            ) }}
            select k, since, colour from lake.logs.known_things""",
            **{
                f"known_{name}": FACTS.format(
                    key=key, lookup=lookup, select=select.format(from_=FROM, join=JOIN)
                ).replace("on s.k = d.k", "on upper(s.k) = d.k" if name == "renamed" else "on s.k = d.k")
                for name, (select, key, lookup) in LOOKUPS.items()
            },
            "known_unfit": FACTS.format(
                key="['month', 'k']",
                lookup="'k'",
                select=f"select month(s.t) as month, s.k, max(s.t) as t, any_value(d.colour) as c {FROM} left {JOIN} "
                "group by all",
            ),
            "known_untyped": FACTS.format(
                key="'id'", lookup="{'id': 'k'}", select=f"select s.id, s.t, d.colour {FROM} left {JOIN}"
            ),
        }
    )
    yield harness


def plain(name: str) -> str:
    """The SELECT of a model, over all rows, without dbt."""
    select, _, _ = LOOKUPS[name]
    sql = select.format(from_=FROM, join=JOIN).replace("{{ touched_rows() }}", "true")
    if name == "renamed":
        sql = sql.replace("on s.k = d.k", "on upper(s.k) = d.k")
    return sql.replace("{{ ref('known_dim') }}", "gold.known_dim").replace(
        "{{ valid_at('d', 's.t') }}", "s.t >= d.valid_from and (d.valid_to is null or s.t < d.valid_to)"
    )


@pytest.mark.slow
def test_what_is_looked_up_is_what_a_whole_computation_gives(known: Harness) -> None:
    names = ["known_dim", *(f"known_{name}" for name in LOOKUPS)]
    assert set(known.build(names, full_refresh=True).values()) == {None}
    for step in STEPS:
        known.con.execute(step)
        assert known.build(names) == dict.fromkeys(names)
        for name in LOOKUPS:
            asked = known.con.execute(plain(name))
            columns = [column[0] for column in asked.description or []]
            wanted = sorted(repr(list(row)) for row in asked.fetchall())
            found = sorted(repr([r[c] for c in columns]) for r in known.read(f"known_{name}"))
            assert found == wanted, (name, step)
    # What a row was left out for, and comes with, is a version.
    why = known.con.execute("SELECT DISTINCT reason FROM ops.rewrites WHERE relation = 'gold.known_inner' ORDER BY 1")
    assert [reason for (reason,) in why.fetchall()] == [
        "first build",
        "rows of logs.known_sales",
        "versions of gold.known_dim",
    ]
    moved = "SELECT sum(rows_removed), sum(rows_added) FROM ops.rewrites WHERE relation = 'gold.known_{}'"
    assert known.con.execute(moved.format("added")).fetchall() == known.con.execute(moved.format("shipped")).fetchall()


def test_a_lookup_that_could_not_be_followed_is_refused_by_the_first_build(known: Harness) -> None:
    assert known.build(["known_dim"], full_refresh=True) == {"known_dim": None}
    told = known.build(["known_unfit", "known_untyped"])
    assert "month" in str(told["known_unfit"])
    assert "INTEGER and VARCHAR" in str(told["known_untyped"])


# Windows of two hours that begin every hour: a row lies in two slices, and is named by neither in its own table.
HOURS = ["date_trunc('hour', t)", "date_trunc('hour', t) - interval '1 hour'"]
WINDOWS = f"""{{{{ config(
    materialized='healed', unique_key=['w', 'k'], slice_by='w',
    changes_in=[{{'table': 'logs.windows_log', 'slices': {HOURS}}}]
) }}}}
with placed as (
    select unnest([{", ".join(HOURS)}]) as w, k, amount from lake.logs.windows_log where {{{{ touched_rows() }}}}
)
select w, k, count(*) as n, sum(amount) as amount from placed group by all
"""


def test_a_row_may_lie_in_several_slices(harness: Harness) -> None:
    harness.con.execute("CREATE TABLE logs.windows_log (k VARCHAR, t TIMESTAMP, amount INTEGER)")
    harness.define_sql({"windows": WINDOWS})
    assert harness.build(["windows"]) == {"windows": None}
    for statement, rewritten in [
        (
            "VALUES ('a', '2024-01-01 10:10', 1), ('a', '2024-01-01 11:10', 2), ('a', '2024-01-01 13:00', 3)",
            {"09", "10", "11", "12", "13"},
        ),
        # Between two that share a window with it, each of which has a window without it.
        ("VALUES ('a', '2024-01-01 12:30', 4)", {"11", "12"}),
        ("VALUES ('b', '2024-01-01 10:59:59', 4), (NULL, '2024-01-01 20:00', 1)", {"09", "10", "19", "20"}),
        ("VALUES ('c', NULL, 4)", {None}),
    ]:
        harness.con.execute(f"INSERT INTO logs.windows_log {statement}")
        assert harness.build(["windows"]) == {"windows": None}
        wanted = harness.con.execute(
            "SELECT w, k, count(*) AS n, sum(amount) AS amount FROM "
            f"(SELECT unnest([{', '.join(HOURS)}]) AS w, k, amount FROM logs.windows_log) GROUP BY ALL"
        ).fetchall()
        found = [(r["w"], r["k"], r["n"], r["amount"]) for r in harness.read("windows")]
        assert sorted(found, key=repr) == sorted(wanted, key=repr), statement
        noted = harness.con.execute(
            "SELECT substring(slice, 12, 2) FROM ops.rewrites WHERE relation = 'gold.windows' AND invocation_id = "
            "(SELECT invocation_id FROM ops.builds WHERE relation = 'gold.windows' ORDER BY snapshot_id DESC LIMIT 1)"
        ).fetchall()
        assert {hour for (hour,) in noted} == rewritten, statement


# Options that are refused, and what is said of them.
REFUSED = {
    "slice_by='w', changes_in=[{'table': 'logs.windows_log', 'slices': 't', 'rows': 'k'}]": "slices and rows",
    "changes_in=[{'table': 'logs.windows_log', 'slices': 't'}]": "no slice_by",
    "slice_by='w', changes_in=[{'table': 'logs.windows_log', 'slices': 'hour'}]": "hour",
}


def test_slices_that_could_not_be_followed_are_refused_by_the_first_build(harness: Harness) -> None:
    harness.con.execute("CREATE TABLE IF NOT EXISTS logs.windows_log (k VARCHAR, t TIMESTAMP, amount INTEGER)")
    head = "{{{{ config(materialized='healed', unique_key='w', {}) }}}}\n"
    select = "select t as w from lake.logs.windows_log where {{ touched_rows() }}"
    names = [f"windows_refused_{number}" for number in range(len(REFUSED))]
    harness.define_sql({name: head.format(o) + select for name, o in zip(names, REFUSED, strict=True)})
    told = harness.build(names)
    for name, message in zip(names, REFUSED.values(), strict=True):
        assert message in str(told[name])
