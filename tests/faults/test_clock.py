"""The clock set back between two cycles: what was done last is in force, and nothing that is needed goes."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import sluice
from sluice.errors import PublicationError
from sluice.lake import Lake
from sluice.maintenance import maintain
from sluice.publication import Publication, current_publication, publication_at
from sluice.settings import Settings
from tests.conftest import go_without
from tests.faults import SEED, deep
from tests.faults.cycle import Shop, finish
from tests.faults.invariants import books_hold, holds_in_the_end, published_state_is_whole

pytestmark = deep


def days_seen(settings: Settings, as_of: datetime | None = None) -> int:
    """Of how many days readers see orders."""
    with sluice.connect(settings, as_of=as_of) as con:
        (row,) = con.execute("SELECT count(DISTINCT CAST(invoiced_at AS DATE)) FROM fct_order_lines").fetchall()
    return int(row[0])


def in_force(settings: Settings) -> Publication:
    found = current_publication(Lake(settings))
    assert found is not None
    return found


# A day, as somebody mistypes; and ten years, as a machine without a battery starts.
@pytest.mark.parametrize("back", [timedelta(days=1), timedelta(days=3650)], ids=["a day", "ten years"])
def test_a_clock_set_back_between_two_builds(tmp_path: Path, back: timedelta) -> None:
    if shutil.which("faketime") is None:
        go_without("faketime is not installed (apt install faketime)")
    shop = Shop(tmp_path, days=3, seed=SEED)
    settings, faked = shop.settings, ("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", f"-{back.days}d")
    shop.deliver(shop.days[0])
    finish(shop.home)
    first = in_force(settings)

    shop.deliver(shop.days[1])
    finish(shop.home, before=faked)
    second = in_force(settings)
    assert second.publication_id == first.publication_id + 1 and second.snapshot_id > first.snapshot_id
    assert second.published_at < first.published_at - back / 2, "the clock was not set back"
    assert days_seen(settings) == 2
    books_hold(settings)
    # At the moment the wrong clock told, readers saw nothing: there was nothing.
    assert publication_at(Lake(settings), second.published_at) is None
    with pytest.raises(PublicationError, match="Nothing had been published by"):
        sluice.connect(settings, as_of=second.published_at)
    assert days_seen(settings, datetime.now(UTC)) == 2

    # Maintenance as it runs every week, and as strict as it may be about snapshots; nothing needed goes.
    maintain(Lake(settings))
    maintain(Lake(settings), keep_days=0, belief_days=0)
    assert days_seen(settings) == 2 and published_state_is_whole(settings)
    before = datetime.now(UTC)

    shop.deliver(shop.days[2])
    finish(shop.home)
    assert in_force(settings).publication_id == second.publication_id + 1
    assert (days_seen(settings, before), days_seen(settings)) == (2, 3)
    holds_in_the_end(settings, shop.undisturbed())


def test_the_next_build_follows_the_one_under_the_wrong_clock(tmp_path: Path) -> None:
    if shutil.which("faketime") is None:
        go_without("faketime is not installed (apt install faketime)")
    shop = Shop(tmp_path, days=3, seed=SEED)
    shop.deliver(shop.days[0])
    finish(shop.home)
    shop.deliver(shop.days[1])
    finish(shop.home, before=("env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", "-3650d"))
    maintain(Lake(shop.settings))
    shop.deliver(shop.days[2])
    finish(shop.home)
    with Lake(shop.settings).reading() as con:
        reasons = con.execute("SELECT DISTINCT reason FROM ops.rewrites").fetchall()
    assert reasons and not [reason for (reason,) in reasons if "expired" in reason]
    holds_in_the_end(shop.settings, shop.undisturbed())
