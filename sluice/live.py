"""Live views: what is published, and what has streamed in since, as one answer that counts nothing twice.

A view reads the published snapshot by its number, and bronze as it is at the moment somebody asks. So the number is
written into it anew with each publication. What a view says stands in `dbt_project/live`, one file each; what is
published, in `sluice.publication`.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from sluice.lake import LAKE, Lake
from sluice.settings import PROJECT
from sluice.sql import quoted

FOLDER = PROJECT / "dbt_project" / "live"

# Stands in the files for the number of the published snapshot.
PUBLISHED = "{{ published }}"

# How every live view is called: dbt's check for tables that no model makes leaves them alone by it.
PREFIX = "live_"


def refresh_live_views(lake: Lake, snapshot: int, folder: Path = FOLDER) -> dict[str, str]:
    """Make the live views of a published snapshot, each by itself; those that cannot be of it are taken away.

    Args:
        lake: where they are, in schema gold.
        snapshot: that readers see.
        folder: of their files, `live_<name>.sql`.

    Returns:
        Of each view that could not be made, why: usually the snapshot does not hold a table it reads yet.

    Raises:
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    wanted = {
        path.stem: path.read_text(encoding="utf-8").replace(PUBLISHED, str(int(snapshot)))
        for path in sorted(folder.glob(f"{PREFIX}*.sql"))  # live_arrivals first: the others read it
    }
    problems: dict[str, str] = {}
    with lake.connect() as con:
        # A publication that is no new one needs no views: each is a change of the catalog.
        pending = [name for name in wanted if _version(con, name) != snapshot]
        while pending:
            try:
                lake.transaction(con, lambda c: _make(c, wanted, pending), f"live views of {snapshot}")
                break
            except _CannotBeMadeError as error:
                problems[error.view] = error.why
                pending.remove(error.view)
        gone = [name for name in problems if _version(con, name) is not None]
        if gone:
            drops = [f"DROP VIEW IF EXISTS gold.{quoted(name)}" for name in gone]
            lake.transaction(con, lambda c: [c.execute(sql) for sql in drops], "live views taken away")
    return problems


class _CannotBeMadeError(Exception):
    """A view reads what its snapshot does not hold."""

    def __init__(self, view: str, why: str) -> None:
        super().__init__(why)
        self.view, self.why = view, why


def _make(con: duckdb.DuckDBPyConnection, wanted: dict[str, str], names: list[str]) -> None:
    for name in names:
        try:
            con.execute(f"CREATE OR REPLACE VIEW gold.{quoted(name)} AS {wanted[name]}")
        except (duckdb.BinderException, duckdb.CatalogException) as error:
            raise _CannotBeMadeError(name, str(error).splitlines()[0]) from error


def _version(con: duckdb.DuckDBPyConnection, name: str) -> int | None:
    """The snapshot a view is of; None where it is not there, or of several, which is none of ours."""
    rows = con.execute(
        "SELECT DISTINCT unnest(regexp_extract_all(sql, '(?i)version => (\\d+)', 1)) FROM duckdb_views() "
        "WHERE database_name = ? AND schema_name = 'gold' AND view_name = ?",
        [LAKE, name],
    ).fetchall()
    return int(rows[0][0]) if len(rows) == 1 else None
