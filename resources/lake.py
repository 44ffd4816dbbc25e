"""The lake as a Dagster resource."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
from dagster_duckdb import DuckDBResource

from sluice.lake import Lake
from sluice.settings import Settings, load_settings


class LakeResource(DuckDBResource):
    """A DuckDB connection with the lake attached, and the engine's `Lake`.

    Settings are read from the environment when used, so that no secret is stored with a run's configuration.
    """

    database: str = ":memory:"
    home: str = ""

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return load_settings(**({"home": self.home} if self.home else {}))

    @property
    def lake(self) -> Lake:
        """The engine's lake of these settings."""
        return Lake(self.settings)

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that may write, with the lake attached as `lake` and in use."""
        with self.lake.connect() as con:
            yield con
