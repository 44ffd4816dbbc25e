"""The benchmarks compare like with like: same rows in, same tables out, and nothing left behind.

Belongs here: that the peers are right, and that the commands run. No test asserts a time.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import duckdb
import pytest

from benchmarks import __main__ as command
from benchmarks import ingest as ingest_benchmark
from benchmarks import year
from benchmarks.measure import Ratio, Result, Timing, machine, ratio, short, times, total
from sluice.batches import IngestResult
from sluice.contracts import load_contracts
from sluice.lake import Lake
from sluice.settings import PROJECT
from sluice.simulation import generate

GOLD = (
    "agg_events_15min_sliding",
    "agg_events_5min",
    "dim_customer",
    "dim_date",
    "dim_product",
    "dim_region",
    "fct_daily_sales",
    "fct_events",
    "fct_order_lines",
    "fct_sessions",
    "mart_customer_value",
    "mart_daily_sales",
    "mart_funnel",
    "mart_monthly_cohorts",
    "mart_orders_wide",
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A landing area with every kind of spoilt order line, odd headers, late and repeated changes and events."""
    landing = tmp_path_factory.mktemp("shop") / "landing"
    generate(landing, days=5, start=year.SHOP_START)
    return landing


@pytest.fixture(scope="module")
def compared(
    shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[IngestResult], dict[str, year.Difference], dict[str, float]]:
    """What was ingested, how the gold tables of both sides differ, and what dbt spent."""
    work = tmp_path_factory.mktemp("both")
    contracts = load_contracts(PROJECT / "contracts")
    settings = year.fresh_settings(work / "home", shop, contracts)
    loaded = year.load(settings, contracts)
    tests_left_out = ("--exclude-resource-type", "test", "--exclude-resource-type", "unit_test")
    year.dbt(settings, work / "target", "build", *tests_left_out)
    year.run_script(shop, work / "hand.duckdb")
    return loaded, year.differences(Lake(settings), work / "hand.duckdb"), year.execution_times(work / "target")


def test_both_sides_have_the_same_gold_tables(compared):
    _, found, _ = compared
    assert tuple(found) == GOLD


@pytest.mark.parametrize("table", GOLD)
def test_script_by_hand_makes_the_rows_sluice_makes(compared, table):
    _, found, _ = compared
    assert found[table].equal, found[table]
    assert found[table].rows > 0


def test_compared_shop_is_dirty_enough_to_mean_something(compared):
    loaded, _, _ = compared
    by_source = {r.source: r for r in loaded}
    assert by_source["orders"].total("rows_dead_lettered") >= 19  # as many as there are kinds of spoilt order lines
    assert all(by_source[s].total("rows_duplicate") for s in ("orders", "products", "customers", "events"))
    assert not any(r.refused for r in loaded)


def test_time_of_models_and_tests_is_told_apart(compared):
    _, _, spent = compared
    assert spent["model"] > 0
    assert spent["test"] == spent["unit_test"] == 0


def test_script_by_hand_takes_a_landing_area_without_events(shop, tmp_path):
    # The real year has none.
    shutil.copytree(shop, tmp_path / "landing", ignore=shutil.ignore_patterns("events"))
    year.run_script(tmp_path / "landing", tmp_path / "hand.duckdb")
    with duckdb.connect(str(tmp_path / "hand.duckdb"), read_only=True) as con:
        (row,) = con.execute(
            "SELECT (SELECT count(*) FROM gold.fct_events), (SELECT count(*) > 0 FROM gold.fct_order_lines)"
        ).fetchall()
    assert row == (0, True)


def test_a_difference_is_found(tmp_path):
    lake = ingest_benchmark.fresh_lake(tmp_path / "home", tmp_path / "landing", 1)
    with lake.connect() as con:
        con.execute("CREATE TABLE gold.same AS SELECT 1 AS a")
        con.execute("CREATE TABLE gold.twice AS SELECT 1 AS a UNION ALL SELECT 1")
        con.execute("CREATE TABLE gold.ours AS SELECT 1 AS a")
    with duckdb.connect(str(tmp_path / "hand.duckdb")) as con:
        con.execute("CREATE SCHEMA gold")
        con.execute("CREATE TABLE gold.same AS SELECT 1 AS a, 2 AS only_here")
        con.execute("CREATE TABLE gold.twice AS SELECT 1 AS a")
        con.execute("CREATE TABLE gold.theirs AS SELECT 1 AS a")
    found = year.differences(lake, tmp_path / "hand.duckdb")
    assert {table: d.equal for table, d in found.items()} == {
        "same": True,
        "twice": False,
        "ours": False,
        "theirs": False,
    }
    assert found["twice"] == year.Difference(2, 1, 1, 0)


