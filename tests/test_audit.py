"""The audit of dependencies: red for a known vulnerability, not for a database that does not answer."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from sluice.settings import PROJECT
from tests.conftest import go_without

LOCK = f"duckdb==1.5.5 --hash=sha256:{'0' * 64}\nrequests==2.0.0 --hash=sha256:{'0' * 64}\n"
ADVISORY = {
    "id": "GHSA-test",
    "summary": "a test",
    "affected": [{
        "package": {"name": "requests", "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1.0"}]}],
    }],
}  # fmt: skip


@contextmanager
def database(status: int, vulnerable: str = "") -> Iterator[str]:
    """A database of vulnerabilities on this machine, which knows one of a package."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = {"vulns": [ADVISORY]} if asked["package"]["name"] == vulnerable else {}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(known).encode())

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def audit(lock: Path, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROJECT / ".ci" / "audit.py"), str(lock), "--osv-url", url],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_known_vulnerability_is_red_and_silence_is_not(tmp_path: Path) -> None:
    try:
        import pip_audit  # noqa: F401
    except ImportError:
        go_without("pip-audit is not installed (make sets up .venv from requirements-dev.lock)")
    lock = tmp_path / "some.lock"
    lock.write_text(LOCK)
    with database(200, "requests") as url:
        done = audit(lock, url)
        assert done.returncode == 1 and "requests 2.0.0: GHSA-test, mended in 2.1.0" in done.stderr
    with database(200) as url:
        done = audit(lock, url)
        assert done.returncode == 0 and f"2 of {lock} audited, 0 known vulnerabilities" in done.stdout
    with database(503) as url:
        silent = audit(lock, url)
    gone = audit(lock, url)
    for done in (silent, gone):
        assert done.returncode == 0 and f"{lock} NOT audited" in done.stdout, done.stderr
    lock.write_text("requests==2.0.0\n")
    done = audit(lock, url)
    assert done.returncode == 1 and "does not contain a hash" in done.stderr
