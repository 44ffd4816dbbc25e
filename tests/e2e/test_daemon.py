"""The platform left to itself: files arrive, and with nobody touching anything readers see their rows, once each.

The tests share one home and build on each other in order: the first delivery, a late file, a broken one, a restart.
"""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest
from running import Platform, Run, Shop

import sluice
from resources.partitions import EXACT_KEYS, RANGE_END, RANGE_START
from sluice.audits import latest_audit
from sluice.publication import Publication

LATE_DAY, LATE_REGION = "2026-01-02", "uk"
LATE_FILE = f"orders/region={LATE_REGION}/date={LATE_DAY}/late.csv"
LATE_LINES = (
    "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
    "999001,LATE1,LATE LANTERN,3,2026-01-02 18:00:00,2.5,,United Kingdom\n"
    "999001,LATE2,LATE LAMP,1,2026-01-02 18:00:00,10.25,,United Kingdom\n"
)
LATE_REVENUE = Decimal("17.75")


@dataclass(frozen=True)
class Delivered:
    """The platform after the first delivery."""

    platform: Platform
    publication: Publication
    alerts: Path


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory, shop: Shop) -> Iterator[Delivered]:
    folder = tmp_path_factory.mktemp("daemon")
    alerts = folder / "alerts.txt"
    platform = Platform(folder / "home", shop.start, shop.end, {"SLUICE_ALERT_COMMAND": f"tee -a {alerts}"})
    platform.start_up()
    try:
        assert platform.publication() is None
        platform.drop_all(shop.files)
        expected = {(s, k): 1 for s, keys in shop.truth.ledger_by_partition.items() for k in keys}
        publication = platform.wait_for(
            lambda: platform.publication() if published_batches(platform).keys() >= expected.keys() else None,
            "every partition of the shop is published",
        )
        resting(platform)
        yield Delivered(platform, publication, alerts)
    finally:
        platform.stop()


def test_files_dropped_are_published_untouched_and_whole(delivered: Delivered, shop: Shop) -> None:
    platform = delivered.platform
    facts = shop.truth.facts
    assert published_lines(platform) == (facts["order_lines"], Decimal(str(facts["revenue"]))), platform.state()
    with sluice.connect(platform.settings) as con:
        events = con.sql("SELECT count(*) FROM fct_events").fetchall()[0][0]
        per_day = con.sql(
            "SELECT calendar_date::VARCHAR || '|' || region_key, net_amount FROM mart_daily_sales WHERE order_lines > 0"
        ).fetchall()
    assert events == facts["events"]
    assert {k: Decimal(v) for k, v in shop.truth.revenue_by_day_region.items()} == dict(per_day)


def test_what_was_published_by_itself_has_passed_every_gate(delivered: Delivered) -> None:
    audit = latest_audit(delivered.platform.lake)
    assert audit is not None
    assert audit.passed
    assert audit.checks_passed > 80
    for key in ("silver/stg_events", "gold/dim_customer", "gold/fct_order_lines", "ops/dead_letters"):
        found = delivered.platform.checks(key)
        assert found, f"{key} has no checks"
        assert set(found.values()) == {"SUCCEEDED"}, f"{key}: {found}"


def test_nobody_outside_this_machine_can_reach_it(delivered: Delivered) -> None:
    addresses = delivered.platform.listening()
    assert f"127.0.0.1:{delivered.platform.port}" in addresses
    assert all(address.startswith("127.0.0.1:") for address in addresses), addresses


def test_every_partition_is_ingested_exactly_once(delivered: Delivered, shop: Shop) -> None:
    platform = delivered.platform
    runs = platform.runs()
    assert not [r for r in runs if r.status != "SUCCESS"], platform.state()
    for source, partitions in shop.truth.ledger_by_partition.items():
        asked = Counter(key for run in runs for key in partitions_of(run, source, set(partitions)))
        assert asked == Counter(partitions.keys()), f"{source}: runs asked for partitions {asked}\n{platform.state()}"
        loaded = Counter(
            partition for partition, _ in platform.materializations(f"bronze/{source}") if partition in partitions
        )
        assert loaded == Counter(partitions.keys()), f"{source}: materialized {loaded}"
    with platform.lake.reading() as con:
        twice = con.sql("SELECT * FROM ops.ledger WHERE superseded_by IS NOT NULL").fetchall()
    assert not twice, f"batches were replaced: {twice}"


@pytest.mark.slow
def test_a_late_file_brings_its_partition_and_no_other(delivered: Delivered, shop: Shop) -> None:
    platform = delivered.platform
    before = {r.run_id for r in platform.runs()}
    former = platform.publication()
    assert former is not None

    platform.drop(LATE_FILE, LATE_LINES.encode())
    key = f"{LATE_DAY}|{LATE_REGION}"
    platform.wait_for(
        lambda: published_batches(platform).get(("orders", key)) == 2,
        "the late file's rows are published",
    )
    resting(platform)

    publication = platform.publication()
    assert publication is not None
    assert publication.publication_id > former.publication_id
    facts = shop.truth.facts
    lines, revenue = int(facts["order_lines"]) + 2, Decimal(str(facts["revenue"])) + LATE_REVENUE
    assert published_lines(platform) == (lines, revenue), platform.state()
    new = [r for r in platform.runs() if r.run_id not in before]
    loads = [r for r in new if any(a.startswith("bronze/") for a in r.assets)]
    assert [(r.assets, r.tags.get("dagster/partition")) for r in loads] == [(("bronze/orders",), key)], platform.state()
    assert all(r.status == "SUCCESS" for r in new), platform.state()
    # The pages of what follows tell which day was rewritten, and why; that of another source, that nothing was.
    (told,) = platform.told("gold/fct_order_lines")["rewritten"].splitlines()[2:]
    day, reason, removed, added = (cell.strip() for cell in told.strip("|").split("|"))
    assert (day, reason) == (LATE_DAY, "rows of bronze.orders")
    # All of the partition's rows, for they are of another batch now.
    assert int(added) - int(removed) == 2
    assert platform.told("gold/fct_daily_sales")["rewritten"].splitlines()[2:] == [
        f"| {LATE_DAY.replace('-', '')} | rows of gold.fct_order_lines | 0 | 2 |"
    ]
    assert platform.told("gold/fct_events")["rewritten"] == "nothing"


