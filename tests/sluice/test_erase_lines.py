"""A line without the person: whose it is, what is taken out, and what is left as it was, digit by digit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sluice.contracts import Contract
from sluice.erasure.json_text import at_path, emptied, parse
from sluice.erasure.leftovers import tokens
from sluice.erasure.lines import Line, without
from sluice.erasure.person import Person, Place, places
from sluice.erasure.spelling import blanked
from sluice.records import steps
from tests.conftest import ORDERS_HEADER, MakeContract

ANN = Person("customer", "15036", ("ann@shop.example",))
NAMES_A_CUSTOMER = [{"property": "subject", "value": "customer"}]
HEADER = ORDERS_HEADER.split(",")


@pytest.fixture
def place(contracts: dict[str, Contract]) -> Callable[[str], Place]:
    """The place of a source."""
    return lambda name: next(p for p in places(contracts.values(), "customer") if p.contract.name == name)


AT = "2026-01-01 10:00:00"


@pytest.mark.parametrize(
    ("line", "verdict", "left"),
    [
        (f"536365,85048,CUP,1,{AT},2.50,15036,France", "theirs", f"536365,85048,CUP,1,{AT},2.50,,France"),
        (f'536365,85048,"A ""B"", C",1,{AT},2.50,"15036",x', "theirs", f'536365,85048,"A ""B"", C",1,{AT},2.50,,x'),
        # The same digits in a column of another meaning: left alone, also beside the person's own.
        (f"536365,15036,CUP,1,{AT},2.50,12345,France", "other", None),
        (f"536365,15036,CUP,1,{AT},2.50,15036,France", "theirs", f"536365,15036,CUP,1,{AT},2.50,,France"),
        # A value of theirs is theirs in any column.
        (f"536365,1,for ann@shop.example,1,{AT},2.50,,x", "theirs", f"536365,1,for ****************,1,{AT},2.50,,x"),
        # No record: wherever they stand.
        ("536365,15036", "unclear", "536365,*****"),
        ('536365,"85048,15036', "unclear", '536365,"85048,*****'),
        # No token of its own.
        (f"536365,85048,CUP,1,{AT},15036.50,,France", "other", None),
        (f"515036,85048,CUP,1,{AT},2.50,,France", "other", None),
    ],
)
def test_csv(place: Callable[[str], Place], line: str, verdict: str, left: str | None) -> None:
    made = without(place("orders"), ANN, line, "csv", HEADER)
    assert (made.verdict, made.text) == (verdict, line if left is None else left)


@pytest.mark.parametrize(
    ("line", "verdict", "left"),
    [
        ('{"event_id":"e","customer_id":"15036","n":1.50}', "theirs", '{"event_id":"e","customer_id":null,"n":1.50}'),
        ('{"event_id":"e","customer_id" : 15036}', "theirs", '{"event_id":"e","customer_id" : null}'),
        ('{"event_id":"15036","customer_id":"1"}', "other", None),
        # JSON may write any character as its code.
        ('{"event_id":"e","customer_id":"\\u0031\\u0035036"}', "theirs", '{"event_id":"e","customer_id":null}'),
        ('{"customer_id":"15036"', "unclear", '{"customer_id":"*****"'),
    ],
)
def test_json_of_a_source_that_counts(place: Callable[[str], Place], line: str, verdict: str, left: str | None) -> None:
    made = without(place("events"), ANN, line, "jsonl", None)
    assert (made.verdict, made.text) == (verdict, line if left is None else left)


def test_a_change_of_the_person_leaves_a_blank_line(place: Callable[[str], Place]) -> None:
    image = '{"customer_id":"15036","email":"ann@shop.example"}'
    for line in (f'{{"op":"u","before":{image},"after":{image}}}', f'{{"op":"d","before":{image},"after":null}}'):
        made = without(place("customers"), ANN, line, "jsonl", None)
        assert (made.verdict, made.text) == ("theirs", "")


def test_a_log_loses_the_person_and_keeps_its_length_and_its_json() -> None:
    log = (
        b'{"pid": 15036, "text": "row 15036, {\\"customer_id\\": 15036}", "took": 0.15036, "mail": "ann@shop.example"}'
    )
    out = blanked(log, tokens(ANN, log))
    assert out == (
        b'{"pid": 15036, "text": "row *****, {\\"customer_id\\": *****}", "took": 0.15036, "mail": "****************"}'
    )


def test_json_paths_are_taken_whole(make_contract: MakeContract) -> None:
    """Other columns end in the same key: `$.order.id` is not `$.customer.id`."""
    columns: dict[str, dict[str, Any]] = {
        "order_id": {"physicalName": "$.order.id"},
        "customer_id": {"physicalName": "$.customer.id", "customProperties": NAMES_A_CUSTOMER},
        "city": {"physicalName": '$.customer."home address"[0]', "classification": "personal"},
    }
    (place,) = places([make_contract(columns, formats=["jsonl"])], "customer")
    other = '{"order":{"id":"15036"},"customer":{"id":"77"},"n":1.50}'
    assert without(place, ANN, other, "jsonl", None) == Line("other", other)
    made = without(
        place,
        ANN,
        '{"order": {"id":15036}, "customer":{"id" : "15036","home address":["Köln",2.50]},"n":1.50, "id":"15036",'
        '"note":["for 15036",1E5]}',
        "jsonl",
        None,
    )
    # The column's value and what is personal; and of what no contract knows, what names them.
    assert made == Line(
        "theirs",
        '{"order": {"id":15036}, "customer":{"id" : null,"home address":[null,2.50]},"n":1.50, "id":null,'
        '"note":[null,1E5]}',
    )


@pytest.mark.parametrize("wrapped", [False, True])
def test_of_an_envelope_only_the_state_that_names_the_person_is_emptied(
    place: Callable[[str], Place], wrapped: bool
) -> None:
    """A change of whose row it is: the state that is loaded is somebody else's, and stays."""
    feed = place("customers")

    def line(op: str, before: str, after: str) -> str:
        event = f'{{"op":"{op}","before":{before},"after":{after},"source":{{"lsn":15036,"ts_ms":1.50}}}}'
        return f'{{"schema":{{"customer_id":"15036"}},"payload":{event}}}' if wrapped else event

    ann, bob = '{"customer_id":"15036","email":"a@b"}', '{"customer_id":"77","email":"c@d"}'
    made = without(feed, ANN, line("u", ann, bob), "jsonl", None)
    assert made == Line("theirs", line("u", '{"customer_id":null,"email":null}', bob))
    assert without(feed, ANN, line("u", bob, ann), "jsonl", None) == Line("theirs", "")
    assert without(feed, ANN, line("d", ann, "null"), "jsonl", None) == Line("theirs", "")
    assert without(feed, ANN, line("u", bob, bob), "jsonl", None).verdict == "other"


