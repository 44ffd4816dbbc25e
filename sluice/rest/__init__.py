"""REST sources: what an API answers, as landing files.

Belongs here: asking (`client`: one request, its retries and its errors), going on from page to page (`pages`), the file
and the note of how it went (`fetching`), and what processes share (`state`: circuit breakers, the pace of requests, the
last good fetch; `breaker`: pybreaker on top of it). Secrets and what hides them: `secrets`.

Does not belong here: what the rows are worth. From the landing area on they go the way of every file.
"""

from __future__ import annotations

from sluice.rest.fetching import Fetched, Fetches, fetch, scheduled_days
from sluice.rest.staleness import Staleness, staleness

__all__ = ["Fetched", "Fetches", "Staleness", "fetch", "scheduled_days", "staleness"]
