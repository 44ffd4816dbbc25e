"""Landing files of an erasure: what is delivered meanwhile, how records are told apart, whose they are.

Files of contracts made here. What a single line becomes is in test_erase_lines.py, the whole erasure in test_erase.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sluice.contracts import Contract
from sluice.erasure import landing
from sluice.erasure.person import Person, places
from sluice.erasure.run import erase
from tests.conftest import Bench

NAMES_A_CUSTOMER = {"customProperties": [{"property": "subject", "value": "customer"}]}
WHOLE = {"physicalType": "INTEGER"}
COLUMNS: dict[str, dict[str, Any]] = {"id": NAMES_A_CUSTOMER, "name": {"classification": "personal"}, "n": WHOLE}
ANN = Person("customer", "15036")
FILE = "things/date=2026-01-01/a.csv"

Made = Callable[..., Contract]


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
    bench: Bench, make_contract: Made, monkeypatch: pytest.MonkeyPatch
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
    bench: Bench, make_contract: Made, monkeypatch: pytest.MonkeyPatch
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


def test_another_column_of_json_may_end_in_the_same_key(bench: Bench, make_contract: Made) -> None:
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
