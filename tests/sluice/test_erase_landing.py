"""Landing files of an erasure: what is delivered meanwhile, how records are told apart, whose they are.

Files of contracts made here. What a single line becomes is in test_erase_lines.py, the whole erasure in test_erase.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.contracts import Contract
from sluice.erasure import landing
from sluice.erasure.person import Person, places
from sluice.erasure.run import erase, find
from tests.conftest import Bench, MakeContract

NAMES_A_CUSTOMER = {"customProperties": [{"property": "subject", "value": "customer"}]}
WHOLE = {"physicalType": "INTEGER"}
COLUMNS: dict[str, dict[str, Any]] = {"id": NAMES_A_CUSTOMER, "name": {"classification": "personal"}, "n": WHOLE}
ANN = Person("customer", "15036")
FILE = "things/date=2026-01-01/a.csv"


def clean(bench: Bench, contract: Contract) -> landing.Cleaned:
    """Landing files alone; nothing is built, compacted or searched."""
    bench.close()
    bench.lake.create()
    return landing.clean(bench.lake, [contract], places([contract], "customer"), ANN)


def deliver(file: Path, text: str) -> None:
    """As a source does that delivers under another name and renames."""
    beside = file.with_name(".delivery.tmp")
    beside.write_text(text)
    beside.replace(file)


def test_what_is_delivered_meanwhile_is_not_lost(
    bench: Bench, make_contract: MakeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = make_contract(COLUMNS)
    file = bench.put(FILE, "id,name,n\n15036,Ann,1\n2,Bob,2\n")
    bench.ingest(contract)
    note = landing._note
    deliveries = ["id,name,n\n15036,Ann,1\n2,Bob,2\n3,Carl,3\n"]

    def source_is_quicker(*given: Any) -> None:
        if deliveries:
            deliver(file, deliveries.pop())
        note(*given)

    monkeypatch.setattr(landing, "_note", source_is_quicker)
    assert clean(bench, contract) == landing.Cleaned(1, ())
    assert file.read_text() == "id,name,n\n,,1\n2,Bob,2\n3,Carl,3\n"
    # It is new to the books, and loaded as what it is.
    (batch,) = bench.ingest(contract).batches
    assert (batch.unchanged, batch.rows_read) == (False, 3)
    assert [path.name for path in file.parent.iterdir()] == [file.name], "no copy is left"


def test_a_source_that_goes_on_delivering_is_named(
    bench: Bench, make_contract: MakeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = make_contract(COLUMNS)
    file = bench.put(FILE, "id,name,n\n15036,Ann,1\n")
    bench.ingest(contract)
    note = landing._note
    count = 0

    def source_is_quicker(*given: Any) -> None:
        nonlocal count
        count += 1
        deliver(file, f"id,name,n\n15036,Ann,{count}\n")
        note(*given)

    monkeypatch.setattr(landing, "_note", source_is_quicker)
    assert clean(bench, contract) == landing.Cleaned(0, (FILE,))
    assert file.read_text() == f"id,name,n\n15036,Ann,{count}\n"
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_another_column_of_json_may_end_in_the_same_key(bench: Bench, make_contract: MakeContract) -> None:
    columns: dict[str, dict[str, Any]] = {
        "order_id": {"physicalName": "$.order.id"},
        "customer_id": {"physicalName": "$.customer.id", **NAMES_A_CUSTOMER},
        "n": WHOLE,
    }
    contract = make_contract(columns, formats=["jsonl"])
    file = bench.put(
        "things/date=2026-01-01/a.jsonl",
        '{"order":{"id":"15036"},"customer":{"id":"77"},"n":1}\n{"order":{"id":"b"},"customer":{"id":"15036"},"n":2}\n',
    )
    bench.ingest(contract)
    done = erase(bench.lake, [contract], "customer", "15036", rebuild=lambda: None)
    assert done.findings.found == {}, "an order's number is none of a customer"
    assert file.read_text() == (
        '{"order":{"id":"15036"},"customer":{"id":"77"},"n":1}\n{"order":{"id":"b"},"customer":{"id":null},"n":2}\n'
    )
    bench.close()
    rows = "SELECT order_id, customer_id, n FROM bronze.things ORDER BY n"
    assert bench.sql(rows) == [("15036", "77", 1), ("b", None, 2)]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_records_end_where_they_do_when_loaded(bench: Bench, make_contract: MakeContract, mark: str, end: str) -> None:
    """With a mark before the first column, which names the person, and one that is data within a text."""
    contract = make_contract(COLUMNS, csv={"multiline": True})

    def text(*lines: str) -> bytes:
        return (mark + end.join(lines) + end).encode()

    # U+2028 and a form feed end lines in Python, not here.
    file = bench.put(FILE, text("id,name,n", '15036,"An', 'n",1', "2,B\u2028o\x0cb,2", "", "15036,\ufeffAnn,3"))
    assert clean(bench, contract) == landing.Cleaned(1, ())
    # The line end within the name is a blank line after it, so that the lines below keep their numbers.
    assert file.read_bytes() == text("id,name,n", ",,1", "", "2,B\u2028o\x0cb,2", "", ",,3")
    about = make_contract(
        COLUMNS | {"id": NAMES_A_CUSTOMER | {"primaryKey": True, "required": True}}, csv={"multiline": True}
    )
    file.write_bytes(text("id,name,n", '15036,"An', 'n",1', "2,Bob,2"))
    assert clean(bench, about) == landing.Cleaned(1, ())
    assert file.read_bytes() == text("id,name,n", "", "", "2,Bob,2"), "lines keep their numbers"


def test_a_file_without_its_header_is_blanked_wherever_the_person_stands(
    bench: Bench, make_contract: MakeContract
) -> None:
    file = bench.put(FILE, "15036,Ann,1\n2,Bob,15036\n")
    assert clean(bench, make_contract(COLUMNS)).files == 1
    assert file.read_text() == "*****,Ann,1\n2,Bob,*****\n"


INTEGER_ID: dict[str, dict[str, Any]] = {**COLUMNS, "id": WHOLE | NAMES_A_CUSTOMER}
FORMS = ("15036", "015036", "+15036", " 15036", "15036.0", "1.5036e4")
OTHERS = ("15037", "15036.5", "150360", "-15036", "1.5036", "x15036")


def test_a_number_is_the_person_however_it_is_written(bench: Bench, make_contract: MakeContract) -> None:
    """In the file, in bronze, in dead letters, and when it comes again; others' numbers are left as they are."""
    contract = make_contract(INTEGER_ID)
    values = [*FORMS, *OTHERS]
    text = "id,name,n\n" + "".join(f"{v},N{i}N,{i}\n" for i, v in enumerate(values))
    file = bench.put(FILE, text)
    bench.ingest(contract)
    letters = "SELECT line, status, raw FROM ops.dead_letters ORDER BY line"
    kept = [row for row in bench.sql(letters) if row[0] > len(FORMS) + 1]
    assert len(kept) == 3
    done = erase(bench.lake, [contract], "customer", "15036", rebuild=lambda: None)
    assert done.findings.found == {}
    assert (done.rows.rows_emptied, done.rows.letters_emptied) == (3, 3)
    left = "".join(f"{v},N{i}N,{i}\n" for i, v in enumerate(values) if v in OTHERS)
    assert file.read_text() == "id,name,n\n" + "".join(f",,{i}\n" for i in range(len(FORMS))) + left
    bench.close()
    assert bench.sql(letters) == [(n, "discarded", None) for n in (5, 6, 7)] + kept
    # Delivered again under another name.
    again = bench.put("things/date=2026-01-02/a.csv", text)
    found = find(bench.lake, [contract], "customer", "15036").found
    assert found == {str(again): len(FORMS)}
    bench.ingest(contract)
    assert bench.sql(
        "SELECT count(*) FROM ops.dead_letters WHERE raw IS NOT NULL AND partition_key = '2026-01-02'"
    ) == [(3,)]


