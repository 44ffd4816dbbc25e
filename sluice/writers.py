"""Who may write when: a build is alone with the lake until it is audited, and whoever loads waits for it.

Else what came after the tests would be taken for tested, and readers would see it. On an SQLite catalog one writer is
the most there may be: SQLite lets a transaction that began before another's commit fail at once. Sluice's own would be
tried again; dbt's fail its build. On PostgreSQL whoever loads does so beside others. What is written belongs to
`sluice.lake`; whose turn it is on a partition, to `sluice.booking`.
"""

from __future__ import annotations

import fcntl
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import duckdb

from sluice.connections import scrub
from sluice.errors import LakeUnavailableError
from sluice.extensions import install_extensions, opened
from sluice.settings import Settings
from sluice.sql import literal

# What Sluice's own transactions on a small lake stay below; after that somebody is told why nothing happens.
_QUIET_SECONDS = 3.0
_LOOK_AGAIN_SECONDS = 0.05

# The advisory lock in the catalog's database, which has one lake: "sluice" in ASCII, so that nobody else's is met.
_KEY = int.from_bytes(b"sluice")

# Settings by which PostgreSQL ends what takes long; the last is of version 17.
_LIMITS = ("idle_in_transaction_session_timeout", "lock_timeout", "statement_timeout", "transaction_timeout")

_WAITING = "Waiting for somebody else who writes to the lake: a build, or another command."

_log = logging.getLogger(__name__)


@dataclass
class _Place:
    """The only place for a writer, as this process sees it: one thread has it, as often as it likes."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    depth: int = 0
    file: IO[bytes] | None = None


@dataclass
class _Session:
    """A session of PostgreSQL that holds the lock for one thread, for itself or (`shared`) beside others."""

    con: duckdb.DuckDBPyConnection
    shared: bool


_places: dict[Path, _Place] = {}
_guard = threading.Lock()
# By connection string, the session this thread has.
_sessions = threading.local()


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Be the only writer of the lake for a while; waits, however long, for who is.

    The place of a process that has ended, whichever way, is free again: the kernel, or PostgreSQL, sees to it.

    Raises:
        OSError: the lock's file cannot be made.
        LakeUnavailableError: PostgreSQL cannot be reached.
    """
    if not settings.uses_postgres:
        with _only_one(settings):
            yield
        return
    try:
        session = _taken(settings, shared=False)
    except duckdb.Error as error:
        # Its cause would spell out the connection's password.
        told = scrub(str(error), settings.connection).strip()
        raise LakeUnavailableError(f"The PostgreSQL catalog gives no turn to write: {told}") from None
    with _let_go(settings, session):
        yield


@contextmanager
def beside(settings: Settings) -> Iterator[None]:
    """Write a transaction while nobody is alone; waits, however long, for who is. Within `alone` it is part of that.

    On an SQLite catalog that is being alone. With PostgreSQL others may write meanwhile.

    Raises:
        OSError: the lock's file cannot be made.
        LakeUnavailableError: PostgreSQL has ended the session by which this thread was alone.
        duckdb.Error: PostgreSQL cannot be reached; the message may hold the password.
    """
    if not settings.uses_postgres:
        with _only_one(settings):
            yield
        return
    with _let_go(settings, _taken(settings, shared=True)):
        yield


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    path = settings.home / "lake" / "writer.lock"
    with _guard:
        place = _places.setdefault(path, _Place())
    with place.lock:
        if place.file is None:
            place.file = _locked(path)
        place.depth += 1
        try:
            yield
        finally:
            place.depth -= 1
            if not place.depth:
                place.file.close()
                place.file = None


def _locked(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    try:
        until = time.monotonic() + _QUIET_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                if time.monotonic() > until:
                    break
                time.sleep(_LOOK_AGAIN_SECONDS)
        _log.warning(_WAITING)
        fcntl.flock(file, fcntl.LOCK_EX)
    except BaseException:
        file.close()
        raise
    return file


def _taken(settings: Settings, *, shared: bool) -> _Session | None:
    """A session that holds the lock, once it is this thread's turn; None where the thread has one that will do.

    PostgreSQL serves those who wait in their order: a build is not kept waiting by loads that come after it.
    """
    held = _mine().get(settings.connection)
    if held is not None:
        assert shared or not held.shared, "who writes beside others cannot be alone: two who tried would wait for ever"
        _still(held)
        return None
    install_extensions()
    con = opened("postgres lock", lambda c: _attach(c, settings.connection))
    try:
        _lock(con, shared=shared)
    except BaseException:
        _end(con)
        raise
    _mine()[settings.connection] = session = _Session(con, shared)
    return session


def _lock(con: duckdb.DuckDBPyConnection, *, shared: bool) -> None:
    """Wait for the lock; it lasts as long as the transaction this begins.

    A lock of the session would go with it when DuckDB puts it back among those it may reset or close.
    """
    # Told beside: who stopped waiting to tell it would begin anew as the last of those who wait.
    told = threading.Timer(_QUIET_SECONDS, _log.warning, [_WAITING])
    told.daemon = True
    told.start()
    try:
        con.execute("BEGIN")
        # A server may be told to end what takes long; in this one nothing happens, and it waits. Not every version has
        # all of them.
        limits = ", ".join(literal(name) for name in _LIMITS)
        _ask(con, f"SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN ({limits})")
        _ask(con, f"SELECT pg_advisory_xact_lock{'_shared' if shared else ''}({_KEY}) IS NULL")
    finally:
        told.cancel()


@contextmanager
def _let_go(settings: Settings, session: _Session | None) -> Iterator[None]:
    """At the end, end a session and with it its hold on the lock; None is somebody else's to end."""
    try:
        yield
    finally:
        if session is not None:
            del _mine()[settings.connection]
            _end(session.con)


def _end(con: duckdb.DuckDBPyConnection) -> None:
    try:
        # Closed within a transaction whose server is gone, DuckDB ends the process.
        con.execute("ROLLBACK")
    except duckdb.Error as error:
        _log.debug("The session of the lock was gone already: %s", scrub(str(error)))
    finally:
        con.close()


def _mine() -> dict[str, _Session]:
    if not hasattr(_sessions, "held"):
        _sessions.held = {}
    held: dict[str, _Session] = _sessions.held
    return held


def _attach(con: duckdb.DuckDBPyConnection, connection: str) -> None:
    con.execute("LOAD postgres_scanner")
    con.execute(f"ATTACH {literal(connection)} AS catalog (TYPE postgres, READ_ONLY)")


def _still(held: _Session) -> None:
    try:
        if _holds(held.con):
            return
    except duckdb.Error as error:
        _log.warning("The session that held the lock: %s", scrub(str(error)))
    raise LakeUnavailableError(
        "PostgreSQL has ended the session by which this was alone with the lake, so others may have written since. "
        "Nothing of it counts as tested. Run it again."
    )


def _holds(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the transaction is still there, and the lock with it."""
    sql = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid() "
        f"AND classid::bigint = {_KEY >> 32} AND objid::bigint = {_KEY & 0xFFFFFFFF}"
    )
    return _ask(con, sql) == [(1,)]


def _ask(con: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[object, ...]]:
    return con.execute("FROM postgres_query('catalog', ?)", [sql]).fetchall()
