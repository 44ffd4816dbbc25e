"""Dagster's instance folder, and the environment a Sluice process runs in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from resources.dbt import dbt_environment
from sluice.settings import PROJECT, Settings, load_settings


def instance_folder(settings: Settings) -> Path:
    """Where Dagster keeps what it knows."""
    return settings.home / "dagster"


def prepare_instance(settings: Settings) -> Path:
    """Make the instance folder with the project's `dagster.yaml` in it, and point this process at it."""
    folder = instance_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROJECT / "dagster.yaml", folder / "dagster.yaml")
    os.environ.update(dbt_environment(settings))
    os.environ["DAGSTER_HOME"] = str(folder)
    os.environ["SLUICE_HOME"] = str(settings.home)
    return folder


if __name__ == "__main__":
    # `make dev` runs this before Dagster starts.
    prepare_instance(load_settings())
