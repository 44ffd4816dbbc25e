"""A line without the person: whose it is, what is taken out, and what is left as it was, digit by digit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sluice.contracts import Contract
from sluice.erasure.leftovers import blanked
from sluice.erasure.lines import without
from sluice.erasure.person import Person, Place, places
from tests.conftest import ORDERS_HEADER

ANN = Person("customer", "15036", ("ann@shop.example",))
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
    out = blanked(ANN, log)
    assert out == (
        b'{"pid": 15036, "text": "row *****, {\\"customer_id\\": *****}", "took": 0.15036, "mail": "****************"}'
    )
