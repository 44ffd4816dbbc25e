"""The ingest asset as Dagster sees it: which checks pass and fail, which partitions are marked, what is reported."""

from pathlib import Path

import dagster as dg
import pytest

from assets.ingest import build_ingest_asset
from resources.lake import LakeResource
from resources.partitions import RANGE_END, RANGE_START, run_tags
from sluice.contracts import load_contracts
from sluice.dead_letters import Choice, discard
from sluice.lake import Lake
from sluice.settings import PROJECT, Settings
from tests.shop import order_line, settings_in, write_orders

CONTRACT = load_contracts(PROJECT / "contracts")["orders"]
KEY = dg.AssetKey(["bronze", "orders"])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_in(tmp_path)


def materialize(
    settings: Settings, keys: list[str], instance: dg.DagsterInstance | None = None, downstream: bool = False
) -> dg.ExecuteInProcessResult:
    """Materialize partitions of orders, with something downstream if wanted."""
    asset = build_ingest_asset(CONTRACT, settings)
    assert asset.partitions_def is not None

    @dg.asset(deps=[KEY])
    def after() -> None:
        return None

    return dg.materialize(
        [asset, after] if downstream else [asset],
        tags=run_tags(keys, asset.partitions_def),
        resources={"lake": LakeResource(home=str(settings.home))},
        instance=instance,
        raise_on_error=False,
    )


