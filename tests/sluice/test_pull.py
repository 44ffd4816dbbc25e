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
import yaml

import sluice.pull
from sluice.backup import back_up, restore
from sluice.cli import main
from sluice.contracts import Contract, Pull
from sluice.errors import ConfigurationError, ContractError, LandingError, PullError, PullUnavailableError
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.pull import Pulled, pull
from sluice.settings import load_settings
from tests.conftest import Bench, MakeContract, contract_document
from tests.postgres import PASSWORD, Server


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
    postgres: Server,
    request: pytest.FixtureRequest,
    bench: Bench,
    make_contract: MakeContract,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Table]:
    name = re.sub(r"\W", "_", request.node.name)[-60:]
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
            saves = iter([sluice.pull.save, _raise(Killed)])
            patched.setattr(sluice.pull, "save", lambda *a: next(saves)(*a))
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
    table: Table, make_contract: MakeContract, monkeypatch: pytest.MonkeyPatch
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


def ids(table: Table) -> list[list[str]]:
    """Of each file: the ids in it, in order."""
    return [sorted(row["id"] for row in rows) for rows in table.delivered()]


@pytest.mark.parametrize("cursor", ["TIMESTAMPTZ", "TIMESTAMP", "DATE"])
@pytest.mark.parametrize("future", ["2262-01-01", "infinity"])
def test_a_row_of_the_future_is_delivered_once_and_ends_no_pull(table: Table, cursor: str, future: str) -> None:
    dated = table.with_pull(overlap=1)
    table.sql(f"ALTER TABLE things ALTER changed TYPE {cursor} USING changed::{cursor}")
    table.sql("INSERT INTO things VALUES (1, 1, now() - INTERVAL '20 days')")
    mark = dated.pull().mark
    table.sql(f"INSERT INTO things VALUES (2, 1, '{future}')")
    found = dated.pull()
    assert (found.rows, found.mark) == (1, mark)
    assert "rows whose changed lies in the future (1, up to " in found.warnings[0]
    table.sql("INSERT INTO things VALUES (3, 1, now() - INTERVAL '10 days')")
    found = dated.pull()
    assert found.rows == 1 and found.mark != mark and found.warnings
    assert dated.pull().rows == 0
    table.sql("UPDATE things SET changed = now() - INTERVAL '5 days' WHERE id = 2")
    found = dated.pull()
    assert (found.rows, found.warnings) == (1, ())
    assert ids(table) == [["1"], ["2"], ["3"], ["2"]]


def test_a_mark_that_is_in_the_future_already_is_refused_until_it_is_wound_back(
    table: Table,
) -> None:
    table.sql("INSERT INTO things VALUES (1, 1, '2026-01-01Z')")
    table.pull()
    table.bench.lake.write(lambda con: con.execute("UPDATE ops.pulls SET mark = '2262-01-01 00:00:00+00'"), "a test")
    table.sql("INSERT INTO things VALUES (2, 1, '2026-01-02Z')")
    with pytest.raises(PullError, match=r"lies in the future of its database.*sluice pull things --from"):
        table.pull()
    for wrong in ("2262-01-01", "soon"):
        with pytest.raises(PullError, match=r"(?s)in the future|invalid input syntax.*mark has not moved"):
            pull(table.bench.lake, table.contract, wrong)
    assert ids(table) == [["1"]]
    assert pull(table.bench.lake, table.contract, "2026-01-01T12:00Z").mark == "2026-01-02 00:00:00+00"
    assert pull(table.bench.lake, table.contract, "beginning").rows == 2
    assert table.pull().rows == 0
    assert ids(table) == [["1"], ["2"], ["1", "2"]]


def test_a_mark_does_not_outlive_what_it_is_of(table: Table) -> None:
    table.sql("CREATE TABLE others AS SELECT * FROM things")
    table.sql("INSERT INTO things VALUES (5000, 1, '2026-01-01Z')")
    table.sql("INSERT INTO others VALUES (50, 1, '2025-01-01Z')")
    table.with_pull(cursor="id", overlap=0).pull()
    others = table.with_pull(table="public.others", cursor="id", overlap=0)
    for changed in (others, table, table.with_pull(table="", query="SELECT * FROM things", cursor="id")):
        with pytest.raises(PullError, match=r"from public.things by id up to 5000.*--from MARK.*--from beginning"):
            changed.pull()
    assert pull(table.bench.lake, others.contract, "49").rows == 1
    assert others.pull() == Pulled(None, 0, "50")
    assert ids(table) == [["5000"], ["50"]]
    # Of a lake of before, nobody knows what it is of.
    table.bench.lake.write(lambda con: con.execute("UPDATE ops.pulls SET pulled = NULL"), "a test")
    assert table.with_pull(cursor="id").pull().mark == "5000"
    with pytest.raises(PullError, match=r"from public.things by id"):
        others.pull()


