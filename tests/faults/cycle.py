"""One cycle of a home, in a process that may be killed at any point: ingest, build, audit, publish.

`python -m tests.faults.cycle HOME [LAST]` says on standard output which stage begins, and ends after the stage LAST.
What is in the landing area is what is loaded; a cycle after a killed one goes on from wherever that was.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

from resources.dbt import project_fingerprint
from sluice.audits import record_audit
from sluice.bronze import create_bronze_tables
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.publication import publish
from sluice.settings import PROJECT, Settings, load_settings
from sluice.simulation import generate
from tests.warehouse import CONTRACTS, load

STAGES = ("ingest", "dbt", "publish", "done")


def settings_of(home: Path | str) -> Settings:
    """The settings of a home of these tests: January 2026."""
    return load_settings(home=str(home), start_date=date(2026, 1, 1), end_date=date(2026, 2, 1))


def cycle(settings: Settings, last: str = "publish") -> None:
    """All of it, up to a stage; each is announced."""
    lake = Lake(settings)
    say("ingest")
    create_bronze_tables(lake, CONTRACTS)
    for contract in CONTRACTS:
        ingest(lake, contract)
    if last != "ingest":
        say("dbt")
        load(settings, [[]])
        say("publish")
        record_audit(lake, run_id="cycle", checks_passed=1, failed=[], code=project_fingerprint(settings))
        publish(lake, run_id="cycle")
    say("done")


def say(stage: str) -> None:
    """Tell whoever watches."""
    sys.stdout.write(f"{stage}\n")
    sys.stdout.flush()


class Shop:
    """A shop whose days are delivered one by one into a home, and a home that is loaded undisturbed at the end."""

    def __init__(self, folder: Path, *, days: int, seed: int, home: Path | None = None) -> None:
        self.source = folder / "source"
        generate(self.source, days=days, scale=0.05, seed=seed)
        self.days = sorted({path.name for path in self.source.rglob("date=*")})
        self.home = home or folder / "home"
        self.calm = folder / "calm"
        self.home.mkdir(exist_ok=True)

    @property
    def settings(self) -> Settings:
        """Of the home that is disturbed."""
        return settings_of(self.home)

    def deliver(self, *days: str) -> None:
        """Put the files of some days into the landing area of the home."""
        for day in days:
            for folder in self.source.rglob(day):
                target = self.home / "landing" / folder.relative_to(self.source)
                shutil.copytree(folder, target, dirs_exist_ok=True)

    def undisturbed(self) -> Settings:
        """Settings of a home into which everything was loaded at once, in this process."""
        if not self.calm.exists():
            shutil.copytree(self.source, self.calm / "landing")
            cycle(settings_of(self.calm))
        return settings_of(self.calm)


def start(home: Path, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Begin a cycle, in a process group of its own; `before` is put before the command."""
    with (home / "cycle.log").open("a") as log:
        return subprocess.Popen(
            [*before, sys.executable, "-m", "tests.faults.cycle", str(home), *arguments],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def finish(home: Path, *arguments: str, before: tuple[str, ...] = ()) -> None:
    """A cycle that nobody disturbs."""
    running = start(home, *arguments, before=before)
    told, _ = running.communicate(timeout=600)
    assert told.split()[-1:] == ["done"] and running.returncode == 0, last_words(home)


def last_words(home: Path) -> str:
    """The end of what a home's cycles have said to standard error."""
    return (home / "cycle.log").read_text(errors="replace")[-3000:]


if __name__ == "__main__":
    cycle(settings_of(sys.argv[1]), *sys.argv[2:])
