"""A year of history from its change log: one dbt run of an `scd` model against SQL by hand and a dbt snapshot per day.

The three make the same dimension of one log, in lakes of their own. Sluice and the script see the whole log; a dbt
snapshot sees the table of the day, so it runs once for each. Five of its days are measured, the year is reckoned from
them: that its table grows from day to day speaks for it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from benchmarks.customers import BY_HAND, DAYS, MODEL, first_year, state_after
from benchmarks.measure import Result, Timing, ratio, times
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
        for day in range(SNAPSHOT_DAYS + 1):
            project.execute(f"CREATE OR REPLACE TABLE logs.state AS {state_after(day)}")
            took = project.dbt("snapshot")
            if day:  # the first one only copies the table
                snapshots.add(took)
    year = times(f"dbt snapshot, {DAYS} days (reckoned from {SNAPSHOT_DAYS})", snapshots.execution, DAYS)
    return Result(
        "history",
        f"history: {changes:,} changes of {keys:,} keys in a year",
        (
            f"{rows:,} versions, the same rows from Sluice and by hand; DuckLake (SQLite catalog)",
            f"{rounds} alternating rounds of Sluice and of the script; {SNAPSHOT_DAYS} days of snapshots after the "
            f"first, one run each",
            "execution_time of dbt's nodes; its start-up is shown and in no ratio",
        ),
        (ours.execution, by_hand, snapshots.execution, year, ours.start_up, snapshots.start_up),
        (
            ratio("Sluice / SQL by hand", ours.execution, by_hand, AIM_BY_HAND),
            ratio("snapshots of a year / Sluice", year, ours.execution, AIM_SNAPSHOTS, at_least=True),
        ),
    )


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
