"""The API from which the simulated shop's exchange rates are fetched: `python -m sluice.simulation.rates_api`.

    GET /v1/rates/2026-01-05?page=1&per_page=100

Rates are a pure function of seed, day and currency, published on working days; a weekend has none. It serves 127.0.0.1
alone. It misbehaves on request (`--fault`), so that what Sluice does about it can be watched: each name goes for one
request, in order, and the last one for all after it. How Sluice fetches belongs to `sluice.rest`.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from sluice.simulation.shop import DEFAULT_SEED

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_PORT = 8765
BASE = "GBP"

# Units for a pound, about as they stood when 2026 began; only their size matters.
_AROUND = {
    "AUD": "2.01", "CHF": "1.07", "DKK": "8.58", "EUR": "1.15",
    "JPY": "211.4", "NOK": "13.55", "SEK": "12.42", "USD": "1.34",
}  # fmt: skip

FAULTS = ("none", "error", "throttle", "unauthorized", "hang", "truncate", "html", "empty", "loop", "reset")

# Longer than anybody waits in a test or at a terminal; the thread ends with its server.
_HANG_SECONDS = 60.0


def rates(day: date, seed: int = DEFAULT_SEED) -> list[dict[str, Any]]:
    """The rates published on a day; none at weekends."""
    if day.isoweekday() > 5:
        return []
    return [
        {"date": day.isoformat(), "base": BASE, "currency": currency, "rate": _rate(currency, around, day, seed)}
        for currency, around in _AROUND.items()
    ]


def _rate(currency: str, around: str, day: date, seed: int) -> Decimal:
    moved = Decimal(Random(f"{seed}/{currency}/{day.isoformat()}").randrange(-20_000, 20_001)).scaleb(-6)
    return (Decimal(around) * (1 + moved)).quantize(Decimal("0.000001"))


class RatesApi(ThreadingHTTPServer):
    """The server; `faults` are how it answers the next requests, `asked` the paths it was asked for."""

    daemon_threads = True

    def __init__(self, port: int = 0, *, seed: int = DEFAULT_SEED, faults: Sequence[str] = ()) -> None:
        """Bind to a port of 127.0.0.1.

        Args:
            port: 0 for any that is free.
            seed: of the rates.
            faults: names of FAULTS, one for each request; the last one stays.

        Raises:
            OSError: the port is taken.
        """
        super().__init__(("127.0.0.1", port), _Handler)
        self.seed, self.faults, self.asked = seed, list(faults), list[str]()
        self.closing = threading.Event()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up, which those do whom it has made wait; all else is a defect."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def next_fault(self, path: str) -> str:
        """How to answer the request that has just come."""
        with self._lock:
            self.asked.append(path)
            if len(self.faults) > 1:
                return self.faults.pop(0)
            return self.faults[0] if self.faults else "none"


@contextmanager
def serving(seed: int = DEFAULT_SEED, faults: Sequence[str] = ()) -> Iterator[RatesApi]:
    """A server on a free port, in a thread of this process, for as long as it is needed."""
    with RatesApi(seed=seed, faults=faults) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: RatesApi
    protocol_version = "HTTP/1.1"
    # Head and body leave apart; with Nagle's algorithm the second waits 40 ms for the first to be acknowledged.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        fault = self.server.next_fault(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        try:
            *before, text = parts.path.split("/")
            day, page, size = date.fromisoformat(text), int(query.get("page", 1)), int(query.get("per_page", 100))
        except ValueError:
            self.answer(400, {"error": "GET /v1/rates/2026-01-05?page=1&per_page=100"})
            return
        if before != ["", "v1", "rates"] or page < 1 or size < 1:
            self.answer(404, {"error": "no such thing"})
            return
        every = rates(day, self.server.seed)
        start = 0 if fault == "loop" else (page - 1) * size
        found = [] if fault == "empty" else every[start : start + size]
        body = {
            "base": BASE,
            "date": text,
            "page": page,
            "total": 2 * size if fault == "loop" else len(every),
            "rates": found,
        }
        match fault:
            case "error":
                self.answer(503, {"error": "not now"})
            case "throttle":
                self.answer(429, {"error": "too many requests"}, {"Retry-After": "1"})
            case "unauthorized":
                self.answer(401, {"error": "who are you?"})
            case "html":
                self.answer(200, "<html><body>Down for maintenance</body></html>", {"Content-Type": "text/html"})
            case "hang":
                self.server.closing.wait(_HANG_SECONDS)
                self.close_connection = True
            case "reset":
                # With a time to linger of 0, closing resets the connection.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
            case "truncate":
                self.answer(200, body, cut=20)
            case _:
                self.answer(200, body)

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None, cut: int = 0) -> None:
        """Send an answer; `cut` bytes of it are kept back."""
        # A number of JSON keeps its digits only when it is written from text.
        text = body if isinstance(body, str) else json.dumps(body, default=lambda d: f"\0{d}\0")
        data = text.replace('"\\u0000', "").replace('\\u0000"', "").encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) - cut])
        if cut:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: whoever wants to know reads `asked`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted.

    Args:
        argv: the arguments without the program's name; None takes those of the process.

    Returns:
        0, or 2 when the port is taken.

    """
    parser = argparse.ArgumentParser(
        prog="python -m sluice.simulation.rates_api", description="Serve exchange rates on 127.0.0.1."
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="the seed of the rates")
    parser.add_argument(
        "--fault", action="append", choices=FAULTS, default=[], help="how to answer, in order; may be given again"
    )
    arguments = parser.parse_args(argv)
    try:
        server = RatesApi(arguments.port, seed=arguments.seed, faults=arguments.fault)
    except OSError as error:
        print(f"refused: port {arguments.port}: {error.strerror}", file=sys.stderr)
        return 2
    with server:
        print(f"exchange rates at {server.url}/v1/rates/2026-01-05; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            server.closing.set()
    return 0


if __name__ == "__main__":
    sys.exit(main())
