"""From page to page: which request comes next, and whether the server leads in circles or stops before the end.

Decisions only; who asks is `sluice.rest.client`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from sluice.contracts.rest import RestSource
from sluice.errors import RestAnswerError
from sluice.rest.documents import Number, at, whole_number, write

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Request:
    """What is asked for: an address, and the parameters that are added to it."""

    url: str
    params: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Answer:
    """A document, None where the server says there is none; where it came from; the next link in its header."""

    document: Any
    url: str
    next_link: str | None = None
    size: int = 0


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of an address: who is sent what is meant for it.

    Raises:
        ValueError: the address has no port that is one.
    """
    parts = urlsplit(url)
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme.lower())


def pages(rest: RestSource, first: Request, ask: Callable[[Request], Answer]) -> Iterator[list[Any]]:
    """The rows of each page, in order.

    Args:
        rest: how the API is paginated.
        first: the request without parameters of pagination.
        ask: sends a request and takes the answer.

    Raises:
        RestAnswerError: an answer does not have its rows where the contract says, leads in circles, repeats a page, has
            more pages than allowed, leads to another host, or the rows in all are not as many as it declares.
    """
    walk = _Walk(rest, first)
    request: Request | None = walk.start()
    while request is not None:
        answer = ask(request)
        rows = walk.rows(answer)
        yield rows
        request = walk.after(answer, rows)
    walk.check_total()


class _Walk:
    def __init__(self, rest: RestSource, first: Request) -> None:
        self.rest, self.first = rest, first
        self.asked: set[Request] = set()
        self.seen: dict[bytes, int] = {}
        self.number = self.got = 0
        self.total: int | None = None

    def start(self) -> Request:
        kind, p = self.rest.pagination.kind, self.rest.pagination
        start = {"page": str(p.first), "offset": "0"}.get(kind)
        return self.go(self.with_params({p.param: start} if start else {}))

    def with_params(self, more: dict[str, str]) -> Request:
        size = self.rest.pagination.size
        sized = {self.rest.pagination.size_param: str(size)} if size is not None else {}
        return Request(self.first.url, (*self.first.params, *sized.items(), *more.items()))

    def go(self, request: Request) -> Request:
        """The request, held against those before."""
        if request in self.asked:
            raise RestAnswerError(
                f"After page {self.number} the API leads back to a page it has given before, and would for ever. "
                "Nothing "
                "was taken. Tell who runs it; look whether rest.pagination fits it."
            )
        if len(self.asked) >= self.rest.limits.pages:
            raise RestAnswerError(
                f"The API has more than {self.rest.limits.pages} pages for one partition. Nothing was taken. If that "
                "is "
                "right, raise rest.limits.pages or rest.pagination.size."
            )
        self.asked.add(request)
        return request

    def rows(self, answer: Answer) -> list[Any]:
        self.number += 1
        rows = [] if answer.document is None else at(answer.document, self.rest.rows)
        if not isinstance(rows, list):
            where = ".".join(self.rest.rows) or "the top level"
            keys = ", ".join(list(answer.document)[:10]) if isinstance(answer.document, dict) else "no object"
            raise RestAnswerError(
                f"Page {self.number} has no list of rows at {where} ({keys}). Nothing was taken. If the API has "
                "changed, "
                "mend rest.rows; if that is how it tells of an error, tell who runs it."
            )
        self._note_total(answer)
        self.got += len(rows)
        if rows:
            digest = hashlib.sha256("\n".join(write(row) for row in rows).encode()).digest()
            if digest in self.seen:
                raise RestAnswerError(
                    f"Page {self.number} has the very rows of page {self.seen[digest]}. Nothing was taken: another "
                    "page "
                    "would be missing. Look whether the API knows the parameters of rest.pagination."
                )
            self.seen[digest] = self.number
        return rows

    def _note_total(self, answer: Answer) -> None:
        if not self.rest.pagination.total or answer.document is None:
            return
        where = ".".join(self.rest.pagination.total)
        total = whole_number(at(answer.document, self.rest.pagination.total))
        if total is None:
            raise RestAnswerError(
                f"Page {self.number} does not say at {where} how many rows there are. Nothing was taken. Mend "
                "rest.pagination.total, or take it out."
            )
        if self.total is not None and total != self.total:
            raise RestAnswerError(
                f"The API said {self.total} rows, and on page {self.number} {total}: they changed while they were "
                "read. "
                "Nothing was taken. Fetch again."
            )
        self.total = total

    def after(self, answer: Answer, rows: list[Any]) -> Request | None:
        """The next request; None at the end."""
        p = self.rest.pagination
        if p.kind in ("page", "offset"):
            # A short page is no end: servers give fewer rows than asked for, and who stops there loses the rest.
            short = p.end == "short" and p.size is not None and len(rows) < p.size
            if not rows or short or (self.total is not None and self.got >= self.total):
                return None
            return self.go(self.with_params({p.param: str(self.got if p.kind == "offset" else p.first + self.number)}))
        if p.kind == "cursor":
            cursor = at(answer.document, p.path)
            if cursor in (None, "", False):
                return None
            if not isinstance(cursor, str | Number):
                raise self._no_lead(cursor)
            return self.go(self.with_params({p.param: cursor.text if isinstance(cursor, Number) else cursor}))
        if p.kind in ("next_link", "link_header"):
            link = at(answer.document, p.path) if p.kind == "next_link" else answer.next_link
            return self._linked(answer, link) if link not in (None, "", False) else None
        return None

    def _linked(self, answer: Answer, link: Any) -> Request:
        if not isinstance(link, str):
            raise self._no_lead(link)
        url = urljoin(answer.url, link)
        try:
            elsewhere = origin(url) != origin(self.first.url)
        except ValueError:
            raise self._no_lead(link) from None
        if elsewhere:
            raise RestAnswerError(
                f"Page {self.number} leads to another host, {urlsplit(url).hostname}. Nothing was sent there or taken: "
                "credentials are for the host of rest.url. Tell who runs the API."
            )
        return self.go(Request(url))

    def _no_lead(self, found: Any) -> RestAnswerError:
        return RestAnswerError(
            f"Page {self.number} has at {'.'.join(self.rest.pagination.path) or 'its Link header'} what leads to no "
            "next "
            f"page ({type(found).__name__}). Nothing was taken. Mend rest.pagination."
        )

    def check_total(self) -> None:
        if self.total is not None and self.total != self.got:
            raise RestAnswerError(
                f"The API says there are {self.total} rows and gave {self.got}. Nothing was taken. Fetch again; if "
                "it stays "
                "so, look at rest.pagination and tell who runs the API."
            )
