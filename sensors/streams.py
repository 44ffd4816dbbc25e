"""Messages that wait start a run that reads them.

Like the landing sensor this one remembers nothing: how far a topic is read is in the lake, which runs are under way or
have failed in Dagster's instance. A backlog, however long, is one run after the other, each bounded.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from resources.lake import LakeResource
from sensors.attempts import DELIVERY_TAG, attempt
from sluice.contracts import Contract, Stream
from sluice.errors import SluiceError
from sluice.eventlog import open_log
from sluice.stream_positions import Lag, lag, last_read, stream_of

# Well below the ten seconds after which a batch is usually read, and no burden: a look takes some 50 ms.
EVERY_SECONDS = 5


def stream_sensor(contract: Contract, key: dg.AssetKey) -> dg.SensorDefinition:
    """The sensor of one topic."""
    stream = stream_of(contract)

    @dg.sensor(
        name=f"{contract.name}_lag",
        target=dg.AssetSelection.assets(key),
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Reads {stream.topic} when {stream.rows:,} messages wait, or some have waited {stream.seconds:g} seconds."
        ),
    )
    def _sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult | dg.SkipReason:
        try:
            with open_log(lake.settings) as log:
                if stream.topic not in log.topics():
                    return dg.SkipReason(f"There is no topic {stream.topic} yet.")
                lake.lake.create()
                with lake.lake.reading() as con:
                    waiting = lag(con, contract, log)
                    last = last_read(con, contract)
        except SluiceError as error:
            return dg.SkipReason(str(error))
        return decide(contract, waiting, last, context.instance, key, now=datetime.now(UTC).replace(tzinfo=None))

    return _sensor


def decide(
    contract: Contract,
    waiting: Sequence[Lag],
    last: datetime | None,
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    *,
    now: datetime,
) -> dg.SensorResult | dg.SkipReason:
    """Whether to start a run.

    Args:
        contract: of the source.
        waiting: what waits of each partition.
        last: when a batch was last written (UTC).
        instance: which runs there are.
        key: of the asset that reads.
        now: UTC.
    """
    stream: Stream = stream_of(contract)
    records = sum(each.records for each in waiting)
    if not records:
        return dg.SkipReason(f"{stream.topic} is read to its end.")
    # A last time in the future is a wrong clock, not a batch that has just been read.
    if last is not None and records < stream.rows and 0 <= (now - last).total_seconds() < stream.seconds:
        return dg.SkipReason(f"{records} messages wait, for {stream.seconds:g} seconds at most.")
    source = "/".join(key.path)
    # By where reading stands and the contract: what a run could not get past, the next cannot either, until somebody
    # mends the contract or moves the position.
    places = [(each.partition, each.next_offset) for each in waiting]
    delivery = hashlib.sha256(repr((contract.name, contract.hash, stream, places)).encode()).hexdigest()[:16]
    return attempt(
        instance,
        source,
        delivery,
        [key],
        lambda failed: (
            f"{records} messages wait, but reading them failed {failed} times. Look at the runs tagged "
            f"{DELIVERY_TAG}={delivery}, mend the cause and materialize {source}, with force: true if need be."
        ),
    )
