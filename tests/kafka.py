"""A Kafka broker for tests; real, and gone at the end. How one is run: deploy/kafka_broker.py."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.kafka_broker import broker, prepare
from tests.ports import free_ports

USER = "sluice"
PASSWORD = "damson-jam-23"

# Alone on two cores a broker is there after 3 seconds; on a machine with ten times the work it can do, after 30.
START_SECONDS = 120


class Broker:
    """A broker that can be stopped, killed and started again, on the same ports with the same data."""

    def __init__(self, folder: Path) -> None:
        self.port, self._controller_port, self.sasl_port = free_ports(3)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        # A second listener, for who has a password.
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        self._properties = prepare(
            folder,
            self.port,
            self._controller_port,
            {
                "listeners": f"SASL://127.0.0.1:{self.sasl_port}",
                "advertised.listeners": f"SASL://127.0.0.1:{self.sasl_port}",
                "listener.security.protocol.map": "SASL:SASL_PLAINTEXT",
                "sasl.enabled.mechanisms": "PLAIN",
                "listener.name.sasl.plain.sasl.jaas.config": f'{login} user_{USER}="{PASSWORD}";',
                # Whoever has no password may do everything, who has one what nobody has forbidden.
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
                "allow.everyone.if.no.acl.found": "true",
                # So that compaction can be waited for.
                "log.cleaner.backoff.ms": "100",
                "log.initial.task.delay.ms": "100",
            },
        )

    @property
    def brokers(self) -> str:
        """What `SLUICE_KAFKA` takes."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = broker(self._properties)
        if shutil.which("setpriv"):
            # A test process that is killed must not leave half a gigabyte behind.
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        admin = AdminClient({"bootstrap.servers": self.brokers, "log_level": 0, "reconnect.backoff.max.ms": 200})
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                admin.list_topics(timeout=1)
                return
            except KafkaException:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    text = (self._folder / "log").read_text(errors="replace")[-4000:]
                    raise RuntimeError(f"The Kafka broker does not start:\n{text}") from None

    def stop(self) -> None:
        """End it as an administrator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Have it answer nothing, with its connections open, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # On a busy machine its threads go on, and answer, until one of them has had its turn to take the signal.
        state = os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert state is not None and state.si_code == os.CLD_STOPPED, f"The broker did not stop, but ended: {state}"

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


@contextmanager
def serving() -> Iterator[Broker]:
    """A broker of its own folder and ports."""
    with tempfile.TemporaryDirectory(prefix="sluice-kafka-") as name:
        made = Broker(Path(name))
        made.start()
        try:
            yield made
        finally:
            made.kill()
