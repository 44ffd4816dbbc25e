"""Jobs and schedules people expect: load one source, build the warehouse, the daily load, weekly maintenance."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg

from resources.partitions import run_tags
from sensors.attempts import SOURCE_TAG, under_way
from sluice.contracts import Contract, FetchSchedule, PullSchedule
from sluice.rest import scheduled_days

if TYPE_CHECKING:
    # What define_asset_job returns; Dagster exports no public name for it.
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def source_job(source: str, key: dg.AssetKey) -> "UnresolvedAssetJobDefinition":
    """A job that ingests partitions of one source; a backfill of it is one run per static partition at most."""
    return dg.define_asset_job(
        f"ingest_{source}", dg.AssetSelection.assets(key), description=f"Ingest partitions of {source} into bronze."
    )


def stream_job(source: str, key: dg.AssetKey) -> "UnresolvedAssetJobDefinition":
    """A job that reads what waits in the topic of one source."""
    return dg.define_asset_job(
        f"stream_{source}", dg.AssetSelection.assets(key), description=f"Read the topic of {source} into bronze."
    )


def capture_job(name: str, key: dg.AssetKey) -> "UnresolvedAssetJobDefinition":
    """A job that captures the changes of one database; with `seconds` in its configuration, for so long."""
    return dg.define_asset_job(
        f"capture_{name}", dg.AssetSelection.assets(key), description=f"Write the changes of {name} into its topics."
    )


def warehouse_job(selection: dg.AssetSelection) -> "UnresolvedAssetJobDefinition":
    """A job that builds silver and gold, tests them and publishes."""
    return dg.define_asset_job(
        "build_warehouse", selection, description="Build silver and gold, run every gate, publish."
    )


def maintenance_job(key: dg.AssetKey) -> "UnresolvedAssetJobDefinition":
    """A job that keeps the lake small."""
    return dg.define_asset_job(
        "maintain_lake",
        dg.AssetSelection.assets(key),
        description="Merge small files, expire and remove what nobody needs.",
    )


def maintenance_schedule(job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """Sundays at 03:00 UTC, when a shop's lake is quiet."""
    return dg.ScheduleDefinition(
        name="weekly_maintenance",
        job=job,
        cron_schedule="0 3 * * 0",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def daily_schedule(job: "UnresolvedAssetJobDefinition", asset: dg.AssetsDefinition) -> dg.ScheduleDefinition:
    """Every morning, yesterday's partitions of one source in one run; the warehouse follows by itself.

    Off by default: the landing sensors load files as they arrive. It is for landing areas that cannot be listed often.
    """
    definition = asset.partitions_def
    assert definition is not None, "ingest assets are partitioned"

    @dg.schedule(
        name=f"daily_{asset.key.path[-1]}",
        job=job,
        cron_schedule="0 6 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Ingests yesterday's partitions. Off by default: the landing sensor does it sooner.",
    )
    def _daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        day = (context.scheduled_execution_time - timedelta(days=1)).date().isoformat()
        keys = [k for k in definition.get_partition_keys() if day in k.split("|")]
        if not keys:
            return dg.SkipReason(
                f"{day} is no partition: it lies before SLUICE_START_DATE or not before SLUICE_END_DATE."
            )
        return dg.RunRequest(run_key=day, tags=run_tags(keys, definition))

    return _daily


def fetch_job(contract: Contract, key: dg.AssetKey) -> "UnresolvedAssetJobDefinition":
    """A job that fetches partitions of one source from its API; the landing sensor ingests them."""
    return dg.define_asset_job(
        f"fetch_{contract.name}",
        dg.AssetSelection.assets(key),
        description=f"Fetch partitions of {contract.name} from its API into the landing area.",
    )


def fetch_schedule(
    contract: Contract, job: "UnresolvedAssetJobDefinition", asset: dg.AssetsDefinition
) -> dg.ScheduleDefinition | None:
    """Fetches the last days of a source as often as its contract says; None where it does not."""
    rest = contract.rest
    if rest is None or rest.schedule is None:
        return None
    schedule, definition = rest.schedule, asset.partitions_def
    assert definition is not None, "landing assets are partitioned"

    def fetch(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        moment = context.scheduled_execution_time
        days = {day.isoformat() for day in scheduled_days(rest, moment.date())}
        keys = [k for k in definition.get_partition_keys() if days & set(k.split("|"))]
        if not keys:
            return dg.SkipReason(
                f"No day of {min(days)} to {max(days)} is a partition (SLUICE_START_DATE, SLUICE_END_DATE)."
            )
        return dg.RunRequest(run_key=moment.isoformat(), tags=run_tags(keys, definition))

    told = f"Fetches the last {schedule.days} days, up to yesterday."
    return _as_often(schedule, f"scheduled_fetch_{contract.name}", job, told, fetch)


def pull_job(contract: Contract, key: dg.AssetKey) -> "UnresolvedAssetJobDefinition":
    """A job that pulls what changed in the database of one source; the landing sensor ingests it."""
    return dg.define_asset_job(
        f"pull_{contract.name}",
        dg.AssetSelection.assets(key),
        description=f"Pull what changed of {contract.name} from its database into the landing area.",
    )


def pull_schedule(
    contract: Contract, job: "UnresolvedAssetJobDefinition", key: dg.AssetKey
) -> dg.ScheduleDefinition | None:
    """Pulls a source as often as its contract says; None where it does not."""
    schedule = contract.pull.schedule if contract.pull else None
    if schedule is None:
        return None
    source = "/".join(key.path)

    def pull(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        # A pull that takes longer than the pause between two has no other waiting behind it: the next asks for all.
        waiting = under_way(context.instance, source)
        if waiting is not None:
            return waiting
        return dg.RunRequest(run_key=context.scheduled_execution_time.isoformat(), tags={SOURCE_TAG: source})

    return _as_often(schedule, f"scheduled_pull_{contract.name}", job, "Pulls what changed since the last pull.", pull)


def _as_often(
    schedule: FetchSchedule | PullSchedule,
    name: str,
    job: "UnresolvedAssetJobDefinition",
    description: str,
    evaluate: Callable[[dg.ScheduleEvaluationContext], dg.RunRequest | dg.SkipReason],
) -> dg.ScheduleDefinition:
    """A contract's schedule; on from the start unless it says `active: false`: who wrote one wants it to run."""
    status = dg.DefaultScheduleStatus.RUNNING if schedule.active else dg.DefaultScheduleStatus.STOPPED
    return dg.schedule(
        name=name,
        job=job,
        cron_schedule=schedule.cron,
        execution_timezone="UTC",
        default_status=status,
        description=description,
    )(evaluate)
