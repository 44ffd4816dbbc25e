"""Schema drift: what becomes of columns that come, go, move or change their type, and what is told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluice.books import books
from sluice.bronze import free_name, widens
from sluice.cli import main
from sluice.contracts import Contract
from sluice.dead_letters import Choice
from sluice.drift import LEAST_DOCUMENTS, MOST_NOTED, drift
from sluice.errors import ContractError
from sluice.records import MOST_NEW_COLUMNS
from sluice.replay import replay
from tests.conftest import Bench, MakeContract

DAY = "things/date=2026-01-01"
COLUMNS: dict[str, dict[str, Any]] = {
    "id": {"physicalType": "INTEGER", "required": True},
    "note": {"physicalName": "Note"},
}
FORMATS = ("csv", "jsonl", "parquet")


def things(make: MakeContract, evolution: str = "evolve", **more: Any) -> Contract:
    """A contract of an id, a note and what is given besides."""
    options = {key: more.pop(key) for key in ("feed", "formats", "share", "version") if key in more}
    columns = {**COLUMNS, **more}
    return make(columns, formats=options.pop("formats", FORMATS), evolution=evolution, **options)


def told(bench: Bench) -> list[tuple[Any, ...]]:
    """The book of drift: column, kind, what was done, where it is in bronze."""
    return bench.sql('SELECT "column", kind, action, bronze_column FROM ops.schema_drift ORDER BY ALL')


def rows(bench: Bench, *columns: str) -> list[tuple[Any, ...]]:
    return bench.sql(f"SELECT {', '.join(columns)} FROM bronze.things ORDER BY ALL")


def balanced(bench: Bench) -> None:
    assert [b.balanced for b in books(bench.lake, ["things"])] == [True]


def put_parquet(bench: Bench, path: str, query: str) -> None:
    target = bench.put(path, "")
    with bench.lake.connect() as con:
        con.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet)")


# A column the contract does not know


def test_evolve_takes_a_new_column_into_bronze_and_tells(bench: Bench, make_contract: MakeContract) -> None:
    contract = things(make_contract)
    bench.put(f"{DAY}/a.csv", "id,Note\n1,old\n")
    first = bench.ingest(contract)
    assert first.drift == ()
    bench.put("things/date=2026-01-02/a.csv", "Coupon Code,Note,id\nX,n,2\n,n,3\n")
    bench.put("things/date=2026-01-03/a.jsonl", '{"id":4,"Coupon Code":7,"deep":{"a":[1]}}\n{"id":5,"deep":null}\n')
    put_parquet(bench, "things/date=2026-01-04/a.parquet", 'SELECT 6 AS id, 1.50::DECIMAL(5,2) AS "Coupon Code"')
    result = bench.ingest(contract, run_id="r")
    assert rows(bench, "id", "note", "coupon_code", "deep") == [
        (1, "old", None, None),
        (2, "n", "X", None),
        (3, "n", None, None),
        (4, None, "7", '{"a":[1]}'),
        (5, None, None, None),
        (6, None, "1.50", None),
    ]
    assert [json.loads(extra) for _, extra in rows(bench, "id", "_extra") if extra] == [
        {"Coupon Code": "X"},
        {"Coupon Code": None},
        {"Coupon Code": 7, "deep": {"a": [1]}},
        {"deep": None},
        {"Coupon Code": "1.50"},
    ]
    assert told(bench) == [
        ("Coupon Code", "unexpected", "evolved", "coupon_code"),
        ("Note", "missing", "null", None),
        ("deep", "unexpected", "evolved", "deep"),
    ]
    by_name = {d.column: d for d in result.drift}
    assert list(by_name) == ["Coupon Code", "Note", "deep"]
    assert by_name["Coupon Code"].file == "things/date=2026-01-02/a.csv"
    batch = next(b for b in result.batches if b.partition_key == "2026-01-02")
    assert by_name["Coupon Code"].batch_id == batch.batch_id
    assert "is new, and in bronze as coupon_code" in str(by_name["Coupon Code"])
    assert by_name["Note"].file == "things/date=2026-01-04/a.parquet"
    balanced(bench)
    # One row for a column, however many files bring it, and nothing is written where nothing is new.
    bench.put("things/date=2026-01-05/a.csv", "id,Note,Coupon Code\n7,n,Y\n")
    again = bench.ingest(contract)
    assert [(d.column, d.first_seen_at) for d in again.drift] == [("Coupon Code", by_name["Coupon Code"].first_seen_at)]
    assert len(told(bench)) == 3
    count = bench.snapshots()
    assert bench.ingest(contract).drift == () and bench.snapshots() == count


def test_names_of_anybodys_making_become_names_of_columns(bench: Bench, make_contract: MakeContract) -> None:
    names = [
        'x"; DROP TABLE t; --',
        "it's",
        "a~b/c",
        "🎉",
        "Größe",
        "_file",
        "NOTE",
        "rowid",
        "1st",
        "date",
        "n" * 300,
        "",
    ]
    values = [f"v{n}" for n in range(len(names))]
    document = {"id": 1, "Note": "n", **dict(zip(names, values, strict=True))}
    quoted = [f'"{n.replace(chr(34), chr(34) * 2)}"' for n in ("id", "Note", *names)]
    bench.put(f"{DAY}/a.csv", ",".join(quoted) + "\n" + ",".join(["1", "n", *values]) + "\n")
    bench.put("things/date=2026-01-02/a.jsonl", json.dumps({**document, "id": 2}) + "\n")
    bench.ingest(things(make_contract))
    at = dict(bench.sql('SELECT "column", bronze_column FROM ops.schema_drift'))
    assert at == {
        'x"; DROP TABLE t; --': "x_drop_table_t",
        "it's": "it_s",
        "a~b/c": "a_b_c",
        "🎉": "unnamed_2",
        "Größe": "groe",
        "_file": "file",
        "NOTE": "note_2",
        "rowid": "rowid_2",
        "1st": "c_1st",
        "date": "date_2",
        "n" * 300: "n" * 63,
        "": "unnamed",
    }
    assert rows(bench, "id", *(at[n] for n in names)) == [(1, *values), (2, *values)]
    balanced(bench)


def test_names_that_become_the_same_are_told_apart(bench: Bench, make_contract: MakeContract) -> None:
    bench.put(f"{DAY}/a.csv", "id,Note,Unit Price,unit-price,UNIT PRICE\n1,n,a,b,c\n")
    bench.ingest(things(make_contract))
    bench.put("things/date=2026-01-02/a.csv", "id,Note,unit_price,unit-price\n2,n,d,e\n")
    bench.ingest(things(make_contract))
    at = dict(bench.sql('SELECT "column", bronze_column FROM ops.schema_drift'))
    assert set(at.values()) == {"unit_price", "unit_price_2", "unit_price_3", "unit_price_4"}
    names = ("Unit Price", "unit-price", "UNIT PRICE", "unit_price")
    assert rows(bench, "id", *(at[n] for n in names)) == [(1, "a", "b", "c", None), (2, None, "e", None, "d")]


@pytest.mark.parametrize(
    ("name", "taken", "free"),
    [
        ("A b", [], "a_b"),
        ("A b", ["a_b", "a_b_2"], "a_b_3"),
        ("change_type", [], "change_type_2"),
        ("--", [], "unnamed"),
    ],
)
def test_a_free_name(name: str, taken: list[str], free: str) -> None:
    assert free_name(name, taken) == free


def test_freeze_refuses_the_whole_batch_and_no_other(bench: Bench, make_contract: MakeContract) -> None:
    contract = things(make_contract, "freeze")
    bench.put(f"{DAY}/a.csv", "id,Note,Zed\n1,n,z\nx,n,z\n")
    bench.put(f"{DAY}/b.csv", "id,Note\n2,n\n2,n\n")
    bench.put("things/date=2026-01-02/a.csv", "id,Note\n3,n\n")
    bench.put("things/date=2026-01-03/a.jsonl", '{"id":4}\n{"id":5,"Zed":1}\n')
    result = bench.ingest(contract)
    assert [(b.partition_key, b.status) for b in result.batches] == [
        ("2026-01-01", "refused"), ("2026-01-02", "accepted"), ("2026-01-03", "refused"),
    ]  # fmt: skip
    assert bench.ledger("things") == {
        "2026-01-01": (4, 0, 3, 1), "2026-01-02": (1, 1, 0, 0), "2026-01-03": (2, 0, 2, 0),
    }  # fmt: skip
    assert rows(bench, "id") == [(3,)]
    assert bench.letters("things") == [
        (f"{DAY}/a.csv", 3, 1, ["type"]),
        (f"{DAY}/a.csv", None, 1, ["unexpected_column"]),
        (f"{DAY}/b.csv", None, 1, ["batch_refused"]),
        ("things/date=2026-01-03/a.jsonl", None, 2, ["unexpected_column"]),
    ]
    (problem, _) = result.problems
    assert (
        problem.file == f"{DAY}/a.csv" and "does not know ('Zed'), and its schemaEvolution is freeze" in problem.detail
    )
    (detail,) = bench.sql("SELECT reasons[1].detail FROM ops.dead_letters WHERE file LIKE '%b.csv'")[0]
    assert "these rows are good but were not accepted" in detail and "a.csv" in detail and "'Zed'" in detail
    assert told(bench) == [("Zed", "unexpected", "refused", None)]
    assert "zed" not in [
        c for (c,) in bench.sql("SELECT column_name FROM duckdb_columns() WHERE table_name = 'things'")
    ]
    balanced(bench)
    # The same problems are told again, and nothing is written.
    count = bench.snapshots()
    again = bench.ingest(contract)
    assert {p.file for p in again.problems} == {p.file for p in result.problems} and bench.snapshots() == count
    # Once it is declared, or let in, the same files are taken.
    bench.ingest(things(make_contract, "freeze", share=1, zed={"physicalName": "Zed"}))
    assert rows(bench, "id", "zed") == [(1, "z"), (2, None), (3, None), (4, None), (5, "1")]
    # The files without it now lack a column of the contract.
    assert told(bench) == [("Zed", "missing", "null", None), ("Zed", "unexpected", "declared", None)]
    balanced(bench)


def test_discard_drops_the_column_and_tells(bench: Bench, make_contract: MakeContract) -> None:
    contract = things(make_contract, "discard")
    bench.put(f"{DAY}/a.csv", "id,Note,Zed\n1,n,z\n")
    bench.put("things/date=2026-01-02/a.jsonl", '{"id":2,"Zed":1,"deep":{}}\n{"id":"x","Zed":1}\n')
    put_parquet(bench, "things/date=2026-01-03/a.parquet", 'SELECT 3 AS id, \'n\' AS "Note", 1 AS "Zed"')
    result = bench.ingest(contract)
    assert rows(bench, "id", "_extra") == [(1, None), (2, None), (3, None)]
    assert told(bench) == [("Zed", "unexpected", "discarded", None), ("deep", "unexpected", "discarded", None)]
    assert [str(d) for d in result.drift if d.column == "Zed"] == [f"'Zed' is new, and dropped (first: {DAY}/a.csv)"]
    # A dead letter that is taken again comes in as its file did.
    (letter,) = [x for (x,) in bench.sql("SELECT dead_letter_id FROM ops.dead_letters")]
    assert replay(bench.lake, contract, Choice(), corrections={letter: '{"id":9,"Zed":1}'}).accepted == 1
    assert rows(bench, "id", "_extra")[-1] == (9, None)
    balanced(bench)


def test_of_thousands_of_discarded_columns_the_first_are_told(bench: Bench, make_contract: MakeContract) -> None:
    contract = things(make_contract, "discard", share=1, zed={"physicalName": "Zed"})
    bench.put(
        f"{DAY}/a.csv", ",".join(["id", "Zeds", *(f"c{n:05}" for n in range(20_000))]) + "\n" + "1," * 20_001 + "\n"
    )
    bench.put(f"{DAY}/b.csv", "id,Zed\n2,z\n")
    result = bench.ingest(contract)
    assert rows(bench, "id", "zed", "_extra") == [(1, None, None), (2, "z", None)]
    assert (len(result.drift), list(result.drift)) == (MOST_NOTED, drift(bench.lake, "things"))
    assert {d.column: d.detail for d in result.drift if d.detail} == {
        "Zed": "If 'Zed' was renamed to 'Zeds', set physicalName.",
        "Zeds": "If 'Zed' was renamed to 'Zeds', set physicalName.",
    }
    balanced(bench)


def test_thousands_of_new_columns_do_not_ruin_the_table(bench: Bench, make_contract: MakeContract) -> None:
    contract = things(make_contract)
    wide = [f"c{n}" for n in range(10_000)]
    bench.put(f"{DAY}/a.csv", ",".join(["id", *wide]) + "\n" + ",".join(["1"] * 10_001) + "\n")
    bench.put("things/date=2026-01-02/a.jsonl", "".join(f'{{"id":{n},"k{n}":1}}\n' for n in range(500)))
    bench.put("things/date=2026-01-03/a.csv", ",".join(["id", *wide[:60]]) + "\n" + ",".join(["3"] * 61) + "\n")
    bench.put("things/date=2026-01-04/a.csv", ",".join(["id", *wide[40:110]]) + "\n" + ",".join(["4"] * 71) + "\n")
    result = bench.ingest(contract)
    assert bench.ledger("things") == {
        "2026-01-01": (1, 0, 1, 0),
        "2026-01-02": (500, 0, 500, 0),
        "2026-01-03": (1, 1, 0, 0),
        "2026-01-04": (1, 0, 1, 0),
    }
    assert {(p.partition_key, p.rule, p.rows) for p in result.problems} == {
        ("2026-01-01", "too_many_columns", 1),
        ("2026-01-02", "too_many_columns", 500),
        ("2026-01-04", "too_many_columns", 1),
    }
    details = {p.partition_key: p.detail for p in result.problems}
    assert "has 10000 columns that the contract does not know ('c0', 'c1'" in details["2026-01-01"]
    assert f"at most {MOST_NEW_COLUMNS} come into a table" in details["2026-01-02"]
    assert len(bench.sql("SELECT 1 FROM duckdb_columns() WHERE table_name = 'things'")) < 80
    assert len([d for d in drift(bench.lake, "things") if d.kind == "unexpected"]) == 60
    balanced(bench)
    # Where they are to be dropped, each is told of as far as somebody might read it.
    bench.ingest(things(make_contract, "discard"))
    assert rows(bench, "count(*)") == [(503,)]
    assert len(told(bench)) == MOST_NOTED
    balanced(bench)


def test_one_document_of_a_thousand_keys_is_set_aside_alone(bench: Bench, make_contract: MakeContract) -> None:
    many = ",".join(f'"k{n}":1' for n in range(1000))
    content = f'{{"id":1}}\n{{"id":2,{many}}}\n{{"id":3,"new":"x"}}\n'
    bench.put(f"{DAY}/a.jsonl", content)
    result = bench.ingest(things(make_contract, share=0.5))
    assert result.problems == () and rows(bench, "id", "new") == [(1, None), (3, "x")]
    assert bench.letters("things") == [(f"{DAY}/a.jsonl", 2, 1, ["too_many_columns"])]
    assert [d.column for d in drift(bench.lake, "things") if d.kind == "unexpected"] == ["new"]
    balanced(bench)
    # Where unknown keys are dropped, their number is nobody's concern.
    bench.ingest(things(make_contract, "discard"))
    assert rows(bench, "id") == [(1,), (2,), (3,)]


def test_the_rest_of_a_document_of_which_a_part_is_declared_is_no_drift(
    bench: Bench, make_contract: MakeContract
) -> None:
    contract = things(make_contract, "freeze", formats=["jsonl"], device={"physicalName": "$.device.id"})
    bench.put(f"{DAY}/a.jsonl", '{"id":1,"device":{"id":"d","os":"x"}}\n')
    assert [b.status for b in bench.ingest(contract).batches] == ["accepted"]
    assert rows(bench, "id", "device", "_extra") == [(1, "d", '{"device":{"id":"d","os":"x"}}')]
    assert told(bench) == []


def test_a_new_column_of_a_change_feed(bench: Bench, make_contract: MakeContract) -> None:
    contract = things(
        make_contract,
        formats=["jsonl"],
        feed={"envelope": "debezium", "sequence": "source.lsn", "validFrom": "source.ts_ms"},
        key={"primaryKey": True},
    )

    def event(op: str, lsn: int, **row: Any) -> str:
        image = {"before": row, "after": None} if op == "d" else {"before": None, "after": row}
        return json.dumps({"op": op, "source": {"lsn": lsn, "ts_ms": 1_767_225_600_000}, **image}) + "\n"

    bench.put(
        f"{DAY}/a.jsonl", event("c", 1, key="a", id=1, tier="gold") + event("d", 2, key="a") + event("d", 3, key="b")
    )
    result = bench.ingest(contract)
    assert rows(bench, "_op", "key", "tier") == [("c", "a", "gold"), ("d", "a", None), ("d", "b", None)]
    assert [d.column for d in result.drift] == ["tier"]
    # Deletes need only the key; states without a required column, and events without the key, are of another table.
    bench.put("things/date=2026-01-02/a.jsonl", event("d", 4, key="a") + event("d", 5, key="c"))
    created = "".join(event("c", n, key=f"k{n}", ID=n) for n in range(6, 26))
    bench.put("things/date=2026-01-03/a.jsonl", created)
    bench.put("things/date=2026-01-04/a.jsonl", "".join(event("d", n, k=f"k{n}") for n in range(26, 46)))
    result = bench.ingest(contract)
    assert [b.status for b in result.batches] == ["accepted", "accepted", "refused", "refused"]
    assert [(p.rule, p.rows) for p in result.problems] == [("missing_column", LEAST_DOCUMENTS)] * 2
    assert (
        "No record of the file has a value in 'id', which the contract requires; it has 'ID'"
        in result.problems[0].detail
    )
    balanced(bench)


# A column the file lacks


@pytest.mark.parametrize(
    ("name", "content", "there"),
    [
        ("a.csv", "ident,Note\n1,n\n2,n\n2,n\n", "'ident'"),
        ("a.csv", "ID,Note\n1,n\n2,n\n3,n\n", "'ID'"),
        (
            "a.jsonl",
            '{"Id":1,"Note":"n"}\n' + "".join(f'{{"Id":{n}}}\n' for n in range(2, 22)) + '{"Id":2}\nnonsense\n',
            "'Id'",
        ),
    ],
)
def test_without_a_required_column_the_whole_batch_is_refused(
    name: str, content: str, there: str, bench: Bench, make_contract: MakeContract
) -> None:
    contract = things(make_contract)
    bench.put(f"{DAY}/before.csv", "id,Note\n1,n\n")
    bench.ingest(contract)
    standing = bench.bronze("things")
    bench.put(f"{DAY}/{name}", content)
    bench.put(f"{DAY}/good.csv", "id,Note,new\n7,n,x\n8,n,x\ny,n,x\n8,n,x\n")
    result = bench.ingest(contract)
    (batch,) = result.batches
    assert batch.status == "refused" and batch.rows_accepted == 0 and batch.balanced
    assert bench.bronze("things") == standing
    (problem,) = result.problems
    assert (problem.rule, problem.file) == ("missing_column", f"{DAY}/{name}")
    assert (
        f"'id', which the contract requires; it has {there}: if it was renamed, set physicalName of id"
        in problem.detail
    )
    letters = {(file.rpartition("/")[2], line, rules[0]): n for file, line, n, rules in bench.letters("things")}
    assert letters == {
        ("before.csv", None, "batch_refused"): 1,
        (name, None, "missing_column"): problem.rows,
        ("good.csv", None, "batch_refused"): 2,
        ("good.csv", 4, "type"): 1,
    }
    assert problem.rows + 4 == batch.rows_dead_lettered
    assert ("id", "missing", "refused", None) in told(bench)
    assert "new" not in [
        c for (c,) in bench.sql("SELECT column_name FROM duckdb_columns() WHERE table_name = 'things'")
    ]
    balanced(bench)
    # Delivered again under the agreed name, all of it comes in.
    bench.put(f"{DAY}/{name}", content.replace(there.strip("'"), "id"))
    (batch,) = bench.ingest(things(make_contract, share=1)).batches
    assert batch.status == "accepted" and batch.balanced
    assert {i for (i,) in rows(bench, "id")} >= {1, 2, 7, 8}


def test_a_few_documents_without_a_key_are_the_rows_fault(bench: Bench, make_contract: MakeContract) -> None:
    contract = things(make_contract, share=1)
    bench.put(f"{DAY}/a.jsonl", '{"Note":"n"}\n{"Note":"o"}\n')
    bench.put(f"{DAY}/b.jsonl", '{"id":1}\n{"Note":"n"}\n{"id":"word"}\n')
    bench.put(f"{DAY}/c.jsonl", '{"id":"one"}\n{"id":"two"}\n')
    result = bench.ingest(contract)
    assert bench.ledger("things") == {"2026-01-01": (7, 1, 6, 0)} and result.problems == ()
    assert [rules for *_, rules in bench.letters("things")] == [
        ["required"],
        ["required"],
        ["required"],
        ["type"],
        ["type"],
        ["type"],
    ]


def test_an_optional_column_that_is_gone_is_told_of(bench: Bench, make_contract: MakeContract) -> None:
    bench.put(f"{DAY}/a.csv", "NOTES,id\nn,1\n")
    result = bench.ingest(things(make_contract))
    assert rows(bench, "id", "note", "notes") == [(1, None, "n")]
    assert [d.detail for d in result.drift] == ["If 'Note' was renamed to 'NOTES', set physicalName."] * 2
    assert told(bench) == [("NOTES", "unexpected", "evolved", "notes"), ("Note", "missing", "null", None)]


# Dead letters


def test_letters_taken_again_obey_the_evolution_of_today(bench: Bench, make_contract: MakeContract) -> None:
    bench.put(f"{DAY}/a.csv", "id,Note,Zed\nx,n,z\n1,n,z\n")
    bench.put(f"{DAY}/b.jsonl", '{"id":"y","Zed":1}\n{"id":"z"}\n{"id":2}\n')
    discarding = things(make_contract, "discard", share=1)
    bench.ingest(discarding)
    ids = {
        file.rpartition("/")[2] + str(line): id_
        for id_, file, line in bench.sql("SELECT dead_letter_id, file, line FROM ops.dead_letters")
    }
    fixed = {ids["a.csv2"]: "3,n,z", ids["b.jsonl1"]: '{"id":4,"Zed":1}', ids["b.jsonl2"]: '{"id":5}'}
    frozen = things(make_contract, "freeze", share=1)
    done = replay(bench.lake, frozen, Choice(), corrections=fixed)
    assert (done.accepted, done.failed) == (1, 2)
    assert bench.letters("things") == [
        (f"{DAY}/a.csv", 2, 1, ["unexpected_column"]), (f"{DAY}/b.jsonl", 1, 1, ["unexpected_column"]),
    ]  # fmt: skip
    balanced(bench)
    done = replay(bench.lake, things(make_contract, share=1), Choice())
    assert (done.accepted, done.failed) == (2, 0)
    assert rows(bench, "id", "zed") == [(1, None), (2, None), (3, "z"), (4, "1"), (5, None)]
    balanced(bench)


# The contract follows


def test_a_contract_that_gains_a_column(bench: Bench, make_contract: MakeContract) -> None:
    bench.put(f"{DAY}/a.csv", "id,Note\n1,n\n")
    bench.ingest(things(make_contract))
    bench.put("things/date=2026-01-02/a.csv", "id,Note,more\n2,n,5\n")
    bench.ingest(things(make_contract, more={"physicalType": "INTEGER"}), ["2026-01-02"])
    assert rows(bench, "id", "more") == [(1, None), (2, 5)]
    assert told(bench) == []


def test_a_column_that_came_by_itself_is_taken_over_when_it_is_declared(
    bench: Bench, make_contract: MakeContract
) -> None:
    bench.put(f"{DAY}/a.csv", "id,Note,same,other,count,price,odd,NOTES\n1,n,a,b,7,1.5,x,m\n2,,c,,8,,9,m\n")
    bench.ingest(things(make_contract))
    declared = things(
        make_contract,
        same={},
        another={"physicalName": "other"},
        count={"physicalType": "INTEGER"},
        amount={"physicalName": "price", "physicalType": "DECIMAL(10,2)"},
        odd={"physicalType": "INTEGER"},
        notes={"physicalName": "elsewhere"},
    )
    bench.ingest(declared, [])
    amount = bench.sql("SELECT 1.5::DECIMAL(10,2)")[0][0]
    assert rows(bench, "id", "same", "another", "count", "amount", "odd", "odd_2", "notes", "notes_2") == [
        (1, "a", "b", 7, amount, None, "x", None, "m"),
        (2, "c", None, 8, None, 9, "9", None, "m"),
    ]
    kinds = dict(bench.sql("SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'things'"))
    assert (kinds["same"], kinds["count"], kinds["amount"], kinds["odd"]) == (
        "VARCHAR",
        "INTEGER",
        "DECIMAL(10,2)",
        "INTEGER",
    )
    assert "price" not in kinds and "other" not in kinds
    assert told(bench) == [
        ("NOTES", "unexpected", "evolved", "notes_2"),
        ("count", "unexpected", "declared", None),
        ("odd", "unexpected", "declared", "odd_2"),
        ("other", "unexpected", "declared", None),
        ("price", "unexpected", "declared", None),
        ("same", "unexpected", "declared", None),
    ]
    balanced(bench)
    # Loading again judges the old rows by the new contract; nothing more is altered.
    count = bench.snapshots()
    bench.ingest(declared, [])
    assert bench.snapshots() == count
    bench.ingest(declared)
    assert rows(bench, "id", "same", "count", "notes_2") == [(2, "c", 8, "m")]
    assert bench.letters("things") == [(f"{DAY}/a.csv", 2, 1, ["type"])]
    balanced(bench)


def test_a_renamed_column_is_taken_over_by_its_physical_name(bench: Bench, make_contract: MakeContract) -> None:
    bench.put(f"{DAY}/a.csv", "id,Note\n1,old\n")
    bench.put("things/date=2026-01-02/a.csv", "id,Remark\n2,new\n")
    bench.ingest(things(make_contract))
    assert rows(bench, "id", "note", "remark") == [(1, "old", None), (2, None, "new")]
    bench.ingest(things(make_contract, note={"physicalName": "Remark"}), [])
    assert rows(bench, "id", "note") == [(1, "old"), (2, "new")]
    assert "remark" not in [
        c for (c,) in bench.sql("SELECT column_name FROM duckdb_columns() WHERE table_name = 'things'")
    ]


@pytest.mark.parametrize(
    ("old", "new", "values"),
    [
        ("INTEGER", "BIGINT", ("2147483647", "9223372036854775807")),
        ("DECIMAL(10,2)", "DECIMAL(14,4)", ("99999999.99", "1234567890.1234")),
        ("SMALLINT", "DECIMAL(9,2)", ("-32768", "1.25")),
        ("TINYINT", "DOUBLE", ("127", "1e300")),
    ],
)
def test_a_wider_type_alters_the_table(
    old: str, new: str, values: tuple[str, str], bench: Bench, make_contract: MakeContract
) -> None:
    bench.put(f"{DAY}/a.csv", f"id,Note,n\n1,n,{values[0]}\n2,n,{values[1]}\n")
    bench.ingest(things(make_contract, share=1, n={"physicalType": old}))
    assert rows(bench, "id") == [(1,)]
    bench.put("things/date=2026-01-02/a.csv", f"id,Note,n\n3,n,{values[1]}\n")
    bench.ingest(things(make_contract, share=1, n={"physicalType": new}), ["2026-01-02"])
    kind = bench.sql("SELECT data_type FROM duckdb_columns() WHERE table_name = 'things' AND column_name = 'n'")
    assert kind == [(new,)]
    expected = [bench.sql(f"SELECT '{v}'::{new}")[0][0] for v in values]
    assert bench.sql("SELECT id, n FROM bronze.things ORDER BY id") == [(1, expected[0]), (3, expected[1])]
    assert bench.sql("SELECT id FROM bronze.things WHERE n = ?", [expected[0]]) == [(1,)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("BIGINT", "INTEGER"),
        ("DECIMAL(12,2)", "DECIMAL(12,4)"),
        ("DECIMAL(10,0)", "BIGINT"),
        ("BIGINT", "DOUBLE"),
        ("INTEGER", "VARCHAR"),
        ("VARCHAR", "INTEGER"),
        ("DATE", "TIMESTAMP"),
    ],
)
def test_any_other_type_is_refused_before_anything_is_written(
    old: str, new: str, bench: Bench, make_contract: MakeContract
) -> None:
    assert not widens(old, new)
    bench.put(f"{DAY}/a.csv", "id,Note,n\n1,n,\n")
    bench.ingest(things(make_contract, n={"physicalType": old}))
    before = bench.bronze("things"), bench.snapshots()
    with pytest.raises(
        ContractError, match=r"made\.odcs\.yaml: n is .* in the contract but .* in bronze\.\"things\""
    ) as caught:
        bench.ingest(things(make_contract, n={"physicalType": new}, more={}))
    assert "Nothing was written. Keep the type, widen it, or load the source under a new name" in str(caught.value)
    assert (bench.bronze("things"), bench.snapshots()) == before


def test_every_batch_has_the_version_and_hash_of_its_contract(bench: Bench, make_contract: MakeContract) -> None:
    first = things(make_contract)
    bench.put(f"{DAY}/a.csv", "id,Note\n1,n\n")
    bench.ingest(first)
    second = things(make_contract, version="1.1.0", more={})
    bench.put("things/date=2026-01-02/a.csv", "id,Note,more\n2,n,x\n")
    bench.put("things/date=2026-01-03/a.csv", "wrong\n2\n")
    bench.ingest(second, ["2026-01-02", "2026-01-03"])
    assert (first.version, second.version) == ("1.0.0", "1.1.0") and first.hash != second.hash
    assert bench.sql("SELECT partition_key, status, contract_version, contract_hash FROM ops.ledger ORDER BY 1") == [
        ("2026-01-01", "accepted", "1.0.0", first.hash),
        ("2026-01-02", "accepted", "1.1.0", second.hash),
        ("2026-01-03", "refused", "1.1.0", second.hash),
    ]


def test_the_default_leaves_the_batches_of_older_lakes_alone(make_contract: MakeContract) -> None:
    assert things(make_contract).schema_evolution == "evolve"
    hashes = {things(make_contract, e).hash for e in ("evolve", "freeze", "discard")}
    assert len(hashes) == 3 and make_contract(COLUMNS, formats=FORMATS).hash in hashes
    with pytest.raises(ContractError, match="schemaEvolution is 'grow'; it must be one of evolve, freeze, discard"):
        things(make_contract, "grow")


def test_drift_on_the_command_line(
    bench: Bench, make_contract: MakeContract, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.put(f"{DAY}/a.csv", "id,Note,\x1b[31m\n1,n,z\n")
    bench.ingest(things(make_contract))
    monkeypatch.setenv("SLUICE_HOME", str(bench.settings.home))
    assert main(["contracts", "drift"]) == 0
    assert capsys.readouterr().out.endswith(f"'\\x1b[31m' is new, and in bronze as c_31m (first: {DAY}/a.csv)\n")
    assert main(["contracts", "drift", "--source", "nowhere"]) == 1
    assert "There is no contract 'nowhere'" in capsys.readouterr().err


# Whatever comes


VALUES = st.text('abc,"é ', max_size=4)
NAMES = st.sampled_from(["a", "b", "A", "new", "New", "né w", "_line"])


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.sampled_from(FORMATS),
            st.lists(NAMES, unique=True, min_size=1),
            st.lists(st.lists(VALUES, min_size=7, max_size=7), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_every_value_lands_in_its_column(
    tmp_path_factory: pytest.TempPathFactory,
    make_contract: MakeContract,
    files: list[tuple[str, list[str], list[list[str]]]],
) -> None:
    bench = Bench(tmp_path_factory.mktemp("any"))
    contract = make_contract({"a": {}, "b": {}}, formats=FORMATS)
    expected: dict[tuple[str, int], dict[str, str]] = {}
    for number, (kind, names, table) in enumerate(files):
        path = f"things/date=2026-01-0{number + 1}/f.{kind}"
        made = [dict(zip(names, values, strict=False)) for values in table]
        if kind == "csv":
            made = [{n: v.strip() or "x" for n, v in row.items()} for row in made]
            lines = [
                ",".join('"' + t.replace('"', '""') + '"' for t in row) for row in [names, *[r.values() for r in made]]
            ]
            bench.put(path, "\n".join(lines) + "\n")
        elif kind == "jsonl":
            bench.put(path, "".join(json.dumps(row) + "\n" for row in made))
        else:
            folded: list[str] = []  # names of Parquet columns differ by more than their case
            kept = [n for n in names if n.lower() not in folded and not folded.append(n.lower())]  # type: ignore[func-returns-value]
            made = [{n: row[n] for n in kept} for row in made]
            quote = lambda v: "'" + v.replace("'", "''") + "'"  # noqa: E731
            query = " UNION ALL ".join(
                "SELECT " + ", ".join(f'{quote(v)} AS "{n}"' for n, v in row.items()) for row in made
            )
            put_parquet(bench, path, query)
        for line, row in enumerate(made, start=2 if kind == "csv" else 1):
            expected[path, line] = row
    bench.ingest(contract)
    at = {
        "a": "a",
        "b": "b",
        **dict(bench.sql("SELECT \"column\", bronze_column FROM ops.schema_drift WHERE kind = 'unexpected'")),
    }
    for row in bench.sql("SELECT to_json(t)::VARCHAR FROM bronze.things AS t"):
        held = json.loads(row[0])
        wanted = expected.pop((held["_file"], held["_line"]))
        assert {n: held[at[n]] for n in wanted} == wanted
        assert all(held[c] is None for n, c in at.items() if n not in wanted)
    # What is left are exact duplicates.
    assert len(expected) == bench.sql("SELECT coalesce(sum(rows_duplicate), 0)::BIGINT FROM ops.ledger")[0][0]
    balanced(bench)
    bench.close()


def test_a_contract_that_cuts_a_day_otherwise_loads_nothing_twice(bench: Bench, make_contract: MakeContract) -> None:
    whole = make_contract({"n": {}})
    bench.put("things/date=2026-01-01/a.csv", "n\n1\n")
    bench.ingest(whole)
    before = bench.bronze("things")
    cut = make_contract({"n": {}}, path="things/region={region}/date={date}", partitions={"region": ["uk"]})
    bench.put("things/region=uk/date=2026-01-01/a.csv", "n\n1\n")
    with pytest.raises(ContractError, match=r"holds partitions such as '2026-01-01', .* cuts or names them"):
        bench.ingest(cut)
    assert bench.bronze("things") == before
