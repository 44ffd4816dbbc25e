"""The rules of history, a second time: row by row, in plain Python, to hold the materialization against.

What belongs here: the rules as the documentation of `scd` states them, written so naively that reading is believing.
What does not: SQL, speed, anything taken from the macros. If the two ever agree on a mistake, it is one of the rules.

A log is a list of rows (dicts); a config is what a model gives to `config(materialized='scd', ...)`. Of SQL this file
knows only what `delete_when` and its like need: the name of a boolean column, or `column = 'text'`.
"""

from __future__ import annotations

import re
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

Row = dict[str, Any]
Config = dict[str, Any]
Key = tuple[Any, ...]

BEGINNING = datetime(1900, 1, 1)


class Change(NamedTuple):
    """One change of one key, its place in the sequence worked out."""

    place: tuple[Any, ...]
    valid_from: Any
    deleted: bool
    image: Row
    present: list[str] | None


class State(NamedTuple):
    """What is known of a key from an instant on."""

    valid_from: Any
    deleted: bool
    image: Row


class Version(NamedTuple):
    """A run of neighbouring states that count as one."""

    states: list[State]
    valid_to: Any


def history(config: Config, log: list[Row]) -> list[Row]:
    """Rows of the main table, without the surrogate key, in no order."""
    rows = []
    seen = _sightings(config, log)
    changes = _changes(config, log)
    for key in {*changes, *seen}:
        rows += _rows_of_key(config, key, changes.get(key, []), seen.get(key))
    if config.get("unknown_member"):
        rows.append(_member(config, tuple(None for _ in keys_of(config)), None, unknown=True))
    return rows


def companion(config: Config, log: list[Row]) -> list[Row]:
    """Rows of `<model>_history`, the versions by the columns of type 4 alone."""
    four = [c for c, kind in config["columns"].items() if kind == 4]
    rows = []
    for key, changes in _changes(config, log).items():
        versions = _versions(config, _states(config, changes), four)
        for number, version in enumerate(versions, 1):
            row = _frame(config, key, number, version)
            row |= {column: version.states[0].image[column] for column in four}
            rows.append(row)
    return rows


def keys_of(config: Config) -> list[str]:
    """The columns of the natural key."""
    key = config["natural_key"]
    return [key] if isinstance(key, str) else list(key)


def sequence_of(config: Config) -> list[str]:
    """The columns that order the changes of a key."""
    default = "snapshot_at" if config.get("log") == "snapshots" else "valid_from"
    given = config.get("sequence_by") or config[default]
    return [given] if isinstance(given, str) else list(given)


def clock_of(config: Config) -> str:
    """The column with the time of a change."""
    return str(config.get("valid_from") or sequence_of(config)[0])


def holds(condition: str | None, row: Row) -> bool:
    """Whether `delete_when` and its like are true of a row."""
    if condition is None:
        return False
    told = re.fullmatch(r"(\w+) = '(\w+)'", condition)
    return row[told[1]] == told[2] if told else bool(row[condition])


def _sightings(config: Config, log: list[Row]) -> dict[Key, Any]:
    """The first time each key was referred to."""
    first: dict[Key, Any] = {}
    for row in log:
        if holds(config.get("sighting_when"), row):
            key = tuple(row[c] for c in keys_of(config))
            at = row[clock_of(config)]
            if None not in key:
                first[key] = min(first.get(key, at), at)
    return first


def _changes(config: Config, log: list[Row]) -> dict[Key, list[Change]]:
    """The changes of each key in the order in which they count (rule 1)."""
    found: dict[Key, list[Change]] = {}
    truncates = []
    for row in log:
        if holds(config.get("sighting_when"), row):
            continue
        if holds(config.get("truncate_when"), row):
            truncates.append(row)
            continue
        key = tuple(row[c] for c in keys_of(config))
        found.setdefault(key, []).append(_change(config, row, holds(config.get("delete_when"), row)))
    for changes in found.values():
        own = list(changes)
        if config.get("log") == "snapshots" and config.get("absent_is_delete", True):
            changes += _absences(config, own, log)
        for row in truncates:
            gone = _change(config, row, True)
            if any(change.place[0] <= gone.place[0] for change in own):
                changes.append(gone)
        changes.sort(key=lambda change: change.place)
    return found


def _change(config: Config, row: Row, deleted: bool) -> Change:
    image = {column: row[column] for column in config["columns"]}
    # Ties: a delete after what is none, then the values (nulls first), then the clock.
    values = tuple((image[c] is not None, image[c]) if image[c] is not None else (False,) for c in config["columns"])
    sequence = tuple(row[c] for c in sequence_of(config))
    clock = row[clock_of(config)]
    present = row[config["present_columns"]] if config.get("present_columns") else None
    return Change((sequence, deleted, values, clock), clock, deleted, image, present)


