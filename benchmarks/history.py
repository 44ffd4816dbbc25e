"""A year of history from its change log: one dbt run of an `scd` model against SQL by hand and a dbt snapshot per day.

Sluice and the script make the same dimension of one log, in lakes of their own, and see the whole of it. A dbt snapshot
sees the table of the day, so it runs once for each, and makes a version of every change it sees. Five of its days are
measured, spread evenly over the year because its table grows from day to day; the year is reckoned from them.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from benchmarks.customers import BY_HAND, DAYS, MODEL, closed_before, first_year, state_after
from benchmarks.measure import Result, Timing, ratio, times, total
from benchmarks.project import Project, equal, runs

# The project's aims: a hand that knows its data may be faster, but not by much; a snapshot per day is what people do.
AIM_BY_HAND = 1.5
AIM_SNAPSHOTS = 50.0

KEYS, CHANGES = 1_000_000, 10_000_000
SNAPSHOT_DAYS = 5

# As the documentation of dbt has it for a table with a time of change, and so that deletes are seen.
_SNAPSHOT = """{% snapshot customers %}
{{ config(
    unique_key='customer',
    strategy='timestamp',
    updated_at='changed_at',
    hard_deletes='invalidate'
) }}
select * from lake.logs.state
{% endsnapshot %}
"""


def run(size: float, rounds: int) -> Result:
    """Measure; `size` is the share of the full number of keys and changes.

    Raises:
        RuntimeError: dbt failed, or the two builds differ; then no time means anything.
    """
    keys, changes = max(int(KEYS * size), 1), max(int(CHANGES * size), 10)
    ours, snapshots = runs("Sluice: scd, whole year"), runs("dbt snapshot, one day")
    by_hand = Timing("SQL by hand, whole year")
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        work = Path(folder)
        for number in range(rounds):
            project = _with_log(work / f"sluice-{number}", keys, changes, models={"customers": MODEL})
            ours.add(project.dbt("run"))
            # In the same lake, that both may be compared; what is there already costs it nothing.
            with by_hand.round(), project.lake.connect() as con:
                con.execute(BY_HAND.read_text(encoding="utf-8"))
            if number == rounds - 1:
                with project.lake.reading() as con:
                    rows = equal(con, "FROM gold.customers", "FROM gold.customers_by_hand")
            shutil.rmtree(work / f"sluice-{number}")
        project = _with_log(work / "snapshots", keys, changes, snapshots={"customers": _SNAPSHOT})
        for day in measured_days():
            snapshots_until(project, day - 1)
            project.execute(f"CREATE OR REPLACE TABLE logs.state AS {state_after(day)}")
            snapshots.add(project.dbt("snapshot"))
        with project.lake.reading() as con:
            (last,) = con.execute("SELECT count(*) FROM gold.customers").fetchall()
    reckoned = f"{DAYS} days (reckoned from {SNAPSHOT_DAYS})"
    year = times(f"dbt snapshot, {reckoned}", snapshots.execution, DAYS)
    command = total("Sluice: scd, whole year, with start-up", (ours.execution, ours.start_up))
    commands = times(
        f"dbt snapshot, {reckoned}, with start-up",
        total("dbt snapshot, one day, with start-up", (snapshots.execution, snapshots.start_up)),
        DAYS,
    )
    return Result(
        "history",
        f"history: {changes:,} changes of {keys:,} keys in a year",
        (
            f"{rows:,} versions, the same rows from Sluice and by hand; DuckLake (SQLite catalog)",
            f"{rounds} alternating rounds of Sluice and of the script; {SNAPSHOT_DAYS} days of snapshots spread evenly "
            f"over the year, one run each",
            f"after the last of them the snapshot's table has {last[0]:,} rows: it keeps every change it sees, Sluice "
            "those of versioned columns",
            "execution_time of dbt's nodes; where its start-up is counted too, the name says so",
        ),
        (ours.execution, by_hand, snapshots.execution, year, command, commands),
        (
            ratio("Sluice / SQL by hand", ours.execution, by_hand, AIM_BY_HAND),
            ratio("snapshots of a year / Sluice", year, ours.execution, AIM_SNAPSHOTS, at_least=True),
            # 365 commands against one: what people wait for, and no measure of the SQL.
            ratio("snapshots of a year / Sluice, with start-up", commands, command),
        ),
    )


def measured_days() -> list[int]:
    """The days whose snapshot is timed: the middles of equal parts of the year, counted from its begin."""
    return [DAYS * (2 * part + 1) // (2 * SNAPSHOT_DAYS) for part in range(SNAPSHOT_DAYS)]


def snapshots_until(project: Project, day: int) -> None:
    """Make the table as it would be after a snapshot on every day up to this one, in two steps instead of so many.

    dbt makes the table, with the rows of the day; the versions closed until then are added to it.
    """
    project.execute("DROP TABLE IF EXISTS gold.customers", f"CREATE OR REPLACE TABLE logs.state AS {state_after(day)}")
    project.dbt("snapshot")
    project.execute(f"INSERT INTO gold.customers BY NAME {closed_before(day)}")


def _with_log(
    folder: Path,
    keys: int,
    changes: int,
    models: dict[str, str] | None = None,
    snapshots: dict[str, str] | None = None,
) -> Project:
    project = Project(folder, models or {}, snapshots)
    project.execute(f"CREATE TABLE logs.changes AS {first_year(keys, changes)}")
    project.dbt("parse")
    return project