def test_a_newest_row_that_goes_moves_no_mark_back(table: Table) -> None:
    table.sql("INSERT INTO things VALUES (1, 1, '2026-01-01 10:00Z'), (2, 1, '2026-01-01 10:09Z')")
    table.sql("INSERT INTO things VALUES (3, 1, '2026-01-01 10:18Z')")
    mark = table.pull().mark
    table.sql("DELETE FROM things WHERE id = 3")
    assert table.pull() == Pulled(None, 0, mark)
    assert table.pull() == Pulled(None, 0, mark)


@pytest.mark.parametrize("lost", [2, 3])
def test_a_file_that_was_lost_unread_is_pulled_again(table: Table, lost: int) -> None:
    for n in range(1, 5):
        table.sql(f"INSERT INTO things VALUES ({n}, 1, '2026-01-0{n}Z')")
        table.pull()
        if n == 1:
            table.bench.ingest(table.contract)
    [file] = table.bench.landing.rglob(f"pull-{lost:08}.jsonl")
    file.unlink()
    found = table.pull()
    assert (found.rows, found.mark) == (5 - lost, "2026-01-04 00:00:00+00")
    assert f"pull-{lost:08}.jsonl has not been read" in found.warnings[0]
    assert table.pull() == Pulled(None, 0, found.mark)
    assert {i for file in ids(table) for i in file} == {"1", "2", "3", "4"}


def test_a_file_that_was_read_may_go(table: Table) -> None:
    table.sql("INSERT INTO things VALUES (1, 1, '2026-01-01Z')")
    mark = table.pull().mark
    table.bench.ingest(table.contract)
    [file] = table.bench.landing.rglob("pull-*.jsonl")
    file.unlink()
    assert table.pull() == Pulled(None, 0, mark)


def test_a_first_file_that_was_lost_is_pulled_again_also_if_nothing_is_left_of_it(table: Table) -> None:
    table.sql("INSERT INTO things VALUES (1, 1, '2026-01-01Z')")
    table.pull()
    [file] = table.bench.landing.rglob("pull-*.jsonl")
    file.unlink()
    table.sql("DELETE FROM things")
    found = table.pull()
    assert (found.rows, found.mark) == (0, None) and "from the beginning" in found.warnings[0]
    assert table.pull() == Pulled(None, 0, None)
    table.sql("INSERT INTO things VALUES (2, 1, '2025-01-01Z')")
    assert table.pull().rows == 1


def test_what_is_pulled_again_may_be_lost_again(table: Table) -> None:
    for n in range(1, 4):
        table.sql(f"INSERT INTO things VALUES ({n}, 1, '2026-01-0{n}Z')")
        assert table.pull().rows == n
        [file] = table.bench.landing.rglob("pull-*.jsonl")
        file.unlink()


def test_a_mark_of_before_cannot_be_wound_back_and_says_so(table: Table) -> None:
    for n in range(1, 4):
        table.sql(f"INSERT INTO things VALUES ({n}, 1, '2026-01-0{n}Z')")
        table.pull()
    table.bench.lake.write(lambda con: con.execute("DELETE FROM ops.pulls WHERE number < 3"), "a test")
    table.bench.lake.write(lambda con: con.execute("UPDATE ops.pulls SET pulled = NULL"), "a test")
    for file in table.bench.landing.rglob("pull-*.jsonl"):
        file.unlink()
    found = table.pull()
    assert found.rows == 0 and "where it began is not noted" in found.warnings[0]
    table.sql("INSERT INTO things VALUES (4, 1, '2026-01-04Z')")
    table.pull()
    [file] = table.bench.landing.rglob("pull-*.jsonl")
    file.unlink()
    # Its own loss does not hide that of a later one.
    assert table.pull().rows == 1
    assert pull(table.bench.lake, table.contract, "beginning").rows == 4
    assert table.pull() == Pulled(None, 0, "2026-01-04 00:00:00+00")


