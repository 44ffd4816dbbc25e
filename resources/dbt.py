"""dbt for Dagster: the project, parsed once, and its command line with the lake's settings in the environment."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

from dagster_dbt import DbtCliResource, DbtProject
from packaging.version import Version

from sluice import dbt_plugin
from sluice.connections import password_of, without_password
from sluice.contracts import Contract
from sluice.dbt_sources import write_sources
from sluice.lake import bucket_secrets
from sluice.pseudonyms import Key
from sluice.settings import PROJECT, Settings

DBT_PROJECT = PROJECT / "dbt_project"


def dbt_environment(settings: Settings) -> dict[str, str]:
    """The environment variables `profiles.yml` and its plugin read, and PGPASSWORD, which libpq does.

    They hold secrets: do not print.
    """
    paths = [str(PROJECT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {
        # dbt imports the plugin, which must be that of this very project.
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, paths))),
        "SLUICE_DBT_TARGET": "postgres" if settings.uses_postgres else "sqlite",
        # DuckDB names what it attached in errors, which dbt writes into logs and results: the password is not in it.
        dbt_plugin.METADATA: without_password(settings.attach_path).removeprefix("ducklake:"),
        dbt_plugin.DATA_PATH: settings.lake_data_path,
        dbt_plugin.BUCKETS: json.dumps(bucket_secrets(settings)),
        dbt_plugin.TEMP_DIRECTORY: str(settings.temp_path),
        dbt_plugin.PSEUDONYM_KEY: settings.pseudonym_key.get_secret_value(),
        # Empty is as good as none; what an earlier call has set must not stay.
        dbt_plugin.CORES: str(settings.threads or ""),
        dbt_plugin.MEMORY_LIMIT: settings.memory_limit,
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DBT_NO_VERSION_CHECK": "1",
    }
    password = password_of(settings.connection)
    if password:
        environment["PGPASSWORD"] = password
    return environment


def prepare_dbt_project(contracts: Iterable[Contract], settings: Settings, folder: Path = DBT_PROJECT) -> DbtProject:
    """Bring the dbt sources in line with the contracts and parse the project, only if anything changed since.

    Parsing takes seconds, so every process of a session shares one manifest; dagster-dbt locks while it is made.
    """
    os.environ.update(dbt_environment(settings))
    # dagster-dbt finds dbt on the PATH; an unactivated environment has it beside its Python.
    binaries = str(Path(sys.executable).parent)
    if binaries not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = binaries + os.pathsep + os.environ.get("PATH", "")
    write_sources(contracts, folder)
    project = DbtProject(project_dir=folder, profiles_dir=folder)
    if _stale(project.manifest_path, folder):
        project.preparer.prepare(project)
    return project


def _stale(manifest: Path, folder: Path) -> bool:
    if not manifest.exists():
        return True
    made = manifest.stat().st_mtime_ns
    return any(path.stat().st_mtime_ns > made for path in _sources(folder))


def _sources(folder: Path) -> list[Path]:
    """What the project is made of. Folders count too: removing a file changes only its folder's time."""
    found = [folder / "dbt_project.yml", folder / "profiles.yml"]
    for name in ("models", "macros", "tests", "seeds", "snapshots"):
        found += [folder / name, *(folder / name).rglob("*")]
    return [path for path in found if path.exists()]


def project_fingerprint(settings: Settings, folder: Path = DBT_PROJECT) -> str:
    """Changes with any file of the dbt project and with the key of the pseudonyms: 32 hex digits of a SHA-256."""
    digest = hashlib.sha256(Key(settings.pseudonym_key.get_secret_value().encode()).id.encode())
    for path in sorted(p for p in _sources(folder) if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


class DbtCommand(DbtCliResource):
    """dbt's command line, without two things that dagster-dbt does before each command and Sluice has no use for.

    Measured: of the 22 s of one warm partition, 1.6 s went into asking a dbt of its own for its version, and 1.5 s into
    importing dbt into this process, for an adapter that fetches row counts and columns; the asset has a connection for
    that. There is no option for either; a test tells when a release of dagster-dbt calls these otherwise.
    """

    @cached_property
    def _cli_version(self) -> Version:
        return Version(version("dbt-core"))

    def _initialize_dbt_core_adapter(self, args: Sequence[str]) -> None:  # type: ignore[override]
        return None


def dbt_resource(project: DbtProject) -> DbtCommand:
    """The dbt command line for a prepared project."""
    return DbtCommand(
        project_dir=str(project.project_dir),
        profiles_dir=str(project.profiles_dir),
        # The one whose version is taken for granted, whatever else is on the PATH.
        dbt_executable=str(Path(sys.executable).with_name("dbt")),
    )
