"""Loads an example and compares what comes of it with what is expected of it.

Belongs here: the way from delivered files to a comparison, the same for every example: Sluice's ingest with the
example's contracts, dbt with the example's project and Sluice's macros. What is in the data, and why anything
differs, belongs to the examples.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

from resources.dbt import DBT_PROJECT, dbt_environment
from sluice.books import books
from sluice.bronze import create_bronze_tables
from sluice.contracts import load_contracts
from sluice.dbt_sources import write_sources
from sluice.errors import LandingError
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.settings import PROJECT, Settings, load_settings
from sluice.sql import literal, quoted

# Beside the project, and not in it: data of others.
DATA = PROJECT.parent / "shared" / "data"


@dataclass(frozen=True)
class Expectation:
    """A table and the file with the rows it must have.

    Attributes:
        table: in the schema gold.
        file: below the folder `expected` of the data.
        key: columns that identify a row in both.
        columns: by the file's name of a column, the table's where it has another.
        known: what differs all the same: key of a row to its columns, or to nothing where one side has no such row.
    """

    table: str
    file: str
    key: tuple[str, ...]
    columns: Mapping[str, str]
    known: Mapping[tuple[str, ...], frozenset[str]]


@dataclass(frozen=True)
class Comparison:
    """How a table compares: rows of file and table, columns compared, the rows that differ with their columns."""

    expectation: Expectation
    expected: int
    rows: int
    columns: int
    differences: dict[tuple[str, ...], frozenset[str]]

    @property
    def as_known(self) -> bool:
        """Whether nothing differs but what is known to; keys that stand twice, stand twice in both."""
        alone = sum(not columns for columns in self.differences.values())
        return self.differences == dict(self.expectation.known) and abs(self.rows - self.expected) <= alone


@dataclass(frozen=True)
class Example:
    """An example: its folder with `contracts` and `dbt_project`, its data, and what to expect.

    Attributes:
        name: of its folders here and in the data.
        start: first day of its data.
        deliver: writes the landing files of its data.
        left_out: beginnings of the names of columns that are not reproduced; the README of the example says why.
        expected: what must come of it.
    """

    name: str
    start: date
    deliver: Callable[[Path, Path], None]
    left_out: tuple[str, ...]
    expected: tuple[Expectation, ...]

    @property
    def folder(self) -> Path:
        """Where its contracts and models are."""
        return PROJECT / "examples" / self.name

    @property
    def data(self) -> Path:
        """Where its data are."""
        return DATA / self.name


def deliver_by_day(source: Path, folder: Path, received: str) -> None:
    """Write the rows of a Parquet file as a collector does: into a folder for each day, by the text of a time.

    Args:
        source: the file.
        folder: below the landing folder; its files are `date=<day>/events.parquet`.
        received: column with the time.
    """
    rows = literal(str(source))
    with duckdb.connect() as con:
        days = con.execute(f"SELECT DISTINCT {quoted(received)}[:10] FROM {rows} ORDER BY 1").fetchall()
        for (day,) in days:
            path = folder / f"date={day}" / "events.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            chosen = f"FROM {rows} WHERE {quoted(received)}[:10] = {literal(day)}"
            con.execute(f"COPY ({chosen}) TO {literal(str(path))} (FORMAT parquet)")


def settings_of(example: Example, home: Path) -> Settings:
    """Settings of a home of the example's own.

    Raises:
        LandingError: its data are not there.
    """
    if not example.data.is_dir():
        raise LandingError(f"The data of the example are not at {example.data}.")
    return load_settings(home=str(home), contracts=str(example.folder / "contracts"), start_date=example.start)


def load(example: Example, settings: Settings, pieces: Sequence[Sequence[str]] | None = None) -> None:
    """Deliver, ingest and build; with pieces (lists of days) build after each of them.

    Raises:
        RuntimeError: dbt did not build or a test failed; its messages are in the text.
    """
    # Deferred: importing dbt takes more than a second.
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    example.deliver(example.data, settings.landing_path)
    contracts = list(load_contracts(settings.contracts).values())
    lake = Lake(settings)
    create_bronze_tables(lake, contracts)
    project = example.folder / "dbt_project"
    write_sources(contracts, project)
    os.environ.update(dbt_environment(settings))
    # fmt: off
    build = [
        "--quiet", "build", "--project-dir", str(project), "--profiles-dir", str(DBT_PROJECT),
        "--target-path", str(settings.home / "dbt" / "target"), "--log-path", str(settings.home / "dbt" / "logs"),
    ]
    # fmt: on
    days = sorted({path.name.removeprefix("date=") for path in settings.landing_path.rglob("date=*")})
    for piece in pieces or [days]:
        for contract in contracts:
            ingest(lake, contract, piece)
        # dbt takes a connection that is still open for its own, whichever lake it was opened for.
        DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]
        try:
            done = dbtRunner().invoke(build)
        finally:
            DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call]
        if not done.success:
            results = getattr(done.result, "results", [])
            messages = [f"{r.node.name}: {r.message}" for r in results if r.status not in ("success", "pass")]
            raise RuntimeError("\n".join(messages) or str(done.exception))


def compare(con: duckdb.DuckDBPyConnection, example: Example, expectation: Expectation) -> Comparison:
    """Compare a table with its file, column by column; the file's text is cast to what the table has."""
    # Some of the files have the word for null.
    theirs = f"(SELECT nullif(COLUMNS(*), 'NULL') FROM {literal(str(example.data / 'expected' / expectation.file))})"
    ours = f"gold.{quoted(expectation.table)}"
    kinds = dict(con.execute(f"SELECT column_name, column_type FROM (DESCRIBE {ours})").fetchall())
    names = [name for (name,) in con.execute(f"SELECT column_name FROM (DESCRIBE FROM {theirs})").fetchall()]
    asked = [n for n in names if n not in expectation.key and not n.startswith(example.left_out)]
    compared = {name: expectation.columns.get(name, name) for name in asked}
    tests = []
    for name, column in compared.items():
        text, value = f"x.{quoted(name)}", f"TRY_CAST(x.{quoted(name)} AS {kinds[column]})"
        # A text that cannot be cast is no null.
        differs = f"{value} IS DISTINCT FROM t.{quoted(column)} OR ({value} IS NULL AND {text} IS NOT NULL)"
        tests.append(f"CASE WHEN {differs} THEN {literal(name)} END")
    keys = [(f"x.{quoted(k)}", f"CAST(t.{quoted(k)} AS VARCHAR)") for k in expectation.key]
    found = con.execute(
        f"SELECT [{', '.join(f'coalesce({a}, {b})' for a, b in keys)}], x.present AND t.present, "
        f"list_filter([{', '.join(tests)}]::VARCHAR[], lambda c: c IS NOT NULL) "
        f"FROM (SELECT *, true AS present FROM {theirs}) AS x FULL JOIN (SELECT *, true AS present FROM {ours}) AS t "
        f"ON {' AND '.join(f'{a} IS NOT DISTINCT FROM {b}' for a, b in keys)}"
    ).fetchall()
    differences = {tuple(k): frozenset(cols if both else ()) for k, both, cols in found if cols or not both}
    ((expected, there),) = con.execute(
        f"SELECT (SELECT count(*) FROM {theirs}), (SELECT count(*) FROM {ours})"
    ).fetchall()
    return Comparison(expectation, expected, there, len(compared), differences)


