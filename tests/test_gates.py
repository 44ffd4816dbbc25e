"""Nothing bad is seen: a gate that fails stops the build, and readers stay where they were until it passes again.

One small shop is loaded and built once through the real definitions; the tests walk through its life in order.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

import sluice
from definitions import build_definitions
from resources.dbt import DBT_PROJECT, dbt_environment
from resources.partitions import run_tags
from sluice.audits import latest_audit
from sluice.errors import PublicationError
from sluice.lake import Lake
from sluice.publication import current_publication
from sluice.settings import Settings, load_settings
from sluice.simulation import Truth, generate

_TRACE = "dagster/column_lineage"
SOURCES = ("orders", "products", "customers", "events")


class Shop:
    """A shop's landing area, the definitions over it, and an instance."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.truth: Truth = generate(folder / "home/landing", days=3, scale=0.1)
        self.settings: Settings = load_settings(
            home=str(folder / "home"), start_date=date(2026, 1, 1), end_date=date(2026, 1, 4)
        )
        self.instance = instance
        self.definitions = build_definitions(self.settings)
        self.lake = Lake(self.settings)

    def run(self, job: str, only: dg.AssetKey | None = None, **tags: str) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance, tags=tags, raise_on_error=False, asset_selection=[only] if only else None
        )

    def ingest(self) -> None:
        for source in SOURCES:
            definition = self.definitions.resolve_assets_def(dg.AssetKey(["bronze", source])).partitions_def
            assert definition is not None
            assert self.run(f"ingest_{source}", **run_tags(definition.get_partition_keys(), definition)).success

    def ingest_orders(self, partitions: list[str]) -> dg.ExecuteInProcessResult:
        definition = self.definitions.resolve_assets_def(dg.AssetKey(["bronze", "orders"])).partitions_def
        assert definition is not None
        return self.run("ingest_orders", **run_tags(partitions, definition))


