"""A real HTTP server on 127.0.0.1 that answers as a test tells it to, byte for byte, and a clock that never waits."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sluice.rest.clock import Clock

# 2026-01-12 06:30 UTC, a Monday.
NOW = 1_768_199_400.0


class FakeClock(Clock):
    """Time passes only by waiting; `slept` is what was waited."""

    def __init__(self, now: float = NOW) -> None:
        self._now = now
        self.slept: list[float] = []

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._now += seconds


class Server(ThreadingHTTPServer):
    """Answers with `script`, one entry a request, the last one for all after it; notes paths and headers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Callable[[Handler], None]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that hang up are what is tested


class Handler(BaseHTTPRequestHandler):
    """Runs the script's next entry."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.server.headers.append(dict(self.headers))
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


Reply = Callable[[Handler], None]


def reply(body: Any, status: int = 200, **headers: str) -> Reply:
    """JSON, or text as it is; header names with underscores."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    named = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return lambda h: h.reply(status, data, named)


def truncated(body: Any) -> Reply:
    """Half of what Content-Length says."""

    def send(h: Handler) -> None:
        data = json.dumps(body).encode()
        h.close_connection = True
        h.reply(200, data[: len(data) // 2], {"Content-Type": "application/json", "Content-Length": str(len(data))})

    return send


def hang(h: Handler) -> None:
    """No answer at all."""
    h.close_connection = True
    h.server.closing.wait(20)


def drip(h: Handler) -> None:
    """A byte now and then, for ever."""
    h.close_connection = True
    h.send_response(200)
    h.send_header("Content-Type", "application/json")
    h.send_header("Content-Length", "100000")
    h.end_headers()
    while not h.server.closing.wait(0.02):
        h.wfile.write(b" ")


def drip_head(h: Handler) -> None:
    """Likewise, within the headers."""
    h.close_connection = True
    h.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not h.server.closing.wait(0.02):
        h.wfile.write(b"x")
        h.wfile.flush()


@contextmanager
def slow_proxy() -> Iterator[str]:
    """A proxy that answers for ever, a byte now and then, and lets nobody through; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    asking, _ = listener.accept()
                except OSError:
                    return
                with asking:
                    try:
                        asking.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                        while not ended.wait(0.02):
                            asking.sendall(b"x")
                    except OSError:
                        continue  # who asked has gone

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def reset(h: Handler) -> None:
    """The connection is reset."""
    h.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    h.close_connection = True


def oversized(h: Handler) -> None:
    """Chunk after chunk, without a length and without an end."""
    h.close_connection = True
    h.send_response(200)
    h.send_header("Content-Type", "application/json")
    h.send_header("Transfer-Encoding", "chunked")
    h.end_headers()
    while not h.server.closing.is_set():
        h.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


@contextmanager
def serving() -> Iterator[Server]:
    """A server for as long as it is needed."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for another process or thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
