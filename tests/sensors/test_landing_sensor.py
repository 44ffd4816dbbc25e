"""What the landing sensor decides: nothing missed, nothing twice, whatever restarts or fails in between."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from assets.ingest import build_ingest_asset
from resources.lake import LakeResource
from resources.partitions import EXACT_KEYS, RANGE_END, RANGE_START
from sensors.attempts import ATTEMPTS, DELIVERY_TAG, SOURCE_TAG
from sensors.landing import decide, inventory_sensor, landing_sensor
from sluice.arrivals import arrivals
from sluice.contracts import load_contracts
from sluice.ingest import ingest
from sluice.inventory import take_inventory
from sluice.lake import Lake
from sluice.settings import PROJECT, Settings
from tests.shop import order_line, settings_in, write_orders

CONTRACT = load_contracts(PROJECT / "contracts")["orders"]
KEY = dg.AssetKey(["bronze", "orders"])
# Long after any file's time: everything has settled.
LATER = time.time_ns() + 3_600_000_000_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def tick(settings: Settings, instance: dg.DagsterInstance, now_ns: int = LATER) -> list[dg.RunRequest]:
    """One evaluation by a sensor that remembers nothing, as after a restart."""
    definition = build_ingest_asset(CONTRACT, settings).partitions_def
    assert definition is not None
    decided = decide("orders", arrivals(Lake(settings), CONTRACT), definition, instance, [KEY], now_ns=now_ns)
    return list(decided.run_requests or []) if isinstance(decided, dg.SensorResult) else []


def test_new_files_start_a_run_of_exactly_their_partitions(settings: Settings, instance: dg.DagsterInstance) -> None:
    write_orders(settings, "2026-01-02", "uk", [order_line(1)])
    [request] = tick(settings, instance)
    assert request.tags["dagster/partition"] == "2026-01-02|uk"
    assert request.asset_selection == [KEY]
    write_orders(settings, "2026-01-05", "eu", [order_line(1)])
    [request] = tick(settings, instance)
    assert request.tags[EXACT_KEYS] == '["2026-01-02|uk", "2026-01-05|eu"]'
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("2026-01-02|uk", "2026-01-05|eu")


def test_what_has_been_read_is_not_read_again(settings: Settings, instance: dg.DagsterInstance) -> None:
    write_orders(settings, "2026-01-02", "uk", [order_line(1)])
    ingest(Lake(settings), CONTRACT)
    assert tick(settings, instance) == []


def test_a_late_file_runs_its_date_again_and_no_other(settings: Settings, instance: dg.DagsterInstance) -> None:
    for day in ("2026-01-02", "2026-01-03"):
        write_orders(settings, day, "uk", [order_line(1, at=f"{day} 10:00:00")])
    ingest(Lake(settings), CONTRACT)
    write_orders(settings, "2026-01-02", "uk", [order_line(2)], "late.csv")
    [request] = tick(settings, instance)
    assert request.tags["dagster/partition"] == "2026-01-02|uk"


def test_a_changed_file_runs_again(settings: Settings, instance: dg.DagsterInstance) -> None:
    write_orders(settings, "2026-01-02", "uk", [order_line(1)])
    ingest(Lake(settings), CONTRACT)
    write_orders(settings, "2026-01-02", "uk", [order_line(1), order_line(2)])
    assert len(tick(settings, instance)) == 1


def test_a_refused_batch_is_not_tried_again_until_it_changes(settings: Settings, instance: dg.DagsterInstance) -> None:
    path = write_orders(settings, "2026-01-02", "uk", ["nonsense"])
    assert ingest(Lake(settings), CONTRACT).refused
    assert tick(settings, instance) == []
    path.write_text(path.read_text().replace("nonsense", order_line(1)))
    assert len(tick(settings, instance)) == 1


def test_a_file_being_written_is_left_to_settle(settings: Settings, instance: dg.DagsterInstance) -> None:
    path = write_orders(settings, "2026-01-02", "uk", [order_line(1)])
    assert tick(settings, instance, now_ns=path.stat().st_mtime_ns + 1_000_000_000) == []
    assert len(tick(settings, instance, now_ns=path.stat().st_mtime_ns + 3_000_000_000)) == 1


def test_while_a_run_is_under_way_none_is_started_and_a_failed_one_is_tried_again(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    write_orders(settings, "2026-01-02", "uk", [order_line(1)])
    keys = set()
    for _ in range(ATTEMPTS):
        [request] = tick(settings, instance)
        assert request.run_key not in keys
        keys.add(request.run_key)
        run = instance.create_run_for_job(noop, tags=dict(request.tags), status=DagsterRunStatus.STARTED)
        assert tick(settings, instance) == []
        instance.report_run_failed(run)
    # After that a person has to look.
    assert tick(settings, instance) == []
    assert instance.get_runs_count(dg.RunsFilter(tags={SOURCE_TAG: "orders"})) == ATTEMPTS
    # A new delivery is a new matter.
    write_orders(settings, "2026-01-02", "uk", [order_line(1), order_line(2)])
    [request] = tick(settings, instance)
    assert instance.get_runs_count(dg.RunsFilter(tags={DELIVERY_TAG: request.tags[DELIVERY_TAG]})) == 0


@dg.op
def _nothing() -> None:
    return None


@dg.job
def noop() -> None:
    """Stands for a run."""
    _nothing()


def test_a_storm_of_files_is_one_run(settings: Settings, instance: dg.DagsterInstance) -> None:
    for n in range(300):
        write_orders(settings, f"2026-01-0{1 + n % 7}", ("uk", "eu", "row")[n % 3], [order_line(n)], f"o{n}.csv")
    assert len(tick(settings, instance)) == 1


def test_the_sensor_itself_tells_of_a_missing_landing_folder(settings: Settings, instance: dg.DagsterInstance) -> None:
    settings.landing_path.rmdir()
    sensor = landing_sensor(CONTRACT, build_ingest_asset(CONTRACT, settings))
    context = dg.build_sensor_context(instance=instance, resources={"lake": LakeResource(home=str(settings.home))})
    data = sensor.evaluate_tick(context)
    assert data.run_requests == []
    assert "is not there. Create it" in (data.skip_message or "")


def test_files_that_belong_nowhere_start_the_inventory(settings: Settings, instance: dg.DagsterInstance) -> None:
    inventory = dg.AssetKey(["ops", "landing_inventory"])
    sensor = inventory_sensor([CONTRACT], inventory)

    def started() -> int:
        context = dg.build_sensor_context(instance=instance, resources={"lake": LakeResource(home=str(settings.home))})
        return len(sensor.evaluate_tick(context).run_requests or [])

    lake = Lake(settings)
    stray = settings.landing_path / "orders/region=mars/date=2026-01-02/orders.csv"
    nobodys = settings.landing_path / "stray.csv"
    # However often they come and go: the books are the memory.
    for _ in range(2):
        assert started() == 0
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_text("x")
        assert started() == 1
        take_inventory(lake, [CONTRACT])
        assert started() == 0
        nobodys.write_text("x")
        assert started() == 1
        take_inventory(lake, [CONTRACT])
        assert started() == 0
        stray.unlink()
        nobodys.unlink()
        assert started() == 1
        take_inventory(lake, [CONTRACT])


def test_a_wrong_clock_holds_nobody_up(settings: Settings, instance: dg.DagsterInstance) -> None:
    future = write_orders(settings, "2026-01-02", "uk", [order_line(1)])
    os.utime(future, ns=(LATER * 2, LATER * 2))
    assert len(tick(settings, instance)) == 1
    # Nor does one file still being written keep the other partitions waiting.
    fresh = write_orders(settings, "2026-01-03", "uk", [order_line(1)])
    os.utime(fresh, ns=(LATER, LATER))
    [request] = tick(settings, instance)
    assert request.tags["dagster/partition"] == "2026-01-02|uk"
