"""What is fetched from an API, as Dagster sees it: what is marked, warned of and failed; bronze keeps its rows."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest

from assets.ingest import build_ingest_asset
from assets.rest import build_rest_asset, build_rest_assets
from definitions import build_definitions
from resources.lake import LakeResource
from resources.partitions import RANGE_END, RANGE_START, run_tags
from sensors.landing import decide
from sensors.schedules import fetch_job, fetch_schedule
from sluice.arrivals import arrivals
from sluice.contracts import load_contracts
from sluice.lake import Lake
from sluice.rest.state import State
from sluice.settings import PROJECT, Settings
from sluice.simulation.rates_api import RatesApi, serving
from tests.shop import settings_in

CONTRACT = load_contracts(PROJECT / "contracts")["exchange_rates"]
KEY, BRONZE = dg.AssetKey(["landing", "exchange_rates"]), dg.AssetKey(["bronze", "exchange_rates"])
WEEK = [date(2026, 1, day).isoformat() for day in range(1, 8)]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[RatesApi]:
    with serving() as server:
        monkeypatch.setenv("RATES_API_URL", server.url)
        yield server


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    made = settings_in(tmp_path)
    made.landing_path.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("SLUICE_START_DATE", str(made.start_date))
    monkeypatch.setenv("SLUICE_END_DATE", str(made.end_date))
    return made


def materialize(settings: Settings, keys: list[str], *, ingest: bool = False) -> dg.ExecuteInProcessResult:
    asset = build_rest_asset(CONTRACT, settings)
    assert asset.partitions_def is not None
    return dg.materialize(
        [asset, build_ingest_asset(CONTRACT, settings)] if ingest else [asset],
        tags=run_tags(keys, asset.partitions_def),
        resources={"lake": LakeResource(home=str(settings.home))},
        raise_on_error=False,
    )


def check(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    return next(c for c in result.get_asset_check_evaluations() if c.check_name == "fresh")


def rows(settings: Settings) -> list[tuple[object, ...]]:
    with Lake(settings).reading() as con:
        return con.execute("SELECT * EXCLUDE (_ingested_at) FROM bronze.exchange_rates ORDER BY ALL").fetchall()


def test_a_run_fetches_many_days_and_the_sensor_finds_exactly_those_with_rates(
    settings: Settings, api: RatesApi
) -> None:
    result = materialize(settings, WEEK)
    assert result.success
    assert check(result).passed and check(result).metadata["circuit breaker"].value == "closed"
    metadata = result.asset_materializations_for_node("landing__exchange_rates")[0].metadata
    assert {name: metadata[name].value for name in ("partitions", "partitions_without_rows", "rows", "requests")} == {
        "partitions": 7, "partitions_without_rows": 2, "rows": 40, "requests": 7,
    }  # fmt: skip
    found = arrivals(Lake(settings), CONTRACT)
    assert sorted(found.pending) == [day for day in WEEK if day not in ("2026-01-03", "2026-01-04")]
    definition = build_rest_asset(CONTRACT, settings).partitions_def
    assert definition is not None
    with dg.DagsterInstance.ephemeral() as instance:
        asked = decide("exchange_rates", found, definition, instance, [BRONZE], now_ns=2**62)
    assert isinstance(asked, dg.SensorResult) and asked.run_requests and len(asked.run_requests) == 1


def test_an_api_that_fails_costs_no_row_and_is_told_of(settings: Settings, api: RatesApi) -> None:
    assert materialize(settings, WEEK, ingest=True).success
    before = rows(settings)
    assert len(before) == 40
    api.faults = ["unauthorized"]
    result = materialize(settings, WEEK, ingest=True)
    assert not result.success
    told = check(result)
    assert not told.passed and told.severity == dg.AssetCheckSeverity.WARN and not told.blocking
    assert {"stale since", "age in hours", "latency in hours", "last good fetch", "failing"} <= set(told.metadata)
    (failure,) = [e for e in result.all_events if e.is_step_failure]
    assert "answers 401" in str(failure.event_specific_data) and "stays as it is" in str(failure.event_specific_data)
    assert rows(settings) == before
    api.faults = []
    assert check(materialize(settings, WEEK)).passed


def test_days_that_came_are_marked_though_others_failed(settings: Settings, api: RatesApi) -> None:
    api.faults = ["none", "html", "none"]
    result = materialize(settings, ["2026-01-05", "2026-01-06", "2026-01-07"])
    assert not result.success
    marked = [m.partition for m in result.asset_materializations_for_node("landing__exchange_rates")]
    assert marked == ["2026-01-05", "2026-01-07"]
    assert not check(result).passed


def test_an_open_circuit_stands_in_the_check(settings: Settings, api: RatesApi) -> None:
    with State.of(settings).transaction() as con:
        con.execute(
            "INSERT INTO breakers VALUES (?, 'open', 4, ?, ?, 120, NULL, NULL, 'it answers 500')",
            [f"exchange_rates@127.0.0.1:{api.server_port}", 0, datetime.now(UTC).timestamp()],
        )
    result = materialize(settings, WEEK)
    assert not result.success and api.asked == []
    assert check(result).metadata["circuit breaker"].value == "open"


def test_the_schedule_asks_for_the_last_days_and_is_as_the_contract_says(settings: Settings) -> None:
    asset = build_rest_asset(CONTRACT, settings)
    schedule = fetch_schedule(CONTRACT, fetch_job(CONTRACT, KEY), asset)
    assert schedule is not None and schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(day: int) -> dg.RunRequest | dg.SkipReason:
            moment = datetime(2026, 1, day, 6, 30, tzinfo=UTC)
            return schedule(dg.build_schedule_context(instance, scheduled_execution_time=moment))  # type: ignore[no-any-return]

        request = tick(7)
        assert isinstance(request, dg.RunRequest)
        assert request.tags == {RANGE_START: "2026-01-03", RANGE_END: "2026-01-06"}
        assert isinstance(tick(30), dg.SkipReason)


def test_only_what_is_fetched_has_an_asset_and_it_lies_upstream_of_bronze(settings: Settings) -> None:
    assert [a.key for a in build_rest_assets(list(load_contracts(settings.contracts).values()), settings)] == [KEY]
    definitions = build_definitions(settings)
    node = definitions.resolve_asset_graph().get(KEY)
    assert node.group_name == "landing" and node.child_keys == {BRONZE}
    assert node.backfill_policy == dg.BackfillPolicy.single_run()
    assert definitions.resolve_job_def("fetch_exchange_rates")
    assert definitions.get_repository_def().get_schedule_def("scheduled_fetch_exchange_rates")
