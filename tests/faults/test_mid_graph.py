"""A model fails in mid-graph, in a build through Dagster: readers stay; mended, it ends as undisturbed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import dagster as dg
import pytest

from definitions import build_definitions
from resources.dbt import DBT_PROJECT
from sluice.audits import latest_audit
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.publication import current_publication
from tests.faults import SEED, deep
from tests.faults.cycle import Shop
from tests.faults.invariants import books_hold, holds_in_the_end, published_state_is_whole
from tests.warehouse import CONTRACTS

pytestmark = deep

MODEL = "models/facts/fct_order_lines.sql"


def test_a_model_that_fails_in_mid_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(tmp_path, days=3, seed=SEED)
    for name, value in (("HOME", str(shop.home)), ("START_DATE", "2026-01-01"), ("END_DATE", "2026-02-01")):
        monkeypatch.setenv(f"SLUICE_{name}", value)
    for name in [n for n in os.environ if n.startswith("SLUICE_DBT_")]:
        monkeypatch.delenv(name)
    project = tmp_path / "dbt_project"
    shutil.copytree(DBT_PROJECT, project, ignore=shutil.ignore_patterns("target", "logs"))
    lake = Lake(shop.settings)

    def build() -> dg.ExecuteInProcessResult:
        for contract in CONTRACTS:
            ingest(lake, contract)
        job = build_definitions(shop.settings, dbt_folder=project).resolve_job_def("build_warehouse")
        with dg.DagsterInstance.ephemeral() as instance:
            return job.execute_in_process(instance=instance, raise_on_error=False)

    shop.deliver(*shop.days[:2])
    assert build().success
    before = current_publication(lake)
    assert before is not None

    good = (project / MODEL).read_text(encoding="utf-8")
    # Every row of the new day breaks it.
    touched = "where {{ touched_rows() }}\n"
    broken = good.replace(
        touched,
        touched + "        and case when _file like '%2026-01-03%' then error('broken on purpose') else true end\n",
    )
    assert broken != good
    (project / MODEL).write_text(broken, encoding="utf-8")
    shop.deliver(shop.days[2])
    failed = build()
    assert not failed.success
    message = next(e for e in failed.all_events if e.is_step_failure).event_specific_data.error.message
    assert "fct_order_lines" in message and "readers stay where they were" in message
    made = {e.asset_key.path[-1] for e in failed.get_asset_materialization_events()}
    # What lies before it and beside it was built, what follows it was not.
    assert {"dim_product", "dim_customer", "fct_events"} <= made
    assert not {"fct_order_lines", "fct_daily_sales", "mart_daily_sales", "published"} & made
    audit = latest_audit(lake)
    assert audit is not None and not audit.passed and "fct_order_lines" in audit.failed
    assert current_publication(lake) == before
    books_hold(shop.settings)
    assert published_state_is_whole(shop.settings)

    (project / MODEL).write_text(good, encoding="utf-8")
    assert build().success
    after = current_publication(lake)
    assert after is not None and after.snapshot_id > before.snapshot_id
    holds_in_the_end(shop.settings, shop.undisturbed())
