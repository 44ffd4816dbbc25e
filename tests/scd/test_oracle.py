"""The oracle itself, held against the cases: what it is compared with elsewhere was not written by its author.

No dbt runs here; the translation of a case into options is that of the case runner.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sluice.scd_cases.cases import Case, read_cases
from sluice.scd_cases.plan import Plan
from sluice.scd_cases.verdicts import Verdict, judge
from sluice.scd_harness import Row
from sluice.settings import PROJECT
from tests.scd import oracle

SHARED = PROJECT.parent / "shared" / "data" / "scd_cases"
OWN = Path(__file__).with_name("cases.jsonl")

CASES = [case for path in (OWN, SHARED) if path.exists() for case in read_cases([path])]


def spoken(options: dict[str, Any]) -> dict[str, Any]:
    """Options with the values of their SQL literals, which the oracle does not read."""
    told = {f"_{name}": options[name] for name in ("beginning", "open_end") if name in options}
    values = {
        name: datetime.fromisoformat(text.split("'")[1]) if text.startswith("timestamp") else int(text)
        for name, text in told.items()
    }
    return {**options, **values}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_oracle_agrees_with_the_cases(case: Case) -> None:
    plan = Plan(case, 0)
    verdict = Verdict(case)
    refused = case.raw.get("expect_error_in_batch") or []
    log: list[Row] = []
    for batch in range(len(plan.batches)):
        if batch in refused:
            continue
        model = plan.model(batch)
        log += plan.log_rows(batch)
        whole = [{name: row.get(name) for name in model.log} for row in log]
        judge(plan, verdict, batch, oracle.history(spoken(dict(model.config)), whole))
    assert (verdict.said, verdict.details) == ("pass", [])


def test_the_cases_of_other_systems_were_there() -> None:
    if not SHARED.is_dir():
        pytest.skip("the cases of other systems are not beside the project: ../shared/data/scd_cases")
    assert len(CASES) > 41
