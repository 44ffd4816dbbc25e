"""One writer at a time on an SQLite catalog: Sluice's transactions wait for each other, and for a build of dbt's.

SQLite takes one writer, and lets a transaction that began before another's commit fail at once. Sluice's own would be
tried again; dbt's fail its build. What is written belongs to `sluice.lake`; whose turn it is on a partition, to
`sluice.booking`.
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

from sluice.settings import Settings

# What Sluice's own transactions on a small lake stay below; after that somebody is told why nothing happens.
_QUIET_SECONDS = 3.0
_LOOK_AGAIN_SECONDS = 0.05

_log = logging.getLogger(__name__)


@dataclass
class _Place:
    """The only place for a writer, as this process sees it: one thread has it, as often as it likes."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    depth: int = 0
    file: IO[bytes] | None = None


_places: dict[Path, _Place] = {}
_guard = threading.Lock()


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Be the only writer of the lake for a while; waits, however long, for who is. Nothing with PostgreSQL.

    The kernel lets go of the place of a process that has ended, whichever way.

    Raises:
        OSError: the lock's file cannot be made.
    """
    if settings.uses_postgres:
        yield
        return
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
        _log.warning("Waiting for somebody else who writes to the lake: a build, or another command.")
        fcntl.flock(file, fcntl.LOCK_EX)
    except BaseException:
        file.close()
        raise
    return file
