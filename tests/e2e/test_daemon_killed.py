"""The daemon, and all it started, is killed during a backfill and started again: the backfill ends as undisturbed."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from running import START, Platform

from sluice.books import books
from sluice.errors import NoLakeError
from sluice.settings import load_settings
from sluice.simulation import generate
from tests.faults import SEED, deep
from tests.faults.invariants import AGREEMENT, nothing_is_left_behind, published_state_is_whole
from tests.warehouse import CONTRACTS, assert_same, days_of, gold, load

pytestmark = deep

DAYS = 6
KILLS = 3
DAILY = ["bronze/customers", "bronze/events", "bronze/products"]
ENDED = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}


def test_a_backfill_outlives_its_daemon(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    platform = Platform(tmp_path / "home", START, START + timedelta(days=DAYS))
    truth = generate(platform.landing, seed=SEED, days=DAYS, scale=0.05, start=START)
    days = [(START + timedelta(days=n)).isoformat() for n in range(DAYS)]
    platform.start_up()
    try:
        platform.stop_sensors()
        platform.launch_backfill(DAILY, days)
        platform.launch_backfill(["bronze/orders"], [f"{d}|{r}" for d in days for r in ("uk", "eu", "row")])
        for _ in range(KILLS):
            # At any time: before the daemon has seen the backfill, while its runs start, while they run.
            time.sleep(chance.uniform(0, 25))
            kill(platform)
            balanced(platform)
            platform.start_up()
        platform.wait_for(lambda: set(platform.backfills().values()) <= ENDED, "the backfills have ended")
        assert set(platform.backfills().values()) == {"COMPLETED_SUCCESS"}, platform.state()
        done = platform.finished(platform.launch("build_warehouse", [], {}))
        assert done.status == "SUCCESS", platform.state()
        for key, many in ((DAILY[0], DAYS), (DAILY[1], DAYS), (DAILY[2], DAYS), ("bronze/orders", 3 * DAYS)):
            found = platform.partitions(key)
            assert (found["numMaterialized"], found["numFailed"]) == (many, 0), platform.state()
    finally:
        platform.stop()
    balanced(platform)
    for found in books(platform.lake, list(truth.ledger)):
        assert found.rows_read == truth.ledger[found.source].rows_read, found.source
    clean = load_settings(
        home=str(tmp_path / "clean"), landing=str(platform.landing), start_date=platform.start, end_date=platform.end
    )
    load(clean, [days_of(clean)])
    assert_same(gold(platform.settings), gold(clean))
    with platform.lake.reading() as con:
        assert con.execute(AGREEMENT).fetchall()
    assert published_state_is_whole(platform.settings)
    nothing_is_left_behind(platform.settings)
    assert_same(gold(platform.settings), gold(clean))


def balanced(platform: Platform) -> None:
    """The books balance, whatever there is by now."""
    with suppress(NoLakeError):
        wrong = [b for b in books(platform.lake, [contract.name for contract in CONTRACTS]) if not b.balanced]
        assert wrong == []


def kill(platform: Platform) -> None:
    """End daemon, webserver, code servers and runs at once, as the machine's end would."""
    process = platform._process
    assert process is not None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    platform._process = None
