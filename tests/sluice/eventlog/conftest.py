"""What the modules about Kafka ask for: its log, and an administrator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient

from sluice.eventlog.kafka import KafkaLog
from tests.kafka import Broker


@pytest.fixture
def log(kafka: Broker) -> Iterator[KafkaLog]:
    """Topics of the session's Kafka. A module of another kind of log has a fixture of its own by this name."""
    with KafkaLog({"bootstrap.servers": kafka.brokers}) as opened:
        yield opened


@pytest.fixture
def admin(kafka: Broker) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.brokers})
