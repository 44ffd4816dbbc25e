"""Which event log the settings mean, opened. The only place that knows both implementations."""

from __future__ import annotations

from sluice.eventlog.embedded import EmbeddedLog
from sluice.eventlog.protocol import EventLog
from sluice.settings import Settings


def open_log(settings: Settings) -> EventLog:
    """The event log of these settings."""
    return EmbeddedLog(settings.topics_path)
