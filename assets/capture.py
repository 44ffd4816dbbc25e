"""Captures: one asset per captured database. What capturing does is the engine's; here is how Dagster shows it.

The asset writes topics and nothing else; the sensors of those who read the topics (`<source>_lag`) go on from there.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from resources.lake import LakeResource
from sluice.capture import Capture, Captured, Status, backlog, run_apart, status


class CaptureConfig(dg.Config):
    """Options of a manual run."""

    seconds: float = 0.0  # go on capturing for so long; 0: until all is captured that was committed before


def capture_key(capture: Capture) -> dg.AssetKey:
    """The asset of a capture."""
    return dg.AssetKey(["capture", capture.name])


def topic_writers(captures: Mapping[str, Capture]) -> dict[str, dg.AssetKey]:
    """Which asset writes a topic, by topic."""
    return {capture.topic(*table): capture_key(capture) for capture in captures.values() for table in capture.tables}


def build_capture_asset(capture: Capture) -> dg.AssetsDefinition:
    """The asset `capture/<name>` and its checks."""
    key = capture_key(capture)

    @dg.asset(
        key=key,
        group_name="capture",
        description=(
            f"What happens in {_listed(capture)}, from the log of the database into one topic a table: each change "
            "once, in the order of commits. By Debezium, in a process of its own."
        ),
        kinds={"postgres", "debezium"},
        metadata={
            "tables": [f"{schema}.{table}" for schema, table in capture.tables],
            "topics": [capture.topic(*table) for table in capture.tables],
            # The variable's name; what it holds stays in the environment.
            "connection": capture.connection,
            "slot": capture.slot,
            "publication": capture.publication,
        },
        # A slot has one reader: a run by hand waits for the sensor's to end.
        pool=f"capture_{capture.name}",
        # No output where the database is not ready: then only its check tells why.
        output_required=False,
        check_specs=[
            dg.AssetCheckSpec(
                "database_ready",
                asset=key,
                blocking=True,
                description="The slot is the capture's own and holds all since the last run; publication, rights and "
                "replica identities are as they must be.",
            ),
            dg.AssetCheckSpec(
                "captured_to_the_end",
                asset=key,
                blocking=True,
                description="All that was committed when the run began is in the log and confirmed to the database. "
                "A warning where the run was to end after some seconds: the next goes on.",
            ),
        ],
    )
    def _capture(context: dg.AssetExecutionContext, config: CaptureConfig, lake: LakeResource) -> Iterator[object]:
        settings = lake.settings
        before = backlog(settings, capture)
        if before.trouble is not None:
            yield _ready(key, before.trouble)
            raise dg.Failure(before.trouble, allow_retries=False)
        done = run_apart(settings, capture, once=not config.seconds, seconds=config.seconds or None)
        context.log.info(f"{capture.name}: {done.written} events captured, {done.skipped} had been before")
        found = status(settings, capture)
        reached = found.slot is not None and (
            # With nothing to capture the slot may stay behind the end of the log.
            found.slot.confirmed >= before.position or not backlog(settings, capture).waits()
        )
        yield dg.MaterializeResult(
            key,
            metadata=capture_metadata(done, found),
            check_results=[
                _ready(key, found.trouble),
                dg.AssetCheckResult(
                    asset_key=key,
                    check_name="captured_to_the_end",
                    passed=reached,
                    severity=dg.AssetCheckSeverity.WARN if config.seconds else dg.AssetCheckSeverity.ERROR,
                    metadata={
                        "end of the database's log before": before.position,
                        "confirmed": found.slot.confirmed if found.slot else "no slot",
                    },
                ),
            ],
        )

    return _capture


def _ready(key: dg.AssetKey, trouble: str | None) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key,
        check_name="database_ready",
        passed=trouble is None,
        metadata={"trouble": trouble} if trouble else {},
    )


def capture_metadata(done: Captured, found: Status) -> dict[str, Any]:
    """What a run captured, and how far it is."""
    rows = [
        f"| {topic} | {records:,} | {f'{newest:%Y-%m-%d %H:%M:%S}' if newest else ''} "
        f"| {f'{place.commit}/{place.order}' if place else ''} |"
        for topic, records, newest, place in found.topics
    ]
    head = ["| topic | records | last captured (UTC) | at |", "|---|---:|---|---|"]
    return {
        "written": done.written,
        "skipped": done.skipped,
        "stage": found.stage,
        **({} if found.lag_bytes is None else {"lag in bytes": found.lag_bytes}),
        "topics": dg.MetadataValue.md("\n".join([*head, *rows])),
    }


def _listed(capture: Capture) -> str:
    return ", ".join(f"`{schema}.{table}`" for schema, table in capture.tables)
