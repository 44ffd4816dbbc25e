"""Records: files taken apart into text, one row per record, the same whatever else lies beside them."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.contracts import Contract
from sluice.records import json_path, lines
from sluice.settings import PROJECT
from tests.conftest import Bench, Extracted

Read = Callable[..., Extracted]
Make = Callable[..., Contract]

DEBEZIUM = PROJECT.parent / "shared" / "data" / "debezium_samples"
LSN_FEED = {"envelope": "debezium", "sequence": "source.lsn", "validFrom": "source.ts_ms"}


@pytest.fixture(scope="module")
def abc(make_contract: Make) -> Contract:
    """Three text columns, the first required."""
    return make_contract({"a": {"required": True}, "b": {}, "c": {}}, formats=["csv", "jsonl", "parquet"])


@pytest.fixture(scope="module")
def feed(make_contract: Make) -> Contract:
    return make_contract({"id": {"primaryKey": True}, "name": {}}, formats=["jsonl"], feed=LSN_FEED)


def values(found: Extracted, *columns: str) -> list[tuple[Any, ...]]:
    """Line and the texts of columns, of the rows without a fault."""
    names = columns or ("a", "b", "c")
    return [(r["line"], *(r[f"t_{n}"] for n in names)) for r in found.rows if r["fault"] is None]


def faults(found: Extracted) -> list[tuple[int, str, str]]:
    return [(r["line"], r["fault"], r["fault_detail"]) for r in found.rows if r["fault"] is not None]


# CSV


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
    rows: list[tuple[list[str], list[bool]]], dialect: tuple[str, str], make_contract: Make, read_files: Read
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
        (b"\xff,b,c\n1,2,3\n\xff\n", "missing_header", "The first line is blank", 3),
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


def test_a_header_with_a_broken_quote_is_none(make_contract: Make, read_files: Read) -> None:
    contract = make_contract({"a": {}, "b": {}}, csv={"multiline": True})
    # As in a row, a quote inside a name opens nothing, one before it has to be closed.
    found = read_files(contract, {"open.csv": b'a,b,c",",d\n1,2,3,4\n', "behind.csv": b'a,"b"b\n1,2\n'})
    assert [(f.file_id, f.rule, f.rows) for f in found.faults] == [(0, "malformed", 1), (1, "malformed", 1)]
    assert found.rows == []


def test_a_header_alone_is_a_file_without_rows(abc: Contract, read_files: Read) -> None:
    found = read_files(abc, {"f.csv": b"a,b,c\n"})
    assert (found.rows, found.faults) == ([], [])


def test_without_a_header_columns_stand_in_the_contracts_order(make_contract: Make, read_files: Read) -> None:
    contract = make_contract({"a": {"required": True}, "b": {}, "c": {}}, csv={"header": False})
    found = read_files(contract, {"f.csv": b"1,2,3\n4,5\n"})
    assert values(found) == [(1, "1", "2", "3")]
    assert faults(found) == [(2, "malformed", "2 fields where the header has 3")]


def test_blank_lines_are_no_records(abc: Contract, read_files: Read) -> None:
    found = read_files(abc, {"f.csv": b"a,b,c\n\n1,2,3\n\n\n4,5,6\n\n", "f.jsonl": b'\n{"a":"1"}\n\n'})
    assert values(found) == [(3, "1", "2", "3"), (6, "4", "5", "6"), (2, "1", None, None)]


def test_a_value_may_run_over_lines_where_the_contract_says_so(make_contract: Make, read_files: Read) -> None:
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
    make_contract: Make, read_files: Read, monkeypatch: pytest.MonkeyPatch
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


def test_where_records_run_over_lines_a_bad_line_sets_its_file_aside(make_contract: Make, read_files: Read) -> None:
    contract = make_contract({"a": {}, "b": {}, "c": {}}, csv={"multiline": True})
    found = read_files(contract, {"f.csv": b'a,b,c\n1,"x\n\xff\ny",3\n4,5,6\n'})
    assert values(found) == []
    assert [(f.rule, f.rows) for f in found.faults] == [("encoding", 4)]


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


# JSON lines


def test_json_values_become_text(abc: Contract, read_files: Read) -> None:
    lines = {
        '{"a":"é茶🎉\\u00e9\\n\\"\\\\"}': 'é茶🎉é\n"\\',
        '{"a":"\\ud83c\\udf89"}': "🎉",
        '{"a":12}': "12",
        '{"a":-0.5}': "-0.5",
        '{"a":19.99}': "19.99",
        '{"a":123456789012345678901234567890}': "123456789012345678901234567890",
        '{"a":true}': "true",
        '{"a":{"x":[1,null,"y"]}}': '{"x":[1,null,"y"]}',
        '{"a":[]}': "[]",
        '{"a":""}': "",
        '{"a":" x "}': " x ",
        '{"a":null}': None,
        "{}": None,
        ' {"a" : "spaced"} ': "spaced",
    }
    found = read_files(abc, {"f.jsonl": "".join(f"{line}\n" for line in lines).encode()})
    assert faults(found) == []
    assert [text for _, text in values(found, "a")] == list(lines.values())
    assert [r["raw"] for r in found.rows] == list(lines)


@pytest.mark.xfail(
    reason="DuckDB reads a JSON number with a point as a double (docs/contracts.md says so)", strict=True
)
def test_json_numbers_keep_every_digit(abc: Contract, read_files: Read) -> None:
    found = read_files(abc, {"f.jsonl": b'{"a":12345678901234.5678}\n'})
    assert values(found, "a") == [(1, "12345678901234.5678")]


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "[1]",
        "5",
        '"x"',
        "true",
        "{",
        '{"a":',
        "{a:1}",
        "{'a':1}",
        '{"a":1} x',
        '{"a":1}{"a":2}',
        "// no",
        "WARN restarted",
        '{"a":"\\ud83d"}',
        '{"a":"\\x"}',
        ",",
        " ",
    ],
)
def test_a_line_that_is_no_json_object_is_a_fault(line: str, abc: Contract, read_files: Read) -> None:
    found = read_files(abc, {"f.jsonl": f'{{"a":"1"}}\n{line}\n{{"a":"2"}}\n'.encode()})
    assert faults(found) == [(2, "malformed", "not a JSON object")]
    assert found.rows[1]["raw"] == line
    assert values(found, "a") == [(1, "1"), (3, "2")]


def test_keys_the_contract_does_not_know_are_kept(abc: Contract, read_files: Read) -> None:
    line = '{"new":[1,{"x":null}],"a":"1","a/b~c":"s","":2,"d.e":true,"0":0,"it\'s \\"q\\"":1}'
    found = read_files(abc, {"f.jsonl": f'{line}\n{{"a":"2","b":null}}\n'.encode()})
    expected = {k: v for k, v in json.loads(line).items() if k != "a"}
    assert json.loads(found.rows[0]["extra"]) == expected
    assert found.rows[1]["extra"] is None


def test_names_with_any_sign_are_found(make_contract: Make, read_files: Read) -> None:
    names = ["Customer ID", "a.b", "Größe", 'qu"ote', "back\\slash", "a[0]", "it's", "x,y"]
    contract = make_contract(
        {f"c{i}": {"physicalName": name} for i, name in enumerate(names)}, formats=["csv", "jsonl"]
    )
    line = json.dumps(dict(zip(names, "ABCDEFGH", strict=True)), ensure_ascii=False)
    header = ",".join('"' + n.replace('"', '""') + '"' for n in names)
    found = read_files(
        contract, {"f.jsonl": f"{line}\n".encode(), "f.csv": f"{header}\n{','.join('ABCDEFGH')}\n".encode()}
    )
    columns = [f"c{i}" for i in range(len(names))]
    assert values(found, *columns) == [(1, *"ABCDEFGH"), (2, *"ABCDEFGH")]
    assert [r["extra"] for r in found.rows] == [None, None]


def test_a_json_path_names_a_nested_value(make_contract: Make, read_files: Read) -> None:
    contract = make_contract({"a": {"physicalName": "$.who.name"}}, formats=["jsonl"])
    found = read_files(contract, {"f.jsonl": b'{"who":{"name":"x"}}\n{"who":5}\n'})
    assert values(found, "a") == [(1, "x"), (2, None)]
    assert json_path("source.lsn", nested=True) == '$."source"."lsn"'
    assert json_path("source.lsn") == '$."source.lsn"'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def holds_nul(value: Any) -> bool:
    """Whether a name or text in a document has a character U+0000."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return any(map(holds_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


