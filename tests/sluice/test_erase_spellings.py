"""A person however their id and values are written: with escapes, over lines, in another encoding, however deep.

Whole erasures of small files, looked at byte by byte. What a single line becomes is in test_erase_lines.py.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from typing import Any

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sluice.dead_letters import Choice, letters
from sluice.erasure.person import Person
from sluice.erasure.run import erase, find
from sluice.erasure.spelling import Finder
from sluice.records import lines
from sluice.replay import replay
from tests.conftest import Bench, MakeContract

NAMES_A_CUSTOMER: dict[str, Any] = {"customProperties": [{"property": "subject", "value": "customer"}]}
PERSONAL: dict[str, Any] = {"classification": "personal"}
ID: dict[str, Any] = {"physicalType": "INTEGER", "required": True, "primaryKey": True}
# Rows that count something: their customer is emptied, they stay.
COUNTS: dict[str, dict[str, Any]] = {"id": ID, "customer": NAMES_A_CUSTOMER, "mail": PERSONAL}
# Rows about people.
PEOPLE: dict[str, dict[str, Any]] = {"id": {**ID, **NAMES_A_CUSTOMER}, "name": PERSONAL}
NOTES: dict[str, dict[str, Any]] = {"n": {"physicalType": "INTEGER"}, "t": {}}

CSV = "things/date=2026-01-01/a.csv"
JSONL = "things/date=2026-01-01/a.jsonl"


def twice(text: str) -> str:
    """As a log has it that has a document as a text."""
    return json.dumps(json.dumps(text)[1:-1])[1:-1]


WRITERS: list[Callable[[str], str]] = [
    str,
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    lambda text: "".join(f"\\u{unit.hex().upper()}" for unit in _utf_16(text)),
    lambda text: text.replace('"', '""'),
    lambda text: text.replace('"', '""').replace('"', '""'),
    lambda text: json.dumps(text.replace('"', '""'))[1:-1],
    lambda text: text.replace("'", "''"),
    lambda text: text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n"),
    twice,
]


def _utf_16(text: str) -> list[bytes]:
    data = text.encode("utf-16-be")
    return [data[at : at + 2] for at in range(0, len(data), 2)]


TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\"'\\/\r\n\t.*(é"), min_size=1, max_size=8
).filter(lambda text: any(map(str.isalnum, text)))


@settings(max_examples=200, deadline=None)
@given(text=TEXT)
@example(text="EU/15036")
@example(text='Ann "A" Lee\\')
@example(text="Elm Road 5\r\nAustin")
@example(text="Müller 🎉")
def test_a_text_is_found_however_it_is_written(text: str, memory: duckdb.DuckDBPyConnection) -> None:
    finder = Finder((text,))
    ways = [write(text) for write in WRITERS]
    for way in ways:
        left = finder.blanked(f"< {way} >".encode())
        # Of quotes and backslashes at its ends it cannot be told whether they are its own.
        sign = rb"(?:[\"'\\]|\\u00(?:22|27|5C))*"
        assert re.fullmatch(rb"< %s[*\r\n]+%s >" % (sign, sign), left), way
        assert len(left) == len(f"< {way} >".encode())
        assert not finder.is_in(f"{way}x{way}".encode()) or not (text[0] + text[-1]).isalnum()
    # What is looked for first finds all of it.
    row = memory.execute(f"SELECT bool_and({finder.may_be_in_sql('w')}) FROM unnest(?) AS t (w)", [ways])
    assert row.fetchall() == [(True,)]


@pytest.mark.parametrize("before", ["\\n", "\\t", "\\u00e9", "\\\\n", " ", "x.", '"', "\\"])
def test_a_token_may_follow_an_escape(before: str) -> None:
    assert Person("customer", "15036").is_in(f"for{before}15036")


@pytest.mark.parametrize("before", ["n", "\\x", "1.", "\\uzz", "_", "\\u0031", "\\u0041", "\\u005f"])
def test_what_is_no_escape_is_part_of_the_word(before: str) -> None:
    assert not Person("customer", "15036").is_in(f"for{before}15036")


def test_bytes_of_latin_1_are_found_and_no_part_of_another_character() -> None:
    found = Finder(("café", "Calle 3º"))
    assert found.blanked("«café» café’s café° Calle 3º".encode("cp1252")) == b"\xab****\xbb ****\x92s ****\xb0 ********"
    assert not found.is_in("caf際".encode()), "its first byte is that of é"
    assert not found.is_in("cafÃ© Calle 3Âº".encode()), "its last bytes are those of é and º"


@pytest.mark.parametrize("text", ["////", '""""', "\t\t\t\t", "\n\n\n\n", "\\\\\\\\", '"\'"'])
def test_of_a_text_without_letters_only_its_signs_are_blanked(text: str) -> None:
    data = b'1,"",x  \\\\ y, (Bob)\nsecond //// line\n'
    assert Finder((text,)).blanked(data) == data.replace(text.encode() if text == "////" else b"-", b"****")