def test_notes_are_kept_until_their_files_are_read(table: Table) -> None:
    for n in range(1, 7):
        table.sql(f"INSERT INTO things VALUES ({n}, 1, '2026-01-0{n}Z')")
        table.pull()
        if n == 3:
            table.bench.ingest(table.contract)
    assert table.bench.sql("SELECT number, mark[:10] FROM ops.pulls ORDER BY number") == [
        (n, f"2026-01-0{n}") for n in range(3, 7)
    ]


def test_a_restored_home_pulls_what_was_pulled_and_not_read(table: Table, tmp_path: Path) -> None:
    def add(n: int) -> None:
        table.sql(f"INSERT INTO things VALUES ({n}, 1, '2026-01-0{n}Z')")
        table.pull()

    add(1)
    table.bench.ingest(table.contract)
    add(2)
    add(3)
    back_up(table.bench.settings, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "again", table.bench.settings)
    settings = load_settings(home=str(tmp_path / "again"))
    again = Lake(settings)
    with pytest.raises(LandingError, match=r"pull-00000002\.jsonl in it has not been read\. Mount it"):
        pull(again, table.contract)
    settings.landing_path.mkdir(parents=True)
    assert pull(again, table.contract).rows == 2
    ingest(again, table.contract, None)
    with again.reading() as con:
        assert con.execute("SELECT id FROM bronze.things ORDER BY id").fetchall() == [(1,), (2,), (3,)]
    assert pull(again, table.contract) == Pulled(None, 0, "2026-01-03 00:00:00+00")


def test_a_home_restored_beside_its_landing_area_replaces_no_file_there(table: Table, tmp_path: Path) -> None:
    table.sql("INSERT INTO things VALUES (1, 1, '2026-01-01Z')")
    table.pull()
    back_up(table.bench.settings, tmp_path / "backup")
    table.sql("UPDATE things SET changed = '2026-01-02Z'")
    table.pull()
    restore(tmp_path / "backup", tmp_path / "again", table.bench.settings)
    table.sql("UPDATE things SET changed = '2026-01-03Z'")
    again = Lake(load_settings(home=str(tmp_path / "again"), landing=str(table.bench.landing)))
    assert (pull(again, table.contract).file or "").endswith("/pull-00000003.jsonl")
    assert [rows[0]["changed"][:10] for rows in table.delivered()] == ["2026-01-01", "2026-01-02", "2026-01-03"]


def test_a_pull_that_was_killed_and_restored_goes_to_another_day(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.sql("INSERT INTO things VALUES (1, 1, '2026-01-01Z')")
    table.pull()
    table.bench.ingest(table.contract)
    table.sql("INSERT INTO things VALUES (2, 1, '2026-01-02Z')")
    with monkeypatch.context() as patched:
        patched.setattr(sluice.pull, "_put", _raise(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            table.pull()
    back_up(table.bench.settings, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "again", table.bench.settings)
    settings = load_settings(home=str(tmp_path / "again"))
    again = Lake(settings)
    assert pull(again, table.contract).rows == 1
    ingest(again, table.contract, None)
    with again.reading() as con:
        assert con.execute("SELECT id FROM bronze.things ORDER BY id").fetchall() == [(1,), (2,)]
        assert con.execute("SELECT number, written FROM ops.pulls ORDER BY number").fetchall() == [(1, True), (3, True)]


def test_the_command_goes_on_from_a_mark_and_warns(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    value = {"table": "public.things", "cursor": "changed"}
    document = contract_document({"id": {}, "changed": {"physicalType": "TIMESTAMP"}}, formats=["jsonl"], pull=value)
    (tmp_path / "things.odcs.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setenv("SLUICE_CONTRACTS", str(tmp_path))
    monkeypatch.setenv("SLUICE_HOME", str(table.bench.settings.home))
    table.sql("INSERT INTO things VALUES (1, 1, '2026-01-01Z'), (2, 1, '2026-01-02Z'), (3, 1, 'infinity')")
    assert main(["pull", "things"]) == 0
    told = capsys.readouterr()
    assert "things: 3 rows" in told.out and told.out.endswith("mark 2026-01-02 00:00:00+00\n")
    assert told.err.startswith("sluice: warning: things has rows whose changed lies in the future (1, up to infinity)")
    assert main(["pull", "things", "--from", "2026-01-02"]) == 0
    assert "things: 2 rows" in capsys.readouterr().out
    assert main(["pull", "things", "--from", "soon"]) == 1
    assert "The mark has not moved" in capsys.readouterr().err
