"""Facts and what is made of them, after random changes and sales: keys as of the sale, and only what differs moves.

Each example lives through arrivals, replays and withdrawals of both logs. The dimension itself is held against the
oracle elsewhere; here it is taken as it stands.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.scd_harness import Harness, Row

pytestmark = pytest.mark.slow

UNKNOWN = "00000000-0000-0000-0000-000000000000"
START = datetime(2024, 1, 1)

DIMENSION = """{{ config(
    materialized='scd',
    natural_key='k',
    surrogate_key='thing_key',
    columns={'a': 2, 'b': 1},
    sequence_by=['at', 'n'],
    valid_from='at',
    delete_when='gone',
    deletes='DELETES',
    overwrite='OVERWRITE',
    sighting_when='seen',
    unknown_member=true,
    changes_in=[
        {'table': 'logs.DELETES_changes'},
        {'table': 'logs.DELETES_sales', 'sighting': true, 'valid_from': 'sold_at'},
    ]
) }}
select k, "at", n, gone, a, b, false as seen from lake.logs.DELETES_changes
union all
select k, sold_at, null, false, null, null, true from lake.logs.DELETES_sales
"""

FACTS = """{{ config(
    materialized='healed',
    unique_key='sale_id',
    event_time='sold_at',
    changes_in=[{'table': 'logs.DELETES_sales'}, {'table': 'gold.DELETES_things', 'lookup': 'k'}]
) }}
with sales as (select * from lake.logs.DELETES_sales where {{ touched_rows() }})
select
    sales.sale_id,
    sales.k,
    sales.sold_at,
    case when sales.k is null then cast('UNKNOWN' as uuid) else things.thing_key end as thing_key,
    things.b,
    sales.amount
from sales
left join {{ ref('DELETES_things') }} as things
    on sales.k = things.k and {{ valid_at('things', 'sales.sold_at') }}
