"""The same deliveries in another order, in overlapping pieces, some twice: the same warehouse in the end."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest

from resources.dbt import dbt_environment, prepare_dbt_project
from sluice.contracts import load_contracts
from sluice.ingest import create_bronze_tables, ingest
from sluice.lake import Lake
from sluice.landing import scan
from sluice.settings import PROJECT, Settings, load_settings
from sluice.simulation import generate

CONTRACTS = list(load_contracts(PROJECT / "contracts").values())

pytestmark = pytest.mark.slow


def load(settings: Settings, pieces: Sequence[Sequence[str]]) -> None:
    """Ingest each piece, a list of days, and build the warehouse after it."""
    lake = Lake(settings)
    project = prepare_dbt_project(CONTRACTS, settings)
    create_bronze_tables(lake, CONTRACTS)
    for days in pieces:
        for contract in CONTRACTS:
            keys = scan(contract, settings.landing_path, settings.start_date, settings.end_date).by_partition()
            ingest(lake, contract, [key for key in keys if key.split("|")[0] in days])
        done = subprocess.run(
            [str(Path(sys.executable).with_name("dbt")), "--quiet", "run"],
            env={**os.environ, **dbt_environment(settings)},
            cwd=project.project_dir,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def gold(settings: Settings) -> dict[str, list[tuple[object, ...]]]:
    """All rows of the gold tables, sorted."""
    with Lake(settings).reading() as con:
        tables = con.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'gold'").fetchall()
        return {t: con.execute(f"SELECT * FROM gold.{t} ORDER BY ALL").fetchall() for (t,) in tables}


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


def test_pieces_in_random_order_give_the_warehouse_of_a_clean_load(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    generate(landing, seed=11, days=9, scale=0.2, start=date(2026, 1, 1))
    common = {"landing": str(landing), "start_date": date(2026, 1, 1)}
    clean = load_settings(home=str(tmp_path / "clean"), **common)
    pieced = load_settings(home=str(tmp_path / "pieced"), **common)
    days = sorted({path.name.removeprefix("date=") for path in landing.rglob("date=*")})
    load(clean, [days])

    random_ = random.Random(5)
    pieces = [days[i : i + 3] for i in range(0, len(days), 2)]
    middle = pieces[2]
    random_.shuffle(pieces)
    load(pieced, [middle, *pieces])
    wanted, found = gold(clean), gold(pieced)
    assert {name: len(rows) for name, rows in found.items()} == {name: len(rows) for name, rows in wanted.items()}
    assert found == wanted

    # What is there already is loaded again: nothing is rewritten.
    with Lake(pieced).reading() as con:
        before = con.execute("SELECT count(*) FROM ops.rewrites").fetchall()
    load(pieced, [middle])
    with Lake(pieced).reading() as con:
        assert con.execute("SELECT count(*) FROM ops.rewrites").fetchall() == before


def test_a_late_day_rewrites_its_dates_and_no_others(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    generate(landing, seed=12, days=6, scale=0.2, start=date(2026, 1, 1))
    settings = load_settings(home=str(tmp_path / "home"), landing=str(landing), start_date=date(2026, 1, 1))
    late = "orders/region=uk/date=2026-01-03"
    (landing / late).rename(tmp_path / "late")
    days = sorted({path.name.removeprefix("date=") for path in landing.rglob("date=*")})
    load(settings, [days])
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
