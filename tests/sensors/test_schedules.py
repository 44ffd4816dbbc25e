"""The daily load asks for yesterday's partitions; maintenance is on by default."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from assets.ingest import build_ingest_asset
from assets.maintenance import KEY, lake_maintenance
from resources.partitions import RANGE_END, RANGE_START
from sensors.schedules import daily_schedule, maintenance_job, maintenance_schedule, source_job
from sluice.contracts import load_contracts
from sluice.settings import PROJECT
from tests.shop import settings_in

CONTRACTS = load_contracts(PROJECT / "contracts")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("orders", {RANGE_START: "2026-01-04|uk", RANGE_END: "2026-01-04|row"}),
        ("products", {"dagster/partition": "2026-01-04"}),
    ],
)
def test_the_daily_load_is_yesterday_in_one_run(tmp_path: Path, source: str, expected: dict[str, str]) -> None:
    asset = build_ingest_asset(CONTRACTS[source], settings_in(tmp_path))
    schedule = daily_schedule(source_job(source, asset.key), asset)
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(day: int) -> dg.RunRequest | dg.SkipReason:
            context = dg.build_schedule_context(
                instance, scheduled_execution_time=datetime(2026, 1, day, 6, tzinfo=UTC)
            )
            return schedule(context)  # type: ignore[no-any-return]

        request = tick(5)
        assert isinstance(request, dg.RunRequest)
        assert request.tags == expected
        assert request.run_key == "2026-01-04"
        outside = tick(20)
        assert isinstance(outside, dg.SkipReason)
        assert "no partition" in str(outside.skip_message)


def test_maintenance_runs_weekly_unasked() -> None:
    schedule = maintenance_schedule(maintenance_job(KEY))
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.cron_schedule == "0 3 * * 0"
    assert lake_maintenance.key == KEY
