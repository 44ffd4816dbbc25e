"""Facts that point at the version valid at their time: building them, and mending them after late changes.

Sluice's `healed` model finds the facts inside changed intervals and rewrites those; the peer is what people do instead,
making the table anew. Afterwards both are compared.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.customers import DAYS, MODEL, YEAR, first_year
from benchmarks.measure import Result, Timing, ratio
from benchmarks.project import Project, equal, runs

KEYS, CHANGES, FACTS = 1_000_000, 3_000_000, 20_000_000
LATE = 1_000

_FACTS = """{{ config(
    materialized='healed',
    unique_key='sale_id',
    event_time='sold_at',
    changes_in=[{'table': 'logs.sales'}, {'table': 'gold.customers', 'lookup': 'customer'}]
) }}
with sales as (
    select * from lake.logs.sales
    where {{ touched_rows() }}
)

select
    sales.sale_id,
    customers.customer_key,
    sales.customer,
    sales.sold_at,
    sales.amount
from sales
left join {{ ref('customers') }} as customers
    on
        sales.customer = customers.customer
        and {{ valid_at('customers', 'sales.sold_at') }}
"""

_BY_HAND = """
    CREATE TABLE gold.sales_by_hand AS
    SELECT s.sale_id, c.customer_key, s.customer, s.sold_at, s.amount
    FROM logs.sales AS s
    LEFT JOIN gold.customers AS c
        ON s.customer = c.customer
        AND s.sold_at >= c.valid_from AND s.sold_at < coalesce(c.valid_to, TIMESTAMP 'infinity')
"""


def run(size: float, rounds: int) -> Result:
    """Measure; `size` is the share of the full number of keys, changes and facts.

    Raises:
        RuntimeError: dbt failed, or the mended facts are not those of a new table; then no time means anything.
    """
    keys, changes, facts = (max(int(n * size), 10) for n in (KEYS, CHANGES, FACTS))
    late = max(int(LATE * min(size * 10, 1)), 1)
    built = runs("Sluice: facts, whole")
    dimension, healed = runs("Sluice: dimension after late changes"), runs("Sluice: facts healed")
    by_hand = Timing("SQL by hand: facts made anew")
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        project = Project(Path(folder) / "facts", {"customers": MODEL, "fct_sales": _FACTS})
        project.execute(
            f"CREATE TABLE logs.changes AS {first_year(keys, changes)}",
            f"CREATE TABLE logs.sales AS SELECT i AS sale_id, CAST(hash(i, 'who') % {keys} AS BIGINT) AS customer, "
            # In order of time, as sales come in.
            f"{YEAR} + INTERVAL 1 DAY + to_microseconds(i * {(DAYS - 1) * 86_400_000_000 // facts}) AS sold_at, "
            f"CAST(hash(i) % 10000 AS DECIMAL(12, 2)) / 100 AS amount FROM range({facts}) AS r (i)",
        )
        project.dbt("run", "--select", "customers")
        touched = 0
        for number in range(rounds):
            built.add(project.dbt("run", "--select", "fct_sales", "--full-refresh"))
            project.execute(f"INSERT INTO logs.changes {late_changes(keys, changes + number * late, late, number)}")
            dimension.add(project.dbt("run", "--select", "customers"))
            healed.add(project.dbt("run", "--select", "fct_sales"))
            project.execute("DROP TABLE IF EXISTS gold.sales_by_hand")
            with by_hand.round(), project.lake.connect() as con:
                con.execute(_BY_HAND)
            with project.lake.reading() as con:
                equal(con, "FROM gold.fct_sales", "FROM gold.sales_by_hand")
                (row,) = con.execute(
                    "SELECT coalesce(sum(rows_added), 0) FROM ops.rewrites WHERE relation = 'gold.fct_sales' "
                    "AND reason LIKE 'versions of%' AND invocation_id = (SELECT arg_max(invocation_id, snapshot_id) "
                    "FROM ops.rewrites WHERE relation = 'gold.fct_sales')"
                ).fetchall()
            touched += int(row[0])
    return Result(
        "facts",
        f"facts: {facts:,} facts, a dimension of {keys:,} keys",
        (
            f"{late:,} late changes a round, months back; on average {touched // rounds:,} facts got another key by "
            "them, and each round the healed table had the rows of a new one",
            f"{rounds} rounds in one lake (SQLite catalog)",
            "execution_time of dbt's nodes; its start-up is shown and in no ratio",
        ),
        (
            built.execution,
            by_hand,
            dimension.execution,
            healed.execution,
            built.start_up,
            dimension.start_up,
            healed.start_up,
        ),
        (
            ratio("facts, whole / by hand", built.execution, by_hand),
            ratio("facts made anew / healed", built.execution, healed.execution),
            ratio("by hand anew / healed", by_hand, healed.execution),
        ),
    )


def late_changes(keys: int, first_id: int, changes: int, number: int) -> str:
    """SQL of changes that come months late, to random keys, at times no other change has."""
    spread = 60 * 86_400_000_000
    return (
        f"SELECT CAST({first_id} + i AS BIGINT) AS change_id, CAST(hash(i, {number}) % {keys} AS BIGINT) AS customer, "
        f"{YEAR} + INTERVAL 100 DAY + to_microseconds(CAST(hash(i, {number}, 'when') % {spread} AS BIGINT)) "
        f"AS changed_at, false AS is_delete, 'late city ' || i % 500 AS city, 'retail' AS segment, "
        "CAST(750 AS DECIMAL(12, 2)) AS credit_limit, 'late' || i || '@example' AS email "
        f"FROM range({changes}) AS r (i)"
    )
