"""Events of a topic into bronze, each exactly once: Sluice against a bare consumer, and against Spark.

The broker is a real one, that of the tests, with everything on this machine. All sides read the same topic from its
beginning. Sluice judges by contract, tells duplicates and late events, and commits rows, dead letters, books and
offsets in one transaction per 250,000 messages; the peers take the values apart and write Parquet.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from confluent_kafka import Producer

from benchmarks import bare_consumer
from benchmarks.measure import Result, Timing, ratio, short
from deploy.kafka_broker import classpath, missing
from sluice.contracts import load_contracts
from sluice.eventlog import open_log
from sluice.lake import Lake
from sluice.settings import PROJECT, load_settings
from sluice.streams import StreamResult, read_until
from tests.kafka import serving

# The project's aims: half as fast as who promises nothing, and ahead of who promises as much.
AIM_BARE = 2.0
AIM_SPARK = 1.0

SPARK_PYTHON = PROJECT / ".venv-bench" / "bin" / "python"
SPARK_PEER = Path(__file__).with_name("spark_peer.py")
SPARK_POM = Path(__file__).with_name("spark-kafka.pom.xml")
CORES = 2

SOURCE = "events"

# Of 1,000 events one is of a type the contract does not know, as there is always something.
BAD_EVERY = 1_000

# As the simulated shop's events are, some 210 bytes each; a visitor has 20 of them, as a key has in its topic.
_EVENTS = f"""
    SELECT 'v' || (i * 7919 % $visitors) AS key, to_json({{
        'event_id': format('{{:08x}}-{{:04x}}-4000', i, i * 7919 % 65536),
        'event_type': CASE WHEN i % {BAD_EVERY} = 500 THEN 'hover'
            ELSE ['page_view', 'view', 'add_to_cart', 'checkout', 'purchase'][1 + i % 5] END,
        'event_ts': strftime(TIMESTAMP '2026-01-31' + INTERVAL 1 MILLISECOND * (i * 80000000 // $rows),
            '%Y-%m-%dT%H:%M:%S.%g'),
        'visitor_id': 'v' || (i * 7919 % $visitors),
        'customer_id': CASE WHEN i % 5 = 0 THEN CAST(12000 + i % 6000 AS VARCHAR) END,
        'stock_code': CAST(10000 + i % 4001 AS VARCHAR),
        'quantity': CASE WHEN i % 5 IN (2, 4) THEN 1 + i % 12 END,
        'invoice': CASE WHEN i % 5 = 4 THEN CAST(400000 + i % 500000 AS VARCHAR) END,
        'channel': ['web', 'app'][1 + i % 2]
    }})::VARCHAR AS value FROM range($rows) AS r (i)
"""

_COLUMNS = ("event_id", "event_type", "event_ts", "visitor_id", "customer_id", "stock_code", "invoice", "channel")
SCHEMA = pa.schema([*((name, pa.string()) for name in _COLUMNS), ("quantity", pa.int32())])
SPARK_SCHEMA = ", ".join([*(f"{name} STRING" for name in _COLUMNS), "quantity INT"])


def run(events: int, runs: int) -> Result:
    """Fill a topic, then measure all sides turn by turn.

    Args:
        events: messages in the topic.
        runs: rounds.

    Raises:
        RuntimeError: no broker can be run, or a side did not take the rows it must; then no time means anything.
    """
    lacking = missing()
    if lacking:
        raise RuntimeError(f"stream needs a Kafka broker: {lacking}.")
    spark = Spark() if SPARK_PYTHON.exists() else None
    if spark is None:
        print(f"stream: without Spark, for there is no {SPARK_PYTHON}. `make bench` makes it.", file=sys.stderr)
    topic, partitions = _topic()
    ours, whole = Timing("Sluice: read_until()"), Timing("Sluice: with start-up, `sluice stream run`")
    loads = Timing("bare consumer, json.loads")
    arrow = Timing("bare consumer, Arrow's JSON reader")
    parsers = ((loads, bare_consumer.with_json_loads), (arrow, bare_consumer.with_arrow))
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder, serving() as broker:
        work = Path(folder)
        size = produce(broker.brokers, topic, partitions, events)
        for number in range(runs):
            lake = fresh_lake(work / f"sluice-{number}", broker.brokers)
            with ours.round():
                result = read_all(lake)
            check(lake, result, events)
            shutil.rmtree(lake.settings.home)
            for timing, parse in parsers:
                with timing.round():
                    read = bare_consumer.consume(broker.brokers, topic, SCHEMA, work / "bare.parquet", parse)
                _expect(timing.name, read, _rows_in(work / "bare.parquet"), events)
            lake = fresh_lake(work / f"command-{number}", broker.brokers)
            with whole.round():
                _command(lake)
            check(lake, None, events)
            shutil.rmtree(lake.settings.home)
            if spark is not None:
                spark.round(broker.brokers, topic, work / f"spark-{number}", events)
    timings = [ours, loads, arrow, whole]
    ratios = [
        ratio("stream / bare consumer, json.loads", ours, loads, AIM_BARE),
        ratio("stream / bare consumer, Arrow's JSON reader", ours, arrow, AIM_BARE),
    ]
    speeds = [("Sluice", ours), ("the bare consumer with json.loads", loads), ("with Arrow's JSON reader", arrow)]
    facts = [
        f"{events:,} events of {size / events:.0f} bytes in {partitions} partitions, {bad(events):,} of which break a "
        "rule; one Kafka broker on the same machine",
        "alternating rounds; Sluice's each into a fresh DuckLake (SQLite catalog), in transactions of 250,000",
    ]
    if spark is not None:
        timings += [spark.warm, spark.cold]
        ratios += [
            ratio("Spark, warm / stream", spark.warm, ours, AIM_SPARK, at_least=True),
            ratio("Spark / stream, both with start-up", spark.cold, whole, AIM_SPARK, at_least=True),
        ]
        speeds.append(("Spark, warm,", spark.warm))
        facts.append(
            f"Spark {spark.version}, local[{CORES}], Structured Streaming with trigger availableNow: the second of two "
            "reads of one process (warm), and process and first read (with start-up)"
        )
    else:
        facts.append("without Spark, which was not installed")
    told = ", ".join(f"{name} {events / timing.median:,.0f}" for name, timing in speeds)
    facts.append(f"events a second: {told}")
    return Result(
        f"stream-{short(events)}",
        f"stream: {events:,} events from Kafka into bronze",
        tuple(facts),
        tuple(timings),
        tuple(ratios),
    )


class Spark:
    """The peer Spark, and the times it took."""

    def __init__(self) -> None:
        self.warm, self.cold = Timing("Spark: warm"), Timing("Spark: with start-up")
        self.version = ""
        self._classpath = classpath(SPARK_POM)

    def round(self, brokers: str, topic: str, work: Path, events: int) -> None:
        """Read the topic twice, in a process of its own.

        Raises:
            RuntimeError: it failed, or not all rows arrived.
        """
        work.mkdir()
        begun = time.perf_counter()
        done = subprocess.run(
            [SPARK_PYTHON, SPARK_PEER, brokers, topic, SPARK_SCHEMA, self._classpath, work, str(CORES)],
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - begun
        if done.returncode:
            raise RuntimeError(f"Spark failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        for number, read in enumerate(told["rows"]):
            _expect("Spark", read, _rows_in(work / str(number) / "rows" / "*.parquet"), events)
        _, second = told["seconds"]
        self.warm.seconds.append(second)
        # What ends the process is in it, a fraction of a second.
        self.cold.seconds.append(seconds - second)
        self.version = told["version"]
        shutil.rmtree(work)


def bad(events: int) -> int:
    """How many of so many events break a rule."""
    return (events + BAD_EVERY - 501) // BAD_EVERY


def produce(brokers: str, topic: str, partitions: int, events: int) -> int:
    """Make a topic and send so many events to it; the same ones each time. Returns the bytes of their values."""
    with open_log(load_settings(kafka=brokers)) as log:
        log.create(topic, partitions)
    producer = Producer(
        {
            "bootstrap.servers": brokers,
            "linger.ms": 50,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 0,
        }
    )
    size = 0
    with duckdb.connect() as con:
        found = con.execute(_EVENTS, {"rows": events, "visitors": max(events // 20, 1)})
        while rows := found.fetchmany(100_000):
            for key, value in rows:
                producer.produce(topic, value.encode(), key.encode())
                size += len(value)
            producer.poll(0)
    left = producer.flush(120)
    if left:
        raise RuntimeError(f"The broker did not confirm {left:,} of {events:,} events.")
    return size


def fresh_lake(home: Path, brokers: str) -> Lake:
    """A lake of its own with its schemas and ops tables, whatever catalog or bucket the environment names."""
    lake = Lake(load_settings(home=home, landing=home / "landing", kafka=brokers, catalog="", data_path=""))
    lake.create()
    return lake


def read_all(lake: Lake) -> StreamResult:
    """What is measured: the topic from its beginning to its end."""
    contract = load_contracts(PROJECT / "contracts")[SOURCE]
    total = StreamResult(SOURCE, ())
    with open_log(lake.settings) as log:
        for result in read_until(lake, contract, log):
            total = total.with_more(result)
    return total


def check(lake: Lake, result: StreamResult | None, events: int) -> None:
    """Hold what is in the lake, and what was told of it, against what was sent: each event once.

    Raises:
        RuntimeError: they differ.
    """
    with lake.reading() as con:
        found = con.execute(
            f"SELECT (SELECT count(*) FROM bronze.{SOURCE}), (SELECT count(DISTINCT event_id) FROM bronze.{SOURCE}), "
            "(SELECT count(*) FROM ops.dead_letters WHERE status = 'open')"
        ).fetchone()
    expected = (events - bad(events), events - bad(events), bad(events))
    told = result and (result.total("rows_accepted"), result.total("rows_accepted"), result.total("rows_dead_lettered"))
    if found != expected or (told is not None and told != expected):
        raise RuntimeError(f"Sluice has {found} rows, ids and dead letters and told {told}; sent were {expected}.")


def _command(lake: Lake) -> None:
    environment = {
        **os.environ,
        "SLUICE_HOME": str(lake.settings.home),
        "SLUICE_LANDING": str(lake.settings.landing_path),
        "SLUICE_KAFKA": lake.settings.kafka.get_secret_value(),
        "SLUICE_CATALOG": "",
        "SLUICE_DATA_PATH": "",
    }
    done = subprocess.run(
        [sys.executable, "-m", "sluice", "stream", "run", SOURCE],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"sluice stream run failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _topic() -> tuple[str, int]:
    stream = load_contracts(PROJECT / "contracts")[SOURCE].stream
    assert stream is not None, "the shop's events come by a topic"
    return stream.topic, stream.partitions


def _rows_in(parquet: Path) -> int:
    with duckdb.connect() as con:
        row = con.execute("SELECT count(event_id) FROM read_parquet(?)", [str(parquet)]).fetchone()
    return int(row[0]) if row else 0


def _expect(side: str, read: int, written: int, events: int) -> None:
    if (read, written) != (events, events):
        raise RuntimeError(f"{side} read {read:,} and wrote {written:,} of {events:,} events.")
