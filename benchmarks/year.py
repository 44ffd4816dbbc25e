"""A landing area from files to gold tables: Sluice against one plain SQL script that makes the same tables.

Sluice's SQL work is `ingest` of every source into a fresh lake (in this process, without Dagster) and the models' own
execution times as dbt reports them. Its tests, parsing and start-up are shown but not part of it: the script has none.
The script is `year_by_hand.sql`, run whole into a fresh DuckDB file. Both start from the same files in the same run,
turn by turn, and afterwards their gold tables are compared row by row.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from benchmarks.measure import Result, Timing, ratio, total
from benchmarks.project import execution_times, run_dbt
from demo import SHOP_START, landing_span
from resources.dbt import DBT_PROJECT
from sluice.batches import IngestResult
from sluice.contracts import Contract, load_contracts
from sluice.dbt_sources import write_sources
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.settings import PROJECT, Settings, load_settings
from sluice.simulation import generate
from sluice.sql import literal, quoted

SCRIPT = Path(__file__).with_name("year_by_hand.sql")

# A sum of what dbt and DuckLake cost beside the SQL: more would mean that the platform computes something twice.
AIM = 5.0

# The key of an order line is a hash of file and line in Sluice and the line's number in the script; where a row came
# from (_batch_id, _file, _line) the script does not keep.
NOT_COMPARED = frozenset({"order_line_key"})

# Its source is an API, and what is measured is the way of files.
NO_FILES = frozenset({"fct_exchange_rates"})


@dataclass(frozen=True)
class Difference:
    """How a gold table of Sluice and of the script differ: rows of each, rows only one of them has."""

    rows: int
    rows_by_hand: int
    only_sluice: int
    only_by_hand: int

    @property
    def equal(self) -> bool:
        """Whether the same rows are in both, as often."""
        return self.rows == self.rows_by_hand and self.only_sluice == self.only_by_hand == 0


def run(landing: Path | None, runs: int, days: int, scale: float) -> Result:
    """Measure; without a landing area, one of a simulated shop is made first.

    Raises:
        RuntimeError: dbt failed, or the two sides' tables differ; then no time means anything.
    """
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        work = Path(folder)
        if landing is None:
            landing, name = work / "shop" / "landing", f"a simulated shop, {days} days, scale {scale:g}"
            generate(landing, days=days, scale=scale, start=SHOP_START)
        else:
            landing, name = landing.resolve(), "a landing area of files"
        return _measure(landing, name, runs, work)


def _measure(landing: Path, name: str, runs: int, work: Path) -> Result:
    contracts = load_contracts(PROJECT / "contracts")
    ingested, models, tests = Timing("Sluice: ingest"), Timing("Sluice: dbt models"), Timing("Sluice: dbt tests")
    build, by_hand = Timing("Sluice: dbt build, whole"), Timing("SQL by hand, whole")
    target = work / "target"
    for number in range(runs):
        home, database = work / f"sluice-{number}", work / f"hand-{number}.duckdb"
        settings = fresh_settings(home, landing, contracts)
        if number == 0:
            dbt(settings, target, "parse")
        with ingested.round():
            results = load(settings, contracts)
        with build.round():
            dbt(settings, target, "build")
        spent = execution_times(target)
        models.seconds.append(spent["model"])
        tests.seconds.append(spent["test"] + spent["unit_test"])
        with by_hand.round():
            run_script(landing, database)
        if number == runs - 1:
            found = differences(Lake(settings), database)
            wrong = {table: d for table, d in found.items() if not d.equal}
            if wrong:
                raise RuntimeError(f"The script's tables are not Sluice's: {wrong}")
        shutil.rmtree(home)
        database.unlink()
    work_of_sql = total("Sluice: SQL work (ingest + models)", [ingested, models])
    whole = total("Sluice: whole (ingest + dbt build)", [ingested, build])
    read = sum(r.total("rows_read") for r in results)
    files = sum(b.files for r in results for b in r.batches)
    return Result(
        "year",
        f"year: {name}",
        (
            f"{files:,} files, {read:,} rows read; {sum(d.rows for d in found.values()):,} rows in {len(found)} gold "
            "tables, equal on both sides",
            f"{runs} alternating rounds, each into a fresh lake and a fresh DuckDB file",
        ),
        (ingested, models, work_of_sql, tests, build, whole, by_hand),
        (
            ratio("SQL work / by hand", work_of_sql, by_hand, AIM),
            ratio("Sluice, whole / by hand", whole, by_hand),
        ),
    )


def fresh_settings(home: Path, landing: Path, contracts: Mapping[str, Contract]) -> Settings:
    """Settings of a lake of its own below `home`, whatever catalog or bucket the environment names."""
    start, end = landing_span(landing, list(contracts.values()))
    return load_settings(home=home, landing=landing, start_date=start, end_date=end, catalog="", data_path="")


def load(settings: Settings, contracts: Mapping[str, Contract]) -> list[IngestResult]:
    """Ingest every source whole, as the assets do, but without Dagster."""
    lake = Lake(settings)
    return [ingest(lake, contract) for contract in contracts.values()]


def dbt(settings: Settings, target: Path, command: str, *options: str) -> None:
    """Run dbt on the lake of these settings with the project's models; what it writes goes below `target`.

    Raises:
        RuntimeError: it failed; the end of its output is in the message.
    """
    write_sources(load_contracts(settings.contracts).values(), DBT_PROJECT)
    run_dbt(DBT_PROJECT, settings, target, command, *options)


def run_script(landing: Path, database: Path) -> None:
    """Run the script by hand, whole: from nothing to a closed database file."""
    with duckdb.connect(str(database)) as con:
        con.execute(f"SET VARIABLE landing = {literal(str(landing))}")
        con.execute(SCRIPT.read_text(encoding="utf-8"))


def differences(lake: Lake, database: Path) -> dict[str, Difference]:
    """Compare every gold table of either side but `NO_FILES`, on the columns both have, less `NOT_COMPARED`."""
    with lake.reading() as con:
        con.execute(f"ATTACH {literal(str(database))} AS by_hand (READ_ONLY)")
        columns: dict[str, dict[str, list[str]]] = {"lake": {}, "by_hand": {}}
        for side, table, column in con.execute(
            "SELECT database_name, table_name, column_name FROM duckdb_columns() WHERE schema_name = 'gold' "
            "AND database_name IN ('lake', 'by_hand') ORDER BY ALL"
        ).fetchall():
            columns[side].setdefault(table, []).append(column)
        found = {}
        for table in sorted((columns["lake"].keys() | columns["by_hand"].keys()) - NO_FILES):
            ours, theirs = (columns[side].get(table, []) for side in ("lake", "by_hand"))
            names = ", ".join(quoted(c) for c in ours if c in theirs and c not in NOT_COMPARED)
            found[table] = _difference(con, table, names) if names else _one_sided(con, table, bool(ours))
        return found


def _difference(con: duckdb.DuckDBPyConnection, table: str, names: str) -> Difference:
    ours, theirs = (f"SELECT {names} FROM {side}.gold.{quoted(table)}" for side in ("lake", "by_hand"))
    # Rows and not sets: a row twice where the other side has it once is a difference.
    counts: Sequence[str] = (ours, theirs, f"{ours} EXCEPT ALL {theirs}", f"{theirs} EXCEPT ALL {ours}")
    return Difference(*(_count(con, query) for query in counts))


def _one_sided(con: duckdb.DuckDBPyConnection, table: str, is_ours: bool) -> Difference:
    rows = _count(con, f"SELECT 1 FROM {'lake' if is_ours else 'by_hand'}.gold.{quoted(table)}")
    return Difference(rows, -1, rows, 0) if is_ours else Difference(-1, rows, 0, rows)


def _count(con: duckdb.DuckDBPyConnection, query: str) -> int:
    row = con.execute(f"SELECT count(*) FROM ({query})").fetchone()
    return int(row[0]) if row else 0
