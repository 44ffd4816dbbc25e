"""A platform that streams, in processes of its own that are killed and started again, as systemd would do it.

Belongs here: the home, its processes, and how each of them dies. What is sent is `tests.faults.stream_sources`', what
must have come of it the test's.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from resources.dbt import DBT_PROJECT
from sluice.contracts import Contract, load_contracts
from sluice.eventlog import open_log
from sluice.settings import PROJECT, Settings, load_settings
from tests.faults.stream_sources import EVENTS_TOPIC, PROGRESS_TOPIC, SCHEMA
from tests.kafka import Broker
from tests.postgres import PASSWORD, Server

SOURCES = ("events", "customers", "products")
CAPTURED = ("customers", "products")

# Whoever has done nothing for so long since it was started is killed all the same: there may be nothing to do.
_IDLE_SECONDS = 60
# While database or broker are away, some seconds, those who need them are started this often at most.
_STARTS = 20
# Nothing of this takes so long on a machine with ten times the work it can do; it ends a test that hangs.
_LIMIT_SECONDS = 3000


@dataclass
class Worker:
    """A process that is kept running.

    Attributes:
        command: what it is.
        log: where its words go.
        trace: a file it writes to whenever it has done something.
        ends: whether it ends by itself when all is done.
    """

    command: list[str]
    log: Path
    trace: Path
    ends: bool
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    starts: int = 0
    done: bool = False

    def start(self, environment: dict[str, str]) -> None:
        """Begin, or begin again."""
        # A test that is killed must not leave them behind.
        mortal = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        self.started = time.time()
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*mortal, *self.command], cwd=PROJECT, env=environment, stdout=log, stderr=log
            )

    def kill(self) -> bool:
        """End it at once, wherever it is; false if it was not there."""
        if self.process is None or self.process.poll() is not None:
            return False
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None
        return True

    @property
    def has_worked(self) -> bool:
        """Whether it has done something since it was started."""
        return self.done or (self.trace.exists() and self.trace.stat().st_mtime > self.started)


class Platform:
    """A home that reads from a database and a broker, and everybody who is at work for it."""

    def __init__(
        self, folder: Path, server: Server, broker: Broker, *, changes: int, events: int, seconds: float
    ) -> None:
        """Set database, broker and home up; the rows there are are captured as a snapshot, undisturbed."""
        self.folder, self.server, self.broker = folder, server, broker
        self.home = folder / "home"
        self.home.mkdir()
        self.hurry = folder / "hurry"
        self.killed: Counter[str] = Counter()
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "SLUICE_HOME": str(self.home),
            "SLUICE_CONTRACTS": str(_contracts(folder)),
            "SLUICE_CAPTURES": str(folder / "captures"),
            "SLUICE_KAFKA": broker.brokers,
            "SLUICE_THREADS": "1",
        }
        self.dbt_project = folder / "dbt_project"
        shutil.copytree(DBT_PROJECT, self.dbt_project, ignore=shutil.ignore_patterns("target", "logs"))
        self.database = "shop"
        self._environment["SLUICE_CDC_SHOP"] = f"{server.database(self.database)} password={PASSWORD}"
        server.run(self.database, SCHEMA)
        tables = [f"public.{name}" for name in CAPTURED]
        for table in tables:
            server.run(self.database, f"ALTER TABLE {table} REPLICA IDENTITY FULL")
        server.run(self.database, f"CREATE PUBLICATION sluice_shop FOR TABLE {', '.join(tables)}")
        (folder / "captures").mkdir()
        (folder / "captures" / "shop.yaml").write_text(json.dumps({"tables": tables}))
        with open_log(self.settings) as log:
            log.create(EVENTS_TOPIC, 3)
            log.create(PROGRESS_TOPIC, 1)
        self.sluice("capture", "run", "shop", "--once")
        self.workers = self._workers(changes, events, seconds)

    @property
    def settings(self) -> Settings:
        """Of the home."""
        return load_settings(
            home=str(self.home),
            contracts=self._environment["SLUICE_CONTRACTS"],
            captures=self._environment["SLUICE_CAPTURES"],
            kafka=self.broker.brokers,
        )

    @property
    def contracts(self) -> list[Contract]:
        """The project's, ordered as docs/cdc.md has it for captured tables."""
        return list(load_contracts(self.settings.contracts).values())

    def sluice(self, *arguments: str) -> str:
        """`sluice …`, undisturbed; what it said."""
        command = [sys.executable, "-m", "sluice", *arguments]
        done = subprocess.run(command, cwd=PROJECT, env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, f"sluice {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def keep(self) -> None:
        """Start whoever is not there; who has come to an end by itself must have had a reason it could tell."""
        for name, worker in self.workers.items():
            if worker.done:
                continue
            code = None if worker.process is None else worker.process.poll()
            if worker.process is not None and code is None:
                continue
            if worker.process is not None:
                worker.done = worker.ends and code == 0
                assert worker.ends or code, f"{name} ended:\n{_end(worker.log)}"
                assert worker.starts < _STARTS * (1 + self.killed.total()), (
                    f"{name} ends again and again:\n{_end(worker.log)}"
                )
                # A defect shows as a stack trace; that broker or database are away is told in words.
                said = worker.log.read_text(errors="replace")
                assert worker.ends or "Traceback" not in said, f"{name}:\n{_end(worker.log)}"
            if not worker.done:
                worker.start(self._environment)

    def wait(self, until: Callable[[], bool], seconds: float = _LIMIT_SECONDS) -> bool:
        """Keep all at work until something is so; whether it came to be so within the time."""
        end = time.monotonic() + seconds
        while not until():
            self.keep()
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def at_work(self) -> bool:
        """Whether each has done something since it was started."""
        return all(worker.has_worked for worker in self.workers.values())

    def kill(self, what: str, rng: random.Random) -> None:
        """Kill somebody, of the kinds KINDS, at work; he comes back after a moment. Who is not there is let be.

        The generator says who of several, and how long each step takes.
        """
        if what in ("broker", "database"):
            (self.broker.kill if what == "broker" else self.server.crash)()
            self.wait(lambda: False, rng.uniform(0, 3))
            (self.broker if what == "broker" else self.server).start()
        else:
            worker = self.workers[rng.choice(SOURCES) if what == "reader" else what]
            self.wait(lambda: worker.has_worked, _IDLE_SECONDS)
            self.wait(lambda: False, rng.uniform(0, 1))
            if not worker.kill():
                return
            time.sleep(rng.uniform(0, 1))
        self.killed[what] += 1

    def drain(self) -> None:
        """Have all made that is to be made, end everybody, and let capture and readers finish undisturbed."""
        self.hurry.touch()
        makers = [worker for worker in self.workers.values() if worker.ends]
        assert self.wait(lambda: all(maker.done for maker in makers)), [_end(maker.log) for maker in makers]
        self.close()
        self.sluice("capture", "run", "shop", "--once")
        for source in SOURCES:
            self.sluice("stream", "run", source)

    def close(self) -> None:
        """End everybody."""
        for worker in self.workers.values():
            worker.kill()

    def _workers(self, changes: int, events: int, seconds: float) -> dict[str, Worker]:
        def worker(name: str, *command: str, trace: Path | None = None, ends: bool = False) -> Worker:
            log = self.folder / f"{name}.log"
            return Worker([sys.executable, "-m", *command], log, trace or log, ends)

        makers = "tests.faults.stream_sources"
        return {
            # The copy of the offsets is made when Debezium has noted that what it gave is in the log.
            "capture": worker(
                "capture", "sluice", "capture", "run", "shop",
                trace=self.home / "captures" / "shop" / "offsets.kept",
            ),
            "producer": worker(
                "producer", makers, "events", self.broker.brokers, str(events), str(events / seconds),
                str(self.hurry), ends=True,
            ),
            "changes": worker(
                "changes", makers, "changes", str(self.server.port), self.database, str(changes),
                str(changes / seconds), str(self.hurry), ends=True,
            ),
            **{source: worker(source, "sluice", "stream", "run", source, "--for", "7200") for source in SOURCES},
        }  # fmt: skip


KINDS = ("capture", "reader", "producer", "changes", "broker", "database")


def _contracts(folder: Path) -> Path:
    """The project's contracts; those of captured tables ordered by what a capture adds, as docs/cdc.md says."""
    made = folder / "contracts"
    shutil.copytree(PROJECT / "contracts", made)
    for source in CAPTURED:
        path = made / f"{source}.odcs.yaml"
        document = yaml.safe_load(path.read_text())
        (feed,) = (p["value"] for p in document["schema"][0]["customProperties"] if p["property"] == "changeFeed")
        feed["sequence"] = ["position.commit", "position.order"]
        path.write_text(yaml.safe_dump(document, sort_keys=False))
    return made


def _end(log: Path) -> str:
    return re.sub(r"(?m)^\d+\n", "", log.read_text(errors="replace"))[-3000:] if log.exists() else ""
