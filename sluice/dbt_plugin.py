"""A plugin of dbt-duckdb: puts the key of the pseudonyms into dbt's connections, where SQL asks for it by name.

By way of the environment and a variable of the connection the key stands in no profile, compiled SQL, log or manifest.
dbt-duckdb wants a class `Plugin` with these methods; it need not be derived from its own, and the engine knows no dbt.
"""

from __future__ import annotations

import os
from typing import Any

import duckdb

from sluice.pseudonyms import PSEUDONYM, Key

VARIABLE = "SLUICE_DBT_PSEUDONYM_KEY"


class Plugin:
    """What dbt-duckdb makes of `plugins: [{module: sluice.dbt_plugin}]` in a profile."""

    def __init__(self, name: str, plugin_config: dict[str, Any], credentials: object = None) -> None:
        self.name = name
        self.creds = credentials

    def update_connection_config(self, creds: object, config: dict[str, Any]) -> None:
        """Nothing to add to the configuration of the database."""

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Nothing: variables are not handed down to cursors, and dbt works on cursors only."""

    def configure_cursor(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Set the variables of the pseudonyms, to null where there is no key."""
        Key(os.environ.get(VARIABLE, "").encode()).put(cursor, PSEUDONYM)
