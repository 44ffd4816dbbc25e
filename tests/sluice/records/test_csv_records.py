"""CSV taken apart into text, one row per record, the same whatever else lies beside it."""

from __future__ import annotations

import base64
import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.contracts import Contract
from sluice.records import lines
from tests.conftest import MakeContract
from tests.sluice.records.reading import Read, faults, values

FIELD = st.text(st.sampled_from(list("ab ,;\t\"'éß🎉\\|^0")), max_size=6)


def written(row: list[str], quoted: list[bool], delimiter: str, quote: str) -> str:
    """A record as RFC 4180 has it, quoting what needs it and what is told."""
    fields = [
        quote + f.replace(quote, quote * 2) + quote if q or delimiter in f or quote in f else f
        for f, q in zip(row, quoted, strict=True)
    ]
    return delimiter.join(fields)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.lists(FIELD, min_size=3, max_size=3), st.lists(st.booleans(), min_size=3, max_size=3)),
        min_size=1,
        max_size=12,
    ),
    dialect=st.sampled_from([(",", '"'), (";", '"'), ("\t", '"'), ("|", "'"), ("^", '"')]),
)
def test_csv_is_split_as_pythons_reader_splits_it(
    rows: list[tuple[list[str], list[bool]]], dialect: tuple[str, str], make_contract: MakeContract, read_files: Read
) -> None:
    delimiter, quote = dialect
    contract = make_contract({"a": {}, "b": {}, "c": {}}, csv={"delimiter": delimiter, "quote": quote})
    lines = [written(row, quoted, delimiter, quote) for row, quoted in rows]
    text = delimiter.join("abc") + "\n" + "".join(f"{line}\n" for line in lines)
    expected = list(csv.reader(io.StringIO(text), delimiter=delimiter, quotechar=quote))[1:]
    found = read_files(contract, {"f.csv": text.encode()})
    assert faults(found) == []
    assert [[v or "" for v in row[1:]] for row in values(found)] == expected
    # Beyond what Python tells: an empty field is null, a quoted empty field an empty text.
    for row, (texts, quoted) in zip(values(found), rows, strict=True):
        assert [v is None for v in row[1:]] == [t == "" and not q for t, q in zip(texts, quoted, strict=True)]


def test_an_empty_field_is_null_and_a_quoted_one_an_empty_text(abc: Contract, read_files: Read) -> None:
    found = read_files(abc, {"f.csv": b'a,b,c\n1,,\n"1","",""\n,,\n"",,\n'})
    assert values(found) == [(2, "1", None, None), (3, "1", "", ""), (4, None, None, None), (5, "", None, None)]


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("1,2", "2 fields where the header has 3"),
        ("1,2,3,4", "4 fields where the header has 3"),
        ("1", "1 fields where the header has 3"),
        ('1,"2,3', "a quote is not closed, or text follows a closed one"),
        ('1,"2"x,3', "a quote is not closed, or text follows a closed one"),
        ('1,"2""",3,"', "a quote is not closed, or text follows a closed one"),
        ('1,"2",3,4', "4 fields where the header has 3"),
    ],
)
def test_a_malformed_record_is_a_fault_and_the_others_are_read(
    line: str, detail: str, abc: Contract, read_files: Read
) -> None:
    found = read_files(abc, {"f.csv": f"a,b,c\n1,2,3\n{line}\n4,5,6\n".encode()})
    assert faults(found) == [(3, "malformed", detail)]
    assert [r["raw"] for r in found.rows if r["fault"]] == [line]
    assert values(found) == [(2, "1", "2", "3"), (4, "4", "5", "6")]


def test_quotes_inside_an_unquoted_field_are_text(abc: Contract, read_files: Read) -> None:
    found = read_files(abc, {"f.csv": b'a,b,c\n1,10" plate,say "hi"\n'})
    assert values(found) == [(2, "1", '10" plate', 'say "hi"')]


def test_one_row_is_taken_apart_as_in_a_long_file(abc: Contract, read_files: Read) -> None:
    odd = b'"x, ""y""",,007\n'
    alone = values(read_files(abc, {"one.csv": b"a,b,c\n" + odd}))
    long = values(read_files(abc, {"long.csv": b"a,b,c\n" + odd + b"1,2,3\n" * 100_000}))
    assert alone == long[:1] == [(2, 'x, "y"', None, "007")]
    assert len(long) == 100_001


