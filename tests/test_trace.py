"""`sluice trace`: numbers of a published warehouse walked back to lines of files that are really there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest

from sluice import cli, connect
from sluice.audits import record_audit
from sluice.contracts import Contract
from sluice.dead_letters import Choice, letters
from sluice.errors import TraceError
from sluice.lake import Lake
from sluice.publication import publish
from sluice.replay import replay
from sluice.settings import Settings, load_settings
from sluice.simulation import generate
from sluice.trace import trace, trace_day
from tests.conftest import Bench
from tests.warehouse import days_of, load


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Two days of a shop, built and published."""
    home = tmp_path_factory.mktemp("trace")
    generate(home / "landing", days=2, scale=0.1)
    settings = load_settings(home=str(home), start_date=date(2026, 1, 1), end_date=date(2026, 1, 3), threads=1)
    load(settings, [days_of(settings)])
    lake = Lake(settings)
    record_audit(lake, run_id="build", checks_passed=1, failed=[])
    publish(lake, run_id="publish")
    yield settings


def rows(settings: Settings, sql: str) -> list[tuple[object, ...]]:
    with connect(settings) as con:
        return con.execute(sql).fetchall()


def test_a_fact_row_is_a_line_of_a_file(shop: Settings) -> None:
    key, invoice, stock_code = rows(
        shop,
        "SELECT order_line_key, invoice, stock_code FROM fct_order_lines WHERE _file LIKE '%.csv' ORDER BY 1 LIMIT 1",
    )[0]
    (step,) = trace(shop, "fct_order_lines", [("order_line_key", str(key))])
    (origin,) = step.origins
    assert (step.table, step.rows, origin.lines, origin.source) == ("gold.fct_order_lines", 1, 1, "orders")
    line = (shop.landing_path / origin.file).read_text().splitlines()[origin.first - 1]
    # The shop shuffles the columns of some files.
    assert {invoice, stock_code} <= set(line.split(","))
    assert step.looked_up == ("gold.dim_customer", "gold.dim_product")
    books = rows(
        shop,
        "SELECT rows_read, rows_accepted, contract_version, contract_hash FROM ops.ledger "
        f"WHERE batch_id = '{origin.batch_id}'",
    )
    assert books == [(origin.read, origin.accepted, origin.contract_version, origin.contract_hash)]
    assert origin.read == origin.accepted + origin.dead_lettered + origin.duplicate


def test_a_line_that_was_corrected_is_told_of(bench: Bench, contracts: dict[str, Contract]) -> None:
    good = "489434,85048,CUP,{},2026-01-01 10:00:00,1.50,,France"
    lines = [good.format(1).replace("489434", str(500_000 + n)) for n in range(30)]
    bench.put_orders("2026-01-01|eu", *lines, good.format("one"))
    bench.ingest(contracts["orders"])
    (letter,) = letters(bench.lake, Choice())
    replay(bench.lake, contracts["orders"], Choice(), corrections={letter.dead_letter_id: good.format(1)}, by="ann")
    record_audit(bench.lake, run_id="build", checks_passed=1, failed=[])
    publish(bench.lake, run_id="publish")
    (step,) = trace(bench.settings, "bronze.orders", [("invoice", "489434")])
    (told,) = step.origins[0].replayed
    assert (told.line, told.dead_letter_id, told.corrected, told.decided_by) == (32, letter.dead_letter_id, True, "ann")
    (step,) = trace(bench.settings, "bronze.orders", [("invoice", "500001")])
    assert step.origins[0].replayed == ()


def test_what_cannot_be_traced_is_told(
    shop: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(shop.home))
    for words, told in (
        # DuckDB would round it, and the rows of another day be told of.
        (["mart_daily_sales", "date_key=20260102.4"], "date_key of gold.mart_daily_sales is INTEGER, and '20260102.4'"),
        (["mart_daily_sales", "date_key=20260102.00000000001"], "is INTEGER, and '20260102.00000000001'"),
        (["2026-02-30"], "'2026-02-30' is no day of the calendar."),
        (["20260230"], "'20260230' is no day of the calendar."),
        (["5"], "'5' is no day of the calendar."),
        (["mart_daily_sale"], "Did you mean 'gold.mart_daily_sales'?"),
        (["silver.stg_ordrs"], "Did you mean 'silver.stg_orders'?"),
    ):
        assert cli.main(["trace", *words]) == 1
        captured = capsys.readouterr()
        assert captured.out == "" and told in captured.err
    for spelling in ("20260102", "20260102.0", "020260102"):
        assert trace(shop, "mart_daily_sales", [("date_key", spelling)])[0].rows > 0
    assert cli.main(["query", "select schema, name from (show all tables)"]) == 0
    capsys.readouterr()
    for table in ("gold.dim_region", "ops.ledger"):
        assert cli.main(["trace", table]) == 0
        assert capsys.readouterr().out.splitlines()[1:] == ["  no origin: nothing notes which rows it was made of"]


