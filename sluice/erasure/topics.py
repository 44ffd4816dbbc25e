"""The embedded event log without the person: messages rewritten where they stand, at the offsets they have.

A message about the person keeps its place and loses key, value and headers, so that every other offset stays what it
is; one that outlives the person loses what says whose it was. A Kafka's topics are not reached: they let go of messages
by their retention or compaction, and its owner's tools remove them earlier.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sluice.contracts import Contract
from sluice.erasure.lines import without
from sluice.erasure.person import Person, Place
from sluice.erasure.spelling import Finder
from sluice.errors import EventLogUnavailableError
from sluice.eventlog.embedded import EmbeddedLog
from sluice.eventlog.protocol import RECORDS
from sluice.records.messages import ERASED_HEADER
from sluice.settings import Settings

Headers = list[dict[str, Any]] | None
_log = logging.getLogger(__name__)

_Message = tuple[bytes | None, bytes | None, Headers]


@dataclass(frozen=True)
class TopicsOf:
    """Which topics name such people, and which belong to sources that do not; all others may hold anything."""

    places: Mapping[str, Place]
    others: frozenset[str]


def topics_of(contracts: Iterable[Contract], where: Iterable[Place]) -> TopicsOf:
    """Told apart by the contracts."""
    places = {p.contract.stream.topic: p for p in where if p.contract.stream}
    known = {c.stream.topic for c in contracts if c.stream}
    return TopicsOf(places, frozenset(known - places.keys()))


def clean(settings: Settings, known: TopicsOf, person: Person) -> int:
    """Rewrite every message of the embedded log that holds the person; how many. May be run again at any time.

    A topic that this account may not read or write is left to the search, which names it.
    """
    log = EmbeddedLog(settings.topics_path)
    done = 0
    for topic in topic_names(settings):
        try:
            for partition in log.bounds(topic):

                def change(table: pa.Table, topic: str = topic) -> tuple[pa.Table, int]:
                    return _without(table, known, topic, person)

                done += log.rewrite(topic, partition, change)
        except EventLogUnavailableError as error:
            _log.info("%s was not rewritten: %s", topic, error)
    return done


def topic_names(settings: Settings) -> list[str]:
    """The topics of the embedded log.

    Raises:
        EventLogUnavailableError: they cannot be listed.
    """
    return EmbeddedLog(settings.topics_path).topics()


def hits(settings: Settings, known: TopicsOf, topic: str, person: Person) -> tuple[int, int, int]:
    """Of a topic: messages, those that name the person, and those in which the same digits mean something else.

    Raises:
        EventLogUnavailableError: it cannot be read.
    """
    log = EmbeddedLog(settings.topics_path)
    read = found = other = 0
    for partition in log.bounds(topic):
        for table in log.tables(topic, partition):
            read += table.num_rows
            for row in _rows(table):
                if _message(row, known, topic, person) is not None:
                    found += 1
                elif topic in known.others and any(person.tokens.is_in(part) for part in _parts(row)):
                    other += 1
    return read, found, other


def _without(table: pa.Table, known: TopicsOf, topic: str, person: Person) -> tuple[pa.Table, int]:
    """The records without the person, and how many have changed; the same table where none has."""
    # Row by row, as landing files are: what is a person's in a record the contract says, and it happens seldom.
    rows = list(_rows(table))
    changed = {n: new for n, row in enumerate(rows) if (new := _message(row, known, topic, person)) is not None}
    if not changed:
        return table, 0
    made = [changed.get(n, row) for n, row in enumerate(rows)]
    columns = {
        "offset": table.column("offset"),
        "timestamp_ms": table.column("timestamp_ms"),
        "key": pa.array([m[0] for m in made], pa.binary()),
        "value": pa.array([m[1] for m in made], pa.binary()),
        "headers": pa.array([m[2] for m in made], RECORDS.field("headers").type),
    }
    return pa.table(columns, schema=RECORDS), len(changed)


def _rows(table: pa.Table) -> Iterator[_Message]:
    columns = (table.column(name).to_pylist() for name in ("key", "value", "headers"))
    return zip(*columns, strict=True)


def _parts(row: _Message) -> Iterator[bytes]:
    """The bytes of a message that may say something."""
    key, value, headers = row
    yield from (part for part in (key, value, *(h["value"] for h in headers or ())) if part is not None)


def _message(row: _Message, known: TopicsOf, topic: str, person: Person) -> _Message | None:
    """A message without the person; None if they are not in it."""
    key, value, headers = row
    place = known.places.get(topic)
    text = None if value is None or place is None else _text(value)
    line = None if text is None or place is None else without(place, person, text, "jsonl", None)
    made: _Message
    if line is not None and line.verdict != "other":
        left = line.text.encode("utf-8", "surrogateescape")
        if not left.strip():
            return None, None, [{"name": ERASED_HEADER, "value": b"1"}]
        made = (_blanked(key, person.tokens), left, _headers(headers, person.tokens))
    elif place is not None:
        # What was taken apart is about somebody else, a key or a header may still name them; what is no text may be
        # about anybody.
        inner = person.value_tokens if line is not None else person.tokens
        made = (_blanked(key, person.tokens), _blanked(value, inner), _headers(headers, person.tokens))
    else:
        # Of a source that names no such people an equal id is something else there, a value of theirs is not.
        finder = person.value_tokens if topic in known.others else person.tokens
        made = (_blanked(key, finder), _blanked(value, finder), _headers(headers, finder))
    return made if made != row else None


def _text(value: bytes) -> str | None:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _headers(headers: Headers, finder: Finder | None) -> Headers:
    return [{**h, "value": _blanked(h["value"], finder)} for h in headers] if headers else headers


def _blanked(data: bytes | None, finder: Finder | None) -> bytes | None:
    return data if data is None or finder is None else finder.blanked(data)
