"""Ingest attacked: neighbours that change what is known of a letter, rows that look alike, gates led astray."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sluice import preflight
from sluice.dead_letters import Choice, discard, letters
from sluice.erasure.run import erase, find
from sluice.records import lines
from sluice.replay import replay
from tests.conftest import Bench, MakeContract

DAY = "things/date=2026-01-01"
NUMBERED: dict[str, dict[str, Any]] = {"n": {"physicalType": "INTEGER"}, "t": {}}
OF_PEOPLE: dict[str, dict[str, Any]] = {
    "id": {"physicalType": "INTEGER", "required": True, "primaryKey": True},
    "customer": {"customProperties": [{"property": "subject", "value": "customer"}]},
    "mail": {"classification": "personal"},
}


@pytest.mark.parametrize(("name", "content"), [("b.csv", "n,t\n5,z\n"), ("b.jsonl", '{"n":"5","t":"z"}\n')])
def test_what_was_decided_of_json_outlives_whatever_comes_beside_it(
    name: str, content: str, bench: Bench, make_contract: MakeContract
) -> None:
    contract = make_contract(NUMBERED, formats=["csv", "jsonl"])
    bench.put(f"{DAY}/a.jsonl", '{"n":"1","t":"a"}\n{"n":"x","t":"b"}\n{"n":"y","t":"c"}\n')
    bench.ingest(contract)
    second, third = (x.dead_letter_id for x in letters(bench.lake, Choice(), 10))
    replay(bench.lake, contract, Choice(ids=(second,)), corrections={second: '{"n":"7","t":"b"}'}, by="ann")
    discard(bench.lake, Choice(ids=(third,)), by="ann", why="a test")
    bench.put(f"{DAY}/{name}", content)
    bench.ingest(contract)
    assert bench.sql("SELECT n, t FROM bronze.things ORDER BY ALL") == [(1, "a"), (5, "z"), (7, "b")]
    assert bench.ledger("things") == {"2026-01-01": (4, 3, 1, 0)}
    current = "SELECT line, status, header FROM ops.dead_letters WHERE status <> 'superseded' ORDER BY line"
    assert bench.sql(current) == [(2, "replayed", None), (3, "discarded", None)]


def test_of_an_erased_person_a_neighbour_keeps_nothing(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract(OF_PEOPLE, formats=["csv", "jsonl"])
    header = "id,customer,mail\n"
    bench.put(f"{DAY}/a.csv", f"{header}1,15036,ann@shop.example\n")
    bench.ingest(contract)
    bench.close()
    erase(bench.lake, [contract], "customer", "15036", rebuild=lambda: None)
    # Line 1 is theirs, line 2 somebody's that fails; and lines of theirs that are no text.
    theirs, other = {"id": "7", "customer": "15036", "mail": "ann@shop.example"}, {"id": "x", "customer": "2"}
    bench.put("things/date=2026-01-02/b.jsonl", f"{json.dumps(theirs)}\n{json.dumps(other)}\n")
    bench.put("things/date=2026-01-02/a.csv", f"{header}2,3,bob@shop.example\n")
    spoilt = b"5,15036,ann@shop.example\xff\n6,\xff15036,ann@shop.example\n7,15036,ann@shop\x1f.example\n8,9,\xff\n"
    bench.put("things/date=2026-01-03/a.csv", header.encode() + spoilt)
    bench.ingest(contract)
    kept = bench.sql("SELECT file, line, status, raw IS NULL, header FROM ops.dead_letters ORDER BY ALL")
    assert kept == [
        ("things/date=2026-01-02/b.jsonl", 2, "open", False, None),
        *(("things/date=2026-01-03/a.csv", line, "discarded", True, header.strip()) for line in (2, 3, 4)),
        ("things/date=2026-01-03/a.csv", 5, "open", False, header.strip()),
    ]
    bench.close()
    found = find(bench.lake, [contract], "customer", "15036").found
    assert not [place for place in found if "landing" not in place], found


def test_who_writes_when_the_first_person_is_erased_goes_on(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract(OF_PEOPLE)
    bench.put(f"{DAY}/a.csv", "id,customer,mail\n1,15036,\n")
    bench.ingest(contract)
    bench.close()
    with bench.lake.connect() as con:
        erase(bench.lake, [contract], "customer", "15036", rebuild=lambda: None)
        made = "SELECT CAST(getvariable('sluice_erasure_id') AS VARCHAR)"
        before = con.execute(made).fetchone()
        known = bench.lake.transaction(con, lambda c: c.execute(made).fetchone(), "a load that began before")
    assert before in ((None,), ("",)) and known is not None and known[0]


def test_records_alike_in_what_is_kept_of_them_are_not_the_same(
    bench: Bench, make_contract: MakeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MOST_JOINED", 3)
    contract = make_contract({"a": {}, "b": {}}, csv={"multiline": True}, duplicates="batch")
    endless = 'a,b\n1,"x\ny\nz\n{}"\n'
    for name, tail in (("1", "u"), ("2", "v"), ("3", "u")):
        bench.put(f"{DAY}/{name}.csv", endless.format(tail))
    bench.ingest(contract)
    assert bench.ledger("things") == {"2026-01-01": (3, 0, 2, 1)}
    told = bench.sql("SELECT file, decode(from_base64(raw)), count(DISTINCT checksum) OVER () FROM ops.dead_letters")
    assert sorted(told) == [(f"{DAY}/{n}.csv", '1,"x\ny\nz', 2) for n in ("1", "2")]
    # What somebody said of one is not said of what comes in its place; and only a correction helps.
    assert replay(bench.lake, contract, Choice()).undecodable == 2
    first = letters(bench.lake, Choice(), 10)[0].dead_letter_id
    replay(bench.lake, contract, Choice(ids=(first,)), corrections={first: "1,corrected"}, by="ann")
    assert bench.sql("SELECT b FROM bronze.things") == [("corrected",)]
    for name in ("1", "3"):
        bench.put(f"{DAY}/{name}.csv", endless.format("w"))
    bench.ingest(contract)
    assert bench.sql("SELECT b FROM bronze.things") == []


def test_long_lines_alike_in_what_is_kept_of_them_are_not_the_same(
    bench: Bench, make_contract: MakeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_BLOCK", 16)
    monkeypatch.setattr(preflight, "LONGEST_LINE_BYTES", 20)
    monkeypatch.setattr(preflight, "KEPT_BYTES", 30)
    contract = make_contract({"a": {}})
    bench.put(
        f"{DAY}/1.csv", "a\n" + "".join("x" * 40 + end + "\n" for end in ("1", "2", "1", "")) + "y" * 25 + "\nz\n"
    )
    bench.ingest(contract)
    assert bench.ledger("things") == {"2026-01-01": (6, 1, 4, 1)}
    assert [(line, rules) for _, line, _, rules in bench.letters("things")] == [(n, ["too_long"]) for n in (2, 3, 5, 6)]


def test_a_row_is_no_duplicate_of_one_of_another_format(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract(NUMBERED, formats=["csv", "jsonl"], duplicates="batch")
    bench.put(f"{DAY}/1.jsonl", "n,t\n1,a\n2,b\n")
    bench.put(f"{DAY}/2.csv", "n,t\n1,a\n2,b\n3,c\n")
    bench.ingest(contract)
    assert bench.ledger("things") == {"2026-01-01": (6, 3, 3, 0)}


@pytest.mark.parametrize("most", [1_000_000, 5])
def test_a_header_that_swallows_its_rows_stands_for_them(
    most: int, bench: Bench, make_contract: MakeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MOST_JOINED", most)
    contract = make_contract(NUMBERED, csv={"multiline": True}, share=0.5)
    bench.put(f"{DAY}/1.csv", "n,t\n" + "".join(f"{n},x\n" for n in range(10)))
    bench.put(f"{DAY}/2.csv", 'n,"t\n' + "".join(f"{n},x\n" for n in range(100)))
    (batch,) = bench.ingest(contract).batches
    assert (batch.status, batch.rows_read, batch.rows_dead_lettered) == ("refused", 110, 110)
    ((rule, detail, rows),) = bench.sql(
        "SELECT reasons[1].rule, reasons[1].detail, rows FROM ops.dead_letters WHERE error_class = 'file'"
    )
    assert (rule, rows) == ("malformed", 100) and detail.startswith("The first line is no header")


def test_a_record_without_end_in_a_file_that_is_set_aside_is_in_the_books(
    bench: Bench, make_contract: MakeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MOST_JOINED", 3)
    contract = make_contract({"a": {"required": True}}, csv={"multiline": True})
    bench.put(f"{DAY}/1.csv", 'b\n1\n2\n"x\ny\nz\nu"\n')
    bench.ingest(contract)
    assert bench.ledger("things") == {"2026-01-01": (3, 0, 3, 0)}


def test_a_payload_over_lines_is_no_record_where_each_line_is_one(bench: Bench, make_contract: MakeContract) -> None:
    over = make_contract({"a": {}, "b": {}}, csv={"multiline": True})
    bench.put(f"{DAY}/1.csv", 'a,b\n"x\ny,z\n')
    bench.ingest(over)
    by_line = make_contract({"a": {}, "b": {}}, version="2.0.0", csv={"quote": "'"})
    done = replay(bench.lake, by_line, Choice())
    assert (done.accepted, done.undecodable) == (0, 1)
    assert bench.sql("SELECT count(*) FROM bronze.things") == [(0,)]


def test_copies_make_no_room_for_bad_rows(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract(NUMBERED, share=0.5)
    bench.put(f"{DAY}/1.csv", "n,t\n1,a\n" + "ERROR connection lost\n" * 1000)
    bench.put("things/date=2026-01-02/1.csv", "n,t\n" + "1,a\n" * 50 + "x,1\nx,2\n")
    bench.ingest(contract)
    at_the_limit, past_it = bench.sql("SELECT status, reason, rows_duplicate FROM ops.ledger ORDER BY partition_key")
    assert at_the_limit == ("accepted", None, 999)
    told = "2 of 3 rows were rejected, more than the contract allows (gates.maxRejectedShare: 0.5)"
    assert past_it == ("refused", told, 49)


@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_usual_does_not_depend_on_how_many_days_load_at_once(
    at_once: bool, bench: Bench, make_contract: MakeContract
) -> None:
    contract = make_contract(NUMBERED, volume={"maximum": 2, "history": 5, "severity": "fail"})
    keys = [f"2026-01-{day:02}" for day in range(1, 13)]
    for number, key in enumerate(keys, start=1):
        rows = 10 if number < 6 else 100
        bench.put(f"things/date={key}/1.csv", "n,t\n" + "".join(f"{n},x\n" for n in range(rows)))
    for part in [keys] if at_once else [[key] for key in keys]:
        bench.ingest(contract, part)
    found = bench.sql("SELECT status, reason FROM ops.ledger ORDER BY partition_key")
    told = "100 rows; the median of the 5 batches before it is 10.0, and at most 2 of that is allowed"
    assert found == [("accepted", None)] * 5 + [("refused", told)] * 7


def test_a_corrected_day_of_json_may_be_taken_again_with_a_day_of_csv(
    bench: Bench, make_contract: MakeContract
) -> None:
    contract = make_contract(NUMBERED, formats=["csv", "jsonl"])
    bench.put(f"{DAY}/a.jsonl", '{"n":"1","t":"a"}\n{"n":"x","t":"b"}\n')
    bench.ingest(contract)
    (letter,) = letters(bench.lake, Choice(), 10)
    replay(bench.lake, contract, Choice(), corrections={letter.dead_letter_id: '{"n":"2","t":"b"}'}, by="ann")
    bench.put("things/date=2026-01-02/a.csv", "n,t\n3,c\n")
    bench.ingest(contract, again=True)
    assert bench.ledger("things") == {"2026-01-01": (2, 2, 0, 0), "2026-01-02": (1, 1, 0, 0)}
