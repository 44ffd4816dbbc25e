"""Shadows: where rows that are made again stand until they are swapped in, and what sweeps shadows away.

A shadow is a source for a while, `<source>__rebuilt_<token>`, with a bronze table and books; each run has one of its
own. Belongs here: its name, whose turn it is, and how it goes. What is read into it, and the swap, belong to
`sluice.rebuild` and `sluice.swap`. An erasure sweeps shadows away: what they hold was read before the person was on the
list.
"""

from __future__ import annotations

import dataclasses
import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from sluice.bronze import table_columns
from sluice.contracts import REBUILT, Contract
from sluice.errors import RebuildHeldError, SluiceError
from sluice.lake import LAKE
from sluice.settings import Settings
from sluice.sql import quoted

BOOKS = ("ledger", "dead_letters", "warnings", "stream_positions", "schema_drift")


class ShadowLostError(SluiceError):
    """A shadow was swept away, or may hold somebody who was erased since it was begun. Nothing was changed."""


def shadow_of(contract: Contract) -> Contract:
    """A source that rows are made again as: another each time."""
    return dataclasses.replace(contract, name=f"{contract.name}{REBUILT}_{secrets.token_hex(4)}")


@contextmanager
def turn_of(settings: Settings, source: str) -> Iterator[None]:
    """Be the only one on this home folder who makes a source's rows again; the kernel ends the turn of the dead.

    Raises:
        RebuildHeldError: somebody else does.
        OSError: the lock's file cannot be made.
    """
    path = settings.home / "lake" / f"rebuild.{source}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RebuildHeldError(
                f"Rows of {source} are being made again by another replay. Nothing was changed. Wait for it to end, "
                "then run this one again."
            ) from None
        yield


def is_there(con: duckdb.DuckDBPyConnection, shadow: Contract) -> bool:
    """Whether a shadow has not been swept away."""
    return bool(table_columns(con, shadow.name))


def sweep(con: duckdb.DuckDBPyConnection, source: str | None = None) -> None:
    """Take away all shadows, or those of a source, be they those of a process that died; part of a transaction."""
    if source is None:
        _take_away(con, "contains({}, $name)", REBUILT)
    else:
        _take_away(con, "starts_with({}, $name)", source + REBUILT)


def end(con: duckdb.DuckDBPyConnection, shadow: Contract) -> None:
    """Take one shadow away, if it is still there; part of a transaction."""
    _take_away(con, "{} = $name", shadow.name)


def _take_away(con: duckdb.DuckDBPyConnection, which: str, name: str) -> None:
    tables = con.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = $lake AND schema_name = 'bronze' AND "
        + which.format("table_name"),
        {"lake": LAKE, "name": name},
    ).fetchall()
    for (table,) in tables:
        con.execute(f"DROP TABLE bronze.{quoted(table)}")
    for table in (*BOOKS, "turns"):
        con.execute(f"DELETE FROM ops.{table} WHERE {which.format('source')}", {"name": name})


def erasures(con: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """Changes with each person who is put on the list of the erased, or erased once more."""
    row = con.execute(
        "SELECT count(*), coalesce(bit_xor(hash(subject, subject_hash, snapshot_id)), 0) FROM ops.erasures"
    ).fetchone()
    assert row is not None, "an aggregate has a row"
    return row[0], row[1]
