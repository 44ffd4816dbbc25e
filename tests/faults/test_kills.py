"""SIGKILL at random points of ingest, dbt and publication: nothing is lost or half seen, the end as if undisturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sluice.settings import PROJECT
from sluice.simulation import generate
from tests.faults.cycle import STAGES, settings_of
from tests.faults.invariants import books_hold, nothing_is_left_behind, published_state_is_whole
from tests.warehouse import assert_same, gold

pytestmark = pytest.mark.slow

# In `make test` one home; `make test-faults` two hundred kills.
KILLS = int(os.environ.get("FAULT_KILLS", "5"))
KILLS_A_HOME = 10
SEED = int(os.environ.get("FAULT_SEED", "20261121"))
DAYS = 4
# Longest waits within a stage: about what it takes on two cores; beyond it the next stage is killed instead.
SECONDS = {"ingest": 2.0, "dbt": 6.0, "publish": 0.6}


class Shop:
    """A shop whose days are delivered one by one into a home, and a home that is loaded undisturbed at the end."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.source = folder / "source"
        generate(self.source, days=DAYS, scale=0.05, seed=seed)
        self.days = sorted({path.name for path in self.source.rglob("date=*")})
        self.home = folder / "home"
        self.calm = folder / "calm"

    def deliver(self, day: str) -> None:
        """Put a day's files into the landing area of the home."""
        for folder in self.source.rglob(day):
            target = self.home / "landing" / folder.relative_to(self.source)
            shutil.copytree(folder, target, dirs_exist_ok=True)

    def start(self, home: Path) -> subprocess.Popen[str]:
        """Begin a cycle, in a process group of its own."""
        with (home / "cycle.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.faults.cycle", str(home)],
                cwd=PROJECT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def finish(self, home: Path) -> None:
        """A cycle that nobody disturbs."""
        running = self.start(home)
        told, _ = running.communicate(timeout=600)
        assert told.split() == list(STAGES), (home / "cycle.log").read_text()[-3000:]


def kill_in(running: subprocess.Popen[str], stage: str, wait: float) -> bool:
    """Kill a cycle so long after the beginning of a stage; false if it was done before."""
    assert running.stdout is not None
    for line in running.stdout:
        if line.strip() == stage:
            time.sleep(wait)
            break
    done = running.poll() is not None
    if not done:
        os.killpg(running.pid, signal.SIGKILL)
    running.stdout.close()
    running.wait()
    assert done == (running.returncode == 0), "the cycle failed by itself"
    return not done


@pytest.mark.parametrize("number", range(-(-KILLS // KILLS_A_HOME)))
def test_a_killed_home_goes_on_as_if_nothing_had_been(tmp_path: Path, number: int) -> None:
    chance = random.Random(SEED + number)
    shop = Shop(tmp_path, SEED + number)
    settings = settings_of(str(shop.home))
    waiting, killed = list(shop.days), 0
    wanted = min(KILLS_A_HOME, KILLS - number * KILLS_A_HOME)
    while killed < wanted:
        # A day more now and then, so that each stage has something to do.
        if (waiting and chance.random() < 0.5) or not (shop.home / "landing").exists():
            shop.deliver(waiting.pop(0))
        stage = chance.choice(list(SECONDS))
        killed += kill_in(shop.start(shop.home), stage, chance.uniform(0, SECONDS[stage]))
        books_hold(settings)
        published_state_is_whole(settings)
    for day in waiting:
        shop.deliver(day)
    shop.finish(shop.home)
    books_hold(settings)
    assert published_state_is_whole(settings)
    shop.calm.mkdir()
    shutil.copytree(shop.source, shop.calm / "landing")
    shop.finish(shop.calm)
    undisturbed = gold(settings_of(str(shop.calm)))
    assert_same(gold(settings), undisturbed)
    nothing_is_left_behind(settings)
    assert_same(gold(settings), undisturbed)
    assert published_state_is_whole(settings)
