"""Telling people: one message to wherever they listen. What is worth telling is decided in `sensors`."""

from __future__ import annotations

import logging
import shlex
import subprocess

import dagster as dg

from sluice.connections import scrub
from sluice.settings import load_settings

# A hook that hangs must not hold the sensor; chat and mail commands answer within seconds.
_HOOK_SECONDS = 30


class Notifier(dg.ConfigurableResource[None]):
    """Writes to the log and, where `SLUICE_ALERT_COMMAND` is set, pipes the message to that command."""

    def tell(self, title: str, message: str) -> str | None:
        """Tell; returns what went wrong with the command, None if nothing did. The log has the message either way."""
        text = f"{title}\n{scrub(message, load_settings().connection)}"
        logging.getLogger("sluice.alerts").error(text)
        command = load_settings().alert_command
        if not command:
            return None
        try:
            done = subprocess.run(
                shlex.split(command), input=text, text=True, capture_output=True, timeout=_HOOK_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"SLUICE_ALERT_COMMAND could not run: {error}"
        if done.returncode:
            return f"SLUICE_ALERT_COMMAND ended with {done.returncode}: {done.stderr.strip()[:500]}"
        return None
