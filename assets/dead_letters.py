"""Dead letters in the UI: what is open, by reason, with a chart; and the job that takes them again."""

from collections.abc import Collection, Sequence
from typing import Any

import dagster as dg

from assets.charts import bars
from assets.ingest import WRITER_POOL, one_line
from resources.lake import LakeResource
from sluice.contracts import Contract
from sluice.dead_letters import POISON_ATTEMPTS, Choice, Group, check_source, counts, groups, ids_by_source, resolved
from sluice.ingest import ingest
from sluice.replay import replay

KEY = dg.AssetKey(["ops", "dead_letters"])

# A table is read by a person; `sluice dead-letters list` has all.
_SHOWN = 30

# As many bars as can be told apart.
_DRAWN = 12


def build_dead_letters(contracts: Sequence[Contract]) -> dg.AssetsDefinition:
    """The asset `ops/dead_letters`, looked at with every build of the warehouse.

    Args:
        contracts: of the sources.
    """
    personal = frozenset(c.name for c in contracts if c.tells_of_people)

    @dg.asset(
        key=KEY,
        group_name="ops",
        deps=[dg.AssetKey(["bronze", contract.name]) for contract in contracts],
        kinds={"ducklake"},
        owners=["team:data-platform"],
        description=(
            "Rows and files that were set aside, by reason. `sluice dead-letters` shows, mends, replays and discards "
            "them; the job `replay_dead_letters` replays from here."
        ),
    )
    def _dead_letters(lake: LakeResource) -> dg.MaterializeResult[Any]:
        found, by_status = groups(lake.lake, Choice()), counts(lake.lake)
        return dg.MaterializeResult(
            metadata={
                **{name: by_status.get(name, 0) for name in ("open", "replayed", "discarded", "superseded")},
                "by reason": dg.MetadataValue.md(_table(found, personal)),
                "chart": dg.MetadataValue.md(_chart(found)),
            },
        )

    return _dead_letters


# By itself, not one of the asset's outputs: a check that comes with its asset is asked for by name when the automation
# asks for the asset, and Dagster then runs no other check in that run, none of dbt's tests either.
@dg.asset_check(
    asset=KEY,
    # Not blocking: what it tells of is set aside already.
    blocking=False,
    description=f"Nothing has failed {POISON_ATTEMPTS} times. A warning: such letters wait for a person.",
)
def no_poison(lake: LakeResource) -> dg.AssetCheckResult:
    """Warn of letters that replays leave alone."""
    poison = sum(group.poison for group in groups(lake.lake, Choice()))
    return dg.AssetCheckResult(passed=not poison, severity=dg.AssetCheckSeverity.WARN, metadata={"letters": poison})


def _chart(found: Sequence[Group]) -> str:
    title = "Open rows by reason"
    if len(found) > _DRAWN:
        title += f": the {_DRAWN} most frequent of {len(found)}"
    return bars([(f"{g.source}: {g.rule} {g.column}".rstrip(), g.rows) for g in found[:_DRAWN]], title)


def _table(found: Sequence[Group], personal: Collection[str]) -> str:
    rows = [
        f"| {g.source} | {g.rule} | {g.column} | {g.letters} | {g.rows} | {g.poison} | "
        f"{g.first_failed_at:%Y-%m-%d %H:%M} | "
        f"{'not shown: personal' if g.source in personal else f'`{one_line(g.sample)}`'} |"
        for g in found[:_SHOWN]
    ]
    head = [
        "| source | rule | column | letters | rows | poison | since | sample |",
        "|---|---|---|--:|--:|--:|---|---|",
    ]
    return "\n".join([*head, *rows])


class ReplayConfig(dg.Config):
    """Which open letters; all of them when nothing is said."""

    source: str = ""
    partition: str = ""
    rule: str = ""
    column: str = ""
    ids: list[str] = []  # noqa: RUF012  (Dagster copies the default of a config)


def build_replay_job(contracts: Sequence[Contract]) -> dg.JobDefinition:
    """The job `replay_dead_letters`: the engine's replay, told to Dagster partition by partition."""
    by_name = {contract.name: contract for contract in contracts}

    @dg.op(pool=WRITER_POOL)
    def replay_open_letters(context: dg.OpExecutionContext, config: ReplayConfig, lake: LakeResource) -> None:
        check_source(lake.lake, config.source, lambda: by_name)
        wanted = Choice(tuple(config.ids), config.source, config.partition, config.rule, config.column)
        choice = resolved(lake.lake, wanted)
        for source in ids_by_source(lake.lake, choice, {}):
            if source not in by_name:
                context.log.warning(f"{source}: there is no contract of this name (any more); its dead letters stay.")
                continue
            done = replay(lake.lake, by_name[source], choice, run_id=context.run.run_id)
            context.log.info(f"{done}")
            changed = set(done.changed)
            if done.partitions:
                again = ingest(lake.lake, by_name[source], done.partitions, run_id=context.run.run_id, again=True)
                changed |= {b.partition_key for b in again.batches if b.status == "accepted"}
                for refused in again.refused:
                    context.log.warning(f"{source} {refused.partition_key} is refused again: {refused.reason}")
                for each in again.drift:
                    context.log.warning(f"{source}: {each}")
                for problem in again.problems:
                    context.log.warning(f"{problem.file}: {problem.rule}: {problem.detail}")
            # What is downstream follows as after any other load.
            for partition in sorted(changed):
                context.log_event(
                    dg.AssetMaterialization(
                        ["bronze", source], partition=partition, description="dead letters replayed"
                    )
                )

    @dg.job(name="replay_dead_letters", description="Take open dead letters through the ingest path again.")
    def _job() -> None:
        replay_open_letters()

    return _job
