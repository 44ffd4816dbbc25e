"""The gates of a batch: severities of rules, its volume against history, and what is told without refusing."""

from __future__ import annotations

from typing import Any

import pytest

from sluice.books import books, warnings
from sluice.contracts import Contract
from sluice.errors import ContractError
from tests.conftest import Bench, MakeContract


def rule(name: str, condition: str, severity: str) -> dict[str, str]:
    return {"name": name, "type": "custom", "engine": "sluice", "implementation": condition, "severity": severity}


def numbers(*values: object) -> str:
    return "\n".join(["n", *map(str, values)]) + "\n"


def refusals(bench: Bench) -> list[tuple[str, str, str | None]]:
    return bench.sql(
        "SELECT partition_key, status, reason FROM ops.ledger WHERE superseded_by IS NULL ORDER BY partition_key"
    )


@pytest.fixture
def severe(make_contract: MakeContract) -> Contract:
    """A number with a rule of each severity, and a maximum that only warns."""
    quality = [rule("not_13", "n <> 13", "warn"), rule("not_0", "n <> 0", "quarantine"), rule("sane", "n > -9", "fail")]
    severity = [{"property": "severity", "value": {"maximum": "warn"}}]
    options = {"maximum": 100}
    column = {
        "physicalType": "INTEGER",
        "quality": quality,
        "customProperties": severity,
        "logicalTypeOptions": options,
    }
    return make_contract({"n": column})


def test_a_warning_tells_a_quarantine_sets_aside_a_failure_lets_nothing_on(bench: Bench, severe: Contract) -> None:
    bench.put("things/date=2026-01-01/a.csv", numbers(1, 13, 0, 13, 500))
    bench.put("things/date=2026-01-02/b.csv", numbers(1, -10, 0, 13))
    result = bench.ingest(severe)
    assert [(b.partition_key, b.status, b.rows_accepted, b.rows_dead_lettered) for b in result.batches] == [
        ("2026-01-01", "accepted", 3, 1),
        ("2026-01-02", "refused", 0, 4),
    ]
    # The second 13 is an exact duplicate of the first.
    assert [row[0] for row in bench.sql("SELECT n FROM bronze.things ORDER BY n")] == [1, 13, 500]
    assert result.refused[0].reason == "1 rows break a rule that lets nothing on"
    assert bench.letters("things") == [
        ("things/date=2026-01-01/a.csv", 4, 1, ["not_0"]),
        ("things/date=2026-01-02/b.csv", 3, 1, ["sane"]),
        ("things/date=2026-01-02/b.csv", 4, 1, ["not_0"]),
        ("things/date=2026-01-02/b.csv", None, 2, ["batch_refused"]),
    ]
    told = {(w.rule, w.column): (w.batches, w.rows, w.sample) for w in warnings(bench.lake, "things", ["2026-01-01"])}
    assert told == {
        ("not_13", "n"): (1, 1, "things/date=2026-01-01/a.csv, line 3"),
        ("maximum", "n"): (1, 1, "things/date=2026-01-01/a.csv, line 6"),
    }
    assert all(b.balanced for b in books(bench.lake, ["things"]))


def test_a_batch_taken_again_is_told_of_once_and_a_repaired_one_no_more(bench: Bench, severe: Contract) -> None:
    bench.put("things/date=2026-01-01/a.csv", numbers(1, 13))
    bench.ingest(severe)
    bench.ingest(severe, force=True)
    assert [(w.rule, w.rows) for w in warnings(bench.lake)] == [("not_13", 1)]
    bench.put("things/date=2026-01-01/a.csv", numbers(1, 14))
    bench.ingest(severe)
    assert warnings(bench.lake) == []


def test_a_refused_batch_says_why_again_when_nothing_changed(bench: Bench, severe: Contract) -> None:
    bench.put("things/date=2026-01-01/a.csv", numbers(1, -10))
    first = bench.ingest(severe).refused
    again = bench.ingest(severe).refused
    assert [b.reason for b in again] == [b.reason for b in first] == ["1 rows break a rule that lets nothing on"]
    bench.put("things/date=2026-01-01/a.csv", numbers(1, 10))
    assert bench.ingest(severe).refused == ()
    assert refusals(bench) == [("2026-01-01", "accepted", None)]


