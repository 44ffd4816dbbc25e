"""dbt as benchmarks run it: as a process, on the project or on a throw-away one with its macros, timed in two parts.

Belongs here: folders, processes, what dbt says about its time. The models and their data belong to the benchmarks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import yaml

from benchmarks.measure import Timing
from resources.dbt import DBT_PROJECT, dbt_environment
from sluice.lake import Lake
from sluice.settings import Settings, load_settings

# For both sides of a comparison; the dbt profile's default of 2 GB would make it spill where a plain connection does
# not. Half of what the machine of docs/benchmarks.md has free.
MEMORY = "8GB"


@dataclass(frozen=True)
class Run:
    """What one dbt process took: as seen from outside, and what its nodes took by its own account."""

    seconds: float
    execution: float

    @property
    def start_up(self) -> float:
        """Everything but the nodes: interpreter, imports, parsing, connecting."""
        return self.seconds - self.execution


@dataclass(frozen=True)
class Runs:
    """Timings of dbt runs of one kind: the nodes, and what comes on top of them."""

    execution: Timing
    start_up: Timing

    def add(self, run: Run) -> None:
        """Take in one run."""
        self.execution.seconds.append(run.execution)
        self.start_up.seconds.append(run.start_up)


def runs(name: str) -> Runs:
    """Timings of what is called `name`, to be filled."""
    return Runs(Timing(name), Timing(f"{name}: start-up of dbt"))


def run_dbt(project: Path, settings: Settings, target: Path, command: str, *options: str) -> Run:
    """Run dbt as a process on the lake of these settings; what it writes goes below `target`.

    Raises:
        RuntimeError: it failed; the end of its output is in the message.
    """
    binary = shutil.which("dbt", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if binary is None:
        raise RuntimeError("dbt is neither beside this Python nor on the PATH. Run `make bench`, which installs it.")
    begun = time.perf_counter()
    done = subprocess.run(
        [binary, "--no-use-colors", command, "--project-dir", str(project), "--profiles-dir", str(project), *options],
        env={
            **os.environ,
            **dbt_environment(settings),
            "DBT_TARGET_PATH": str(target),
            "DBT_LOG_PATH": str(target / "logs"),
            # As under Dagster, and to be read by machines.
            "DBT_LOG_FORMAT_FILE": "json",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"dbt {command} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    # Parsing runs no node and leaves no results; those of the run before may still be there.
    return Run(seconds, 0.0 if command == "parse" else sum(execution_times(target).values()))


def execution_times(target: Path) -> dict[str, float]:
    """Seconds dbt spent in its last command, by kind of node (model, test, unit_test)."""
    spent = {"model": 0.0, "test": 0.0, "unit_test": 0.0}
    for result in json.loads((target / "run_results.json").read_text(encoding="utf-8"))["results"]:
        kind = result["unique_id"].split(".")[0]
        spent[kind] = spent.get(kind, 0.0) + result["execution_time"]
    return spent


class Project:
    """A dbt project with the macros of `dbt_project` and models of a benchmark's own, and an empty lake beside it."""

    def __init__(self, folder: Path, models: Mapping[str, str], snapshots: Mapping[str, str] | None = None) -> None:
        """Make both.

        Args:
            folder: for them; made here.
            models: SQL of each, by name.
            snapshots: likewise, dbt's own.
        """
        self.project, self.target = folder / "project", folder / "target"
        self.settings = load_settings(home=folder / "home", catalog="", data_path="", memory_limit=MEMORY)
        self.lake = Lake(self.settings)
        for kind, files in (("models", models), ("snapshots", snapshots or {})):
            (self.project / kind).mkdir(parents=True)
            for name, sql in files.items():
                (self.project / kind / f"{name}.sql").write_text(sql, encoding="utf-8")
        shutil.copytree(DBT_PROJECT / "macros", self.project / "macros")
        shutil.copyfile(DBT_PROJECT / "profiles.yml", self.project / "profiles.yml")
        (self.project / "dbt_project.yml").write_text(
            yaml.safe_dump(
                {
                    "name": "bench",
                    "version": "0.1.0",
                    "config-version": 2,
                    "profile": "sluice",
                    "models": {"+schema": "gold"},
                    "snapshots": {"+schema": "gold"},
                    "flags": {"send_anonymous_usage_stats": False},
                }
            ),
            encoding="utf-8",
        )
        self.execute("CREATE SCHEMA logs", "CREATE SCHEMA gold")

    def execute(self, *statements: str) -> None:
        """Run statements on the lake, over a connection of their own."""
        with self.lake.connect() as con:
            for sql in statements:
                con.execute(sql)

    def dbt(self, command: str, *options: str) -> Run:
        """Run dbt on it."""
        return run_dbt(self.project, self.settings, self.target, command, *options)


def equal(con: duckdb.DuckDBPyConnection, ours: str, theirs: str) -> int:
    """Compare two queries, rows and not sets; returns how many rows both give.

    Raises:
        RuntimeError: they differ; then no time means anything.
    """
    rows, others, only_ours, only_theirs = (
        row[0]
        for query in (ours, theirs, f"{ours} EXCEPT ALL {theirs}", f"{theirs} EXCEPT ALL {ours}")
        for row in con.execute(f"SELECT count(*) FROM ({query})").fetchall()
    )
    if only_ours or only_theirs or rows != others:
        raise RuntimeError(
            f"The two sides differ: {rows:,} and {others:,} rows, {only_ours:,} only in ours, {only_theirs:,} only in "
            "the peer's."
        )
    return int(rows)
