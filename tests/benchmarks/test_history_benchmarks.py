"""The benchmarks of histories and facts on tiny sizes: the rows compared are equal, and a difference is found.

They run dbt within this process, which starts it once instead of a dozen times. No test asserts a time.
"""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import duckdb
import pytest

from benchmarks import chart, customers, daily, facts, history, project
from benchmarks.measure import Result
from resources.dbt import dbt_environment
from sluice.settings import Settings

pytestmark = pytest.mark.slow

SIZE = 0.0002


@pytest.fixture(autouse=True)
def dbt_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same commands on the same files, without a process for each, and each project parsed once."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    manifests: dict[Path, Any] = {}

    def run(folder: Path, settings: Settings, target: Path, command: str, *options: str) -> project.Run:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in {**dbt_environment(settings), "DBT_TARGET_PATH": str(target)}.items():
                environment.setenv(name, value)
            # dbt takes a connection that is still open for its own, whichever lake it was opened for.
            DuckDBConnectionManager.close_all_connections()
            begun = time.perf_counter()
            places = ["--project-dir", str(folder), "--profiles-dir", str(folder), "--log-path", str(target / "logs")]
            quiet = ["--quiet", "--log-level-file", "none", "--no-populate-cache"]
            if folder not in manifests:
                manifests[folder] = dbtRunner().invoke([*quiet, "parse", *places]).result
            outcome = dbtRunner(manifest=manifests[folder]).invoke([*quiet, command, *places, *options])
            seconds = time.perf_counter() - begun
            DuckDBConnectionManager.close_all_connections()
        assert outcome.success, outcome.exception or outcome.result
        return project.Run(seconds, 0.0 if command == "parse" else sum(project.execution_times(target).values()))

    monkeypatch.setattr(project, "run_dbt", run)


def shown(result: Result, folder: Path) -> None:
    """Every way to show it works, and it survives being kept."""
    assert all(t.seconds and min(t.seconds) > 0 for t in result.timings if "start-up" not in t.name)
    assert all(r.value > 0 for r in result.ratios)
    assert Result.of(result.data()) == result
    assert ET.parse(chart.draw(result, folder)).getroot().tag.endswith("svg")
    assert result.title in result.text()
    assert all(r.name in result.markdown() for r in result.ratios)


def test_history_by_hand_is_the_one_sluice_makes(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "SNAPSHOT_DAYS", 1)
    result = history.run(SIZE, 1)
    shown(result, tmp_path)
    assert [r.aimed for r in result.ratios] == ["1.5 at most", "50 at least", ""]
    year, commands = [t for t in result.timings if t.reckoned]
    assert "reckoned from 1" in year.name
    (day,) = [t for t in result.timings if t.name == "dbt snapshot, one day"]
    assert year.median == pytest.approx(365 * day.median)
    assert commands.median > year.median


def test_the_table_of_a_snapshot_is_the_one_dbt_makes_day_by_day(tmp_path):
    made = project.Project(tmp_path, {}, {"customers": history._SNAPSHOT})
    # So many changes of so few keys that some come twice a day, and some are deletes.
    made.execute(f"CREATE TABLE logs.changes AS {customers.first_year(10, 20_000)}")
    history.snapshots_until(made, 2)
    made.execute("CREATE TABLE logs.reckoned AS FROM gold.customers", "DROP TABLE gold.customers")
    for day in range(3):
        made.execute(f"CREATE OR REPLACE TABLE logs.state AS {customers.state_after(day)}")
        made.dbt("snapshot")
    with made.lake.reading() as con:
        rows = "SELECT * REPLACE (dbt_valid_to IS NOT NULL AS dbt_valid_to) FROM"
        assert project.equal(con, f"{rows} logs.reckoned", f"{rows} gold.customers") > 20
        # Whom it misses, it closes with the time of its run, long after the year of the log.
        closed = (
            "SELECT customer, dbt_valid_from, dbt_valid_to FROM gold.customers WHERE dbt_valid_to < now()::TIMESTAMP"
        )
        both = f"{closed} INTERSECT SELECT customer, dbt_valid_from, dbt_valid_to FROM logs.reckoned"
        in_the_year = f"{closed} AND dbt_valid_to < {customers.YEAR} + INTERVAL 3 DAY"
        assert project.equal(con, both, in_the_year) > 10


def test_the_days_measured_are_spread_over_the_year():
    assert history.measured_days() == [36, 109, 182, 255, 328]


def test_a_day_is_the_same_by_hand_after_several(tmp_path, monkeypatch):
    monkeypatch.setattr(daily, "HISTORIES", (1_000_000, 5_000_000))
    result = daily.run(SIZE, 1)
    shown(result, tmp_path)
    assert [(r.name, r.aimed) for r in result.ratios] == [
        ("a day into 1,000 / into 200", "2 at most"),
        ("with type 1: a day into 1,000 / into 200", "2 at most"),
    ]


def test_facts_healed_are_those_made_anew(tmp_path):
    result = facts.run(SIZE, 1)
    shown(result, tmp_path)
    assert result.facts[0].startswith("2 late changes")
    assert "on average 0 facts" not in result.facts[0]


def test_late_changes_reach_facts_in_the_middle_of_the_year():
    sql = facts.late_changes(10, 100, 5, 0)
    with duckdb.connect() as con:
        (row,) = con.execute(
            f"SELECT count(DISTINCT (customer, changed_at)), min(change_id), min(changed_at) > {customers.YEAR} + "
            f"INTERVAL 99 DAY, max(changed_at) < {customers.YEAR} + INTERVAL 161 DAY FROM ({sql})"
        ).fetchall()
    assert row == (5, 100, True, True)


def test_the_log_has_every_key_on_the_first_day_and_no_two_changes_at_one_time():
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE changes AS {customers.first_year(100, 5_000)}")
        (row,) = con.execute(
            "SELECT count(*), count(DISTINCT changed_at), count(DISTINCT customer), "
            f"count(DISTINCT customer) FILTER (changed_at < {customers.YEAR} + INTERVAL 1 DAY), "
            f"max(changed_at) < {customers.YEAR} + INTERVAL 365 DAY, count(*) FILTER (is_delete) > 0 FROM changes"
        ).fetchall()
        assert row == (5_000, 5_000, 100, 100, True, True)
        con.execute(f"INSERT INTO changes {customers.next_day(100, 5_000, 50, customers.DAYS)}")
        (row,) = con.execute("SELECT count(DISTINCT changed_at), count(DISTINCT change_id) FROM changes").fetchall()
        assert row == (5_050, 5_050)


def test_a_log_too_short_for_its_keys_is_refused():
    with pytest.raises(ValueError, match="do not reach"):
        customers.first_year(10, 9)


def test_a_difference_of_two_sides_is_found():
    with duckdb.connect() as con:
        assert project.equal(con, "SELECT unnest([1, 1, 2])", "SELECT unnest([2, 1, 1])") == 3
        with pytest.raises(RuntimeError, match="3 and 3 rows, 1 only in ours, 1 only"):
            project.equal(con, "SELECT unnest([1, 1, 2])", "SELECT unnest([1, 2, 2])")
