"""The models the tests of history build, and random logs for them.

Between them the models use every option and every type. The logs are small and nasty: few keys, few instants, ties,
nulls, deletes of what never was, clocks against the sequence, sightings, truncates, partial events.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from sluice.scd_harness import Model, Row

# Rendered when the build runs: a test that wants a build to die before its commit sets the variable.
KILLER = "SCD_POST_HOOK"
POST_HOOK = "{{ env_var('" + KILLER + "', 'select 1') }}"

KINDS = {
    "k": "VARCHAR",
    "j": "INTEGER",
    "seq": "BIGINT",
    "ts": "TIMESTAMP",
    "taken": "TIMESTAMP",
    "num": "BIGINT",
    "day": "DATE",
    "gone": "BOOLEAN",
    "wiped": "BOOLEAN",
    "seen": "BOOLEAN",
    "has": "VARCHAR[]",
    "a": "VARCHAR",
    "b": "VARCHAR",
    "c": "INTEGER",
    "d": "VARCHAR",
    "e": "VARCHAR",
}

CONFIGS: dict[str, dict[str, Any]] = {
    "closing": {
        "natural_key": "k",
        "columns": {"a": 2, "b": 1},
        "sequence_by": ["seq"],
        "valid_from": "ts",
        "delete_when": "gone",
        "overwrite": "version",
    },
    "in_order_from_beginning": {
        "natural_key": "k",
        "columns": {"a": 2, "b": 1},
        "valid_from": "ts",
        "delete_when": "gone",
        "overwrite": "start",
        "sighting_when": "seen",
        "first_version_from": "beginning",
    },
    "in_order_keeping": {
        "natural_key": ["k", "j"],
        "columns": {"a": 2, "c": 2, "b": 1},
        "sequence_by": ["ts", "seq"],
        "valid_from": "ts",
        "delete_when": "gone",
        "deletes": "keep",
        "overwrite": "version",
    },
    "every_type": {
        "natural_key": ["k", "j"],
        "columns": {"a": 2, "b": 6, "c": 3, "d": 0, "e": 1},
        "sequence_by": ["seq"],
        "valid_from": "ts",
        "delete_when": "gone",
        "deletes": "keep",
        "surrogate_key": "thing_key",
    },
    "in_order_every_type": {
        "natural_key": "k",
        "columns": {"a": 2, "b": 6, "c": 3, "d": 0, "e": 1},
        "valid_from": "ts",
        "delete_when": "gone",
        "overwrite": "version",
    },
    "companion": {
        "natural_key": "k",
        "columns": {"a": 2, "b": 4, "c": 4},
        "sequence_by": ["num"],
        "valid_from": "num",
        "delete_when": "gone",
    },
    "partial": {
        "natural_key": "k",
        "columns": {"a": 2, "b": 1, "c": 3},
        "sequence_by": ["seq"],
        "valid_from": "ts",
        "delete_when": "gone",
        "truncate_when": "wiped",
        "present_columns": "has",
        "deletes": "keep",
        "overwrite": "version",
    },
    "truncated": {
        "natural_key": "k",
        "columns": {"a": 2, "b": 1},
        "valid_from": "day",
        "truncate_when": "wiped",
        "overwrite": "key",
    },
    "extracts": {
        "natural_key": "k",
        "columns": {"a": 2, "b": 1},
        "log": "snapshots",
        "snapshot_at": "taken",
        "overwrite": "version",
    },
    "extracts_kept": {
        "natural_key": "k",
        "columns": {"a": 2, "ts": 2, "b": 1, "d": 0},
        "log": "snapshots",
        "snapshot_at": "taken",
        "valid_from": "ts",
        "deletes": "keep",
        "overwrite": "start",
    },
    "sighted_apart": {
        "natural_key": "k",
        "columns": {"a": 2, "b": 1},
        "sequence_by": ["seq"],
        "valid_from": "ts",
        "delete_when": "gone",
        "sighting_when": "seen",
        "deletes": "keep",
        "open_end": "timestamp '2099-12-31'",
        "unknown_member": True,
    },
}

# Where a row concerns no key but its own, several histories can be lived through in one table, each with its own keys.
KEYS_ARE_APART = [
    name for name, config in CONFIGS.items() if "truncate_when" not in config and config.get("log") != "snapshots"
]

# What the oracle, which reads no SQL, has to be told beside the options.
SPOKEN = {"sighted_apart": {"_open_end": datetime(2099, 12, 31)}}


def _model(name: str, config: dict[str, Any]) -> Model:
    used: list[str] = []
    for option in (
        "natural_key", "columns", "sequence_by", "valid_from", "snapshot_at", "delete_when", "truncate_when",
        "sighting_when", "present_columns",
    ):  # fmt: skip
        value = config.get(option) or []
        used += [value] if isinstance(value, str) else list(value)
    log = {column: KINDS[column] for column in dict.fromkeys(used)}
    return Model(name, config, log, post_hook=POST_HOOK, sightings="seen" if name == "sighted_apart" else "")


MODELS = {name: _model(name, config) for name, config in CONFIGS.items()}

_START = datetime(2024, 1, 1)
_FEW = st.integers(0, 5)
_TEXTS = st.sampled_from([None, "x", "y"])
_RARELY = st.sampled_from([False, False, False, True])
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "k": st.sampled_from(["A", "A", "B", "C"]),
    "j": st.sampled_from([1, 1, 2]),
    "seq": _FEW,
    "ts": _FEW.map(lambda n: _START + timedelta(hours=n)),
    "taken": _FEW.map(lambda n: _START + timedelta(days=n // 2)),
    "num": _FEW,
    "day": _FEW.map(lambda n: date(2024, 1, 1) + timedelta(days=n)),
    "gone": _RARELY,
    "wiped": _RARELY,
    "seen": _RARELY,
    "has": st.none() | st.lists(st.sampled_from(["a", "b", "c"]), unique=True),
    "a": _TEXTS,
    "b": _TEXTS,
    "c": st.sampled_from([None, 1, 2]),
    "d": _TEXTS,
    "e": _TEXTS,
}


@st.composite
def rows(draw: st.DrawFn, model: Model) -> Row:
    """A row of a model's log."""
    row = {column: draw(_VALUES[column]) for column in model.log}
    if row.get("wiped"):
        row |= dict.fromkeys({"k", *model.config["columns"]} & set(row)) | ({"gone": False} if "gone" in row else {})
    if row.get("seen"):
        # A sighting knows a key, or not even that, and a time.
        row |= dict.fromkeys({"seq", "a", "b"} & set(row)) | {"gone": False, "k": draw(st.none() | _VALUES["k"])}
    return row


