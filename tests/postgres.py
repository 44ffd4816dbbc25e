"""A PostgreSQL server of the system's packages, for tests of the lake on one; real, and gone at the end."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

OWNER = "sluice"
PASSWORD = "plum-pudding-7"


@dataclass(frozen=True)
class Server:
    """A server that runs: the folder of its programs, and its port on 127.0.0.1."""

    programs: Path
    port: int

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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Not below pytest's folder, which is closed to the user the server runs as.
    with tempfile.TemporaryDirectory(prefix="sluice-postgres-") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        as_user: list[str] = []
        if getpass.getuser() == "root":  # the server refuses to run as root
            as_user = ["runuser", "-u", "postgres", "--"]
            shutil.chown(folder, "postgres")
            shutil.chown(folder / "password", "postgres")

        def run(*command: str) -> None:
            subprocess.run([*as_user, *command], check=True, capture_output=True, cwd=folder)

        run(str(binary / "initdb"), "-D", "data", "-U", OWNER, "-A", "scram-sha-256", "--pwfile", "password")
        set_ = [f"-c {name}={value}" for name, value in parameters.items()]
        run(
            str(binary / "pg_ctl"), "-D", "data", "-l", "log", "-w", "start",
            "-o", " ".join([f"-p {port} -k {folder} -c listen_addresses=127.0.0.1", *set_]),
        )  # fmt: skip
        try:
            yield Server(binary, port)
        finally:
            run(str(binary / "pg_ctl"), "-D", "data", "-m", "immediate", "stop")