@settings(max_examples=60, deadline=None)
@given(documents=st.lists(st.dictionaries(st.sampled_from(["a", "b", "x", "é", "/~"]), JSON, max_size=4), min_size=1))
def test_json_is_read_as_python_reads_it(documents: list[dict[str, Any]], abc: Contract, read_files: Read) -> None:
    data = "".join(json.dumps(d) + "\n" for d in documents).encode()
    found = read_files(abc, {"f.jsonl": data})
    assert len(found.rows) == len(documents)
    for row, document in zip(found.rows, documents, strict=True):
        if holds_nul(document):
            assert (row["fault"], row["extra"]) == ("encoding", None)
            continue
        assert row["fault"] is None
        for name in ("a", "b", "c"):
            value = document.get(name)
            text = row[f"t_{name}"]
            if value is None or isinstance(value, str):
                assert text == value
            else:
                assert json.loads(text) == value
        extra = {k: v for k, v in document.items() if k not in ("a", "b", "c")}
        assert (json.loads(row["extra"]) if row["extra"] else {}) == extra


# Change events


def event(op: str | None, before: Any, after: Any, lsn: Any = 5, ts: Any = 1000) -> dict[str, Any]:
    return {"before": before, "after": after, "source": {"lsn": lsn, "ts_ms": ts}, "op": op}