def test_a_header_may_put_columns_in_any_order(abc: Contract, read_files: Read) -> None:
    files = {f"{h}.csv": f"{','.join(h)}\n{','.join(h.upper())}\n".encode() for h in ("abc", "cab", "bca")}
    assert values(read_files(abc, files)) == [(2, "A", "B", "C")] * 3


def test_columns_the_contract_does_not_know_are_kept(abc: Contract, read_files: Read) -> None:
    found = read_files(abc, {"f.csv": 'new,a,b,c,"x,y"\nn,1,2,3,é\n,1,2,3,\n,"1",2,3,""\n'.encode()})
    assert values(found) == [(n, "1", "2", "3") for n in (2, 3, 4)]
    assert [json.loads(r["extra"]) for r in found.rows] == [
        {"new": "n", "x,y": "é"},
        {"new": None, "x,y": None},
        {"new": None, "x,y": ""},
    ]


def test_a_missing_optional_column_is_null_of_a_file_without_a_required_one_nothing_is_taken(
    abc: Contract, read_files: Read
) -> None:
    found = read_files(abc, {"good.csv": b"b,a\n2,1\n", "bad.csv": b"aa,b,c\n1,2,3\n\n4,5,6\n"})
    assert values(found) == [(2, "1", "2", None)]
    (fault,) = found.faults
    assert (fault.file_id, fault.rule, fault.column, fault.rows) == (1, "missing_column", "a", 2)
    assert (
        "no column 'a', which the contract requires; it has 'aa': if it was renamed, set physicalName" in fault.detail
    )


@pytest.mark.parametrize(
    ("data", "rule", "words", "rows"),
    [
        (b"a,b,b\n1,2,3\n", "malformed", "The header names ['b'] twice", 1),
        (b"\na,b,c\n1,2,3\n", "missing_header", "The first line is blank", 2),
        (b"\xff,b,c\n1,2,3\n\xff\n", "encoding", "The first line cannot be read: not utf-8: invalid start byte at", 3),
        (b"a,b,c\x1f\n1,2,3\n", "encoding", "cannot be read: holds the control character U+001F. Deliver", 2),
        (b"\xff" * 1_900_001 + b"\n1,2,3\n", "too_long", "cannot be read: 1,900,001 bytes; at most 1,900,000 are", 2),
        (b"x" * 200_000 + b"\n1,2,3\n", "malformed", "The first line is no header", 1),
        (b"1,2,3\n4,5,6\n", "missing_column", "The file has no column 'a'", 1),
        (b"", "empty_file", "The file has no bytes", 0),
    ],
)
def test_a_file_without_a_usable_header_is_set_aside_alone(
    data: bytes, rule: str, words: str, rows: int, abc: Contract, read_files: Read
) -> None:
    found = read_files(abc, {"bad.csv": data, "good.csv": b"a,b,c\n1,2,3\n"})
    assert [(f.file_id, f.rule, f.rows) for f in found.faults] == [(0, rule, rows)]
    assert words in found.faults[0].detail
    assert [(r["file_id"], r["fault"]) for r in found.rows] == [(1, None)]


def test_a_header_with_a_broken_quote_is_none(make_contract: MakeContract, read_files: Read) -> None:
    contract = make_contract({"a": {}, "b": {}}, csv={"multiline": True})
    # As in a row, a quote inside a name opens nothing, one before it has to be closed.
    found = read_files(contract, {"open.csv": b'a,b,c",",d\n1,2,3,4\n', "behind.csv": b'a,"b"b\n1,2\n'})
    assert [(f.file_id, f.rule, f.rows) for f in found.faults] == [(0, "malformed", 1), (1, "malformed", 1)]
    assert found.rows == []


def test_a_header_alone_is_a_file_without_rows(abc: Contract, read_files: Read) -> None:
    found = read_files(abc, {"f.csv": b"a,b,c\n"})
    assert (found.rows, found.faults) == ([], [])


def test_without_a_header_columns_stand_in_the_contracts_order(make_contract: MakeContract, read_files: Read) -> None:
    contract = make_contract({"a": {"required": True}, "b": {}, "c": {}}, csv={"header": False})
    found = read_files(contract, {"f.csv": b"1,2,3\n4,5\n"})
    assert values(found) == [(1, "1", "2", "3")]
    assert faults(found) == [(2, "malformed", "2 fields where the header has 3")]


