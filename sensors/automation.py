"""When the warehouse is rebuilt by itself."""

from typing import Any

import dagster as dg

# A pause long enough for the files of one delivery to be ingested together, short against a load's length.
EVERY_SECONDS = 15


def on_new_data() -> dg.AutomationCondition[Any]:
    """Build when something upstream was updated since the last build was asked for and nothing upstream is running.

    - `any_deps_updated`: new or replaced bronze, or a model asked for in this very tick, so that all go in one run.
    - `.since(newly_requested)`: kept in mind until a build is asked for. Dagster learns of a request one tick after it,
      and forgets what was updated within that very tick; `in_that_tick` keeps it, so that no update goes unnoticed.
    - no wish that every partition be there: a shop is closed on some days.
    - no look at checks: a refused batch is not in bronze and marks nothing as updated; its check has told already.
    """
    condition = dg.AutomationCondition
    updated, requested = condition.any_deps_updated(), condition.newly_requested()
    in_that_tick = (updated & requested).since(requested & ~updated)
    return (
        (updated.since(requested) | in_that_tick)
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
    ).with_label("new data upstream")


def automated(assets: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """The same assets, built by themselves when new data comes."""
    condition = on_new_data()
    return assets.map_asset_specs(lambda spec: spec.replace_attributes(automation_condition=condition))


automation_sensor = dg.AutomationConditionSensorDefinition(
    "build_warehouse_on_new_data",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=EVERY_SECONDS,
    description="Builds silver and gold and publishes, whenever bronze has changed.",
)
