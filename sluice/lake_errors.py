"""What an error of DuckDB, SQLite, PostgreSQL or a file system means for the lake, and what to do about it.

Belongs here: telling such errors apart by their texts, which is all they have, and the messages made of them. When work
is tried again is `sluice.lake`'s to say; the classes raised are in `sluice.errors`.
"""

from __future__ import annotations

import os
import re
import shutil

import duckdb

from sluice.connections import scrub
from sluice.errors import (
    ConfigurationError,
    DataDamagedError,
    LakeUnavailableError,
    MemoryLimitError,
    NoLakeError,
    SluiceError,
    StorageFullError,
)
from sluice.ops_tables import OPS_TABLES
from sluice.settings import Settings

_TRANSIENT = re.compile(
    r"database is locked|transaction conflict|conflict(ing)? (with|in)|could not serialize|deadlock detected"
    r"|connection (refused|reset|timed out)|server closed the connection|could not connect|too many clients"
    # Several processes that make the lake in one empty PostgreSQL database: all but the first find its tables there.
    r"|failed to initialize ducklake: .*(duplicate key|already exists)"
    # DuckLake since DuckDB 1.5.3 may, committing, read a schema it has let go of (duckdb/ducklake#1248; mended for the
    # next release by #1359). The commit fails and is rolled back; seen once in maintenance.
    r"|schema with id \d+ - schema not found|basic_string::_M_create"
    # What DuckLake asks its catalog after one of its own statements met a lock, and did not say so.
    r"|current transaction is aborted",
    re.IGNORECASE,
)
_FULL = re.compile(
    r"no space left|disk full|database or disk is full|disk quota|file too large|failed to offload|out of disk",
    re.IGNORECASE,
)
_MEMORY = re.compile(r"out of memory|failed to (allocate|pin)|could not allocate", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"unable to open database|cannot open|could not connect|connection refused|could not translate host"
    r"|not a database|disk image is malformed|password authentication failed|(role|database) \"[^\"]*\" does not exist"
    r"|unable to connect to postgres|attempt to write a readonly database|permission denied for (table|schema)",
    re.IGNORECASE,
)
# As DuckDB tells of Parquet that cannot be decoded where it does not name the file.
_DAMAGED = re.compile(
    r"no magic bytes|too small to be a parquet|not a parquet file|tprotocolexception|decompress|invalid parquet"
    r"|failed to read parquet",
    re.IGNORECASE,
)
_LOST = re.compile(r"creating a new DuckLake is explicitly disabled")
_NO_TABLE = re.compile(r'table with name "?(?:ops\.)?(\w+)"? does not exist', re.IGNORECASE)
_ELSEWHERE = re.compile(r"does not match existing data path in the catalog \"(.*)\"")


def _gist(text: str) -> str:
    """The first line of an error, and the one that says why where the first does not."""
    lines = [line.strip() for line in text.strip().splitlines()]
    why = [line for line in lines if any(kind.search(line) for kind in (_FULL, _TRANSIENT, _UNREACHABLE))][:1]
    return " ".join(dict.fromkeys([*lines[:1], *why]))


def transient(error: Exception) -> bool:
    """Whether an error says that somebody else was in the way: the same work may succeed a moment later."""
    return bool(_TRANSIENT.search(str(error)))


def no_room(error: Exception) -> bool:
    """Whether an error says that a disk is full."""
    return bool(_FULL.search(str(error)))


def damaged(message: str, settings: Settings) -> str | None:
    """What to say where a message is about a data file of the lake that is missing or cannot be read; else None."""
    lines = [line.strip() for line in message.strip().splitlines()]
    named = [line for line in lines if ".parquet" in line]
    found = [line for line in named if settings.lake_data_path in line and "ermission denied" not in line]
    if not named:
        # Some errors of decoding name no file.
        found = [line for line in lines if _DAMAGED.search(line)]
    if not found:
        return None
    why = scrub(found[0], settings.connection)
    return f"A data file of the lake is missing or damaged: {why}. `sluice verify` names it and says what to do."


