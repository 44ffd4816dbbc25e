"""Copying the SQLite catalog while it is used: for backups, and for readers that may write nowhere."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sluice.errors import LakeUnavailableError, StorageFullError
from sluice.lake_errors import explain, no_catalog
from sluice.settings import Settings


def copy_sqlite(settings: Settings, target: Path) -> None:
    """Copy the SQLite catalog as of one instant to a file of its own; writers are not held up.

    Raises:
        LakeUnavailableError: there is no lake, or its catalog cannot be read.
        StorageFullError: no room.
    """
    if not settings.catalog_path.exists():
        raise no_catalog(settings)
    target.unlink(missing_ok=True)
    try:
        # All pages in one step, under one read transaction: with WAL nobody waits for it, nor it for anybody.
        with closing(sqlite3.connect(settings.catalog_path)) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)
            # One file, without a log beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise StorageFullError(f"The disk of {target} is full. Make room and run it again.") from error
        raise explain(error, settings) or LakeUnavailableError(
            f"The catalog {settings.catalog_path} cannot be read: {error}. `sluice books` tells whether the lake works."
        ) from error
