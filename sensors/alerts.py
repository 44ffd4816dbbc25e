"""Telling people that a run failed."""

import dagster as dg

from resources.notifier import Notifier


@dg.run_failure_sensor(
    name="alert_on_failure",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    description="Tells the log, and the command in SLUICE_ALERT_COMMAND, of every failed run.",
)
def alert_on_failure(context: dg.RunFailureSensorContext, notifier: Notifier) -> None:
    """One message per failed run, with the steps that failed and why."""
    problem = notifier.tell(*failure_message(context))
    if problem:
        # The tick is then red, so that a dead alert hook is seen.
        raise dg.Failure(problem)


def failure_message(context: dg.RunFailureSensorContext) -> tuple[str, str]:
    """Title and text of the alert."""
    run = context.dagster_run
    lines = [context.failure_event.message or "no message"]
    for event in context.get_step_failure_events():
        data = event.event_specific_data
        error = getattr(data, "error", None)
        cause = getattr(error, "cause", None) or error
        lines.append(f"{event.step_key}: {(cause.message if cause else event.message or '').strip()}")
    tags = {k: v for k, v in sorted(run.tags.items()) if not k.startswith((".dagster", "dagster/")) or "partition" in k}
    lines.append(f"Run {run.run_id}; {tags}" if tags else f"Run {run.run_id}")
    return f"Sluice: run of {run.job_name} failed", "\n".join(lines)