FEED_COLUMNS = ("_op", "_lsn", "_source_ts", "id", "name")


def read_events(read_files: Read, feed: Contract, *events: Any) -> Extracted:
    return read_files(feed, {"f.jsonl": "".join(json.dumps(e) + "\n" for e in events).encode()})


def test_an_event_is_read_with_and_without_its_schema(feed: Contract, read_files: Read) -> None:
    plain = [
        event("c", None, {"id": "1", "name": "x"}),
        event("u", {"id": "1", "name": "x"}, {"id": "1", "name": "y", "more": 3}),
        event("r", None, {"id": "2", "name": None}),
        event("d", {"id": "1", "name": "y"}, None),
    ]
    expected = [
        (1, "c", "5", "1000", "1", "x"),
        (2, "u", "5", "1000", "1", "y"),
        (3, "r", "5", "1000", "2", None),
        (4, "d", "5", "1000", "1", "y"),
    ]
    wrapped = [{"schema": {"type": "struct"}, "payload": e} for e in plain]
    for events in (plain, wrapped):
        found = read_events(read_files, feed, *events)
        assert values(found, *FEED_COLUMNS) == expected
        assert [r["extra"] for r in found.rows] == [None, '{"more":3}', None, None]


def test_a_row_of_its_own_called_payload_is_no_wrapper(feed: Contract, read_files: Read) -> None:
    found = read_events(read_files, feed, {**event("c", None, {"id": "1", "name": "x"}), "payload": 1})
    assert values(found, "_op", "id") == [(1, "c", "1")]


@pytest.mark.parametrize(
    ("made", "rule", "detail"),
    [
        (event("d", {"id": "1"}, {"id": "1"}), "envelope", "a delete with a state after it"),
        (event("d", None, None), "envelope", "a delete without the row before it (is REPLICA IDENTITY set?)"),
        (event("u", {"id": "1"}, None), "envelope", "no row state where the operation needs one"),
        (event("c", None, "text"), "envelope", "no row state where the operation needs one"),
        (event("r", None, [1]), "envelope", "no row state where the operation needs one"),
        ([], "malformed", "not a JSON object"),
    ],
)
def test_an_event_without_its_row_is_a_fault(
    made: Any, rule: str, detail: str, feed: Contract, read_files: Read
) -> None:
    found = read_events(read_files, feed, event("c", None, {"id": "1"}), made)
    assert faults(found) == [(2, rule, detail)]


def test_an_envelope_without_meta_leaves_it_to_the_rules(feed: Contract, read_files: Read) -> None:
    found = read_events(read_files, feed, {"after": {"id": "1"}}, {"op": {"x": 1}})
    assert values(found, *FEED_COLUMNS) == [
        (1, None, None, None, "1", None),
        (2, '{"x":1}', None, None, None, None),
    ]


