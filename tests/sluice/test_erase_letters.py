"""Dead letters of an erased person: nothing of theirs is kept, and what was decided about their rows still holds.

The whole erasure is in test_erase.py, landing files in test_erase_landing.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sluice.books import books
from sluice.contracts import Contract
from sluice.dead_letters import Choice, letters
from sluice.erasure.run import erase, find
from sluice.replay import replay
from tests.conftest import Bench

Made = Callable[..., Contract]

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
    bench: Bench, make_contract: Made, payload: str, version: str
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
