"""Cases run batch by batch, what comes of them compared with what they expect, and where the project decides otherwise.

How a case is translated belongs to `plan`, how dbt is run to `sluice.scd_harness`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sluice.scd_cases.cases import Case
from sluice.scd_cases.plan import Plan
from sluice.scd_harness import Harness, Row


class Decision(NamedTuple):
    """Where the project decides otherwise than a dialect: the result then has to be ours, not anything.

    Attributes:
        reason: told with the verdict.
        ours: makes our row of an expected one.
    """

    reason: str
    ours: Callable[[Row, dict[str, Any]], Row]


def _deleted_is_not_current(row: Row, case: dict[str, Any]) -> Row:
    return row | {"is_current": False} if row.get("is_deleted") and row.get("is_current") else row


def _starts_with_its_change(row: Row, case: dict[str, Any]) -> Row:
    told = re.search(r"very first load from (\S+?)( |$)", str(case.get("valid_from_rule")))
    if told and str(row.get("valid_from")).startswith(told[1]):
        return row | {"valid_from": case["batch_times"][0]}
    return row


# By case of the shared collection, the reason; the same dialect in another case is decided the same way.
DECIDED_OTHERWISE = {
    "dbt.new_column_and_delete_counts": Decision(
        "a deleted thing is not current, whatever row records its deletion", _deleted_is_not_current
    ),
    "sqlmesh.by_column": Decision(
        "what a version starts with must not depend on which load came first", _starts_with_its_change
    ),
}


@dataclass
class Verdict:
    """What became of a case.

    Attributes:
        case: the case.
        said: "pass", "FAIL", "decided otherwise: <reason>" or "dialect only: …".
        details: lines that explain a failure.
    """

    case: Case
    said: str = "pass"
    details: list[str] = field(default_factory=list)

    def fail(self, *lines: str) -> None:
        """Note a failure."""
        self.said = "FAIL"
        self.details += lines


def run_cases(cases: Sequence[Case], folder: Path) -> list[Verdict]:
    """Run cases through the real materialization, batch by batch: batch i of all cases in one call of dbt.

    Args:
        cases: what to run.
        folder: an empty folder for lake and dbt project.

    Returns:
        A verdict per case, in their order.

    Raises:
        ConfigurationError: a case speaks a dialect that is not known.
    """
    plans = [Plan(case, number) for number, case in enumerate(cases)]
    verdicts = [Verdict(case) for case in cases]
    with Harness(folder) as harness:
        for batch in range(max(len(plan.batches) for plan in plans)):
            due = [(p, v) for p, v in zip(plans, verdicts, strict=True) if batch < len(p.batches)]
            models = [plan.model(batch) for plan, _ in due]
            changed = [model for model in models if harness.models.get(model.name) != model]
            if changed:
                harness.define(changed)
            before = {p.model_name: harness.read(p.model_name) for p, _ in due if _refused(p, batch)}
            harness.change_logs({plan.model_name: {batch: plan.log_rows(batch)} for plan, _ in due})
            outcome = harness.build(model.name for model in models)
            bad = []
            for plan, verdict in due:
                error = outcome.get(plan.model_name, "dbt did not run the model")
                if _refused(plan, batch):
                    _judge_refusal(plan, verdict, batch, error, before[plan.model_name], harness)
                    bad.append(plan.model_name)
                elif error is not None:
                    verdict.fail(f"batch {batch}: the build failed:", *(f"  {line}" for line in error.splitlines()))
                else:
                    judge(plan, verdict, batch, harness.read(plan.model_name))
            # A log is append-only: what was refused is taken out by whoever mends the source.
            harness.change_logs(remove={name: [batch] for name in bad})
    for plan, verdict in zip(plans, verdicts, strict=True):
        _decide(plan, verdict)
    return verdicts


def _refused(plan: Plan, batch: int) -> bool:
    given = plan.case.raw.get("expect_error_in_batch")
    return batch in (given if isinstance(given, list) else [] if given is None else [given])


def _judge_refusal(
    plan: Plan, verdict: Verdict, batch: int, error: str | None, before: list[Row], harness: Harness
) -> None:
    if error is None:
        verdict.fail(f"batch {batch}: it had to be refused, and was built.")
    elif not any(name in error for name in (*plan.keys, *plan.sequence, plan.clock)):
        verdict.fail(f"batch {batch}: it was refused, but the message names no column: {error}")
    wrote = _difference(plan, f"batch {batch} was refused, but wrote:", before, harness.read(plan.model_name))
    if wrote:
        verdict.fail(*wrote)


def judge(plan: Plan, verdict: Verdict, batch: int, got: list[Row]) -> None:
    """Compare a result with what is expected after a batch, and at the end."""
    raw = plan.case.raw
    last = batch == len(plan.batches) - 1
    after = raw.get("expected_after") or []
    if batch < len(after) and after[batch] is not None:
        wanted = [_ours(plan, row) for row in after[batch]]
        verdict.details += _difference(plan, f"after batch {batch}:", plan.expected(wanted), got)
    counts = raw.get("expected_counts")
    if (
        isinstance(counts, list)
        and batch < len(counts)
        and isinstance(counts[batch], int)
        and counts[batch] != len(got)
    ):
        verdict.fail(f"after batch {batch}: {counts[batch]} rows expected, {len(got)} found")
    elif last and counts is not None:
        verdict.details += _count_differences(plan, counts, got)
    if last:
        verdict.details += _final_difference(plan, got)
    if verdict.details:
        verdict.said = "FAIL"


def _final_difference(plan: Plan, got: list[Row]) -> list[str]:
    raw = plan.case.raw
    compare = raw.get("compare")
    if compare == "any_of" or (raw.get("expected") is None and raw.get("expected_any_of")):
        differences = [
            _difference(plan, f"at the end, against alternative {number}:", plan.expected(rows), got)
            for number, rows in enumerate(raw.get("expected_any_of") or [raw.get("expected") or []])
        ]
        return [] if not all(differences) else [line for lines in differences for line in lines]
    if raw.get("expected") is None or (compare == "counts_of_key" and raw.get("expected_counts") is not None):
        return []
    rows = [_ours(plan, row) for row in raw["expected"]]
    if compare == "counts_of_key":
        counted = Counter(_key_text(plan, row) for row in rows)
        return _count_differences(plan, dict(counted), got)
    if compare == "current_flags":
        kept = {*plan.keys, "is_current", "is_deleted"}
        rows = [{name: value for name, value in row.items() if name in kept} for row in rows]
    return _difference(plan, "at the end:", plan.expected(rows), got)


def _key_text(plan: Plan, row: Row) -> str:
    return "|".join(str(row.get(key)) for key in plan.keys)


def _count_differences(plan: Plan, counts: Any, got: list[Row]) -> list[str]:
    """Counts: of all rows at the end, per batch (done already), by key, or as rows of key and count."""
    if isinstance(counts, int):
        return [f"at the end: {counts} rows expected, {len(got)} found"] if counts != len(got) else []
    if isinstance(counts, list):
        entries = [entry for entry in counts if isinstance(entry, dict)]
        counts = {_key_text(plan, e): next(v for k, v in e.items() if k not in plan.keys) for e in entries}
    found = Counter(_key_text(plan, row) for row in got)
    return [
        f"at the end: {wanted} rows of key {key} expected, {found[key]} found"
        for key, wanted in counts.items()
        if found[key] != wanted
    ]


def _difference(plan: Plan, title: str, wanted: Sequence[Row], got: Sequence[Row]) -> list[str]:
    """Lines telling what differs, as multisets of rows; empty if nothing does.

    Of each expected row only the columns it has are compared. Rows with most columns choose their counterpart first.
    """
    unmatched = list(got)
    missing = []
    for row in sorted(wanted, key=lambda row: -len(row)):
        twin = next((other for other in unmatched if all(n in other and other[n] == v for n, v in row.items())), None)
        if twin is None:
            missing.append(row)
        else:
            unmatched.remove(twin)
    if not missing and not unmatched:
        return []
    compared = {name for row in wanted for name in row} or {name for row in got for name in row}
    lines = [f"  expected, not found: {plan.shown(row)}" for row in missing]
    lines += [f"  found, not expected: {plan.shown({n: v for n, v in r.items() if n in compared})}" for r in unmatched]
    absent = compared - {name for row in got for name in row} if got else set()
    lines += [f"  no column of the result: {', '.join(sorted(absent))}"] if absent else []
    return [title, *lines]


def _ours(plan: Plan, row: Row) -> Row:
    for decision in DECIDED_OTHERWISE.values():
        row = decision.ours(row, plan.case.raw)
    return row


def _decide(plan: Plan, verdict: Verdict) -> None:
    """Word a verdict that is neither pass nor fail: what we decided otherwise, what is one tool's oddity."""
    if plan.case.raw.get("dialect_only"):
        verdict.said, verdict.details = "dialect only: an oddity of one tool, not to be imitated", []
    elif verdict.said == "pass":
        for decision in DECIDED_OTHERWISE.values():
            if any(decision.ours(row, plan.case.raw) != row for rows in plan.expectations() for row in rows):
                verdict.said = f"decided otherwise: {decision.reason}"
