"""Streams: one asset per contract with a topic. What reading is, is the engine's; here is how Dagster shows it.

The asset shares its bronze table with that of the landing files (`assets.ingest`): a message and a line of a file are
rows alike.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from assets.ingest import column_schema, drift_table, reasons_table
from resources.lake import LakeResource
from sluice.books import books, dead_letter_reasons
from sluice.contracts import Contract
from sluice.drift import drift
from sluice.eventlog import EventLog, open_log
from sluice.settings import Settings
from sluice.stream_positions import Lag, broken_ranges, lag, stream_of
from sluice.streams import StreamResult, read_until

# A run ends after so many transactions of 250,000 messages, so that a backlog is some runs, each of a few minutes.
BATCHES_A_RUN = 20

# While a run goes on, what it has read is told so soon, for the warehouse to be built meanwhile; not sooner, or a
# steady stream would be thousands of events in Dagster's log.
TELL_SECONDS = 15.0


class StreamConfig(dg.Config):
    """Options of a manual run."""

    seconds: float = 0.0  # go on reading for so long: seconds of latency instead of those between runs
    force: bool = False  # set rows aside one by one where the batch would be refused


def build_stream_assets(
    contracts: Sequence[Contract], settings: Settings, writers: Mapping[str, dg.AssetKey] | None = None
) -> list[dg.AssetsDefinition]:
    """One asset, with its checks, per contract with a stream; `writers` are the assets that write topics, by topic."""
    return [
        build_stream_asset(contract, settings, (writers or {}).get(contract.stream.topic))
        for contract in contracts
        if contract.stream
    ]


def stream_key(contract: Contract) -> dg.AssetKey:
    """The asset of a source's topic."""
    return dg.AssetKey(["bronze", f"{contract.name}_stream"])


def build_stream_asset(
    contract: Contract, settings: Settings, writer: dg.AssetKey | None = None
) -> dg.AssetsDefinition:
    """The asset `bronze/<source>_stream` and its checks, all from the contract; `writer` is what writes its topic."""
    stream = stream_of(contract)
    key = stream_key(contract)

    @dg.asset(
        key=key,
        group_name="bronze",
        description=(
            f"{contract.description}\n\nFrom the topic `{stream.topic}` into `bronze.{contract.name}`, each message "
            "exactly once."
        ),
        kinds={"duckdb", "ducklake", "kafka" if settings.uses_kafka else "stream"},
        owners=list(contract.owners),
        tags={"domain": contract.domain},
        metadata={
            "dagster/table_name": f"lake.bronze.{contract.name}",
            "dagster/column_schema": column_schema(contract),
            "contract": f"{contract.path.name}, version {contract.version}",
            "topic": stream.topic,
        },
        code_version=contract.hash,
        deps=[writer] if writer else None,
        freshness_policy=(
            dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=contract.latency_hours))
            if contract.latency_hours
            else None
        ),
        # No writers' pool: a run that reads for an hour would keep every build waiting. Its transactions and a build
        # wait for each other all the same (sluice.writers).
        check_specs=_check_specs(contract, key),
    )
    def _read(context: dg.AssetExecutionContext, config: StreamConfig, lake: LakeResource) -> Iterator[object]:
        total = told = StreamResult(contract.name, ())
        told_at = time.monotonic()

        def tell() -> None:
            # Not only with the next batch: the last one before a pause must not wait for the pause to end.
            nonlocal told, told_at
            if total is not told and time.monotonic() - told_at > TELL_SECONDS:
                context.log_event(dg.AssetMaterialization(key, metadata=counts(total)))
                told, told_at = total, time.monotonic()

        with open_log(lake.settings) as log:
            for result in read_until(
                lake.lake,
                contract,
                log,
                run_id=context.run.run_id,
                force=config.force,
                seconds=config.seconds,
                most_batches=None if config.seconds else BATCHES_A_RUN,
                idle=tell,
            ):
                total = total.with_more(result)
                context.log.info(summary_line(result))
                tell()
            yield _result(lake, contract, log, key, total)

    return _read


