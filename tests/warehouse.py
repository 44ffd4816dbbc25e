"""Loading a landing area without Dagster, piece by piece, and what comes of it: for tests that compare two loads.

What a piece leaves behind belongs to the tests; so does every expectation.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from resources.dbt import DBT_PROJECT, dbt_environment
from sluice.bronze import create_bronze_tables
from sluice.contracts import Contract, load_contracts
from sluice.dbt_sources import write_sources
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.landing import scan
from sluice.settings import PROJECT, Settings

CONTRACTS = list(load_contracts(PROJECT / "contracts").values())


def days_of(settings: Settings) -> list[str]:
    """The days the landing area has files of, in order."""
    return sorted({path.name.removeprefix("date=") for path in settings.landing_path.rglob("date=*")})


def overlapping(days: Sequence[str], pieces: int, seed: int) -> list[Sequence[str]]:
    """The days in so many pieces, each reaching halfway into the next, in random order."""
    cuts = [len(days) * number // pieces for number in range(pieces + 1)]
    found = [days[start : end + (end - start + 1) // 2] for start, end in pairwise(cuts)]
    random.Random(seed).shuffle(found)
    return found


def _places(
    settings: Settings, folder: Path = DBT_PROJECT, contracts: Sequence[Contract] = tuple(CONTRACTS)
) -> list[str]:
    """Options of dbt. A target folder of its own: others may be building in the project's.

    Dagster's manifest is not made: whoever calls dbt in this process parses for it.
    """
    os.environ.update(dbt_environment(settings))
    write_sources(contracts, folder)
    # fmt: off
    return [
        "--project-dir", str(folder), "--profiles-dir", str(folder),
        "--target-path", str(settings.home / "dbt" / "target"), "--log-path", str(settings.home / "dbt" / "logs"),
    ]
    # fmt: on


def dbt_test(settings: Settings, name: str) -> int:
    """Run one test of the dbt project on what is there, in this process; returns how many rows fail it."""
    (result,) = _tested(settings, name)
    assert result.status in ("pass", "fail"), result.message
    return int(result.failures or 0)


def unit_tests(settings: Settings) -> dict[str, str]:
    """Run all unit tests of the dbt project; returns the outcome of each, a message where it has one."""
    return {r.node.name: str(r.message or r.status) for r in _tested(settings, "test_type:unit")}


def _tested(settings: Settings, selected: str) -> list[Any]:
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    # dbt takes a connection that is still open for its own, whichever lake it was opened for.
    DuckDBConnectionManager.close_all_connections()
    try:
        places = _places(settings)
        runner = dbtRunner(manifest=_parsed(settings, places, DBT_PROJECT))
        done = runner.invoke(["--quiet", "test", "--select", selected, *places])
        assert done.result is not None, str(done.exception)
        return list(done.result.results)  # type: ignore[union-attr]
    finally:
        DuckDBConnectionManager.close_all_connections()


# What dbt has parsed in this process, by folder and kind of catalog: the same as long as contracts and files are.
_manifests: dict[tuple[Path, bool], Any] = {}


def _parsed(settings: Settings, places: Sequence[str], folder: Path) -> Any:
    """The manifest of a dbt project: parsing takes two seconds, which nobody needs twice."""
    from dbt.cli.main import dbtRunner

    key = (folder, settings.uses_postgres)
    if key not in _manifests:
        parsed = dbtRunner().invoke(["--quiet", "parse", *places])
        assert parsed.success, parsed.exception
        _manifests[key] = parsed.result
    return _manifests[key]


@contextmanager
def building(
    settings: Settings, folder: Path = DBT_PROJECT, contracts: Sequence[Contract] = tuple(CONTRACTS)
) -> Iterator[Callable[..., None]]:
    """Gives what builds the models named, or all, as often as it is called; dbt runs in this process, parsed once.

    With contracts of one's own the dbt project must be one's own, too: the sources in it are made from them.
    """
    # Deferred: importing dbt takes more than a second.
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    # dbt takes a connection that is still open for its own, whichever lake it was opened for.
    DuckDBConnectionManager.close_all_connections()
    places = _places(settings, folder, contracts)
    try:
        runner = dbtRunner(manifest=_parsed(settings, places, folder))

        def build(*names: str) -> None:
            # Anew each time: no SLUICE_ variable outlives the fixtures of a test (tests/conftest.py).
            os.environ.update(dbt_environment(settings))
            chosen = ["--select", *names] if names else []
            done = runner.invoke(["--quiet", "run", "--no-write-json", *chosen, *places])
            assert done.success, done.exception or [r.message for r in done.result if r.status == "error"]

        yield build
    finally:
        # dbt keeps its connection for the next call, and with it the lake.
        DuckDBConnectionManager.close_all_connections()


def load(
    settings: Settings,
    pieces: Sequence[Sequence[str]],
    folder: Path = DBT_PROJECT,
    contracts: Sequence[Contract] = tuple(CONTRACTS),
    select: str = "",
) -> None:
    """Ingest each piece, a list of days, and build the warehouse, or the models named, after it."""
    lake = Lake(settings)
    create_bronze_tables(lake, contracts)
    keys = {
        contract.name: scan(contract, settings.landing_path, settings.start_date, settings.end_date).by_partition()
        for contract in contracts
    }
    with building(settings, folder, contracts) as build:
        for days in pieces:
            for contract in contracts:
                ingest(lake, contract, [key for key in keys[contract.name] if key.split("|")[0] in days])
            build(*filter(None, [select]))


def gold(settings: Settings) -> dict[str, list[tuple[object, ...]]]:
    """All rows of the gold tables, sorted."""
    with Lake(settings).reading() as con:
        tables = con.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'gold'").fetchall()
        return {t: con.execute(f"SELECT * FROM gold.{t} ORDER BY ALL").fetchall() for (t,) in tables}


def assert_same(found: dict[str, list[tuple[object, ...]]], wanted: dict[str, list[tuple[object, ...]]]) -> None:
    """Gold is the same row for row; otherwise say which tables are not, and by which rows."""
    assert {name: len(rows) for name, rows in found.items()} == {name: len(rows) for name, rows in wanted.items()}
    for name, rows in wanted.items():
        lacking, surplus = (set(map(repr, rows)), set(map(repr, found[name])))
        apart = [*sorted(lacking - surplus)[:3], "instead of", *sorted(surplus - lacking)[:3]]
        assert found[name] == rows, f"{name}: wanted {apart}"