def test_a_broken_file_fails_its_run_alerts_and_leaves_readers_where_they_were(
    delivered: Delivered, shop: Shop
) -> None:
    platform, alerts = delivered.platform, delivered.alerts
    assert not alerts.exists(), f"there were alerts before: {alerts.read_text()}"
    before = {r.run_id for r in platform.runs()}
    former, lines = platform.publication(), published_lines(platform)
    day = shop.spare_day.isoformat()
    content = gzip.compress("".join(f"{i:06},A,B\n" for i in range(5000)).encode())

    platform.drop(f"orders/region=eu/date={day}/orders.csv.gz", content[: len(content) // 2])
    told = platform.wait_for(
        lambda: alerts.read_text() if alerts.exists() else None, "the alert command has been called"
    )

    new = [r for r in platform.runs() if r.run_id not in before]
    assert [(r.assets, r.tags.get("dagster/partition"), r.status) for r in new] == [
        (("bronze/orders",), f"{day}|eu", "FAILURE")
    ], platform.state()
    for part in (new[0].run_id, "bronze__orders", "files_readable", f"{day}|eu"):
        assert part in told, f"the alert does not tell {part}:\n{told}"
    assert platform.publication() == former, "readers were moved"
    assert published_lines(platform) == lines


@pytest.mark.slow
def test_after_a_restart_nothing_runs_twice(delivered: Delivered) -> None:
    platform = delivered.platform
    # What the last delivery asks for is asked for before the restart, not after it.
    ticked(platform, {"build_warehouse_on_new_data": 1}, time.time())
    resting(platform)
    before = {r.run_id for r in platform.runs()}
    told = delivered.alerts.read_text() if delivered.alerts.exists() else ""
    former = platform.publication()

    platform.stop()
    restarted = time.time()
    platform.start_up()
    # Every landing sensor has looked twice, and the one that builds has had the time to act on it.
    ticked(platform, {f"{s}_landing": 2 for s in ("orders", "products", "customers", "events")}, restarted)
    ticked(platform, {"build_warehouse_on_new_data": 2, "alert_on_failure": 2, "unroutable_files": 1}, restarted)

    again = [r for r in platform.runs() if r.run_id not in before]
    assert not again, f"{len(again)} runs after the restart\n{platform.state()}"
    assert platform.publication() == former
    assert (delivered.alerts.read_text() if delivered.alerts.exists() else "") == told, "an alert was told twice"


def published_batches(platform: Platform) -> dict[tuple[str, str], int]:
    """Files of each (source, partition) in what readers see; empty while they see nothing."""
    if platform.publication() is None:
        return {}
    with sluice.connect(platform.settings) as con:
        rows = con.execute(
            "SELECT source, partition_key, files FROM lake.ops.ledger "
            "WHERE status = 'accepted' AND superseded_by IS NULL"
        ).fetchall()
    return {(source, key): files for source, key, files in rows}


def published_lines(platform: Platform) -> tuple[int, Decimal]:
    """Number and revenue of the order lines that readers see."""
    with sluice.connect(platform.settings) as con:
        lines, revenue = con.sql("SELECT count(*), sum(line_amount) FROM gold.fct_order_lines").fetchall()[0]
    return lines, revenue


def partitions_of(run: Run, source: str, known: set[str]) -> list[str]:
    """Which of the known partitions of a source a run was asked to ingest."""
    if f"bronze/{source}" not in run.assets:
        return []
    if "dagster/partition" in run.tags:
        return [run.tags["dagster/partition"]]
    if EXACT_KEYS in run.tags:
        return list(json.loads(run.tags[EXACT_KEYS]))
    first, last = (run.tags[tag].split("|") for tag in (RANGE_START, RANGE_END))
    # A rectangle: every region of the dates from the first to the last, as a whole delivery makes it.
    return sorted(k for k in known if first[0] <= k.split("|")[0] <= last[0])


def resting(platform: Platform) -> None:
    """Wait until no run is under way."""
    platform.wait_for(lambda: all(r.finished for r in platform.runs()), "no run is under way")


def ticked(platform: Platform, often: dict[str, int], after: float) -> None:
    """Wait until sensors have each been evaluated so many times after a moment, without an error."""

    def enough() -> bool:
        sensors = platform.sensors(after)
        wrong = [t for name in often for t in sensors[name]["ticks"] if t["status"] == "FAILURE"]
        assert not wrong, f"a sensor fails: {wrong}\n{platform.state()}"
        return all(
            sum(t["status"] != "STARTED" and t["timestamp"] > after for t in sensors[name]["ticks"]) >= times
            for name, times in often.items()
        )

    platform.wait_for(enough, f"sensors have ticked: {often}", 300)
