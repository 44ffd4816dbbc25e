"""The circuit breaker: when it opens and closes, and that processes share it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pybreaker
import pytest

from sluice.errors import ConfigurationError, RestAnswerError, RestUnavailableError
from sluice.rest.breaker import breaker
from sluice.rest.client import _is_harmless
from sluice.rest.state import State
from sluice.settings import PROJECT
from tests.rest_server import NOW, FakeClock, until

NAME = "things@api.example.com:443"


def make(path: Path, clock: FakeClock | None = None, **options: Any) -> pybreaker.CircuitBreaker:
    given: dict[str, Any] = {"failures": 3, "reset": 60, "probe": 30, "harmless": _is_harmless} | options
    return breaker(State(path), NAME, clock=clock or FakeClock(), **given)


def fail(message: str = "it answers 500") -> None:
    raise RestUnavailableError(message)


def failing(b: pybreaker.CircuitBreaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(RestUnavailableError):
            b.call(fail)


def test_it_opens_after_failures_in_a_row_tries_once_and_closes(tmp_path: Path) -> None:
    clock = FakeClock()
    b = make(tmp_path / "s", clock)
    failing(b, 2)
    b.call(lambda: None)
    failing(b, 3)
    assert b.current_state == "open"
    (row,) = State(tmp_path / "s").breakers("things")
    assert (row.failures, row.opened_at, row.tries_at, row.last_error) == (3, NOW, NOW + 60, "it answers 500")
    with pytest.raises(pybreaker.CircuitBreakerError):
        b.call(fail)
    clock.sleep(61)
    failing(b, 1)  # the one that tries
    assert b.current_state == "open"
    with pytest.raises(pybreaker.CircuitBreakerError):
        b.call(fail)
    clock.sleep(61)
    assert b.call(lambda: "answer") == "answer"
    assert b.current_state == "closed"
    assert State(tmp_path / "s").breakers("things")[0].opened_at is None


def test_a_service_that_answers_is_well_whatever_it_answers(tmp_path: Path) -> None:
    b = make(tmp_path / "s")

    def harmless(error: Exception) -> None:
        raise error

    for error in (RestAnswerError("x"), ConfigurationError("x"), RestUnavailableError("x", throttled=True)):
        failing(b, 2)
        with pytest.raises(type(error)):
            b.call(harmless, error)
        assert b.current_state == "closed"


def test_an_interrupted_probe_opens_it_again(tmp_path: Path) -> None:
    clock = FakeClock()
    b = make(tmp_path / "s", clock)
    failing(b, 3)
    clock.sleep(61)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        b.call(interrupted)
    assert b.current_state == "open"


def test_while_one_tries_the_others_are_held_off_and_one_that_died_is_followed(tmp_path: Path) -> None:
    clock = FakeClock()
    one, other = make(tmp_path / "s", clock), make(tmp_path / "s", clock)
    failing(one, 3)
    clock.sleep(61)

    def meanwhile() -> str:
        with pytest.raises(pybreaker.CircuitBreakerError):
            other.call(lambda: "through")
        # As if the one that tries had died: its time is over.
        clock.sleep(31)
        assert other.call(lambda: "through") == "through"
        return "done"

    assert one.call(meanwhile) == "done"
    assert one.current_state == other.current_state == "closed"


def test_a_probe_that_failed_meanwhile_is_no_leave_to_try(tmp_path: Path) -> None:
    clock = FakeClock()
    one, other = make(tmp_path / "s", clock), make(tmp_path / "s", clock)
    failing(one, 3)
    clock.sleep(61)
    # The other has looked, found the time over, and was overtaken.
    storage = other._state_storage
    assert storage.opened_at is not None
    failing(one, 1)
    storage.state = pybreaker.STATE_HALF_OPEN
    assert storage.state == "open"


_OTHER = """
import sys
from pathlib import Path
from sluice.errors import RestUnavailableError
from sluice.rest.breaker import breaker
from sluice.rest.client import _is_harmless
from sluice.rest.state import State
import pybreaker
path, calls, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
b = breaker(State(Path(path)), "things@api.example.com:443", failures=10, reset=0.5, probe=600, harmless=_is_harmless)
def call():
    print("through", flush=True)
    if what == "wait":
        sys.stdin.read()
    if what == "fail":
        raise RestUnavailableError("it answers 500")
for _ in range(calls):
    try:
        b.call(call)
    except RestUnavailableError:
        pass
    except pybreaker.CircuitBreakerError:
        print("held off", flush=True)
"""


def other(path: Path, calls: int, what: str) -> subprocess.Popen[str]:
    """Another process that calls, to `fail`, to succeed, or to `wait` within its call until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", _OTHER, str(path), str(calls), what],
        cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def said(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.split("\n")[:-1]


def test_processes_count_failures_together_and_one_of_them_tries(tmp_path: Path) -> None:
    path = tmp_path / "s"
    # Five each at the same time: no count is lost, and ten open it.
    for words in [said(p) for p in [other(path, 5, "fail"), other(path, 5, "fail")]]:
        assert words == ["through"] * 5
    (row,) = State(path).breakers("things")
    assert (row.state, row.failures) == ("open", 10)
    until(lambda: row.tries_at is not None and __import__("time").time() > row.tries_at)
    # Half open: of two that ask, one is let through, the other held off until it is known.
    first = other(path, 1, "wait")
    assert first.stdout is not None and first.stdout.readline() == "through\n"
    assert said(other(path, 3, "good")) == ["held off"] * 3
    said(first)
    assert State(path).breakers("things")[0].state == "closed"
    assert said(other(path, 1, "good")) == ["through"]


def test_turns_are_taken_in_order_and_one_too_late_is_left(tmp_path: Path) -> None:
    state = State(tmp_path / "s")
    assert [state.take_turn("a", 100.0, 2.0, most=60) for _ in range(3)] == [0, 2, 4]
    assert [state.take_turn("a", 100.0, 2.0, most=5) for _ in range(2)] == [6, 6]
    assert state.take_turn("b", 100.0, 2.0, most=60) == 0
    state.hold("a", 300.0)
    assert state.take_turn("a", 101.0, 2.0, most=600) == 199


def test_a_reset_closes_and_forgets(tmp_path: Path) -> None:
    state = State(tmp_path / "s")
    b = make(tmp_path / "s")
    failing(b, 3)
    state.hold(NAME, NOW + 1000)
    state.note_good("things", "2026-01-01", NOW, 3)
    for day in ("2026-01-01", "2026-01-02"):
        state.note_bad("things", day, NOW, "no")
    state.note_bad("thing", "2026-01-01", NOW, "another source")
    state.reset("things")
    assert make(tmp_path / "s").call(lambda: 1) == 1
    assert state.take_turn(NAME, NOW, 0, most=1) == 0
    assert [(r.partition_key, r.failing_since) for r in state.fetches("things")] == [("2026-01-01", None)]
    assert len(state.fetches("thing")) == 1


def test_a_damaged_file_is_one_clear_message(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("this is no database, and long enough for SQLite to look at it " * 20)
    with pytest.raises(ConfigurationError, match="remove it: nothing but their state is lost"):
        make(path)
