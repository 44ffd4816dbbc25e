"""Random logs in random batches: the incremental result is that of the oracle, and that of a full refresh.

Each example lives through a log's arrival: builds after each step, replays, replacements, builds that die before they
commit. Compared is after every build. The rules themselves are in `oracle`, the models and logs in `logs`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime
from itertools import pairwise, zip_longest
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.scd_harness import Harness, Model, Row
from tests.scd import oracle
from tests.scd.conftest import TOGETHER
from tests.scd.logs import KEYS_ARE_APART, KILLER, MODELS, SPOKEN, batches, renumbered, steps


def without_surrogate(model: Model, found: Iterable[Row]) -> list[Row]:
    """Rows less their surrogate key, which the oracle does not know."""
    key = model.config.get("surrogate_key", "version_key")
    return [{name: value for name, value in row.items() if name != key} for row in found]


def as_text(found: Iterable[Row]) -> list[str]:
    """Rows in an order and a form in which lists of them can be compared, and the difference read."""
    return sorted(", ".join(f"{name}={row[name]}" for name in sorted(row)) for row in found)


def build(harness: Harness, model: Model, **options: Any) -> None:
    """Build a model; it must succeed."""
    assert harness.build([model.name], **options) == {model.name: None}


class Life:
    """A model and its log, through the steps of an example."""

    def __init__(self, harness: Harness, model: Model) -> None:
        self.harness = harness
        self.model = model
        self.config = {**model.config, **SPOKEN.get(model.name, {})}
        self.log: dict[int, list[Row]] = {}

    def begin(self, first: dict[int, list[Row]]) -> None:
        """Forget what was there, take the first batch, or one of each history, build everything."""
        self.harness.change_logs({self.model.name: first}, {self.model.name: None})
        self.log = dict(first)
        build(self.harness, self.model, full_refresh=True)
        self.compare("the first build")

    def step(self, changed: dict[int, list[Row]]) -> None:
        """Replace batches of the log, and add those that are new."""
        old = [number for number in changed if number in self.log]
        self.harness.change_logs({self.model.name: changed}, {self.model.name: old})
        self.log |= changed

    def found(self, table: str = "") -> list[Row]:
        """The rows of the result, or of the companion."""
        return self.harness.read(self.model.name + table)

    def compare(self, when: str) -> None:
        """The result is what the oracle says, and its intervals are sound."""
        log = [row for batch in self.log.values() for row in batch]
        found = self.found()
        assert as_text(without_surrogate(self.model, found)) == as_text(oracle.history(self.config, log)), (
            f"{when}: {log}"
        )
        sound(self.config, found)
        if 4 in self.config["columns"].values():
            found = self.found("_history")
            assert as_text(without_surrogate(self.model, found)) == as_text(oracle.companion(self.config, log)), (
                f"{when}: {log}"
            )
            sound(self.config, found)

    def state(self) -> tuple[int, list[str], list[str]]:
        """All there is to see of the lake and the result."""
        return self.harness.snapshot(), as_text(self.found()), as_text(self.found("_history"))


def sound(config: dict[str, Any], found: list[Row]) -> None:
    """Keys are unique; intervals of a key neither overlap nor leave a gap but for deletes; one row is current."""
    surrogate = config.get("surrogate_key", "version_key")
    assert max(Counter(row[surrogate] for row in found).values(), default=1) == 1
    open_end = config.get("_open_end")
    may_gap = config.get("deletes", "close") == "close"
    by_key: dict[oracle.Key, list[Row]] = {}
    for row in found:
        by_key.setdefault(tuple(row[c] for c in oracle.keys_of(config)), []).append(row)
    for versions in by_key.values():
        versions.sort(key=lambda row: row["version"])
        first = versions[0]["version"]
        assert [row["version"] for row in versions] == list(range(first, first + len(versions)))
        for row, following in pairwise(versions):
            assert row["valid_from"] < row["valid_to"] <= following["valid_from"]
            assert may_gap or row["valid_to"] == following["valid_from"]
            assert not row["is_current"]
        last = versions[-1]
        is_open = last["valid_to"] == open_end
        assert last["is_current"] == (is_open and not last.get("is_deleted", False))
        assert is_open or may_gap


def live(life: Life, data: st.DataObject, histories: int) -> None:
    """Live through so many histories at once, step by step."""
    lives: list[list[dict[int, list[Row]]]] = []
    for number in range(histories):
        log = data.draw(batches(life.model), label=f"batches {number}")
        happening = [{0: log[0]}, *data.draw(steps(life.model, log), label=f"steps {number}")]
        lives.append([renumbered(step, number) for step in happening])
    first, *rest = (
        {n: batch for step in at_once for n, batch in step.items()} for at_once in zip_longest(*lives, fillvalue={})
    )
    life.begin(first)
    for number, step in enumerate(rest):
        life.step(step)
        # As often as each of the histories on its own would be.
        if data.draw(st.integers(1, 8), label="killed") > 8 - histories:
            die_before_commit(life)
        build(life.harness, life.model)
        life.compare(f"step {number}")
    before = life.state()
    refreshed = data.draw(st.booleans(), label="full refresh at the end")
    if not refreshed or histories > 1:
        build(life.harness, life.model)
        assert life.state() == before
    if refreshed or histories > 1:
        build(life.harness, life.model, full_refresh=True)
        assert life.state()[1:] == before[1:]


@pytest.mark.parametrize("name", [name for name in MODELS if name not in KEYS_ARE_APART])
@settings(settings.get_profile("scd"))
@given(data=st.data())
def test_incremental_is_full_is_what_the_rules_say(drawn: Harness, name: str, data: st.DataObject) -> None:
    live(Life(drawn, MODELS[name]), data, 1)


@pytest.mark.parametrize("name", KEYS_ARE_APART)
@settings(settings.get_profile("scd_alone"))
@given(data=st.data())
def test_where_keys_are_apart_it_is_so_for_one_history(drawn: Harness, name: str, data: st.DataObject) -> None:
    live(Life(drawn, MODELS[name]), data, 1)


@pytest.mark.parametrize("name", KEYS_ARE_APART)
@settings(settings.get_profile("scd_together"))
@given(data=st.data())
def test_where_keys_are_apart_it_is_so_for_several_at_once(drawn: Harness, name: str, data: st.DataObject) -> None:
    live(Life(drawn, MODELS[name]), data, TOGETHER)


def die_before_commit(life: Life) -> None:
    """A build whose transaction dies when all has been written: nothing of it is to be seen."""
    before = life.state()
    os.environ[KILLER] = "select error('killed')"
    try:
        message = life.harness.build([life.model.name])[life.model.name]
    finally:
        del os.environ[KILLER]
    assert message is not None
    assert "killed" in message
    assert life.state() == before


@pytest.mark.parametrize("name", MODELS)
def test_a_build_that_dies_leaves_all_as_it_was(harness: Harness, name: str) -> None:
    life = Life(harness, MODELS[name])
    life.begin({0: fixed_rows(life.model, 1)})
    life.step({1: fixed_rows(life.model, 2)})
    die_before_commit(life)
    build(harness, life.model)
    life.compare("after the death")


def fixed_rows(model: Model, number: int) -> list[Row]:
    """Two rows of a log, different for each number."""
    values: dict[str, Any] = {
        "j": 1, "seq": number, "ts": datetime(2024, 1, number), "taken": datetime(2024, 1, number), "num": number,
        "day": date(2024, 1, number), "gone": False, "wiped": False, "seen": False, "has": None,
        "a": f"a{number}", "b": f"b{number}", "c": number, "d": f"d{number}", "e": f"e{number}",
    }  # fmt: skip
    return [{column: values.get(column, key) for column in model.log} for key in ("A", "B")]
