"""The disk is full at ingest, in dbt, at publication: told, nothing half, readers read on; with room it completes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import sluice
from tests.conftest import go_without
from tests.faults import SEED, deep
from tests.faults.cycle import STAGES, Shop, last_words, start
from tests.faults.invariants import books_hold, holds_in_the_end, published_state_is_whole

pytestmark = deep


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB of its own; skipped where none can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        go_without(f"a file system can only be mounted by root: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def leave(disk: Path, free: int) -> None:
    """Fill the disk but for so many bytes."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    there = os.statvfs(disk)
    size = there.f_bavail * there.f_frsize - free
    assert size > 0, "it is full already"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def test_a_full_disk_at_any_stage_is_told_and_mended_by_room(disk: Path, tmp_path: Path) -> None:
    shop = Shop(tmp_path, days=3, seed=SEED, home=disk / "home")
    settings = shop.settings
    # What the cycles say must find room elsewhere.
    (tmp_path / "cycle.log").touch()
    (shop.home / "cycle.log").symlink_to(tmp_path / "cycle.log")
    shop.deliver(*shop.days[:2])
    running = start(shop.home)
    assert running.communicate(timeout=600)[0].split() == list(STAGES), last_words(shop.home)
    shop.deliver(shop.days[2])
    stages = []
    with sluice.connect(settings) as reader:
        before = reader.execute(
            "SELECT count(*), sum(line_amount), count(DISTINCT _file) FROM fct_order_lines"
        ).fetchall()
        # From a disk on which not even the catalog's log grows, to one on which the build just does not end.
        for kilobytes in (100, 300, 600, 1000, 1500, 2200, 3000, 4000, 6000, 9000):
            leave(disk, kilobytes * 1000)
            (shop.home / "cycle.log").write_text("")
            running = start(shop.home)
            told = running.communicate(timeout=600)[0].split()
            if running.returncode == 0:
                break
            # dbt says its own words on standard output.
            stages.append([stage for stage in told if stage in STAGES][-1])
            said = last_words(shop.home)
            assert any(text in said for text in ("is full", "No space left", "disk is full", "disk full")), said
            query = "SELECT count(*), sum(line_amount), count(DISTINCT _file) FROM fct_order_lines"
            assert reader.execute(query).fetchall() == before
            (disk / "ballast").unlink()
            books_hold(settings)
            published_state_is_whole(settings)
    print(f"full at {stages}")
    assert {"ingest", "dbt"} <= set(stages)
    # More room, as by a larger volume.
    subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
    (disk / "ballast").unlink(missing_ok=True)
    running = start(shop.home)
    assert running.communicate(timeout=600)[0].split() == list(STAGES), last_words(shop.home)
    holds_in_the_end(settings, shop.undisturbed())
