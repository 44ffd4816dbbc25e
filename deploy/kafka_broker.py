"""A single Kafka broker (KRaft) of this machine, from the Maven artifacts: `python deploy/kafka_broker.py --help`.

For a demo, for development and for tests: one broker, one replica, on 127.0.0.1, without passwords. Nothing to be kept
belongs on it; for that there is a Kafka of one's own, or kafka-compose.yml beside this file to begin with. Imports
nothing of the project.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path

POM = Path(__file__).with_name("kafka-broker.pom.xml")
PORT = 9092

# The first that runs Kafka 4.
JAVA = 17

# A collector and a compiler that are quickly there and small: a broker of one machine is idle for most of the time.
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")


def missing() -> str | None:
    """What this machine lacks to run a broker, and how to get it; None if nothing."""
    for program, package in (("java", "default-jre-headless"), ("mvn", "maven")):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt install {package})"
    told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True).stderr
    found = re.search(r'version "(\d+)', told)
    if found is None or int(found[1]) < JAVA:
        return f"Kafka needs Java {JAVA} or later (apt install default-jre-headless)"
    return None


def classpath(pom: Path = POM) -> str:
    """The classes a Maven project needs, by default the broker; Maven is asked only when they are not in its cache.

    Raises:
        RuntimeError: Maven cannot get them.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sluice"
    kept = cache / f"kafka-{hashlib.sha256(pom.read_bytes()).hexdigest()[:16]}.classpath"
    if kept.is_file() and all(Path(jar).is_file() for jar in kept.read_text().split(os.pathsep)):
        return kept.read_text()
    cache.mkdir(parents=True, exist_ok=True)
    # Several test processes may ask at once.
    made = kept.with_suffix(f".{os.getpid()}~")
    asked = ["mvn", "-B", "-q", "-f", str(pom), "dependency:build-classpath", f"-Dmdep.outputFile={made}"]
    done = subprocess.run(asked, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"Maven cannot get the classes of {pom.name}:\n{done.stdout}{done.stderr}")
    made.rename(kept)
    return kept.read_text()


def prepare(folder: Path, port: int, controller_port: int, more: Mapping[str, str] | None = None) -> Path:
    """Write a broker's properties into a folder, and format its storage if that is not done.

    Args:
        folder: the broker's own.
        port: for clients, on 127.0.0.1.
        controller_port: for the broker itself.
        more: further properties; those of listeners are added to what is there.

    Returns:
        The file of properties.

    Raises:
        RuntimeError: the storage cannot be formatted.
    """
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAIN",
        "listeners": f"PLAIN://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAIN://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(folder / "data"),
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # By default 128 MB of the heap.
        "log.cleaner.dedupe.buffer.size": str(2 * 1024 * 1024),
    }
    for key, value in (more or {}).items():
        added = key in ("listeners", "advertised.listeners", "listener.security.protocol.map")
        properties[key] = f"{properties[key]},{value}" if added else value
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "server.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    if not (folder / "data" / "meta.properties").exists():
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # In one word with its option: one in 64 begins with a dash.
        asked = java("kafka.tools.StorageTool", "64m", "format", f"--cluster-id={cluster}", "-c", str(path))
        done = subprocess.run(asked, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"Kafka cannot format {folder}:\n{done.stdout}{done.stderr}")
    return path


def java(main: str, heap: str, *arguments: str) -> list[str]:
    """The command that runs one of Kafka's programs with so much heap at most."""
    return ["java", f"-Xmx{heap}", *_JVM, "-cp", classpath(), main, *arguments]


def broker(properties: Path, heap: str = "512m") -> list[str]:
    """The command that runs the broker."""
    return java("kafka.Kafka", heap, str(properties))


def main() -> None:
    """Run a broker in the foreground until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Run a single Kafka broker on 127.0.0.1.")
    parser.add_argument("--folder", type=Path, help="where its data lies")
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"for clients ({PORT}); the next one it keeps for itself"
    )
    parser.add_argument("--warm", action="store_true", help="only fetch what it needs")
    chosen = parser.parse_args()
    lacking = missing()
    if lacking:
        sys.exit(f"kafka: {lacking}")
    try:
        if chosen.warm:
            classpath()
            return
        if chosen.folder is None:
            parser.error("--folder is needed")
        command = broker(prepare(chosen.folder.absolute(), chosen.port, chosen.port + 1))
    except RuntimeError as error:
        sys.exit(f"kafka: {error}")
    sys.stdout.write(f"Kafka is on 127.0.0.1:{chosen.port}, its data in {chosen.folder}; Ctrl-C ends it.\n")
    sys.stdout.write(f"In another shell: export SLUICE_KAFKA=127.0.0.1:{chosen.port}\n")
    sys.stdout.flush()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