def test_parquet_whose_columns_cannot_be_told_apart_is_named(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract(INTEGER_ID, formats=["parquet"])
    file = bench.landing / "things/date=2026-01-01/a.parquet"
    file.parent.mkdir(parents=True)
    columns = {"n": [1, 2], "ID": [3, 4], "id": [15036, 7], "name": ["Ann", "Bob"]}
    pq.write_table(pa.Table.from_arrays([pa.array(v) for v in columns.values()], names=list(columns)), file)
    bench.ingest(contract)
    before = file.read_bytes()
    bench.close()
    assert find(bench.lake, [contract], "customer", "15036").found == {str(file): 1}
    assert erase(bench.lake, [contract], "customer", "15036", rebuild=lambda: None).findings.found == {str(file): 1}
    assert file.read_bytes() == before


def test_a_number_in_json_and_parquet(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract(INTEGER_ID, formats=["jsonl", "parquet"])
    line = '{"id":%s,"name":"A","n":1}\n'
    values = ["15036.0", "1.5036e4", '"15036"', '" 15036"', "15036.5"]
    file = bench.put("things/date=2026-01-01/a.jsonl", "".join(line % v for v in values))
    parquet = bench.landing / "things/date=2026-01-01/b.parquet"
    with duckdb.connect() as con:
        rows = "SELECT i::DOUBLE AS id, 'A' AS name, 1 AS n FROM range(15035, 15038) AS r(i)"
        con.execute(f"COPY ({rows}) TO '{parquet}'")
        bench.lake.create()
        assert sum(find(bench.lake, [contract], "customer", "15036").found.values()) == 4 + 1
        assert clean(bench, contract).files == 2
        assert con.execute(f"SELECT id, name, n FROM '{parquet}'").fetchall() == [
            (15035.0, "A", 1),
            (None, None, 1),
            (15037.0, "A", 1),
        ]
    *emptied, other = file.read_text().splitlines(keepends=True)
    assert [json.loads(text) for text in emptied] == [{"id": None, "name": None, "n": 1}] * 4
    assert other == line % "15036.5"
    assert find(bench.lake, [contract], "customer", "15036").found == {}


def test_in_a_text_column_only_the_same_text_is_the_person(bench: Bench, make_contract: MakeContract) -> None:
    text = "id,name,n\n015036,A,1\n15036.0,B,2\n"
    file = bench.put(FILE, text)
    assert clean(bench, make_contract(COLUMNS)).files == 0
    assert file.read_text() == text


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_that_differed_in_the_person_alone_stay_two(bench: Bench, make_contract: MakeContract, form: str) -> None:
    """Loaded again the file gives the same rows; lines that were duplicates stay that."""
    columns: dict[str, dict[str, Any]] = {"id": NAMES_A_CUSTOMER, "product": {}, "n": WHOLE}
    contract = make_contract(columns, formats=[form])
    rows = [("15036", "cup", 1), (None, "cup", 1), ("15037", "cup", 1), ("15036", "cup", 1),
            ("15038", "cup", 1), ("2", "mug", 2)]  # fmt: skip
    if form == "csv":
        text = "id,product,n\n" + "".join(f'{i or ""},"{p}",{n}\n' for i, p, n in rows)
    else:
        text = "".join(json.dumps({"id": i, "product": p, "n": n}) + "\n" for i, p, n in rows)
    file = bench.put(f"things/date=2026-01-01/a.{form}", text)
    bench.ingest(contract)
    loaded = "SELECT product, n, _line FROM bronze.things ORDER BY _line"
    before = bench.sql(loaded)
    assert len(before) == 5
    for who in ("15036", "15037", "15038"):
        assert landing.clean(bench.lake, [contract], places([contract], "customer"), Person("customer", who)).files == 1
    bench.close()
    lines = file.read_text().splitlines()
    assert len(lines) == text.count("\n")
    assert not any(who in file.read_text() for who in ("15036", "15037", "15038"))
    bench.ingest(contract, force=True)
    assert bench.sql(loaded) == before
    assert bench.sql("SELECT id FROM bronze.things WHERE n = 1") == [(None,)] * 4
