"""Silver and gold: the dbt project as assets, its tests as blocking checks, and the audit of each build.

SQL belongs to `dbt_project`; what a published snapshot is, to `sluice.publication`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
from dagster_dbt import (
    DagsterDbtTranslator,
    DagsterDbtTranslatorSettings,
    DbtCliInvocation,
    DbtCliResource,
    DbtProject,
    dbt_assets,
)

from assets.charts import preview_metadata
from assets.ingest import WRITER_POOL
from resources.dbt import dbt_environment, project_fingerprint
from resources.lake import LakeResource
from sluice.audits import record_audit
from sluice.bronze import create_bronze_tables
from sluice.contracts import Contract
from sluice.lake import LAKE
from sluice.lake_errors import explain
from sluice.lineage import cached_lineage
from sluice.writers import alone

OWNER = "team:data-platform"

# They say the same of the same code whatever the data: `make test` runs them. A tenth of a build's time.
WITHOUT_UNIT_TESTS = ("--exclude-resource-type", "unit_test")

# What a person reads in a panel of the UI; a year of days is in the table.
REWRITES_SHOWN = 60


class SluiceTranslator(DagsterDbtTranslator):
    """dbt models as Sluice shows them: grouped by layer, and owned."""

    def __init__(self, streams: Mapping[str, dg.AssetKey]) -> None:
        """Of sources with a topic, the assets that read it: their rows are in the same tables."""
        self._streams = streams
        # Source tests stay observations: as checks of bronze assets they would drag dbt into every ingest run. dbt runs
        # them first in each build and builds nothing on a source that fails one.
        super().__init__(DagsterDbtTranslatorSettings(enable_source_tests_as_checks=False))

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        """`silver/stg_orders`, `gold/fct_order_lines`; a source's key is the ingest asset's."""
        if dbt_resource_props["resource_type"] == "source":
            return super().get_asset_key(dbt_resource_props)
        return dg.AssetKey([dbt_resource_props["schema"], dbt_resource_props["name"]])

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        """Adds group, kinds and owner to what dagster-dbt makes of a model."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        props = self.get_resource_props(manifest, unique_id)
        if props["resource_type"] != "model":
            return spec
        sources = [parent.rsplit(".", 1)[-1] for parent in props["depends_on"]["nodes"] if parent.startswith("source.")]
        streams = [self._streams[name] for name in sources if name in self._streams]
        return spec.merge_attributes(deps=streams).replace_attributes(
            group_name=layer(props), kinds={"dbt", "duckdb", "ducklake"}, owners=[OWNER]
        )


def layer(props: Mapping[str, Any]) -> str:
    """The UI group of a model: silver, or the kind of gold its folder says (dimensions, facts, marts)."""
    folder = props["fqn"][1]
    return "silver" if folder == "staging" else f"gold_{folder}"


def build_warehouse(
    project: DbtProject, contracts: Sequence[Contract], streams: Mapping[str, dg.AssetKey] | None = None
) -> dg.AssetsDefinition:
    """All models of the dbt project as one asset set, built and tested by one dbt process.

    Args:
        project: prepared, with a manifest.
        contracts: of the sources the models read.
        streams: the assets that read topics, by source.
    """
    # Whoever sees the UI is not thereby allowed to see people.
    personal = frozenset(c.name for contract in contracts for c in contract.columns if c.personal or c.subject)

    @dbt_assets(
        manifest=project.manifest_path,
        project=project,
        dagster_dbt_translator=SluiceTranslator(streams or {}),
        name="warehouse",
        pool=WRITER_POOL,
    )
    def _warehouse(context: dg.AssetExecutionContext, dbt: DbtCliResource, lake: LakeResource) -> Iterator[object]:
        # dbt reads the lake's whereabouts from its environment, which it takes over from this process.
        os.environ.update(dbt_environment(lake.settings))
        # A source that has never delivered is an empty table, not a missing one.
        create_bronze_tables(lake.lake, contracts)
        # Who else writes meanwhile would make a commit of dbt's fail, and with it the build; and what came after the
        # tests would be taken for tested.
        with alone(lake.settings):
            invocation = dbt.cli(["build", *WITHOUT_UNIT_TESTS], context=context, raise_on_error=False)
            with lake.lake.reading() as con:
                describe = _Describer(con, project.project_dir / project.target_path / "lineage", invocation, personal)
                for event in invocation.stream():
                    yield (
                        event.with_metadata({**event.metadata, **describe(event)})
                        if isinstance(event, dg.Output)
                        else event
                    )
            results = _results(invocation)
            if not has_every_test(results, invocation.manifest):
                # Readers see all tables at one instant, so what may be published is always tested whole, whichever
                # assets and checks this run was asked for.
                context.log.info("Not every test was asked for: testing the whole warehouse.")
                invocation = dbt.cli(
                    ["test", *WITHOUT_UNIT_TESTS], manifest=project.manifest_path, raise_on_error=False
                ).wait()
                results = account_of_part(results, _results(invocation))
            failed = failures(results)
            warned = [r["unique_id"].split(".")[2] for r in results if r["status"] == "warn"]
            audit = record_audit(
                lake.lake,
                run_id=context.run.run_id,
                checks_passed=sum(r["status"] == "pass" for r in results),
                failed=[name for name, _ in failed],
                warned=warned,
                code=project_fingerprint(lake.settings, Path(project.project_dir)),
            )
        context.log.info(f"Snapshot {audit.snapshot_id}: {audit.checks_passed} checks passed, {len(failed)} failed.")
        if warned:
            context.log.warning(f"{len(warned)} checks that only warn failed: {', '.join(warned)}.")
        if failed:
            # A full disk or a lost file is told with what to do about it.
            told = "\n".join(
                f"- {name}: {explain(duckdb.Error(message), lake.settings) or message}" for name, message in failed
            )
            raise dg.Failure(
                f"{len(failed)} of the warehouse's models or checks failed; readers stay where they were.\n{told}",
                metadata={"failed": dg.MetadataValue.md(told)},
                # Data does not get better by running again.
                allow_retries=False,
            )

    return _warehouse


