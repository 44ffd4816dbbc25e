"""A circuit breaker that all processes share: pybreaker's, with its state in SQLite.

After so many failed requests in a row the circuit opens, and nothing is sent until some time has passed. Then it is
half open: one request, of one process, tries; the others are still held off. What counts as a failure is the client's
to say.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pybreaker

from sluice.rest.clock import Clock
from sluice.rest.state import State


class SharedStorage(pybreaker.CircuitBreakerStorage):
    """The state of one breaker, as pybreaker reads and writes it.

    Where pybreaker reads and then writes, another process may have been in between: a write that rests on a state that
    is no longer there does nothing, and pybreaker finds the true one at its next look.
    """

    def __init__(self, state: State, name: str, reset_seconds: float, clock: Clock) -> None:
        """Bind to a breaker by its name; closed if there was none."""
        super().__init__(name)
        self._file, self._clock = state, clock
        self._me = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._seen: float | None = None
        self._now(
            "INSERT OR IGNORE INTO breakers VALUES (?2, 'closed', 0, 0, NULL, ?1, NULL, NULL, NULL)", reset_seconds
        )
        self._now("UPDATE breakers SET reset_seconds = ?1 WHERE reset_seconds <> ?1 AND name = ?2", reset_seconds)

    def _now(self, statement: str, *values: Any) -> int:
        """Run a statement with the breaker's name as its last value; returns the rows it changed."""
        with self._file.transaction() as con:
            return con.execute(statement, (*values, self.name)).rowcount

    def _get(self, column: str) -> Any:
        with self._file.transaction() as con:
            row: sqlite3.Row = con.execute(f"SELECT {column} FROM breakers WHERE name = ?", [self.name]).fetchone()
        # A reset takes the row away.
        return row[0] if row else {"state": pybreaker.STATE_CLOSED, "opened_at": None}.get(column, 0)

    @property
    def state(self) -> str:
        """Closed, open or half-open."""
        return str(self._get("state"))

    @state.setter
    def state(self, state: str) -> None:
        if state == pybreaker.STATE_HALF_OPEN:
            # Only from the very opening that was seen to be over: somebody's probe may have failed meanwhile.
            self._now(
                "UPDATE breakers SET state = ?1 WHERE state = 'open' AND opened_at IS ?2 AND name = ?3",
                state,
                self._seen,
            )
        else:
            self._now("UPDATE breakers SET state = ?1, probe_owner = NULL, probe_until = NULL WHERE name = ?2", state)
            if state == pybreaker.STATE_CLOSED:
                self._now("UPDATE breakers SET opened_at = NULL, last_error = NULL WHERE name = ?1")

    def claim(self, seconds: float) -> bool:
        """Be the one that tries while the circuit is half open, for so long; False if another is, or it is open."""
        now = self._clock.now()
        return bool(
            self._now(
                "UPDATE breakers SET probe_owner = ?1, probe_until = ?2 WHERE state = 'half-open' AND "
                "(probe_owner IS NULL OR probe_owner = ?1 OR probe_until < ?3) AND name = ?4",
                self._me, now + seconds, now,
            )
        )  # fmt: skip

    def note_error(self, message: str) -> None:
        """Keep why a request failed, for people."""
        self._now("UPDATE breakers SET last_error = ?1 WHERE name = ?2", message)

    def increment_counter(self) -> None:
        """Count a failed request."""
        self._now("UPDATE breakers SET failures = failures + 1 WHERE name = ?1")

    def reset_counter(self) -> None:
        """Count failures anew."""
        self._now("UPDATE breakers SET failures = 0 WHERE failures <> 0 AND name = ?1")

    def increment_success_counter(self) -> None:
        """Count a request that was answered while half open."""
        self._now("UPDATE breakers SET successes = successes + 1 WHERE name = ?1")

    def reset_success_counter(self) -> None:
        """Count answered requests anew."""
        self._now("UPDATE breakers SET successes = 0 WHERE successes <> 0 AND name = ?1")

    @property
    def counter(self) -> int:
        """Failed requests in a row."""
        return int(self._get("failures"))

    @property
    def success_counter(self) -> int:
        """Answered requests while half open."""
        return int(self._get("successes"))

    @property
    def opened_at(self) -> datetime | None:
        """When it opened, as pybreaker, which asks the machine's clock, must see it; None while closed."""
        self._seen = self._get("opened_at")
        if self._seen is None:
            return None
        # By the clock of this object, which in a test is not the machine's.
        return datetime.now(UTC) - (
            datetime.fromtimestamp(self._clock.now(), UTC) - datetime.fromtimestamp(self._seen, UTC)
        )

    @opened_at.setter
    def opened_at(self, _: datetime) -> None:
        self._now("UPDATE breakers SET opened_at = ?1 WHERE name = ?2", self._clock.now())


class _OneProbe(pybreaker.CircuitBreakerListener):
    """Lets one process through while the circuit is half open, and keeps why requests failed."""

    def __init__(self, storage: SharedStorage, seconds: float) -> None:
        self._storage, self._seconds = storage, seconds

    def before_call(self, cb: pybreaker.CircuitBreaker, func: Callable[..., Any], *_: Any, **__: Any) -> None:
        if self._storage.state != pybreaker.STATE_CLOSED and not self._storage.claim(self._seconds):
            raise pybreaker.CircuitBreakerError("somebody else tries")

    def failure(self, cb: pybreaker.CircuitBreaker, exc: BaseException) -> None:
        self._storage.note_error(str(exc) or type(exc).__name__)


def breaker(
    state: State,
    name: str,
    *,
    failures: int,
    reset: float,
    probe: float,
    harmless: Callable[[BaseException], bool],
    clock: Clock | None = None,
) -> pybreaker.CircuitBreaker:
    """The breaker of this name, whoever else has it.

    Args:
        state: the file that holds it.
        name: such as `exchange_rates@api.example.com:443`.
        failures: in a row, after which it opens.
        reset: seconds until it is half open.
        probe: seconds after which one that tries is taken for dead, and another may.
        harmless: whether an exception is no failure of the service.
        clock: the machine's by default.
    """
    storage = SharedStorage(state, name, reset, clock or Clock())
    return pybreaker.CircuitBreaker(
        fail_max=failures,
        reset_timeout=reset,
        exclude=[harmless],
        listeners=[_OneProbe(storage, probe)],
        state_storage=storage,
        name=name,
        # The request's own error tells more than that the circuit opened by it.
        throw_new_error_on_trip=False,
    )
