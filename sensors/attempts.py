"""How sensors start runs: one at a time of a source, and what fails again and again is left for a person.

Dagster's instance is asked which runs there are; nothing is remembered here, so that no restart matters. What is to be
run, and when, is for each sensor to say.
"""

from collections.abc import Callable, Mapping, Sequence

import dagster as dg
from dagster import DagsterRunStatus

# What fails as often is left for a person: more tries would fail the same way.
ATTEMPTS = 3

SOURCE_TAG = "sluice/source"
DELIVERY_TAG = "sluice/delivery"

UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]

FAILED = [DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]


def under_way(instance: dg.DagsterInstance, source: str) -> dg.SkipReason | None:
    """That a run of a source is under way, as a reason to wait; None if none is."""
    runs = instance.get_runs(dg.RunsFilter(tags={SOURCE_TAG: source}, statuses=UNFINISHED), limit=1)
    if not runs:
        return None
    return dg.SkipReason(f"Run {runs[0].run_id} of {source} is under way; what it leaves is looked at after it.")


def attempt(
    instance: dg.DagsterInstance,
    source: str,
    delivery: str,
    selection: Sequence[dg.AssetKey],
    given_up: Callable[[int], str],
    *,
    tags: Mapping[str, str] | None = None,
    attempts: int = ATTEMPTS,
) -> dg.SensorResult | dg.SkipReason:
    """A run of a delivery, unless one of its source is under way or those before it failed too often.

    Args:
        instance: which runs there are.
        source: whose runs come one at a time.
        delivery: what is to be done, by whatever would have to change for another try to end otherwise.
        selection: the assets to materialize.
        given_up: what to tell a person after so many failures.
        tags: of the run, besides those of source and delivery.
        attempts: how many may fail.
    """
    waiting = under_way(instance, source)
    if waiting is not None:
        return waiting
    tag = {DELIVERY_TAG: delivery}
    failed = instance.get_runs_count(dg.RunsFilter(tags=tag, statuses=FAILED))
    if failed >= attempts:
        return dg.SkipReason(given_up(failed))
    return dg.SensorResult(
        [
            dg.RunRequest(
                # What comes back after something else was done is a run of its own.
                run_key=f"{delivery}:{instance.get_runs_count(dg.RunsFilter(tags=tag))}",
                asset_selection=list(selection),
                tags={**(tags or {}), SOURCE_TAG: source, **tag},
            )
        ]
    )
