"""How a source is fetched from an HTTP API, as its contract says it: values only.

What a contract may say, and how it is read, belongs to `sluice.contracts.reading_rest`; fetching, to `sluice.rest`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# Where the next page is found. `none`: the first answer is all there is.
PAGINATIONS = ("none", "link_header", "next_link", "cursor", "page", "offset")

# `${NAME}` is a secret of the environment, `${NAME:-default}` a setting that is none.
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
# A token of landing.path, such as {date}; `${…}` is none.
TOKEN = re.compile(r"(?<!\$)\{(\w+)\}")


@dataclass(frozen=True)
class Pagination:
    """How one page leads to the next.

    Attributes:
        kind: one of PAGINATIONS.
        path: where the next link or cursor is in the document, such as ("meta", "next").
        param: name of the query parameter that takes the cursor, the page's number or the offset.
        first: number of the first page.
        size: rows asked for in a page; None: the server decides.
        size_param: name of the query parameter that takes the size.
        total: where the document says how many rows there are in all; empty: it does not.
        end: `empty`: only a page without rows ends the list; `short`: one with fewer than `size`, too.
    """

    kind: str = "none"
    path: tuple[str, ...] = ()
    param: str = ""
    first: int = 1
    size: int | None = None
    size_param: str = ""
    total: tuple[str, ...] = ()
    end: Literal["empty", "short"] = "empty"


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect, between two pieces of an answer, and for all pages of a partition with all waits."""

    connect: float = 5.0
    read: float = 30.0
    total: float = 300.0


@dataclass(frozen=True)
class Retries:
    """Tries of a request in all, and seconds between them: initial, doubled each time, up to maximum, and jitter."""

    attempts: int = 5
    initial: float = 1.0
    maximum: float = 60.0
    jitter: float = 1.0


@dataclass(frozen=True)
class Breaker:
    """After so many failed requests in a row none is sent for so many seconds; then one tries."""

    failures: int = 5
    reset: float = 300.0


@dataclass(frozen=True)
class Limits:
    """Most pages of a partition and most bytes of one answer, unpacked."""

    pages: int = 1000
    # A page is held in memory, as Python's objects ten times its size.
    bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True)
class FetchSchedule:
    """When it is fetched by itself: cron (UTC), the last so many days up to yesterday; whether on from the start."""

    cron: str
    days: int = 1
    active: bool = True


@dataclass(frozen=True)
class RestSource:
    """An HTTP API that answers with JSON.

    Attributes:
        url: with tokens of landing.path such as {date}, and variables of the environment.
        params, headers: likewise; secrets are named there, never written.
        rows: where the rows are in the document; empty: the document is the list.
        empty: `refuse`: an answer without rows is an error; `allow`: a day may have none.
        rate: most requests a second, of all processes together; None: as fast as it goes.
        redirect_hosts: hosts besides the URL's that may be redirected to; they get no headers of the contract's.
    """

    url: str
    params: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    rows: tuple[str, ...] = ()
    empty: Literal["refuse", "allow"] = "refuse"
    pagination: Pagination = Pagination()
    rate: float | None = None
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    breaker: Breaker = Breaker()
    limits: Limits = Limits()
    redirect_hosts: tuple[str, ...] = ()
    schedule: FetchSchedule | None = None
