"""Bronze: one asset per contract, from one factory. What ingest does is the engine's; here is how Dagster shows it."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from resources.lake import LakeResource
from resources.partitions import partitions_of, wanted_keys
from sluice.batches import BatchOutcome, IngestResult
from sluice.books import Warned, dead_letter_reasons, warnings
from sluice.bronze import bronze_columns, meta_columns
from sluice.contracts import Contract
from sluice.drift import Drift, drift
from sluice.ingest import ingest
from sluice.records import SCHEMA_RULES
from sluice.settings import Settings

# Writers of the lake share this pool. Its limit is 1 with the SQLite catalog, which takes one writer at a time; see
# docs/operations.md for PostgreSQL.
WRITER_POOL = "lake_writer"

# A problem list in the UI is read by a person; the rest is in ops.dead_letters.
_SHOWN = 20


def build_ingest_assets(contracts: Sequence[Contract], settings: Settings) -> list[dg.AssetsDefinition]:
    """One ingest asset, with its checks, per contract."""
    return [build_ingest_asset(contract, settings) for contract in contracts]


class IngestConfig(dg.Config):
    """Options of a manual run."""

    force: bool = False  # read batches again that are already in the books


def build_ingest_asset(contract: Contract, settings: Settings) -> dg.AssetsDefinition:
    """The asset `bronze/<source>` and its checks, all from the contract."""
    key = dg.AssetKey(["bronze", contract.name])
    definition = partitions_of(contract, settings)

    @dg.asset(
        key=key,
        group_name="bronze",
        description=_description(contract),
        kinds={"duckdb", "ducklake", contract.landing.formats[0]},
        owners=list(contract.owners),
        tags={"domain": contract.domain},
        metadata={
            "dagster/table_name": f"lake.bronze.{contract.name}",
            "dagster/column_schema": column_schema(contract),
            "contract": f"{contract.path.name}, version {contract.version}",
            "landing": contract.landing.path,
        },
        code_version=contract.hash,
        partitions_def=definition,
        deps=[dg.AssetKey(["landing", contract.name])] if contract.rest or contract.pull else None,
        # A year is one run, not 365: the engine takes many batches in one statement. (Beta in Dagster 1.13: the
        # parameter has been there unchanged since 1.4 and nothing else gives single-run backfills.)
        backfill_policy=dg.BackfillPolicy.single_run(),
        freshness_policy=(
            dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=contract.latency_hours))
            if contract.latency_hours
            else None
        ),
        pool=WRITER_POOL,
        # No output when a batch was refused: then only the accepted partitions are marked, one by one.
        output_required=False,
        check_specs=_check_specs(contract, key),
    )
    def _ingest(context: dg.AssetExecutionContext, config: IngestConfig, lake: LakeResource) -> Iterator[object]:
        keys = wanted_keys(context.partition_keys, context.run.tags, definition)
        if not keys:
            # Dagster takes a range whose ends are the wrong way round for an empty one and calls it a success.
            raise dg.Failure("The range of partitions is empty. Give its first partition first, in the asset's order.")
        result = ingest(lake.lake, contract, keys, run_id=context.run.run_id, force=config.force)
        for line in summary_lines(result):
            context.log.info(line)
        reasons = dead_letter_reasons(lake.lake, contract.name)
        if contract.tells_of_people:
            reasons = [(rule, column, rows, "not shown: personal") for rule, column, rows, _ in reasons]
        told = warnings(lake.lake, contract.name, keys)
        known = drift(lake.lake, contract.name)
        checks = check_results(contract, key, result, reasons, told, known)
        refused = {b.partition_key for b in result.refused} | {p.partition_key for p in result.held_back}
        if refused or set(keys) != set(context.partition_keys):
            by_key = {b.partition_key: b for b in result.batches}
            for partition in keys:
                if partition not in refused:
                    batch = by_key.get(partition)
                    yield dg.AssetMaterialization(
                        key, partition=partition, metadata=batch_metadata(batch) if batch else {"files": 0}
                    )
            yield from checks
        else:
            yield dg.MaterializeResult(
                key, metadata=result_metadata(contract, result, reasons, known), check_results=checks
            )

    return _ingest


def _description(contract: Contract) -> str:
    lines = [contract.description]
    if contract.granularity:
        lines.append(f"**Grain:** {contract.granularity}")
    lines.append(f"From `{contract.landing.path}/*` ({', '.join(contract.landing.formats)}), plain or gzipped.")
    return "\n\n".join(lines)


def column_schema(contract: Contract, known: Sequence[Drift] = ()) -> dg.TableSchema:
    """The bronze table's columns as the UI shows them, with those that came in besides the contract's."""
    described = {c.name: c for c in contract.columns}
    meta = dict(meta_columns(contract))
    columns = []
    for name, kind in bronze_columns(contract):
        column = described.get(name)
        tags = {"classification": column.classification} if column and column.classification else None
        columns.append(
            dg.TableColumn(
                name,
                kind,
                description=column.description
                if column
                else ("kept by Sluice" if name in meta else "from the path or envelope"),
                constraints=dg.TableColumnConstraints(
                    nullable=not (column.required if column else name != "_extra"),
                    unique=bool(column and column.unique),
                ),
                tags=tags,
            )
        )
    columns += [
        dg.TableColumn(d.bronze_column, "VARCHAR", description=f"not in the contract; {d.column!r} in the files")
        for d in known
        if d.bronze_column
    ]
    return dg.TableSchema(columns)


def _check_specs(contract: Contract, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            "books_balance",
            asset=key,
            blocking=True,
            description="Rows read = rows accepted + rows dead-lettered + exact duplicates dropped.",
        ),
        dg.AssetCheckSpec(
            "rejected_share",
            asset=key,
            blocking=True,
            description=f"No batch was refused: past {contract.max_rejected_share:.1%} of its rows rejected, "
            "or by a gate or rule of severity fail, nothing of a batch is accepted.",
        ),
        dg.AssetCheckSpec(
            "gates_kept",
            asset=key,
            # Not blocking: what must not go on is refused, and told of by `rejected_share`.
            blocking=False,
            description="No rule or gate of severity warn was broken.",
        ),
        dg.AssetCheckSpec(
            "files_readable",
            asset=key,
            blocking=True,
            description="Every file can be read and has the columns the contract asks for.",
        ),
        dg.AssetCheckSpec(
            "no_dead_letters",
            asset=key,
            # Not blocking: the rows told of here are set aside already and nothing downstream can see them.
            blocking=False,
            description=(
                "No row of the source is set aside, those of refused batches included. A warning that stays until they "
                "are mended or discarded: they are in ops.dead_letters, with reasons."
            ),
        ),
        dg.AssetCheckSpec(
            "schema_drift",
            asset=key,
            # Not blocking: what must not come in refuses its batch, and is told by files_readable.
            blocking=False,
            description=(
                f"Files have the contract's columns and no others (schemaEvolution: {contract.schema_evolution}). "
                "A warning: nothing that came is lost, but somebody should declare it, or ask."
            ),
        ),
    ]


def check_results(
    contract: Contract,
    key: dg.AssetKey,
    result: IngestResult,
    reasons: list[tuple[str, str, int, str]],
    told: list[Warned],
    known: list[Drift],
) -> list[dg.AssetCheckResult]:
    """How the batches did against the contract's checks."""
    unbalanced = [b.partition_key for b in result.batches if not b.balanced]
    broken = [p for p in result.problems if p.rule != "empty_file"]
    rejected = result.total("rows_dead_lettered")
    unfit = {p.partition_key for p in result.problems if p.rule in SCHEMA_RULES}
    too_bad = [b for b in result.refused if b.partition_key not in unfit]
    undeclared = [d for d in known if d.action == "evolved"]
    problems = dg.MetadataValue.md(
        "\n".join(f"- `{p.file}`: {p.rule}. {p.detail}" for p in result.problems[:_SHOWN]) or "none"
    )
    return [
        dg.AssetCheckResult(
            asset_key=key,
            check_name="books_balance",
            passed=not unbalanced,
            metadata={"batches": len(result.batches), "unbalanced": unbalanced[:_SHOWN]},
        ),
        dg.AssetCheckResult(
            asset_key=key,
            check_name="rejected_share",
            passed=not too_bad,
            metadata={
                "refused": [f"{b.partition_key}: {b.reason}" for b in too_bad][:_SHOWN],
                "allowed": contract.max_rejected_share,
            },
        ),
        dg.AssetCheckResult(
            asset_key=key,
            check_name="gates_kept",
            passed=not told,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"told": _told_table(told)},
        ),
        dg.AssetCheckResult(
            asset_key=key,
            check_name="files_readable",
            passed=not result.problems,
            # An empty file takes no row away and holds nobody up.
            severity=dg.AssetCheckSeverity.ERROR if broken else dg.AssetCheckSeverity.WARN,
            metadata={"problems": problems, "files": len(result.problems)},
        ),
        dg.AssetCheckResult(
            asset_key=key,
            check_name="no_dead_letters",
            passed=rejected == 0 and not reasons,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"rows": rejected, "open by reason": reasons_table(reasons)},
        ),
        dg.AssetCheckResult(
            asset_key=key,
            check_name="schema_drift",
            passed=not result.drift and not undeclared,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "in this run": [d.column for d in result.drift][:_SHOWN],
                "not declared": [d.column for d in undeclared][:_SHOWN],
                "columns": drift_table(known),
            },
        ),
    ]


