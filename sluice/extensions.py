"""The packaged DuckDB extensions: put in place without any download, their signatures checked once in a process.

Belongs here: where extensions come from and whether they are trusted. What is attached with them is `sluice.lake`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import duckdb

# Of each kind of attachment, the extension files DuckDB has checked in this process: path, size, time of change.
_Files = frozenset[tuple[str, int, int]]
_checked: dict[str, _Files | None] = {}


@cache
def install_extensions() -> None:
    """Put the packaged DuckDB extensions where DuckDB (and so dbt) loads them from. Nothing is downloaded.

    A copy already there is kept when it is of the same package version: replacing a file other processes have
    mapped would be a race for nothing.
    """
    # Deferred: whoever only reads settings or contracts needs no extension machinery.
    from duckdb_extensions import import_extension

    with duckdb.connect() as con:
        present = {
            name for (name,) in con.execute("SELECT extension_name FROM duckdb_extensions() WHERE installed").fetchall()
        }
        for name in ("ducklake", "sqlite_scanner", "postgres_scanner", "httpfs"):
            if name not in present:
                import_extension(name, con=con)


def opened(kind: str, attach: Callable[[duckdb.DuckDBPyConnection], None]) -> duckdb.DuckDBPyConnection:
    """A new database in memory on which `attach` has run, which loads extensions.

    DuckDB checks an extension's signature at every load, by its whole file: 0.23 of the 0.28 s of attaching a lake.
    What it has checked for this process, and what is still the same file, is loaded again without; before the
    connection is handed out it is closed to unsigned extensions, which DuckDB does not let anyone undo.

    Args:
        kind: attachments of the same kind load the same extensions.
        attach: attaches; may be called once only.
    """
    known = _checked.get(kind)
    trusted = known is not None and known == _as_they_are(path for path, _, _ in known)
    con = duckdb.connect(config={"allow_unsigned_extensions": "true"} if trusted else {})
    try:
        attach(con)
        if trusted:
            con.execute("SET allow_unsigned_extensions = false")
        else:
            _checked[kind] = _as_they_are(_loaded(con))
    except BaseException:
        con.close()
        raise
    return con


def _loaded(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Files of the extensions this connection has loaded; those that are part of DuckDB have none."""
    sql = "SELECT install_path FROM duckdb_extensions() WHERE loaded AND install_mode <> 'STATICALLY_LINKED'"
    return [path for (path,) in con.execute(sql).fetchall()]


def _as_they_are(paths: Iterable[str]) -> _Files | None:
    """What tells these files from others under their names; None if one is not there."""
    try:
        found = [(path, Path(path).stat()) for path in paths]
    except OSError:
        return None
    return frozenset((path, stat.st_size, stat.st_mtime_ns) for path, stat in found)
