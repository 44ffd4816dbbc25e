"""`python -m sluice.scd_cases PATH...`: cases of history in a neutral format, run through the real materialization.

A case is a JSON object on a line of a .jsonl file: batches of changes or extracts, and the history that must come of
them. The format is that of the shared cases (their README), extended by an optional `config` (options of the
materialization that win over what the dialect says) and `types` (SQL types by column).

Belongs here: reading cases, translating a dialect into options, comparing, printing. What does not: the rules of
history, which the macros have, and how dbt is run (`sluice.scd_harness`).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from sluice.errors import ConfigurationError, SluiceError
from sluice.scd_harness import Harness, Model, Row

_REQUIRED = ("case", "mode", "key", "tracked", "batches")
_EXPECTATIONS = ("expected", "expected_any_of", "expected_after", "expected_counts", "expect_error_in_batch")
_COMPARES = ("any_of", "current_flags", "counts_of_key")
_SYMBOL = re.compile(r"T(\d+)")
_TRUNCATE = "truncate"

# Columns this module adds to a log, beside those of the case.
EXTRACTED_AT = "extracted_at"
ARRIVED_AS = "arrived_as"


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
class Case:
    """A case as it was read.

    Attributes:
        name: of the case.
        where: file and line.
        raw: the JSON object.
    """

    name: str
    where: str
    raw: dict[str, Any]

    def refuse(self, what: str) -> ConfigurationError:
        """The error of a case that cannot be used."""
        return ConfigurationError(f"{self.where}: case {self.name}: {what}")


def read_cases(paths: Iterable[Path]) -> list[Case]:
    """Read cases from files, and from the .jsonl files of folders.

    Raises:
        ConfigurationError: a path is missing or holds no case, a line is no JSON or lacks fields.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ConfigurationError(f"{path}: no such file or folder. Give .jsonl files or folders of them.")
        found = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
        if not found:
            raise ConfigurationError(f"{path}: the folder holds no .jsonl file.")
        files += found
    cases = [case for file in dict.fromkeys(files) for case in _read_file(file)]
    if not cases:
        raise ConfigurationError(f"{', '.join(str(f) for f in files)}: no case in there.")
    return cases


def _read_file(file: Path) -> list[Case]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {error}. Give a .jsonl file in UTF-8.") from error
    cases = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            raw = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"{where}: not JSON: {error}. Each line is one JSON object.") from error
        cases.append(_checked(where, raw))
    return cases


def _checked(where: str, raw: Any) -> Case:
    """A case, if it has what a case needs."""
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{where}: a case is a JSON object, not {type(raw).__name__}.")
    missing = [name for name in _REQUIRED if name not in raw]
    if missing:
        raise ConfigurationError(f"{where}: the case lacks {', '.join(missing)}.")
    case = Case(str(raw["case"]), where, raw)
    if raw["mode"] not in ("cdc", "snapshot"):
        raise case.refuse(f"mode is {raw['mode']!r}; it may be cdc or snapshot.")
    batches = raw["batches"]
    if not isinstance(batches, list) or not all(
        isinstance(batch, list) and all(isinstance(row, dict) for row in batch) for batch in batches
    ):
        raise case.refuse("batches is no list of lists of rows (JSON objects).")
    if not raw["key"] or not isinstance(raw["key"], list | str) or not isinstance(raw["tracked"], list):
        raise case.refuse("key and tracked are lists of column names.")
    if raw["mode"] == "snapshot" and len(raw.get("batch_times") or []) < len(batches):
        raise case.refuse(f"batch_times has to tell the time of each of the {len(batches)} batches.")
    if raw.get("compare") is not None and raw["compare"] not in _COMPARES:
        raise case.refuse(f"compare is {raw['compare']!r}; it may be {', '.join(_COMPARES)} or absent.")
    if not any(raw.get(name) is not None for name in _EXPECTATIONS):
        raise case.refuse(f"nothing is expected of it: give one of {', '.join(_EXPECTATIONS)}.")
    return case


