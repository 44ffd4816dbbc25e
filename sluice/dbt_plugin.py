"""A plugin of dbt-duckdb: brings to dbt's connections what dbt itself is not told.

That is where the lake is, the credentials of its bucket, what of this machine DuckDB may use, and the key of the
pseudonyms. By way of the environment and of DuckDB's secrets and variables they stand in no profile, compiled SQL, log
or manifest; and the profile is the same for every lake, so that a project parsed once is parsed for all of them.

dbt-duckdb wants a class `Plugin` with these methods; it need not be derived from its own, and the engine knows no dbt.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import duckdb

from sluice.connections import secret_sql
from sluice.pseudonyms import PSEUDONYM, Key

# The environment of dbt; resources.dbt sets it.
METADATA = "SLUICE_DBT_METADATA"  # sqlite:<file> or postgres:<connection string without a password>
DATA_PATH = "SLUICE_DBT_DATA_PATH"  # folder or bucket of the Parquet files
BUCKETS = "SLUICE_DBT_SECRETS"  # a JSON list: credentials of the bucket, if the Parquet files are in one
MEMORY_LIMIT = "SLUICE_DBT_MEMORY_LIMIT"  # memory DuckDB may use before it spills; 2 GB where it says nothing
TEMP_DIRECTORY = "SLUICE_DBT_TEMP_DIRECTORY"  # where it spills to
CORES = "SLUICE_DBT_CORES"  # threads of DuckDB; all cores where it says nothing
PSEUDONYM_KEY = "SLUICE_DBT_PSEUDONYM_KEY"

# The name by which the profile attaches the lake.
_SECRET = "sluice"


class Plugin:
    """What dbt-duckdb makes of `plugins: [{module: sluice.dbt_plugin}]` in a profile."""

    def __init__(self, name: str, plugin_config: dict[str, Any], credentials: object = None) -> None:
        self.name = name
        self.creds = credentials

    def update_connection_config(self, creds: object, config: dict[str, Any]) -> None:
        """Say what of this machine DuckDB may use."""
        config["memory_limit"] = os.environ.get(MEMORY_LIMIT) or "2GB"
        config["temp_directory"] = os.environ.get(TEMP_DIRECTORY, str(Path(tempfile.gettempdir()) / "sluice_dbt"))
        if os.environ.get(CORES):
            config["threads"] = os.environ[CORES]

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Make the secrets with which the lake is attached; variables are not handed down to cursors.

        Raises:
            KeyError: the environment does not say where the lake is.
        """
        for bucket in json.loads(os.environ.get(BUCKETS, "[]")):
            conn.execute(secret_sql(bucket))
        lake = {"type": "ducklake", "metadata_path": os.environ[METADATA], "data_path": os.environ[DATA_PATH]}
        conn.execute(secret_sql(lake, _SECRET))

    def configure_cursor(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Set the variables of the pseudonyms, to null where there is no key."""
        Key(os.environ.get(PSEUDONYM_KEY, "").encode()).put(cursor, PSEUDONYM)
