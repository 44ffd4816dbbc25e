"""What processes that fetch share, in a small SQLite file below the home folder.

Three tables: circuit breakers, the pace of requests, and how each partition's last fetch went. Losing the file loses no
row of anybody: breakers close, and what is stale is told after the next fetch. Each method is one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sluice.errors import ConfigurationError
from sluice.settings import Settings

# Each transaction takes milliseconds; who waits longer waits for a process that hangs.
_BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS breakers (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, failures INTEGER NOT NULL, successes INTEGER NOT NULL,
    opened_at REAL, reset_seconds REAL NOT NULL, probe_owner TEXT, probe_until REAL, last_error TEXT);
CREATE TABLE IF NOT EXISTS paces (name TEXT PRIMARY KEY, next_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS fetches (
    source TEXT, partition_key TEXT, fetched_at REAL, rows INTEGER, failing_since REAL, failed_at REAL, error TEXT,
    PRIMARY KEY (source, partition_key));
"""


@dataclass(frozen=True)
class BreakerRow:
    """A circuit breaker as it stands. Times are seconds since 1970."""

    name: str
    state: str
    failures: int
    opened_at: float | None
    reset_seconds: float
    last_error: str | None

    @property
    def tries_at(self) -> float | None:
        """When the next request is let through; None where nothing holds it."""
        return None if self.state == "closed" or self.opened_at is None else self.opened_at + self.reset_seconds


@dataclass(frozen=True)
class FetchRow:
    """How a partition's fetches went: the last good one, and since when they fail."""

    partition_key: str
    fetched_at: float | None
    rows: int | None
    failing_since: float | None
    failed_at: float | None
    error: str | None


class State:
    """The file; made when first used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, settings: Settings) -> State:
        """That of a home folder."""
        return cls(settings.home / "rest" / "state.sqlite")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction that no other process's overlaps.

        Raises:
            ConfigurationError: the file cannot be used.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            con = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        try:
            con.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                con.execute(statement)
            yield con
            con.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        finally:
            # Closing undoes what was not committed.
            con.close()

    def _unusable(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path}, which holds the circuit breakers, cannot be used: {error}. Mend its rights or its disk; "
            "if it "
            "is damaged, remove it: nothing but their state is lost."
        )

    def take_turn(self, name: str, now: float, interval: float, most: float) -> float:
        """Take the next free moment for a request, of all processes.

        Args:
            name: whose pace it is.
            now: seconds since 1970.
            interval: seconds from one request to the next.
            most: seconds that may be waited.

        Returns:
            The seconds to wait for it. It is not taken where they are more than `most`.
        """
        with self.transaction() as con:
            row = con.execute("SELECT next_at FROM paces WHERE name = ?", [name]).fetchone()
            turn = max(now, row[0]) if row else now
            if turn - now <= most and (interval or row):
                con.execute("INSERT OR REPLACE INTO paces VALUES (?, ?)", [name, turn + interval])
        return float(turn - now)

    def hold(self, name: str, until: float) -> None:
        """Let nobody ask before a moment, because the server said so."""
        with self.transaction() as con:
            con.execute(
                "INSERT INTO paces VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET next_at = max(next_at, "
                "excluded.next_at)",
                [name, until],
            )

    def note_good(self, source: str, partition: str, now: float, rows: int) -> None:
        """Note that a partition was fetched."""
        with self.transaction() as con:
            con.execute(
                "INSERT OR REPLACE INTO fetches VALUES (?, ?, ?, ?, NULL, NULL, NULL)", [source, partition, now, rows]
            )

    def note_bad(self, source: str, partition: str, now: float, error: str) -> None:
        """Note that a partition could not be fetched; what was fetched before stands."""
        with self.transaction() as con:
            con.execute(
                "INSERT INTO fetches VALUES (?, ?, NULL, NULL, ?, ?, ?) ON CONFLICT (source, partition_key) DO "
                "UPDATE SET "
                "failing_since = coalesce(failing_since, excluded.failing_since), failed_at = excluded.failed_at, "
                "error = excluded.error",
                [source, partition, now, now, error],
            )

    def fetches(self, source: str) -> list[FetchRow]:
        """How each partition's fetches went, by partition."""
        if not self.path.exists():
            return []
        with self.transaction() as con:
            rows = con.execute(
                "SELECT partition_key, fetched_at, rows, failing_since, failed_at, error FROM fetches WHERE source = ? "
                "ORDER BY partition_key",
                [source],
            ).fetchall()
        return [FetchRow(*row) for row in rows]

    def breakers(self, source: str) -> list[BreakerRow]:
        """The breakers of a source, one for each host it was fetched from."""
        if not self.path.exists():
            return []
        with self.transaction() as con:
            rows = con.execute(
                "SELECT name, state, failures, opened_at, reset_seconds, last_error FROM breakers "
                "WHERE substr(name, 1, length(?)) = ? ORDER BY name",
                [f"{source}@", f"{source}@"],
            ).fetchall()
        return [BreakerRow(*row) for row in rows]

    def forget_host(self, host: str) -> None:
        """Forget breakers and pace of a host, `name:port`, that is gone for good; how fetches went stays."""
        with self.transaction() as con:
            for table in ("breakers", "paces"):
                con.execute(f"DELETE FROM {table} WHERE substr(name, instr(name, '@') + 1) = ?", [host])

    def reset(self, source: str) -> None:
        """Close a source's breakers and forget its failures and what the server asked to wait for."""
        with self.transaction() as con:
            for table in ("breakers", "paces"):
                con.execute(f"DELETE FROM {table} WHERE substr(name, 1, length(?)) = ?", [f"{source}@", f"{source}@"])
            con.execute("DELETE FROM fetches WHERE source = ? AND fetched_at IS NULL", [source])
            con.execute(
                "UPDATE fetches SET failing_since = NULL, failed_at = NULL, error = NULL WHERE source = ?", [source]
            )
