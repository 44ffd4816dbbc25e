"""Who may: passwords, rights, and settings of the client that can be meant or cannot."""

from __future__ import annotations

import json
import time

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from sluice.connections import kafka_client
from sluice.errors import ConfigurationError, EventLogError
from sluice.eventlog import Message, open_log
from sluice.eventlog.kafka import KafkaLog
from sluice.settings import load_settings
from tests.kafka import PASSWORD, USER, Broker
from tests.sluice.eventlog.kafka_topics import ALL, made, read


def with_password(kafka: Broker) -> dict[str, str]:
    """Settings of the client for the listener that asks for a password."""
    return {
        "bootstrap.servers": f"127.0.0.1:{kafka.sasl_port}",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": USER,
        "sasl.password": PASSWORD,
    }


def test_a_password_lets_in_and_a_wrong_one_is_told_without_showing_it(kafka: Broker, log: KafkaLog) -> None:
    topic = made(log)
    given = with_password(kafka)
    settings = load_settings(kafka=json.dumps(given))
    assert PASSWORD not in repr(settings)
    with open_log(settings) as opened:
        assert isinstance(opened, KafkaLog)
        opened.append(topic, [Message(b"x")])
        assert [s.records.num_rows for s in opened.read(topic, {0: 0}, **ALL)] == [1]
        assert opened.name == f"127.0.0.1:{kafka.sasl_port}"
    wrong = "rowan-jelly-77"
    with KafkaLog(kafka_client(json.dumps(given | {"sasl.password": wrong}))) as refused:
        for call in (refused.topics, lambda: refused.bounds(topic), lambda: refused.append(topic, [Message(b"x")])):
            began = time.monotonic()
            with pytest.raises(EventLogError, match="SLUICE_KAFKA") as told:
                call()
            assert time.monotonic() - began < 15
            assert wrong not in str(told.value)
            assert USER not in str(told.value)


def test_rights_that_are_needed_and_rights_that_are_not(kafka: Broker, log: KafkaLog, admin: AdminClient) -> None:
    open_, closed = made(log), made(log)
    for topic in (open_, closed):
        log.append(topic, [Message(b"x")])

    def forbid(kind: ResourceType, name: str, operation: AclOperation) -> None:
        rule = AclBinding(
            kind, name, ResourcePatternType.LITERAL, f"User:{USER}", "*", operation, AclPermissionType.DENY
        )
        admin.create_acls([rule])[rule].result(30)

    forbid(ResourceType.GROUP, "sluice", AclOperation.ALL)
    forbid(ResourceType.TOPIC, closed, AclOperation.READ)
    forbid(ResourceType.TOPIC, closed, AclOperation.WRITE)
    with KafkaLog(with_password(kafka), patience=10) as other:
        assert read(other, open_, 0) == ([b"x"], 1)
        with pytest.raises(EventLogError, match="Grant the user the right"):
            other.read(closed, {0: 0}, **ALL)
        with pytest.raises(EventLogError, match="Grant the user the right"):
            other.append(closed, [Message(b"y")])
    assert read(log, closed, 0) == ([b"x"], 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nonsense", "neither host:port"),
        ("host:port", "neither host:port"),
        ("u:quince-9@h:9092", "neither host:port"),
        ('{"bootstrap.servers": "h:1", "sasl.password": "quince-9"', "no JSON"),
        ('{"sasl.password": "quince-9"}', "bootstrap.servers"),
        ('{"bootstrap.servers": "h:1", "isolation.level": "read_uncommitted"}', "isolation.level is not to be chosen"),
        ('{"bootstrap.servers": "h:1", "sasl.password": ["quince-9"]}', "sasl.password is neither a text"),
    ],
)
def test_settings_that_cannot_be_meant(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match="SLUICE_KAFKA") as error:
        load_settings(kafka=text)
    assert told in str(error.value)
    assert "quince" not in str(error.value)


@pytest.mark.parametrize("text", ["h:9092", "a.b:1, c-d:2", "[::1]:9092,127.0.0.1:9093"])
def test_brokers_that_can_be_meant(text: str) -> None:
    assert load_settings(kafka=text).uses_kafka
    assert kafka_client(text) == {"bootstrap.servers": text}


def test_what_the_client_refuses_is_told_without_values() -> None:
    for extra in (
        {"sasl.pasword": "quince-9"},
        {"security.protocol": "quince-9"},
        {"ssl.ca.location": "/quince-9"},
        {"stats_cb": "quince-9"},
        {"socket.timeout.ms": "quince-9"},
    ):
        log = KafkaLog({"bootstrap.servers": "127.0.0.1:1", "security.protocol": "SSL", **extra})
        with pytest.raises(ConfigurationError, match="SLUICE_KAFKA") as error:
            log.topics()
        assert "quince" not in str(error.value)
