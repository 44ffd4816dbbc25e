"""Clients of a Kafka: how they are set up, and what their errors mean.

Belongs here: settings every client gets, the connection for questions, and which error says what to do. What is asked
of a Kafka belongs to `sluice.eventlog.kafka`, fetching records to `sluice.eventlog.kafka_reader`.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from sluice.errors import ConfigurationError, EventLogError, EventLogUnavailableError, SluiceError
from sluice.eventlog.protocol import unknown_topic

_T = TypeVar("_T")

# Kafka's own: positions of consumer groups, transactions.
_INTERNAL = "__"

# Only speaks when it cannot go on: what goes wrong is raised here, with the client's own words. `log_level` and `debug`
# among the settings make it talk.
_QUIET = {"log_level": 2}

_REFUSED = {
    KafkaError._AUTHENTICATION: "Mend the user or password in SLUICE_KAFKA.",
    KafkaError.SASL_AUTHENTICATION_FAILED: "Mend the user or password in SLUICE_KAFKA.",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "Grant the user the right to describe, read and write the topic.",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "Grant the user the right.",
    KafkaError.MSG_SIZE_TOO_LARGE: "Raise max.message.bytes of the topic, or send smaller records.",
    KafkaError.INVALID_TIMESTAMP: "Mend the records' times, or message.timestamp.after.max.ms of the topic.",
}
# Kafka says these itself may pass, or the client could not reach it.
PASSING = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._WAIT_COORD,
    KafkaError._RESOLVE,
    # None of the partitions asked for has a leader.
    KafkaError._NOENT,
    # A connection was given up that a question was waiting on; the next goes by another.
    KafkaError._DESTROY_BROKER,
    # Also what a broker says that is just coming up.
    KafkaError._SSL,
    KafkaError._PURGE_QUEUE,
    KafkaError._PURGE_INFLIGHT,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_CONTROLLER,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}
# Said of partitions whose brokers the client is about to look up anew, and of the group nobody joins.
LET_BE = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._DESTROY_BROKER,
    KafkaError._NOENT,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
}
UNKNOWN = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}

# Values of settings that a message may show.
_TOLD = {"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI"}


class Clients:
    """Clients of one Kafka, and what they say of their connections. Nothing is connected to until it is asked for.

    Args:
        settings: of librdkafka. They may hold passwords.
        patience: seconds without a sign of the brokers after which they count as unavailable.
    """

    def __init__(self, settings: Mapping[str, Any], patience: float) -> None:
        self._settings = {**_QUIET, **settings}
        self.patience = patience
        # What a client said of its connections last, for the message of the error that follows from it.
        self._said: KafkaError | None = None
        self._said_at = 0.0
        self._admin: AdminClient | None = None

    @property
    def name(self) -> str:
        """The brokers, which is what people call it."""
        return str(self._settings["bootstrap.servers"])

    def close(self) -> None:
        """Let go of the connection for questions; other clients are their makers' to close."""
        self._admin = None

    def topics(self) -> list[str]:
        """Names of the topics there are, Kafka's own left out, in order."""
        admin = self.administration()
        deadline = time.monotonic() + self.patience
        while True:
            try:
                # By the second: while it waits, the client does not tell that it is refused.
                found = admin.list_topics(timeout=min(self.patience, 1))
                return sorted(name for name in found.topics if not name.startswith(_INTERNAL))
            except KafkaException as error:
                admin.poll(0)
                self.refuse()
                if error.args[0].code() not in PASSING or time.monotonic() > deadline:
                    raise self.failed("Cannot list the topics", error.args[0]) from None

    def administration(self) -> AdminClient:
        """The client for questions; the same one each time."""
        if self._admin is None:
            self._admin = self.client(AdminClient, {"reconnect.backoff.max.ms": 1_000}, {})
        return self._admin

    def client(self, kind: Callable[[dict[str, Any]], _T], usual: Mapping[str, Any], fixed: Mapping[str, Any]) -> _T:
        """Make a client.

        Args:
            kind: of client.
            usual: settings that those of the user may change.
            fixed: settings that they may not.

        Raises:
            ConfigurationError: the client does not take the settings.
        """
        self._said = None
        try:
            return kind({**usual, **self._settings, **fixed, "error_cb": self._heard})
        except (KafkaException, TypeError, ValueError) as error:
            told = self._scrubbed(error.args[0].str() if isinstance(error, KafkaException) else str(error))
            raise ConfigurationError(f"SLUICE_KAFKA: Kafka's client does not take its settings: {told}") from None

    def _heard(self, error: KafkaError) -> None:
        # That no broker can be reached follows from what was said before, which tells why.
        if self._said is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._said, self._said_at = error, time.monotonic()

    def refuse(self) -> None:
        """Raise at once what the client would try again until its time is up."""
        if self._said is not None and self._said.code() in _REFUSED:
            said, self._said = self._said, None
            raise self.failed("Kafka lets nobody in", said)

    def result(self, request: concurrent.futures.Future[_T]) -> _T:
        """What a question to the brokers came to.

        Raises:
            EventLogError: they let nobody in.
            KafkaException: as the client says.
        """
        while not concurrent.futures.wait([request], timeout=0.1).done:
            # Only then it tells of its connections.
            self.administration().poll(0)
            self.refuse()
        return request.result()

    def failed(self, what: str, error: KafkaError | None, topic: str = "") -> SluiceError:
        """What went wrong, as the error that says whether to try again."""
        code = None if error is None else error.code()
        if topic and code in UNKNOWN:
            known = self.topics()
            if topic in known:
                return EventLogUnavailableError(
                    f"{what}: the topic {topic} of Kafka ({self.name}) was made anew meanwhile, or is just being made. "
                    "Try again."
                )
            return unknown_topic(topic, f"Kafka ({self.name})", known)
        told = "no answer" if error is None else self._scrubbed(error.str())
        if code in _REFUSED:
            return EventLogError(f"{what}: {told}. {_REFUSED[code]}")
        if error is None or code in PASSING or error.retriable():
            recent = self._said is not None and time.monotonic() - self._said_at < 2 * self.patience
            why = f" ({self._scrubbed(self._said.str())})" if self._said is not None and recent else ""
            return EventLogUnavailableError(
                f"{what}: Kafka ({self.name}) cannot be reached: {told}{why}. Look whether its brokers run, and "
                "whether SLUICE_KAFKA names them; then try again."
            )
        return EventLogError(f"{what}: {told} ({error.name()}). Look into the broker's log.")

    def _scrubbed(self, text: str) -> str:
        """A message of the client without any value of its settings that might be a secret, put in the wrong place."""
        for key, value in self._settings.items():
            if key != "bootstrap.servers" and isinstance(value, str) and value and value.upper() not in _TOLD:
                text = text.replace(value, "***")
        return text
