"""Copying the SQLite catalog while it is used: for backups, and for readers that may write nowhere."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from sluice import sqlite_copy
from sluice.errors import LakeUnavailableError, StorageFullError
from sluice.lake_errors import explain, no_catalog
from sluice.settings import Settings

# Of a folder that lies beside the copy until that is whole.
UNFINISHED = ".catalog-"


def copy_sqlite(settings: Settings, target: Path) -> None:
    """Copy the SQLite catalog as of one instant to a file of its own; writers are not held up.

    A process of its own does it. Locks on a file are a process's, and end when any part of it closes the file: a copy
    made here would take the catalog, and its write-ahead log with it, from a transaction of DuckDB in another thread.

    Raises:
        LakeUnavailableError: there is no lake, or its catalog cannot be read.
        StorageFullError: no room.
        OSError: the folder of `target` is not there, or may not be written to.
    """
    if not settings.catalog_path.exists():
        raise no_catalog(settings)
    # Should that process outlive this one for a moment, it writes to nothing that has a name.
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=target.parent) as folder:
        made = Path(folder) / target.name
        _copy(settings, made)
        made.replace(target)


def _copy(settings: Settings, target: Path) -> None:
    # -I and -S: nothing of the environment, and no packages, which would take longer to find than the copy does.
    python = sys.executable or "python3"
    command = [python, "-I", "-S", sqlite_copy.__file__, str(settings.catalog_path), str(target)]
    try:
        # It ends with its input, which lasts as long as this block, or this process.
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None, "it was asked for"
            said = process.stderr.read().decode(errors="replace").strip()
    except OSError as error:
        raise LakeUnavailableError(
            f"The catalog {settings.catalog_path} cannot be copied: {python} cannot be started: {error.strerror}."
        ) from error
    if process.returncode == sqlite_copy.NO_ROOM:
        raise StorageFullError(
            f"There is no room for a copy of the catalog in {target.parent.parent}: {said}. Make room and run it again."
        )
    if process.returncode != 0:
        said = said or f"the copy ended with code {process.returncode}"
        raise explain(RuntimeError(said), settings) or LakeUnavailableError(
            f"The catalog {settings.catalog_path} cannot be read: {said}. `sluice books` tells whether the lake works."
        )
