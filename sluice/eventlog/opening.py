"""Which event log the settings mean, opened. The only place that knows both implementations."""

from __future__ import annotations

from sluice.connections import kafka_client
from sluice.eventlog.embedded import EmbeddedLog
from sluice.eventlog.protocol import EventLog
from sluice.settings import Settings


def open_log(settings: Settings) -> EventLog:
    """The event log of these settings; close it (`with`), for Kafka keeps connections."""
    if settings.uses_kafka:
        # Only who uses Kafka loads its client.
        from sluice.eventlog.kafka import KafkaLog

        return KafkaLog(kafka_client(settings.kafka.get_secret_value()))
    return EmbeddedLog(settings.topics_path)
