"""The dbt project's own unit tests: SQL on literal rows, which no build in the platform repeats."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from sluice.settings import load_settings
from tests.warehouse import load, unit_tests


def test_the_unit_tests_pass(tmp_path: Path) -> None:
    settings = load_settings(
        home=str(tmp_path / "home"), start_date=date(2026, 1, 1), end_date=date(2026, 1, 2), threads=1
    )
    settings.landing_path.mkdir(parents=True)
    # Without any row: they read the columns of the tables before them.
    load(settings, [[]])
    found = unit_tests(settings)
    assert len(found) >= 12
    assert {name: status for name, status in found.items() if status != "pass"} == {}
