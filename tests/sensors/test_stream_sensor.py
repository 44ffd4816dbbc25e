"""What the sensor of a topic decides: runs that read what waits, one at a time, and none that cannot get on."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from resources.lake import LakeResource
from sensors.attempts import ATTEMPTS, DELIVERY_TAG, SOURCE_TAG
from sensors.streams import decide, stream_sensor
from sluice.contracts import Contract
from sluice.eventlog import Message, open_log
from sluice.lake import Lake
from sluice.settings import Settings
from sluice.stream_positions import Lag
from sluice.streams import read_stream
from tests.conftest import MakeContract
from tests.shop import settings_in

KEY = dg.AssetKey(["bronze", "things_stream"])
NOW = datetime(2026, 1, 1, 12)
LONG_AGO = NOW - timedelta(hours=1)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def contract(make_contract: MakeContract) -> Contract:
    return make_contract({"id": {}}, stream={"topic": "things", "batch": {"rows": 100, "seconds": 10}})


def asked(
    contract: Contract, instance: dg.DagsterInstance, waiting: int, last: datetime | None = LONG_AGO, at: int = 7
) -> list[dg.RunRequest]:
    decided = decide(contract, [Lag(0, at, at + waiting)], last, instance, KEY, now=NOW)
    return list(decided.run_requests or []) if isinstance(decided, dg.SensorResult) else []


def test_messages_that_wait_start_one_run(contract: Contract, instance: dg.DagsterInstance) -> None:
    [request] = asked(contract, instance, 3)
    assert request.asset_selection == [KEY]
    assert request.tags[SOURCE_TAG] == "bronze/things_stream"
    # A tick that is repeated asks for the same run, by the same key.
    assert asked(contract, instance, 3)[0].run_key == request.run_key


def test_nothing_that_waits_starts_nothing(contract: Contract, instance: dg.DagsterInstance) -> None:
    assert asked(contract, instance, 0) == []


def test_a_few_messages_wait_for_their_time_and_many_do_not(contract: Contract, instance: dg.DagsterInstance) -> None:
    just_now = NOW - timedelta(seconds=9)
    assert asked(contract, instance, 99, just_now) == []
    assert len(asked(contract, instance, 100, just_now)) == 1
    assert len(asked(contract, instance, 1, NOW - timedelta(seconds=10))) == 1
    assert len(asked(contract, instance, 1, None)) == 1
    # A clock that was set back must not keep a stream waiting for a day.
    assert len(asked(contract, instance, 1, NOW + timedelta(days=1))) == 1


def test_a_million_messages_are_one_run_at_a_time(contract: Contract, instance: dg.DagsterInstance) -> None:
    [request] = asked(contract, instance, 1_000_000)
    instance.create_run_for_job(job(), tags=dict(request.tags), status=DagsterRunStatus.STARTED)
    assert asked(contract, instance, 2_000_000) == []


def test_what_fails_again_and_again_is_left_for_a_person_until_something_changes(
    contract: Contract, make_contract: MakeContract, instance: dg.DagsterInstance
) -> None:
    keys = set()
    for _ in range(ATTEMPTS):
        [request] = asked(contract, instance, 5)
        keys.add(request.run_key)
        instance.create_run_for_job(job(), tags=dict(request.tags), status=DagsterRunStatus.FAILURE)
    assert len(keys) == ATTEMPTS
    assert asked(contract, instance, 5) == []
    # More behind it does not help; another contract, or a position that was moved, may.
    assert asked(contract, instance, 50) == []
    assert len(asked(contract, instance, 5, at=8)) == 1
    mended = make_contract({"id": {}, "n": {}}, stream={"topic": "things", "batch": {"rows": 100, "seconds": 10}})
    [request] = asked(mended, instance, 5)
    assert request.tags[DELIVERY_TAG] not in keys


def tick(contract: Contract, settings: Settings, instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
    """One evaluation of the sensor as the daemon makes it, with a lake and an event log."""
    context = dg.build_sensor_context(instance, resources={"lake": LakeResource(home=str(settings.home))})
    told = stream_sensor(contract, KEY)(context)
    assert isinstance(told, dg.SensorResult | dg.SkipReason)
    return told


def test_a_topic_that_was_read_is_read_again_when_messages_come(
    make_contract: MakeContract, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    settings = settings_in(tmp_path)
    eager, patient = (
        make_contract({"id": {}}, stream={"topic": "things", "batch": {"rows": rows, "seconds": 3600}})
        for rows in (2, 100)
    )
    assert isinstance(tick(eager, settings, instance), dg.SkipReason)  # there is no topic yet
    log = open_log(settings)
    log.create("things", 1)
    log.append("things", [Message(b'{"id": "a"}')])
    # Nothing was ever read, so nothing waits for its time.
    assert isinstance(tick(patient, settings, instance), dg.SensorResult)
    assert read_stream(Lake(settings), eager, log).total("rows_accepted") == 1
    assert isinstance(tick(eager, settings, instance), dg.SkipReason)
    log.append("things", [Message(b'{"id": "b"}'), Message(b'{"id": "c"}')])
    assert isinstance(tick(eager, settings, instance), dg.SensorResult)
    # It knows when the topic was read last.
    told = tick(patient, settings, instance)
    assert isinstance(told, dg.SkipReason)
    assert "for 3600 seconds at most" in str(told.skip_message)


def job() -> dg.JobDefinition:
    @dg.op
    def nothing() -> None:
        return None

    @dg.job
    def reads() -> None:
        nothing()

    return reads
