"""Partitions of the sources, and the step between Dagster's way of naming a set of them and plain keys.

Pure functions; tested without a run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, time

import dagster as dg

from sluice.contracts import Contract
from sluice.settings import Settings

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"

# Before the name of a dimension: the run's partition in it.
COORDINATE = "dagster/partition/"

# The keys a run is for, as JSON, where they are not all keys of the range it is tagged with.
EXACT_KEYS = "sluice/partitions"


def partitions_of(contract: Contract, settings: Settings) -> dg.PartitionsDefinition:
    """Daily, or daily × the contract's static dimension. Today's partition exists: files arrive during the day."""
    daily = dg.DailyPartitionsDefinition(
        start_date=datetime.combine(settings.start_date, time(), UTC),
        end_date=datetime.combine(settings.end_date, time(), UTC) if settings.end_date else None,
        timezone="UTC",
        end_offset=0 if settings.end_date else 1,
    )
    static = contract.static_dimension
    if static is None:
        return daily
    values = list(contract.landing.partitions[static])
    return dg.MultiPartitionsDefinition({"date": daily, static: dg.StaticPartitionsDefinition(values)})


def run_tags(keys: Iterable[str], definition: dg.PartitionsDefinition) -> dict[str, str]:
    """Tags that make one run materialize exactly these partitions.

    Dagster names a set by a range's two ends; when that range holds more than the set, the keys stand in a tag of ours.
    """
    wanted = set(keys)
    every = definition.get_partition_keys()
    ordered = [k for k in every if k in wanted]
    if len(ordered) != len(wanted):
        raise ValueError(f"no such partitions: {sorted(wanted - set(ordered))[:5]}")
    if len(ordered) == 1:
        return {"dagster/partition": ordered[0]}
    start, end = _corners(ordered, every)
    tags = {RANGE_START: start, RANGE_END: end}
    span = definition.get_partition_keys_in_range(dg.PartitionKeyRange(start, end))
    if set(span) != wanted:
        tags[EXACT_KEYS] = json.dumps(ordered)
    return tags


def _corners(ordered: Sequence[str], every: Sequence[str]) -> tuple[str, str]:
    """The ends of the smallest range that holds the keys: of a two-dimensional key, the corners of the rectangle.

    Args:
        ordered: the keys, in the definition's order.
        every: all keys of the definition, whose order gives that of each dimension.
    """
    if "|" not in ordered[0]:
        return ordered[0], ordered[-1]
    wanted = [set(values) for values in zip(*(key.split("|") for key in ordered), strict=True)]
    axes = [dict.fromkeys(values) for values in zip(*(key.split("|") for key in every), strict=True)]
    held = [[value for value in axis if value in values] for axis, values in zip(axes, wanted, strict=True)]
    return "|".join(values[0] for values in held), "|".join(values[-1] for values in held)


def wanted_keys(
    partition_keys: Sequence[str], tags: Mapping[str, str], definition: dg.PartitionsDefinition
) -> list[str]:
    """The keys a run is for: those of its range, or the exact set its tag names.

    Args:
        partition_keys: what Dagster takes the run to be for.
        tags: of the run.
        definition: of the asset's partitions.
    """
    if EXACT_KEYS in tags:
        return list(json.loads(tags[EXACT_KEYS]))
    if RANGE_START in tags and any(name.startswith(COORDINATE) for name in tags):
        # A backfill of a job notes the coordinates of its first partition beside each run's range. Dagster then takes
        # that partition for all the run is for; the range would never be loaded, and the backfill would look complete.
        return list(definition.get_partition_keys_in_range(dg.PartitionKeyRange(tags[RANGE_START], tags[RANGE_END])))
    return list(partition_keys)
