"""When the warehouse is asked for: on new data, all of it at once, and not again for its own doing."""

import dagster as dg

from sensors.automation import automated

DAYS = dg.StaticPartitionsDefinition(["1", "2", "3"])


@dg.asset(partitions_def=DAYS, key=["bronze", "orders"])
def orders() -> None:
    """A partitioned source."""


@dg.multi_asset(
    name="warehouse",
    specs=[
        dg.AssetSpec("stg", deps=[dg.AssetKey(["bronze", "orders"])]),
        dg.AssetSpec("fct", deps=["stg"]),
    ],
    can_subset=True,
)
def warehouse(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]
    """Stands for the dbt models: one set, built by one process."""
    for key in (dg.AssetKey("stg"), dg.AssetKey("fct")):
        if key in context.selected_asset_keys:
            yield dg.MaterializeResult(key)


@dg.asset(deps=["fct"])
def published() -> None:
    """The last asset."""


DEFINITIONS = dg.Definitions(
    assets=[orders, *(automated(a, [orders.key], published.key) for a in (warehouse, published))]
)
ALL = {dg.AssetKey("stg"), dg.AssetKey("fct"), dg.AssetKey("published")}


class Clockwork:
    """Evaluates the conditions tick by tick, as the daemon does."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.cursor = None

    def tick(self) -> set[dg.AssetKey]:
        result = dg.evaluate_automation_conditions(DEFINITIONS, self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        return {r.key for r in result.results if r.true_subset.size}

    def ingest(self, day: str) -> None:
        dg.materialize([orders], partition_key=day, instance=self.instance)

    def build(self) -> None:
        job = DEFINITIONS.resolve_implicit_global_asset_job_def()
        job.execute_in_process(instance=self.instance, asset_selection=sorted(ALL))


def test_new_data_asks_for_all_of_it_in_one_tick_and_only_once() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        clock = Clockwork(instance)
        assert clock.tick() == set()
        clock.ingest("1")  # the other days need not be there
        assert clock.tick() == ALL
        clock.build()
        assert clock.tick() == set()
        assert clock.tick() == set()
        clock.ingest("1")  # a late file
        assert clock.tick() == ALL


def test_data_that_lands_while_a_build_runs_asks_for_the_next() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        clock = Clockwork(instance)
        clock.tick()
        clock.ingest("1")
        assert clock.tick() == ALL
        clock.ingest("2")  # after the build was asked for, before it ends
        clock.build()
        assert clock.tick() == ALL
        clock.build()
        assert clock.tick() == set()


def test_one_source_of_several_asks_for_the_whole_warehouse_or_nothing() -> None:
    @dg.asset(partitions_def=DAYS, key=["bronze", "products"])
    def products() -> None:
        """A second source."""

    @dg.multi_asset(
        name="models",
        specs=[
            dg.AssetSpec("stg_orders", deps=[orders.key]),
            dg.AssetSpec("stg_products", deps=[products.key]),
            dg.AssetSpec("lines", deps=["stg_orders", "stg_products"]),
            dg.AssetSpec("regions"),  # constants: nothing upstream
        ],
        can_subset=True,
    )
    def models():  # type: ignore[no-untyped-def]
        """Two stagings, what joins them, and a table of constants."""

    whole = set(models.keys)
    definitions = dg.Definitions(
        assets=[orders, products, automated(models, [orders.key, products.key], dg.AssetKey("lines"))]
    )
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = None

        def tick() -> set[dg.AssetKey]:
            nonlocal cursor
            result = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
            cursor = result.cursor
            return {r.key for r in result.results if r.true_subset.size}

        assert tick() == set()
        dg.materialize([products], partition_key="1", instance=instance)
        assert tick() == whole
        assert tick() == set()
        dg.materialize([orders], partition_key="1", instance=instance)
        assert tick() == whole
        # That build fails, so nothing is materialized; the next delivery of one source asks for everything again.
        assert tick() == set()
        dg.materialize([products], partition_key="2", instance=instance)
        assert tick() == whole
