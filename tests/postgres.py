"""A PostgreSQL server of the system's packages, for tests of the lake on one; real, and gone at the end."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

OWNER = "sluice"
PASSWORD = "plum-pudding-7"


@dataclass(frozen=True)
class Server:
    """A server: the folder of its programs, its own folder, its port on 127.0.0.1, and what it is started with."""

    programs: Path
    folder: Path
    port: int
    parameters: tuple[tuple[str, str], ...] = ()

    def start(self) -> None:
        """Start it, and wait until it answers: after a crash when it has recovered."""
        set_ = [f"-c {name}={value}" for name, value in self.parameters]
        options = " ".join([f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1", *set_])
        self._control("-l", "log", "-w", "start", "-o", options)

    def crash(self) -> None:
        """End it without a checkpoint or a word to anybody, as a crash would: it is started by recovering."""
        self._control("-m", "immediate", "stop")

    def _control(self, *arguments: str) -> None:
        _as_server(self.folder, str(self.programs / "pg_ctl"), "-D", "data", *arguments)

    def connection(self, name: str, user: str = OWNER) -> str:
        """A libpq connection string without a password."""
        return f"dbname={name} host=127.0.0.1 port={self.port} user={user}"

    def database(self, name: str) -> str:
        """Make an empty database; returns its connection string, without a password."""
        self.run(name="postgres", sql=f'CREATE DATABASE "{name}"')
        return self.connection(name)

    def run(self, name: str, sql: str, user: str = OWNER, password: str = PASSWORD) -> str:
        """Run SQL as somebody; returns the rows as `psql` prints them, bare; CalledProcessError if it fails."""
        command = [str(self.programs / "psql"), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]
        return subprocess.run(
            [*command, "-d", self.connection(name, user)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PGPASSWORD": password},
        ).stdout


def programs() -> Path | None:
    """The folder of the server's programs; None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def serving(binary: Path, **parameters: str) -> Iterator[Server]:
    """A server of its own folder and port, with these parameters set; `OWNER` may do everything."""
    # Not below pytest's folder, which is closed to the user the server runs as.
    with tempfile.TemporaryDirectory(prefix="sluice-postgres-") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        if _is_root():
            shutil.chown(folder, "postgres")
            shutil.chown(folder / "password", "postgres")
        made = ("-D", "data", "-U", OWNER, "-A", "scram-sha-256", "--pwfile", "password")
        _as_server(folder, str(binary / "initdb"), *made)
        server = Server(binary, folder, free_port(), tuple(parameters.items()))
        server.start()
        try:
            yield server
        finally:
            server.crash()


def _is_root() -> bool:
    return getpass.getuser() == "root"


def _as_server(folder: Path, *command: str) -> None:
    """Run a program of the server, which refuses to run as root."""
    as_user = ["runuser", "-u", "postgres", "--"] if _is_root() else []
    subprocess.run([*as_user, *command], check=True, capture_output=True, cwd=folder)