def test_blank_lines_are_no_records(abc: Contract, read_files: Read) -> None:
    found = read_files(abc, {"f.csv": b"a,b,c\n\n1,2,3\n\n\n4,5,6\n\n", "f.jsonl": b'\n{"a":"1"}\n\n'})
    assert values(found) == [(3, "1", "2", "3"), (6, "4", "5", "6"), (2, "1", None, None)]


def test_a_value_may_run_over_lines_where_the_contract_says_so(make_contract: MakeContract, read_files: Read) -> None:
    data = b'a,b,c\n1,"x\n\ny ""z""",3\n4,5,6\n7,"open,8\n9,9,9\n'
    contract = make_contract({"a": {}, "b": {}, "c": {}}, csv={"multiline": True})
    found = read_files(contract, {"f.csv": data})
    assert values(found) == [(2, "1", 'x\n\ny "z"', "3"), (5, "4", "5", "6")]
    # A quote never closed takes the rest of its file, and that of no other.
    assert [(line, rule) for line, rule, _ in faults(found)] == [(6, "malformed")]
    two = read_files(contract, {"1.csv": b'a,b,c\n1,"open,8\n', "2.csv": b"a,b,c\n1,2,3\n"})
    assert [(r["file_id"], r["fault"]) for r in two.rows] == [(0, "malformed"), (1, None)]
    # Where it does not, each line is a record of its own.
    single = make_contract({"a": {}, "b": {}, "c": {}})
    assert [line for line, _, _ in faults(read_files(single, {"f.csv": data}))] == [2, 4, 6]


