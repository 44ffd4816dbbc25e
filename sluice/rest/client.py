"""One request to an API: the pace, the circuit breaker, time-outs, retries, and what each way to fail is called.

Transient and tried again: no connection, no answer in time, half an answer, no JSON, 408, 425, 429, 5xx. Persistent and
told at once: credentials, addresses, whatever the server calls wrong. No message holds a word of an answer's body.
"""

from __future__ import annotations

import email.utils
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import pybreaker
import requests
import tenacity

from sluice.contracts.rest import TOKEN, VARIABLE, RestSource
from sluice.errors import (
    ConfigurationError,
    RestAnswerError,
    RestCircuitOpenError,
    RestRefusedError,
    RestUnavailableError,
    SluiceError,
)
from sluice.rest import documents
from sluice.rest.breaker import breaker
from sluice.rest.clock import Clock
from sluice.rest.pages import Answer, Request, origin
from sluice.rest.secrets import Secrets
from sluice.rest.sockets import Adapter, Sockets
from sluice.rest.state import State

# The server is busy, restarting, or wants fewer requests (RFC 9110, 8470, 6585); any 5xx besides.
_TRANSIENT = frozenset([408, 425, 429])
_REDIRECTS = frozenset([301, 302, 303, 307, 308])
# Browsers follow twenty; an API needs one or two.
_MOST_REDIRECTS = 5
_PIECE = 64 * 1024
# A server's slip must not shut a source for good. Quotas are by the second to the day, and after a day a server can
# ask again.
LONGEST_HOLD = 86_400.0

_log = logging.getLogger(__name__)


