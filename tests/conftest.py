"""What the tests share: a home of its own for each test, contracts made on the spot, and landing files.

Everything is real (DuckDB, DuckLake, files below tmp_path); nothing is mocked. What only one module needs stays there.
"""

from __future__ import annotations

import gzip
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import duckdb
import pytest
import yaml
from xdist.scheduler import LoadFileScheduling

from deploy.kafka_broker import missing
from sluice.batches import IngestResult
from sluice.contracts import Contract, load_contract, load_contracts
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.landing import LandingFile
from sluice.preflight import inspect
from sluice.records import FileFault, SourceFile, extract
from sluice.settings import PROJECT, load_settings
from tests import kafka as kafka_server
from tests.postgres import Server, programs, serving
from tests.sluice.capture.source import Source
from tests.sluice.capture.source import missing as lacking_for_captures

# Files of tests that ask for the fixture `kafka`, or start a broker of their own.
WITH_KAFKA = {
    "tests/benchmarks/test_stream_benchmarks.py",
    "tests/sluice/eventlog/test_event_log.py",
    "tests/sluice/eventlog/test_kafka_access.py",
    "tests/sluice/eventlog/test_kafka_log.py",
    "tests/sluice/eventlog/test_kafka_streams.py",
    "tests/sluice/eventlog/test_kafka_unavailable.py",
    "tests/sluice/test_topics_command.py",
}

