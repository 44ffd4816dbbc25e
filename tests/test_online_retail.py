"""A real year: the figures that must come out of it, computed elsewhere, compared with what is published."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import sluice
from sluice.settings import PROJECT, load_settings
from tests.test_demo import run_demo

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


def test_every_figure_of_the_real_year(tmp_path: Path) -> None:
    done = run_demo(tmp_path / "home", "--landing", str(DATA / "landing"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    expected = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
    with sluice.connect(load_settings(home=str(tmp_path / "home"))) as con:
        con.execute("USE lake")
        got = {name: json.loads(con.execute(sql).fetchall()[0][0]) for name, sql in figures().items()}
    assert got == expected
