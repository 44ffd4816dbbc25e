"""What accounts without any right to write are given to read: a copy of the catalog, and a script that opens it.

With a SQLite catalog only: SQLite reads a database with a write-ahead log only where it may write beside it, and who
may write there could change the lake. A PostgreSQL catalog has roles for this (docs/deploy.md, 'Readers').
"""

from __future__ import annotations

import os
from pathlib import Path

from sluice.publication import reader_script
from sluice.settings import Settings
from sluice.sqlite_catalog import copy_sqlite


def refresh_readers(settings: Settings) -> Path | None:
    """Bring the readers' copy in line with the lake, in one step.

    To be called when readers were moved, and after maintenance, which replaces files that the copy names.

    Returns:
        The script that opens the copy; None with a PostgreSQL catalog, which needs none.

    Raises:
        LakeUnavailableError, StorageFullError: the catalog cannot be read, or the copy not written.
    """
    if settings.uses_postgres:
        return None
    folder = settings.readers_path
    folder.mkdir(parents=True, exist_ok=True)
    catalog = folder / settings.catalog_path.name
    temporary = folder / f".{catalog.name}.{os.getpid()}"
    try:
        copy_sqlite(settings, temporary)
        temporary.replace(catalog)
    finally:
        temporary.unlink(missing_ok=True)
    script = folder / "published.sql"
    text = reader_script(f"ducklake:sqlite:{catalog}", settings.lake_data_path)
    if not script.exists() or script.read_text(encoding="utf-8") != text:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(script)
    return script