def holds_data(settings: Settings) -> bool:
    """Whether a lake has written here: Parquet files lie in its data folder. Of a bucket it is not known: false."""
    if "://" in settings.lake_data_path:
        return False
    return any(name.endswith(".parquet") for _, _, names in os.walk(settings.lake_data_path) for name in names)


def no_catalog(settings: Settings) -> LakeUnavailableError:
    """What to raise where there is no catalog: nothing has been loaded yet (`NoLakeError`), or it is lost."""
    where = "the database of SLUICE_CATALOG" if settings.uses_postgres else str(settings.catalog_path)
    if holds_data(settings):
        return LakeUnavailableError(
            f"There is no lake at {where}, but its data files are in {settings.lake_data_path}: the catalog is gone, "
            "and without it nobody knows what they hold. Nothing was made anew. Put the catalog back or restore a "
            "backup (docs/backup.md); to begin with an empty lake, move that folder away."
        )
    return NoLakeError(
        f"There is no lake at {where} yet. Run `make demo`, or load something with `make dev`; or point SLUICE_HOME at "
        "the lake you mean."
    )


def explain(error: Exception, settings: Settings) -> SluiceError | None:
    """Turn a low-level error into one that says what to do; None if the error is not about the lake's outside."""
    message = _gist(scrub(str(error), settings.connection)) or type(error).__name__
    if elsewhere := _ELSEWHERE.search(str(error)):
        return ConfigurationError(
            f"This lake's data lies in {elsewhere[1]}, and not in {settings.lake_data_path}. Mend SLUICE_DATA_PATH "
            "or SLUICE_HOME, or put the folder back. A lake is moved by restoring a backup elsewhere (docs/backup.md)."
        )
    if no_room(error):
        free = shutil.disk_usage(settings.home).free if settings.home.exists() else 0
        return StorageFullError(
            f"The disk under {settings.home} is full ({free / 1e6:.0f} MB free): {message}. Nothing of this batch was "
            "committed. Make room (docs/operations.md, 'The disk is full') and run it again."
        )
    if isinstance(error, duckdb.Error) and _MEMORY.search(str(error)):
        return MemoryLimitError(
            f"DuckDB's memory does not suffice: {message}. Nothing of this batch was committed. Raise "
            "SLUICE_MEMORY_LIMIT, lower SLUICE_THREADS, or have the files delivered in smaller parts."
        )
    if _LOST.search(str(error)):
        return no_catalog(settings)
    lacking = _NO_TABLE.search(str(error))
    if lacking and lacking[1] in OPS_TABLES and f"ops.{lacking[1]}" in str(error):
        where = "the database of SLUICE_CATALOG" if settings.uses_postgres else str(settings.catalog_path)
        return NoLakeError(
            f"The lake at {where} has no table ops.{lacking[1]}: Sluice has not loaded anything into it, or only an "
            "earlier version has. Load something (`make dev`), which makes the table; or point SLUICE_HOME at the lake "
            "you mean."
        )
    where = "PostgreSQL catalog" if settings.uses_postgres else f"catalog {settings.catalog_path}"
    if _TRANSIENT.search(str(error)):
        return LakeUnavailableError(
            f"The {where} stayed locked or unreachable: {message}. Nothing of this batch was committed. "
            "See who else writes, or whether the server runs, then run it again."
        )
    if isinstance(error, duckdb.Error) and (told := damaged(str(error), settings)):
        return DataDamagedError(f"{told} Nothing of this batch was committed.")
    if _UNREACHABLE.search(str(error)):
        return LakeUnavailableError(
            f"The {where} cannot be opened: {message}. Check SLUICE_HOME and SLUICE_CATALOG, that the folder or server "
            "is there and that you may write to it."
        )
    return None
