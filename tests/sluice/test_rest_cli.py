"""`sluice fetch` and `sluice rest`: what they print, and their exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sluice.cli import main
from sluice.simulation.rates_api import RatesApi, rates, serving


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RatesApi]:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    (tmp_path / "home/landing").mkdir(parents=True)
    with serving() as server:
        monkeypatch.setenv("RATES_API_URL", server.url)
        yield server


def test_it_fetches_days_and_spans_and_yesterday_by_default(api: RatesApi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "exchange_rates", "--date", "2026-01-05", "--date", "2026-01-09..2026-01-10"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("2026-01-05: 8 rows (1 requests, ")
    assert "2026-01-10: no rows" in out
    assert main(["fetch", "exchange_rates", "--date", "2026-01-05"]) == 0
    assert "as before" in capsys.readouterr().out
    assert main(["rest", "status"]) == 0
    assert "exchange_rates: fresh: last good fetch" in capsys.readouterr().out
    api.asked.clear()
    assert main(["fetch", "exchange_rates"]) == 0
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=n) for n in (4, 3, 2, 1)]
    assert [path.split("?")[0].rpartition("/")[2] for path in api.asked] == [d.isoformat() for d in days]


def test_what_a_person_must_mend_exits_with_1_and_what_may_pass_with_75(
    api: RatesApi, capsys: pytest.CaptureFixture[str]
) -> None:
    days = ["--date", "2026-01-05..2026-01-07"]
    api.faults = ["unauthorized"]
    assert main(["fetch", "exchange_rates", *days]) == 1
    said = capsys.readouterr()
    assert "2026-01-05: http://127.0.0.1" in said.err and "2 more not tried, from 2026-01-06" in said.err
    assert "what was fetched before stays" in said.err
    assert main(["rest", "reset", "exchange_rates"]) == 0
    api.faults = ["throttle"]
    assert main(["fetch", "exchange_rates", "--date", "2026-01-05"]) == 75
    assert main(["rest", "status", "exchange_rates"]) == 1
    out = capsys.readouterr().out
    assert "never fetched" in out and "closed, 0 failures" in out and "2026-01-05 fails since" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fetch", "orders"], "There is no contract 'orders' with `rest`. Those are: exchange_rates."),
        (["fetch", "exchange_rates", "--date", "2020-01-01"], "2020-01-01 is no partition"),
        (["rest", "reset", "nothing"], "no contract 'nothing'"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    api: RatesApi, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert words in capsys.readouterr().err and api.asked == []


@pytest.mark.parametrize("day", ["yesterday", "2026-01-09..2026-01-05", "1900-01-01..2026-01-01"])
def test_a_day_that_is_none_is_refused(api: RatesApi, day: str) -> None:
    with pytest.raises(SystemExit):
        main(["fetch", "exchange_rates", "--date", day])


def test_rates_are_a_function_of_seed_and_day() -> None:
    monday = datetime(2026, 1, 5).date()
    assert rates(monday) == rates(monday) != rates(monday, seed=8)
    assert len(rates(monday)) == 8 and rates(monday - timedelta(days=1)) == []