class Axis:
    """The values of one axis (a sequence, or time) in the case and in the lake.

    A numeric sequence is an axis like any other. Symbols T1, T2, … stand for increasing values later than any the
    case spells out; texts that are points in time become UTC timestamps, other texts stay what they are.
    """

    def __init__(self, values: Iterable[Any]) -> None:
        given = [value for value in values if value is not None]
        symbols = sorted({v for v in given if isinstance(v, str) and _SYMBOL.fullmatch(v)}, key=lambda v: int(v[1:]))
        plain = [v for v in given if v not in symbols]
        numbers = [v for v in plain if isinstance(v, int | float)]
        self._symbols: dict[str, Any] = {}
        if numbers:
            self.kind = "BIGINT" if all(isinstance(v, int) for v in numbers) else "DOUBLE"
            self._symbols = {s: int(max(numbers)) + int(s[1:]) for s in symbols}
        elif all(_instant(v) is not None for v in plain):
            self.kind = "TIMESTAMP"
            latest = max((t for v in plain if (t := _instant(v)) is not None), default=datetime(2000, 1, 1))
            midnight = latest.replace(hour=0, minute=0, second=0, microsecond=0)
            self._symbols = {s: midnight + timedelta(days=int(s[1:])) for s in symbols}
        else:
            self.kind = "VARCHAR"
        self._names = {value: symbol for symbol, value in self._symbols.items()}

    def inward(self, value: Any) -> Any:
        """The value as the lake holds it."""
        if isinstance(value, str):
            if value in self._symbols:
                return self._symbols[value]
            if self.kind == "TIMESTAMP":
                return _instant(value) or value
        return value

    def outward(self, value: Any) -> Any:
        """The value as the case writes it."""
        if value in self._names:
            return self._names[value]
        return value.isoformat() if isinstance(value, datetime) else value

    def literal(self, value: Any) -> str:
        """The value as an SQL literal."""
        inner = self.inward(value)
        if isinstance(inner, datetime):
            return f"timestamp '{inner}'"
        return "'" + inner.replace("'", "''") + "'" if isinstance(inner, str) else str(inner)


def _instant(value: Any) -> datetime | None:
    """A text as a point in time in UTC without its zone; None if it is none."""
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None
    return instant.astimezone(UTC).replace(tzinfo=None) if instant.tzinfo else instant


def _known(case: Case, name: str, text: Any, meanings: Mapping[str, Any]) -> Any:
    """What a dialect's word means: the first entry whose pattern is found in it."""
    said = "n/a" if text is None else str(text)
    for pattern, meaning in meanings.items():
        if re.search(pattern, said, re.IGNORECASE):
            return meaning
    raise case.refuse(f"{name} is {said!r}, a dialect not known here.")


# What the dialects' words mean: (deletes, does absence delete).
_DELETES = {
    r"new_record|keep|is_deleted": ("keep", True),
    r"ignored|not a delete|^n/a|^none": ("close", False),
    r"close|hard": ("close", True),
}
_UNTRACKED = {r"overwrite_all|every version": "key", r"overwrite|^n/a|^none": "version", r"ignored": "start"}


