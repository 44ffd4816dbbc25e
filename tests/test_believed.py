"""The second axis of time in SQL: a table as readers saw it at a moment, through the real dbt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from resources.dbt import dbt_environment, prepare_dbt_project
from sluice.contracts import load_contracts
from sluice.maintenance import maintain
from sluice.publication import publish, record_audit
from sluice.settings import PROJECT
from tests.conftest import Bench

QUERY = """
select count(*) as n from
{{{{ believed_at(api.Relation.create(database='lake', schema='gold', identifier='dim_thing'), '{}') }}}} as things
"""


@pytest.fixture
def told(bench: Bench) -> Bench:
    """A gold table of one row when first published, of two when published again, of three by now."""
    bench.lake.create()
    bench.lake.write(lambda con: con.execute("CREATE TABLE gold.dim_thing (n INTEGER)"), "make")
    for number in (1, 2, 3):
        bench.lake.write(lambda con, n=number: con.execute("INSERT INTO gold.dim_thing VALUES (?)", [n]), "load")
        if number < 3:
            record_audit(bench.lake, run_id="b", checks_passed=1, failed=[])
            publish(bench.lake, run_id="p")
    return bench


def show(bench: Bench, moment: datetime) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("dbt")), "--quiet", "--no-use-colors", "show", "--output", "json",
            "--log-format", "text", "--inline", QUERY.format(moment),
        ],
        env={**os.environ, **dbt_environment(bench.settings)},
        cwd=PROJECT / "dbt_project",
        capture_output=True,
        text=True,
    )  # fmt: skip


def count(bench: Bench, moment: datetime) -> int:
    done = show(bench, moment)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(json.loads(done.stdout)["show"][0]["n"])


def test_a_table_as_it_was_believed(told: Bench) -> None:
    prepare_dbt_project(load_contracts(PROJECT / "contracts").values(), told.settings)
    first, second = (at for (at,) in told.sql("SELECT published_at FROM ops.publications ORDER BY publication_id"))
    assert count(told, first) == 1
    assert count(told, second - timedelta(microseconds=1)) == 1
    assert count(told, second + timedelta(days=1)) == 2

    before = show(told, first - timedelta(microseconds=1))
    assert before.returncode != 0
    assert "nothing had been published by" in before.stdout + before.stderr
    maintain(told.lake, keep_days=0, belief_days=0, orphan_age_hours=0)
    expired = show(told, first)
    assert expired.returncode != 0
    assert "is no longer kept. SLUICE_BELIEF_DAYS" in expired.stdout + expired.stderr
    assert count(told, second) == 2
