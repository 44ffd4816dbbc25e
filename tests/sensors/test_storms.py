"""Storms: ten thousand files or a million messages at once are few runs, and every row of them is there once.

The loop is the daemon's: ask the sensor, run what it asks for, ask again. Sensor, asset, lake and event log are real.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from assets.ingest import build_ingest_asset
from assets.streams import build_stream_asset, stream_key
from resources.lake import LakeResource
from sensors.landing import landing_sensor
from sensors.streams import stream_sensor
from sluice.books import books
from sluice.contracts import load_contracts
from sluice.eventlog.embedded import EmbeddedLog
from sluice.eventlog.protocol import RECORDS
from sluice.lake import Lake
from sluice.settings import PROJECT, Settings
from tests.conftest import MakeContract
from tests.shop import ORDER_HEADER, order_line, settings_in

pytestmark = pytest.mark.slow

FILES = 10_000
MESSAGES = 1_000_000

# More than any storm may take; the loop would go on for ever if each tick asked again.
MOST_TICKS = 20


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def runs_until_rest(
    sensor: dg.SensorDefinition, asset: dg.AssetsDefinition, settings: Settings, instance: dg.DagsterInstance
) -> int:
    """Do what the sensor asks for until it asks for nothing; how many runs that were."""
    lake = {"lake": LakeResource(home=str(settings.home), start_date=settings.start_date, end_date=settings.end_date)}
    runs = 0
    for _ in range(MOST_TICKS):
        context = dg.build_sensor_context(instance, resources=lake)
        requests = sensor.evaluate_tick(context).run_requests or []
        if not requests:
            return runs
        for request in requests:
            result = dg.materialize([asset], instance=instance, resources=lake, tags=dict(request.tags))
            assert all(check.passed for check in result.get_asset_check_evaluations())
            runs += 1
    pytest.fail(f"the sensor still asks for runs after {MOST_TICKS} ticks")


def test_ten_thousand_files_are_one_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    settings = settings_in(tmp_path)
    contract = load_contracts(PROJECT / "contracts")["orders"]
    regions, days = ("uk", "eu", "row"), [f"2026-01-0{n}" for n in range(1, 8)]
    for day in days:
        for region in regions:
            (settings.landing_path / f"orders/region={region}/date={day}").mkdir(parents=True)
    long_ago = time.time() - 3600
    for n in range(FILES):
        day, region = days[n % 7], regions[n % 3]
        path = settings.landing_path / f"orders/region={region}/date={day}/o{n}.csv"
        path.write_text(f"{ORDER_HEADER}\n{order_line(n, at=f'{day} 10:00:00')}\n")
        os.utime(path, (long_ago, long_ago))
    asset = build_ingest_asset(contract, settings)
    assert runs_until_rest(landing_sensor(contract, asset), asset, settings, instance) == 1
    with Lake(settings).reading() as con:
        read = con.execute("SELECT count(*), count(DISTINCT invoice), count(DISTINCT _file) FROM bronze.orders")
        assert read.fetchall() == [(FILES, FILES, FILES)]
    assert [(b.balanced, b.batches, b.rows_read) for b in books(Lake(settings), ["orders"])] == [(True, 21, FILES)]


def test_a_million_messages_are_one_run_of_few_batches(
    make_contract: MakeContract, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    settings = settings_in(tmp_path, threads=2)
    columns: dict[str, Any] = {"id": {"physicalType": "BIGINT", "required": True, "primaryKey": True}}
    contract = make_contract(columns, stream={"topic": "things", "partitions": 2, "batch": {"rows": 100, "seconds": 1}})
    log = EmbeddedLog(settings.topics_path)
    log.create("things", 2)
    for partition in (0, 1):
        ids = range(partition, MESSAGES, 2)
        nothing = pa.nulls(len(ids))
        values = pa.array([b'{"id": %d}' % each for each in ids], pa.binary())
        times = pa.array([1_767_225_600_000] * len(ids), pa.int64())
        parts = [pa.array([0] * len(ids), pa.int64()), times, nothing, values, nothing]
        table = pa.table([p.cast(f.type) for p, f in zip(parts, RECORDS, strict=True)], schema=RECORDS)
        log.append_records("things", partition, table)
    asset = build_stream_asset(contract, settings)
    assert runs_until_rest(stream_sensor(contract, stream_key(contract)), asset, settings, instance) == 1
    with Lake(settings).reading() as con:
        assert con.execute("SELECT count(*), count(DISTINCT id), min(id), max(id) FROM bronze.things").fetchall() == [
            (MESSAGES, MESSAGES, 0, MESSAGES - 1)
        ]
    [found] = books(Lake(settings), ["things"])
    assert found.balanced and found.rows_read == MESSAGES
    # Of 250,000 messages each, a share of each partition.
    assert found.batches == 8
