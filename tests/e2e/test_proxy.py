"""The way in from outside: the units of deploy/systemd behind the nginx of deploy/nginx.conf, all of them real.

Asked as a browser asks: over TLS, with names and passwords, over GraphQL and its websocket.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from running import LOCATION, SELECTOR, listening
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from sluice.settings import PROJECT
from tests.conftest import go_without
from tests.ports import free_ports

DEPLOY = PROJECT / "deploy"
PASSWORDS = {"anna": "an editor's, 1", "victor": "a viewer's, 2"}
BINARIES = "/opt/sluice/.venv/bin"
EDITORS = "anna 1;\n"
# Three times what tests/e2e/running.py waits for is started here, at once.
START_SECONDS = 600

LOADED = "{workspaceOrError{... on Workspace{locationEntries{name locationOrLoadError{__typename}}}}}"
LAUNCH = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId status } } } }"""
JOB = {"params": {"selector": {**SELECTOR, "jobName": "maintain_lake"}, "runConfigData": "{}", "mode": "default"}}
LOGS = """subscription Logs($run: ID!) { pipelineRunLogs(runId: $run, cursor: null) {
  __typename ... on PipelineRunLogsSubscriptionSuccess { messages { __typename } } } }"""


def put(text: str, replacements: dict[str, str]) -> str:
    """The text with its own values in place of the documented ones, each of which must be there."""
    for old, new in replacements.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def unit(name: str, replacements: dict[str, str]) -> list[list[str]]:
    """The commands of a unit of deploy/systemd, the last of which goes on."""
    text = put((DEPLOY / "systemd" / f"{name}.service").read_text(), {BINARIES: str(Path(sys.executable).parent)})
    lines = [line.partition("=")[2] for line in put(text, replacements).splitlines() if line.startswith("ExecStart")]
    return [shlex.split(line) for line in lines]


