"""Which change events go where in the log, and which are there already.

Debezium gives an event again after a restart, for it notes where it is only now and then. Three things make of that
exactly once:

1. It is told that records are processed only where a transaction ends, and only when all up to there is durably in the
   log. So it always goes on with the beginning of a transaction, and counts the events of each as the first time.
2. Each record has a place in the stream (`Position`) that is the same every time it is given.
3. What is not behind the newest place of its topic and partition, as read from the log itself, is there already.

A snapshot is never continued, only begun anew, and is preceded by a truncate event in each topic that holds something:
whoever reads the topic in order lets go of the rows that are in the table no more.

Plain Python, without Java: what calls it is `sluice.capture.engine`.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sluice.capture.configuration import Capture
from sluice.capture.database import MARK_PREFIX
from sluice.capture.progress import HEADER, OTHER_PREFIX, Position, last_positions
from sluice.errors import CaptureError
from sluice.eventlog import EventLog, Message

_SNAPSHOT = ("true", "first", "first_in_data_collection", "last_in_data_collection", "last")


@dataclass(frozen=True)
class Record:
    """What Debezium gives: where it wants it, key and value as JSON texts, headers."""

    destination: str
    key: str | None
    value: str | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Writer:
    """Writes what Debezium gives into the topics of a capture.

    Attributes:
        snapshot: where the snapshot was taken that the stream goes on from; None until one is finished.
        marks: tokens of the marks read so far; all that was committed before such a mark is in the log, and may be
            noted as processed.
        written: records appended.
        skipped: records that were there already.
    """

    def __init__(self, log: EventLog, capture: Capture, snapshot: int | None) -> None:
        """Of a snapshot that is in the log already, where it was taken; None: what comes first is a snapshot."""
        self.snapshot = snapshot
        self.marks: set[str] = set()
        self.written = self.skipped = 0
        self._log, self._capture = log, capture
        self._topics = {capture.topic(*table): table for table in capture.tables}
        there = set(log.topics())
        self._last = {t: last_positions(log, t, capture.name) for t in self._topics if t in there}
        self._partitions = {t: len(log.bounds(t)) for t in self._topics if t in there}
        self._open: int | None = None  # where the snapshot under way was taken
        self._inside = False  # of a transaction
        self._before: Position | None = None
        self._begun: set[str] = set()  # marks of the transaction under way
        self._ended: set[str] = set()  # marks of transactions that ended in the batch under way
        self._waiting: dict[tuple[str, int], list[Message]] = {}

    def take(self, records: Sequence[Record]) -> list[int]:
        """Append what is new of some records, durably.

        Returns:
            Which of them Debezium may note as processed, by their numbers: all before each is in the log, and a restart
            from there begins with a whole transaction.

        Raises:
            CaptureError: what came cannot be put in order.
            EventLogError, EventLogUnavailableError: as the log; nothing may be noted as processed then.
        """
        self._waiting = {}
        safe = [number for number, record in enumerate(records) if self._take(record)]
        for (topic, partition), messages in self._waiting.items():
            self._log.append(topic, messages, partition=partition)
            self.written += len(messages)
        if safe:
            self.marks |= self._ended
            self._ended = set()
        return safe

    def _take(self, record: Record) -> bool:
        """Take one record; true where a restart may begin behind it."""
        prefix = self._capture.prefix
        if record.destination == f"{prefix}.transaction":
            event = _event(record)
            self._close_snapshot(event)
            self._inside = event["status"] == "BEGIN"
            if not self._inside:
                self._ended |= self._begun
            self._begun = set()
            return not self._inside
        if record.destination == f"{prefix}.message":
            message = _event(record)["message"]
            if message["prefix"] == MARK_PREFIX:
                self._begun.add(_text(message["content"]))
            return False
        if record.destination not in self._topics:
            # A heartbeat: it tells how far the stream has been read.
            beats = record.destination.startswith("__debezium-heartbeat")
            return beats and not self._inside and self._open is None and self.snapshot is not None
        if record.value is None:
            if self._before is not None:
                self._put(record, self._before._replace(step=1), None, skip=self._open is None)
            return False
        event = _event(record)
        source = event["source"]
        if str(source.get("snapshot")).lower() in _SNAPSHOT:
            return self._take_snapshot(record, source)
        transaction = event.get("transaction") or {}
        if not self._inside or "total_order" not in transaction:
            raise CaptureError(
                f"An event of {record.destination} came outside a transaction, so that its order is not known. Leave "
                "provide.transaction.metadata to Sluice."
            )
        self._before = Position(self._commit(source), int(transaction["total_order"]))
        self._put(record, self._before, record.value, skip=True)
        return False

    def _take_snapshot(self, record: Record, source: dict[str, Any]) -> bool:
        at = int(source["lsn"])
        if self._open is None:
            self._begin_snapshot(at, source)
        assert self._open is not None
        self._before = Position(self._open, 0)
        self._put(record, self._before, record.value, skip=False)
        if str(source["snapshot"]).lower() != "last":
            return False
        self._close_snapshot(None)
        return True

    def _begin_snapshot(self, at: int, source: dict[str, Any]) -> None:
        newest = max((p.commit for each in self._last.values() for p in each.values()), default=0)
        if at < newest:
            raise CaptureError(
                f"The snapshot was taken at {at}, but the log holds changes up to {newest}: the database's log began "
                "anew, as after a restore from a backup or a fail-over that lost something. Places of both have no "
                "order. " + OTHER_PREFIX.format(name=self._capture.name)
            )
        self._open = at
        for topic, (schema, table) in self._topics.items():
            if self._last.get(topic):
                self._put(Record(topic, None, None), Position(at, -1), _truncate(source, schema, table), skip=False)

    def _close_snapshot(self, transaction: dict[str, Any] | None) -> None:
        """The snapshot is over, at the latest with the beginning of a transaction."""
        if self._open is None and self.snapshot is None and transaction is not None:
            # All tables were empty: no row says where it was taken, but what they held before ends all the same.
            newest = max((p.commit for each in self._last.values() for p in each.values()), default=0)
            at = max(newest, int(transaction["id"].rpartition(":")[2]))
            own = {"connector": "postgresql", "name": self._capture.prefix, "ts_ms": transaction["ts_ms"], "lsn": at}
            self._begin_snapshot(at, own)
        if self._open is not None:
            self.snapshot, self._open = self._open, None

    def _commit(self, source: dict[str, Any]) -> int:
        """End of the last commit before this event's transaction.

        Of the first transaction after a snapshot Debezium knows none: it is the place of the snapshot, which its own
        changes may lie before.
        """
        before = json.loads(source["sequence"])[0]
        if before is not None:
            return int(before)
        assert self.snapshot is not None, "a transaction has begun"
        return self.snapshot

    def _put(self, record: Record, place: Position, value: str | None, *, skip: bool) -> None:
        topic = record.destination
        if topic not in self._partitions:
            self._log.create(topic, self._capture.partitions)
            self._partitions[topic] = len(self._log.bounds(topic))
        key = None if record.key is None else record.key.encode()
        # As the embedded log does it, whatever the log: what is there already is known by partition. Without a key
        # comes a truncate, which concerns every one, or a table without a key.
        partition = 0 if key is None else zlib.crc32(key) % self._partitions[topic]
        last = self._last.setdefault(topic, {}).get(partition)
        if skip and last is not None and place <= last:
            self.skipped += 1
            return
        self._last[topic][partition] = place
        headers = (*record.headers, (HEADER, place.encode()))
        text = None if value is None else _placed(value, place).encode()
        self._waiting.setdefault((topic, partition), []).append(Message(text, key, headers=headers))


def _event(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record.value or "{}")
    return found


def _placed(value: str, place: Position) -> str:
    """An envelope with its place, as contracts order by it; the rest is as Debezium wrote it."""
    return f'{value[:-1]},"position":{{"commit":{place.commit},"order":{place.order}}}}}'


def _truncate(source: dict[str, Any], schema: str, table: str) -> str:
    """The envelope of a truncate that says: what this table held counts no more, a snapshot of it follows."""
    own = {**source, "schema": schema, "table": table, "snapshot": "first"}
    event = {"before": None, "after": None, "source": own, "transaction": None, "op": "t", "ts_ms": source["ts_ms"]}
    return json.dumps(event, separators=(",", ":"))


def _text(content: str) -> str:
    """The content of a message of the database's log, which Debezium gives in base 64."""
    return base64.b64decode(content).decode("utf-8", "replace")