class Client:
    """Asks one source's API for one partition; a context manager, for its time is limited."""

    def __init__(
        self, source: str, rest: RestSource, tokens: dict[str, str], *, state: State, secrets: Secrets, clock: Clock
    ) -> None:
        """Fill in what the contract leaves open.

        Args:
            source: name of the contract.
            rest: how it is fetched.
            tokens: values of the partition, such as {"date": "2026-01-05"}.
            state: what processes share.
            secrets: fills in variables, and hides them.
            clock: tells the time and waits.

        Raises:
            ConfigurationError: a variable is not set, or the address made of it is none.
        """
        self.rest, self.secrets, self.clock = rest, secrets, clock
        fill = {name: secrets.fill(f"headers.{name}", _with_tokens(v, tokens)) for name, v in rest.headers}
        params = [(name, secrets.fill(f"params.{name}", _with_tokens(v, tokens))) for name, v in rest.params]
        url = secrets.fill("url", _with_tokens(rest.url, tokens))
        self.first = Request(url, tuple(params))
        self._secret_params = [
            p for p, (_, text) in zip(params, rest.params, strict=True) if secrets.hide(p[1]) != p[1]
        ]
        self._headers = {"Accept": "application/json", **fill}
        try:
            scheme, host, port = self._origin = origin(url)
        except ValueError:
            scheme, host, port = "", "", None
        if scheme not in ("http", "https") or not host or "@" in urlsplit(url).netloc:
            raise ConfigurationError(
                f"rest.url of {source} makes no address (http://host/path, without a user) with the variables as they "
                "are. Set them anew."
            )
        self.name = secrets.hide(f"{source}@{host}:{port}")
        self._state = state
        self._deadline = clock.now() + rest.timeouts.total
        self._breaker = breaker(
            state,
            self.name,
            failures=rest.breaker.failures,
            reset=rest.breaker.reset,
            probe=rest.timeouts.total,
            harmless=_is_harmless,
            clock=clock,
        )
        self._sockets = Sockets(rest.timeouts.total)
        self.requests = self.bytes = 0
        self.waited = 0.0

    def __enter__(self) -> Client:
        session = requests.Session()
        # Nothing but the contract's headers says who asks: no .netrc, no cookies.
        session.auth = _as_it_is
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("http://", "https://"):
            session.mount(scheme, Adapter(self._sockets))
        self._session = session
        self._sockets.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.stop()
        self._session.close()

    def ask(self, request: Request) -> Answer:
        """Send a request, as often as the contract says, and take the answer.

        Raises:
            RestUnavailableError: no try was answered, or the time for the partition is over.
            RestCircuitOpenError: the circuit is open, or somebody else tries while it is half open.
            RestRefusedError: the server refuses.
            RestAnswerError: the answer is none that can be read.
        """
        retries = self.rest.retries
        trying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda e: isinstance(e, RestUnavailableError) and not isinstance(e, RestCircuitOpenError)
            ),
            wait=self._wait,
            stop=lambda s: (
                s.attempt_number >= retries.attempts
                or self.clock.now() + s.upcoming_sleep > self._deadline
                or self._sockets.cut
                # Opened by this very failure: waiting would only end at a shut door.
                or self._breaker.current_state == pybreaker.STATE_OPEN
            ),
            sleep=self._sleep,
            before_sleep=lambda s: _log.warning(
                "%s Try %d of %d follows in %.1f s.",
                s.outcome.exception() if s.outcome else "", s.attempt_number + 1, retries.attempts, s.upcoming_sleep,
            ),
            reraise=True,
        )  # fmt: skip
        answer: Answer = trying(self._once, request)
        return answer

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """What the server asks for, if it does; else twice the time before, and some by chance."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, RestUnavailableError) else None
        if asked is not None:
            return asked
        r = self.rest.retries
        return tenacity.wait_exponential_jitter(multiplier=r.initial, max=r.maximum, jitter=r.jitter)(state)

    def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.waited += seconds
            self.clock.sleep(seconds)

    def _once(self, request: Request) -> Answer:
        left = self._deadline - self.clock.now()
        interval = 1 / self.rest.rate if self.rest.rate else 0.0
        turn = self._state.take_turn(self.name, self.clock.now(), interval, most=left)
        if turn > left:
            raise RestCircuitOpenError(
                f"{self.name} is asked for no sooner than in {turn:.0f} s, by its own wish or by rest.rate: longer "
                "than "
                f"the {self.rest.timeouts.total:g} s of rest.timeouts.total. Fetch again then."
            )
        self._sleep(turn)
        try:
            answer: Answer = self._breaker.call(self._send, request)
        except pybreaker.CircuitBreakerError:
            raise self._held_off() from None
        return answer

    def _held_off(self) -> RestCircuitOpenError:
        row = next((r for r in self._state.breakers(self.name.split("@")[0]) if r.name == self.name), None)
        why = f" The last failure: {row.last_error}" if row and row.last_error else ""
        left = max(0.0, row.tries_at - self.clock.now()) if row and row.tries_at else 0.0
        when = f"A request is let through in {left:.0f} s" if left else "Another process tries right now"
        return RestCircuitOpenError(
            f"{self.name} failed {row.failures if row else 0} times in a row and is left alone. {when}; `sluice rest "
            f"reset {self.name.split('@')[0]}` lets the next one through at once.{why}"
        )

    def _send(self, request: Request) -> Answer:
        """One try, redirects included."""
        url, params, headers = request.url, list(request.params), self._headers
        asked = {name for name, _ in (*parse_qsl(urlsplit(url).query), *params)}
        params += [(name, value) for name, value in self._secret_params if name not in asked]
        for _ in range(_MOST_REDIRECTS + 1):
            with self._response(url, params, headers) as response:
                if response.status_code not in _REDIRECTS:
                    answer = self._answer(response)
                    if self._sockets.cut:
                        # Headers that were cut off look like an answer.
                        raise self._too_slow(self._shown(url))
                    return answer
                url, params = self._redirected(response), []
                if origin(url) != self._origin:
                    headers = {"Accept": "application/json"}
        raise RestAnswerError(
            f"{self._shown(request.url)} redirects more than {_MOST_REDIRECTS} times. Nothing was taken. Write the "
            "address "
            "it leads to into rest.url."
        )

    def _redirected(self, response: requests.Response) -> str:
        here = self._shown(response.url)
        url = urljoin(response.url, response.headers.get("Location", ""))
        try:
            scheme, host, port = there = origin(url)
        except ValueError:
            scheme, host, port = there = "", "", None
        if not response.headers.get("Location") or scheme not in ("http", "https"):
            raise RestAnswerError(f"{here} redirects to nowhere. Nothing was taken. Tell who runs the API.")
        allowed = {host, f"{host}:{port}"} & set(self.rest.redirect_hosts)
        if there != self._origin and (not allowed or (self._origin[0] == "https" and scheme != "https")):
            raise RestRefusedError(
                f"{here} redirects to {scheme}://{host}:{port}, which the contract does not know. Nothing was sent "
                "there. "
                "If it is right, name the host in rest.redirectHosts (it is sent none of rest.headers), or write it "
                "into "
                "rest.url.",
                status=response.status_code,
            )
        return url

    @contextmanager
    def _response(
        self, url: str, params: list[tuple[str, str]], headers: dict[str, str]
    ) -> Iterator[requests.Response]:
        here = self._shown(url)
        left = self._deadline - self.clock.now()
        if left <= 0 or self._sockets.cut:
            raise self._too_slow(here)
        t = self.rest.timeouts
        self.requests += 1
        try:
            with self._session.get(
                url, params=params, headers=headers, timeout=(t.connect, t.read), stream=True, allow_redirects=False
            ) as response:
                yield response
        except SluiceError:
            if self._sockets.cut:
                raise self._too_slow(here) from None
            raise
        except requests.exceptions.SSLError as error:
            if self._sockets.cut:
                raise self._too_slow(here) from None
            raise RestRefusedError(
                f"{here}: the certificate is not trusted ({_why(error)}). Mend it on the server, or give "
                "REQUESTS_CA_BUNDLE the file of your own authority."
            ) from None
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.InvalidHeader):
            raise ConfigurationError(
                f"{here} is no address that can be asked, or a header cannot be sent. Mend it."
            ) from None
        except requests.RequestException as error:
            # Their own messages hold the address with its query.
            if self._sockets.cut:
                raise self._too_slow(here) from None
            raise RestUnavailableError(
                f"{here} does not answer as it should: {_why(error)}. Try again later."
            ) from None

    def _too_slow(self, here: str) -> RestUnavailableError:
        return RestUnavailableError(
            f"{here}: the partition was not fetched within {self.rest.timeouts.total:g} s (rest.timeouts.total). Try "
            "again "
            "later, or give it longer."
        )

    def _answer(self, response: requests.Response) -> Answer:
        """The document of an answer, or the error that its status is."""
        here, status = self._shown(response.url), response.status_code
        self._check_status(here, response)
        if status == 204:
            return Answer(None, response.url)
        kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
        if kind and not (kind in ("application/json", "text/json") or kind.endswith("+json")):
            raise RestAnswerError(
                f"{here} answers with {kind[:60]!r} instead of JSON; a page for signing in or of maintenance looks "
                "like "
                "that. Nothing was taken. Look at rest.url and rest.headers."
            )
        body = self._body(here, response)
        self.bytes += len(body)
        try:
            document = documents.parse(body)
        except RecursionError:
            raise RestAnswerError(
                f"{here}: the JSON is nested too deep, by more than {documents.MOST_LEVELS} levels. Nothing was taken. "
                "Tell who runs it."
            ) from None
        except ValueError:
            # What a proxy cuts off looks like that; it may be whole next time.
            raise RestUnavailableError(
                f"{here} answers with what is no whole JSON document. Try again later."
            ) from None
        return Answer(document, response.url, response.links.get("next", {}).get("url"), len(body))

    def _check_status(self, here: str, response: requests.Response) -> None:
        status = response.status_code
        if status in (200, 203, 204):
            return
        if status in _TRANSIENT or status >= 500:
            asked = retry_after(response.headers.get("Retry-After"), self.clock.now())
            if asked is not None:
                # Nobody else need be told the same.
                self._state.hold(self.name, self.clock.now() + asked)
            told = f", and asks to be left alone for {asked:.0f} s" if asked is not None else ""
            raise RestUnavailableError(
                f"{here} answers {status}{told}. Try again later.", retry_after=asked, throttled=status == 429
            )
        if status in (401, 403):
            names = ", ".join(self._variables())
            sent = f"variables: {names}" if names else "nothing so far; see rest.headers in docs/rest.md"
            raise RestRefusedError(
                f"{here} answers {status}: the credentials are missing, wrong or expired. Renew what the contract "
                "sends "
                f"({sent}) and fetch again.",
                status=status,
            )
        hint = {
            400: "it does not understand the request: look at rest.params and rest.pagination",
            404: "there is nothing at this address: look at rest.url, and whether the API has this day",
            410: "what was there is gone for good: look at rest.url",
        }.get(status, "look at rest.url and rest.params")
        raise RestRefusedError(f"{here} answers {status}; {hint}. Nothing was taken.", status=status)

    def _variables(self) -> list[str]:
        texts = [text for _, text in (*self.rest.headers, *self.rest.params)]
        return sorted({v[1] for text in texts for v in VARIABLE.finditer(text) if v[2] is None})

    def _body(self, here: str, response: requests.Response) -> bytes:
        most, pieces, size = self.rest.limits.bytes, [], 0
        declared = documents.whole_number(response.headers.get("Content-Length"))
        if declared is None or declared <= most:
            for piece in response.iter_content(_PIECE):
                pieces.append(piece)
                size += len(piece)
                if size > most:
                    break
            else:
                return b"".join(pieces)
        raise RestAnswerError(
            f"{here} answers with more than {most} bytes. Nothing was taken. Ask for smaller pages, or raise "
            "rest.limits.bytes; a page is held in memory, some ten times its size."
        )

    def _shown(self, url: str) -> str:
        """An address for a message: without its query, and without secrets."""
        parts = urlsplit(url)
        return self.secrets.hide(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds a server asks to be left alone (RFC 9110, 10.2.3): a number of them, or a date; None if it says neither.

    Never more than LONGEST_HOLD, whatever it asks.

    Args:
        header: the value of Retry-After.
        now: seconds since 1970.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_HOLD)
    try:
        asked = email.utils.parsedate_to_datetime(text).timestamp() - now
        return min(max(0.0, asked), LONGEST_HOLD)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _with_tokens(text: str, tokens: dict[str, str]) -> str:
    return TOKEN.sub(lambda token: tokens[token[1]], text)


def _is_harmless(error: BaseException) -> bool:
    """Whether the service is well, whatever it thinks of the request."""
    if isinstance(error, RestUnavailableError):
        return error.throttled
    return isinstance(error, SluiceError)


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _why(error: BaseException) -> str:
    """The system's own word for a failure, else what kind of failure it is; never a library's text, which quotes."""
    pending: list[Any] = [error]
    seen: list[BaseException] = []
    while pending:
        each = pending.pop(0)
        if isinstance(each, BaseException) and each not in seen:
            seen.append(each)
            if isinstance(each, socket.gaierror):
                return "the name of the host is not known"
            if isinstance(each, OSError) and not isinstance(each, requests.RequestException) and each.strerror:
                return str(each.strerror)
            pending += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
    words = {
        requests.exceptions.ConnectTimeout: "no connection in time (rest.timeouts.connect)",
        requests.exceptions.ReadTimeout: "nothing came in time (rest.timeouts.read)",
        requests.exceptions.ChunkedEncodingError: "the answer broke off",
        requests.exceptions.ContentDecodingError: "the answer cannot be unpacked",
        requests.exceptions.ConnectionError: "the connection was lost, or nothing came in time",
    }
    return next((word for kind, word in words.items() if isinstance(error, kind)), type(error).__name__)