def reasons_table(reasons: list[tuple[str, str, int, str]]) -> dg.MarkdownMetadataValue:
    """Dead letters by reason as a table with a sample."""
    rows = [
        f"| {rule} | {column} | {count} | `{one_line(sample)}` |" for rule, column, count, sample in reasons[:_SHOWN]
    ]
    return dg.MetadataValue.md("\n".join(["| rule | column | rows | sample |", "|---|---|---|---|", *rows]))


def _told_table(told: list[Warned]) -> dg.MarkdownMetadataValue:
    rows = [
        f"| {w.rule} | {w.column} | {w.batches} | {w.rows} | {one_line(w.detail)} | `{one_line(w.sample)}` |"
        for w in told[:_SHOWN]
    ]
    head = ["| rule | column | batches | rows | what | last |", "|---|---|---:|---:|---|---|"]
    return dg.MetadataValue.md("\n".join([*head, *rows]) if rows else "none")


def drift_table(known: list[Drift]) -> dg.MarkdownMetadataValue:
    """Columns by which files differed from the contract, the latest first."""
    rows = [
        f"| `{one_line(d.column)}` | {d.kind} | {d.action} | {d.bronze_column or ''} | {one_line(d.detail)} "
        f"| `{one_line(d.file)}` | {d.first_seen_at:%Y-%m-%d %H:%M} |"
        for d in known[::-1][:_SHOWN]
    ]
    head = ["| column | | done | in bronze | | first file | since |", "|---|---|---|---|---|---|---|"]
    return dg.MetadataValue.md("\n".join([*head, *rows]))


