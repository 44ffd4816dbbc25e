"""When the warehouse is rebuilt by itself."""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import dagster as dg

# A pause long enough for the files of one delivery to be ingested together, short against a load's length.
EVERY_SECONDS = 15


def on_new_data(
    sources: Sequence[dg.AssetKey], last: dg.AssetKey, streams: Sequence[dg.AssetKey] = ()
) -> dg.AutomationCondition[Any]:
    """Build when a source was updated since the last build was asked for, and neither source nor build is under way.

    A stream that is being read is not waited for: it may go on for hours, and tells of what it has read meanwhile.

    The condition looks at the sources and the last asset, never at an asset's own parents, so it is the same for every
    asset of the warehouse: all are asked for in one tick and built in one run. A part alone would be of no use: only a
    whole build may be published; and the part whose build had failed would not be asked for again.

    - `.since(newly_requested)`: kept in mind until a build is asked for. Dagster learns of a request one tick after it,
      and forgets what was updated within that very tick; `in_that_tick` keeps it, so that no update goes unnoticed.
    - no wish that every partition be there: a shop is closed on some days.
    - no look at checks: a refused batch is not in bronze and marks nothing as updated; its check has told already.
    """
    condition = dg.AutomationCondition

    def any_of(keys: Sequence[dg.AssetKey], what: dg.AutomationCondition[Any]) -> dg.AutomationCondition[Any]:
        return functools.reduce(operator.or_, [condition.asset_matches(key, what) for key in keys])

    updated = any_of([*sources, *streams], condition.newly_updated())
    loading = any_of(sources, condition.in_progress())
    building = condition.asset_matches(last, condition.in_progress())
    requested = condition.newly_requested()
    in_that_tick = (updated & requested).since(requested & ~updated)
    return ((updated.since(requested) | in_that_tick) & ~loading & ~building & ~condition.in_progress()).with_label(
        "new data in a source"
    )


def automated(
    assets: dg.AssetsDefinition,
    sources: Sequence[dg.AssetKey],
    last: dg.AssetKey,
    streams: Sequence[dg.AssetKey] = (),
) -> dg.AssetsDefinition:
    """The same assets, built by themselves when new data comes.

    Args:
        assets: of the warehouse.
        sources: the ingest assets.
        last: the asset a build ends with.
        streams: the assets that read topics.
    """
    condition = on_new_data(sources, last, streams)
    return assets.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=condition))


automation_sensor = dg.AutomationConditionSensorDefinition(
    "build_warehouse_on_new_data",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=EVERY_SECONDS,
    description="Builds silver and gold and publishes, whenever bronze has changed.",
)
