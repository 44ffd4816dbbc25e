"""New or changed landing files start a run of exactly their partitions.

The sensor remembers nothing: the lake knows what has been read (`sluice.arrivals`), Dagster's instance which runs are
under way or have failed. So no restart makes it miss a file or load one twice.
"""

import time
from collections.abc import Sequence

import dagster as dg
from dagster import DagsterRunStatus

from resources.lake import LakeResource
from resources.partitions import run_tags
from sluice.arrivals import Arrivals, arrivals
from sluice.contracts import Contract
from sluice.errors import SluiceError
from sluice.inventory import NOBODY, is_noted
from sluice.landing import strays

# Short against a load's seconds, long enough that listing 10,000 files (0.1 s) is no burden.
EVERY_SECONDS = 20

# A file still being copied is touched more often than this; one read half would only be read again.
SETTLE_SECONDS = 2

# A delivery whose run fails as often is left for a person: more tries would fail the same way.
ATTEMPTS = 3

SOURCE_TAG = "sluice/source"
DELIVERY_TAG = "sluice/delivery"

UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]

FAILED = [DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]


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
    known = [k for k in found.pending if k in existing]
    early = len(found.pending) - len(known)
    if not known:
        later = f"; {early} partitions lie in the future" if early else ""
        return dg.SkipReason(f"No new files{later}.")
    # A time in the future is a wrong clock, not a file being written.
    ready = [k for k in known if not 0 <= now_ns - found.newest_mtime_ns[k] < SETTLE_SECONDS * 1_000_000_000]
    if not ready:
        return dg.SkipReason("Files are still being written.")
    under_way = instance.get_runs(dg.RunsFilter(tags={SOURCE_TAG: source}, statuses=UNFINISHED), limit=1)
    if under_way:
        return dg.SkipReason(
            f"Run {under_way[0].run_id} of {source} is under way; what it leaves is looked at after it."
        )
    delivery = found.delivery(ready)
    tag = {DELIVERY_TAG: delivery}
    failed = instance.get_runs_count(dg.RunsFilter(tags=tag, statuses=FAILED))
    if failed >= ATTEMPTS:
        return dg.SkipReason(
            f"{len(ready)} partitions failed {failed} times (first {ready[0]}). Look at the runs tagged {DELIVERY_TAG}="
            f"{delivery}, mend the cause and materialize the partitions, or deliver the files again."
        )
    return dg.SensorResult(
        [
            dg.RunRequest(
                # Content that comes back after another was loaded is a run of its own.
                run_key=f"{delivery}:{instance.get_runs_count(dg.RunsFilter(tags=tag))}",
                asset_selection=list(selection),
                tags={**run_tags(ready, definition), SOURCE_TAG: source, DELIVERY_TAG: delivery},
            )
        ]
    )


def inventory_sensor(contracts: Sequence[Contract], key: dg.AssetKey) -> dg.SensorDefinition:
    """Files that belong to no partition, or no longer do, start a run of the landing inventory, which tells of them."""

    @dg.sensor(
        name="unroutable_files",
        target=dg.AssetSelection.assets(key),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Takes the inventory whenever the files that belong nowhere differ from those in the books.",
    )
    def _sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult | dg.SkipReason:
        tag = {SOURCE_TAG: key.to_user_string()}
        try:
            settings = lake.settings
            astray = [(NOBODY, "", strays(contracts, settings.landing_path))]
            astray += [(c.name, c.hash, arrivals(lake.lake, c).unroutable) for c in contracts]
            if all(is_noted(lake.lake, *item) for item in astray):
                return dg.SkipReason(f"{sum(len(files) for *_, files in astray)} unroutable files, all in the books.")
        except SluiceError as error:
            return dg.SkipReason(str(error))
        if context.instance.get_runs(dg.RunsFilter(tags=tag, statuses=UNFINISHED), limit=1):
            return dg.SkipReason("An inventory is under way.")
        return dg.SensorResult([dg.RunRequest(asset_selection=[key], tags=tag)])

    return _sensor
