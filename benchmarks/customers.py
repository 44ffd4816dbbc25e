"""Changes of customers, as many as wanted, and the dimension made of them: what `history`, `daily` and `facts` share.

Belongs here: the log, the model and its counterpart by hand. What is timed belongs to the benchmarks.
"""

from __future__ import annotations

from pathlib import Path

_MODEL = """{{{{ config(
    materialized='scd',
    natural_key='customer',
    surrogate_key='customer_key',
    sequence_by=['changed_at', 'change_id'],
    delete_when='is_delete',
    columns={columns},
    changes_in=[{{'table': 'logs.changes', 'valid_from': 'changed_at'}}]
) }}}}
select
    customer,
    change_id,
    changed_at,
    is_delete,
    {names}
from lake.logs.changes
"""


def _model(columns: dict[str, int]) -> str:
    return _MODEL.format(columns=columns, names=",\n    ".join(columns))


_VERSIONED = {"city": 2, "segment": 2, "credit_limit": 2}

# The model, with the log's change feed. Two more attributes would cost both sides alike.
MODEL = _model({**_VERSIONED, "email": 1})

# Without the column that is overwritten on all versions of a customer, however old.
VERSIONED_MODEL = _model(_VERSIONED)

# Makes gold.customers_by_hand in the lake that is the default database.
BY_HAND = Path(__file__).with_name("customers_by_hand.sql")

YEAR = "TIMESTAMP '2025-01-01'"
DAYS = 365

# A customer moves once a quarter and changes segment every four months at most, so that half of the changes change
# nothing that is versioned: what a column of type 1, or of no interest, does to a real log. One in fifty is a delete.
_IMAGE = """
    'city ' || hash(customer, day // 90) % 500 AS city,
    ['retail', 'trade', 'public', 'export'][1 + CAST(hash(customer, day // 120) % 4 AS BIGINT)] AS segment,
    CAST(hash(change_id) % 2 * 500 AS DECIMAL(12, 2)) AS credit_limit,
    'customer' || customer || '@' || hash(change_id) % 1000 || '.example' AS email
"""


def first_year(keys: int, changes: int) -> str:
    """SQL of a log: on the first day every key once, the other changes on random keys over the rest of the year.

    No two changes have one time, so that the script by hand needs no rule for ties.
    """
    if changes < keys:
        raise ValueError(f"{changes:,} changes do not reach {keys:,} keys.")
    spread = (DAYS - 1) * 86_400_000_000
    return _log(
        f"SELECT i AS change_id, CASE WHEN i < {keys} THEN i ELSE hash(i) % {keys} END AS customer, "
        f"i >= {keys} AND hash(i, 'delete') % 50 = 0 AS is_delete, "
        f"{YEAR} + to_microseconds(CAST(CASE WHEN i < {keys} THEN i * 86400000000 // {keys} ELSE 86400000000 + "
        f"(i - {keys})::HUGEINT * {spread} // {max(changes - keys, 1)} END AS BIGINT)) AS changed_at "
        f"FROM range({changes}) AS r (i)"
    )


def next_day(keys: int, first_id: int, changes: int, day: int) -> str:
    """SQL of one more day's changes on random keys; `day` counts from the begin of the year, `first_id` from 0."""
    return _log(
        f"SELECT {first_id} + i AS change_id, hash({first_id} + i, 'day') % {keys} AS customer, "
        f"hash({first_id} + i, 'delete') % 50 = 0 AS is_delete, "
        f"{YEAR} + to_microseconds(CAST({day} * 86400000000 + i * 86400000000 // {changes} AS BIGINT)) AS changed_at "
        f"FROM range({changes}) AS r (i)"
    )


def _log(events: str) -> str:
    # A delete tells no more than who is gone, as a tombstone does.
    columns = ", ".join(
        f"CASE WHEN NOT is_delete THEN {name} END AS {name}" for name in ("city", "segment", "credit_limit", "email")
    )
    return (
        f"SELECT CAST(change_id AS BIGINT) AS change_id, CAST(customer AS BIGINT) AS customer, changed_at, is_delete, "
        f"{columns} FROM (SELECT *, {_IMAGE} FROM (SELECT *, date_diff('day', {YEAR}, changed_at) AS day "
        f"FROM ({events})))"
    )


def state_after(day: int) -> str:
    """SQL of the customers there are at the end of a day, as the shop's own table has them."""
    return (
        "SELECT * EXCLUDE (is_delete, change_id, nth) FROM (SELECT *, row_number() OVER (PARTITION BY customer "
        f"ORDER BY change_id DESC) AS nth FROM logs.changes WHERE changed_at < {YEAR} + INTERVAL {day + 1} DAY) "
        "WHERE nth = 1 AND NOT is_delete"
    )


def closed_before(day: int) -> str:
    """SQL of the versions a dbt snapshot on each day up to this one has closed, in its own columns.

    It sees a customer once a day, so that of a day's changes only the last counts. One that is missing it closes with
    the time of its run; here with that of the delete.
    """
    return (
        "SELECT * EXCLUDE (is_delete, change_id, closed_at), changed_at AS dbt_updated_at, "
        "changed_at AS dbt_valid_from, closed_at AS dbt_valid_to, "
        "md5(CAST(customer AS VARCHAR) || '|' || CAST(changed_at AS VARCHAR)) AS dbt_scd_id FROM ("
        "SELECT *, lead(changed_at) OVER (PARTITION BY customer ORDER BY change_id) AS closed_at FROM ("
        f"SELECT * FROM logs.changes WHERE changed_at < {YEAR} + INTERVAL {day + 1} DAY QUALIFY row_number() OVER "
        "(PARTITION BY customer, CAST(changed_at AS DATE) ORDER BY change_id DESC) = 1)) "
        "WHERE closed_at IS NOT NULL AND NOT is_delete"
    )