@pytest.mark.parametrize(
    "text",
    ['{"a":1', '{"a" 1}', '{"a":1}x', "{a:1}", '{"a":+1}', '{"a":"', '["', "", "[" * 100_000, '{"a":1 "b":2}', "01"],
)
def test_what_is_no_json(text: str) -> None:
    assert parse(text) is None
    with pytest.raises((ValueError, RecursionError)):
        json.loads(text)


def test_a_document_keeps_every_byte_but_those_of_the_emptied_values() -> None:
    text = ' {"a" : [1.0e+5, {"b":"\\u00e4","b":2}, [ ] ,"x\\"y"],"c": NaN , "d":-0.0, } '
    document = parse(text)
    assert document is not None
    assert [n.text for n in at_path(document, steps("$.a[1].b"))] == ["ä", "2"]
    assert [n.text for n in at_path(document, steps("$.a[#-1]"))] == ['x"y']
    assert at_path(document, steps("$.a[7]")) == at_path(document, steps("$.a[#-9]")) == []
    gone = [
        *at_path(document, steps("$.a[1].b")),
        *at_path(document, steps('$."d"')),
        *at_path(document, steps("$.a[1]")),
    ]
    assert emptied(text, gone) == ' {"a" : [1.0e+5, null, [ ] ,"x\\"y"],"c": NaN , "d":null, } '