@pytest.mark.parametrize("rows", [1, 500, 501, 1_600, 100_001])
def test_order_lines_hold_what_is_said_of_them(tmp_path, rows):
    expected = ingest_benchmark.write_orders(tmp_path, rows)
    with duckdb.connect() as con:
        (found,) = con.execute(
            "SELECT count(DISTINCT filename), count(*), count(*) - count(DISTINCT (filename, lines)), "
            "count(DISTINCT (filename, lines)) FILTER (lines.\"Quantity\" = '0') FROM read_csv(?, all_varchar = true, "
            "header = true, delim = ',', quote = '\"', filename = true, hive_partitioning = false) AS lines",
            [str(tmp_path / "orders" / "*" / "*" / "*.csv")],
        ).fetchall()
    assert ingest_benchmark.Expected(*found) == expected
    assert expected.rows == rows


def test_order_lines_are_the_same_every_time(tmp_path):
    for name in ("a", "b"):
        ingest_benchmark.write_orders(tmp_path / name, 3_000)
    first, second = (sorted((tmp_path / name).rglob("*.csv")) for name in ("a", "b"))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_a_wrong_book_stops_the_measurement():
    result = IngestResult("orders", (), (), ())
    with pytest.raises(RuntimeError, match="but the files hold"):
        ingest_benchmark.check(result, ingest_benchmark.Expected(1, 1, 0, 0))


def test_command_measures_prints_writes_json_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    # An aim nobody can meet: missing it is no failure.
    monkeypatch.setattr(ingest_benchmark, "AIM", 0.0)
    monkeypatch.setattr(ingest_benchmark, "DLT_PYTHON", tmp_path / "nowhere")
    out = tmp_path / "results.json"
    assert command.main(["ingest", "--rows", "2_000", "--runs", "2", "--json", str(out)]) == 0
    printed, told = capsys.readouterr()
    assert "2,000 order lines" in printed
    assert "not met" in printed
    assert "without dlt" in told
    (result,) = json.loads(out.read_text())["results"]
    assert result["name"] == "ingest-2k"
    assert result["machine"]["duckdb"] == duckdb.__version__
    assert [len(t["seconds"]) for t in result["timings"]] == [2, 2]
    assert result["ratios"][0]["verdict"] == "not met"
    assert list(scratch.iterdir()) == []


def test_command_says_what_is_wrong(tmp_path, capsys):
    assert command.main(["year", "--landing", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["ingest", "--rows", "0"],
        ["year", "--runs", "-1"],
        ["history", "--size", "0"],
        ["history", "--markdown", "x.md"],
        ["render"],
        ["render", "year", "--json", "x.json"],
    ],
)
def test_command_refuses_arguments_without_sense(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2


def test_timings_add_up_round_by_round():
    a, b = Timing("a", [1.0, 5.0, 3.0], [1.0, 1.0, 1.0]), Timing("b", [1.0, 1.0, 4.0])
    both = total("both", [a, b])
    assert both.seconds == [2.0, 6.0, 7.0]
    assert both.cpu_seconds == []
    assert total("a twice", [a, a]).cpu_seconds == [2.0, 2.0, 2.0]
    assert ratio("both to a", both, a, 2.0) == Ratio("both to a", 2.0, 2.0)


def test_a_round_takes_wall_and_cpu_time():
    timing = Timing("sum")
    with timing.round():
        sum(range(100_000))
    assert timing.seconds[0] > 0
    assert timing.cpu_seconds[0] >= 0


@pytest.mark.parametrize(("value", "verdict"), [(30.0, "met"), (29.9, "not met")])
def test_an_aim_may_be_a_least(value, verdict):
    assert Ratio("a / b", value, 30.0, at_least=True).verdict == verdict


def test_what_is_reckoned_is_told_apart():
    reckoned = times("a year (reckoned from one day)", Timing("a day", [2.0, 3.0], [1.0, 1.0]), 365)
    assert reckoned == Timing("a year (reckoned from one day)", [730.0, 1095.0], [365.0, 365.0], reckoned=True)


@pytest.mark.parametrize(("number", "name"), [(10_000_000, "10m"), (1_500_000, "1500k"), (50_000, "50k"), (42, "42")])
def test_round_numbers_have_short_names(number, name):
    assert short(number) == name


@pytest.mark.parametrize(("value", "aim", "verdict"), [(2.0, 2.0, "met"), (2.1, 2.0, "not met"), (9.0, None, "")])
def test_an_aim_is_met_up_to_its_value(value, aim, verdict):
    found = Ratio("a / b", value, aim)
    assert found.verdict == verdict
    text = Result("name", "title", ("fact",), (Timing("a", [1.0]),), (found,)).text()
    assert text.startswith("title\n  fact\n")
    assert text.rstrip().endswith(verdict or f"{value:.2f}")


def test_machine_names_what_numbers_depend_on():
    found = machine()
    assert {"cores", "python", "duckdb", "dbt-core", "dbt-duckdb"} <= found.keys()
    assert int(found["cores"]) >= 1
