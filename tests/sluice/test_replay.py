"""Dead letters taken again: what passes is where the file would have put it, once, and the books balance throughout."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluice.books import books
from sluice.contracts import Contract
from sluice.dead_letters import (
    POISON_ATTEMPTS,
    Choice,
    applied,
    corrections_of,
    discard,
    export,
    groups,
    ids_by_source,
    letters,
    resolved,
)
from sluice.errors import DeadLetterError, LandingError
from sluice.lake import Lake
from sluice.ops_tables import OPS_TABLES
from sluice.replay import Replayed, replay
from tests.conftest import Bench, MakeBench, MakeContract

DAY = "date=2026-01-01"
KEY = "2026-01-01"


@pytest.fixture(scope="module")
def counted(make_contract: MakeContract) -> Contract:
    """A text and a number."""
    return make_contract({"name": {"required": True}, "n": {"physicalType": "INTEGER"}})


def rows(bench: Bench, source: str = "things") -> list[tuple[Any, ...]]:
    """Bronze without what tells when and in which batch a row came."""
    return bench.sql(
        f"SELECT * EXCLUDE (_ingested_at, _batch_id) FROM bronze.{source} ORDER BY _partition_key, _file, _line"
    )


def ids(bench: Bench, **choice: Any) -> list[str]:
    """Ids of the letters chosen, by file and line."""
    return [letter.dead_letter_id for letter in letters(bench.lake, Choice(**choice), 1_000)]


def balanced(bench: Bench, source: str = "things") -> None:
    """The books balance and agree with the tables."""
    (found,) = books(bench.lake, [source])
    assert found.balanced, found


def test_a_corrected_row_is_where_the_file_would_have_put_it(
    bench: Bench, make_bench: MakeBench, counted: Contract
) -> None:
    clean = make_bench("clean")
    clean.put(f"things/{DAY}/a.csv", 'n,name,more\n1,"x, y",m\n2,b,\n3,"c ""q""",n\n')
    clean.ingest(counted)
    bench.put(f"things/{DAY}/a.csv", 'n,name,more\n1,"x, y",m\ntwo,b,\nthree,"c ""q""",n\n')
    bench.ingest(counted)
    first, second = ids(bench)
    before = letters(bench.lake, Choice())
    done = replay(bench.lake, counted, Choice(), corrections={first: "2,b,", second: '3,"c ""q""",n'}, by="ann")
    assert done == Replayed("things", accepted=2, changed=(KEY,))
    assert rows(bench) == rows(clean)
    assert bench.ledger("things") == clean.ledger("things") == {KEY: (3, 3, 0, 0)}
    balanced(bench)
    after = letters(bench.lake, Choice(status="replayed"))
    assert [(x.raw, x.corrected, x.decided_by) for x in after] == [
        ("two,b,", "2,b,", "ann"),
        ('three,"c ""q""",n', '3,"c ""q""",n', "ann"),
    ]
    assert [(x.dead_letter_id, x.raw, x.checksum, x.first_failed_at) for x in after] == [
        (x.dead_letter_id, x.raw, x.checksum, x.first_failed_at) for x in before
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_under_a_wider_contract_rows_pass_as_if_they_came_now(
    kind: str, bench: Bench, make_bench: MakeBench, make_contract: MakeContract, tmp_path: Path
) -> None:
    narrow, wide = (
        make_contract(
            {"name": {"required": True}, "n": {"physicalType": "INTEGER", "logicalTypeOptions": {"maximum": most}}},
            formats=[kind],
        )
        for most in (5, 50)
    )
    table = [
        {"name": "a", "n": 1, "more": "x"},
        {"name": "é, b", "n": 10, "more": "y"},
        {"name": None, "n": 2, "more": ""},
    ]
    for home in (bench, make_bench("clean")):
        put(home, kind, table, tmp_path)
    clean = make_bench("clean")
    clean.ingest(wide)
    bench.ingest(narrow)
    assert bench.ledger("things") == {KEY: (3, 1, 2, 0)}
    assert replay(bench.lake, wide, Choice()) == Replayed("things", accepted=1, failed=1, changed=(KEY,))
    assert rows(bench) == rows(clean)
    assert bench.ledger("things") == clean.ledger("things") == {KEY: (3, 2, 1, 0)}
    balanced(bench)
    (left,) = letters(bench.lake, Choice())
    assert [(r["rule"], r["column"]) for r in left.reasons] == [("required", "name")]
    assert left.attempts == 2


def put(bench: Bench, kind: str, table: list[dict[str, Any]], folder: Path) -> None:
    """A landing file of these rows."""
    if kind == "csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        bench.put(f"things/{DAY}/a.csv", out.getvalue())
    elif kind == "jsonl":
        bench.put(f"things/{DAY}/a.jsonl", "".join(json.dumps(row) + "\n" for row in table))
    else:
        path = folder / "a.parquet"
        with duckdb.connect() as con:
            con.execute(
                'COPY (SELECT unnest(from_json(?, \'[{"name": "VARCHAR", "n": "INTEGER", "more": "VARCHAR"}]\'), '
                f"recursive := true)) TO '{path}'",
                [json.dumps(table)],
            )
        bench.put(f"things/{DAY}/a.parquet", path.read_bytes())


def test_a_change_event_is_taken_again(bench: Bench, contracts: dict[str, Contract]) -> None:
    event = {
        "op": "c",
        "before": None,
        "after": {"customer_id": "12345", "country": "France", "segment": "retail", "email": "a@b.example"},
        "source": {"lsn": 7, "ts_ms": 1767225600000},
    }
    good = json.dumps(event)
    bench.put(f"cdc/customers/{DAY}/a.jsonl", good + "\n" + good.replace('"c"', '"x"').replace(": 7", ": 8") + "\n")
    customers = dataclasses.replace(contracts["customers"], max_rejected_share=1.0)
    bench.ingest(customers)
    (letter,) = letters(bench.lake, Choice(source="customers"))
    fixed = good.replace(": 7", ": 8").replace('"c"', '"u"')
    done = replay(bench.lake, customers, Choice(), corrections={letter.dead_letter_id: fixed})
    assert done.accepted == 1
    assert bench.sql("SELECT _op, _lsn, _line FROM bronze.customers ORDER BY _line") == [("c", 7, 1), ("u", 8, 2)]
    balanced(bench, "customers")


def test_replaying_again_changes_nothing(bench: Bench, counted: Contract) -> None:
    bench.put(f"things/{DAY}/a.csv", "n,name\n1,a\nx,b\n")
    bench.ingest(counted)
    (letter,) = ids(bench)
    replay(bench.lake, counted, Choice(), corrections={letter: "2,b"})
    before = bench.snapshots(), rows(bench)
    assert replay(bench.lake, counted, Choice()) == Replayed("things")
    with pytest.raises(DeadLetterError, match="no open dead letter"):
        replay(bench.lake, counted, Choice(), corrections={letter: "2,b"})
    assert (bench.snapshots(), rows(bench)) == before


def test_a_row_that_is_there_already_is_a_duplicate(bench: Bench, counted: Contract) -> None:
    bench.put(f"things/{DAY}/a.csv", "n,name\n1,a\nx,b\ny,b\n")
    bench.ingest(counted)
    first, second = ids(bench)
    done = replay(bench.lake, counted, Choice(), corrections={first: "01,a", second: "2,b"})
    assert (done.accepted, done.duplicate, done.failed) == (1, 1, 0)
    assert [row[1:3] for row in rows(bench)] == [("a", 1), ("b", 2)]
    assert bench.ledger("things") == {KEY: (3, 2, 0, 1)}
    balanced(bench)


def test_a_value_that_must_be_unique_is_held_against_what_is_there(bench: Bench, make_contract: MakeContract) -> None:
    keyed = make_contract({"k": {"unique": True}, "n": {"physicalType": "INTEGER"}})
    bench.put(f"things/{DAY}/a.csv", "k,n\na,1\nb,x\nc,y\n")
    bench.ingest(keyed)
    first, second = ids(bench)
    done = replay(bench.lake, keyed, Choice(), corrections={first: "a,2", second: "d,3"})
    assert (done.accepted, done.failed) == (1, 1)
    (left,) = letters(bench.lake, Choice())
    assert [(r["rule"], r["column"]) for r in left.reasons] == [("unique", "k")]
    assert left.raw == "b,x"
    balanced(bench)


def test_a_file_that_comes_beside_it_is_no_attempt(bench: Bench, counted: Contract) -> None:
    bench.put(f"things/{DAY}/a.csv", "n,name\n1,a\nx,b\n")
    for late in range(POISON_ATTEMPTS + 1):
        bench.put(f"things/{DAY}/late-{late}.csv", f"n,name\n{10 + late},late\n")
        bench.ingest(counted)
    (letter,) = letters(bench.lake, Choice())
    assert letter.attempts == 1
    assert groups(bench.lake, Choice())[0].poison == 0
    bench.ingest(counted, again=True)
    assert letters(bench.lake, Choice())[0].attempts == 2


def test_what_fails_too_often_is_left_alone_until_it_is_named(bench: Bench, counted: Contract) -> None:
    bench.put(f"things/{DAY}/a.csv", "n,name\n1,a\nx,b\n")
    bench.ingest(counted)
    for attempt in range(2, POISON_ATTEMPTS + 1):
        assert replay(bench.lake, counted, Choice()).failed == 1
        assert letters(bench.lake, Choice())[0].attempts == attempt
    assert replay(bench.lake, counted, Choice()) == Replayed("things", poison=1)
    (group,) = groups(bench.lake, Choice())
    assert (group.rule, group.column, group.rows, group.poison) == ("type", "n", 1, 1)
    (letter,) = ids(bench)
    assert replay(bench.lake, counted, Choice(ids=(letter[:8],))).failed == 1
    assert replay(bench.lake, counted, Choice(), corrections={letter: "2,b"}).accepted == 1


def test_what_was_decided_outlives_the_batch(bench: Bench, counted: Contract) -> None:
    bench.put(f"things/{DAY}/a.csv", "n,name\n1,a\nx,b\ny,c\nz,d\n")
    bench.ingest(counted)
    first, second, third = ids(bench)
    replay(bench.lake, counted, Choice(ids=(first,)), corrections={first: "2,b"}, by="ann")
    assert discard(bench.lake, Choice(ids=(second,)), by="bob", why="a test order") == 1
    balanced(bench)
    before = rows(bench)
    # The file is read anew: it still has the wrong rows.
    result = bench.ingest(counted, force=True)
    assert rows(bench) == before
    assert [(b.rows_accepted, b.rows_dead_lettered) for b in result.batches] == [(2, 2)]
    # It comes again with a row more, as a batch of its own.
    bench.put(f"things/{DAY}/a.csv", "n,name\n5,e\n1,a\nx,b\ny,c\nz,d\n")
    bench.ingest(counted)
    assert [row[1:3] for row in rows(bench)] == [("e", 5), ("a", 1), ("b", 2)]
    balanced(bench)
    (left,) = letters(bench.lake, Choice())
    # Tried when it was read again by force; not by the batch that brought another row.
    assert (left.raw, left.attempts) == ("z,d", 2)
    (given_up,) = letters(bench.lake, Choice(status="discarded"))
    assert (given_up.raw, given_up.decided_by, given_up.decided_why) == ("y,c", "bob", "a test order")
    (kept,) = letters(bench.lake, Choice(status="replayed"))
    assert (kept.raw, kept.corrected, kept.decided_by) == ("x,b", "2,b", "ann")
    assert len({third, left.dead_letter_id}) == 2


def test_a_refused_batch_and_a_broken_file_are_ingested_again(bench: Bench, make_contract: MakeContract) -> None:
    strict, lenient = (
        make_contract({"n": {"physicalType": "INTEGER", "required": True}}, share=share) for share in (0.1, 0.9)
    )
    bench.put(f"things/{DAY}/a.csv", "n\n1\nx\n")
    bench.put("things/date=2026-01-02/a.csv", "n\n" + "".join(f"{n}\n" for n in range(20)))
    bench.put("things/date=2026-01-02/b.csv", "n,n\n1,1\n")
    bench.ingest(strict)
    assert bench.ledger("things") == {KEY: (2, 0, 2, 0), "2026-01-02": (21, 20, 1, 0)}
    (row,) = letters(bench.lake, Choice(rule="type"))
    with pytest.raises(DeadLetterError, match="row of a refused batch"):
        replay(bench.lake, lenient, Choice(), corrections={row.dead_letter_id: "2"})
    assert replay(bench.lake, lenient, Choice()) == Replayed("things", partitions=(KEY, "2026-01-02"))
    bench.ingest(lenient, [KEY], again=True)
    assert bench.ledger("things") == {"2026-01-02": (21, 20, 1, 0), KEY: (2, 1, 1, 0)}
    balanced(bench)
    # The good file is gone from the landing area: its rows do not go with the broken one's next attempt.
    (bench.landing / "things/date=2026-01-02/a.csv").unlink()
    (held,) = bench.ingest(lenient, ["2026-01-02"], again=True).held_back
    assert (held.file, len(rows(bench))) == ("things/date=2026-01-02/a.csv", 21)


def test_bytes_that_are_no_text_need_a_correction(bench: Bench, counted: Contract) -> None:
    bench.put(f"things/{DAY}/a.csv", b"n,name\n1,a\n2,\xff\n")
    bench.ingest(counted)
    assert replay(bench.lake, counted, Choice()) == Replayed("things", undecodable=1)
    (letter,) = ids(bench)
    assert replay(bench.lake, counted, Choice(), corrections={letter: "2,ü"}).accepted == 1
    assert [row[1:3] for row in rows(bench)] == [("a", 1), ("ü", 2)]
    balanced(bench)


@pytest.mark.parametrize("payload", ["", "  ", "2,b\n3,c", "2,b\x1f", "2,\x00", "2," + "b" * 2_000_000])
def test_a_correction_that_is_no_record_is_refused(payload: str, bench: Bench, counted: Contract) -> None:
    bench.put(f"things/{DAY}/a.csv", "n,name\nx,b\n1,a\n")
    bench.ingest(counted)
    (letter,) = ids(bench)
    with pytest.raises(DeadLetterError, match=r"one line of text.* at most 1,900,000 bytes"):
        replay(bench.lake, counted, Choice(), corrections={letter: payload})
    assert letters(bench.lake, Choice())[0].attempts == 1


def test_a_header_the_contract_no_longer_fits_leaves_the_letters(
    bench: Bench, make_contract: MakeContract, counted: Contract
) -> None:
    bench.put(f"things/{DAY}/a.csv", "n,name\nx,b\n1,a\n")
    bench.ingest(counted)
    wants_more = make_contract({"name": {}, "n": {"physicalType": "INTEGER"}, "k": {"required": True}})
    assert replay(bench.lake, wants_more, Choice()).failed == 1
    (left,) = letters(bench.lake, Choice())
    assert [(r["rule"], r["column"]) for r in left.reasons] == [("missing_column", "k")]
    elsewhere = make_contract({"name": {}, "n": {"physicalType": "INTEGER"}}, path="other/date={date}")
    with pytest.raises(LandingError, match="does not fit"):
        replay(bench.lake, elsewhere, Choice())


def test_letters_go_out_to_be_mended_and_come_back(bench: Bench, counted: Contract, tmp_path: Path) -> None:
    bench.put(f"things/{DAY}/a.csv", 'n,name\n1,a\nx,"b ""q"", r"\ny,c\n')
    bench.ingest(counted)
    for ending in ("csv", "jsonl", "parquet"):
        path = tmp_path / f"letters.{ending}"
        assert export(bench.lake, Choice(), path) == 2
        assert corrections_of(path) == {}
    with (tmp_path / "letters.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["raw"] for row in table] == ['x,"b ""q"", r"', "y,c"]
    table[0]["corrected"] = '2,"b ""q"", r"'
    with (tmp_path / "mended.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    given_back = corrections_of(tmp_path / "mended.csv")
    assert ids_by_source(bench.lake, Choice(), given_back) == {"things": given_back}
    assert replay(bench.lake, counted, Choice(ids=tuple(given_back)), corrections=given_back).accepted == 1
    assert [row[1] for row in rows(bench)] == ["a", 'b "q", r']
    with pytest.raises(DeadLetterError, match="the ending says the format"):
        export(bench.lake, Choice(), tmp_path / "letters.xls")
    with pytest.raises(DeadLetterError, match="needs the columns"):
        (tmp_path / "other.csv").write_text("a,b\n1,2\n")
        corrections_of(tmp_path / "other.csv")
    with pytest.raises(DeadLetterError, match="name both"):
        discard(bench.lake, Choice(), by="ann", why=" ")


class Explained(Lake):
    """A lake that keeps the plan of every query that is read from it."""

    def __init__(self, lake: Lake) -> None:
        super().__init__(lake.settings)
        self.plans: list[str] = []

    @contextmanager
    def reading(self, snapshot: int | None = None) -> Iterator[Any]:
        with super().reading(snapshot) as con:
            yield SimpleNamespace(execute=lambda *query: self.explain(con, *query))

    def explain(self, con: duckdb.DuckDBPyConnection, sql: str, given: dict[str, Any]) -> duckdb.DuckDBPyConnection:
        self.plans.append(con.execute(f"EXPLAIN {sql}", given).fetchall()[0][1])
        return con.execute(sql, given)


def test_letters_are_found_by_hash_however_many_are_named(bench: Bench, counted: Contract) -> None:
    bench.put(f"things/{DAY}/a.csv", "n,name\n1,a\nx,b\ny,c\nz,d\n")
    bench.ingest(counted)
    first, second, third = ids(bench)
    assert replay(bench.lake, counted, Choice(ids=(first,)), corrections={first: "2,b"}).accepted == 1
    lake = Explained(bench.lake)
    # A whole id and the beginning of one.
    named = (second, third[:10])
    assert resolved(lake, Choice(ids=named)).ids == (second, third)
    assert {x.dead_letter_id for x in letters(lake, Choice(ids=named))} == {second, third}
    given_ = {second: "3,c", third[:10]: "4,d"}
    assert ids_by_source(lake, Choice(ids=named), given_) == {"things": {second: "3,c", third: "4,d"}}
    assert applied(lake, {first: "2,b", second: "3,c"}) == {first}
    assert applied(lake, {first[:8]: "2,b", **given_}) == {first[:8]}
    assert applied(lake, {first: "2,c"}) == set()
    assert len(lake.plans) == 7 and all("HASH_JOIN" in plan for plan in lake.plans)
    assert not [plan for plan in lake.plans if "NL_JOIN" in plan or "NESTED_LOOP" in plan]


def test_two_replays_at_once_move_a_row_once(bench: Bench, counted: Contract) -> None:
    bench.put(f"things/{DAY}/a.csv", "n,name\n1,a\n" + "".join(f"x{i},b{i}\n" for i in range(20)))
    bench.ingest(counted)
    given_ = {letter: f"{i},b" for i, letter in enumerate(ids(bench))}
    found: list[Replayed] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            found.append(replay(bench.lake, counted, Choice(), corrections=given_))
        except DeadLetterError as error:  # the other was done before this one chose
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done.accepted for done in found) == 20
    assert len(found) + len(errors) == 3
    assert bench.ledger("things") == {KEY: (21, 21, 0, 0)}
    balanced(bench)


def test_a_lake_of_an_earlier_version_gains_what_it_lacks(bench: Bench, counted: Contract) -> None:
    bench.put(f"things/{DAY}/a.csv", "n,name\nx,b\n1,a\n")
    bench.ingest(counted)
    new = ("header", "checksum", "last_failed_at", "attempts", "corrected", "decided_by", "decided_why", "decided_at")
    bench.lake.write(
        lambda con: [con.execute(f"ALTER TABLE ops.dead_letters DROP COLUMN {name}") for name in new], "as it was once"
    )
    assert replay(bench.lake, counted, Choice()).failed == 1
    # A letter of then has no header: nobody knows which of its fields is which.
    (left,) = letters(bench.lake, Choice())
    assert [r["rule"] for r in left.reasons] == ["missing_header"]
    bench.ingest(counted, force=True)
    (left,) = letters(bench.lake, Choice())
    assert left.header == "n,name"
    names = [name for (name,) in bench.sql("SELECT column_name FROM (DESCRIBE ops.dead_letters)")]
    assert sorted(names) == sorted(OPS_TABLES["dead_letters"])


# Fields that need care, good numbers and bad ones.
TEXTS = st.sampled_from(["a", "b c", 'q"uote', "com,ma", "ümlaut", "'; DROP TABLE x; --", "=1+1"])
NUMBERS = st.sampled_from(["1", "2", "x", ""])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=st.lists(st.tuples(NUMBERS, TEXTS, TEXTS), min_size=1, max_size=8), data=st.data())
def test_corrections_give_what_a_corrected_file_gives(
    table: list[tuple[str, str, str]],
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
    make_contract: MakeContract,
) -> None:
    contract = make_contract({"name": {}, "n": {"physicalType": "INTEGER", "required": True}, "more": {}})

    def line(*fields: str) -> str:
        out = io.StringIO()
        csv.writer(out, lineterminator="").writerow(fields)
        return out.getvalue()

    wrong = [line(*row) for row in table]
    # A number of its own for each bad row, so that mended rows are no duplicates of one another.
    right = [row if row[0].isdigit() else (str(100 + i), *row[1:]) for i, row in enumerate(table)]
    folder = tmp_path_factory.mktemp("replays")
    mended, clean = Bench(folder / "mended"), Bench(folder / "clean")
    try:
        for home, text in ((mended, wrong), (clean, [line(*row) for row in right])):
            home.put(f"things/{DAY}/a.csv", "\n".join(["n,name,more", *text]) + "\n")
            home.ingest(contract)
        corrections = {
            letter.dead_letter_id: line(*right[(letter.line or 0) - 2])
            for letter in letters(mended.lake, Choice(), 100)
        }
        order = data.draw(st.permutations(sorted(corrections)))
        half = len(order) // 2
        for part in (order[:half], order[half:]):
            if part:
                replay(
                    mended.lake, contract, Choice(ids=tuple(part)), corrections={id_: corrections[id_] for id_ in part}
                )
            balanced(mended)
        # Rows that were twins as they came count once, as what they came as.
        came = {text: number for number, text in reversed(list(enumerate(wrong)))}
        kept = [row for row in rows(clean) if row[-2] - 2 in came.values()]
        assert rows(mended) == kept
    finally:
        mended.close()
        clean.close()