def _results(invocation: DbtCliInvocation) -> list[dict[str, Any]]:
    """Dbt's results; where dbt ended before it wrote any, its own error is raised."""
    try:
        artifact = invocation.get_artifact("run_results.json")
    except FileNotFoundError:
        raise invocation.get_error() or dg.Failure("dbt ended without results. See its log above.") from None
    results: list[dict[str, Any]] = artifact["results"]
    return results


def has_every_test(results: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]) -> bool:
    """Whether dbt's results tell of every data test of the project, be it that it was skipped."""
    tests = {key for key, node in manifest["nodes"].items() if node["resource_type"] == "test"}
    return tests <= {result["unique_id"] for result in results}


def account_of_part(built: Sequence[dict[str, Any]], tested: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results for a build of a part and the test of the whole after it.

    What the build could not make stays in the account: its former table may well pass the tests.
    """
    return [*(r for r in built if r["unique_id"].startswith("model.")), *tested]


def failures(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Name and message of everything in dbt's results that did not go well, skipped models left out."""
    return [
        (r["unique_id"].split(".")[2], (r.get("message") or r["status"]).strip())
        for r in results
        if r["status"] in ("error", "fail", "runtime error")
    ]


class _Describer:
    """Metadata of a model that has just been built: row count, column lineage, preview or chart."""

    def __init__(
        self, con: duckdb.DuckDBPyConnection, cache: Path, invocation: DbtCliInvocation, personal: frozenset[str]
    ) -> None:
        self._con, self._cache, self._invocation, self._personal = con, cache, invocation, personal
        self._nodes = {
            f"{n['schema']}.{n['name']}": n
            for n in invocation.manifest["nodes"].values()
            if n["resource_type"] == "model"
        }
        self._tables = {node["unique_id"]: table for table, node in self._nodes.items()}
        self._sources = {f"{s['schema']}.{s['name']}" for s in invocation.manifest["sources"].values()}

    def __call__(self, event: dg.Output[Any]) -> dict[str, Any]:
        table = self._tables[str(event.metadata["unique_id"].value)]
        return {
            "dagster/table_name": f"{LAKE}.{table}",
            **preview_metadata(self._con, table, self._personal),
            **self._rewritten(table, event),
            **self._lineage(table),
        }

    def _rewritten(self, table: str, event: dg.Output[Any]) -> dict[str, Any]:
        """Which dates this build rewrote, and why, as the `healed` materialization noted it."""
        if self._nodes[table]["config"]["materialized"] != "healed":
            return {}
        rows = self._con.execute(
            "SELECT coalesce(slice, 'all'), reason, rows_removed, rows_added FROM ops.rewrites "
            "WHERE relation = ? AND invocation_id = ? ORDER BY slice",
            [table, str(event.metadata["invocation_id"].value)],
        ).fetchall()
        lines = [f"| {slice_} | {reason} | {removed:,} | {added:,} |" for slice_, reason, removed, added in rows]
        more = [f"| … | and {len(lines) - REWRITES_SHOWN:,} more in ops.rewrites | | |"]
        shown = lines if len(lines) <= REWRITES_SHOWN else lines[:REWRITES_SHOWN] + more
        head = ["| rewritten | because of | rows removed | rows added |", "|---|---|---:|---:|"]
        return {"rewritten": dg.MetadataValue.md("\n".join([*head, *shown]) if rows else "nothing")}

    def _lineage(self, table: str) -> dict[str, Any]:
        compiled = self._invocation.target_path / "compiled" / "sluice" / self._nodes[table]["original_file_path"]
        if not compiled.exists():
            return {}
        tables: dict[str, dict[str, str]] = {}
        for name, column, kind in self._con.execute(
            "SELECT schema_name || '.' || table_name, column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = ? ORDER BY ALL",
            [LAKE],
        ).fetchall():
            tables.setdefault(name, {})[column] = kind
        parents = {n.rsplit(".", 1)[-1] for n in self._nodes[table]["depends_on"]["nodes"]}
        traced = cached_lineage(
            compiled.read_text(), {n: c for n, c in tables.items() if n.split(".")[1] in parents}, self._cache
        )
        if not traced:
            return {}
        lineage = {
            column: [
                dg.TableColumnDep(dg.AssetKey(source.split(".")), source_column)
                for source, source_column in sources
                if source in self._nodes or source in self._sources
            ]
            for column, sources in traced.items()
        }
        return {"dagster/column_lineage": dg.TableColumnLineage(lineage)}