def one_line(text: str) -> str:
    """A text of anybody's making as code in a cell of a table."""
    return text.replace("`", "'").replace("|", "\\|").replace("\n", " ").replace("\r", " ")


def batch_metadata(batch: BatchOutcome) -> dict[str, Any]:
    """The books of one batch."""
    return {
        "rows_read": batch.rows_read,
        "dagster/partition_row_count": batch.rows_accepted,
        "rows_dead_lettered": batch.rows_dead_lettered,
        "rows_duplicate": batch.rows_duplicate,
        "files": batch.files,
        "batch_id": batch.batch_id,
        "unchanged": batch.unchanged,
    }


def result_metadata(
    contract: Contract, result: IngestResult, reasons: list[tuple[str, str, int, str]], known: list[Drift]
) -> dict[str, Any]:
    """The books of a run over all its batches, and the table's columns where it has more than the contract."""
    drifted: dict[str, Any] = {}
    if known:
        drifted = {"schema drift": drift_table(known), "dagster/column_schema": column_schema(contract, known)}
    if len(result.batches) == 1:
        return {**batch_metadata(result.batches[0]), "open dead letters": reasons_table(reasons), **drifted}
    return {
        **drifted,
        "batches": len(result.batches),
        "batches_unchanged": sum(b.unchanged for b in result.batches),
        "partitions_without_files": len(result.empty_partitions),
        **{name: result.total(name) for name in ("rows_read", "rows_accepted", "rows_dead_lettered", "rows_duplicate")},
        "open dead letters": reasons_table(reasons),
    }


def summary_lines(result: IngestResult) -> list[str]:
    """What a run did, for the log."""
    lines = [
        f"{result.source}: {len(result.batches)} batches ({sum(b.unchanged for b in result.batches)} unchanged), "
        f"{result.total('rows_read')} rows read = {result.total('rows_accepted')} accepted + "
        f"{result.total('rows_dead_lettered')} dead-lettered + {result.total('rows_duplicate')} duplicates"
    ]
    lines += [f"refused: {b.partition_key}, {b.reason}" for b in result.refused]
    lines += [f"schema drift: {each}" for each in result.drift[:_SHOWN]]
    lines += [f"{p.file}: {p.rule}. {p.detail}" for p in result.problems[:_SHOWN]]
    erased, emptied = result.total("rows_erased"), result.total("rows_emptied")
    if erased or emptied:
        lines.append(
            f"people who have been erased came again: {erased} rows about them were left out, {emptied} rows were kept "
            "without them. Tell the source; `sluice erase` again clears the landing area (docs/privacy.md)."
        )
    if result.empty_partitions:
        lines.append(f"no files for {len(result.empty_partitions)} partitions, first {result.empty_partitions[0]}")
    return lines
