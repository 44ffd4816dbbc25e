"""Bronze: one asset per contract, from one factory. What ingest does is the engine's; here is how Dagster shows it."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from resources.lake import LakeResource
from resources.partitions import partitions_of, wanted_keys
from sluice.batches import BatchOutcome, IngestResult
from sluice.books import dead_letter_reasons
from sluice.bronze import META_COLUMNS, bronze_columns
from sluice.contracts import Contract
from sluice.ingest import ingest
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
        checks = check_results(contract, key, result, reasons)
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
            yield dg.MaterializeResult(key, metadata=result_metadata(result, reasons), check_results=checks)

    return _ingest


def _description(contract: Contract) -> str:
    lines = [contract.description]
    if contract.granularity:
        lines.append(f"**Grain:** {contract.granularity}")
    lines.append(f"From `{contract.landing.path}/*` ({', '.join(contract.landing.formats)}), plain or gzipped.")
    return "\n\n".join(lines)


def column_schema(contract: Contract) -> dg.TableSchema:
    """The bronze table's columns as the UI shows them."""
    described = {c.name: c for c in contract.columns}
    meta = dict(META_COLUMNS)
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
            description=f"Past {contract.max_rejected_share:.1%} of its rows rejected, a batch is refused whole.",
        ),
        dg.AssetCheckSpec(
            "files_readable",
            asset=key,
            blocking=True,
            description="Every file can be read and has the columns the contract requires.",
        ),
        dg.AssetCheckSpec(
            "no_dead_letters",
            asset=key,
            # Not blocking: the rows told of here are set aside already and nothing downstream can see them.
            blocking=False,
            description="No row was set aside. A warning: those that were are in ops.dead_letters, with reasons.",
        ),
    ]


def check_results(
    contract: Contract, key: dg.AssetKey, result: IngestResult, reasons: list[tuple[str, str, int, str]]
) -> list[dg.AssetCheckResult]:
    """How the batches did against the contract's checks."""
    unbalanced = [b.partition_key for b in result.batches if not b.balanced]
    broken = [p for p in result.problems if p.rule != "empty_file"]
    rejected = result.total("rows_dead_lettered")
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
            passed=not result.refused,
            metadata={
                "refused": [f"{b.partition_key}: {b.rejected_share:.1%} of {b.rows_read} rows" for b in result.refused][
                    :_SHOWN
                ],
                "allowed": contract.max_rejected_share,
            },
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
            passed=rejected == 0,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"rows": rejected, "open by reason": reasons_table(reasons)},
        ),
    ]


def reasons_table(reasons: list[tuple[str, str, int, str]]) -> dg.MarkdownMetadataValue:
    """Dead letters by reason as a table with a sample."""
    rows = [
        f"| {rule} | {column} | {count} | `{one_line(sample)}` |" for rule, column, count, sample in reasons[:_SHOWN]
    ]
    return dg.MetadataValue.md("\n".join(["| rule | column | rows | sample |", "|---|---|---|---|", *rows]))


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


def result_metadata(result: IngestResult, reasons: list[tuple[str, str, int, str]]) -> dict[str, Any]:
    """The books of a run over all its batches."""
    if len(result.batches) == 1:
        return {**batch_metadata(result.batches[0]), "open dead letters": reasons_table(reasons)}
    return {
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
    lines += [
        f"refused: {b.partition_key}, {b.rejected_share:.1%} of {b.rows_read} rows rejected" for b in result.refused
    ]
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
