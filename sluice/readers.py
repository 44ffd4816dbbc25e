"""What readers are given: a copy of the SQLite catalog that nobody writes to, and scripts that open it.

DuckDB asks an SQLite catalog several times for one query, by a connection of its own each time. Measured: whoever asks
while maintenance merges files may find the rows of a table neither in the old files nor in the new one, and is not
told. Of a file that never changes all answers are of one instant; nor do readers and writers wait for each other, and
accounts that may write nowhere can open it. Each publication and each maintenance makes a copy under a new name.

A PostgreSQL catalog needs no copies, and has roles for readers (docs/deploy.md, 'Readers').
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from sluice.connections import without_password
from sluice.lake import LAKE, copies
from sluice.settings import Settings
from sluice.sql import literal
from sluice.sqlite_catalog import UNFINISHED, copy_sqlite

# Who has opened a copy goes on with it; DuckDB opens it again by its name. An hour of publications, two minutes apart,
# is thirty copies of some megabytes. The data files a copy names are kept for a day.
_KEPT_SECONDS = 3600

# A copy of 250 MB is made in seconds.
_ABANDONED_SECONDS = 600


def refresh_readers(settings: Settings, *, only: bool = False) -> Path:
    """Give readers the catalog as it is now, in one step.

    To be called when readers were moved, and when files were replaced that the copies name.

    Args:
        settings: of the lake.
        only: take away all former copies at once, from whoever reads them, too, and what killed processes have left.

    Returns:
        `published.sql` in the home folder.

    Raises:
        LakeUnavailableError, StorageFullError: the catalog cannot be read, or the copy not written.
    """
    if settings.uses_postgres:
        return _write(settings.home / "published.sql", reader_script(settings.attach_path, settings.lake_data_path))
    folder = settings.readers_path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as own:
        unnamed = Path(own) / "catalog.sqlite"
        copy_sqlite(settings, unnamed)
        catalog = _named(unnamed, folder)
    text = reader_script(f"ducklake:sqlite:{catalog}", settings.lake_data_path)
    _write(folder / "published.sql", text)
    script = _write(settings.home / "published.sql", text)
    made = copies(settings)
    # Those after it are somebody else's, and what readers are given by now.
    for former in made[: made.index(catalog)] if catalog in made else []:
        if only or _older(former, _KEPT_SECONDS):
            former.unlink(missing_ok=True)
    if only:
        # Else maintenance removes what killed processes have left.
        for unfinished in folder.glob(f"{UNFINISHED}*"):
            if _older(unfinished, _ABANDONED_SECONDS):
                shutil.rmtree(unfinished, ignore_errors=True)
    return script


def _older(path: Path, seconds: float) -> bool:
    """Whether a file is older; false where somebody has removed it."""
    try:
        return path.stat().st_mtime < time.time() - seconds
    except FileNotFoundError:
        return False


def _named(temporary: Path, folder: Path) -> Path:
    """The copy under the next number; two who make one at once get one each."""
    number = 1 + max((int(p.stem.partition("-")[2]) for p in folder.glob("catalog-*.sqlite")), default=0)
    while True:
        try:
            os.link(temporary, folder / f"catalog-{number}.sqlite")
            return folder / f"catalog-{number}.sqlite"
        except FileExistsError:
            number += 1


def _write(path: Path, text: str) -> Path:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    return path


def reader_script(attach_path: str, data_path: str) -> str:
    """SQL that attaches a lake read-only at the snapshot that is published when it runs; without a password.

    With a PostgreSQL catalog it takes the connection's secrets from the PG environment variables (PGPASSWORD …).
    """
    attach, data = literal(without_password(attach_path)), literal(data_path)
    lines = [
        "-- Attaches the lake read-only at the published snapshot, as `lake`: duckdb -init published.sql",
        f"ATTACH {attach} AS head (READ_ONLY, DATA_PATH {data});",
        "SET VARIABLE published = (SELECT arg_max(snapshot_id, publication_id) FROM head.ops.publications);",
        f"ATTACH {attach} AS {LAKE} (READ_ONLY, DATA_PATH {data}, SNAPSHOT_VERSION getvariable('published'));",
        f"USE {LAKE}.gold;",
        "DETACH head;",
    ]
    return "\n".join(lines) + "\n"
