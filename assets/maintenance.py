"""Lake maintenance as an asset, so that its history and its effect are seen in the UI."""

from collections.abc import Iterator

import dagster as dg

from assets.ingest import WRITER_POOL
from resources.lake import LakeResource
from sluice.maintenance import maintain

KEY = dg.AssetKey(["ops", "lake_maintenance"])


class MaintenanceConfig(dg.Config):
    """How much history maintenance leaves."""

    keep_days: int = 7  # snapshots younger than this stay, published or not; SLUICE_BELIEF_DAYS rules published ones
    grace_hours: float = 24.0  # files replaced for less than this stay, for queries under way


@dg.asset(
    key=KEY,
    group_name="ops",
    kinds={"ducklake"},
    owners=["team:data-platform"],
    description=(
        "Merges small files, expires snapshots that are neither published nor recent, and removes files nothing refers "
        "to. Published snapshots are never touched."
    ),
    pool=WRITER_POOL,
)
def lake_maintenance(
    context: dg.AssetExecutionContext, config: MaintenanceConfig, lake: LakeResource
) -> Iterator[object]:
    """One round of maintenance."""
    done = maintain(lake.lake, keep_days=config.keep_days, orphan_age_hours=config.grace_hours)
    context.log.info(f"{done}")
    yield dg.MaterializeResult(
        metadata={
            "files before": done.files_before,
            "files after": done.files_after,
            "MB before": round(done.bytes_before / 1e6, 1),
            "MB after": round(done.bytes_after / 1e6, 1),
            "snapshots expired": done.snapshots_expired,
            "files removed": done.files_removed,
            "orphans removed": done.orphans_removed,
        }
    )