@pytest.mark.parametrize("name", ["bob.b", "frank", "natalie", "rita", "tom.lee@x.example", "u1234", "carol"])
def test_a_backslash_may_be_one(name: str) -> None:
    data = f'{{"user":"CORP\\\\{name}"}} {{"user":"CORP\\{name}"}}'.encode()
    assert Finder((name,)).blanked(data) == data.replace(name.encode(), b"*" * len(name))


def test_what_is_blanked_leaves_json_and_numbers_as_they_were() -> None:
    assert Finder(("/home/ann",)).blanked(rb'{"t":"\/home\/ann"}') == b'{"t":"***********"}'
    assert Finder(("Ann Lee",)).blanked(b"1.Ann Lee, Ann Lee.3") == b"1.*******, *******.3"
    assert Finder(("15036",)).blanked(b"15036.5 1.15036 x.15036") == b"15036.5 1.15036 x.*****"


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(TEXT, min_size=1, max_size=3),
    parts=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(WRITERS), st.sampled_from(" \n,;|")), max_size=6),
    rest=st.text("ab\\\n\"' u0n", max_size=12),
)
def test_where_it_is_not_looked_there_is_nothing(
    texts: list[str], parts: list[tuple[int, Callable[[str], str], str]], rest: str
) -> None:
    data = (rest + "".join(f" {write(texts[n % len(texts)])} {end}" for n, write, end in parts) + rest).encode()
    every = Finder(tuple(texts))
    whole = [(0, len(data))]
    looked = list(every.spans(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Finder, "_parts", lambda self, data: iter(whole))
        assert list(every.spans(data)) == looked


def test_nothing_in_a_text_makes_the_search_long() -> None:
    """Each took hours when a run of signs was tried from each of its signs."""
    found = Finder(("15036", 'Ann "A" Lee', "x" * 200_000))
    for sign in ("\\", '"', "'", '\\"', "\\\\'", "\r", "\\r", "\\u005c", "\\u0022", "é", "15036"):
        assert not found.is_in(("Ann " + sign * 300_000 + "x").encode())
    long = "x" * 200_000
    assert list(found.spans(f"{long} {long}x".encode())) == [(0, 200_000)]


@pytest.mark.parametrize(
    ("path", "person", "text", "left"),
    [
        (
            JSONL,
            "EU/15036",
            '{"id":1,"customer":"a"}\n{"id":7,"customer":"EU\\/15036"}\n{"id":"bad","customer":"EU\\/15036"}\n',
            '{"id":1,"customer":"a"}\n{"id":7,"customer":null}\n{"id":"bad","customer":null}\n',
        ),
        (
            JSONL,
            'q"t\\',
            '{"id":1,"customer":"a"}\n{"id":7,"customer":"q\\"t\\\\"}\n{"id":"bad","customer":"q\\u0022t\\u005C"}\n',
            '{"id":1,"customer":"a"}\n{"id":7,"customer":null}\n{"id":"bad","customer":null}\n',
        ),
        (
            CSV,
            'Ann "A" Lee',
            'id,customer,mail\n1,a,\n7,"Ann ""A"" Lee",\nbad,"Ann ""A"" Lee",\n',
            "id,customer,mail\n1,a,\n7,,\nbad,,\n",
        ),
    ],
)
def test_an_id_with_escapes_is_erased(
    bench: Bench, make_contract: MakeContract, path: str, person: str, text: str, left: str
) -> None:
    contract = make_contract(COUNTS, formats=["csv", "jsonl"])
    file = bench.put(path, text)
    bench.ingest(contract)
    (letter,) = letters(bench.lake, Choice(), 10)
    wrong = text.splitlines()[-1].replace("bad", "worse")
    replay(
        bench.lake, contract, Choice(ids=(letter.dead_letter_id,)), corrections={letter.dead_letter_id: wrong}, by="me"
    )
    bench.close()
    assert {"ops/dead_letters: raw", str(file)} <= find(bench.lake, [contract], "customer", person).found.keys()
    done = erase(bench.lake, [contract], "customer", person, rebuild=lambda: None)
    assert (done.rows.rows_emptied, done.rows.letters_emptied, done.findings.found) == (1, 1, {})
    assert file.read_text() == left
    bench.close()
    assert bench.sql("SELECT id, customer FROM bronze.things ORDER BY id") == [(1, "a"), (7, None)]
    kept = "SELECT raw, corrected, status FROM ops.dead_letters WHERE status <> 'superseded'"
    assert bench.sql(kept) == [(None, None, "discarded")]


def test_lines_that_are_no_text_are_taken_apart_all_the_same(bench: Bench, make_contract: MakeContract) -> None:
    people = make_contract(PEOPLE, name="people")
    counts = make_contract(COUNTS | {"note": {}}, name="counts")
    about = bench.put(
        "people/date=2026-01-01/a.csv",
        b"id,name\n15036,Ann\n15036,Ren\xe9e Ann\n015036,Ren\xe9e Ann\n7,Ren\xe9e 15036\n",
    )
    of = bench.put(
        "counts/date=2026-01-01/a.csv",
        b"id,customer,mail,note\n3,15036,ren\xe9e@private.example,v\n4,7,jos\xe9@x.example,15036\n",
    )
    bench.ingest(people)
    bench.ingest(counts)
    bench.close()
    done = erase(bench.lake, [people, counts], "customer", "15036", rebuild=lambda: None)
    assert done.findings.found == {}
    assert about.read_bytes() == b"id,name\n\n\n\n7,Ren\xe9e 15036\n"
    assert (
        of.read_bytes() == b"id,customer,mail,note\n3,*****,***\xff*****************,v\n4,7,jos\xe9@x.example,15036\n"
    )
    bench.close()
    kept = "SELECT source, line, status, raw IS NULL FROM ops.dead_letters ORDER BY source, line"
    assert bench.sql(kept) == [
        ("counts", 2, "discarded", True),
        ("counts", 3, "open", False),
        ("people", 3, "discarded", True),
        ("people", 4, "discarded", True),
        ("people", 5, "open", False),
    ]
    bench.close()
    bench.ingest(counts, again=True)
    assert bench.ledger("counts") == {"2026-01-01": (2, 0, 2, 0)}


def test_a_person_of_many_words_is_erased(bench: Bench, make_contract: MakeContract) -> None:
    people = make_contract(PEOPLE, name="people")
    life = "She said: é. " * 20_000
    file = bench.put("people/date=2026-01-01/a.csv", f'id,name\n15036,"{life}"\n2,Bob\n')
    log = bench.settings.home / "a.log"
    log.write_text(f"seen: {json.dumps(life)}\n")
    bench.ingest(people)
    bench.close()
    assert erase(bench.lake, [people], "customer", "15036", rebuild=lambda: None).findings.found == {}
    assert file.read_text() == "id,name\n\n2,Bob\n"
    assert "She" not in log.read_text()
    bench.close()
    assert bench.sql("SELECT id FROM bronze.people") == [(2,)]


def test_quotes_within_quotes_are_found_and_other_numbers_are_not(bench: Bench, make_contract: MakeContract) -> None:
    people = make_contract(PEOPLE, name="people")
    bench.put("people/date=2026-01-01/a.csv", 'id,name\n5036,"Ann ""The Cat"" Lee"\n2,Bob\n')
    bench.ingest(people)
    log = bench.settings.home / "a.log"
    log.write_text('{"line": "9,\\"Ann \\"\\"The Cat\\"\\" Lee\\",x"}\n1,"2,""Ann """"The Cat"""" Lee"",x"\n')
    other = bench.put("sent.json", '{"customer":"\\u00315036","line":"\\u00415036"}\n')
    bench.close()
    assert erase(bench.lake, [people], "customer", "5036", rebuild=lambda: None).findings.found == {}
    assert not re.search("Ann|Cat|Lee", log.read_text())
    assert other.read_text() == '{"customer":"\\u00315036","line":"\\u00415036"}\n'


@pytest.mark.parametrize(("theirs", "others"), [("Smith\\", "Smith"), ("O''Brien", "O'Brien"), ('"Smith', "Smith")])
def test_a_value_that_is_anothers_but_for_signs_is_not_blanked(
    bench: Bench, make_contract: MakeContract, theirs: str, others: str
) -> None:
    people = make_contract(PEOPLE, name="people")
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([["id", "name"], [15036, theirs], [2, others], [3, "Bob"]])
    file = bench.put("people/date=2026-01-01/a.csv", written.getvalue())
    bench.ingest(people)
    bench.close()
    assert erase(bench.lake, [people], "customer", "15036", rebuild=lambda: None).findings.found == {}
    assert file.read_text() == f"id,name\n\n2,{others}\n3,Bob\n"
    bench.close()
    bench.ingest(people, again=True)
    assert bench.sql("SELECT id, name FROM bronze.people ORDER BY id") == [(2, others), (3, "Bob")]


def test_json_in_which_somebody_is_blanked_stays_json(bench: Bench, make_contract: MakeContract) -> None:
    people = make_contract(PEOPLE, name="people")
    orders = make_contract(COUNTS | {"note": {}}, name="orders", formats=["jsonl"])
    bench.put("people/date=2026-01-01/a.csv", 'id,name\n15036,"Ann ""The Cat"" Lee"\n')
    records = [
        {"id": 1, "customer": "7", "mail": "m", "note": 'for Ann "The Cat" Lee'},
        {"id": 2, "customer": "15036", "mail": "m", "note": "cut \ud83d"},
    ]
    file = bench.put("orders/date=2026-01-01/a.jsonl", "".join(json.dumps(r) + "\n" for r in records))
    bench.ingest(people)
    bench.ingest(orders)
    bench.close()
    erase(bench.lake, [people, orders], "customer", "15036", rebuild=lambda: None)
    first, second = map(json.loads, file.read_text().splitlines())
    assert first == records[0] | {"note": "for " + "*" * len('Ann \\"The Cat\\" Lee')}
    assert second == records[1] | {"customer": None, "mail": None}


def test_a_value_with_quotes_is_erased_where_nobody_is_named(bench: Bench, make_contract: MakeContract) -> None:
    people, notes = make_contract(PEOPLE, name="people"), make_contract(NOTES, name="notes")
    bench.put("people/date=2026-01-01/a.csv", 'id,name\n15036,"Ann ""The Cat"" Lee"\n2,Bob\n')
    file = bench.put(
        "notes/date=2026-01-01/a.csv", 'n,t\n1,"for Ann ""The Cat"" Lee"\nx,"Ann ""The Cat"" Lee"\n2,other\n'
    )
    bench.ingest(people)
    bench.ingest(notes)
    bench.close()
    done = erase(bench.lake, [people, notes], "customer", "15036", rebuild=lambda: None)
    assert "Cat" not in file.read_text()
    assert file.read_text().count("\n") == 4
    bench.close()
    assert bench.sql("SELECT status, raw FROM ops.dead_letters WHERE source = 'notes'") == [("discarded", None)]
    # A row of bronze that names nobody keeps its text: told, and for somebody to judge.
    assert not any("dead_letters" in place or place.startswith(str(file)) for place in done.findings.found)
    assert "bronze.notes: t" in done.findings.found


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_value_over_lines_is_blanked_and_its_line_ends_stay(
    bench: Bench, make_contract: MakeContract, end: str
) -> None:
    people = make_contract(PEOPLE, name="people", csv={"multiline": True})
    notes = make_contract(NOTES, name="notes", csv={"multiline": True})
    bench.put("people/date=2026-01-01/a.csv", 'id,name\n15036,"Elm Road 5\nAustin"\n2,Bob\n')
    text = 'n,t\n0,aaa\n1,"Elm Road 5\nAustin"\n2,zzz\n'.replace("\n", end)
    file = bench.put("notes/date=2026-01-01/a.csv", text)
    bench.ingest(people)
    bench.ingest(notes)
    bench.close()
    erase(bench.lake, [people, notes], "customer", "15036", rebuild=lambda: None)
    assert file.read_bytes().decode() == text.replace("Elm Road 5", "*" * 10).replace("Austin", "*" * 6)


def test_a_header_may_run_over_lines(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract(COUNTS | {"note": {"physicalName": "my\nnote"}}, csv={"multiline": True})
    file = bench.put(
        CSV, 'id,customer,mail,"my\nnote"\n1,15036,ann@x.example,q\n2,7,bob@x.example,"r\ns"\n3,15036,,t\n'
    )
    bench.ingest(contract)
    rows = "SELECT id, customer, mail, note, _line FROM bronze.things ORDER BY id"
    bench.close()
    assert erase(bench.lake, [contract], "customer", "15036", rebuild=lambda: None).findings.found == {}
    assert file.read_text() == 'id,customer,mail,"my\nnote"\n1,,,q\n2,7,bob@x.example,"r\ns"\n3,,,t\n'
    bench.close()
    before = bench.sql(rows)
    bench.close()
    bench.ingest(contract, again=True)
    assert bench.sql(rows) == before
    assert bench.ledger("things") == {"2026-01-01": (3, 3, 0, 0)}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_keep_their_numbers_and_letters_their_decisions(
    bench: Bench, make_contract: MakeContract, end: str
) -> None:
    contract = make_contract(COUNTS, csv={"multiline": True})
    text = (
        'id,customer,mail\n1,15036,"a\nb"\n2,7,ok\n9,"15036",x,"y\nz"\nx,8,k\n'
        '6,15036,"left open\n7,15036,d\n8,9,e\n'  # to the end of the file
    ).replace("\n", end)
    file = bench.put(CSV, text)
    bench.ingest(contract)
    bench.close()
    assert erase(bench.lake, [contract], "customer", "15036", rebuild=lambda: None).findings.found == {}
    found = file.read_bytes().decode()
    assert found.count(end) == text.count(end)
    assert found.startswith(f"id,customer,mail{end}1,,{end}{end}2,7,ok{end}")
    bench.close()
    rows = "SELECT _line, id, customer, mail FROM bronze.things ORDER BY id"
    open_and_not = "SELECT line, status, checksum FROM ops.dead_letters WHERE status <> 'superseded' ORDER BY line"
    before = bench.sql(rows), bench.sql(open_and_not)
    assert [row[:2] for row in before[0]] == [(2, 1), (4, 2)]
    assert [row[:2] for row in before[1]] == [(5, "discarded"), (7, "open"), (8, "discarded")]
    bench.close()
    bench.ingest(contract, again=True)
    assert (bench.sql(rows), bench.sql(open_and_not)) == before


def test_a_document_of_any_depth_is_taken_apart(bench: Bench, make_contract: MakeContract) -> None:
    customer = {"physicalType": "INTEGER", **NAMES_A_CUSTOMER}
    contract = make_contract(COUNTS | {"customer": customer, "doc": {}}, formats=["jsonl"])
    deep = "[" * 5000 + "]" * 5000
    other = '{"id":2,"customer":7,"mail":"home@x.example"}\n'
    text = f'{{"id":1,"customer":15036,"mail":"home@x.example","doc":{deep}}}\n{other}'
    file = bench.put(JSONL, text)
    bench.ingest(contract)
    bench.close()
    assert erase(bench.lake, [contract], "customer", "15036", rebuild=lambda: None).findings.found == {}
    assert file.read_text() == text.replace('15036,"mail":"home@x.example"', 'null,"mail":null')
    bench.close()
    bench.ingest(contract, again=True)
    assert bench.ledger("things") == {"2026-01-01": (2, 2, 0, 0)}


@pytest.mark.parametrize("person", ["ann lee", "O'Brien", "a.b+c", "x|y,z", "Müller", 'q"t', "50%", "a\\b", "(", "*.*"])
def test_what_comes_later_and_is_no_record_keeps_nobody_erased(
    bench: Bench, make_contract: MakeContract, person: str
) -> None:
    contract = make_contract(COUNTS, formats=["csv", "jsonl"])
    bench.put(JSONL, json.dumps({"id": 1, "customer": person}) + "\n" + json.dumps({"id": 2, "customer": person + "X"}))
    bench.ingest(contract)
    bench.close()
    erase(bench.lake, [contract], "customer", person, rebuild=lambda: None)
    unclosed = [json.dumps({"id": n, "customer": person}, ensure_ascii=n == 1)[:-1] for n in (1, 2)]
    bench.put(JSONL.replace("01/", "02/"), "\n".join([*unclosed, '{"id": 2, "customer": "somebody"', ""]))
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([[5, person, "m", "too many"], [6, "somebody", "m", "too many"]])
    bench.put(CSV.replace("01/", "02/"), "id,customer,mail\n" + written.getvalue())
    bench.close()
    bench.ingest(contract)
    rows = "SELECT file, line, status, raw IS NULL FROM ops.dead_letters ORDER BY file, line"
    assert [(line, status, gone) for _, line, status, gone in bench.sql(rows)] == [
        (2, "discarded", True),
        (3, "open", False),
        (1, "discarded", True),
        (2, "discarded", True),
        (3, "open", False),
    ]


def test_a_record_without_end_stays_one(
    bench: Bench, make_contract: MakeContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MOST_JOINED", 3)
    contract = make_contract(COUNTS, csv={"multiline": True})
    file = bench.put(CSV, 'id,customer,mail\n1,15036,\n2,15036,"a\nb\nc\nd"\n3,7,\n')
    bench.ingest(contract)
    bench.close()
    assert erase(bench.lake, [contract], "customer", "15036", rebuild=lambda: None).findings.found == {}
    assert file.read_text() == 'id,customer,mail\n1,,\n2,*****,"*\n*\n*\n*"\n3,7,\n'
    bench.close()
    bench.ingest(contract, again=True)
    assert bench.ledger("things") == {"2026-01-01": (3, 2, 1, 0)}


def test_a_line_of_another_encoding_is_blanked_and_stays_none(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract(COUNTS)
    text = "id,customer,mail\n7,Müller,\n".encode() + "8,Müller,renée@x\n9,Möller,\n".encode("latin-1")
    file = bench.put(CSV, text)
    bench.ingest(contract)
    bench.close()
    done = erase(bench.lake, [contract], "customer", "Müller", rebuild=lambda: None)
    assert (done.rows.letters_emptied, done.findings.found) == (1, {})
    # A byte that is no text says so, and nothing of the letter it was.
    assert file.read_bytes() == b"id,customer,mail\n7,,\n8,*\xff****,***\xff***\n9,M\xf6ller,\n"
    bench.close()
    bench.ingest(contract, again=True)
    assert bench.ledger("things") == {"2026-01-01": (3, 1, 2, 0)}
    rows = "SELECT line, status FROM ops.dead_letters WHERE status <> 'superseded' ORDER BY line"
    assert bench.sql(rows) == [(3, "discarded"), (4, "open")]
