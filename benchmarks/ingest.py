"""Order lines into the lake: Sluice's validated ingest against an unchecked insert, and against dlt.

Sluice reads, types, judges by contract, finds duplicates, keeps dead letters and books. The first peer is the least
anyone could do with the same engine and the same kind of lake: read every column as text and insert it, in one
statement. dlt loads the same files into a DuckDB file, by rows of Python and through its DuckDB CSV reader. It has an
environment of its own, which `make bench` makes, and without which it is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb

from benchmarks.measure import Result, Timing, ratio, short, times
from sluice.batches import IngestResult
from sluice.contracts import load_contracts
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.settings import PROJECT, load_settings
from sluice.sql import literal

# The project's aims: what checking may cost, and what is gained by doing it in sets.
AIM = 3.0
AIM_DLT_ROWS = 30.0
AIM_DLT_DUCKDB = 1.0

DLT_PYTHON = PROJECT / ".venv-bench" / "bin" / "python"
DLT_PEER = Path(__file__).with_name("dlt_peer.py")

# By rows dlt takes minutes for a million lines. Of more it loads the first, and the whole is reckoned: its time grows
# with the lines, and the second or two it takes to begin are too few to matter.
DLT_ROWS_AT_MOST = 1_000_000

START = date(2026, 1, 1)
ROWS_PER_FILE = 100_000  # a busy day; the real year's busiest has 4,085 lines

# Of 100 lines one is the one before it again, as in the real year; of 1,000 one breaks a rule.
DUPLICATE_EVERY = 100
BAD_EVERY = 1_000

# Lines as long as the real year's (87 bytes), as often quoted (one in 44), as often without a customer (one in five).
_LINES = f"""
    SELECT
        CAST(400000 + n // 12 % 500000 AS VARCHAR) AS "Invoice",
        CAST(10000 + n * 7919 % 4001 AS VARCHAR) AS "StockCode",
        CASE WHEN n % 44 = 7 THEN 'SET OF ' || n % 9 || ' TINS, PANTRY DESIGN'
            ELSE 'WHITE HANGING HEART HOLDER ' || n % 997 END AS "Description",
        CASE WHEN n % {BAD_EVERY} = 500 THEN 0 ELSE 1 + n % 12 END AS "Quantity",
        strftime($day + INTERVAL 7 HOUR + INTERVAL 1 SECOND * (n // 12 % 40000), '%Y-%m-%d %H:%M:%S') AS "InvoiceDate",
        CAST(CAST(n * 31 % 2000 AS DECIMAL(12, 2)) / 100 AS DECIMAL(12, 2)) AS "Price",
        CASE WHEN n % 5 <> 0 THEN CAST(12000 + n // 12 % 6000 AS VARCHAR) END AS "Customer ID",
        'United Kingdom' AS "Country"
    FROM (SELECT i - CAST(i % {DUPLICATE_EVERY} = {DUPLICATE_EVERY - 1} AS BIGINT) AS n FROM range($rows) AS r (i))
"""


@dataclass(frozen=True)
class Expected:
    """What must come out of the files made here."""

    files: int
    rows: int
    duplicates: int
    bad: int


def run(rows: int, runs: int, known: dict[int, Timing] | None = None) -> Result:
    """Make the files, then measure all sides turn by turn.

    Args:
        rows: order lines.
        runs: rounds.
        known: times of dlt by rows, by their number, that an earlier call has measured; so many rows are not loaded
            again, and what is loaded is noted.

    Raises:
        RuntimeError: a side did not take the rows it must; then no time means anything.
    """
    loaders = {mode: Dlt(mode) for mode in ("rows", "duckdb")} if DLT_PYTHON.exists() else {}
    if not loaders:
        print(f"ingest: without dlt, for there is no {DLT_PYTHON}. `make bench` makes it.", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        work = Path(folder)
        expected = write_orders(work / "landing", rows)
        size = sum(path.stat().st_size for path in (work / "landing").rglob("*.csv"))
        # Whole files: the first so many days.
        share = min(rows, max(DLT_ROWS_AT_MOST // ROWS_PER_FILE, 1) * ROWS_PER_FILE)
        known = {} if known is None else known
        if share in known:
            loaders.pop("rows")
        some = work / "landing"
        if "rows" in loaders and share < rows:
            some = work / "some"
            write_orders(some, share)
        checked, unchecked = Timing("Sluice: ingest()"), Timing("DuckDB: read_csv, all text, INSERT")
        for number in range(runs):
            lake = fresh_lake(work / f"sluice-{number}", work / "landing", expected.files)
            with checked.round():
                result = ingest(lake, load_contracts(PROJECT / "contracts")["orders"])
            check(result, expected)
            _remove(lake)
            lake = fresh_lake(work / f"peer-{number}", work / "landing", expected.files)
            with unchecked.round():
                taken = insert_unchecked(lake)
            if taken != rows:
                raise RuntimeError(f"The peer took {taken:,} of {rows:,} rows.")
            _remove(lake)
            for mode, loader in loaders.items():
                loader.round(some if mode == "rows" else work / "landing", share if mode == "rows" else rows, work)
    timings, ratios = [checked, unchecked], [ratio("ingest / unchecked insert", checked, unchecked, AIM)]
    facts = [
        f"{expected.files} CSV files, one a day, {size / 1e6:.0f} MB; {expected.duplicates:,} exact duplicates, "
        f"{expected.bad:,} lines that break a rule",
        f"{runs} alternating rounds, each into a fresh lake; those of Sluice and DuckDB are DuckLakes (SQLite catalog)",
        f"Sluice takes {rows / checked.median:,.0f} lines a second, the insert {rows / unchecked.median:,.0f}",
    ]
    if loaders:
        by_duckdb = loaders["duckdb"].timing
        by_rows = known.setdefault(share, loaders["rows"].timing) if "rows" in loaders else known[share]
        if share < rows:
            by_rows = times(f"dlt: by rows (reckoned from {share:,} lines)", by_rows, rows / share)
        timings += [by_rows, by_duckdb]
        ratios += [
            ratio("dlt by rows / ingest", by_rows, checked, AIM_DLT_ROWS, at_least=True),
            ratio("dlt through DuckDB / ingest", by_duckdb, checked, AIM_DLT_DUCKDB, at_least=True),
        ]
        facts.append(f"dlt {loaders['duckdb'].version} into a DuckDB file, pipeline.run only, its import left out")
    else:
        facts.append("without dlt, which was not installed")
    return Result(f"ingest-{short(rows)}", f"ingest: {rows:,} order lines", tuple(facts), tuple(timings), tuple(ratios))


class Dlt:
    """The peer dlt, by rows or through DuckDB, and the times it took."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.timing = Timing("dlt: by rows" if mode == "rows" else "dlt: its DuckDB CSV reader")
        self.version = ""

    def round(self, landing: Path, rows: int, work: Path) -> None:
        """Load the files below `landing` into a new database in a process of its own.

        Raises:
            RuntimeError: it failed, or not all rows arrived.
        """
        folder = work / f"dlt-{self.mode}"
        folder.mkdir()
        done = subprocess.run(
            [DLT_PYTHON, DLT_PEER, self.mode, landing, folder],
            # It looks for its configuration where it runs, and tells its makers of each run unless told not to.
            cwd=folder,
            env={**os.environ, "DLT_DATA_DIR": str(folder / "data"), "RUNTIME__DLTHUB_TELEMETRY": "false"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"dlt failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
        told = json.loads(done.stdout.splitlines()[-1])
        if told["rows"] != rows:
            raise RuntimeError(f"dlt took {told['rows']:,} of {rows:,} rows.")
        self.timing.seconds.append(told["seconds"])
        self.timing.cpu_seconds.append(told["cpu_seconds"])
        self.version = told["version"]
        shutil.rmtree(folder)


def write_orders(landing: Path, rows: int) -> Expected:
    """Write `rows` order lines of the UK, one file a day; the same rows whenever it is asked for as many."""
    duplicates = bad = 0
    with duckdb.connect() as con:
        sizes = [min(ROWS_PER_FILE, rows - begun) for begun in range(0, rows, ROWS_PER_FILE)]
        for number, size in enumerate(sizes):
            day = START + timedelta(days=number)
            path = landing / "orders" / "region=uk" / f"date={day}" / "orders.csv"
            path.parent.mkdir(parents=True)
            con.execute(f"COPY ({_LINES}) TO {literal(str(path))} (HEADER)", {"day": day, "rows": size})
            duplicates += size // DUPLICATE_EVERY
            # Bad lines stand at 500, 1,500, ..., never where a duplicate is.
            bad += (size + BAD_EVERY - 501) // BAD_EVERY
    return Expected(len(sizes), rows, duplicates, bad)


def fresh_lake(home: Path, landing: Path, days: int) -> Lake:
    """A lake of its own with its schemas and ops tables, whatever catalog or bucket the environment names."""
    lake = Lake(
        load_settings(
            home=home,
            landing=landing,
            start_date=START,
            end_date=START + timedelta(days=days),
            catalog="",
            data_path="",
        )
    )
    lake.create()
    return lake


def insert_unchecked(lake: Lake) -> int:
    """The peer: one table of text, one INSERT. Returns the rows inserted."""
    files = literal(str(lake.settings.landing_path / "orders" / "*" / "*" / "*.csv"))
    source = (
        f"read_csv({files}, all_varchar = true, header = true, delim = ',', quote = '\"', hive_partitioning = false)"
    )
    with lake.connect() as con:
        con.execute(f"CREATE TABLE bronze.orders AS FROM {source} LIMIT 0")
        row = con.execute(f"INSERT INTO bronze.orders FROM {source}").fetchone()
    return int(row[0]) if row else 0


def check(result: IngestResult, expected: Expected) -> None:
    """Hold what was ingested against what was written.

    Raises:
        RuntimeError: they differ.
    """
    found = Expected(
        sum(b.files for b in result.batches),
        result.total("rows_read"),
        result.total("rows_duplicate"),
        result.total("rows_dead_lettered"),
    )
    if found != expected:
        raise RuntimeError(f"Sluice booked {found}, but the files hold {expected}.")


def _remove(lake: Lake) -> None:
    shutil.rmtree(lake.settings.home)
