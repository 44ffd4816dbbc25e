"""Letting go of old records of the embedded event log: never of one that a source has not read yet.

A Kafka lets go by its topics' retention, so nothing here is for it. How files are removed is the log's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sluice.contracts import Contract
from sluice.errors import EventLogError
from sluice.eventlog import Bounds
from sluice.eventlog.embedded import EmbeddedLog
from sluice.lake import Lake
from sluice.stream_positions import positions


@dataclass(frozen=True)
class LetGo:
    """What was done to one partition.

    Attributes:
        files: how many went.
        bounds: the offsets it still has.
        unread_by: sources that have yet to read records older than was asked for, which therefore stay.
    """

    partition: int
    files: int
    bounds: Bounds
    unread_by: tuple[str, ...]


def let_go(lake: Lake, contracts: Iterable[Contract], topic: str, before: datetime) -> list[LetGo]:
    """Let go of a topic's records of before a time, in whole files; the newest of each partition stays.

    Args:
        lake: whose positions tell what was read.
        contracts: all there are; those of the topic are asked.
        topic: of the embedded log.
        before: UTC; by the records' own times.

    Raises:
        EventLogError: there is no such topic, or the event log is a Kafka.
        EventLogUnavailableError: the log's files cannot be removed.
    """
    if lake.settings.uses_kafka:
        raise EventLogError(
            f"The event log is a Kafka, which lets go of records by itself: set retention.ms of the topic {topic}."
        )
    readers = [c for c in contracts if c.stream and c.stream.topic == topic]
    with EmbeddedLog(lake.settings.topics_path) as log:
        wanted = log.offsets_at(topic, before)
        identity = log.topic_id(topic)
        read: dict[str, dict[int, int]] = {}
        if readers:
            lake.create()
            with lake.reading() as con:
                for contract in readers:
                    # A position in a topic of that name which is no more says nothing of this one.
                    known = {p.partition: p for p in positions(con, contract).values() if p.topic_id == identity}
                    read[contract.name] = {number: known[number].next_offset or 0 for number in known}
        done = []
        for number, offset in wanted.items():
            unread = tuple(source for source, own in read.items() if own.get(number, 0) < offset)
            least = min([offset, *(own.get(number, 0) for own in read.values())])
            files = log.drop_before(topic, number, least)
            done.append(LetGo(number, files, log.bounds(topic)[number], unread))
        return done
