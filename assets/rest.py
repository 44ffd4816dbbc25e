"""Landing: one asset per contract that is fetched from an API. What fetching does is the engine's.

A run of it writes landing files and nothing else; the source's landing sensor ingests them like any others, so there is
one way into bronze. With `bronze/<source>` in the same run, both are done in it.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from assets.ingest import one_line
from resources.lake import LakeResource
from resources.partitions import partitions_of, wanted_keys
from sluice.contracts import Contract
from sluice.rest import Fetches, Staleness, fetch, staleness
from sluice.settings import Settings

# A list of partitions in the UI is read by a person; the rest is in `sluice rest status`.
_SHOWN = 20


def landing_key(contract: Contract) -> dg.AssetKey:
    """The key of what is fetched for a source."""
    return dg.AssetKey(["landing", contract.name])


def build_rest_assets(contracts: Sequence[Contract], settings: Settings) -> list[dg.AssetsDefinition]:
    """One asset, with its check, per contract that has `rest`."""
    return [build_rest_asset(contract, settings) for contract in contracts if contract.rest is not None]


def build_rest_asset(contract: Contract, settings: Settings) -> dg.AssetsDefinition:
    """The asset `landing/<source>` and its check."""
    key = landing_key(contract)
    definition = partitions_of(contract, settings)
    assert contract.rest is not None, "only what is fetched has an asset here"

    @dg.asset(
        key=key,
        group_name="landing",
        description=f"{contract.description}\n\nFetched from an API into `{contract.landing.path}`; the landing sensor "
        f"ingests it into `bronze/{contract.name}`.",
        kinds={"rest", "json"},
        owners=list(contract.owners),
        tags={"domain": contract.domain},
        metadata={
            "contract": f"{contract.path.name}, version {contract.version}",
            "landing": contract.landing.path,
            # As the contract has it: variables by name.
            "url": contract.rest.url,
        },
        partitions_def=definition,
        backfill_policy=dg.BackfillPolicy.single_run(),
        freshness_policy=(
            dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=contract.latency_hours))
            if contract.latency_hours
            else None
        ),
        # No output when a partition failed: then only those fetched are marked, one by one.
        output_required=False,
        check_specs=[
            dg.AssetCheckSpec(
                "fresh",
                asset=key,
                # Not blocking: the last good data stay in use, and are told to be stale. Nothing is wrong with them.
                blocking=False,
                description="No fetch failed since its last success, and the last success is not older than the "
                f"contract's latency ({contract.latency_hours or 'none'} h). Old data is not bad data: it stays.",
            )
        ],
    )
    def _fetch(context: dg.AssetExecutionContext, lake: LakeResource) -> Iterator[object]:
        keys = wanted_keys(context.partition_keys, context.run.tags, definition)
        if not keys:
            raise dg.Failure("The range of partitions is empty. Give its first partition first, in the asset's order.")
        done = fetch(lake.settings, contract, keys)
        for line in summary_lines(done):
            context.log.info(line)
        check = check_result(key, staleness(lake.settings, contract))
        if done.good and set(keys) == set(context.partition_keys):
            yield dg.MaterializeResult(key, metadata=fetch_metadata(done), check_results=[check])
            return
        for each in done.fetched:
            metadata = {"rows": each.rows, "changed": each.changed, "requests": each.requests}
            yield dg.AssetMaterialization(key, partition=each.partition_key, metadata=metadata)
        yield check
        if not done.good:
            # What failed has been tried as often as the contract says.
            raise dg.Failure("\n".join(failure_lines(done)), allow_retries=False)

    return _fetch


def check_result(key: dg.AssetKey, found: Staleness) -> dg.AssetCheckResult:
    """Whether a source is fresh; a warning at most."""
    metadata: dict[str, Any] = {
        "state": found.told,
        "circuit breaker": found.breaker,
        "breakers": [f"{b.name}: {b.state}, {b.failures} failures in a row" for b in found.breakers],
    }
    if found.last_good is not None and found.age_hours is not None:
        metadata |= {
            "last good fetch": dg.TimestampMetadataValue(found.last_good.timestamp()),
            "age in hours": round(found.age_hours, 2),
        }
    if found.latency_hours is not None:
        metadata["latency in hours"] = found.latency_hours
    if found.since is not None:
        metadata["stale since"] = dg.TimestampMetadataValue(found.since.timestamp())
    if found.failing:
        rows = [f"| {r.partition_key} | `{one_line(r.error or '')}` |" for r in found.failing[:_SHOWN]]
        metadata["failing"] = dg.MetadataValue.md("\n".join(["| partition | why |", "|---|---|", *rows]))
    return dg.AssetCheckResult(
        asset_key=key,
        check_name="fresh",
        passed=not found.stale,
        severity=dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )


def fetch_metadata(done: Fetches) -> dict[str, Any]:
    """What a run fetched."""
    return {
        "partitions": len(done.fetched),
        "partitions_without_rows": sum(not f.rows for f in done.fetched),
        "partitions_changed": sum(f.changed for f in done.fetched),
        **{name: sum(getattr(f, name) for f in done.fetched) for name in ("rows", "pages", "requests", "bytes")},
        "waited_seconds": round(sum(f.waited for f in done.fetched), 3),
    }


def summary_lines(done: Fetches) -> list[str]:
    """What a run did, for the log."""
    told = fetch_metadata(done)
    return [
        f"{done.source}: {told['partitions']} partitions fetched ({told['partitions_changed']} with something new), "
        f"{told['rows']} rows in {told['requests']} requests",
        *failure_lines(done),
    ]


def failure_lines(done: Fetches) -> list[str]:
    """What could not be fetched, and that what was there stays."""
    lines = [f"{key}: {error}" for key, error in done.failed[:_SHOWN]]
    if len(done.failed) > _SHOWN:
        lines.append(f"and {len(done.failed) - _SHOWN} more partitions failed; `sluice rest status` lists them.")
    if done.untried:
        lines.append(f"{len(done.untried)} more partitions were not tried, from {done.untried[0]}.")
    if lines:
        lines.append("What was fetched before stays as it is.")
    return lines
