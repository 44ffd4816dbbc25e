"""Dead letters of an erased person: nothing of theirs is kept, and what was decided about their rows still holds.

The whole erasure is in test_erase.py, landing files in test_erase_landing.py.
"""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest

from sluice.books import books
from sluice.contracts import Contract
from sluice.dead_letters import Choice, discard, letters
from sluice.erasure.run import erase, find
from sluice.replay import replay
from tests.conftest import Bench, MakeContract

COLUMNS: dict[str, dict[str, Any]] = {
    "id": {"physicalType": "INTEGER", "required": True, "primaryKey": True},
    "amount": {"physicalType": "INTEGER"},
    "customer": {"customProperties": [{"property": "subject", "value": "customer"}]},
    "mail": {"classification": "personal"},
}
FILE = "things/date=2026-01-01/a.csv"
HEADER = "id,amount,customer,mail\n"
ANN, MAIL = "15036", "anna@example.com"


def erase_ann(bench: Bench, contract: Contract) -> None:
    """All of the erasure; there is no gold to build."""
    bench.close()
    assert erase(bench.lake, [contract], "customer", ANN, rebuild=lambda: None).findings.found == {}


def by_line(bench: Bench, **choice: Any) -> dict[int | None, str]:
    """Ids of the letters chosen, by line."""
    bench.close()
    return {letter.line: letter.dead_letter_id for letter in letters(bench.lake, Choice(**choice), 100)}


def balanced(bench: Bench) -> None:
    (found,) = books(bench.lake, ["things"])
    assert found.balanced, found


@pytest.mark.parametrize(
    ("payload", "version"),
    [
        (f"2,x1,{ANN},{MAIL}", "1.0.0"),  # taken apart, and wrong again
        (f"2;x1;{ANN};{MAIL}", "1.0.0"),  # no record
        (f"2,1,{ANN},{MAIL}", "2.0.0"),  # below a header that no longer fits
    ],
)
def test_a_correction_that_names_the_erased_and_fails_is_not_kept(
    bench: Bench, make_contract: MakeContract, payload: str, version: str
) -> None:
    contract = make_contract(COLUMNS)
    bench.put(FILE, f"{HEADER}1,10,{ANN},{MAIL}\n2,xx,,\n")
    bench.ingest(contract)
    erase_ann(bench, contract)
    if version == "2.0.0":
        contract = make_contract(COLUMNS | {"shop": {"required": True}}, version=version)
    (letter,) = by_line(bench).values()
    told = replay(bench.lake, contract, Choice(ids=(letter,)), corrections={letter: payload}, by="me")
    assert (told.accepted, told.failed) == (0, 1)
    bench.close()
    kept = "SELECT raw, corrected, status, attempts, reasons[1].rule FROM ops.dead_letters WHERE status <> 'superseded'"
    assert bench.sql(kept) == [("2,xx,,", None, "open", 2, "erased")]
    assert find(bench.lake, [contract], "customer", ANN).found == {}
    balanced(bench)
    # What names nobody is kept, and taken next time.
    replay(bench.lake, contract, Choice(ids=(letter,)), corrections={letter: "2,x2,,"}, by="me")
    bench.close()
    assert bench.sql(kept)[0][:4] == ("2,xx,,", "2,x2,,", "open", 3)


LOADED = "SELECT * EXCLUDE (_ingested_at, _batch_id) FROM bronze.things ORDER BY ALL"
DECIDED = "SELECT line, status, decided_by FROM ops.dead_letters WHERE status <> 'superseded' ORDER BY line"


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_what_was_decided_holds_when_the_rewritten_file_is_read_again(
    bench: Bench, make_contract: MakeContract, form: str
) -> None:
    contract = make_contract(COLUMNS, formats=[form])
    rows = [
        ("1", "10", ANN, MAIL),
        ("2", "1O", ANN, MAIL),  # corrected
        ("3", "5", "15037", "bob@example.com"),
        ("4", "xx", ANN, MAIL),  # given up
        ("5", "yy", ANN, MAIL),  # nobody has decided
        ("6", "1O", "somebody", "bob@example.com"),  # hers by its correction alone
        ("7", "zz", ANN, MAIL),  # Bob's by its correction
    ]
    put(bench, form, rows)
    bench.ingest(contract)
    line = by_line(bench)
    first = 1 if form != "csv" else 2

    def letter(number: int) -> str:
        return line[number - 1 + first]

    def payload(*given: str) -> str:
        return ",".join(given) if form == "csv" else json.dumps(dict(zip(COLUMNS, given, strict=True)))

    corrections = {
        letter(2): payload("2", "10", ANN, MAIL),
        letter(6): payload("6", "10", ANN, MAIL),
        letter(7): payload("7", "20", "15037", "bob@example.com"),
    }
    assert replay(bench.lake, contract, Choice(ids=("zzzzzz",)), corrections=corrections, by="me").accepted == 3
    discard(bench.lake, Choice(ids=(letter(4),)), by="me", why="a test order")

    erase_ann(bench, contract)
    bench.close()
    before, decided = bench.sql(LOADED), bench.sql(DECIDED)
    assert sum(row[2] for row in before) == 10 + 10 + 5 + 10 + 20
    assert [status for _, status, _ in decided] == ["replayed", "discarded", "discarded", "replayed", "replayed"]
    balanced(bench)
    for _ in range(2):
        again = bench.ingest(contract, force=True)
        assert not any(b.unchanged for b in again.batches)
        bench.close()
        assert bench.sql(LOADED) == before
        assert bench.sql(DECIDED) == decided
        balanced(bench)
    assert find(bench.lake, [contract], "customer", ANN).found == {}
    # Under another version of the contract it is another batch.
    bench.ingest(make_contract(COLUMNS, formats=[form], version="1.1.0"))
    bench.close()
    assert bench.sql(LOADED) == before
    assert bench.sql(DECIDED + " LIMIT 5") == decided
    balanced(bench)


