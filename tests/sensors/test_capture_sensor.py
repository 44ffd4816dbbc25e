"""What the sensor of a capture decides: a run when something waits, and one to tell people when it cannot go on.

What waits is asked of a real database in tests/sluice/capture; from there to bronze, in tests/assets.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from sensors.attempts import ATTEMPTS, SOURCE_TAG
from sensors.capture import decide
from sluice.capture import Backlog, Capture
from sluice.capture.database import Slot

KEY = dg.AssetKey(["capture", "shop"])
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CAPTURE = Capture(
    "shop", "SLUICE_CDC_SHOP", (("public", "things"),), "shop", "sluice_shop", "sluice_shop", 1, (), 100, 10.0
)
SLOT = Slot("pgoutput", "db", False, 1_000, 900, "reserved")
BEHIND = Backlog(CAPTURE, "streaming", False, SLOT, 1_500, 3, NOW - timedelta(hours=1), None)
NEW = replace(BEHIND, stage="new", slot=None, changes=None, last=None)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def decided(found: Backlog, instance: dg.DagsterInstance) -> dg.RunRequest | str:
    """The one run that is asked for, or why none is."""
    result = decide(found, instance, KEY, now=NOW)
    if isinstance(result, dg.SkipReason):
        return str(result.skip_message)
    [request] = result.run_requests or []
    return request


def asked(found: Backlog, instance: dg.DagsterInstance) -> dg.RunRequest:
    request = decided(found, instance)
    assert isinstance(request, dg.RunRequest)
    return request


def test_what_waits_starts_one_run(instance: dg.DagsterInstance) -> None:
    request = asked(BEHIND, instance)
    assert request.asset_selection == [KEY] and request.tags[SOURCE_TAG] == "capture/shop"
    # A tick that is repeated asks for the same run, by the same key.
    assert asked(BEHIND, instance).run_key == request.run_key
    assert asked(NEW, instance).run_key != request.run_key
    instance.create_run_for_job(noop, tags=dict(request.tags), status=DagsterRunStatus.STARTED)
    assert "is under way" in str(decided(BEHIND, instance))


def test_nothing_starts_where_nothing_waits_or_somebody_captures(instance: dg.DagsterInstance) -> None:
    assert decided(replace(BEHIND, changes=0), instance) == "All is captured; the database's log is 500 bytes further."
    assert "is being captured already" in str(decided(replace(BEHIND, running=True, changes=None), instance))


def test_a_few_changes_wait_for_their_time_and_many_do_not(instance: dg.DagsterInstance) -> None:
    recent = replace(BEHIND, last=NOW - timedelta(seconds=9))
    assert decided(recent, instance) == "3 changes wait, for 10 seconds at most."
    assert asked(replace(recent, changes=100), instance)
    uncounted = replace(recent, changes=None)
    assert decided(uncounted, instance) == "Changes that are not counted wait, for 10 seconds at most."
    assert asked(replace(uncounted, last=NOW - timedelta(seconds=10)), instance)
    assert asked(replace(uncounted, stage="snapshot"), instance)
    assert asked(replace(recent, last=NOW - timedelta(seconds=10)), instance)
    # A clock that was set back keeps nothing waiting for a day.
    assert asked(replace(recent, last=NOW + timedelta(days=1)), instance)


def test_what_fails_again_and_again_is_left_for_a_person_until_something_changes(instance: dg.DagsterInstance) -> None:
    keys = set()
    for _ in range(ATTEMPTS):
        request = asked(BEHIND, instance)
        keys.add(request.run_key)
        instance.create_run_for_job(noop, tags=dict(request.tags), status=DagsterRunStatus.FAILURE)
    assert len(keys) == ATTEMPTS
    told = str(decided(replace(BEHIND, changes=50, position=9_000), instance))
    assert f"failed {ATTEMPTS} times" in told and "materialize capture/shop" in told
    assert asked(replace(BEHIND, slot=replace(SLOT, confirmed=1_200)), instance)
    assert asked(replace(BEHIND, capture=replace(CAPTURE, partitions=2)), instance)


def test_a_lost_slot_gets_one_run_that_fails_for_people_to_be_told(instance: dg.DagsterInstance) -> None:
    lost = replace(BEHIND, slot=None, changes=None, trouble="The slot is gone.")
    request = asked(lost, instance)
    instance.create_run_for_job(noop, tags=dict(request.tags), status=DagsterRunStatus.FAILURE)
    assert decided(lost, instance) == "The slot is gone."
    # Of what has never run, whoever sets it up reads the reason in the UI.
    assert decided(replace(NEW, trouble="There is no publication."), instance) == "There is no publication."


@dg.op
def _nothing() -> None:
    return None


@dg.job
def noop() -> None:
    """Stands for a run."""
    _nothing()