class Plan:
    """A case translated: options, log, and values in and out."""

    def __init__(self, case: Case, number: int) -> None:
        self.case = case
        self.model_name = f"case_{number}"
        raw = case.raw
        self.given: dict[str, Any] = dict(raw.get("config") or {})
        self.snapshot = raw["mode"] == "snapshot"
        self.keys: list[str] = [raw["key"]] if isinstance(raw["key"], str) else list(raw["key"])
        self.batches: list[list[Row]] = [[dict(row) for row in batch] for batch in raw["batches"]]
        self.rows = [row for batch in self.batches for row in batch]
        deletes, absent_is_delete = _known(case, "deletes", raw.get("deletes"), _DELETES)
        self.sequence = self._sequence()
        self.clock = self._clock()
        self._mark_rows(absent_is_delete)
        self.options = self._options(deletes, absent_is_delete)
        self.axes = self._axes()
        self.kinds = {name: self._kind(name) for name in self._columns(self.batches)}

    def _sequence(self) -> list[str]:
        """The columns that order the changes: the case's, the extract's time, or the order of arrival."""
        if self.snapshot:
            return [EXTRACTED_AT]
        given = self.given.get("sequence_by") or self.case.raw.get("sequence")
        if given is None:
            return [ARRIVED_AS]
        return [given] if isinstance(given, str) else list(given)

    def _clock(self) -> str:
        """The column a version's start is taken from."""
        if "valid_from" in self.given:
            return str(self.given["valid_from"])
        rule = str(self.case.raw.get("valid_from_rule") or ("load_time" if self.snapshot else "sequence"))
        name = re.split(r"[;( ,]", rule.strip())[0]
        if name == "load_time":
            if not self.snapshot and not self.case.raw.get("batch_times"):
                raise self.case.refuse("valid_from_rule is load_time, but batch_times does not tell the times.")
            return EXTRACTED_AT
        if name == "sequence":
            return self.sequence[0] if not self.snapshot else str(self.case.raw.get("sequence") or EXTRACTED_AT)
        if not any(name in row for row in self.rows):
            raise self.case.refuse(
                f"valid_from_rule is {rule!r}; it may be sequence, load_time or begin with a column."
            )
        return name

    def _mark_rows(self, absent_is_delete: bool) -> None:
        """Add to the rows what the log needs beside the case's columns."""
        arrived = 0
        for number, batch in enumerate(self.batches):
            if self.snapshot and absent_is_delete and not batch and number:
                # An empty extract leaves no row behind, not even its time: the log tells it by deletes.
                keys = {tuple(row[k] for k in self.keys): row for row in self.batches[number - 1]}
                batch += [{k: row[k] for k in self.keys} | {"op": "delete"} for row in keys.values()]
                self.rows += batch
            for row in batch:
                arrived += 1
                row[ARRIVED_AS] = arrived
                if self.case.raw.get("batch_times"):
                    row[EXTRACTED_AT] = self.case.raw["batch_times"][number]
                if "op" in row and row["op"] is not None:
                    row["op"] = str(row["op"]).lower()

    def _options(self, deletes: str, absent_is_delete: bool) -> dict[str, Any]:
        raw = self.case.raw
        ops = {row.get("op") for row in self.rows}
        overwrite = _known(self.case, "untracked_change", raw.get("untracked_change"), _UNTRACKED)
        begins = re.search(r"first version of any key from (\S+?)[ )]", str(raw.get("valid_from_rule")) + " ")
        options = {
            "natural_key": self.keys,
            "columns": self._types(),
            "sequence_by": self.sequence,
            "valid_from": self.clock,
            "deletes": deletes,
            "overwrite": overwrite,
            "delete_when": "op = 'delete'" if "delete" in ops else None,
            "truncate_when": f"op = '{_TRUNCATE}'" if _TRUNCATE in ops else None,
            "control_columns": ["op"] if ops & {"delete", _TRUNCATE} else None,
            "log": "snapshots" if self.snapshot else None,
            "snapshot_at": EXTRACTED_AT if self.snapshot else None,
            "absent_is_delete": absent_is_delete if self.snapshot else None,
            "first_version_from": "beginning" if begins else None,
            "beginning": Axis([begins[1]]).literal(begins[1]) if begins else None,
        }
        return {k: v for k, v in (options | self.given).items() if v is not None}

    def _types(self) -> dict[str, int]:
        """Type 2 for the tracked columns, type 1 for all others; the time a version starts with is tracked, too."""
        raw = self.case.raw
        tracked = list(raw["tracked"])
        shown = [name for rows in self._expectations() for row in rows for name in row]
        if self.snapshot and self.clock != EXTRACTED_AT and self.clock not in tracked:
            tracked.append(self.clock)
        named = [self.given.get(name) or [] for name in ("sighting_when", "present_columns", "control_columns")]
        spoken = {name for value in named for name in ([value] if isinstance(value, str) else value)}
        helpers = {*self.keys, *spoken, "op", EXTRACTED_AT, ARRIVED_AS, *(set(self.sequence) - set(shown)), *tracked}
        others = [name for row in self.rows for name in row if name not in helpers]
        untracked = dict.fromkeys([*(raw.get("untracked") or []), *others])
        return dict.fromkeys(tracked, 2) | {name: 1 for name in untracked if name not in tracked}

    def _expectations(self) -> list[list[Row]]:
        raw = self.case.raw
        lists = [raw.get("expected"), *(raw.get("expected_any_of") or []), *(raw.get("expected_after") or [])]
        return [rows for rows in lists if rows is not None]

    def _axes(self) -> dict[str, Axis]:
        """The axis of each column on one; clock and extract time are the same axis."""
        raw = self.case.raw
        ends = [row.get(name) for rows in self._expectations() for row in rows for name in ("valid_from", "valid_to")]
        times = [*(raw.get("batch_times") or []), *(row.get(self.clock) for row in self.rows)]
        # An open end is no point of the case's time: symbols need not be later.
        far = raw.get("valid_to_current")
        clock = Axis([*times, *(end for end in ends if end != far)])
        axes = {name: Axis(row.get(name) for row in self.rows) for name in self.sequence}
        axes |= {self.clock: clock, EXTRACTED_AT: clock, "valid_from": clock, "valid_to": clock}
        if far is not None:
            self.options["open_end"] = clock.literal(far)
        return axes

    def _columns(self, batches: list[list[Row]]) -> list[str]:
        """Log columns the options use, as far as these batches know them; all of them if they know none."""
        options = self.options
        used = [*self.keys, *self.sequence, self.clock, *options["columns"]]
        for name in ("control_columns", "snapshot_at", "present_columns", "sighting_when"):
            value = options.get(name) or []
            used += [value] if isinstance(value, str) else value
        for name in ("delete_when", "truncate_when"):
            used += [c for c in (options.get(name),) if c and any(c in row for row in self.rows)]
        used = list(dict.fromkeys(used))
        there = {name for batch in batches for row in batch for name in row}
        always = {name for name in used if name not in options["columns"] or name in (self.clock, *self.sequence)}
        known = [name for name in used if name in there or name in always]
        return known if any(options["columns"].get(n) in (2, 6) for n in known) else used

    def _kind(self, name: str) -> str:
        """SQL type of a log column."""
        if name in (self.case.raw.get("types") or {}):
            return str(self.case.raw["types"][name])
        if name in self.axes:
            return self.axes[name].kind
        values = [row[name] for row in self.rows if row.get(name) is not None]
        if values and all(isinstance(v, list) for v in values):
            return "VARCHAR[]"
        if not values or not all(isinstance(v, int | float) for v in values):
            return "BOOLEAN" if values and all(isinstance(v, bool) for v in values) else "VARCHAR"
        if all(isinstance(v, bool) for v in values):
            return "BOOLEAN"
        return "BIGINT" if all(isinstance(v, int) for v in values) else "DOUBLE"

    def model(self, batch: int) -> Model:
        """The model as it is when a batch has arrived: columns no row has had yet are not there."""
        columns = self._columns(self.batches[: batch + 1])
        kept = {name: kind for name, kind in self.options["columns"].items() if name in columns}
        return Model(
            self.model_name,
            self.options | {"columns": kept},
            {name: self.kinds.get(name) or self._kind(name) for name in columns},
        )

    def log_rows(self, batch: int) -> list[Row]:
        """Rows of a batch as the log takes them."""
        return [{name: self._inward(name, value) for name, value in row.items()} for row in self.batches[batch]]

    def _inward(self, name: str, value: Any) -> Any:
        axis = self.axes.get(name)
        if axis is not None:
            return axis.inward(value)
        in_log = any(name in row for row in self.rows)
        text = in_log and self._kind(name) == "VARCHAR" and value is not None and not isinstance(value, str)
        return json.dumps(value) if text else value

    def expected(self, rows: Sequence[Row]) -> list[Row]:
        """Expected rows in the values of the lake."""
        return [{name: self._inward(name, value) for name, value in row.items()} for row in rows]

    def shown(self, row: Row) -> str:
        """A row as the case would write it."""
        told = {name: self.axes[name].outward(v) if name in self.axes else v for name, v in row.items()}
        return json.dumps(told, ensure_ascii=False, default=str)


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
            if any(decision.ours(row, plan.case.raw) != row for rows in plan._expectations() for row in rows):
                verdict.said = f"decided otherwise: {decision.reason}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases of some paths; prints a line per case and one of summary.

    Returns:
        0 if none failed, 1 if one did, 2 if the input cannot be used (the reason is on standard error).
    """
    parser = argparse.ArgumentParser(
        prog="python -m sluice.scd_cases", description="Run cases of history through the materialization scd."
    )
    parser.add_argument("path", nargs="+", type=Path, help=".jsonl files, or folders of them")
    chosen = parser.parse_args(arguments)
    began = time.perf_counter()
    try:
        cases = read_cases(chosen.path)
        with tempfile.TemporaryDirectory(prefix="scd_cases_") as folder:
            verdicts = run_cases(cases, Path(folder))
    except SluiceError as error:
        sys.stderr.write(f"scd_cases: {error}\n")
        return 2
    width = max(len(case.name) for case in cases)
    for verdict in verdicts:
        lines = [f"{verdict.case.name:<{width}}  {verdict.said}", *(f"    {line}" for line in verdict.details)]
        if verdict.said == "FAIL":
            lines.insert(1, f"    {verdict.case.where}")
        sys.stdout.write("\n".join(lines) + "\n")
    counts = Counter(verdict.said.split(":")[0] for verdict in verdicts)
    said = ", ".join(f"{counts[word]} {word}" for word in ("pass", "decided otherwise", "dialect only", "FAIL"))
    sys.stdout.write(f"{len(cases)} cases: {said}; {time.perf_counter() - began:.1f} s\n")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
