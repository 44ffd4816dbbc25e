"""Reading what a contract says of an HTTP API: the custom property `rest`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from sluice.contracts.model import Landing
from sluice.contracts.reading_arrival import Fail, Mapped
from sluice.contracts.reading_schedule import read_when
from sluice.contracts.rest import (
    PAGINATIONS,
    TOKEN,
    VARIABLE,
    Breaker,
    FetchSchedule,
    Limits,
    Pagination,
    RestSource,
    Retries,
    Timeouts,
)

_KEYS = (
    "url",
    "params",
    "headers",
    "rows",
    "empty",
    "pagination",
    "rate",
    "timeouts",
    "retries",
    "breaker",
    "limits",
    "redirectHosts",
    "schedule",
)
_PAGINATION = ("kind", "path", "param", "first", "size", "sizeParam", "total", "end")

# What each kind of pagination must be told.
_NEEDED = {"next_link": ("path",), "cursor": ("path", "param"), "page": ("param",), "offset": ("param",)}

# A name of letters, digits and what HTTP allows besides (RFC 9110, token).
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What a header or parameter is called whose value lets somebody in.
_CONFIDENTIAL = re.compile(r"auth|token|secret|passw|api[-_]?key|cookie|signature", re.IGNORECASE)

_HOST = re.compile(r"[\w.\-]+(:\d+)?|\[[0-9a-fA-F:]+\](:\d+)?")

# Two days' wait or a year of days is a typing error.
_LONGEST_SECONDS = 86_400.0
_MOST_DAYS = 366
_MOST = 10**9


def read_rest(value: Any, landing: Landing, mapped: Mapped, fail: Fail) -> RestSource | None:
    """What the custom property says.

    Args:
        value: the property's value; None where the contract has none.
        landing: where what is fetched goes.
        mapped: refuses a value that is no mapping or has other keys than those given.
        fail: makes the error of a message, with the contract's file before it.

    Raises:
        ContractError: a key or value is not offered, or a secret stands in the contract.
    """
    if value is None:
        return None
    return _RestReader(mapped(value, "customProperties.rest", _KEYS), landing, mapped, fail).source()


class _RestReader:
    def __init__(self, given: dict[str, Any], landing: Landing, mapped: Mapped, fail: Fail) -> None:
        self.given, self.landing, self.mapped, self.fail = given, landing, mapped, fail
        self.tokens = {"date", *landing.partitions}

    def source(self) -> RestSource:
        if set(self.landing.tokens) != self.tokens:
            raise self.fail(
                f"rest fetches partitions, and landing.path {self.landing.path!r} has tokens besides: keep {{date}} "
                "and "
                "those listed in landing.partitions."
            )
        if "jsonl" not in self.landing.formats:
            raise self.fail("what rest fetches lands as JSON lines. Add jsonl to landing.formats.")
        if self.landing.duplicates != "file":
            # Nothing else would hold: a partition fetched is one file.
            raise self.fail("rest writes one file a partition. Leave landing.duplicates at file.")
        empty = self.given.get("empty", "refuse")
        if empty not in ("refuse", "allow"):
            raise self.fail(f"rest.empty is {empty!r}; it must be refuse or allow.")
        hosts = self.given.get("redirectHosts") or []
        if not isinstance(hosts, list) or not all(isinstance(h, str) and _HOST.fullmatch(h) for h in hosts):
            raise self.fail("rest.redirectHosts must list hosts such as files.example.com or 10.0.0.1:8443.")
        return RestSource(
            url=self._url(),
            params=self._texts("params"),
            headers=self._headers(),
            rows=self._path(self.given.get("rows"), "rest.rows"),
            empty=empty,
            pagination=self._pagination(),
            rate=self._rate(),
            timeouts=Timeouts(**self._numbers("timeouts", Timeouts())),
            retries=Retries(**self._numbers("retries", Retries(), zero=("initial", "jitter", "maximum"))),
            breaker=Breaker(**self._numbers("breaker", Breaker())),
            limits=Limits(**self._numbers("limits", Limits())),
            redirect_hosts=tuple(str(h).lower() for h in hosts),
            schedule=self._schedule(),
        )

    def _url(self) -> str:
        url = self.given.get("url")
        if not isinstance(url, str) or not url:
            raise self.fail("rest.url is missing: where the rows are fetched, such as https://api.example.com/rates.")
        self._check_text("rest.url", url)
        # Of a variable without a default nothing is known before the fetch.
        known = VARIABLE.sub(lambda v: v[2] if v[2] is not None else "", url)
        parts = urlsplit(known)
        if not url.startswith("${") and parts.scheme not in ("http", "https"):
            raise self.fail(f"rest.url {url!r} must begin with http://, https:// or a variable ${{NAME}}.")
        if "@" in parts.netloc:
            raise self.fail("rest.url holds a user or password. Take it out; send a header from ${NAME} instead.")
        if parts.fragment:
            raise self.fail("rest.url has a part behind #, which no server is sent. Take it out.")
        return url

    def _headers(self) -> tuple[tuple[str, str], ...]:
        headers = self._texts("headers")
        for name, value in headers:
            if not _HEADER_NAME.fullmatch(name):
                raise self.fail(f"rest.headers: {name!r} is no name of a header.")
            if any(ord(c) < 32 or ord(c) == 127 for c in value):
                raise self.fail(f"rest.headers.{name} holds a control character. Write the value on one line.")
        if len({name.lower() for name, _ in headers}) != len(headers):
            raise self.fail("rest.headers names a header twice.")
        return headers

    def _texts(self, key: str) -> tuple[tuple[str, str], ...]:
        given = self.given.get(key) or {}
        if not isinstance(given, dict):
            raise self.fail(f"rest.{key} must be a mapping.")
        texts = []
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise self.fail(f"rest.{key}.{name} must be a text or a number; put true and false in quotes.")
            self._check_text(f"rest.{key}.{name}", str(value))
            if _CONFIDENTIAL.search(str(name)) and not _is_secret(str(value)):
                raise self.fail(
                    f"rest.{key}.{name} looks like a secret, and contracts are read by everybody. Put the value into a "
                    "variable of the environment and write ${NAME} here, without a default."
                )
            texts.append((str(name), str(value)))
        return tuple(texts)

    def _check_text(self, where: str, text: str) -> None:
        rest = VARIABLE.sub("", text)
        if "${" in rest:
            raise self.fail(f"{where}: a variable is written ${{NAME}} or ${{NAME:-default}}.")
        for token in TOKEN.findall(rest):
            if token not in self.tokens:
                known = ", ".join(f"{{{t}}}" for t in sorted(self.tokens))
                raise self.fail(f"{where} has {{{token}}}, which landing.path does not. Known are {known}.")

    def _path(self, value: Any, where: str) -> tuple[str, ...]:
        if value in (None, ""):
            return ()
        if not isinstance(value, str) or not all(value.removeprefix("$.").split(".")):
            raise self.fail(f"{where} must be a path in the document such as data.rates.")
        return tuple(value.removeprefix("$.").split("."))

    def _pagination(self) -> Pagination:
        given = self.mapped(self.given.get("pagination") or {}, "rest.pagination", _PAGINATION)
        kind = given.get("kind", "none")
        if kind not in PAGINATIONS:
            raise self.fail(f"rest.pagination.kind is {kind!r}; it must be one of {', '.join(PAGINATIONS)}.")
        for key in _NEEDED.get(kind, ()):
            if not isinstance(given.get(key), str) or not given[key]:
                raise self.fail(f"rest.pagination of kind {kind} needs {key}. See docs/rest.md.")
        for key in ("param", "sizeParam"):
            if not isinstance(given.get(key, ""), str):
                raise self.fail(f"rest.pagination.{key} must be the name of a query parameter.")
        size, first = given.get("size"), given.get("first", 1)
        if size is not None and not _whole(size, 1):
            raise self.fail(f"rest.pagination.size must be a number of rows from 1; it is {size!r}.")
        if not _whole(first, 0):
            raise self.fail(f"rest.pagination.first must be the number of the first page; it is {first!r}.")
        if (size is None) != ("sizeParam" not in given):
            raise self.fail(
                "rest.pagination: size and sizeParam go together; the one is sent by the name of the other."
            )
        end = given.get("end", "empty")
        if end not in ("empty", "short") or (end == "short" and (size is None or kind not in ("page", "offset"))):
            raise self.fail(
                f"rest.pagination.end is {end!r}; it must be empty or, of kind page or offset and with a size, short."
            )
        return Pagination(
            kind=kind,
            path=self._path(given.get("path"), "rest.pagination.path"),
            param=given.get("param", ""),
            first=first,
            size=size,
            size_param=given.get("sizeParam", ""),
            total=self._path(given.get("total"), "rest.pagination.total"),
            end=end,
        )

    def _rate(self) -> float | None:
        rate = self.given.get("rate")
        if rate is None:
            return None
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.001 <= rate <= 1000:
            raise self.fail(f"rest.rate must be requests a second, from 0.001 to 1000; it is {rate!r}.")
        return float(rate)

    def _numbers(self, key: str, default: Any, zero: tuple[str, ...] = ()) -> dict[str, Any]:
        """The numbers of a group, each of its default's type and above 0."""
        known: Mapping[str, Any] = vars(default)
        given = self.mapped(self.given.get(key) or {}, f"rest.{key}", tuple(known))
        for name, value in given.items():
            if isinstance(known[name], int):
                if not _whole(value, 1):
                    raise self.fail(f"rest.{key}.{name} must be a whole number from 1; it is {value!r}.")
            elif (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 <= value <= _LONGEST_SECONDS
                or (value == 0 and name not in zero)
            ):
                raise self.fail(f"rest.{key}.{name} must be seconds, up to {_LONGEST_SECONDS:g}; it is {value!r}.")
        return {name: type(known[name])(value) for name, value in given.items()}

    def _schedule(self) -> FetchSchedule | None:
        value = self.given.get("schedule")
        if value is None:
            return None
        given = self.mapped(value, "rest.schedule", ("cron", "days", "active"))
        cron, active = read_when(given, "rest.schedule", self.fail)
        days = given.get("days", 1)
        if not _whole(days, 1) or days > _MOST_DAYS:
            raise self.fail(f"rest.schedule.days must be a number of days from 1 to {_MOST_DAYS}; it is {days!r}.")
        return FetchSchedule(cron, days, active)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MOST


def _is_secret(value: str) -> bool:
    """Whether it takes a variable without a default."""
    return any(default is None for default in (v[2] for v in VARIABLE.finditer(value)))
