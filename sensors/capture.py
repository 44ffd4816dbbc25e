"""Changes that wait in a database start a run that captures them.

Like the other sensors this one remembers nothing: how far a capture is, the database's slot knows; which runs are under
way or have failed, Dagster's instance. It asks the database with SQL; Java starts with the run.
"""

import hashlib
from datetime import UTC, datetime

import dagster as dg

from resources.lake import LakeResource
from sensors.attempts import DELIVERY_TAG, attempt, under_way
from sluice.capture import Backlog, Capture, backlog
from sluice.errors import SluiceError

# Below the ten seconds after which changes are usually captured; a look takes 0.1 to 0.3 s, most of it to connect.
EVERY_SECONDS = 5


def capture_sensor(capture: Capture, key: dg.AssetKey) -> dg.SensorDefinition:
    """The sensor of one capture."""

    @dg.sensor(
        name=f"{capture.name}_position",
        target=dg.AssetSelection.assets(key),
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Captures when {capture.rows:,} changes wait behind the slot {capture.slot}, or some do and nothing was "
            f"captured for {capture.seconds:g} seconds."
        ),
    )
    def _sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult | dg.SkipReason:
        # Before the database is asked: a look at the slot would be in the way of a run that begins to read from it.
        waiting = under_way(context.instance, "/".join(key.path))
        if waiting is not None:
            return waiting
        try:
            found = backlog(lake.settings, capture)
        except SluiceError as error:
            return dg.SkipReason(str(error))
        return decide(found, context.instance, key, now=datetime.now(UTC))

    return _sensor


def decide(
    found: Backlog, instance: dg.DagsterInstance, key: dg.AssetKey, *, now: datetime
) -> dg.SensorResult | dg.SkipReason:
    """Whether to start a run.

    A capture that went on and no longer can, as when its slot is lost, gets one run: it fails, and so people are told.

    Args:
        found: what waits.
        instance: which runs there are.
        key: of the asset that captures.
        now: UTC.
    """
    capture, source = found.capture, "/".join(key.path)
    if found.running:
        return dg.SkipReason(f"{capture.name} is being captured already, by a run that this sensor has not started.")
    if found.trouble is not None:
        trouble = found.trouble
        if found.stage == "new":
            # It is being set up, and whoever does that is looking.
            return dg.SkipReason(trouble)
        return attempt(instance, source, _delivery(capture, trouble), [key], lambda _: trouble, attempts=1)
    if not found.waits():
        return dg.SkipReason(f"All is captured; the database's log is {found.lag_bytes} bytes further.")
    # A snapshot does not wait. What is not counted may be much, or a transaction that stays open, for which runs would
    # follow one another. A last time in the future is a wrong clock.
    few = found.stage == "streaming" and (found.changes is None or found.changes < capture.rows)
    if few and found.last is not None and 0 <= (now - found.last).total_seconds() < capture.seconds:
        what = "Changes that are not counted" if found.changes is None else f"{found.changes} changes"
        return dg.SkipReason(f"{what} wait, for {capture.seconds:g} seconds at most.")
    # By where the slot stands and the capture's file: what a run could not get past, the next cannot either.
    delivery = _delivery(capture, found.stage, found.slot.confirmed if found.slot else None)
    return attempt(
        instance,
        source,
        delivery,
        [key],
        lambda failed: (
            f"Changes wait, but capturing them failed {failed} times. Look at the runs tagged {DELIVERY_TAG}="
            f"{delivery}, mend the cause and materialize {source}."
        ),
    )


def _delivery(capture: Capture, *state: object) -> str:
    return hashlib.sha256(repr((capture, *state)).encode()).hexdigest()[:16]
