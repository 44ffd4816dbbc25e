"""Backfills as people do them, in the UI and on the command line: any range, in any order, overlapping, again.

Whatever the way to it, the warehouse is in the end the one a clean load of everything makes. The sensors are stopped,
so that nothing is loaded but what was asked for.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from running import START, Platform

import sluice
from resources.partitions import RANGE_END, RANGE_START
from sluice.books import books
from sluice.settings import PROJECT, load_settings
from sluice.simulation import Truth, generate
from tests.warehouse import assert_same, days_of, gold, load

pytestmark = pytest.mark.slow

DAYS = 9
EARLY, MIDDLE, LATE = range(0, 5), range(4, 6), range(6, 9)

REGIONS = ("uk", "eu", "row")
DAILY = ["bronze/customers", "bronze/events", "bronze/products"]
SOURCES = [*DAILY, "bronze/orders"]
FORCE = {"config": {"force": True}}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform on which nothing starts by itself; its landing area is empty."""
    platform = Platform(tmp_path_factory.mktemp("backfill") / "home", START, START + timedelta(days=DAYS))
    with platform.left_alone():
        yield platform


def test_any_ranges_in_any_order_and_again_give_the_warehouse_of_a_clean_load(
    platform: Platform, tmp_path: Path
) -> None:
    truth = generate(platform.landing, seed=21, days=DAYS, scale=0.05, start=START)

    # The middle first, on the pages of the assets and of a job. The daemon takes its time; use it.
    platform.launch_backfill(DAILY, day_keys(MIDDLE))
    platform.launch_backfill(["bronze/orders"], order_keys(MIDDLE), job="ingest_orders")
    wanted = clean_load(platform, tmp_path)
    backfilled(platform)
    assert {key: marked(platform, key) for key in SOURCES} == marks(MIDDLE)

    # What came later, on the command line, by the commands the README gives; the last of them builds the warehouse.
    first, last = (day_keys(LATE)[end] for end in (0, -1))
    for command in documented_commands(first, last):
        platform.command(*command)
    assert {key: marked(platform, key) for key in SOURCES} == marks([*MIDDLE, *LATE])
    assert published_days(platform) == set(day_keys([*MIDDLE, *LATE]))

    # What came earlier and reaches into the middle, as single runs; and the middle twice again: as it is in the books,
    # and read anew.
    platform.launch_backfill(DAILY, day_keys(MIDDLE))
    platform.launch_backfill(DAILY, day_keys(MIDDLE), config={"ops": {key.replace("/", "__"): FORCE for key in DAILY}})
    platform.launch_backfill(["bronze/orders"], order_keys(MIDDLE), config={"ops": {"bronze__orders": FORCE}})
    runs = [
        platform.launch("__ASSET_JOB", assets, {RANGE_START: keys[0], RANGE_END: keys[-1]})
        for assets, keys in (
            (DAILY, day_keys(EARLY)),
            (["bronze/orders"], order_keys(EARLY)),
            (["bronze/orders"], order_keys(MIDDLE)),
        )
    ]
    # And the warehouse is built while bronze is being written.
    runs.append(platform.launch("build_warehouse", [], {}))
    assert all(platform.finished(run).status == "SUCCESS" for run in runs), platform.state()
    backfilled(platform)
    build(platform)

    for key in SOURCES:
        found = platform.partitions(key)
        many = len(marks(range(DAYS))[key])
        assert found == {"numPartitions": many, "numMaterialized": many, "numMaterializing": 0, "numFailed": 0}, key
    assert_balanced(platform, truth)
    assert_same(gold(platform.settings), wanted)
    assert all(run.status == "SUCCESS" for run in platform.runs()), platform.state()


def clean_load(platform: Platform, folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """Gold of a home of its own, into which the whole landing area is loaded at once, without Dagster."""
    settings = load_settings(
        home=str(folder / "clean"), landing=str(platform.landing), start_date=platform.start, end_date=platform.end
    )
    load(settings, [days_of(settings)])
    return gold(settings)


def documented_commands(first: str, last: str) -> list[list[str]]:
    """The commands for a backfill as the README has them, with other days."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    section = re.findall(r"^## Backfill\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)[0]
    commands = [shlex.split(line) for line in re.findall(r"^    (dagster .*)$", section, re.MULTILINE)]
    found = sorted(set(re.findall(r"\d{4}-\d\d-\d\d", str(commands))))
    assert len(found) == 2, f"more than one range in the README: {found}"
    days = dict(zip(found, (first, last), strict=True))
    return [[re.sub(r"\d{4}-\d\d-\d\d", lambda d: days[d[0]], word) for word in command] for command in commands]


def day_keys(days: Iterable[int]) -> list[str]:
    """Keys of the shop's days by their numbers."""
    return [(START + timedelta(days=day)).isoformat() for day in days]


def order_keys(days: Iterable[int]) -> list[str]:
    """Keys of the partitions of orders of these days."""
    return [f"{day}|{region}" for day in day_keys(days) for region in REGIONS]


def marks(days: Iterable[int]) -> dict[str, set[str]]:
    """The partitions of each source that are materialized when exactly these days have been loaded."""
    numbers = list(days)
    return {**{key: set(day_keys(numbers)) for key in DAILY}, "bronze/orders": set(order_keys(numbers))}


def marked(platform: Platform, key: str) -> set[str | None]:
    """The partitions of an asset that are materialized."""
    return {partition for partition, _ in platform.materializations(key)}


def published_days(platform: Platform) -> set[str]:
    """The days of which readers see order lines."""
    with sluice.connect(platform.settings) as con:
        rows = con.execute("SELECT DISTINCT CAST(CAST(invoiced_at AS DATE) AS VARCHAR) FROM fct_order_lines").fetchall()
    return {day for (day,) in rows}


def backfilled(platform: Platform) -> None:
    """Wait until all backfills have ended, and all well."""
    platform.wait_for(
        lambda: set(platform.backfills().values()) <= {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"},
        "the backfills have ended",
    )
    assert set(platform.backfills().values()) == {"COMPLETED_SUCCESS"}, platform.state()


def build(platform: Platform) -> None:
    """Build the warehouse as the UI does, and see that readers are moved."""
    run = platform.finished(platform.launch("build_warehouse", [], {}))
    assert run.status == "SUCCESS", platform.state()
    publication = platform.publication()
    assert publication is not None
    assert publication.run_id == run.run_id, "readers were not moved"


def assert_balanced(platform: Platform, truth: Truth) -> None:
    """The books balance, and are those of the shop: each batch counts once, however often it was loaded."""
    for found in books(platform.lake, list(truth.ledger)):
        assert found.balanced, found
        wanted = truth.ledger[found.source]
        assert (found.rows_read, found.rows_accepted, found.rows_dead_lettered, found.rows_duplicate) == (
            wanted.rows_read,
            wanted.accepted,
            wanted.dead_lettered,
            wanted.duplicates,
        ), found.source