def _result(
    lake: LakeResource, contract: Contract, log: EventLog, key: dg.AssetKey, total: StreamResult
) -> dg.MaterializeResult[None]:
    reasons = dead_letter_reasons(lake.lake, contract.name)
    if contract.tells_of_people:
        reasons = [(rule, column, rows, "not shown: personal") for rule, column, rows, _ in reasons]
    known = drift(lake.lake, contract.name)
    with lake.lake.reading() as con:
        waiting = lag(con, contract, log)
        broken = broken_ranges(con, contract)
    metadata: dict[str, Any] = {
        **counts(total),
        "waiting": sum(each.records for each in waiting),
        "positions": lag_table(waiting),
        "watermark (UTC)": str(total.watermark or "none yet"),
        "open dead letters": reasons_table(reasons),
    }
    return dg.MaterializeResult(
        key,
        metadata=metadata,
        check_results=[
            dg.AssetCheckResult(
                asset_key=key,
                check_name="books_balance",
                passed=all(b.balanced for b in books(lake.lake, [contract.name])),
            ),
            dg.AssetCheckResult(
                asset_key=key, check_name="offsets_adjoin", passed=not broken, metadata={"broken": broken[:20]}
            ),
            dg.AssetCheckResult(
                asset_key=key,
                check_name="no_dead_letters",
                passed=not reasons,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"open by reason": reasons_table(reasons)},
            ),
            dg.AssetCheckResult(
                asset_key=key,
                check_name="nothing_late",
                passed=not total.late,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"late": total.late},
            ),
            dg.AssetCheckResult(
                asset_key=key,
                check_name="schema_drift",
                passed=not any(d.action == "evolved" for d in known),
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"columns": drift_table(known)},
            ),
        ],
    )


def _check_specs(contract: Contract, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    stream = stream_of(contract)
    lateness = (
        f"{stream.event_time} more than {stream.allowed_lateness_seconds:g} s behind; what is: {stream.late}"
        if stream.event_time
        else "the contract names no event time, so nothing is"
    )
    return [
        dg.AssetCheckSpec(
            "books_balance",
            asset=key,
            blocking=True,
            description="Messages read = rows accepted + rows dead-lettered + exact duplicates dropped.",
        ),
        dg.AssetCheckSpec(
            "offsets_adjoin",
            asset=key,
            blocking=True,
            description="Each batch begins at the offset at which the one before it ended: none skipped, none twice.",
        ),
        dg.AssetCheckSpec(
            "no_dead_letters",
            asset=key,
            # Not blocking: they are set aside already, and the stream goes on.
            blocking=False,
            description="No row of the source is set aside. They are in ops.dead_letters, with topic and offset.",
        ),
        dg.AssetCheckSpec(
            "nothing_late",
            asset=key,
            # Not blocking: what is late has been dealt with as the contract says.
            blocking=False,
            description=f"No event of this run was late ({lateness}).",
        ),
        dg.AssetCheckSpec(
            "schema_drift",
            asset=key,
            # Not blocking: as of the landing files.
            blocking=False,
            description=f"Messages have the contract's columns and no others ({contract.schema_evolution}).",
        ),
    ]


def counts(result: StreamResult) -> dict[str, int]:
    """The books of what was read."""
    return {
        "batches": len(result.batches),
        **{name: result.total(name) for name in ("rows_read", "rows_accepted", "rows_dead_lettered", "rows_duplicate")},
        "late": result.late,
    }


def lag_table(waiting: Sequence[Lag]) -> dg.MarkdownMetadataValue:
    """Where each partition is read up to, and what waits behind it."""
    rows = [f"| {each.partition} | {each.next_offset:,} | {each.end:,} | {each.records:,} |" for each in waiting]
    return dg.MetadataValue.md(
        "\n".join(["| partition | read up to | end | waiting |", "|---:|---:|---:|---:|", *rows])
    )


def summary_line(result: StreamResult) -> str:
    """What one transaction read, for the log."""
    places = ", ".join(b.partition_key.removeprefix("stream:") for b in result.batches)
    late = f", {result.late} late" if result.late else ""
    return (
        f"{result.source} {places}: {result.total('rows_read')} read = {result.total('rows_accepted')} accepted + "
        f"{result.total('rows_dead_lettered')} dead-lettered + {result.total('rows_duplicate')} duplicates{late}"
    )
