"""One more day's changes into histories of different length: a day's cost must not grow with the years before it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.customers import BY_HAND, DAYS, MODEL, first_year, next_day
from benchmarks.measure import Result, ratio
from benchmarks.project import Project, equal, runs

# The project's aim: what a day touches is the same, however long the history.
AIM = 2.0

KEYS = 1_000_000
HISTORIES = (1_000_000, 10_000_000, 50_000_000)

# One every three seconds, around the clock.
CHANGES_A_DAY = 28_800


def run(size: float, rounds: int) -> Result:
    """Measure; `size` is the share of the full number of keys, changes and changes a day.

    Raises:
        RuntimeError: dbt failed, or the shortest history is not what SQL by hand makes of its log.
    """
    keys, a_day = max(int(KEYS * size), 1), max(int(CHANGES_A_DAY * size), 1)
    histories = [max(int(changes * size), keys) for changes in HISTORIES]
    timings = [runs(f"Sluice: a day into {_count(changes)} changes") for changes in histories]
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        projects: list[Project] = []
        for changes in histories:
            project = Project(Path(folder) / f"history-{len(projects)}", {"customers": MODEL})
            project.execute(f"CREATE TABLE logs.changes AS {first_year(keys, changes)}")
            project.dbt("run")
            projects.append(project)
        for number in range(rounds + 1):
            for changes, project, timing in zip(histories, projects, timings, strict=True):
                first = changes + number * a_day
                project.execute(f"INSERT INTO logs.changes {next_day(keys, first, a_day, DAYS + number)}")
                took = project.dbt("run")
                if number:  # the first run after a whole build finds no statistics and no caches
                    timing.add(took)
        # By hand the shortest history is made in a second; the others come of the same macros.
        with projects[0].lake.connect() as con:
            con.execute(BY_HAND.read_text(encoding="utf-8"))
            equal(con, "FROM gold.customers", "FROM gold.customers_by_hand")
            (row,) = con.execute("SELECT count(*) FROM gold.customers").fetchall()
    return Result(
        "daily",
        f"daily: {a_day:,} changes into a history of {keys:,} keys",
        (
            f"{rounds} days in turn into each of {len(histories)} lakes (SQLite catalog); the shortest then has "
            f"{row[0]:,} versions, those that SQL by hand makes of its log",
            "execution_time of the model, the log's change feed given; dbt's start-up is shown and in no ratio",
        ),
        (*(t.execution for t in timings), *(t.start_up for t in timings)),
        (
            ratio(
                f"a day into {_count(histories[-1])} / into {_count(histories[0])}",
                timings[-1].execution,
                timings[0].execution,
                AIM,
            ),
        ),
    )


def _count(changes: int) -> str:
    return f"{changes // 1_000_000} M" if changes % 1_000_000 == 0 else f"{changes:,}"