@pytest.fixture(autouse=True)
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resource reads its settings from the environment, as in a run."""
    monkeypatch.setenv("SLUICE_START_DATE", str(settings.start_date))
    monkeypatch.setenv("SLUICE_END_DATE", str(settings.end_date))


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {c.check_name: c.passed for c in result.get_asset_check_evaluations()}


def rows(settings: Settings) -> int:
    with Lake(settings).reading() as con:
        return int(con.execute("SELECT count(*) FROM bronze.orders").fetchall()[0][0])


def test_good_files_pass_every_check_and_report_their_books(settings: Settings) -> None:
    write_orders(settings, "2026-01-02", "uk", [order_line(n) for n in range(40)])
    result = materialize(settings, ["2026-01-02|uk"], downstream=True)
    assert result.success
    assert checks(result) == {
        "books_balance": True, "rejected_share": True, "files_readable": True, "no_dead_letters": True,
        "gates_kept": True,
        "schema_drift": True,
    }  # fmt: skip
    metadata = result.asset_materializations_for_node("bronze__orders")[0].metadata
    assert metadata["rows_read"].value == 40
    assert metadata["dagster/partition_row_count"].value == 40
    assert rows(settings) == 40


def test_a_bad_line_is_set_aside_and_warned_of_and_stops_nobody(settings: Settings) -> None:
    lines = [order_line(n) for n in range(40)] + [order_line(99, quantity="three")]
    write_orders(settings, "2026-01-02", "uk", lines)
    result = materialize(settings, ["2026-01-02|uk"], downstream=True)
    assert result.success
    assert not checks(result)["no_dead_letters"]
    assert checks(result)["rejected_share"]
    assert [e.step_key for e in result.all_events if e.is_step_success] == ["bronze__orders", "after"]
    assert rows(settings) == 40


def test_past_the_threshold_the_batch_is_refused_and_nothing_downstream_runs(settings: Settings) -> None:
    lines = [order_line(n) for n in range(10)] + [order_line(50 + n, quantity="three") for n in range(5)]
    write_orders(settings, "2026-01-02", "uk", lines)
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(settings, ["2026-01-02|uk"], instance, downstream=True)
        assert not result.success
        assert not checks(result)["rejected_share"]
        assert instance.get_materialized_partitions(KEY) == set()
    assert [e.step_key for e in result.all_events if e.is_step_success] == []
    assert rows(settings) == 0
    # Refused it stays, however often it is tried.
    again = materialize(settings, ["2026-01-02|uk"])
    assert not again.success
    assert not checks(again)["rejected_share"]
    # A good delivery beside it turns that check green; the warning stays as long as rows wait.
    write_orders(settings, "2026-01-03", "uk", [order_line(n) for n in range(40)])
    beside = checks(materialize(settings, ["2026-01-03|uk"]))
    assert beside["rejected_share"] and not beside["no_dead_letters"]
    assert discard(Lake(settings), Choice(partition="2026-01-02|uk"), by="ann", why="a test") > 0
    assert checks(materialize(settings, ["2026-01-03|uk"]))["no_dead_letters"]


def test_an_unreadable_file_turns_its_check_red_but_takes_no_other_file_down(settings: Settings) -> None:
    write_orders(settings, "2026-01-02", "uk", [order_line(n) for n in range(40)])
    broken = write_orders(settings, "2026-01-02", "uk", [order_line(n) for n in range(40)], "more.csv.gz")
    broken.write_bytes(broken.read_bytes()[:60])
    result = materialize(settings, ["2026-01-02|uk"], downstream=True)
    assert not result.success
    assert not checks(result)["files_readable"]
    assert checks(result)["rejected_share"]
    assert rows(settings) == 40


def test_a_new_column_is_warned_of_and_shown_until_it_is_declared(settings: Settings) -> None:
    path = write_orders(settings, "2026-01-02", "uk", [order_line(n) for n in range(5)])
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{header},Cou`pon|", *(f"{line},X" for line in lines)]) + "\n")
    write_orders(settings, "2026-01-03", "uk", [order_line(n) for n in range(5)])
    result = materialize(settings, ["2026-01-02|uk"], downstream=True)
    assert result.success
    assert not checks(result)["schema_drift"]
    assert all(passed for name, passed in checks(result).items() if name != "schema_drift")
    assert [e.step_key for e in result.all_events if e.is_step_success] == ["bronze__orders", "after"]
    metadata = result.asset_materializations_for_node("bronze__orders")[0].metadata
    assert "| `Cou'pon\\|` | unexpected | evolved | cou_pon |" in metadata["schema drift"].value
    columns = {c.name: (c.type, c.description) for c in metadata["dagster/column_schema"].value.columns}
    assert columns["cou_pon"] == ("VARCHAR", "not in the contract; 'Cou`pon|' in the files")
    assert columns["quantity"][0] == "INTEGER"
    # It stands in bronze, so it is told of with every run, whatever files that run reads.
    again = materialize(settings, ["2026-01-03|uk"])
    evaluation = next(c for c in again.get_asset_check_evaluations() if c.check_name == "schema_drift")
    assert not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.WARN
    assert evaluation.metadata["in this run"].value == []
    assert evaluation.metadata["not declared"].value == ["Cou`pon|"]


def test_a_file_without_a_required_column_takes_its_batch_with_it_and_says_what_to_do(settings: Settings) -> None:
    write_orders(settings, "2026-01-02", "uk", [order_line(n) for n in range(5)])
    other = write_orders(settings, "2026-01-02", "uk", [order_line(50 + n) for n in range(5)], "more.csv")
    other.write_text(other.read_text().replace("Price", "UnitPrice"))
    result = materialize(settings, ["2026-01-02|uk"], downstream=True)
    assert not result.success and rows(settings) == 0
    # Not because of its rows: that check has nothing to say.
    assert not checks(result)["files_readable"] and checks(result)["rejected_share"]
    evaluation = next(c for c in result.get_asset_check_evaluations() if c.check_name == "files_readable")
    assert (
        "it has 'UnitPrice': if it was renamed, set physicalName of unit_price" in evaluation.metadata["problems"].value
    )


def test_a_range_is_one_run_and_marks_its_partitions(settings: Settings) -> None:
    for day in ("2026-01-02", "2026-01-03"):
        for region in ("uk", "eu", "row"):
            write_orders(settings, day, region, [order_line(n, at=f"{day} 10:00:00") for n in range(5)])
    keys = [f"{day}|{region}" for day in ("2026-01-02", "2026-01-03") for region in ("uk", "eu", "row")]
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(settings, keys, instance)
        assert result.success
        assert instance.get_materialized_partitions(KEY) == set(keys)
    assert rows(settings) == 30


def test_of_a_range_only_the_accepted_partitions_are_marked(settings: Settings) -> None:
    write_orders(settings, "2026-01-02", "uk", [order_line(n) for n in range(5)])
    write_orders(settings, "2026-01-02", "eu", ["nonsense"] * 5)
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(settings, ["2026-01-02|uk", "2026-01-02|eu", "2026-01-02|row"], instance)
        assert not result.success
        assert instance.get_materialized_partitions(KEY) == {"2026-01-02|uk", "2026-01-02|row"}
    assert rows(settings) == 5


def test_a_run_for_scattered_partitions_touches_exactly_those(settings: Settings) -> None:
    for day in ("2026-01-02", "2026-01-03", "2026-01-04"):
        write_orders(settings, day, "uk", [order_line(n, at=f"{day} 10:00:00") for n in range(5)])
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(settings, ["2026-01-02|uk", "2026-01-04|uk"], instance)
        assert result.success
        assert instance.get_materialized_partitions(KEY) == {"2026-01-02|uk", "2026-01-04|uk"}
    assert rows(settings) == 10


def test_a_backfill_of_the_job_loads_and_marks_its_range_not_the_partition_noted_beside_it(settings: Settings) -> None:
    days = ("2026-01-02", "2026-01-03")
    for day in days:
        write_orders(settings, day, "eu", [order_line(n, at=f"{day} 10:00:00") for n in range(5)])
    asset = build_ingest_asset(CONTRACT, settings)
    # As the daemon tags them: the coordinates are those of the whole backfill's first partition.
    noted = {"dagster/partition/date": days[0], "dagster/partition/region": "row"}
    for last in (days[0], days[-1]):
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize(
                [asset],
                tags={RANGE_START: f"{days[0]}|eu", RANGE_END: f"{last}|eu", **noted},
                resources={"lake": LakeResource(home=str(settings.home))},
                instance=instance,
            )
            assert result.success
            assert instance.get_materialized_partitions(KEY) == {f"{day}|eu" for day in days if day <= last}
    assert rows(settings) == 10


def test_a_range_the_wrong_way_round_fails_instead_of_loading_nothing(settings: Settings) -> None:
    asset = build_ingest_asset(CONTRACT, settings)
    result = dg.materialize(
        [asset],
        tags={RANGE_START: "2026-01-02|row", RANGE_END: "2026-01-02|uk"},
        resources={"lake": LakeResource(home=str(settings.home))},
        raise_on_error=False,
    )
    assert not result.success
    [failure] = [e for e in result.all_events if e.is_step_failure]
    assert "range of partitions is empty" in failure.event_specific_data.error.message


def test_a_year_is_one_run(settings: Settings) -> None:
    asset = build_ingest_asset(CONTRACT, settings)
    assert asset.backfill_policy == dg.BackfillPolicy.single_run()


def test_the_contract_is_what_the_catalogue_shows(settings: Settings) -> None:
    spec = build_ingest_asset(CONTRACT, settings).get_asset_spec(KEY)
    schema = spec.metadata["dagster/column_schema"]
    described = {c.name: c.description for c in schema.columns}
    assert described["quantity"] == "Pieces sold; negative on returns."
    assert spec.group_name == "bronze"
    assert spec.owners == ["sales-data@example.com"]
    assert "duckdb" in spec.kinds
