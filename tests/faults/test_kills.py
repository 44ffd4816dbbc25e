"""SIGKILL at random points of ingest, dbt and publication: nothing is lost or half seen, the end as if undisturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import KILLS, SEED
from tests.faults.cycle import Shop, finish, last_words, start
from tests.faults.invariants import books_hold, holds_in_the_end, published_state_is_whole

KILLS_A_HOME = 10
DAYS = 4
# Longest waits within a stage: about what it takes on two cores; beyond it the next stage is killed instead.
SECONDS = {"ingest": 2.0, "dbt": 6.0, "publish": 0.6}


def kill_in(running: subprocess.Popen[str], stage: str, wait: float, home: Path) -> str | None:
    """Kill a cycle so long after the beginning of a stage; the stage it was in, None if it was done before."""
    assert running.stdout is not None
    reached = ""
    for line in running.stdout:
        reached = line.strip()
        if reached == stage:
            time.sleep(wait)
            break
    done = running.poll() is not None
    if not done:
        os.killpg(running.pid, signal.SIGKILL)
    reached = [reached, *running.stdout.read().split()][-1]
    running.stdout.close()
    running.wait()
    if running.returncode != -signal.SIGKILL:
        assert running.returncode == 0, f"the cycle failed by itself:\n{last_words(home)}"
        return None
    return reached


@pytest.mark.parametrize("number", range(-(-KILLS // KILLS_A_HOME)))
def test_a_killed_home_goes_on_as_if_nothing_had_been(tmp_path: Path, number: int) -> None:
    chance = random.Random(SEED + number)
    shop = Shop(tmp_path, days=DAYS, seed=SEED + number)
    waiting, killed = list(shop.days), Counter[str]()
    wanted = min(KILLS_A_HOME, KILLS - number * KILLS_A_HOME)
    while killed.total() < wanted:
        # A day more now and then, so that each stage has something to do.
        if (waiting and chance.random() < 0.5) or not (shop.home / "landing").exists():
            shop.deliver(waiting.pop(0))
        stage = chance.choice(list(SECONDS))
        reached = kill_in(start(shop.home), stage, chance.uniform(0, SECONDS[stage]), shop.home)
        if reached:
            killed[reached] += 1
        books_hold(shop.settings)
        published_state_is_whole(shop.settings)
    print(f"home {number}, seed {SEED + number}: killed {dict(killed)}")
    shop.deliver(*waiting)
    finish(shop.home)
    holds_in_the_end(shop.settings, shop.undisturbed())