def test_a_record_without_end_is_a_fault_of_which_the_beginning_is_kept(
    make_contract: MakeContract, read_files: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = make_contract({"a": {}, "b": {}}, formats=["csv", "jsonl"], csv={"multiline": True})
    files = {
        "1.csv": b'a,b\n1,"\nxyz\n\ny\n"\n2,"u\nv"\n3,4\n',
        "2.csv": b'a,b\n5,"\n\n\n\n\n\n',
        "3.csv": b"a,b\n6,7\n",
        "4.jsonl": b'{"a": "8"}\n"\n{"a": "9"}\n',
    }

    def read(limit: str, most: int) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        with monkeypatch.context() as patch:
            patch.setattr(lines, limit, most)
            found = read_files(contract, files)
        return values(found, "a", "b"), [
            (r["file_id"], r["line"], r["fault"], base64.b64decode(r["raw"]).decode() if r["digest"] else r["raw"])
            for r in found.rows
            if r["fault"]
        ]

    good = [(9, "3", "4"), (2, "6", "7"), (1, "8", None), (3, "9", None)]
    no_json = (3, 2, "malformed", '"')
    assert read("MOST_JOINED", 3) == (
        [(7, "2", "u\nv"), *good],
        [(0, 2, "too_long", '1,"\nxyz\n'), (1, 2, "too_long", '5,"\n\n'), no_json],
    )
    assert read("KEPT_BYTES", 7) == (
        [(7, "2", "u\nv"), *good],
        [(0, 2, "too_long", '1,"\nxyz'), (1, 2, "too_long", '5,"\n\n\n\n'), no_json],
    )
    assert read("MOST_JOINED", 7) == (
        [(2, "1", "\nxyz\n\ny\n"), (7, "2", "u\nv"), *good],
        [(1, 2, "malformed", '5,"\n\n\n\n\n'), no_json],
    )


@pytest.mark.parametrize("at_once", [1, 100_000, lines._JOINED_AT_ONCE])
def test_records_over_lines_are_whole_wherever_a_part_ends(
    at_once: int, make_contract: MakeContract, read_files: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A part ends after a thousand lines at the earliest; of 20 bytes each 100,000 are some five thousand with these.
    monkeypatch.setattr(lines, "_JOINED_AT_ONCE", at_once)
    monkeypatch.setattr(lines, "_JOINED_OVERHEAD", 0)
    monkeypatch.setattr(lines, "MOST_JOINED", 1500)
    monkeypatch.setattr(lines, "KEPT_BYTES", 40_000)
    contract = make_contract({"a": {}, "b": {}}, formats=["csv", "jsonl"], csv={"multiline": True})
    # Lines within a value, among them such as have no end by their lines and by their bytes.
    spans = [0, 1, 0, 0, 2, 700, 0, 1, 1499, 3, 1500, 0, 0, 2500, 1, 4, 900] * 3
    texts = ["x" * (50 if number == 900 else number % 7) for number in spans]
    files, good, endless = {}, [], []
    for name in ("1.csv", "2.csv"):
        data, line = "a,b\n", 2
        for number, (over, text) in enumerate(zip(spans, texts, strict=True)):
            value = text + f"\n{text}" * over
            data += (f'{number},"{value}"\n' if over else f"{number},v{text}\n") + "\n" * (number % 3)
            if over < 1500 and over != 900:
                good.append((name, line, str(number), value if over else f"v{text}"))
            else:
                endless.append((name, line, f'{number},"{value}"'.split("\n")[: 1500 if over != 900 else 784]))
            line += over + 1 + number % 3
        # The last quote of a file is not closed in the next.
        good.append((name, line, "open", None))
        files[name] = (data + 'open,\n9,"\nx\n').encode()
    files["3.jsonl"] = b'{"a": "1"}\n'
    found = read_files(contract, files)
    names = list(files)
    assert sorted((names[r["file_id"]], r["line"], r["t_a"], r["t_b"]) for r in found.rows if not r["fault"]) == sorted(
        [*good, ("3.jsonl", 1, "1", None)], key=lambda row: row[:3]
    )
    told = [r for r in found.rows if r["fault"] == "too_long"]
    assert [(names[r["file_id"]], r["line"], base64.b64decode(r["raw"]).decode().split("\n")) for r in told] == endless
    assert [(r["file_id"], r["raw"]) for r in found.rows if r["fault"] == "malformed"] == [
        (n, '9,"\nx') for n in (0, 1)
    ]


def test_a_record_without_end_is_known_again_in_a_later_version(
    make_contract: MakeContract, read_files: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MOST_JOINED", 3)
    contract = make_contract({"a": {}, "b": {}}, csv={"multiline": True})
    found = read_files(contract, {"1.csv": b'a,b\n3,4\n1,"x\n\nz\nu"\n2,3\n5,"q\n\n\n\n\n'})
    # A letter that was discarded stays so by its digest.
    assert [(r["line"], r["digest"]) for r in found.rows if r["digest"]] == [
        (3, "4431534374861256520"),
        (8, "14993954462522920202"),
    ]


def test_where_records_run_over_lines_a_bad_line_sets_its_file_aside(
    make_contract: MakeContract, read_files: Read
) -> None:
    contract = make_contract({"a": {}, "b": {}, "c": {}}, csv={"multiline": True})
    found = read_files(contract, {"f.csv": b'a,b,c\n1,"x\n\xff\ny",3\n4,5,6\n'})
    assert values(found) == []
    assert [(f.rule, f.rows) for f in found.faults] == [("encoding", 4)]
    assert "Line 3 cannot be read (not utf-8: invalid start byte at byte 1), and" in found.faults[0].detail


def test_lines_that_are_no_text_are_faults_with_their_bytes(abc: Contract, read_files: Read) -> None:
    found = read_files(abc, {"f.csv": b"a,b,c\n1,2,3\ncaf\xe9,2,3\n4,5,6\n", "f.jsonl": b'{"a":"1"}\n\xff\n'})
    assert [(r["line"], r["raw"], r["raw_encoding"], r["fault"]) for r in found.rows if r["fault"]] == [
        (3, "Y2Fm6SwyLDM=", "base64", "encoding"),
        (2, "/w==", "base64", "encoding"),
    ]
    assert values(found) == [(2, "1", "2", "3"), (4, "4", "5", "6"), (1, "1", None, None)]


@pytest.mark.parametrize(
    "name", ["a[1].csv", "what*?.csv", 'it\'s "x".csv', "Übung 茶 🎉.csv", "a\nb.csv", "{a,b}.csv"]
)
def test_unusual_names_are_read_and_only_they(name: str, abc: Contract, read_files: Read) -> None:
    found = read_files(abc, {name: b"a,b,c\n1,2,3\n", "whatever.csv": b"a,b,c\n4,5,6\n", "a1.csv": b"a,b,c\n7,8,9\n"})
    assert [(r["file_id"], r["t_a"]) for r in found.rows] == [(0, "1"), (1, "4"), (2, "7")]
    packed = read_files(abc, {name.replace(".csv", ".jsonl"): b'{"a":"1"}\n'})
    assert values(packed, "a") == [(1, "1")]