@pytest.mark.skipif(not DEBEZIUM.is_dir(), reason=f"the captured Debezium events are not at {DEBEZIUM}")
def test_events_captured_elsewhere_are_accepted_or_told(bench: Bench, make_contract: Make) -> None:
    contract = make_contract(
        {"id": {"physicalType": "INTEGER", "primaryKey": True}, "name": {}},
        formats=["jsonl"],
        feed={"envelope": "debezium", "sequence": "source.lsn", "validFrom": "source.ts_ms"},
    )
    lines = 0
    for number, path in enumerate(sorted(DEBEZIUM.rglob("*.jsonl"))):
        # A day each: they are of several tables, and a file without the key would take the others' batch with it.
        bench.put(f"things/date={date(2026, 1, 1) + timedelta(number)}/{number:02}-{path.name}", path.read_bytes())
        lines += sum(1 for line in path.read_bytes().splitlines() if line.strip())
    result = bench.ingest(contract)
    assert result.total("rows_read") == lines > 90
    assert all(b.balanced for b in result.batches) and result.total("rows_accepted") > 20
    letters = bench.letters("things")
    assert sum(rows for _, _, rows, _ in letters) == result.total("rows_dead_lettered")
    assert all(rules for *_, rules in letters)
    # PostgreSQL's 16 events: with the row before it a delete is taken, in its twin it has a state after it, too.
    accepted = dict(bench.sql("SELECT _file, count(*) FROM bronze.things WHERE _file LIKE '%postgres%' GROUP BY ALL"))
    assert {Path(f).name.split("postgres-data-")[1]: n for f, n in accepted.items()} == {
        "replica-identity.jsonl": 15,
        "schema-exclude.jsonl": 16,
    }
    deletes = [(Path(f).name[3:], line, rules) for f, line, _, rules in letters if "envelope" in rules and "flink" in f]
    assert deletes == [("flink_debezium-postgres-data-replica-identity.jsonl", 16, ["envelope"])]


# Parquet


def parquet(con: duckdb.DuckDBPyConnection, folder: Path, query: str) -> bytes:
    path = folder / "made.parquet"
    con.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path.read_bytes()


def test_parquet_values_become_text(
    make_contract: Make, read_files: Read, memory: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    names = ["i", "d", "f", "t", "z", "b", "day", "s", "l", "n"]
    contract = make_contract({n: {} for n in names}, formats=["parquet"])
    data = parquet(
        memory,
        tmp_path,
        "SELECT 7::INTEGER AS i, 1.50::DECIMAL(12,4) AS d, 0.1::DOUBLE AS f, TIMESTAMP '2026-01-01 10:00:00.5' AS t, "
        "TIMESTAMPTZ '2026-01-01 10:00:00+02' AS z, true AS b, DATE '2026-01-01' AS day, 'é' AS s, [1, 2] AS l, "
        "NULL::VARCHAR AS n",
    )
    found = read_files(contract, {"f.parquet": data})
    assert values(found, *names) == [
        (
            1,
            "7",
            "1.5000",
            "0.1",
            "2026-01-01 10:00:00.5",
            "2026-01-01 08:00:00+00",
            "true",
            "2026-01-01",
            "é",
            "[1, 2]",
            None,
        )
    ]
    assert json.loads(found.rows[0]["raw"])["s"] == "é"


def test_parquet_shapes_and_broken_files_do_not_disturb_each_other(
    abc: Contract, read_files: Read, memory: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    good = parquet(memory, tmp_path, "SELECT range::VARCHAR AS a, 'b' AS b, 1 AS c FROM range(3)")
    files = {
        "1.parquet": good,
        "2.parquet": parquet(memory, tmp_path, "SELECT 'x' AS a, true AS new"),
        "3.parquet": parquet(memory, tmp_path, "SELECT 'x' AS aa, 'y' AS b FROM range(5)"),
        "4.parquet": good[:40] + b"\xff" * (len(good) - 80) + good[-40:],
        "5.parquet": good[: len(good) // 2],
        "6.parquet": b"",
        "7.parquet": parquet(memory, tmp_path, "SELECT 'x' AS a WHERE false"),
    }
    found = read_files(abc, files)
    assert [(r["file_id"], r["line"], r["t_a"], r["t_b"], r["t_c"], r["extra"]) for r in found.rows] == [
        (0, 1, "0", "b", "1", None),
        (0, 2, "1", "b", "1", None),
        (0, 3, "2", "b", "1", None),
        (1, 1, "x", None, None, '{"new":"true"}'),
    ]
    assert sorted((f.file_id, f.rule, f.rows) for f in found.faults) == [
        (2, "missing_column", 5),
        (3, "unreadable_file", 1),
        (4, "unreadable_file", 1),
        (5, "empty_file", 0),
    ]
    assert "it has 'aa': if it was renamed" in next(f.detail for f in found.faults if f.file_id == 2)


def test_all_formats_give_the_same_records(
    abc: Contract, read_files: Read, memory: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    found = read_files(
        abc,
        {
            "f.csv": b'a,b,c\n1,"x ""y""",\n',
            "f.jsonl": b'{"a":1,"b":"x \\"y\\"","c":null}\n',
            "f.parquet": parquet(memory, tmp_path, "SELECT 1 AS a, 'x \"y\"' AS b, NULL::VARCHAR AS c"),
        },
    )
    assert [v[1:] for v in values(found)] == [("1", 'x "y"', None)] * 3
