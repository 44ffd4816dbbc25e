"""Settings: where each comes from, who wins, and that a bad one is named while a secret never is."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from sluice import settings as module
from sluice.errors import ConfigurationError
from sluice.settings import PROJECT, load_settings


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of its own, so that no .env of the real one is read."""
    monkeypatch.setattr(module, "PROJECT", tmp_path / "project")
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def test_defaults_lie_below_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = load_settings(home=PROJECT / ".sluice-of-no-test")
    assert found.landing_path == PROJECT / ".sluice-of-no-test" / "landing"
    assert found.contracts == PROJECT / "contracts"
    assert found.catalog_path == found.home / "lake" / "catalog.sqlite"
    assert found.attach_path == f"ducklake:sqlite:{found.catalog_path}"
    assert found.lake_data_path == f"{found.home}/lake/data/"
    assert found.temp_path == found.home / "tmp"
    assert (found.start_date, found.end_date, found.threads, found.uses_postgres) == (date(2026, 1, 1), None, 0, False)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "SLUICE_HOME": str(tmp_path),
        "SLUICE_LANDING": "/srv/arrivals",
        "SLUICE_START_DATE": "2020-02-29",
        "SLUICE_END_DATE": "2020-03-01",
        "SLUICE_THREADS": "3",
        "SLUICE_CHUNK_BYTES": "77",
        "SLUICE_DATA_PATH": "s3://bucket/prefix",
        "SLUICE_MEMORY_LIMIT": "1.5 GiB",
    }.items():
        monkeypatch.setenv(name, value)
    found = load_settings()
    assert (found.home, found.landing_path) == (tmp_path, Path("/srv/arrivals"))
    assert (found.start_date, found.end_date) == (date(2020, 2, 29), date(2020, 3, 1))
    assert (found.threads, found.chunk_bytes, found.memory_limit) == (3, 77, "1.5 GiB")
    assert found.lake_data_path == "s3://bucket/prefix/"


def test_who_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, project: Path) -> None:
    """Argument before environment before the project's .env before the home's settings.env before the default."""
    home = tmp_path / "home"
    home.mkdir()
    seen = [load_settings(home=home).threads]
    (home / "settings.env").write_text("SLUICE_THREADS=1\nSLUICE_START_DATE=2021-01-01\n")
    seen.append(load_settings(home=home).threads)
    (project / ".env").write_text("SLUICE_THREADS=2\n")
    seen.append(load_settings(home=home).threads)
    monkeypatch.setenv("SLUICE_THREADS", "3")
    seen.append(load_settings(home=home).threads)
    seen.append(load_settings(home=home, threads=4).threads)
    assert seen == [0, 1, 2, 3, 4]
    # What the others do not name still comes from the home's file.
    assert load_settings(home=home).start_date == date(2021, 1, 1)
    assert load_settings(home=tmp_path / "another").start_date == date(2026, 1, 1)


def test_the_home_of_the_environment_names_its_settings_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, project: Path
) -> None:
    (project / "here").mkdir()
    (project / "here" / "settings.env").write_text("SLUICE_THREADS=5\n")
    monkeypatch.setenv("SLUICE_HOME", "here")
    found = load_settings()
    assert (found.home, found.threads) == (project / "here", 5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"threads": "many"}, ["SLUICE_THREADS: is no whole number"]),
        ({"threads": -1}, ["SLUICE_THREADS: ", "greater than or equal to 0"]),
        ({"threads": 99_999_999_999}, ["SLUICE_THREADS: ", "less than or equal to 4096"]),
        ({"belief_days": 10**7}, ["SLUICE_BELIEF_DAYS: ", "less than or equal to 36500"]),
        ({"chunk_bytes": 0}, ["SLUICE_CHUNK_BYTES: ", "greater than 0"]),
        ({"start_date": "2026-13-01"}, ["SLUICE_START_DATE: is no date; write for instance 2026-01-31"]),
        ({"start_date": "soon"}, ["SLUICE_START_DATE: is no date; write for instance 2026-01-31"]),
        ({"memory_limit": "lots"}, ["SLUICE_MEMORY_LIMIT: is no amount; write for instance 4GB"]),
        ({"end_date": date(2026, 1, 1)}, ["end_date 2026-01-01 must lie after start_date 2026-01-01"]),
        ({"threads": "x", "chunk_bytes": "y"}, ["SLUICE_THREADS", "SLUICE_CHUNK_BYTES"]),
    ],
)
def test_a_bad_value_is_named(values: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(home=tmp_path, **values)
    for word in [*words, "Mend the variable or the settings file."]:
        assert word in str(caught.value)


@pytest.mark.parametrize("landing", ["", ".", "..", "lake", "lake/data/bronze", "readers"])
def test_a_landing_area_is_a_folder_of_its_own(landing: str, tmp_path: Path) -> None:
    """An erasure rewrites what it finds there."""
    with pytest.raises(ConfigurationError, match="must be a folder of its own"):
        load_settings(home=tmp_path / "home", landing=tmp_path / "home" / landing)
    assert load_settings(home=tmp_path / "home", landing=tmp_path / "lake").landing_path == tmp_path / "lake"


def test_a_bad_variable_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "settings.env").write_text("SLUICE_START_DATE=tomorrow\n")
    with pytest.raises(ConfigurationError, match="SLUICE_START_DATE"):
        load_settings(home=tmp_path)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    catalog = "postgres:host=db password=hunter2"
    found = load_settings(home=tmp_path, catalog=catalog)
    assert found.uses_postgres and found.attach_path == f"ducklake:{catalog}"
    assert "hunter2" not in repr(found) + str(found) + found.model_dump_json()
    for bad in ({"catalog": "mysql://u:hunter2@db"}, {"catalog": catalog, "threads": "x"}, {"catalog": ["hunter2"]}):
        with pytest.raises(ConfigurationError) as caught:
            load_settings(home=tmp_path, **bad)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__suppress_context__


def test_settings_do_not_change(tmp_path: Path) -> None:
    found = load_settings(home=tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        found.threads = 5  # type: ignore[misc]


@pytest.mark.parametrize("place", ["environment", "project", "home"])
def test_a_mistyped_name_is_told(place: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out silently, the default would hold: here, what readers saw would be kept for other than was asked."""
    home = tmp_path / "home"
    home.mkdir()
    if place == "environment":
        monkeypatch.setenv("SLUICE_BELEIF_DAYS", "400")
    else:
        file = project / ".env" if place == "project" else home / "settings.env"
        file.write_text("# SLUICE_HOM=no setting\nexport SLUICE_BELEIF_DAYS = 400\n")
    with pytest.raises(
        ConfigurationError, match=r"SLUICE_BELEIF_DAYS is no setting\. Did you mean SLUICE_BELIEF_DAYS\?"
    ):
        load_settings(home=home)


def test_names_of_others_are_left_alone(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLUICE_DBT_THREADS", "SLUICE_S3_ENDPOINT", "SLUICE_TEAM", "SLUICES_HOME"):
        monkeypatch.setenv(name, "x")
    assert load_settings(home=tmp_path).home == tmp_path
