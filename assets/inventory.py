"""The landing area as an asset: what lies there, and whether every file belongs somewhere."""

from collections.abc import Iterator, Sequence

import dagster as dg

from assets.ingest import WRITER_POOL
from resources.lake import LakeResource
from sluice.contracts import Contract
from sluice.inventory import Inventory, take_inventory

KEY = dg.AssetKey(["ops", "landing_inventory"])

_SHOWN = 50


def build_landing_inventory(contracts: Sequence[Contract]) -> dg.AssetsDefinition:
    """The asset `ops/landing_inventory`."""

    @dg.asset(
        key=KEY,
        group_name="ops",
        kinds={"file"},
        description=(
            "What lies in the landing area, per source. A file whose path fits no partition (unknown region, no date, "
            "before the first day, an ending the contract does not allow) is kept in `ops.dead_letters` and turns the "
            "check red."
        ),
        pool=WRITER_POOL,
        check_specs=[
            dg.AssetCheckSpec(
                "every_file_routable",
                asset=KEY,
                blocking=True,
                description="Each file's path says which partition it is for.",
            )
        ],
    )
    def _landing_inventory(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[object]:
        found = take_inventory(lake.lake, contracts, run_id=context.run.run_id)
        yield dg.MaterializeResult(metadata={"landing": inventory_table(found)}, check_results=[routable(found)])

    return _landing_inventory


def inventory_table(found: Sequence[Inventory]) -> dg.MarkdownMetadataValue:
    """Files, bytes and partitions per source."""
    rows = [f"| {i.source} | {i.files} | {i.bytes:,} | {i.partitions} | {len(i.unroutable)} |" for i in found]
    head = ["| source | files | bytes | partitions | unroutable |", "|---|--:|--:|--:|--:|"]
    return dg.MetadataValue.md("\n".join([*head, *rows]))


def routable(found: Sequence[Inventory]) -> dg.AssetCheckResult:
    """Passes when no file lies where it belongs to no partition."""
    astray = [f"- `{f.path}`: {f.reason}" for i in found for f in i.unroutable]
    return dg.AssetCheckResult(
        asset_key=KEY,
        check_name="every_file_routable",
        passed=not astray,
        metadata={"files": len(astray), "astray": dg.MetadataValue.md("\n".join(astray[:_SHOWN]) or "none")},
    )
