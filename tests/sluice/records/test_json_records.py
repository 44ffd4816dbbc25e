"""JSON lines taken apart into text, one row per line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.contracts import Contract
from tests.conftest import MakeContract
from tests.sluice.records.reading import Read, faults, values


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


def test_names_with_any_sign_are_found(make_contract: MakeContract, read_files: Read) -> None:
    names = ["Customer ID", "a.b", "Größe", 'qu"ote', "back\\slash", "a[0]", "it's", "x,y", "tab\there"]
    contract = make_contract(
        {f"c{i}": {"physicalName": name} for i, name in enumerate(names)}, formats=["csv", "jsonl"]
    )
    line = json.dumps(dict(zip(names, "ABCDEFGHI", strict=True)), ensure_ascii=False)
    header = ",".join('"' + n.replace('"', '""') + '"' for n in names)
    found = read_files(
        contract, {"f.jsonl": f"{line}\n".encode(), "f.csv": f"{header}\n{','.join('ABCDEFGHI')}\n".encode()}
    )
    columns = [f"c{i}" for i in range(len(names))]
    assert values(found, *columns) == [(1, *"ABCDEFGHI"), (2, *"ABCDEFGHI")]
    assert [r["extra"] for r in found.rows] == [None, None]


def test_a_json_path_names_a_nested_value(make_contract: MakeContract, read_files: Read) -> None:
    contract = make_contract({"a": {"physicalName": "$.who.name"}}, formats=["jsonl"])
    found = read_files(contract, {"f.jsonl": b'{"who":{"name":"x"}}\n{"who":5}\n'})
    assert values(found, "a") == [(1, "x"), (2, None)]


def test_a_key_of_a_columns_path_that_stands_twice_is_a_fault(make_contract: MakeContract, read_files: Read) -> None:
    paths = {"a": "$.who.name", "b": '$.lines[0]."unit price".cents', "c": "x.y.z", "d": "$.who.at.city"}
    contract = make_contract({n: {"physicalName": path} for n, path in paths.items()}, formats=["jsonl"])
    bad = [
        '{"who":{"name":"x","name":"y"}}',
        '{"who":{"name":"x","n\\u0061me":"y"}}',
        '{"who":{"at":{"city":"x"},"name":"y","at":null}}',
        '{"who":{"at":{"city":"x","city":"x"}}}',
        '{"lines":[{"unit price":{"cents":1,"cents":2}}]}',
        '{"lines":[{"unit price":{"cents":1},"unit price":{"cents":1}}]}',
    ]
    good = [
        '{"who":{"name":"x","other":1,"other":2,"at":{"name":"z","city":"q"}}}',
        '{"who":["name","name"],"lines":[{},{"unit price":1,"unit price":2}],"name":1,"city":2}',
        '{"who":null,"lines":{"unit price":3}}',
        '{"x.y.z":"p","y":{"z":1,"z":2}}',
    ]
    found = read_files(contract, {"f.jsonl": "".join(f"{line}\n" for line in [*bad, *good]).encode()})
    assert faults(found) == [(n, "malformed", "a key stands twice in an object") for n in range(1, len(bad) + 1)]
    assert [v[1:] for v in values(found, *paths)] == [
        ("x", None, None, "q"),
        (None,) * 4,
        (None,) * 4,
        (None, None, "p", None),
    ]


def test_a_path_may_have_a_key_that_is_no_json(make_contract: MakeContract, read_files: Read) -> None:
    paths = {"a": '$.who."q\\x".name', "b": '$.who."t\t".name'}
    contract = make_contract({n: {"physicalName": path} for n, path in paths.items()}, formats=["jsonl"])
    found = read_files(
        contract, {"f.jsonl": b'{"who":{"t\\t":{"name":"y"}}}\n{"who":{"t\\t":1,"t\\t":{"name":"y"}}}\n'}
    )
    assert faults(found) == [(2, "malformed", "a key stands twice in an object")]
    assert [v[1:] for v in values(found, *paths)] == [(None, "y")]


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