def main(example: Example, arguments: Sequence[str] | None = None) -> int:
    """Load an example and say how it compares; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"examples.{example.name}", description="Load real events and compare.")
    parser.add_argument("--home", type=Path, default=PROJECT / f".sluice-{example.name}", help="where its lake is")
    home = parser.parse_args(arguments).home
    try:
        settings = settings_of(example, home)
    except LandingError as error:
        print(error)
        return 1
    load(example, settings)
    lake = Lake(settings)
    for book in books(lake, list(load_contracts(settings.contracts))):
        print(
            f"{book.source}: {book.rows_read} read = {book.rows_accepted} accepted + {book.rows_dead_lettered} "
            f"dead-lettered + {book.rows_duplicate} duplicates"
        )
    as_known = True
    with lake.reading() as con:
        for expectation in example.expected:
            comparison = compare(con, example, expectation)
            as_known = as_known and comparison.as_known
            print(
                f"{expectation.table}: {comparison.rows} rows, {comparison.expected} expected, "
                f"{comparison.columns} columns compared, "
                f"{len(comparison.differences)} rows differ{'' if comparison.as_known else ' OTHERWISE THAN KNOWN'}"
            )
            for key, names in sorted(comparison.differences.items()):
                print(f"  {', '.join(key)}: {', '.join(sorted(names)) or 'only on one side'}")
    print("Why rows differ is in the README beside the example." if as_known else "This is not as it should be.")
    return 0 if as_known else 1
