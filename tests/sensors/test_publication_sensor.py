"""Readers moved without a run: the asset `published` shows it, once."""

from pathlib import Path

import dagster as dg

from assets.publication import KEY, build_publication
from resources.lake import LakeResource
from sensors.publication import publication_sensor
from sluice.audits import record_audit
from sluice.lake import Lake
from sluice.publication import pin
from tests.shop import settings_in


def test_a_pin_by_hand_is_shown_and_a_run_says_who_holds_readers(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    lake, resource = Lake(settings), LakeResource(home=str(settings.home))
    sensor = publication_sensor(KEY)

    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> dg.SensorResult | dg.SkipReason:
            found = sensor(dg.build_sensor_context(instance=instance), lake=resource)
            assert isinstance(found, dg.SensorResult | dg.SkipReason)
            return found

        def run() -> dict[str, object]:
            asset = build_publication([])
            done = dg.materialize([asset], resources={"lake": resource}, instance=instance)
            (told,) = done.asset_materializations_for_node(asset.node_def.name)
            return {name: value.value for name, value in told.metadata.items()}

        assert "There is no lake" in str(tick())
        lake.create()
        assert tick() == dg.SkipReason("Nothing has been published yet.")
        record_audit(lake, run_id="b", checks_passed=1, failed=[])
        first = run()
        assert (first["publication"], first["pinned"], first["moved"]) == (1, False, True)
        assert tick() == dg.SkipReason("Publication 1 is shown already.")

        pin(lake, by="ann", why="the quarter's end")
        moved = tick()
        assert isinstance(moved, dg.SensorResult)
        (event,) = moved.asset_events
        assert isinstance(event, dg.AssetMaterialization)
        assert event.asset_key == KEY
        shown = {name: value.value for name, value in event.metadata.items()}
        held = {"publication": 2, "snapshot": first["snapshot"], "pinned": True, "by": "ann"}
        assert held.items() <= shown.items()
        assert shown["why"] == "pinned to publication 1: the quarter's end"

        # A build that passes meanwhile moves nobody, and its run says so.
        record_audit(lake, run_id="b", checks_passed=1, failed=[])
        told = run()
        assert (held | {"moved": False}).items() <= told.items()
        assert tick() == dg.SkipReason("Publication 2 is shown already.")
