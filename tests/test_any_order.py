"""The same deliveries in another order, in overlapping pieces, some twice: the same warehouse in the end."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from resources.dbt import DBT_PROJECT
from sluice.contracts import Contract
from sluice.lake import Lake
from sluice.settings import Settings, load_settings
from sluice.simulation import generate
from tests.conftest import ORDERS_HEADER
from tests.warehouse import CONTRACTS, assert_same, days_of, gold, load

pytestmark = pytest.mark.slow


def rewritten(settings: Settings) -> dict[str, set[str]]:
    """Dates of each table that the newest build rewrote."""
    with Lake(settings).reading() as con:
        rows = con.execute(
            "SELECT relation, slice FROM ops.rewrites WHERE slice IS NOT NULL AND invocation_id = "
            "(SELECT invocation_id FROM ops.rewrites ORDER BY snapshot_id DESC LIMIT 1)"
        ).fetchall()
    found: dict[str, set[str]] = {}
    for relation, day in rows:
        found.setdefault(relation, set()).add(day)
    return found


@pytest.mark.skipif("YEAR_PIECES" not in os.environ, reason="backfills in any order are in tests/e2e: make test-deep")
def test_pieces_in_random_order_give_the_warehouse_of_a_clean_load(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    generate(landing, seed=11, days=7, scale=0.2, start=date(2026, 1, 1))
    common = {"landing": str(landing), "start_date": date(2026, 1, 1)}
    # In one thread, and in pieces with all cores: that must be the same, too.
    clean = load_settings(home=str(tmp_path / "clean"), threads=1, **common)
    pieced = load_settings(home=str(tmp_path / "pieced"), **common)
    days = days_of(clean)
    load(clean, [days])

    random_ = random.Random(5)
    pieces = [days[i : i + 3] for i in range(0, len(days), 2)]
    middle = pieces[2]
    random_.shuffle(pieces)
    load(pieced, [middle, *pieces])
    assert_same(gold(pieced), gold(clean))

    # What is there already is loaded again: nothing is rewritten.
    with Lake(pieced).reading() as con:
        before = con.execute("SELECT count(*) FROM ops.rewrites").fetchall()
    load(pieced, [middle])
    with Lake(pieced).reading() as con:
        assert con.execute("SELECT count(*) FROM ops.rewrites").fetchall() == before


def test_a_type_that_was_widened_reaches_all_that_is_made_of_it(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    generate(landing, seed=13, days=2, scale=0.2, start=date(2026, 1, 1))
    settings = load_settings(home=str(tmp_path / "home"), landing=str(landing), start_date=date(2026, 1, 1), threads=1)
    first, second = days_of(settings)
    load(settings, [[first]])

    def widened(contract: Contract) -> Contract:
        wider = [replace(c, type={"INTEGER": "BIGINT"}.get(c.type, c.type)) for c in contract.columns]
        return replace(contract, columns=tuple(wider)) if contract.name == "orders" else contract

    many = landing / f"orders/region=uk/date={second}/many.csv"
    many.write_text(f"{ORDERS_HEADER}\n599999,85048,CUP,999999,{second} 10:00:00,1.50,,United Kingdom\n")
    project = tmp_path / "dbt_project"
    shutil.copytree(DBT_PROJECT, project, ignore=shutil.ignore_patterns("target", "logs"))
    load(settings, [[second]], project, [widened(c) for c in CONTRACTS])
    with Lake(settings).reading() as con:
        types = con.execute(
            "SELECT DISTINCT schema_name, data_type FROM duckdb_columns() WHERE column_name = 'quantity' "
            "AND table_name IN ('orders', 'fct_order_lines') ORDER BY 1"
        ).fetchall()
        assert types == [("bronze", "BIGINT"), ("gold", "BIGINT")]
        sums = "SELECT count(*), sum(quantity), max(quantity) FROM {}"
        bronze = con.execute(sums.format("bronze.orders")).fetchall()
        assert con.execute(sums.format("gold.fct_order_lines")).fetchall() == bronze
    assert bronze[0][2] == 999_999


def test_a_late_day_rewrites_its_dates_and_no_others(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    generate(landing, seed=12, days=6, scale=0.2, start=date(2026, 1, 1))
    settings = load_settings(home=str(tmp_path / "home"), landing=str(landing), start_date=date(2026, 1, 1), threads=1)
    late = "orders/region=uk/date=2026-01-03"
    (landing / late).rename(tmp_path / "late")
    load(settings, [days_of(settings)])
    before = gold(settings)["fct_order_lines"]
    (tmp_path / "late").rename(landing / late)
    load(settings, [["2026-01-03"]])
    came = set(gold(settings)["fct_order_lines"]) - set(before)
    with Lake(settings).reading() as con:
        at = [d[0] for d in con.execute("SELECT * FROM gold.fct_order_lines LIMIT 0").description].index("invoiced_at")
    dates = {row[at].date().isoformat() for row in came}  # type: ignore[attr-defined]
    assert "2026-01-03" in dates
    found = rewritten(settings)
    assert found["gold.fct_order_lines"] == dates
    assert found["gold.fct_daily_sales"] == {day.replace("-", "") for day in dates}
