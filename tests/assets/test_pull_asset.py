"""A pull as Dagster sees it: from a real database through the landing area to bronze, by hand and by its schedule."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster import DagsterRunStatus

from definitions import build_definitions
from resources.dbt import DBT_PROJECT, prepare_dbt_project
from resources.partitions import run_tags
from sensors.attempts import SOURCE_TAG
from sensors.landing import decide
from sensors.schedules import pull_job, pull_schedule
from sluice.arrivals import arrivals
from sluice.contracts import load_contracts
from sluice.lake import Lake
from sluice.settings import PROJECT
from tests.conftest import contract_document
from tests.postgres import PASSWORD, Server
from tests.shop import settings_in

KEY, BRONZE = dg.AssetKey(["landing", "things"]), dg.AssetKey(["bronze", "things"])


def document(**schedule: Any) -> dict[str, Any]:
    return contract_document(
        {"id": {"physicalType": "INTEGER"}, "changed": {"physicalType": "TIMESTAMP"}},
        formats=["jsonl"],
        pull={"table": "public.things", "cursor": "changed", "overlap": 60, "schedule": schedule or None},
    )


def test_what_is_pulled_is_ingested_and_what_fails_is_told(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = f"{postgres.database('pulled_by_an_asset')} password={PASSWORD}"
    monkeypatch.setenv("SLUICE_PULL_THINGS", connection)
    postgres.run("pulled_by_an_asset", "CREATE TABLE things (id INT PRIMARY KEY, changed TIMESTAMPTZ)")
    postgres.run("pulled_by_an_asset", "INSERT INTO things VALUES (1, '2026-01-01Z'), (2, '2026-01-02Z')")
    contracts = tmp_path / "contracts"
    shutil.copytree(PROJECT / "contracts", contracts)
    (contracts / "things.odcs.yaml").write_text(yaml.safe_dump(document(cron="*/10 * * * *")))
    # The file is of the day on which it is pulled; without an end, today's partition exists.
    start = datetime.now(UTC).date() - timedelta(days=1)
    for name, value in {"START_DATE": start, "THREADS": 1}.items():
        monkeypatch.setenv(f"SLUICE_{name}", str(value))
    settings = settings_in(tmp_path, contracts=str(contracts), start_date=start, end_date=None)
    dbt = tmp_path / "dbt_project"
    shutil.copytree(DBT_PROJECT, dbt, ignore=shutil.ignore_patterns("target", "logs"))
    made = load_contracts(contracts)
    definitions = build_definitions(settings, prepare_dbt_project(made.values(), settings, dbt))

    graph = definitions.resolve_asset_graph()
    node = graph.get(KEY)
    assert (node.group_name, node.child_keys, node.is_partitioned) == ("landing", {BRONZE}, False)
    assert node.kinds == {"postgres", "jsonl"} and node.pools == {"pull_things"}
    schedule = definitions.get_repository_def().get_schedule_def("scheduled_pull_things")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("*/10 * * * *", "UTC")

    job = definitions.resolve_job_def("pull_things")
    with dg.DagsterInstance.ephemeral() as instance:

        def pulled() -> dict[str, Any]:
            result = job.execute_in_process(instance=instance)
            [event] = result.asset_materializations_for_node("landing__things")
            return {name: value.value for name, value in event.metadata.items()}

        first = pulled()
        assert (first["rows"], first["mark"]) == (2, "2026-01-02 00:00:00+00")
        assert first["file"].endswith("/pull-00000001.jsonl")
        assert pulled() == {"rows": 0, "file": "nothing new", "mark": first["mark"]}

        # A run by hand may wind the mark back; what it lands is the same rows again.
        config = {"ops": {"landing__things": {"config": {"since": "2026-01-02"}}}}
        result = job.execute_in_process(instance=instance, run_config=config)
        [event] = result.asset_materializations_for_node("landing__things")
        assert event.metadata["rows"].value == 1

        # The landing sensor asks for exactly the day of the file.
        definition = graph.get(BRONZE).partitions_def
        assert definition is not None
        found = arrivals(Lake(settings), made["things"])
        asked = decide("things", found, definition, instance, [BRONZE], now_ns=2**62)
        assert isinstance(asked, dg.SensorResult) and asked.run_requests
        ingest = definitions.resolve_job_def("ingest_things")
        assert ingest.execute_in_process(instance=instance, tags=run_tags(list(found.pending), definition)).success
        with Lake(settings).reading() as con:
            assert con.execute("SELECT DISTINCT id FROM bronze.things ORDER BY id").fetchall() == [(1,), (2,)]

        monkeypatch.setenv("SLUICE_PULL_THINGS", connection.replace(PASSWORD, "no-such-secret"))
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        assert not result.success
        [failure] = [e for e in result.all_events if e.is_step_failure]
        told = str(failure.event_specific_data)
        assert "password authentication failed" in told and "no-such-secret" not in told


def test_the_schedule_asks_for_one_pull_at_a_time_and_is_as_the_contract_says(tmp_path: Path) -> None:
    path = tmp_path / "things.odcs.yaml"

    def made(**given: Any) -> dg.ScheduleDefinition | None:
        path.write_text(yaml.safe_dump(document(**given)))
        contract = load_contracts(tmp_path)["things"]
        return pull_schedule(contract, pull_job(contract, KEY), KEY)

    assert made() is None
    stopped = made(cron="0 6 * * *", active=False)
    assert stopped is not None and stopped.default_status == dg.DefaultScheduleStatus.STOPPED
    schedule = made(cron="0 6 * * *")
    assert schedule is not None and schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    with dg.instance_for_test() as instance:

        def tick(hour: int) -> dg.RunRequest | dg.SkipReason:
            moment = datetime(2026, 1, 1, hour, tzinfo=UTC)
            return schedule(dg.build_schedule_context(instance, scheduled_execution_time=moment))  # type: ignore[no-any-return]

        request = tick(6)
        assert isinstance(request, dg.RunRequest) and request.tags == {SOURCE_TAG: "landing/things"}
        assert isinstance(tick(7), dg.RunRequest) and tick(7).run_key != request.run_key
        instance.create_run_for_job(noop, tags=dict(request.tags), status=DagsterRunStatus.STARTED)
        waiting = tick(8)
        assert isinstance(waiting, dg.SkipReason) and "is under way" in str(waiting.skip_message)


@dg.op
def _nothing() -> None:
    return None


@dg.job
def noop() -> None:
    """Stands for a run."""
    _nothing()
