"""Landing: one asset per contract that is pulled from a database. What pulling does is the engine's.

As of an API (`assets.rest`), a run writes landing files and nothing else, and the source's landing sensor ingests them.
It has no partitions: a pull asks for what changed since the last, and its file is of the day on which it was made.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from assets.rest import landing_key
from resources.lake import LakeResource
from sluice.contracts import Contract
from sluice.pull import Pulled, pull


class PullConfig(dg.Config):
    """Options of a manual run."""

    since: str = ""  # go on from this value of the cursor, or "beginning", instead of the mark


def build_pull_assets(contracts: Sequence[Contract]) -> list[dg.AssetsDefinition]:
    """One asset per contract that has `pull`."""
    return [build_pull_asset(contract) for contract in contracts if contract.pull is not None]


def build_pull_asset(contract: Contract) -> dg.AssetsDefinition:
    """The asset `landing/<source>`."""
    given = contract.pull
    assert given is not None, "only what is pulled has an asset here"

    @dg.asset(
        key=landing_key(contract),
        group_name="landing",
        description=f"{contract.description}\n\nWhat changed in a database since the last pull, into "
        f"`{contract.landing.path}`; the landing sensor ingests it into `bronze/{contract.name}`.",
        kinds={"postgres", "jsonl" if "jsonl" in contract.landing.formats else "parquet"},
        owners=list(contract.owners),
        tags={"domain": contract.domain},
        metadata={
            "contract": f"{contract.path.name}, version {contract.version}",
            "landing": contract.landing.path,
            # The variable's name; what it holds stays in the environment.
            "connection": given.connection,
            "pulled": given.table or given.query,
            "cursor": f"{given.cursor}, overlap {given.overlap}",
        },
        # One at a time, as a pull insists on: a run by hand waits for the schedule's.
        pool=f"pull_{contract.name}",
        freshness_policy=(
            dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=contract.latency_hours))
            if contract.latency_hours
            else None
        ),
    )
    def _pull(context: dg.AssetExecutionContext, config: PullConfig, lake: LakeResource) -> dg.MaterializeResult[None]:
        done = pull(lake.lake, contract, config.since or None)
        for warning in done.warnings:
            context.log.warning(warning)
        context.log.info(f"{contract.name}: {done.rows} rows, {f'in {done.file}' if done.file else 'nothing new'}")
        return dg.MaterializeResult(metadata=pull_metadata(done))

    return _pull


def pull_metadata(done: Pulled) -> dict[str, Any]:
    """What a run pulled."""
    told = {"rows": done.rows, "file": done.file or "nothing new", "mark": done.mark or "none yet"}
    return told | ({"warnings": "\n".join(done.warnings)} if done.warnings else {})