@st.composite
def batches(draw: st.DrawFn, model: Model) -> list[list[Row]]:
    """A log in the batches in which it arrives, in any order."""
    sizes = draw(st.lists(st.integers(0, 6), min_size=2, max_size=3))
    return [draw(st.lists(rows(model), min_size=size, max_size=size)) for size in sizes]


@st.composite
def steps(draw: st.DrawFn, model: Model, given: list[list[Row]]) -> list[dict[int, list[Row]]]:
    """What happens to the log after its first build: per step the batches that take the place of those so numbered.

    New batches arrive, one or two at a time. A replay adds the rows of a batch again, as a batch of its own; a
    replacement takes a batch out and puts other rows, or none, in its place.
    """
    made: list[dict[int, list[Row]]] = []
    waiting = list(range(1, len(given)))
    while waiting:
        number = draw(st.integers(1, len(waiting)))
        step = {n: given[n] for n in waiting[:number]}
        waiting = waiting[number:]
        happening = draw(st.sampled_from(["nothing", "nothing", "replay", "replace"]))
        if happening == "replay":
            step[100 + len(made)] = given[draw(st.integers(0, len(given) - 1))]
        elif happening == "replace":
            step[0] = draw(st.lists(rows(model), max_size=3)) + draw(st.sampled_from([[], given[0]]))
        made.append(step)
    return made


def renumbered(step: dict[int, list[Row]], history: int) -> dict[int, list[Row]]:
    """A step with the keys and the numbers of batches of one of several histories in one table."""
    return {
        1000 * history + number: [row if row["k"] is None else {**row, "k": f"{row['k']}{history}"} for row in batch]
        for number, batch in step.items()
    }
