"""The catalog locked by somebody else while a cycle runs: for a short time it is waited for, for a long one told."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults import SEED, deep
from tests.faults.cycle import STAGES, Shop, finish, last_words, start
from tests.faults.invariants import books_hold, holds_in_the_end, published_state_is_whole

pytestmark = deep


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_a_lock_is_waited_for_or_told(tmp_path: Path, stage: str) -> None:
    shop = Shop(tmp_path, days=3, seed=SEED)
    shop.deliver(shop.days[0])
    finish(shop.home)
    for day, seconds in zip(shop.days[1:], (2, 90), strict=True):
        shop.deliver(day)
        with closing(sqlite3.connect(shop.settings.catalog_path, isolation_level=None, timeout=30)) as foreign:
            running = start(shop.home)
            assert running.stdout is not None
            while running.stdout.readline().strip() != stage:
                assert running.poll() is None, last_words(shop.home)
            foreign.execute("BEGIN IMMEDIATE")
            until = time.monotonic() + seconds
            while running.poll() is None and time.monotonic() < until:
                time.sleep(0.1)
            # Readers are not held up.
            books_hold(shop.settings)
            published_state_is_whole(shop.settings)
            foreign.execute("ROLLBACK")
            running.communicate(timeout=300)
        if seconds == 2:
            assert running.returncode == 0, last_words(shop.home)
        else:
            assert running.returncode != 0
            assert "locked" in last_words(shop.home)
    finish(shop.home)
    holds_in_the_end(shop.settings, shop.undisturbed())
