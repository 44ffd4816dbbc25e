"""What runs cost beside the SQL: the smallest demo and one more partition through Dagster, against a bare `dbt build`.

The bare build makes the same models of the same rows with the same dbt, in a lake of its own into which the same files
were ingested. The parts say where the time goes: importing, parsing the project, computing, and what is left. Those of
dbt follow from the times in its log; its tests are in *execute*.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from assets.warehouse import WITHOUT_UNIT_TESTS
from benchmarks.measure import Result, Timing, ratio
from benchmarks.project import execution_times, run_dbt
from demo import SHOP_START, landing_span
from resources.dbt import DBT_PROJECT
from sluice.bronze import create_bronze_tables
from sluice.contracts import load_contracts
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.landing import scan
from sluice.settings import PROJECT, Settings, load_settings
from sluice.simulation import generate

# As small as the simulated shop gets while every source delivers something.
SCALE = 0.05

SOURCE = "orders"
# What a shop's days before the measured ones are for: a warehouse that is not empty.
DAYS_BEFORE = 7

# Of dbt's log: all is imported, the adapter last; the project is parsed; the command is done.
_EVENTS = ("AdapterRegistered", "FoundStats", "CommandCompleted")


@dataclass
class Parts:
    """A whole run and its parts, round by round; what no part accounts for is the last of them."""

    whole: Timing
    parts: dict[str, Timing] = field(default_factory=dict)

    def add(self, whole: float, parts: dict[str, float]) -> None:
        """Take in a round."""
        self.whole.seconds.append(whole)
        for name, seconds in {**parts, "the rest": whole - sum(parts.values())}.items():
            self.parts.setdefault(name, Timing(f"{self.whole.name}: {name}")).seconds.append(seconds)

    @property
    def timings(self) -> list[Timing]:
        """The whole, then the parts."""
        return [self.whole, *self.parts.values()]


def run(rounds: int) -> Result:
    """Measure; nothing here depends on the number of rows.

    Raises:
        RuntimeError: a run failed; the end of its output is in the message.
    """
    demo, fresh = Timing("Sluice: smallest demo, from nothing"), Parts(Timing("dbt build, from nothing"))
    warm, bare = Parts(Timing("Sluice: one partition, warm")), Parts(Timing("dbt build, warm"))
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        work = Path(folder)
        _demo(work / "demo-first")  # the project is parsed, and files are in the system's cache
        for number in range(rounds):
            home = work / f"demo-{number}"
            demo.seconds.append(_demo(home))
            settings = _settings(work / f"bare-{number}", home / "landing")
            _ingest(settings)
            fresh.add(*_dbt_build(settings, work / "target-fresh"))
            shutil.rmtree(home)
        landing = work / "landing"
        generate(landing, days=DAYS_BEFORE + rounds, scale=SCALE, start=SHOP_START)
        ours, theirs = (_settings(work / side, landing) for side in ("ours", "theirs"))
        keys = _partitions(ours)
        # dbt parses a project into the folder it writes to, so each side finds it parsed in its own.
        for settings in (ours, theirs):
            _ingest(settings, keys[:-rounds])
            run_dbt(DBT_PROJECT, settings, settings.home / "target", "build", *WITHOUT_UNIT_TESTS)
        for key in keys[-rounds:]:
            warm.add(*_warm_run(ours, key))
            _ingest(theirs, [key])
            bare.add(*_dbt_build(theirs, theirs.home / "target"))
    return Result(
        "overhead",
        "overhead: fixed costs of a run",
        (
            f"a simulated shop, scale {SCALE:g}: the demo of 1 day; one region's orders of a day into a warehouse of "
            f"{DAYS_BEFORE} days",
            f"{rounds} alternating rounds, each run a process of its own",
            "from nothing: dbt parses the whole project on both sides; warm: it finds the project parsed",
            "all models are built and tested on both sides; Sluice's ingest, books and publication have no counterpart "
            "in the bare build, which finds the rows in bronze",
        ),
        (demo, *fresh.timings, *warm.timings, *bare.timings),
        (
            ratio("smallest demo / dbt build, from nothing", demo, fresh.whole),
            ratio("one partition, warm / dbt build, warm", warm.whole, bare.whole),
        ),
    )


def _settings(home: Path, landing: Path) -> Settings:
    start, end = landing_span(landing, list(load_contracts(PROJECT / "contracts").values()))
    return load_settings(home=home, landing=landing, start_date=start, end_date=end, catalog="", data_path="")


def _partitions(settings: Settings) -> list[str]:
    """The partitions of the measured source that have files, last those of one region, a day each."""
    contract = load_contracts(settings.contracts)[SOURCE]
    found = scan(contract, settings.landing_path, settings.start_date, settings.end_date)
    keys = sorted(found.by_partition())
    region = keys[0].partition("|")[2]
    return sorted(keys, key=lambda k: (k.endswith(f"|{region}"), k))


def _ingest(settings: Settings, orders: Sequence[str] | None = None) -> None:
    """Ingest everything, or of the measured source these partitions only."""
    contracts = load_contracts(settings.contracts)
    lake = Lake(settings)
    create_bronze_tables(lake, contracts.values())
    for contract in contracts.values():
        ingest(lake, contract, orders if contract.name == SOURCE else None)


def _process(arguments: Sequence[str], environment: dict[str, str]) -> tuple[float, str]:
    # Whatever catalog or bucket the environment names, lakes of our own.
    environment = {**os.environ, "SLUICE_CATALOG": "", "SLUICE_DATA_PATH": "", **environment}
    begun = time.perf_counter()
    done = subprocess.run(arguments, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    return seconds, done.stdout


def _demo(home: Path) -> float:
    seconds, _ = _process([sys.executable, "demo.py", "--days", "1", "--scale", str(SCALE)], {"SLUICE_HOME": str(home)})
    return seconds


def _dbt_build(settings: Settings, target: Path) -> tuple[float, dict[str, float]]:
    log = target / "logs" / "dbt.log"
    # dbt goes on in the same file, and begins another in the middle of a run when one is full.
    log.unlink(missing_ok=True)
    begun = time.time()
    took = run_dbt(DBT_PROJECT, settings, target, "build", *WITHOUT_UNIT_TESTS)
    return took.seconds, dbt_parts(log, begun, took.execution)


def _warm_run(settings: Settings, key: str) -> tuple[float, dict[str, float]]:
    environment = {
        "SLUICE_HOME": str(settings.home),
        "SLUICE_LANDING": str(settings.landing_path),
        "SLUICE_START_DATE": str(settings.start_date),
        "SLUICE_END_DATE": str(settings.end_date),
        # Dagster has each run of dbt begin with a copy of what was parsed into this folder.
        "DBT_TARGET_PATH": str(settings.home / "target"),
        "PYTHONPATH": str(PROJECT),
    }
    seconds, out = _process([sys.executable, "-m", "benchmarks.warm_run", SOURCE, key], environment)
    told = json.loads(out.splitlines()[-1])
    marks, target = told["marks"], Path(told["target"])
    dbt = dbt_parts(target / "dbt.log", told["dbt_begun"], sum(execution_times(target).values()))
    shutil.rmtree(target)
    return seconds, {
        "import": marks["import"],
        "definitions": marks["definitions"],
        "ingest": marks["ingest"],
        "Dagster around ingest": marks[f"ingest_{SOURCE}"] - marks["ingest"],
        **{f"dbt, {name}": part for name, part in dbt.items()},
        "Dagster around dbt": marks["build_warehouse"] - sum(dbt.values()),
    }


def dbt_parts(log: Path, begun: float, execution: float) -> dict[str, float]:
    """The parts of one dbt command, by its log of JSON lines.

    Args:
        log: of this command only.
        begun: when its process was started, in seconds since the epoch.
        execution: seconds its nodes took.

    Raises:
        RuntimeError: the log lacks an event by which parts are told.
    """
    events = [json.loads(line)["info"] for line in log.read_text(encoding="utf-8").splitlines()]
    at = {e["name"]: datetime.fromisoformat(e["ts"]).timestamp() for e in events if e["name"] in _EVENTS}
    if missing := [name for name in _EVENTS if name not in at]:
        raise RuntimeError(f"dbt's log {log} has no event {', '.join(missing)}, by which parts of a run are told.")
    imported, parsed, ended = (at[name] for name in _EVENTS)
    return {
        "import": imported - begun,
        "parse": parsed - imported,
        "execute": execution,
        "between nodes": ended - parsed - execution,
    }
