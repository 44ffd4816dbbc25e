"""Copying the SQLite catalog while it is used: for backups, and for readers that may write nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sluice import sqlite_copy
from sluice.errors import LakeUnavailableError, StorageFullError
from sluice.lake_errors import explain, no_catalog
from sluice.settings import Settings


def copy_sqlite(settings: Settings, target: Path) -> None:
    """Copy the SQLite catalog as of one instant to a file of its own; writers are not held up.

    A process of its own does it. Locks on a file are a process's, and end when any part of it closes the file: a copy
    made here would take the catalog, and its write-ahead log with it, from a transaction of DuckDB in another thread.

    Raises:
        LakeUnavailableError: there is no lake, or its catalog cannot be read.
        StorageFullError: no room.
    """
    if not settings.catalog_path.exists():
        raise no_catalog(settings)
    target.unlink(missing_ok=True)
    # -I and -S: nothing of the environment, and no packages, which would take longer to find than the copy does.
    command = [sys.executable, "-I", "-S", sqlite_copy.__file__, str(settings.catalog_path), str(target)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode == sqlite_copy.FULL:
        raise StorageFullError(f"The disk of {target} is full. Make room and run it again.")
    if done.returncode != 0:
        said = done.stderr.strip() or f"the copy ended with code {done.returncode}"
        raise explain(RuntimeError(said), settings) or LakeUnavailableError(
            f"The catalog {settings.catalog_path} cannot be read: {said}. `sluice books` tells whether the lake works."
        )