@pytest.fixture(scope="module")
def shop(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("gates")
    names = {"SLUICE_HOME": str(folder / "home"), "SLUICE_START_DATE": "2026-01-01", "SLUICE_END_DATE": "2026-01-04"}
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        for name, value in names.items():
            patch.setenv(name, value)
        for name in [n for n in os.environ if n.startswith("SLUICE_DBT_")]:
            patch.delenv(name)
        made = Shop(folder, instance)
        made.ingest()
        yield made


def failed_checks(result: dg.ExecuteInProcessResult) -> list[str]:
    return sorted(
        f"{c.asset_key.to_user_string()}:{c.check_name}"
        for c in result.get_asset_check_evaluations()
        if not c.passed and c.severity == dg.AssetCheckSeverity.ERROR
    )


def order_lines(settings: Settings) -> int:
    with sluice.connect(settings) as con:
        return int(con.execute("SELECT count(*) FROM fct_order_lines").fetchall()[0][0])


def test_before_the_first_build_there_is_nothing_to_read(shop: Shop) -> None:
    with pytest.raises(PublicationError, match="Nothing has been published yet"):
        sluice.connect(shop.settings)


def test_a_build_that_passes_is_published_with_what_people_want_to_see(shop: Shop) -> None:
    result = shop.run("build_warehouse")
    assert result.success
    assert failed_checks(result) == []
    assert order_lines(shop.settings) == shop.truth.facts["order_lines"]
    audit = latest_audit(shop.lake)
    assert audit is not None
    assert audit.passed
    # Every dbt data test is counted.
    assert audit.checks_passed > 80
    metadata = {e.asset_key.path[-1]: e.materialization.metadata for e in result.get_asset_materialization_events()}
    assert metadata["fct_order_lines"]["dagster/row_count"].value == shop.truth.facts["order_lines"]
    lineage = metadata["mart_daily_sales"]["dagster/column_lineage"].value.deps_by_column
    assert [(d.asset_key.path[-1], d.column_name) for d in lineage["net_amount"]] == [
        ("fct_order_lines", "line_amount")
    ]
    # Every model but the one of literal rows is traced, and its natural keys come from somewhere.
    traced = {n: m["dagster/column_lineage"].value.deps_by_column for n, m in metadata.items() if _TRACE in m}
    assert set(metadata) - set(traced) == {"dim_region", "dead_letters", "published"}
    keys = {(name, c) for name, deps in traced.items() for c in ("stock_code", "customer_id") if c in deps}
    assert len(keys) > 10
    assert [(name, c) for name, c in keys if not traced[name][c]] == []
    for drawn in ("mart_daily_sales", "dead_letters"):
        assert "data:image/png;base64" in str(metadata[drawn]["chart"].value)
    assert "@example.com" not in str(metadata["dim_customer"]["preview"].value)


def test_dbt_tests_are_blocking_checks(shop: Shop) -> None:
    graph = shop.definitions.resolve_asset_graph()
    keys = [k for k in graph.asset_check_keys if k.asset_key.path[0] in ("silver", "gold")]
    assert len(keys) > 40
    # A check that an automated asset brings along would be asked for by name, and keep all others out of the run.
    automated = [k for k in graph.get_all_asset_keys() if graph.get(k).automation_condition]
    assert len(automated) > 10
    assert {
        e for k in automated for e in graph.get(k).execution_set_entity_keys if isinstance(e, dg.AssetCheckKey)
    } == set()
    # All but those of severity warn.
    assert [k.name for k in keys if not graph.get_check_spec(k).blocking] == ["order_lines_near_list_price"]


def test_a_failed_gate_leaves_readers_where_they_were(shop: Shop) -> None:
    before = current_publication(shop.lake)
    # A row vanishes from bronze behind everyone's back: the books no longer balance.
    shop.lake.write(
        lambda con: con.execute(
            "DELETE FROM bronze.orders WHERE (_file, _line) IN (SELECT (_file, _line) FROM bronze.orders LIMIT 1)"
        ),
        "sabotage",
    )
    # And a model is gone that had made a table.
    shop.lake.write(lambda con: con.execute("CREATE TABLE gold.fct_of_old AS SELECT 1 AS id"), "a model of old")
    result = shop.run("build_warehouse")
    assert not result.success
    assert [e.step_key for e in result.all_events if e.is_step_failure] == ["warehouse"]
    assert "published" not in [e.step_key for e in result.all_events if e.is_step_start]
    message = next(e for e in result.all_events if e.is_step_failure).event_specific_data.error.message
    assert "books_balance" in message
    assert "every_table_has_its_model" in message
    assert "readers stay where they were" in message
    assert current_publication(shop.lake) == before
    assert order_lines(shop.settings) == shop.truth.facts["order_lines"]


def test_publishing_by_hand_does_not_get_around_the_gate(shop: Shop) -> None:
    before = current_publication(shop.lake)
    result = shop.run("build_warehouse", dg.AssetKey("published"))
    assert not result.success
    message = str(next(e for e in result.all_events if e.is_step_failure).event_specific_data.error)
    assert "failed" in message
    assert "Readers stay at snapshot" in message
    assert current_publication(shop.lake) == before


def test_a_part_of_the_warehouse_is_audited_whole(shop: Shop) -> None:
    result = shop.run("build_warehouse", dg.AssetKey(["gold", "dim_region"]))
    # dim_region itself is fine, but the warehouse is not.
    assert not result.success
    audit = latest_audit(shop.lake)
    assert audit is not None
    assert any("books_balance" in name for name in audit.failed)


def test_repaired_it_passes_and_readers_move(shop: Shop) -> None:
    before = current_publication(shop.lake)
    assert before is not None
    definition = shop.definitions.resolve_assets_def(dg.AssetKey(["bronze", "orders"])).partitions_def
    assert definition is not None
    repaired = shop.definitions.resolve_job_def("ingest_orders").execute_in_process(
        instance=shop.instance,
        tags=run_tags(definition.get_partition_keys(), definition),
        run_config={"ops": {"bronze__orders": {"config": {"force": True}}}},
    )
    assert repaired.success
    subprocess.run(
        [
            Path(sys.executable).with_name("dbt"),
            "run-operation",
            "drop_tables_without_model",
            "--args",
            "{tables: [gold.fct_of_old]}",
        ],
        cwd=DBT_PROJECT,
        env={**os.environ, **dbt_environment(shop.settings)},
        check=True,
    )
    with shop.lake.reading() as con:
        assert con.execute("FROM duckdb_tables() WHERE table_name = 'fct_of_old'").fetchall() == []
    assert shop.run("build_warehouse").success
    after = current_publication(shop.lake)
    assert after is not None
    assert after.snapshot_id > before.snapshot_id
    assert order_lines(shop.settings) == shop.truth.facts["order_lines"]


HEADER = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country"


class Refused:
    """A till's file in which no price can be read: its batch is refused, and so is what it would have changed."""

    PARTITION, ROWS = "2026-01-02|eu", 400

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.path = shop.settings.landing_path / "orders/region=eu/date=2026-01-02/orders-second-till.csv"

    def deliver(self, price: str) -> dg.ExecuteInProcessResult:
        lines = [f"{600000 + n},85048,CUP,1,2026-01-02 12:00:00,{price},,France" for n in range(self.ROWS)]
        self.path.write_text("\n".join([HEADER, *lines]) + "\n")
        return self.shop.ingest_orders([self.PARTITION])

    def letters(self) -> list[tuple[str, str, int]]:
        with self.shop.lake.reading() as con:
            return con.execute(
                "SELECT status, error_class, sum(rows)::INTEGER FROM ops.dead_letters "
                "WHERE file LIKE '%orders-second-till.csv' GROUP BY ALL ORDER BY ALL"
            ).fetchall()


def test_a_refused_batch_waits_beside_the_road(shop: Shop) -> None:
    refused = Refused(shop)
    assert failed_checks(refused.deliver("abc")) == ["bronze/orders:rejected_share"]
    # What stood in the partition stands, and all of the file waits with its reasons.
    assert refused.letters() == [("open", "data", refused.ROWS)]


def test_a_test_that_warns_is_told_of_and_holds_nobody_up(shop: Shop) -> None:
    """`order_lines_near_list_price`: a price with its comma in the wrong place; the row is the contract's to refuse."""
    with sluice.connect(shop.settings) as con:
        (code,) = con.execute("SELECT any_value(stock_code) FROM fct_order_lines WHERE list_price > 0").fetchall()[0]
    late = shop.settings.landing_path / "orders/region=uk/date=2026-01-03/orders-typo.csv"
    late.write_text(f"{HEADER}\n599999,{code},TYPO,1,2026-01-03 20:00:00,99999.00,,United Kingdom\n")
    assert failed_checks(shop.ingest_orders(["2026-01-03|uk"])) == []
    result = shop.run("build_warehouse")
    assert result.success
    warned = [
        c.check_name
        for c in result.get_asset_check_evaluations()
        if not c.passed and c.severity == dg.AssetCheckSeverity.WARN and "list_price" in c.check_name
    ]
    assert warned == ["order_lines_near_list_price"]
    audit = latest_audit(shop.lake)
    assert audit is not None
    assert audit.passed and audit.warned == ("order_lines_near_list_price",)
    published = next(e for e in result.get_asset_materialization_events() if e.asset_key.path == ["published"])
    assert published.materialization.metadata["warnings"].value == ["order_lines_near_list_price"]
    # That row, and none of the batch that was refused.
    assert order_lines(shop.settings) == shop.truth.facts["order_lines"] + 1


def test_a_refused_batch_rejoins_when_it_is_repaired(shop: Shop) -> None:
    """Nobody edits any state: the file is mended where it lies, and loaded as everything is."""
    refused, before = Refused(shop), order_lines(shop.settings)
    assert failed_checks(refused.deliver("1.50")) == []
    assert shop.run("build_warehouse").success
    assert order_lines(shop.settings) == before + refused.ROWS
    assert refused.letters() == [("superseded", "data", refused.ROWS)]
