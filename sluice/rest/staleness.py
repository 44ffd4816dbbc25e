"""Whether what was fetched is fresh: how old the last good fetch is, and since when fetches fail.

Stale data stay where they are and go on being used; this tells of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sluice.contracts import Contract
from sluice.rest.clock import Clock
from sluice.rest.state import BreakerRow, FetchRow, State
from sluice.settings import Settings


@dataclass(frozen=True)
class Staleness:
    """How fresh a source is.

    Attributes:
        last_good: end of the last good fetch; None: there was none.
        age_hours: since then.
        latency_hours: how old it may be by its contract; None: the contract does not say.
        since: since when it is stale; None: it is fresh, or was never fetched.
        failing: partitions whose last fetch failed.
        breakers: of the hosts it was fetched from.
    """

    source: str
    last_good: datetime | None
    age_hours: float | None
    latency_hours: float | None
    since: datetime | None
    failing: tuple[FetchRow, ...]
    breakers: tuple[BreakerRow, ...]

    @property
    def stale(self) -> bool:
        """Whether anybody who uses it should know that newer data are missing."""
        return self.since is not None or self.last_good is None

    @property
    def breaker(self) -> str:
        """Closed, open or half-open: the worst of its hosts'."""
        states = {b.state for b in self.breakers}
        return next((s for s in ("open", "half-open") if s in states), "closed")

    @property
    def told(self) -> str:
        """One line for people."""
        if self.last_good is None:
            return "never fetched" + (f"; the last failure: {self.failing[-1].error}" if self.failing else "")
        age = f"last good fetch {self.last_good:%Y-%m-%d %H:%M} UTC, {self.age_hours:.1f} h ago"
        if self.latency_hours is not None:
            age += f" (may be {self.latency_hours:g} h)"
        if self.since is None:
            return f"fresh: {age}"
        why = f"; {len(self.failing)} partitions failed" if self.failing else ""
        return f"stale since {self.since:%Y-%m-%d %H:%M} UTC: {age}{why}; the last good data stay"


def staleness(settings: Settings, contract: Contract, clock: Clock | None = None) -> Staleness:
    """How fresh a source is now.

    Raises:
        ConfigurationError: the file that says it cannot be used.
    """
    state, now = State.of(settings), (clock or Clock()).now()
    rows = state.fetches(contract.name)
    good = max((r.fetched_at for r in rows if r.fetched_at is not None), default=None)
    failing = tuple(r for r in rows if r.failing_since is not None)
    moments = [r.failing_since for r in failing if r.failing_since is not None]
    if good is not None and contract.latency_hours is not None and now > good + contract.latency_hours * 3600:
        moments.append(good + contract.latency_hours * 3600)
    return Staleness(
        source=contract.name,
        last_good=_time(good),
        age_hours=None if good is None else (now - good) / 3600,
        latency_hours=contract.latency_hours,
        since=_time(min(moments, default=None)),
        failing=failing,
        breakers=tuple(state.breakers(contract.name)),
    )


def _time(moment: float | None) -> datetime | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC)
