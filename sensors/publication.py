"""Readers who were moved by hand: the UI is told, which else would go on to show what the last run left."""

import dagster as dg

from resources.lake import LakeResource
from sluice.errors import SluiceError
from sluice.publication import current_publication


def publication_sensor(key: dg.AssetKey) -> dg.SensorDefinition:
    """Reports what readers see as a materialization of the asset `key`, where the last one says something else.

    `sluice publish` and `sluice erase` move readers without a run. The lake is asked, so nothing is missed while no
    daemon runs.
    """

    @dg.sensor(
        name="readers_moved",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Shows with the asset `published` when somebody has moved, pinned or unpinned readers by hand.",
    )
    def _sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult | dg.SkipReason:
        try:
            publication = current_publication(lake.lake)
        except SluiceError as error:
            return dg.SkipReason(str(error))
        if publication is None:
            return dg.SkipReason("Nothing has been published yet.")
        event = context.instance.get_latest_materialization_event(key)
        shown = (
            event.asset_materialization.metadata.get("publication") if event and event.asset_materialization else None
        )
        if shown and shown.value == publication.publication_id:
            return dg.SkipReason(f"Publication {publication.publication_id} is shown already.")
        return dg.SensorResult(asset_events=[dg.AssetMaterialization(key, metadata={**publication.facts()})])

    return _sensor
