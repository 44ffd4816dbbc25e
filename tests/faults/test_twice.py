"""Two runs started at once on the same partitions: they end as one, and so they do when one of them is killed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults import SEED, deep
from tests.faults.cycle import Shop, finish, last_words, start
from tests.faults.invariants import books_hold, holds_in_the_end


@deep
@pytest.mark.parametrize("killing", [False, True])
def test_two_runs_on_the_same_partitions_end_as_one(tmp_path: Path, killing: bool) -> None:
    chance = random.Random(SEED)
    shop = Shop(tmp_path, days=4, seed=SEED)
    for day in shop.days:
        shop.deliver(day)
        both = [start(shop.home, "ingest") for _ in range(2)]
        if killing:
            assert both[0].stdout is not None and both[0].stdout.readline() == "ingest\n"
            time.sleep(chance.uniform(0, 2))
            os.killpg(both[0].pid, signal.SIGKILL)
        for running in both:
            running.communicate(timeout=300)
        assert both[1].returncode == 0, last_words(shop.home)
        assert both[0].returncode in ({0, -signal.SIGKILL} if killing else {0}), last_words(shop.home)
        books_hold(shop.settings)
    finish(shop.home)
    holds_in_the_end(shop.settings, shop.undisturbed())