@contextmanager
def running(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[int]:
    """A process in a group of its own, which is ended as a whole; gives the group."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process.pid
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                continue
        process.wait(timeout=5)


@dataclass
class Deployed:
    """nginx and what is behind it."""

    folder: Path
    secure: int
    plain: int
    groups: dict[str, int]

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "tls.crt"))

    def headers(self, user: str | None, password: str | None = None) -> dict[str, str]:
        if user is None:
            return {}
        pair = f"{user}:{PASSWORDS[user] if password is None else password}"
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}

    def get(
        self, path: str, user: str | None = None, *, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> http.client.HTTPResponse:
        """Ask nginx; the answer's body is still to be read."""
        con = http.client.HTTPSConnection("localhost", self.secure, timeout=30, context=self.tls)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        con.request(method, path, body, {**self.headers(user), **given})
        return con.getresponse()

    def ask(self, query: str, user: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask GraphQL through nginx; returns its data."""
        body = json.dumps({"query": query, "variables": variables or {}}).encode()
        origin = f"https://localhost:{self.secure}"
        answer = self.get("/graphql", user, method="POST", body=body, Content_Type="application/json", Origin=origin)
        told = json.load(answer)
        assert answer.status == 200 and not told.get("errors"), told
        data: dict[str, Any] = told["data"]
        return data

    def websocket(self, user: str | None, origin: str | None = None) -> connect:
        # asyncio's: the other client of this library reads and writes one TLS connection in two threads at once, which
        # OpenSSL does not allow; on a busy machine nginx once never got what it had sent.
        return connect(
            f"wss://localhost:{self.secure}/graphql", ssl=self.tls, additional_headers=self.headers(user),
            subprotocols=["graphql-ws"], origin=origin, open_timeout=30,
        )  # fmt: skip

    def refused(self, user: str | None, origin: str | None = None) -> int:
        """Ask for a websocket that must not be given; the status that is told instead."""

        async def ask() -> None:
            async with self.websocket(user, origin):
                pass

        with pytest.raises(InvalidStatus) as caught:
            asyncio.run(ask())
        return caught.value.response.status_code

    def logs(self) -> str:
        return "\n".join(f"{p.name}:\n{p.read_text(errors='replace')[-3000:]}" for p in self.folder.glob("*.log"))


def _until(ready: Callable[[], bool], what: str, told: Callable[[], str]) -> None:
    until = time.monotonic() + START_SECONDS
    while not ready():
        assert time.monotonic() < until, f"not so after {START_SECONDS} s: {what}\n{told()}"
        time.sleep(0.3)


def certificate(folder: Path) -> None:
    # As docs/deploy.md has it.
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(folder / "tls.key"), "-out",
         str(folder / "tls.crt")],
        check=True, capture_output=True,
    )  # fmt: skip


def passwords(folder: Path) -> None:
    lines = []
    for name, password in PASSWORDS.items():
        done = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"], input=password, text=True, check=True, capture_output=True
        )
        lines.append(f"{name}:{done.stdout}")
    (folder / "passwords").write_text("".join(lines))


MAIN = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{}}
http {{
    access_log {folder}/nginx-access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/sluice.conf;
}}
"""


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    for name, found in (("nginx", nginx), ("openssl", shutil.which("openssl"))):
        if not found:
            go_without(f"{name} is not installed (apt install {name})")
    assert nginx is not None
    # Not below pytest's folder: a socket's path is short.
    with tempfile.TemporaryDirectory(prefix="sluice-proxy-") as name, ExitStack() as started:
        folder = Path(name)
        plain, secure, editors, viewers = free_ports(4)
        certificate(folder)
        passwords(folder)
        (folder / "editors").write_text(EDITORS)
        site = put(
            (DEPLOY / "nginx.conf").read_text(),
            {
                "127.0.0.1:3000": f"127.0.0.1:{editors}",
                "127.0.0.1:3001": f"127.0.0.1:{viewers}",
                "listen 80;": f"listen 127.0.0.1:{plain};",
                "listen 443 ssl;": f"listen 127.0.0.1:{secure} ssl;",
                "sluice.example.com;": "localhost;",
                "/etc/nginx/sluice/": f"{folder}/",
            },
        )
        (folder / "sluice.conf").write_text(site)
        (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user="user root;" if os.getuid() == 0 else ""))
        socket = str(folder / "code.sock")
        workspace = put((DEPLOY / "workspace.yaml").read_text(), {"/run/sluice/code.sock": socket})
        (folder / "workspace.yaml").write_text(workspace)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLUICE_", "DAGSTER_", "PYTEST_"))}
        home = folder / "home"
        outside = {**inherited, "DAGSTER_HOME": str(home / "dagster")}
        inside = {**outside, "SLUICE_HOME": str(home)}
        *before, code = unit("sluice-code", {"/run/sluice/code.sock": socket})
        for command in before:
            subprocess.run(command, cwd=PROJECT, env=inside, check=True, stdout=subprocess.DEVNULL)
        commands = {
            "sluice-code": (code, inside),
            "sluice-webserver": (unit("sluice-webserver", {"3000": str(editors)})[0], outside),
            "sluice-viewers": (unit("sluice-viewers", {"3001": str(viewers)})[0], outside),
            "nginx": ([nginx, "-p", name, "-c", str(folder / "nginx.conf"), "-e", f"{folder}/nginx-error.log"], None),
        }
        groups = {}
        for program, (command, environment) in commands.items():
            words = [str(folder / "workspace.yaml") if word == "deploy/workspace.yaml" else word for word in command]
            groups[program] = started.enter_context(running(words, folder / f"{program}.log", environment))
        made = Deployed(folder, secure, plain, groups)

        def loaded(user: str) -> bool:
            try:
                entries = made.ask(LOADED, user)["workspaceOrError"]["locationEntries"]
            except (AssertionError, OSError, ValueError):
                return False
            kinds = {e["name"]: (e["locationOrLoadError"] or {}).get("__typename") for e in entries}
            return kinds.get(LOCATION) == "RepositoryLocation"

        for user in PASSWORDS:
            _until(lambda user=user: loaded(user), f"{user} sees the code location", made.logs)
        yield made


def test_nothing_is_shown_without_a_password(deployed: Deployed) -> None:
    for path in ("/", "/graphql", "/server_info", "/download_debug/x", "/logs/x"):
        answer = deployed.get(path)
        # Of GraphQL, a plain GET is refused whoever asks.
        assert answer.status == (405 if path == "/graphql" else 401), path
        assert b"_next" not in answer.read()
    assert deployed.get("/").headers["WWW-Authenticate"] == 'Basic realm="Sluice"'
    assert deployed.get("/graphql", method="POST", body=b"{}", Content_Type="application/json").status == 401
    for user, password in (
        ("anna", "wrong"),
        ("anna", ""),
        ("nobody", PASSWORDS["anna"]),
        ("victor", PASSWORDS["anna"]),
    ):
        assert deployed.get("/", Authorization=deployed.headers(user, password)["Authorization"]).status == 401
    assert deployed.refused(None) == 401


def test_the_ui_is_served_over_tls_alone(deployed: Deployed) -> None:
    for user in PASSWORDS:
        answer = deployed.get("/", user)
        assert answer.status == 200 and b"/_next/static/" in answer.read()
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    con = http.client.HTTPConnection("localhost", deployed.plain, timeout=30)
    con.request("GET", "/runs?x=1", headers=deployed.headers("anna"))
    answer = con.getresponse()
    assert (answer.status, answer.headers["Location"]) == (301, "https://localhost/runs?x=1")


def test_editors_start_runs_and_viewers_only_see_them(deployed: Deployed) -> None:
    assert deployed.ask(LAUNCH, "victor", JOB)["launchRun"] == {"__typename": "UnauthorizedError"}
    launched = deployed.ask(LAUNCH, "anna", JOB)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess"
    run = launched["run"]["runId"]
    runs = deployed.ask("{runsOrError{... on Runs{results{runId jobName}}}}", "victor")["runsOrError"]["results"]
    assert runs == [{"runId": run, "jobName": "maintain_lake"}]
    end = "mutation($run: String!){terminateRun(runId: $run){__typename ... on TerminateRunFailure{message}}}"
    assert "do not have permission" in deployed.ask(end, "victor", {"run": run})["terminateRun"]["message"]
    # Not of GraphQL, and barred for viewers as well.
    for user, status, words in (("victor", 401, b"Not authorized"), ("anna", 200, b"{}")):
        told = deployed.get("/report_asset_materialization/bronze/orders", user, method="POST")
        assert (told.status, words in told.read()) == (status, True)
    # What happens in a run is told over the websocket, to both.
    for user in PASSWORDS:
        asyncio.run(_see_it_enqueued(deployed, user, run))


async def _see_it_enqueued(deployed: Deployed, user: str, run: str) -> None:
    async with deployed.websocket(user, f"https://localhost:{deployed.secure}") as socket, asyncio.timeout(60):
        await socket.send(json.dumps({"type": "connection_init", "payload": {}}))
        assert json.loads(await socket.recv()) == {"type": "connection_ack"}
        start = {"id": "1", "type": "start", "payload": {"query": LOGS, "variables": {"run": run}}}
        await socket.send(json.dumps(start))
        kinds: set[str] = set()
        while "RunEnqueuedEvent" not in kinds:
            message = json.loads(await socket.recv())
            assert message["type"] in ("data", "ka"), message
            logs = message.get("payload", {}).get("data", {}).get("pipelineRunLogs", {})
            kinds |= {event["__typename"] for event in logs.get("messages", [])}


def test_what_another_site_asks_for_with_the_users_password_is_refused(deployed: Deployed) -> None:
    body = json.dumps({"query": LAUNCH, "variables": JOB}).encode()
    own = f"https://localhost:{deployed.secure}"
    for origin in ("https://evil.example", "null", f"{own}.evil.example", own.replace("https", "http"), own[:-1]):
        answer = deployed.get("/graphql", "anna", method="POST", body=body, Content_Type="text/plain", Origin=origin)
        assert answer.status == 403, origin
        assert deployed.refused("anna", origin) == 403, origin
    query = "%7B__typename%7D"
    for path in (f"/graphql?query={query}", f"//graphql?%71uery={query}", f"/%67raphql?query={query}"):
        assert deployed.get(path, "anna").status == 405, path
        assert deployed.get(path, "anna", Upgrade="x", Connection="Upgrade").status == 405, path
    assert deployed.ask("{__typename}", "anna") == {"__typename": "Query"}


def test_only_nginx_can_be_reached_and_no_password_is_kept(deployed: Deployed) -> None:
    for name, group in deployed.groups.items():
        addresses = listening(group)
        assert all(a.startswith("127.0.0.1:") for a in addresses), name
        # The code is asked through a socket in a folder of its own.
        assert len(addresses) == {"sluice-code": 0, "nginx": 2}.get(name, 1), (name, addresses)
    for path in deployed.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for password in PASSWORDS.values():
                assert password.encode() not in content and base64.b64encode(password.encode()) not in content, path


def test_units_are_well_formed(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        go_without("systemd-analyze is not installed (apt install systemd)")
    copies = []
    for path in sorted((DEPLOY / "systemd").glob("*.service")):
        copy = tmp_path / path.name
        copy.write_text(put(path.read_text(), {BINARIES: str(Path(sys.executable).parent)}))
        copies.append(str(copy))
    assert len(copies) == 4
    done = subprocess.run(["systemd-analyze", "verify", *copies], capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if "sluice" in line]
    assert (done.returncode, told) == (0, [])
