"""dbt's command line as Dagster starts it here, held against the one dagster-dbt would start."""

from __future__ import annotations

from dagster_dbt import DbtCliResource, DbtProject

from resources.dbt import DBT_PROJECT, DbtCommand, dbt_environment, dbt_resource
from sluice.settings import load_settings


def test_what_it_leaves_out_is_what_dagster_dbt_does_before_a_command(tmp_path, monkeypatch):
    for name, value in dbt_environment(load_settings(home=tmp_path)).items():
        monkeypatch.setenv(name, value)
    command = dbt_resource(DbtProject(project_dir=DBT_PROJECT, profiles_dir=DBT_PROJECT))
    usual = DbtCliResource(project_dir=DBT_PROJECT, profiles_dir=DBT_PROJECT)
    # Under these names dagster-dbt does it; under others, the overrides would be dead and every run slower.
    assert command._cli_version == usual._cli_version
    assert {"_cli_version", "_initialize_dbt_core_adapter"} <= vars(DbtCliResource).keys() & vars(DbtCommand).keys()
    invocation = command.cli(["debug", "--config-dir"], target_path=tmp_path / "target").wait()
    assert invocation.is_successful()
    assert invocation.adapter is None
