"""A real year: the figures that must come out of it, computed elsewhere, compared with what is published."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

import sluice
from demo import landing_span
from sluice.lake import Lake
from sluice.settings import PROJECT, load_settings
from tests.test_demo import run_demo
from tests.warehouse import CONTRACTS, days_of, load, overlapping

# `YEAR_PIECES=20`, and `make test-deep`, load the year in as many pieces, in an order drawn anew each time.
# `YEAR_SEED=…` repeats one. Not in `make test`, for each takes half a minute; tests/test_any_order.py does it in small.
PIECES = int(os.environ.get("YEAR_PIECES", 0))
SEED = int(os.environ.get("YEAR_SEED", random.SystemRandom().randrange(10**6)))

DATA = PROJECT.parent / "shared" / "data" / "online_retail"
FIGURES = Path(__file__).with_name("online_retail_figures.sql")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not DATA.is_dir(), reason="the real year (Online Retail II) is not beside the project: ../shared/data"
    ),
]


def figures() -> dict[str, str]:
    """The statements of the figures file by name."""
    text = FIGURES.read_text(encoding="utf-8")
    return {m[1]: m[2] for m in re.finditer(r"-- name: (\w+)\n(.*?);[ \t]*(?=\n|\Z)", text, re.DOTALL)}


def got(con: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Every figure as the lake has it."""
    con.execute("USE lake")
    return {name: json.loads(con.execute(sql).fetchall()[0][0]) for name, sql in figures().items()}


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """Every figure as it must be."""
    wanted: dict[str, Any] = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
    return wanted


def test_every_figure_of_the_real_year(tmp_path: Path, expected: dict[str, Any]) -> None:
    done = run_demo(tmp_path / "home", "--landing", str(DATA / "landing"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    with sluice.connect(load_settings(home=str(tmp_path / "home"))) as con:
        assert got(con) == expected


@pytest.mark.skipif(not PIECES, reason="takes minutes: make test-deep")
def test_every_figure_of_the_real_year_loaded_in_overlapping_pieces_in_random_order(
    tmp_path: Path, expected: dict[str, Any]
) -> None:
    landing = DATA / "landing"
    start, end = landing_span(landing, CONTRACTS)
    settings = load_settings(home=str(tmp_path / "home"), landing=str(landing), start_date=start, end_date=end)
    pieces = overlapping(days_of(settings), PIECES, SEED)
    load(settings, pieces)
    with Lake(settings).reading() as con:
        found = got(con)
    assert found == expected, f"YEAR_PIECES={PIECES} YEAR_SEED={SEED}: {[(p[0], p[-1]) for p in pieces]}"
