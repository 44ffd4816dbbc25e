"""What errors of the lake's outside are told as."""

from __future__ import annotations

from pathlib import Path

import duckdb

from sluice.errors import LakeUnavailableError, StorageFullError
from sluice.lake_errors import explain
from sluice.settings import load_settings


def test_errors_are_explained_or_left_alone(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    postgres = load_settings(home=tmp_path, catalog="postgres:host=db password=hunter2")
    for text in ("No space left on device", "database or disk is full", "Disk quota exceeded", "File too large"):
        told = explain(OSError(text), settings)
        assert isinstance(told, StorageFullError) and text in str(told) and str(tmp_path) in str(told)
    locked = explain(duckdb.IOException("database is locked"), settings)
    assert isinstance(locked, LakeUnavailableError) and str(settings.catalog_path) in str(locked)
    down = explain(duckdb.IOException("password=hunter2 host=db: Connection refused\nmore"), postgres)
    assert isinstance(down, LakeUnavailableError)
    assert "catalog stayed locked or unreachable: password=*** host=db: Connection refused. Nothing" in str(down)
    race = (
        'Failed to initialize DuckLake: Failed to execute query "CREATE TABLE": ERROR:  duplicate key value\nDETAIL: x'
    )
    assert "stayed locked or unreachable" in str(explain(duckdb.Error(race), postgres))
    for text in ('FATAL: database "x" does not exist', 'role "u" does not exist', "file is not a database"):
        assert isinstance(explain(duckdb.IOException(text), postgres), LakeUnavailableError)
    assert explain(duckdb.BinderException("Referenced column not found"), settings) is None
    assert explain(ValueError(""), settings) is None
