"""How long an event takes to be queryable, and a change of a database to be in its dimension: the real path.

Produce to `live_sessions`: an event is confirmed by a Kafka broker, `sluice stream run` reads it into bronze, and a
reader asks the live view until the event's visitor is there. Commit to `dim_customer`: a transaction commits in
PostgreSQL, `sluice capture run` (Debezium) writes the change into Kafka, a continuous run of the stream's asset reads
it, Dagster's daemon has the warehouse built and published, and a reader who is pinned to what is published finds it.
The servers are those of the tests; nothing is made shorter for the benchmark.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import dagster as dg

from benchmarks.measure import Result, Timing, ratio
from deploy.kafka_broker import missing as missing_broker
from resources.instance import instance_folder
from sluice.contracts import load_contracts
from sluice.eventlog import EventLog, Message, open_log
from sluice.lake import newest_copy
from sluice.publication import connect
from sluice.settings import PROJECT, Settings, load_settings
from tests import kafka, postgres
from tests.sluice.capture.source import Source
from tests.sluice.capture.source import missing as missing_capture

# The shop is small: what is measured is the way, not the amount. It trades for a day.
SCALE = 0.05
CUSTOMERS = 1_000

# The captured customers are none of the simulated shop's few, whose changes come as files, of another database's log.
FIRST_CUSTOMER = 90_000

# A commit every so often, whatever is being built: a change waits for a build that is under way as it would in life.
COMMIT_EVERY_SECONDS = 4.0

# Until the first build; the daemon looks as often for what is new.
WAKE_EVERY_SECONDS = 15.0

# Looks of the reader, who is to be told soon and yet not to be what keeps the machine busy.
LIVE_LOOK_SECONDS = 0.05
PUBLISHED_LOOK_SECONDS = 0.25

# Until something has come that takes seconds or, through a build, a minute or two; ten times that on a busy machine.
PATIENCE_SECONDS = 600.0


def run(probes: int) -> Result:
    """Measure both ways, so many times each.

    Args:
        probes: events, and commits.

    Raises:
        RuntimeError: a server cannot be run here, a process ended, or something never came.
    """
    lacking = missing_broker() or missing_capture()
    binary = postgres.programs()
    if lacking or binary is None:
        raise RuntimeError(f"latency needs a Kafka broker and a captured PostgreSQL: {lacking or 'there is none'}.")
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder, kafka.serving() as broker:
        home = Path(folder) / "home"
        with _environment(home, broker.brokers), postgres.serving(binary, wal_level="logical") as server:
            server.database("shop")
            settings = load_settings()
            _finished(home, "demo.py", "--days", "1", "--scale", str(SCALE))
            events = Timing("Sluice: produce to live_sessions", produced(settings, probes))
            source = Source(server, "shop", home, slot="sluice_shop")
            commits = Timing("Sluice: commit to dim_customer", committed(settings, source, probes))
            builds = Timing("Sluice: a build of the warehouse meanwhile", build_seconds(settings))
    return Result(
        "latency",
        "latency: from produce, and from commit, to a reader",
        (
            f"the demo of a day, scale {SCALE:g}, with {CUSTOMERS:,} captured customers; Kafka, PostgreSQL, Debezium "
            "and Dagster's daemon on the same machine, the catalog an SQLite file",
            f"{probes} events, the next when the one before was seen, no build under way: 95th percentile "
            f"{percentile(events.seconds, 95):.2f} s",
            f"{probes} commits, one every {COMMIT_EVERY_SECONDS:g} s: 95th percentile "
            f"{percentile(commits.seconds, 95):.1f} s",
            f"{len(builds.seconds)} builds, each from the start of the daemon's run to its end: all models, all tests, "
            "audit and publication; a change waits for the one under way to end and for its own",
        ),
        (events, commits, builds),
        (ratio("commit to dim_customer / a build", commits, builds),),
    )


def produced(settings: Settings, probes: int) -> list[float]:
    """Seconds from an event's confirmation by the log to its session in `live_sessions`, for so many events."""
    stream = load_contracts(settings.contracts)["events"].stream
    assert stream is not None, "the shop's events come by a topic"
    found = []
    # Bounded for the case that this process is killed.
    with (
        _process(settings.home, "-m", "sluice", "stream", "run", "events", "--for", "3600") as alive,
        open_log(settings) as log,
        contextlib.closing(connect(settings, live=True)) as con,
    ):

        def seen(visitor: str) -> bool:
            alive()
            query = "SELECT 1 FROM live_sessions WHERE visitor_id = ?"
            return con.execute(query, [visitor]).fetchone() is not None

        for number in range(-1, probes):
            visitor = f"probe-{number}"
            _send(log, stream.topic, visitor)
            begun = time.monotonic()
            _until(partial(seen, visitor), f"{visitor} in live_sessions", LIVE_LOOK_SECONDS)
            # The first has waited for the process to start.
            if number >= 0:
                found.append(time.monotonic() - begun)
            # Not in step with how often the stream looks.
            time.sleep(0.37 * (number % 3))
    return found


