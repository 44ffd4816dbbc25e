"""New or changed landing files start a run of exactly their partitions.

The sensor remembers nothing: the lake knows what has been read (`sluice.arrivals`), Dagster's instance which runs are
under way or have failed. So no restart makes it miss a file or load one twice.
"""

import hashlib
import time
from collections.abc import Sequence

import dagster as dg
from dagster import DagsterRunStatus

from resources.lake import LakeResource
from resources.partitions import run_tags
from sluice.arrivals import Arrivals, arrivals
from sluice.contracts import Contract
from sluice.errors import SluiceError

# Short against a load's seconds, long enough that listing 10,000 files (0.1 s) is no burden.
EVERY_SECONDS = 20

# A file still being copied is touched more often than this; one read half would only be read again.
SETTLE_SECONDS = 2

# A delivery whose run fails as often is left for a person: more tries would fail the same way.
ATTEMPTS = 3

SOURCE_TAG = "sluice/source"
DELIVERY_TAG = "sluice/delivery"

_UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def landing_sensor(contract: Contract, asset: dg.AssetsDefinition) -> dg.SensorDefinition:
    """The sensor of one source."""
    key = asset.key
    definition = asset.partitions_def
    assert definition is not None, "ingest assets are partitioned"

    @dg.sensor(
        name=f"{contract.name}_landing",
        target=dg.AssetSelection.assets(key),
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Watches {contract.landing.path} and ingests exactly the partitions with new or changed files.",
    )
    def _sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult | dg.SkipReason:
        try:
            found = arrivals(lake.lake, contract)
        except SluiceError as error:
            # One line in the UI instead of a stack trace; the next tick tries again.
            return dg.SkipReason(str(error))
        return decide(
            contract.name,
            found,
            definition,
            context.instance,
            [key],
            now_ns=time.time_ns(),
        )

    return _sensor


def decide(
    source: str,
    found: Arrivals,
    definition: dg.PartitionsDefinition,
    instance: dg.DagsterInstance,
    selection: Sequence[dg.AssetKey],
    *,
    now_ns: int,
) -> dg.SensorResult | dg.SkipReason:
    """Whether to start a run, and of which partitions."""
    existing = set(definition.get_partition_keys())
    ready = [k for k in found.pending if k in existing]
    early = len(found.pending) - len(ready)
    if not ready:
        later = f"; {early} partitions lie in the future" if early else ""
        return dg.SkipReason(f"No new files{later}.")
    if now_ns - found.newest_mtime_ns < SETTLE_SECONDS * 1_000_000_000:
        return dg.SkipReason("Files are still being written.")
    under_way = instance.get_runs(dg.RunsFilter(tags={SOURCE_TAG: source}, statuses=_UNFINISHED), limit=1)
    if under_way:
        return dg.SkipReason(
            f"Run {under_way[0].run_id} of {source} is under way; what it leaves is looked at after it."
        )
    delivery = found.delivery(ready)
    tried = instance.get_runs_count(dg.RunsFilter(tags={DELIVERY_TAG: delivery}))
    if tried >= ATTEMPTS:
        return dg.SkipReason(
            f"{len(ready)} partitions failed {tried} times (first {ready[0]}). Look at the runs tagged {DELIVERY_TAG}="
            f"{delivery}, mend the cause and materialize the partitions, or deliver the files again."
        )
    return dg.SensorResult(
        [
            dg.RunRequest(
                run_key=f"{delivery}:{tried}",
                asset_selection=list(selection),
                tags={**run_tags(ready, definition), SOURCE_TAG: source, DELIVERY_TAG: delivery},
            )
        ]
    )


def inventory_sensor(contracts: Sequence[Contract], key: dg.AssetKey) -> dg.SensorDefinition:
    """Files that belong to no partition start a run of the landing inventory, which tells of them."""

    @dg.sensor(
        name="unroutable_files",
        target=dg.AssetSelection.assets(key),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes the inventory whenever the files that belong to no partition change.",
    )
    def _sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult | dg.SkipReason:
        try:
            astray = [f for c in contracts for f in arrivals(lake.lake, c).unroutable]
        except SluiceError as error:
            return dg.SkipReason(str(error))
        listed = hashlib.sha256(
            "|".join(f"{f.path}:{f.size}:{f.mtime_ns}:{f.reason}" for f in astray).encode()
        ).hexdigest()
        if context.cursor == listed or (context.cursor is None and not astray):
            return dg.SkipReason(f"{len(astray)} unroutable files, as before.")
        return dg.SensorResult([dg.RunRequest(run_key=listed, asset_selection=[key])], cursor=listed)

    return _sensor