def _absences(config: Config, own: list[Change], log: list[Row]) -> list[Change]:
    """A delete at the first extract after one that had the key."""
    at = config["snapshot_at"]
    extracts = sorted({row[at] for row in log})
    there = {change.place[0][sequence_of(config).index(at)] for change in own}
    nothing = dict.fromkeys(config["columns"])
    return [
        Change(((following,), True, (), following), following, True, nothing, None)
        for this, following in pairwise(extracts)
        if this in there and following not in there
    ]


def _states(config: Config, changes: list[Change]) -> list[State]:
    """What was known from when on (rules 2, 4 and 6)."""
    states: list[State] = []
    image: Row | None = None
    clock = None
    for change in changes:
        clock = change.valid_from if clock is None else max(clock, change.valid_from)
        if change.deleted:
            shown = dict(image) if image is not None else _masked(change, None)
        else:
            image = _masked(change, image)
            shown = dict(image)
        if states and states[-1].valid_from == clock:
            states.pop()
        states.append(State(clock, change.deleted, shown))
    return states


def _masked(change: Change, before: Row | None) -> Row:
    """The image of a change, an absent column taken from the image before."""
    if change.present is None:
        return dict(change.image)
    present = {name.lower() for name in change.present}
    return {
        column: value if column.lower() in present else (before[column] if before else None)
        for column, value in change.image.items()
    }


def _versions(config: Config, states: list[State], tracked: list[str]) -> list[Version]:
    """Runs of states equal in the tracked columns (rule 3); with deletes='close' the living ones (rule 4)."""
    runs: list[list[State]] = []
    for state in states:
        last = runs[-1][-1] if runs else None
        if last and last.deleted == state.deleted and all(last.image[c] == state.image[c] for c in tracked):
            runs[-1].append(state)
        else:
            runs.append([state])
    ends = [*(run[0].valid_from for run in runs), None][1:]
    versions = [Version(run, end) for run, end in zip(runs, ends, strict=True)]
    if config.get("deletes", "close") == "close":
        versions = [v for v in versions if not v.states[0].deleted]
    return versions


def _frame(config: Config, key: Key, number: int, version: Version) -> Row:
    """What every row has beside its attributes (rule 5)."""
    start = version.states[0]
    row = dict(zip(keys_of(config), key, strict=True)) | {
        "version": number,
        "valid_from": start.valid_from,
        "valid_to": config.get("_open_end") if version.valid_to is None else version.valid_to,
        "is_current": version.valid_to is None and not start.deleted,
    }
    if config.get("deletes") == "keep":
        row["is_deleted"] = start.deleted
    return row


def _rows_of_key(config: Config, key: Key, changes: list[Change], first_seen: Any) -> list[Row]:
    columns: dict[str, int] = config["columns"]
    states = _states(config, changes)
    versions = _versions(config, states, [c for c, kind in columns.items() if kind in (2, 6)])
    rows = []
    for number, version in enumerate(versions, 1):
        row = _frame(config, key, number, version)
        if number == 1 and config.get("first_version_from", "change") == "beginning":
            row["valid_from"] = min(row["valid_from"], config.get("_beginning", BEGINNING))
        start, end, newest = version.states[0].image, version.states[-1].image, states[-1].image
        for column, kind in columns.items():
            if kind == 0:
                row[column] = next((s.image for s in states if not s.deleted), start)[column]
            elif kind in (1, 4):
                how = config.get("overwrite", "key") if kind == 1 else "key"
                row[column] = {"key": newest, "version": end, "start": start}[how][column]
            elif kind == 2:
                row[column] = start[column]
            elif kind == 3:
                row[column] = newest[column]
                others = [s.image[column] for s in states if not s.deleted and s.image[column] != newest[column]]
                row[f"previous_{column}"] = others[-1] if others else None
            elif kind == 6:
                row[column] = start[column]
                row[f"current_{column}"] = newest[column]
        rows.append(_flagged(config, row))
    if first_seen is not None and (not rows or first_seen < rows[0]["valid_from"]):
        rows.insert(0, _member(config, key, rows[0]["valid_from"] if rows else None, first_seen))
    return rows


def _member(config: Config, key: Key, valid_to: Any, first_seen: Any = None, unknown: bool = False) -> Row:
    """An inferred member, valid from the beginning or from when it was first seen, or the unknown one."""
    beginning = config.get("_beginning", BEGINNING)
    row = dict(zip(keys_of(config), key, strict=True)) | {"version": 0}
    for column, kind in config["columns"].items():
        row[column] = None
        row |= {f"previous_{column}": None} if kind == 3 else {f"current_{column}": None} if kind == 6 else {}
    row |= {
        "valid_from": beginning if first_seen is None else min(beginning, first_seen),
        "valid_to": config.get("_open_end") if valid_to is None else valid_to,
        "is_current": valid_to is None,
    }
    if config.get("deletes") == "keep":
        row["is_deleted"] = False
    return _flagged(config, row, inferred=not unknown, unknown=unknown)


def _flagged(config: Config, row: Row, inferred: bool = False, unknown: bool = False) -> Row:
    if config.get("sighting_when"):
        row["is_inferred"] = inferred
    if config.get("unknown_member"):
        row["is_unknown"] = unknown
    return row
