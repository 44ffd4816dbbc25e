"""Adding a source is adding one file: a contract dropped in brings its asset, checks, job, sensor and dbt source."""

import shutil
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from definitions import build_definitions
from resources.dbt import DBT_PROJECT, prepare_dbt_project
from resources.partitions import run_tags
from sluice.cli import main
from sluice.contracts import load_contract, load_contracts
from sluice.lake import Lake
from sluice.settings import PROJECT, load_settings
from tests.conftest import Bench
from tests.warehouse import dbt_test

CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: shop.suppliers
name: Suppliers
version: 1.0.0
status: active
schema:
  - name: suppliers
    description: Who delivers what.
    properties:
      - name: supplier_id
        physicalName: ID
        logicalType: string
        physicalType: VARCHAR
        description: Natural key.
        required: true
        unique: true
      - name: rating
        physicalName: Rating
        logicalType: integer
        physicalType: INTEGER
        description: Stars.
        logicalTypeOptions: {minimum: 1, maximum: 5}
    customProperties:
      - property: landing
        value:
          path: suppliers/date={date}
          formats: [csv]
      - property: gates
        value: {maxRejectedShare: 0.5}
"""


def test_a_dropped_in_contract_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contracts = tmp_path / "contracts"
    shutil.copytree(PROJECT / "contracts", contracts)
    (contracts / "suppliers.odcs.yaml").write_text(CONTRACT)
    dbt = tmp_path / "dbt_project"
    shutil.copytree(DBT_PROJECT, dbt, ignore=shutil.ignore_patterns("target", "logs"))
    # A model on it is plain dbt.
    (dbt / "models/staging/stg_suppliers.sql").write_text(
        "-- Grain: one supplier.\nselect supplier_id, rating from {{ source('bronze', 'suppliers') }}\n"
    )
    monkeypatch.setenv("SLUICE_THREADS", "1")
    for name, value in {"HOME": tmp_path / "home", "START_DATE": "2026-01-01", "END_DATE": "2026-01-03"}.items():
        monkeypatch.setenv(f"SLUICE_{name}", str(value))
    settings = load_settings(contracts=contracts, start_date=date(2026, 1, 1), end_date=date(2026, 1, 3))
    landing = settings.landing_path / "suppliers/date=2026-01-01"
    landing.mkdir(parents=True)
    (landing / "suppliers.csv").write_text("ID,Rating\nacme,5\nbad,9\nacme,4\nglobex,1\n")

    project = prepare_dbt_project(load_contracts(contracts).values(), settings, dbt)
    definitions = build_definitions(settings, project)

    key = dg.AssetKey(["bronze", "suppliers"])
    graph = definitions.resolve_asset_graph()
    assert {c.name for c in graph.get_check_keys_for_assets({key})} == {
        "books_balance", "rejected_share", "files_readable", "no_dead_letters", "gates_kept", "schema_drift",
    }  # fmt: skip
    assert graph.get(dg.AssetKey(["silver", "stg_suppliers"])).parent_keys == {key}
    assert definitions.resolve_job_def("ingest_suppliers")
    assert definitions.get_repository_def().get_sensor_def("suppliers_landing")

    definition = graph.get(key).partitions_def
    assert definition is not None
    result = definitions.resolve_job_def("ingest_suppliers").execute_in_process(
        tags=run_tags(["2026-01-01"], definition), instance=dg.DagsterInstance.ephemeral()
    )
    assert result.success
    with Lake(settings).reading() as con:
        assert con.execute("SELECT supplier_id, rating FROM bronze.suppliers ORDER BY 1").fetchall() == [
            ("acme", 5),
            ("globex", 1),
        ]
        assert con.execute(
            "SELECT line, reasons[1].rule FROM ops.dead_letters WHERE source = 'suppliers' ORDER BY line"
        ).fetchall() == [(3, "maximum"), (4, "unique")]


def test_a_source_whose_contract_is_gone_stays_in_the_books(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else nothing could be published any more: its batches would have no rows."""
    path = tmp_path / "suppliers.odcs.yaml"
    path.write_text(CONTRACT)
    landing = bench.settings.landing_path / "suppliers/date=2026-01-01"
    landing.mkdir(parents=True)
    (landing / "suppliers.csv").write_text("ID,Rating\nacme,5\nbad,9\nacme,4\nglobex,1\n")
    bench.ingest(load_contract(path))
    monkeypatch.setenv("SLUICE_HOME", str(bench.settings.home))
    assert "suppliers" not in load_contracts(PROJECT / "contracts")
    gates = ("books_balance_over_the_lake", "books_balance_per_batch")

    assert main(["books"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["suppliers", "1", "0", "4", "2", "2", "0", "yes"]
    bench.close()
    assert [dbt_test(bench.settings, gate) for gate in gates] == [0, 0]

    bench.lake.write(lambda con: con.execute("DELETE FROM bronze.suppliers WHERE rating = 1"), "an accident")
    assert main(["books"]) == 1
    bench.close()
    assert [dbt_test(bench.settings, gate) for gate in gates] == [1, 1]