"""

DAYS = """{{ config(
    materialized='healed',
    unique_key=['sold_on', 'thing_key'],
    slice_by='cast(sold_at as date)',
    changes_in=[{'table': 'gold.DELETES_facts'}]
) }}
select cast(sold_at as date) as sold_on, thing_key, min(sold_at) as sold_at, count(*) as sales, sum(amount) as amount
from {{ ref('DELETES_facts') }}
where {{ touched_rows() }}
group by all
"""

# How deletes are kept, and with it how type 1 is overwritten: over all versions, or as a version began.
KINDS = {"keep": "start", "close": "key"}

CHANGE = {
    "_batch": "BIGINT",
    "k": "VARCHAR",
    "at": "TIMESTAMP",
    "n": "BIGINT",
    "gone": "BOOLEAN",
    "a": "VARCHAR",
    "b": "VARCHAR",
}
SALE = {"_batch": "BIGINT", "sale_id": "BIGINT", "k": "VARCHAR", "sold_at": "TIMESTAMP", "amount": "DECIMAL(9,2)"}


@pytest.fixture(scope="module")
def shop(harness: Harness) -> Iterator[Harness]:
    """The lake with a dimension, facts and days for each way of keeping deletes."""
    for kind in KINDS:
        for log, shape in (("changes", CHANGE), ("sales", SALE)):
            columns = ", ".join(f'"{name}" {type_}' for name, type_ in shape.items())
            harness.con.execute(f"CREATE TABLE logs.{kind}_{log} ({columns})")
    texts = {"things": DIMENSION, "facts": FACTS, "days": DAYS}
    harness.define_sql(
        {
            f"{kind}_{name}": sql.replace("DELETES", kind).replace("OVERWRITE", overwrite).replace("UNKNOWN", UNKNOWN)
            for kind, overwrite in KINDS.items()
            for name, sql in texts.items()
        }
    )
    yield harness


_KEYS = st.sampled_from(["A", "A", "B"])
# Half days: a day holds two places, so that a change falls within a day of facts.
_TIMES = st.integers(0, 9).map(lambda n: START + timedelta(hours=12 * n))
_CHANGES = st.fixed_dictionaries(
    {
        "k": _KEYS, "at": _TIMES, "n": st.integers(0, 2), "gone": st.sampled_from([False, False, False, True]),
        "a": st.sampled_from([None, "x", "y"]), "b": st.sampled_from([None, "p", "q"]),
    }
)  # fmt: skip
_SALES = st.fixed_dictionaries(
    {"k": st.sampled_from(["A", "A", "B", "C", None]), "sold_at": _TIMES, "amount": st.integers(1, 3).map(str)}
)
_STEPS = st.lists(
    st.fixed_dictionaries(
        {
            "changes": st.lists(_CHANGES, max_size=3),
            "sales": st.lists(_SALES, max_size=4),
            # A batch of a log that is taken out, if there is one of that number.
            "withdrawn": st.sampled_from([None, None, ("changes", 0), ("sales", 0), ("changes", 1), ("sales", 1)]),
        }
    ),
    min_size=3,
    max_size=4,
)


class Shop:
    """Both logs of one kind and what is built from them."""

    def __init__(self, harness: Harness, kind: str) -> None:
        self.harness, self.kind = harness, kind
        self.tables = [f"{kind}_{name}" for name in ("things", "facts", "days")]
        self.sale_ids = iter(range(1_000_000))
        for log in ("changes", "sales"):
            harness.con.execute(f"DELETE FROM logs.{kind}_{log}")

    def take(self, number: int, step: dict[str, Any]) -> None:
        """One batch of each log comes, one may go."""
        if step["withdrawn"]:
            log, batch = step["withdrawn"]
            self.harness.con.execute(f"DELETE FROM logs.{self.kind}_{log} WHERE _batch = ?", [batch])
        sales = [{"sale_id": next(self.sale_ids), **sale} for sale in step["sales"]]
        for log, shape, rows in (("changes", CHANGE, step["changes"]), ("sales", SALE, sales)):
            if rows:
                given = [{"_batch": number, **row} for row in rows]
                self.harness.con.execute(
                    f"INSERT INTO logs.{self.kind}_{log} SELECT item.* FROM (SELECT unnest(from_json(?, ?)) AS item)",
                    [json.dumps(given, default=str), json.dumps([shape])],
                )

    def build(self, **options: Any) -> None:
        """Build all three; they must succeed."""
        assert self.harness.build(self.tables, **options) == dict.fromkeys(self.tables)

    def rows(self, name: str) -> list[Row]:
        """The rows of one of them."""
        return self.harness.read(f"{self.kind}_{name}")

    def contents(self, name: str) -> Counter[str]:
        """The rows of one of them, to be compared."""
        return Counter(map(as_text, self.rows(name)))


def as_text(row: Row) -> str:
    return ", ".join(f"{name}={row[name]}" for name in sorted(row))


def keys_are_as_of(shop: Shop) -> None:
    """Each fact has the key of the version valid at its time, each day what its facts come to."""
    things = shop.rows("things")
    result = shop.harness.con.execute(f"SELECT sale_id, k, sold_at, amount FROM logs.{shop.kind}_sales")
    expected = []
    for sale_id, k, sold_at, amount in result.fetchall():
        valid = [
            thing
            for thing in things
            if k is not None
            and thing["k"] == k
            and thing["valid_from"] <= sold_at
            and (thing["valid_to"] is None or sold_at < thing["valid_to"])
        ]
        # Whoever was sold is known, if only as an inferred member; only a deleted one may be missing.
        assert len(valid) <= 1
        assert valid or k is None or shop.kind == "close"
        key = UNKNOWN if k is None else valid[0]["thing_key"] if valid else None
        b = valid[0]["b"] if valid else None
        expected.append({"sale_id": sale_id, "k": k, "sold_at": sold_at, "thing_key": key, "b": b, "amount": amount})
    assert shop.contents("facts") == Counter(map(as_text, expected))
    days: dict[tuple[Any, Any], list[Row]] = {}
    for fact in shop.rows("facts"):
        days.setdefault((fact["sold_at"].date(), fact["thing_key"]), []).append(fact)
    sums = [
        {
            "sold_on": day, "thing_key": key, "sold_at": min(f["sold_at"] for f in facts),
            "sales": len(facts), "amount": sum(f["amount"] for f in facts),
        }
        for (day, key), facts in days.items()
    ]  # fmt: skip
    assert shop.contents("days") == Counter(map(as_text, sums))


def only_what_differs_moved(shop: Shop, since: int, before: dict[str, Counter[str]]) -> None:
    """The change feed tells of the rows that are different, and of no other; so do the dates noted as rewritten."""
    feed_columns = {"snapshot_id", "rowid", "change_type"}
    for name in ("facts", "days"):
        now = shop.contents(name)
        different = (now - before[name]) + (before[name] - now)
        told = shop.harness.changes(f"{shop.kind}_{name}", since)
        moved = Counter(as_text({c: v for c, v in row.items() if c not in feed_columns}) for row in told)
        assert moved == different, name
        noted = shop.harness.con.execute(
            "SELECT slice FROM ops.rewrites WHERE relation = ? AND snapshot_id >= ? AND rows_removed + rows_added > 0",
            [f"gold.{shop.kind}_{name}", since],
        ).fetchall()
        assert {slice_ for (slice_,) in noted} == {str(row["sold_at"].date()) for row in told}, name


@pytest.mark.parametrize("kind", KINDS)
@settings(settings.get_profile("heal"))
@given(taken=_STEPS)
def test_facts_follow_their_dimension_and_move_only_where_it_did(
    shop: Harness, kind: str, taken: list[dict[str, Any]]
) -> None:
    life = Shop(shop, kind)
    life.take(0, taken[0])
    life.build(full_refresh=True)
    keys_are_as_of(life)
    for number, step in enumerate(taken[1:], start=1):
        life.take(number, step)
        before, since = {name: life.contents(name) for name in ("facts", "days")}, shop.snapshot()
        life.build()
        keys_are_as_of(life)
        only_what_differs_moved(life, since, before)
    before, since = {name: life.contents(name) for name in ("things", "facts", "days")}, shop.snapshot()
    life.build()
    assert shop.snapshot() == since
    life.build(full_refresh=True)
    assert {name: life.contents(name) for name in before} == before
