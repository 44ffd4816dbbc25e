"""What people do with a capture: let it run, see how far it is, have it begin anew.

Each checks the database first, so that what is wrong is told in words and not in a stack trace of Java.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType

from sluice.capture.configuration import Capture
from sluice.capture.database import Database, Slot, connected
from sluice.capture.engine import Engine, offsets_after_commit, properties, start_java, stored_offsets
from sluice.capture.progress import HEADER, Position, Progress
from sluice.capture.slots import LOST, other_begin, other_prefix, trouble
from sluice.capture.writer import Writer
from sluice.connections import password_of, scrub
from sluice.errors import CaptureError, SluiceError
from sluice.eventlog import EventLog, open_log
from sluice.settings import Settings

# How long a mark may take to come before another is written: the first may have been before the slot was made.
_MARK_SECONDS = 2.0
# How often a run looks whether its tables are still those it has begun with: one small question to the database.
_LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Status:
    """How far a capture is.

    Attributes:
        stage: `new`, `snapshot` or `streaming`.
        running: whether it is at work now.
        slot: the replication slot; None if it is not there, or not known.
        lag_bytes: of the database's log, written and not confirmed as captured; None without a slot.
        topics: of each topic its records, and when the newest was committed in the source (UTC; None if empty).
        trouble: what is wrong, if anything.
        reached: whether the database was asked; else slot and lag are not known.
    """

    capture: Capture
    stage: str
    running: bool
    slot: Slot | None
    lag_bytes: int | None
    topics: tuple[tuple[str, int, datetime | None, Position | None], ...]
    trouble: str | None
    reached: bool = True


@dataclass(frozen=True)
class Captured:
    """What a run did: records appended, and records given again that were there already."""

    written: int
    skipped: int


def run(settings: Settings, capture: Capture, *, once: bool = False, seconds: float | None = None) -> Captured:
    """Capture until stopped by SIGTERM or SIGINT.

    Args:
        settings: where the event log is, and the capture's folder.
        capture: which.
        once: end when all is in the log that was committed before the call.
        seconds: end after so long.

    Raises:
        ConfigurationError: Java, Debezium or the connection is missing.
        CaptureError: the database is not set up for it, the slot was lost, or the capture runs already.
        CaptureUnavailableError: the database cannot be reached.
        EventLogError, EventLogUnavailableError: as the log.
    """
    progress = Progress(settings, capture)
    log = open_log(settings)
    with progress.alone(), _stopping() as stop, connected(capture) as database:
        start_java(progress.folder)
        database.check(streaming=progress.stage == "streaming")
        _ready(capture, progress, database)
        writer = Writer(log, capture, progress.snapshot)
        noted_marks: set[str] = set()

        def noted() -> None:
            progress.keep_offsets()
            if progress.stage != "streaming" and writer.snapshot is not None:
                progress.streaming(writer.snapshot)
            noted_marks.update(writer.marks)

        def look() -> None:
            wrong = other_begin(capture, progress, database.numbers()) if progress.stage == "streaming" else None
            if wrong is not None:
                raise CaptureError(wrong)

        connection = capture.connection_string()
        password = password_of(connection) or os.environ.get("PGPASSWORD", "")
        engine = Engine(properties(capture, connection, password, progress.offsets), writer.take, noted)
        engine.start()
        try:
            _wait(engine, noted_marks, database, look, stop, once, seconds)
        finally:
            engine.close()
        if engine.error is not None:
            if isinstance(engine.error, SluiceError) and not isinstance(engine.error, CaptureError):
                raise engine.error
            said = scrub(str(engine.error), connection)
            raise CaptureError(
                f"The capture {capture.name} ended: {said}. What is in the log stays; run it again. Debezium's own "
                f"words are in {progress.folder / 'debezium.log'}."
            ) from engine.error
        return Captured(writer.written, writer.skipped)


def status(settings: Settings, capture: Capture) -> Status:
    """How far a capture is.

    Raises:
        ConfigurationError, CaptureError, CaptureUnavailableError: as `run`.
    """
    progress = Progress(settings, capture)
    log = open_log(settings)
    with connected(capture) as database:
        slot, end = database.slot(), database.position()
        stage = progress.stage
        wrong = trouble(capture, progress, slot, database.numbers())
        if wrong is None:
            try:
                database.check(streaming=stage == "streaming")
            except CaptureError as error:
                wrong = str(error)
    return Status(
        capture,
        stage,
        progress.running,
        slot,
        None if slot is None else max(end - slot.confirmed, 0),
        _topics(log, capture),
        wrong,
    )


def local_status(settings: Settings, capture: Capture, trouble: str) -> Status:
    """How far a capture is as far as it is known without its database.

    Args:
        settings: where the event log is, and the capture's folder.
        capture: which.
        trouble: why the database was not asked.

    Raises:
        EventLogError, EventLogUnavailableError: as the log.
    """
    progress = Progress(settings, capture)
    topics = _topics(open_log(settings), capture)
    return Status(capture, progress.stage, progress.running, None, None, topics, trouble, reached=False)


def resnapshot(settings: Settings, capture: Capture) -> None:
    """Have the next run read all rows anew: the slot is dropped, and where Debezium was is forgotten.

    Raises:
        CaptureError: the capture runs, or somebody else reads from its slot.
        ConfigurationError, CaptureUnavailableError: as `run`.
    """
    progress = Progress(settings, capture)
    with progress.alone(), connected(capture) as database:
        # In this order: killed between the two, the next run finds its own slot missing and says so.
        database.drop_slot()
        progress.forget()


def _ready(capture: Capture, progress: Progress, database: Database) -> None:
    """See that Debezium may go on from where it was, or begin."""
    slot, numbers = database.slot(), database.numbers()
    wrong = trouble(capture, progress, slot, numbers)
    if wrong is not None:
        raise CaptureError(wrong)
    if progress.stage != "streaming":
        # Of a slot that is there when a snapshot is taken, Debezium cannot say which commits are in both or in neither.
        # A new slot comes with the very snapshot its stream goes on from.
        database.drop_slot()
        progress.begin(numbers)
        return
    content = progress.offsets.read_bytes() if progress.offsets.exists() else b""
    stored = stored_offsets(content)
    if not stored:
        # Killed while Debezium was writing it. The server had not been told of what was being written.
        kept = progress.kept_offsets()
        stored = stored_offsets(kept) if kept else None
        if kept is None or not stored:
            raise CaptureError(f"{progress.offsets} is damaged. " + LOST.format(name=capture.name))
        content = kept
    offsets = stored.get(capture.prefix)
    if offsets is None:
        # Of a capture that was begun by a version that did not note with what.
        raise CaptureError(other_prefix(capture, ", ".join(stored)))
    reached = max(int(offsets.get(key) or 0) for key in ("lsn", "lsn_proc", "lsn_commit"))
    if slot is not None and slot.confirmed > reached:
        raise CaptureError(
            f"The slot {capture.slot} of the capture {capture.name} is at {slot.confirmed}, past what was captured "
            f"({reached}): it was made anew or moved on by somebody. " + LOST.format(name=capture.name)
        )
    progress.go_on(numbers)
    progress.put_offsets(offsets_after_commit(content))


def _wait(
    engine: Engine,
    marks: set[str],
    database: Database,
    look: Callable[[], None],
    stop: list[int],
    once: bool,
    seconds: float | None,
) -> None:
    """Until Debezium has ended, a signal came, the time is over or, with `once`, a mark written here has come back.

    `look` is called now and then, and ends it by raising.
    """
    until = None if seconds is None else time.monotonic() + seconds
    tokens: set[str] = set()
    marked = looked = time.monotonic()
    while not engine.ended.wait(0.1):
        now = time.monotonic()
        if stop or (until is not None and now >= until) or tokens & marks:
            return
        if once and (not tokens or now - marked > _MARK_SECONDS):
            # Again and again: what is written before the slot is made is never read.
            token = uuid.uuid4().hex
            database.mark(token)
            tokens.add(token)
            marked = now
        if now - looked > _LOOK_SECONDS:
            look()
            looked = now


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """A list that has a signal once one came that asks to stop."""
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _topics(log: EventLog, capture: Capture) -> tuple[tuple[str, int, datetime | None, Position | None], ...]:
    return tuple(_topic(log, capture.topic(*table)) for table in capture.tables)


def _topic(log: EventLog, topic: str) -> tuple[str, int, datetime | None, Position | None]:
    if topic not in log.topics():
        return topic, 0, None, None
    count, newest, place = 0, None, None
    for number, bounds in log.bounds(topic).items():
        count += bounds.end - bounds.start
        if bounds.end > bounds.start:
            for each in log.read(topic, {number: bounds.end - 1}, max_rows=1, max_bytes=1 << 30):
                row = each.records.slice(each.records.num_rows - 1).to_pylist()[0]
                own = [Position.decode(h["value"]) for h in row["headers"] or () if h["name"] == HEADER]
                place = max([p for p in (place, *own) if p is not None], default=None)
                newest = max(newest or 0, row["timestamp_ms"])
    return topic, count, None if newest is None else datetime.fromtimestamp(newest / 1000, UTC), place
