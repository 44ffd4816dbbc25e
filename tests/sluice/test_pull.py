"""Plain incremental pull from a real PostgreSQL: late commits, a kill at every step, values as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import sluice.pull
from sluice.contracts import Contract, Pull
from sluice.errors import ConfigurationError, ContractError, PullError, PullUnavailableError
from sluice.pull import Pulled, pull
from tests.conftest import Bench
from tests.postgres import PASSWORD, Server

Make = Callable[..., Contract]


class Table:
    """A table of a database, and the contract it is pulled by."""

    def __init__(self, server: Server, database: str, contract: Contract, bench: Bench) -> None:
        self.server, self.database, self.contract, self.bench = server, database, contract, bench

    def sql(self, sql: str) -> str:
        return self.server.run(self.database, sql)

    def pull(self) -> Pulled:
        return pull(self.bench.lake, self.contract)

    def delivered(self) -> list[list[dict[str, Any]]]:
        """The rows of each file there is, in order of their names."""
        files = sorted(self.bench.landing.rglob("pull-*.jsonl"))
        return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]

    def with_pull(self, **changes: Any) -> Table:
        assert self.contract.pull is not None
        contract = replace(self.contract, pull=replace(self.contract.pull, **changes))
        return Table(self.server, self.database, contract, self.bench)


@pytest.fixture
def table(
    postgres: Server, request: pytest.FixtureRequest, bench: Bench, make_contract: Make, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Table]:
    name = re.sub(r"\W", "_", request.node.name)[:60]
    postgres.database(name)
    monkeypatch.setenv("SLUICE_PULL_THINGS", f"{postgres.connection(name)} password={PASSWORD}")
    contract = make_contract(
        {
            "id": {"physicalType": "INTEGER", "primaryKey": True},
            "price": {"physicalType": "DECIMAL(38,18)"},
            "changed": {"physicalType": "TIMESTAMP"},
        },
        formats=["jsonl"],
        duplicates="batch",
    )
    contract = replace(contract, pull=Pull("SLUICE_PULL_THINGS", "public.things", "", "changed", 600))
    made = Table(postgres, name, contract, bench)
    made.sql("CREATE TABLE things (id INT PRIMARY KEY, price NUMERIC, changed TIMESTAMPTZ)")
    yield made


def test_what_changed_since_the_mark_and_no_more(table: Table) -> None:
    table.sql(
        "INSERT INTO things VALUES (1, 12345678901234567890.123456789012345678, '2026-01-01 10:00+02'), (2, NULL, NULL)"
    )
    first = table.pull()
    assert (first.rows, first.mark) == (2, "2026-01-01 08:00:00+00")
    assert table.pull() == Pulled(None, 0, first.mark)
    # Committed late: before the mark, but within the overlap.
    table.sql("INSERT INTO things VALUES (3, 1.50, '2026-01-01 07:55Z'), (4, 2, '2026-01-01 07:00Z')")
    assert table.pull().rows == 1
    table.sql("UPDATE things SET price = 7, changed = '2026-01-02 00:00Z' WHERE id = 1")
    assert table.pull().rows == 1
    assert [[row["id"] for row in rows] for rows in table.delivered()] == [["1", "2"], ["3"], ["1"]]

    table.bench.ingest(table.contract)
    rows = table.bench.sql("SELECT id, price, changed::VARCHAR FROM bronze.things ORDER BY _file, _line")
    assert rows == [
        (1, Decimal("12345678901234567890.123456789012345678"), "2026-01-01 08:00:00"),
        (2, None, None),
        (3, Decimal("1.500000000000000000"), "2026-01-01 07:55:00"),
        (1, Decimal("7.000000000000000000"), "2026-01-02 00:00:00"),
    ]
    assert table.bench.letters("things") == []


@pytest.mark.parametrize("step", ["before the file", "before its name", "before the mark"])
def test_killed_under_way_nothing_is_lost_or_twice(table: Table, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    table.sql("INSERT INTO things VALUES (1, 1, '2026-01-01 10:00Z')")
    table.pull()
    table.sql("INSERT INTO things VALUES (2, 2, '2026-01-01 11:00Z')")

    class Killed(BaseException):
        pass

    with monkeypatch.context() as patched:
        if step == "before the file":
            patched.setattr(sluice.pull, "_put", _raise(Killed))
        elif step == "before its name":
            patched.setattr(Path, "replace", _raise(Killed))
        else:
            saves = iter([sluice.pull._save, _raise(Killed)])
            patched.setattr(sluice.pull, "_save", lambda *a: next(saves)(*a))
        with pytest.raises(Killed):
            table.pull()
    table.sql("INSERT INTO things VALUES (3, 3, '2026-01-01 12:00Z')")
    table.pull()
    assert [[row["id"] for row in rows] for rows in table.delivered()] == [["1"], ["2", "3"]]
    assert table.pull().rows == 0


def _raise(error: type[BaseException]) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def test_a_query_and_a_number_for_a_cursor(table: Table) -> None:
    table.sql(
        "CREATE TABLE log (n BIGINT, v TEXT); INSERT INTO log SELECT i, 'v' || i FROM generate_series(1, 10) AS i"
    )
    counted = table.with_pull(table="", query="SELECT n AS id, v FROM log WHERE n <> 5", cursor="id", overlap=3)
    assert counted.pull().rows == 9
    table.sql("INSERT INTO log VALUES (11, 'v11')")
    found = counted.pull()
    assert (found.rows, found.mark) == (1, "11")
    assert found.file is not None and found.file.endswith("/pull-00000002.jsonl")
    assert [len(rows) for rows in table.delivered()] == [9, 1]


def test_what_cannot_be_pulled_is_told_without_the_password(
    table: Table, make_contract: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.sql("INSERT INTO things VALUES (1, 1, '2026-01-01 10:00Z')")
    with pytest.raises(ContractError, match="is no column of what is pulled; those are id, price, changed"):
        table.with_pull(cursor="updated").pull()
    with pytest.raises(ContractError, match="must be a time, a date or a whole number"):
        table.with_pull(cursor="price").pull()
    with pytest.raises(PullError, match="The mark has not moved"):
        table.with_pull(table="public.nothing").pull()
    with pytest.raises(ContractError, match="has no customProperty pull"):
        pull(table.bench.lake, make_contract({"id": {}}))
    # What is attached to read cannot be written to.
    with pytest.raises(PullError):
        table.with_pull(table="", query="DELETE FROM things RETURNING *", cursor="changed").pull()
    assert table.sql("SELECT count(*) FROM things").strip() == "1"
    monkeypatch.setenv("SLUICE_PULL_THINGS", f"host=127.0.0.1 port=1 dbname=x user=x password={PASSWORD}")
    with pytest.raises(PullUnavailableError) as caught:
        table.pull()
    assert PASSWORD not in str(caught.value)
    monkeypatch.delenv("SLUICE_PULL_THINGS")
    with pytest.raises(ConfigurationError, match="SLUICE_PULL_THINGS, which is not set"):
        table.pull()
