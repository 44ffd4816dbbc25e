"""One more day's changes into histories of different length: a day's cost must not grow with the years before it.

Measured for a dimension of versions (type 2), which changes at its end, and for one with a column of type 1 besides:
that is overwritten on every version of the day's customers, so that what is to be written grows with the history.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.customers import BY_HAND, DAYS, MODEL, VERSIONED_MODEL, first_year, next_day
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
    models = {"customers": VERSIONED_MODEL, "customers_overwritten": MODEL}
    versioned = [runs(f"Sluice: a day into {_count(changes)} changes") for changes in histories]
    overwritten = [runs(f"Sluice, with type 1: a day into {_count(changes)} changes") for changes in histories]
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        projects: list[Project] = []
        for changes in histories:
            project = Project(Path(folder) / f"history-{len(projects)}", models)
            project.execute(f"CREATE TABLE logs.changes AS {first_year(keys, changes)}")
            project.dbt("run")
            projects.append(project)
        for number in range(rounds + 1):
            for changes, project, *timings in zip(histories, projects, versioned, overwritten, strict=True):
                first = changes + number * a_day
                project.execute(f"INSERT INTO logs.changes {next_day(keys, first, a_day, DAYS + number)}")
                for name, timing in zip(models, timings, strict=True):
                    took = project.dbt("run", "--select", name)
                    if number:  # the first run after a whole build finds no statistics and no caches
                        timing.add(took)
        # By hand the shortest history is made in a second; the others come of the same macros.
        with projects[0].lake.connect() as con:
            con.execute(BY_HAND.read_text(encoding="utf-8"))
            equal(con, "FROM gold.customers_overwritten", "FROM gold.customers_by_hand")
            equal(con, "FROM gold.customers", "SELECT * EXCLUDE (email) FROM gold.customers_by_hand")
            (row,) = con.execute("SELECT count(*) FROM gold.customers").fetchall()
    shortest, longest = _count(histories[0]), _count(histories[-1])
    return Result(
        "daily",
        f"daily: {a_day:,} changes into a history of {keys:,} keys",
        (
            f"{rounds} days in turn into each of {len(histories)} lakes (SQLite catalog); the shortest then has "
            f"{row[0]:,} versions, those that SQL by hand makes of its log",
            "three columns of type 2; with type 1: one more, overwritten on every version of the day's customers, of "
            "whom each has more versions the longer the history",
            "execution_time of the model, the log's change feed given; dbt's start-up is shown and in no ratio",
        ),
        (*(t.execution for t in versioned), *(t.execution for t in overwritten), versioned[-1].start_up),
        (
            ratio(f"a day into {longest} / into {shortest}", versioned[-1].execution, versioned[0].execution, AIM),
            ratio(
                f"with type 1: a day into {longest} / into {shortest}",
                overwritten[-1].execution,
                overwritten[0].execution,
                AIM,
            ),
        ),
    )


def _count(changes: int) -> str:
    return f"{changes // 1_000_000} M" if changes % 1_000_000 == 0 else f"{changes:,}"
