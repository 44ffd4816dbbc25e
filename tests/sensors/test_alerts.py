"""A failed run is told of: which step, why, and through the command people set."""

import sys
from pathlib import Path

import dagster as dg
import pytest

from resources.notifier import Notifier
from sensors.alerts import alert_on_failure


@dg.asset
def falls() -> None:
    """Fails."""
    raise ValueError("the mill is broken; password=hunter2")


def alert(tmp_path: Path) -> None:
    """Let a run fail and the sensor see it."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([falls], instance=instance, raise_on_error=False)
        context = dg.build_run_status_sensor_context(
            sensor_name="alert_on_failure",
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            dagster_event=result.get_run_failure_event(),
            resources={"notifier": Notifier()},
        ).for_run_failure()
        alert_on_failure(context)


def test_the_command_gets_the_message_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    monkeypatch.setenv("SLUICE_ALERT_COMMAND", f"tee {told}")
    alert(tmp_path)
    text = told.read_text()
    assert "falls: " in text
    assert "the mill is broken" in text
    assert "hunter2" not in text


def test_a_dead_command_turns_the_tick_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_ALERT_COMMAND", f"{sys.executable} -c 'raise SystemExit(3)'")
    with pytest.raises(dg.Failure, match="ended with 3"):
        alert(tmp_path)
    monkeypatch.setenv("SLUICE_ALERT_COMMAND", "/nowhere/to/be/found")
    with pytest.raises(dg.Failure, match="could not run"):
        alert(tmp_path)


def test_without_a_command_the_log_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SLUICE_ALERT_COMMAND", raising=False)
    alert(tmp_path)
    assert "the mill is broken" in caplog.text
