"""Topics of a Kafka that several test modules share: made under names of their own, and read."""

from __future__ import annotations

import itertools

from sluice.eventlog.kafka import KafkaLog

# All that is there, in one read.
ALL = {"max_rows": 1_000_000, "max_bytes": 1 << 40}

_numbers = itertools.count()


def new_name() -> str:
    """A name no other topic of the session has."""
    return f"kafka-{next(_numbers)}"


def made(log: KafkaLog, partitions: int = 1) -> str:
    """A new topic, and its name."""
    topic = new_name()
    log.create(topic, partitions)
    return topic


def read(log: KafkaLog, topic: str, start: int, partition: int = 0) -> tuple[list[bytes | None], int]:
    """Values from an offset to the end, and where the next read begins."""
    found = log.read(topic, {partition: start}, **ALL)
    assert len(found) < 2
    return (found[0].records.column("value").to_pylist(), found[0].stop) if found else ([], start)
