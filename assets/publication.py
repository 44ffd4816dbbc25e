"""Publishing: the last asset. It moves readers to the newest build that passed every gate."""

from collections.abc import Iterator, Sequence

import dagster as dg

from assets.ingest import WRITER_POOL
from resources.lake import LakeResource
from sluice.audits import latest_audit
from sluice.publication import publish

KEY = dg.AssetKey(["published"])


def build_publication(gold: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    """The asset `published`, downstream of all of gold.

    Args:
        gold: keys of every gold model.
    """

    @dg.asset(
        key=KEY,
        group_name="published",
        deps=list(gold),
        kinds={"ducklake"},
        owners=["team:data-platform"],
        description=(
            "What readers see: the snapshot of the newest build of the warehouse that passed every gate, all tables at "
            "one instant. `sluice.connect()` and `duckdb -init published.sql` are pinned to it. A failed gate leaves "
            "it where it was."
        ),
        pool=WRITER_POOL,
    )
    def _published(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[object]:
        publication, moved = publish(lake.lake, run_id=context.run.run_id)
        audit = latest_audit(lake.lake)
        script = lake.settings.home / "published.sql"
        context.log.info(f"Readers {'moved to' if moved else 'stay at'} snapshot {publication.snapshot_id}.")
        if publication.pinned:
            context.log.warning(f"They are held there by {publication.decided_by}: {publication.reason}")
        yield dg.MaterializeResult(
            metadata={
                **publication.facts(),
                "moved": moved,
                "warnings": list(audit.warned) if audit else [],
                "read it": dg.MetadataValue.md(f"`duckdb -init {script}` or, in Python, `sluice.connect()`"),
            }
        )

    return _published
