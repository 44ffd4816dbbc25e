"""New or changed landing files start a run of exactly their partitions.

The sensor remembers nothing: the lake knows what has been read (`sluice.arrivals`), Dagster's instance which runs are
under way or have failed. So no restart makes it miss a file or load one twice.
"""

import time
from collections.abc import Sequence

import dagster as dg

from resources.lake import LakeResource
from resources.partitions import run_tags
from sensors.attempts import DELIVERY_TAG, SOURCE_TAG, attempt, under_way
from sluice.arrivals import Arrivals, arrivals
from sluice.contracts import Contract
from sluice.errors import SluiceError
from sluice.inventory import NOBODY, is_noted
from sluice.landing import strays

# Short against a load's seconds, long enough that listing 10,000 files (0.1 s) is no burden.
EVERY_SECONDS = 20

# A file still being copied is touched more often than this; one read half would only be read again.
SETTLE_SECONDS = 2


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
    delivery = found.delivery(ready)
    return attempt(
        instance,
        source,
        delivery,
        selection,
        lambda failed: (
            f"{len(ready)} partitions failed {failed} times (first {ready[0]}). Look at the runs tagged {DELIVERY_TAG}="
            f"{delivery}, mend the cause and materialize the partitions, or deliver the files again."
        ),
        tags=run_tags(ready, definition),
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
        waiting = under_way(context.instance, key.to_user_string())
        if waiting is not None:
            return waiting
        return dg.SensorResult([dg.RunRequest(asset_selection=[key], tags=tag)])

    return _sensor
