"""A case translated: what its dialect's words mean as options of the materialization, its log, values in and out.

Reading files belongs to `cases`, comparing results to `verdicts`; the rules of history are the macros'.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sluice.scd_cases.cases import Case
from sluice.scd_harness import Model, Row

_SYMBOL = re.compile(r"T(\d+)")
_TRUNCATE = "truncate"

# Columns this module adds to a log, beside those of the case.
EXTRACTED_AT = "extracted_at"
ARRIVED_AS = "arrived_as"


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
        shown = [name for rows in self.expectations() for row in rows for name in row]
        if self.snapshot and self.clock != EXTRACTED_AT and self.clock not in tracked:
            tracked.append(self.clock)
        named = [self.given.get(name) or [] for name in ("sighting_when", "present_columns", "control_columns")]
        spoken = {name for value in named for name in ([value] if isinstance(value, str) else value)}
        helpers = {*self.keys, *spoken, "op", EXTRACTED_AT, ARRIVED_AS, *(set(self.sequence) - set(shown)), *tracked}
        others = [name for row in self.rows for name in row if name not in helpers]
        untracked = dict.fromkeys([*(raw.get("untracked") or []), *others])
        return dict.fromkeys(tracked, 2) | {name: 1 for name in untracked if name not in tracked}

    def expectations(self) -> list[list[Row]]:
        """All lists of rows the case expects at one time or another."""
        raw = self.case.raw
        lists = [raw.get("expected"), *(raw.get("expected_any_of") or []), *(raw.get("expected_after") or [])]
        return [rows for rows in lists if rows is not None]

    def _axes(self) -> dict[str, Axis]:
        """The axis of each column on one; clock and extract time are the same axis."""
        raw = self.case.raw
        ends = [row.get(name) for rows in self.expectations() for row in rows for name in ("valid_from", "valid_to")]
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