def put(bench: Bench, form: str, rows: list[tuple[str, ...]]) -> None:
    """Rows of text as a landing file."""
    name = FILE.replace(".csv", f".{form}")
    if form == "csv":
        bench.put(name, HEADER + "".join(",".join(row) + "\n" for row in rows))
        return
    text = "".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows)
    path = bench.put(name if form == "jsonl" else "rows.tmp", text)
    if form == "parquet":
        target = bench.landing / name
        target.parent.mkdir(parents=True)
        with duckdb.connect() as con:
            kinds = ", ".join(f"{column}: 'VARCHAR'" for column in COLUMNS)
            read = f"read_json('{path}', format = 'newline_delimited', columns = {{{kinds}}})"
            con.execute(f"COPY (FROM {read}) TO '{target}' (FORMAT parquet)")
        path.unlink()


def test_corrections_that_have_become_alike_are_not_taken_for_duplicates(
    bench: Bench, make_contract: MakeContract
) -> None:
    columns = {name: {k: v for k, v in given.items() if k != "primaryKey"} for name, given in COLUMNS.items()}
    contract = make_contract(columns)
    cy = "15038"
    bench.put(FILE, f"{HEADER}1,10,,\n1,1O,{ANN},{MAIL}\n1,x,{cy},\n1,y,{ANN},{MAIL}\n1,z,15039,\n")
    bench.ingest(contract)
    line = by_line(bench)
    # Line 5 turns out to be line 3 once more.
    corrections = {
        line[3]: f"1,10,{ANN},{MAIL}",
        line[4]: f"1,10,{cy},",
        line[5]: f"1,10,{ANN},{MAIL}",
        line[6]: "1,10,15039,",
    }
    told = replay(bench.lake, contract, Choice(ids=("zzzzzz",)), corrections=corrections, by="me")
    assert (told.accepted, told.duplicate) == (3, 1)
    erase_ann(bench, contract)
    assert erase(bench.lake, [contract], "customer", cy, rebuild=lambda: None).findings.found == {}
    bench.close()
    before, books_before = bench.sql(LOADED), bench.ledger("things")
    assert len(before) == 4
    for _ in range(2):
        bench.ingest(contract, force=True)
        bench.close()
        assert bench.sql(LOADED) == before
        assert bench.ledger("things") == books_before
        balanced(bench)


def test_a_correction_about_the_erased_goes_and_its_row_does_not_wait(
    bench: Bench, make_contract: MakeContract
) -> None:
    about: dict[str, dict[str, Any]] = {
        "customer": {
            "physicalType": "INTEGER",
            "required": True,
            "primaryKey": True,
            "customProperties": [{"property": "subject", "value": "customer"}],
        },
        "name": {"classification": "personal"},
    }
    contract = make_contract(about)
    bench.put(FILE, "customer,name\n15O36,Anna Lee\n15037,Bob\n")
    bench.ingest(contract)
    (letter,) = by_line(bench).values()
    replay(bench.lake, contract, Choice(ids=(letter,)), corrections={letter: f"{ANN},Anna Lee"}, by="me")
    erase_ann(bench, contract)
    bench.ingest(contract, force=True)
    bench.close()
    assert bench.sql("SELECT customer FROM bronze.things") == [(15037,)]
    assert bench.sql("SELECT status, corrected, decided_why FROM ops.dead_letters") == [
        ("discarded", None, "erased on request")
    ]
    balanced(bench)


def test_a_correction_that_names_the_erased_and_passes_holds_without_them(
    bench: Bench, make_contract: MakeContract
) -> None:
    contract = make_contract(COLUMNS)
    bench.put(FILE, f"{HEADER}1,10,{ANN},{MAIL}\n2,xx,,\n")
    bench.ingest(contract)
    erase_ann(bench, contract)
    (letter,) = by_line(bench).values()
    told = replay(
        bench.lake, contract, Choice(ids=(letter,)), corrections={letter: f"2,20,{ANN},new@ann.example"}, by="me"
    )
    assert told.accepted == 1
    bench.close()
    before = bench.sql(LOADED)
    kept = "SELECT status, corrected, decided_by FROM ops.dead_letters"
    assert bench.sql(kept) == [("replayed", "2,20,,", "me")]
    assert sum(row[2] for row in before) == 30
    bench.ingest(contract, force=True)
    bench.close()
    assert bench.sql(LOADED) == before
    assert bench.sql(kept) == [("replayed", "2,20,,", "me")]
    assert find(bench.lake, [contract], "customer", ANN).found == {}
    balanced(bench)