@pytest.mark.parametrize("severity", ["warn", "fail"])
def test_a_volume_out_of_the_usual_is_told_or_refused(bench: Bench, make_contract: MakeContract, severity: str) -> None:
    contract = make_contract(
        {"n": {"physicalType": "INTEGER"}}, volume={"minimum": 0.5, "maximum": 2, "severity": severity}
    )
    for day, rows in enumerate([10, 10, 1, 12, 10, 11, 4, 25, 20], start=1):
        bench.put(f"things/date=2026-01-{day:02d}/a.csv", numbers(*range(rows)))
    bench.ingest(contract)
    # Of the first five nothing is usual yet; 20 is twice the median of those before it, which is allowed.
    odd = ["2026-01-07", "2026-01-08"]
    if severity == "fail":
        assert [key for key, status, _ in refusals(bench) if status == "refused"] == odd
        reason = {key: why for key, _, why in refusals(bench)}["2026-01-07"]
        usual = "the median of the 6 batches before it is 10.0"
        assert reason == f"4 rows; {usual}, and at least 0.5 and at most 2 of that is allowed"
        assert warnings(bench.lake) == []
    else:
        assert {status for _, status, _ in refusals(bench)} == {"accepted"}
        found = bench.sql("SELECT partition_key FROM ops.warnings WHERE rule = 'volume' ORDER BY 1")
        assert [key for (key,) in found] == odd
    assert all(b.balanced for b in books(bench.lake, ["things"]))


# The parts of a key stand in the order of their names: of `date` and a region, and of a branch and `date`.
@pytest.mark.parametrize(("dimension", "key"), [("region", "2026-01-{0}|{1}"), ("branch", "{1}|2026-01-{0}")])
def test_a_region_has_a_history_of_its_own_over_runs(
    bench: Bench, make_contract: MakeContract, dimension: str, key: str
) -> None:
    contract = make_contract(
        {"n": {"physicalType": "INTEGER"}},
        volume={"minimum": 0.5, "severity": "fail"},
        path=f"things/{dimension}={{{dimension}}}/date={{date}}",
        partitions={dimension: ["a", "b"]},
    )
    for day in range(1, 7):
        bench.put(f"things/{dimension}=a/date=2026-01-{day:02d}/x.csv", numbers(*range(100)))
        bench.put(f"things/{dimension}=b/date=2026-01-{day:02d}/x.csv", numbers(*range(10)))
    assert bench.ingest(contract).refused == ()
    bench.put(f"things/{dimension}=a/date=2026-01-07/x.csv", numbers(*range(10)))
    bench.put(f"things/{dimension}=b/date=2026-01-07/x.csv", numbers(*range(10)))
    assert [b.partition_key for b in bench.ingest(contract).refused] == [key.format("07", "a")]
    # An empty delivery is out of the usual, too.
    bench.put(f"things/{dimension}=b/date=2026-01-08/x.csv", "n\n")
    (refused,) = bench.ingest(contract, [key.format("08", "b")]).refused
    assert (refused.rows_read, refused.reason[:6]) == (0, "0 rows")


@pytest.mark.parametrize(
    ("column", "options", "told"),
    [
        ({"quality": [rule("r", "a <> ''", "loud")]}, {}, "severity of r is 'loud'; it must be one of warn"),
        (
            {"customProperties": [{"property": "severity", "value": {"required": "warn"}}]},
            {},
            "required cannot only warn",
        ),
        ({"customProperties": [{"property": "severity", "value": {"patern": "warn"}}]}, {}, "Did you mean 'pattern'"),
        ({}, {"volume": {"severity": "warn"}}, "needs a minimum or a maximum"),
        ({}, {"volume": {"minimum": 2, "maximum": 1}}, "the one not above the other"),
        ({}, {"volume": {"minimum": "half"}}, "shares of the usual"),
        ({}, {"volume": {"minimum": 0.5, "history": 2}}, "history must be a number of batches from 5"),
        ({}, {"volume": {"minimum": 0.5, "severity": "quarantine"}}, "it must be warn or fail"),
        ({}, {"volume": {"min": 0.5}}, "Did you mean 'minimum'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    make_contract: MakeContract, column: dict[str, Any], options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ContractError, match=told):
        make_contract({"a": column}, **options)