def test_a_mart_is_walked_down_to_all_lines_it_sums(shop: Settings) -> None:
    steps = trace(shop, "mart_daily_sales", [("date_key", "20260102"), ("region_key", "uk")])
    assert [s.table for s in steps if "dim_" not in s.table] == ["gold.mart_daily_sales", "gold.fct_order_lines"]
    mart = rows(shop, "SELECT order_lines FROM mart_daily_sales WHERE date_key = 20260102 AND region_key = 'uk'")
    assert steps[0].rows == 1
    assert [(sum(o.lines for o in steps[-1].origins),)] == mart
    assert {o.partition_key.split("|")[1] for o in steps[-1].origins} == {"uk"}


def test_a_dimension_comes_from_every_change_of_its_key(shop: Settings) -> None:
    ((customer, key),) = rows(
        shop, "SELECT customer_id, customer_key FROM dim_customer WHERE version > 0 AND NOT is_inferred LIMIT 1"
    )
    changes = rows(shop, f"SELECT count(*) FROM bronze.customers WHERE customer_id = '{customer}'")
    # By its natural key, or by the surrogate key a fact has, which the change log does not know.
    for condition in (("customer_id", str(customer)), ("customer_key", str(key))):
        steps = trace(shop, "dim_customer", [condition])
        found = {s.table: s for s in steps}
        assert [(found["bronze.customers"].rows,)] == changes
        assert sum(o.lines for o in found["bronze.customers"].origins) == found["bronze.customers"].rows


def test_a_day_is_all_its_facts(shop: Settings) -> None:
    found = {step.table: step for step in trace_day(shop, date(2026, 1, 2))}
    assert set(found) == {"gold.fct_order_lines", "gold.fct_events"}
    for table, step in found.items():
        assert [(step.rows,)] == rows(shop, f"SELECT count(*) FROM {table} WHERE date_key = 20260102")
        assert sum(o.lines for o in step.origins) == step.rows
    with pytest.raises(TraceError, match="No fact of 2031-01-01"):
        trace_day(shop, date(2031, 1, 1))


@pytest.mark.parametrize(
    ("table", "conditions", "told"),
    [
        ("fct_nothing", [], "no table 'fct_nothing'"),
        ("gold.stg_orders", [], "no table 'gold.stg_orders'"),
        ("fct_order_lines", [("stock", "1")], "no column 'stock'; it has order_line_key"),
        ("fct_order_lines", [("date_key", "x'; DROP TABLE y")], "date_key of gold.fct_order_lines is INTEGER"),
        ("fct_order_lines", [("invoice", "' OR true --")], "has no row where invoice = ' OR true --"),
    ],
)
def test_what_is_not_there_is_said(shop: Settings, table: str, conditions: list[tuple[str, str]], told: str) -> None:
    with pytest.raises(TraceError, match=told):
        trace(shop, table, conditions)


def test_the_command_shows_file_batch_contract_and_run(
    shop: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(shop.home))
    assert cli.main(["trace", "mart_daily_sales", "date_key=20260102", "region_key=uk"]) == 0
    shown = capsys.readouterr().out
    assert "orders/region=uk/date=2026-01-02/" in shown
    assert "contract 1.0.0 (" in shown
    assert cli.main(["trace", "2026-01-02"]) == 0
    of_the_day = capsys.readouterr().out
    assert "gold.fct_events" in of_the_day
    assert cli.main(["trace", "20260102"]) == 0
    assert capsys.readouterr().out == of_the_day
    assert cli.main(["trace", "2026-01-02", "date_key=1"]) == 1
    assert cli.main(["trace", "fct_order_lines", "date_key"]) == 1
    assert "write COLUMN=VALUE" in capsys.readouterr().err