def committed(settings: Settings, source: Source, probes: int) -> list[float]:
    """Seconds from a commit in the database to the change in the published `dim_customer`, for so many commits."""
    source.sql("CREATE TABLE customers (customer_id text PRIMARY KEY, country text, segment text, email text)")
    source.sql(
        f"INSERT INTO customers SELECT {FIRST_CUSTOMER} + i, 'France', 'retail', 'c' || i || '@example.com' "
        f"FROM generate_series(0, {CUSTOMERS - 1}) AS s (i)"
    )
    source.define("public.customers")
    home = settings.home
    # Of the processes that are started here, as `_environment` has the rest.
    os.environ[source.capture.connection] = source.connection
    began: dict[str, float] = {}
    took: dict[str, float] = {}
    with (
        _process(home, "-m", "sluice", "capture", "run", source.name) as capturing,
        _process(home, "-m", "benchmarks.stream_run", "customers", "3600") as reading,
        _process(
            home, "-m", "dagster", "dev", "--port", str(_free_port()), "--workspace", "workspace.yaml"
        ) as building,
        contextlib.closing(source.session()) as session,
    ):
        last = newest_copy(settings)

        def alive() -> None:
            for each in (capturing, reading, building):
                each()

        def published() -> bool:
            nonlocal last
            alive()
            copy = newest_copy(settings)
            if copy == last:
                return False
            last = copy
            countries = _countries(settings)
            now = time.monotonic()
            for country in countries:
                if country in began and country not in took:
                    took[country] = now - began[country]
            return True

        woken = time.monotonic()

        def begun() -> bool:
            nonlocal woken
            if time.monotonic() >= woken:
                # The daemon builds for what comes after its first look, and the snapshot may have come before.
                session(f"UPDATE customers SET email = now() WHERE customer_id = '{FIRST_CUSTOMER + CUSTOMERS - 1}'")
                woken += WAKE_EVERY_SECONDS
            return published() and len(_countries(settings)) == 1

        # The snapshot, and the first build after it, in which all customers are new.
        _until(begun, "a build with customers", PUBLISHED_LOOK_SECONDS)
        due = time.monotonic()
        for number in range(probes):
            while time.monotonic() < due:
                published()
                time.sleep(PUBLISHED_LOOK_SECONDS)
            country = f"probe {number}"
            session(f"UPDATE customers SET country = '{country}' WHERE customer_id = '{FIRST_CUSTOMER + number}'")
            began[country] = time.monotonic()
            due += COMMIT_EVERY_SECONDS
        _until(lambda: published() and len(took) == probes, "every commit in dim_customer", PUBLISHED_LOOK_SECONDS)
    return [took[country] for country in began]


def build_seconds(settings: Settings) -> list[float]:
    """Seconds of each build of the warehouse that the daemon has run, from its start to its end."""
    with dg.DagsterInstance.from_config(str(instance_folder(settings))) as instance:
        records = instance.get_run_records(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], tags={"dagster/from_automation_condition": "true"})
        )
    return [r.end_time - r.start_time for r in records if r.start_time is not None and r.end_time is not None]


def percentile(seconds: Sequence[float], percent: int) -> float:
    """The value below which so many of a hundred lie; of a single one, itself."""
    if len(seconds) == 1:
        return seconds[0]
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]


def _send(log: EventLog, topic: str, visitor: str) -> None:
    event = {
        "event_id": visitor,
        "event_type": "view",
        "event_ts": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f"),
        "visitor_id": visitor,
        "channel": "web",
    }
    log.append(topic, [Message(json.dumps(event).encode(), visitor.encode())])


def _countries(settings: Settings) -> set[str]:
    """The countries of captured customers, as readers see them."""
    with contextlib.closing(connect(settings)) as con:
        rows = con.execute(
            "SELECT DISTINCT country FROM dim_customer WHERE is_current AND customer_id BETWEEN ? AND ?",
            [str(FIRST_CUSTOMER), str(FIRST_CUSTOMER + CUSTOMERS - 1)],
        ).fetchall()
    return {row[0] for row in rows}


def _until(done: Callable[[], bool], what: str, every: float) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(f"Waited {PATIENCE_SECONDS:g} s in vain for {what}.")
        time.sleep(every)


@contextlib.contextmanager
def _environment(home: Path, brokers: str) -> Iterator[None]:
    """The environment of all processes, without any setting from outside."""
    before = dict(os.environ)
    for name in [n for n in os.environ if n.startswith(("SLUICE_", "DAGSTER_"))]:
        del os.environ[name]
    os.environ.update(
        SLUICE_HOME=str(home),
        SLUICE_KAFKA=brokers,
        SLUICE_CAPTURES=str(home / "definitions"),
        DAGSTER_HOME=str(home / "dagster"),
        DBT_SEND_ANONYMOUS_USAGE_STATS="false",
        DO_NOT_TRACK="1",
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        PYTHONPATH=str(PROJECT),
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _finished(home: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


@contextlib.contextmanager
def _process(home: Path, *arguments: str) -> Iterator[Callable[[], None]]:
    """A process that goes on, with its children, until the end; yields a check that it still does."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / f"{arguments[1].replace('.', '-')}-{arguments[2]}.out"
    with path.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=PROJECT, stdout=out, stderr=out, start_new_session=True
        )

    def alive() -> None:
        if process.poll() is not None:
            words = path.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}:\n{words}")

    try:
        yield alive
    finally:
        for number, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