# Besides those of tests/e2e, files of tests that start Dagster's daemon.
WITH_DAEMON = {"tests/benchmarks/test_latency_benchmark.py"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """A file's tests stay on one worker, and all of tests/e2e on one: two platforms at once starve each other.

    So do those that share a Kafka broker, which takes half a gigabyte and seconds to start.

    Measured: with a worker of its own for the backfills, which wait for Dagster's daemon half of their time, all tests
    took 17 minutes instead of 14.
    """
    if config.getoption("dist") != "loadfile":
        return None

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            scope: str = super()._split_scope(nodeid)
            if scope in WITH_KAFKA:
                return "kafka"
            return "tests/e2e" if scope.startswith("tests/e2e/") or scope in WITH_DAEMON else scope

    return Scheduling(config, log)


# Numbers of the databases whose changes are captured.
_databases = itertools.count()

# A line of the shop's orders that meets its contract, and the header above it.
ORDERS_HEADER = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country"


class Bench:
    """A home folder with its lake and landing area, and short ways to fill and read them."""

    def __init__(self, home: Path, **overrides: Any) -> None:
        # One thread: on a handful of rows a second one doubles what each look at the catalog costs (4 ms become 8).
        # With all cores run the demo, the real year, random pieces, readers under load and the faults.
        self.settings = load_settings(home=home, **({"threads": 1} | overrides))
        self.lake = Lake(self.settings)
        self.landing = self.settings.landing_path
        self.landing.mkdir(parents=True, exist_ok=True)
        self._reader: duckdb.DuckDBPyConnection | None = None

    def close(self) -> None:
        """Let go of the lake; the next query attaches it again."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def put(self, path: str, content: str | bytes) -> Path:
        """Write a landing file; a name ending in .gz packs it."""
        data = content.encode() if isinstance(content, str) else content
        target = self.landing / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(data, mtime=0) if path.endswith(".gz") else data)
        return target

    def put_orders(self, key: str, *lines: str, name: str = "orders.csv") -> Path:
        """Write an orders file of a partition (`2026-01-01|uk`) with the usual header."""
        day, region = key.split("|")
        text = "\n".join([ORDERS_HEADER, *lines]) + "\n"
        return self.put(f"orders/region={region}/date={day}/{name}", text)

    def ingest(self, contract: Contract, partitions: Iterable[str] | None = None, **options: Any) -> IngestResult:
        """Ingest; see `sluice.ingest.ingest`."""
        return ingest(self.lake, contract, partitions, **options)

    def sql(self, query: str, parameters: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query on the lake as it is now; one connection serves all queries, for attaching takes long."""
        if self._reader is None:
            self._reader = self.lake.connect(read_only=True)
        return self._reader.execute(query, list(parameters)).fetchall()

    def bronze(self, source: str) -> list[tuple[Any, ...]]:
        """Every row of a bronze table in a fixed order, without the time it was written."""
        return self.sql(f"SELECT * EXCLUDE (_ingested_at) FROM bronze.{source} ORDER BY _partition_key, _file, _line")

    def snapshots(self) -> int:
        """Number of snapshots the lake has."""
        return int(self.sql("SELECT count(*) FROM ducklake_snapshots('lake')")[0][0])

    def ledger(self, source: str) -> dict[str, tuple[int, int, int, int]]:
        """Current batches: (read, accepted, dead-lettered, duplicate) by partition key."""
        rows = self.sql(
            "SELECT partition_key, rows_read, rows_accepted, rows_dead_lettered, rows_duplicate FROM ops.ledger "
            "WHERE source = ? AND superseded_by IS NULL ORDER BY ingested_at",
            [source],
        )
        return {key: (read, accepted, dead, twins) for key, read, accepted, dead, twins in rows}

    def letters(self, source: str, status: str = "open") -> list[tuple[str, int | None, int, list[str]]]:
        """Dead letters: file, line, rows they stand for and the rules, in order."""
        return self.sql(
            "SELECT file, line, rows, list_transform(reasons, lambda r: r.rule) FROM ops.dead_letters "
            "WHERE source = ? AND status = ? ORDER BY file, line NULLS LAST, rows",
            [source, status],
        )


class Extracted:
    """What `sluice.records.extract` made of some files."""

    def __init__(self, faults: list[FileFault], rows: list[dict[str, Any]], lines: list[int]) -> None:
        self.faults = faults
        self.rows = rows
        self.lines = lines


# Debezium lives for seconds in each test: a compiler and a collector for the long run cost more than they gain. Those
# of tests/sluice/capture/test_changes.py take 32 s of CPU time so, and 52 s without.
os.environ.setdefault("PYDBZ_JVM_OPTS", "-XX:TieredStopAtLevel=1 -XX:-UseG1GC -XX:+UseSerialGC -Xmx512m")

# The machine's own; what is set later is set by `one_thread`, which is there before each of its module's tests.
os.environ.pop("SLUICE_THREADS", None)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No SLUICE_ variable of the machine reaches a test."""
    for name in [n for n in os.environ if n.startswith("SLUICE_") and n != "SLUICE_THREADS"]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """DuckDB has one thread in what this module starts: a build of a small shop takes 5.3 s of CPU time, not 6.9 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICE_THREADS", "1")
        yield


def go_without(reason: str) -> NoReturn:
    """Skip, but never in CI, where a test nobody ran would pass for one that passed."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server; each module makes databases of its own in it."""
    found = programs()
    if found is None:
        go_without("PostgreSQL is not installed (apt install postgresql)")
    with serving(found) as server:
        yield server


@pytest.fixture(scope="session")
def logical() -> Iterator[Server]:
    """A PostgreSQL server with logical replication, where Java and Debezium are there to read it."""
    lacking = lacking_for_captures()
    found = programs()
    if lacking or found is None:
        go_without(f"{lacking} (apt install postgresql default-jre-headless; make .venv/dev)")
    # A slot for each test, which stays until the server is gone.
    with serving(
        found, wal_level="logical", track_commit_timestamp="on", max_replication_slots="60", max_wal_senders="20"
    ) as server:
        yield server


@pytest.fixture
def source(logical: Server, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    """A database of this test, and nothing captured yet."""
    # PostgreSQL cuts longer names off.
    words = re.sub(r"\W", "_", request.node.name)[:50]
    name = f"{words}_{next(_databases)}"
    logical.database(name)
    # The server's slots are of all its databases.
    made = Source(logical, name, tmp_path / "home", slot=f"slot_{name.rpartition('_')[2]}")
    yield made
    made.close()


@pytest.fixture(scope="session")
def kafka() -> Iterator[kafka_server.Broker]:
    """A Kafka broker; each test makes topics of its own in it, and leaves it running."""
    lacking = missing()
    if lacking is not None:
        go_without(lacking)
    with kafka_server.serving() as broker:
        yield broker


MakeBench = Callable[..., Bench]
MakeContract = Callable[..., Contract]


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[MakeBench]:
    """Makes homes of this test: `make_bench("other", chunk_bytes=1)`."""
    made: list[Bench] = []

    def make(name: str, **overrides: Any) -> Bench:
        made.append(Bench(tmp_path / name, **overrides))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """A home of its own for this test."""
    return make_bench("home")


@pytest.fixture(scope="session")
def contracts() -> dict[str, Contract]:
    """The project's own contracts."""
    return load_contracts(PROJECT / "contracts")


def contract_document(
    columns: dict[str, dict[str, Any]],
    *,
    name: str = "things",
    formats: Iterable[str] = ("csv",),
    share: float = 1.0,
    feed: dict[str, str] | None = None,
    volume: dict[str, Any] | None = None,
    evolution: str = "evolve",
    version: str = "1.0.0",
    stream: dict[str, Any] | None = None,
    rest: dict[str, Any] | None = None,
    pull: dict[str, Any] | None = None,
    latency: float | None = None,
    **landing: Any,
) -> dict[str, Any]:
    """A contract as its YAML file holds it; `columns` maps names to ODCS properties, VARCHAR where they say nothing."""
    logical = {"VARCHAR": "string", "BOOLEAN": "boolean", "DATE": "date", "TIMESTAMP": "timestamp", "UUID": "string"}
    properties = []
    for column, given in columns.items():
        kind = given.get("physicalType", "VARCHAR")
        number = "integer" if kind.endswith("INT") or kind == "INTEGER" else "number"
        properties.append({"name": column, "logicalType": logical.get(kind, number), "physicalType": kind, **given})
    custom = [
        {"property": "landing", "value": {"path": f"{name}/date={{date}}", "formats": list(formats), **landing}},
        {"property": "gates", "value": {"maxRejectedShare": share} | ({"volume": volume} if volume else {})},
    ]
    if feed is not None:
        custom.append({"property": "changeFeed", "value": feed})
    if stream is not None:
        custom.append({"property": "stream", "value": stream})
    if rest is not None:
        custom.append({"property": "rest", "value": rest})
    if pull is not None:
        custom.append({"property": "pull", "value": pull})
    if evolution != "evolve":
        custom.append({"property": "schemaEvolution", "value": evolution})
    sla = [] if latency is None else [{"property": "latency", "value": latency, "unit": "h"}]
    return {
        "slaProperties": sla,
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": f"test.{name}",
        "version": version,
        "status": "active",
        "schema": [{"name": name, "properties": properties, "customProperties": custom}],
    }


@pytest.fixture(scope="session")
def make_contract(tmp_path_factory: pytest.TempPathFactory) -> MakeContract:
    """Makes a contract from columns by way of its file; see `contract_document`."""

    def make(columns: dict[str, dict[str, Any]], **options: Any) -> Contract:
        path = tmp_path_factory.mktemp("contract") / "made.odcs.yaml"
        path.write_text(yaml.safe_dump(contract_document(columns, **options), allow_unicode=True), encoding="utf-8")
        return load_contract(path)

    return make


@pytest.fixture(scope="session")
def memory() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection without a lake, its session set as the lake sets it."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute("SET threads = 2")
        yield con


@pytest.fixture(scope="session")
def read_files(memory: duckdb.DuckDBPyConnection, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Extracted]:
    """Takes files apart without a lake: `read_files(contract, {"a.csv": b"..."})`, by preflight and records alone."""
    endings = {"csv": "csv", "jsonl": "jsonl", "parquet": "parquet"}

    def read(contract: Contract, files: dict[str, bytes]) -> Extracted:
        folder = tmp_path_factory.mktemp("files")
        sources = []
        for number, (name, data) in enumerate(files.items()):
            (folder / name).write_bytes(data)
            packed = name.endswith(".gz")
            kind = endings[name.removesuffix(".gz").rpartition(".")[2]]
            found = LandingFile(name, len(data), 0, "k", (), kind, packed)
            encoding = contract.landing.csv.encoding if kind == "csv" else "utf-8"
            sources.append(SourceFile(number, 0, inspect(found, folder, folder / "tmp", encoding)))
        faults = extract(memory, contract, sources)
        result = memory.execute("SELECT * FROM records ORDER BY file_id, line")
        names = [column[0] for column in result.description or []]
        rows = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
        return Extracted(faults, rows, [s.inspected.lines for s in sources])

    return read
