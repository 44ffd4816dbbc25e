"""The embedded event log: topics as files below the home folder, for who runs no Kafka.

A partition is a folder of segments, each a file named by its first offset. A segment is a row of `frames`, one for each
append; what a writer that died has left behind the last whole one is cut off by the next writer.

One writer of a partition at a time (a lock the kernel lets go of), any number of readers, who never wait. Belongs here:
the files. Which records a source has read, and what they are worth, does not.
"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import random
import time
import uuid
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from sluice.errors import EventLogError, EventLogUnavailableError
from sluice.eventlog.frames import framed, frames, put, records_of, sync
from sluice.eventlog.protocol import (
    RECORDS,
    TOPIC,
    Bounds,
    EventLog,
    Message,
    Slice,
    checked_name,
    fair_share,
    lost,
    milliseconds,
    records,
    unknown_topic,
    weight,
    within,
)

# A segment is closed past this: large enough that a year of a shop is some hundred files, small enough to be let go of
# one by one. A frame is never parted, so that a segment may be larger by one.
SEGMENT_BYTES = 64 * 1024 * 1024

# Records, and bytes of keys and values, of one frame: an append of more is several frames, each atomic by itself, so
# that a reader who wants few records need not unpack many.
FRAME_ROWS = 50_000
FRAME_BYTES = 16 * 1024 * 1024

# A place to begin looking from is remembered every so many bytes: between two are 150 headers at most, looked through
# within a millisecond.
_HINT_BYTES = 64 * 1024

_ID = "topic.id"
_LOCK = "writer.lock"


@dataclass
class _Known:
    """What was seen of a segment: whole frames stay as they are, so that nobody looks at them twice."""

    inode: int
    # The end of the last whole frame.
    end: int
    position: int
    # Offsets and positions at which frames begin, some way apart.
    hints: list[tuple[int, int]] = field(default_factory=list)

    def before(self, offset: int) -> int:
        """A position at or before the frame of an offset."""
        at = bisect_right(self.hints, (offset, self.position)) - 1
        return self.hints[at][1] if at >= 0 else 0


class EmbeddedLog(EventLog):
    """Topics in files below `root`. Cheap to make: nothing is opened until it is asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[Path, _Known] = {}
        # Not from the first partition, each time: who appends one record at a time would fill no other.
        self._turns = itertools.count(random.randrange(1 << 16))

    @property
    def name(self) -> str:
        """What people call it."""
        return "embedded"

    def close(self) -> None:
        """Forget what was seen of the files; none is kept open."""
        self._known.clear()

    def topics(self) -> list[str]:
        """Names of the topics there are, in order."""
        with self._reached():
            if not self._root.is_dir():
                return []
            return sorted(p.name for p in self._root.iterdir() if p.is_dir() and TOPIC.fullmatch(p.name))

    def topic_id(self, topic: str) -> str:
        """A UUID, written when the topic was made."""
        self._partitions(topic)
        with self._reached():
            return (self._root / topic / _ID).read_text()

    def create(self, topic: str, partitions: int) -> None:
        """Make a topic of some partitions, if it is not there."""
        checked_name(topic)
        if partitions < 1:
            raise EventLogError(f"The topic {topic} needs a partition or more, not {partitions}.")
        folder = self._root / topic
        # Whole at once: who lists the topic meanwhile must not take it for one of fewer partitions, by which keys are
        # spread.
        with self._reached():
            if folder.is_dir():
                return
            self._root.mkdir(parents=True, exist_ok=True)
            unfinished = self._root / f"{uuid.uuid4()}~"
            for number in range(partitions):
                (unfinished / str(number)).mkdir(parents=True)
            (unfinished / _ID).write_text(str(uuid.uuid4()))
            sync(unfinished / _ID, unfinished)
            try:
                unfinished.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
                # Somebody else has made it meanwhile.
                (unfinished / _ID).unlink()
                for number in range(partitions):
                    (unfinished / str(number)).rmdir()
                unfinished.rmdir()
            sync(self._root)

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """The offsets each partition of a topic has."""
        folders = self._partitions(topic)
        with self._reached():
            return {number: self._bounds(folder) for number, folder in folders.items()}

    def read(self, topic: str, starts: Mapping[int, int], *, max_rows: int, max_bytes: int) -> list[Slice]:
        """Records from `starts` to the end, partitions sharing what is read."""
        folders = self._partitions(topic)
        ends: dict[int, int] = {}
        with self._reached():
            for number, start in sorted(starts.items()):
                if number not in folders:
                    raise EventLogError(f"The topic {topic} has no partition {number}; it has {len(folders)}.")
                bounds = self._bounds(folders[number])
                if not bounds.start <= start <= bounds.end:
                    raise lost(topic, number, start, bounds)
                if start < bounds.end:
                    ends[number] = bounds.end
            rows = fair_share(max_rows, [end - starts[number] for number, end in ends.items()])
            found: list[Slice] = []
            size = max_bytes
            for number, end in ends.items():
                share = size // (len(ends) - len(found))
                found.append(self._slice(topic, number, folders[number], starts[number], end, rows, share))
                size -= weight(found[-1].records)
        return found

    def offsets_at(self, topic: str, when: datetime) -> dict[int, int]:
        """Of each partition the first offset of `when` or later."""
        wanted = milliseconds(when)
        folders = self._partitions(topic)
        with self._reached():
            return {number: self._offset_at(folder, wanted) for number, folder in folders.items()}

    def append(self, topic: str, messages: Iterable[Message], *, partition: int | None = None) -> int:
        """Append records durably; those of one key go to one partition."""
        folders = self._partitions(topic)
        if partition is not None and partition not in folders:
            raise EventLogError(f"The topic {topic} has no partition {partition}; it has {len(folders)}.")
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            if partition is not None:
                place = partition
            elif message.key is not None:
                place = zlib.crc32(message.key) % len(folders)
            else:
                place = next(self._turns) % len(folders)
            by_partition.setdefault(place, []).append(message)
        now = time.time_ns() // 1_000_000
        for place, own in sorted(by_partition.items()):
            rows = (
                (0, now if m.timestamp_ms is None else m.timestamp_ms, m.key, m.value, list(m.headers) or None)
                for m in own
            )
            self.append_records(topic, place, records(rows))
        return sum(map(len, by_partition.values()))

    def append_records(self, topic: str, partition: int, table: pa.Table) -> int:
        """Append a table of `RECORDS` to a partition; their offsets are given anew. The first of them is returned."""
        folders = self._partitions(topic)
        if partition not in folders:
            raise EventLogError(f"The topic {topic} has no partition {partition}; it has {len(folders)}.")
        if not table.schema.equals(RECORDS) or table.column("timestamp_ms").null_count:
            raise EventLogError(f"What is to be appended to {topic} is no table of records with times.")
        folder = folders[partition]
        try:
            with _alone(folder):
                return self._write(folder, table)
        except OSError as error:
            raise EventLogUnavailableError(
                f"Cannot write to {folder}: {error.strerror or error}. Of this append what fitted whole is there, the "
                "rest is not. Make room or mend the folder's rights, and append that again."
            ) from error

    def drop_before(self, topic: str, partition: int, offset: int) -> int:
        """Let go of segments that hold only records before `offset`, the newest segment excepted; how many went."""
        folders = self._partitions(topic)
        if partition not in folders:
            raise EventLogError(f"The topic {topic} has no partition {partition}; it has {len(folders)}.")
        with self._reached(), _alone(folders[partition]):
            paths = _segments(folders[partition])
            gone = [p for p, later in itertools.pairwise(paths) if int(later.stem) <= offset]
            for path in gone:
                # The oldest first: who is killed here leaves no gap.
                path.unlink()
                self._known.pop(path, None)
            return len(gone)

    def stored(self, topic: str) -> Iterator[tuple[Path, BinaryIO, int]]:
        """The files a topic lies in, for who copies them: path below `root`, the file opened, bytes of whole records.

        They are those of this moment, whatever is appended, let go of or rewritten while they are read.
        """
        folders = self._partitions(topic)
        yield Path(topic, _ID), io.BytesIO(identity := self.topic_id(topic).encode()), len(identity)
        for folder in folders.values():
            place = folder.relative_to(self._root)
            # A partition without records is one all the same.
            yield place / _LOCK, io.BytesIO(), 0
            with self._reached():
                # The disk has what is counted.
                self._bounds(folder)
                paths = _segments(folder)
            # The newest first: files are let go of oldest first, so behind one that has gone nothing is left.
            for path in reversed(paths):
                try:
                    file = path.open("rb")
                except FileNotFoundError:
                    break
                with file:
                    position = self._seen(path, file).position
                    file.seek(0)
                    yield place / path.name, file, position

    def tables(self, topic: str, partition: int) -> Iterator[pa.Table]:
        """All records of a partition, as `RECORDS`, some at a time."""
        folder = self._partitions(topic)[partition]
        with self._reached():
            for path in _segments(folder):
                with path.open("rb") as file:
                    for frame in frames(file):
                        yield records_of(file, frame)

    def rewrite(self, topic: str, partition: int, change: Callable[[pa.Table], tuple[pa.Table, int]]) -> int:
        """Put other records in the place of those a partition holds, at the same offsets and times; how many changed.

        A segment is replaced whole or not at all. Who is reading it meanwhile reads on in the old one.

        Args:
            topic: an existing one.
            partition: of it.
            change: gives the table of `RECORDS` to be put in the place of one, of as many, and how many of them differ.
        """
        folder = self._partitions(topic)[partition]
        done = 0
        with self._reached(), _alone(folder):
            for path in _segments(folder):
                rewritten, changed = [], 0
                with path.open("rb") as file:
                    for frame in frames(file):
                        table, differ = change(records_of(file, frame))
                        rewritten.append(framed(table.combine_chunks(), frame.start))
                        changed += differ
                if not changed:
                    continue
                copy = path.with_suffix(".rewritten")
                with copy.open("wb") as file:
                    for written in rewritten:
                        file.write(written)
                sync(copy)
                copy.replace(path)
                sync(folder)
                self._known.pop(path, None)
                done += changed
        return done

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Say of what the system refuses what it means here."""
        try:
            yield
        except FileNotFoundError as error:
            raise EventLogUnavailableError(
                f"{error.filename} is not there any more. If its records were let go of at this moment, trying again "
                "tells which; else put the file back from a backup."
            ) from error
        except OSError as error:
            raise EventLogUnavailableError(
                f"Cannot use the event log in {self._root}: {error.strerror or error}. Check SLUICE_HOME and "
                "its rights."
            ) from error

    def _partitions(self, topic: str) -> dict[int, Path]:
        checked_name(topic)
        folder = self._root / topic
        if not folder.is_dir():
            raise unknown_topic(topic, str(self._root), self.topics())
        with self._reached():
            found = (p for p in folder.iterdir() if p.name.isdecimal() and p.is_dir())
            return {int(p.name): p for p in sorted(found, key=lambda p: int(p.name))}

    def _bounds(self, folder: Path) -> Bounds:
        paths = _segments(folder)
        if not paths:
            return Bounds(0, 0)
        with paths[-1].open("rb") as file:
            known = self._seen(paths[-1], file)
            # Nobody may read on past what a power cut could still take away: the offsets would be given again, to
            # other records. It costs nothing where the writer has done so already.
            try:
                os.fdatasync(file.fileno())
            except OSError:
                self._known.pop(paths[-1], None)
                raise
        return Bounds(int(paths[0].stem), known.end)

    def _seen(self, path: Path, file: BinaryIO) -> _Known:
        """What is known of a segment, with what was written since."""
        now = os.fstat(file.fileno())
        known = self._known.get(path)
        if known is None or known.inode != now.st_ino or known.position > now.st_size:
            known = self._known[path] = _Known(now.st_ino, int(path.stem), 0)
        for frame in frames(file, known.position, known.end):
            if not known.hints or frame.position - known.hints[-1][1] >= _HINT_BYTES:
                known.hints.append((frame.start, frame.position))
            known.end, known.position = frame.end, frame.behind
        return known

    def _slice(
        self, topic: str, number: int, folder: Path, start: int, end: int, max_rows: int, max_bytes: int
    ) -> Slice:
        tables: list[pa.Table] = []
        rows = size = 0
        stop = start
        paths = _segments(folder)
        for path in paths[max(bisect_right([int(p.stem) for p in paths], start) - 1, 0) :]:
            if stop >= end:
                break
            if int(path.stem) > stop:
                _incomplete(folder, stop, int(path.stem))
            with path.open("rb") as file:
                position = self._seen(path, file).before(stop)
                for frame in frames(file, position):
                    if frame.end <= stop:
                        continue
                    if frame.start > stop:
                        _incomplete(folder, stop, frame.start)
                    if frame.start >= end:
                        break
                    table = records_of(file, frame).slice(stop - frame.start)
                    table = within(table, max_rows - rows, max_bytes - size, least=0 if rows else 1)
                    if table.num_rows:
                        tables.append(table)
                        rows += table.num_rows
                        size += weight(table)
                        stop += table.num_rows
                    if stop < frame.end:
                        return Slice(topic, number, start, stop, pa.concat_tables(tables))
        if stop < end:
            _incomplete(folder, stop, end)
        return Slice(topic, number, start, stop, pa.concat_tables(tables))

    def _offset_at(self, folder: Path, wanted: int) -> int:
        end = 0
        for path in _segments(folder):
            with path.open("rb") as file:
                for frame in frames(file):
                    if frame.newest_ms >= wanted:
                        late = pc.greater_equal(records_of(file, frame).column("timestamp_ms"), wanted)
                        return frame.start + int(pc.index(late, True).as_py())
                    end = frame.end
        return end

    def _write(self, folder: Path, table: pa.Table) -> int:
        """Write a table's rows behind the last whole frame; the first's offset. The caller is the only writer."""
        paths = _segments(folder)
        path = paths[-1] if paths else folder / _name(0)
        end, position = int(path.stem), 0
        if paths:
            with path.open("rb") as file:
                known = self._seen(path, file)
                end, position = known.end, known.position
        first = end
        while table.num_rows:
            rows = within(table.slice(0, FRAME_ROWS), FRAME_ROWS, FRAME_BYTES, least=1)
            table = table.slice(rows.num_rows)
            if position >= SEGMENT_BYTES:
                path, position = folder / _name(end), 0
            written = framed(rows.combine_chunks(), end)
            put(path, position, written)
            position += len(written)
            end += rows.num_rows
        return first


def _incomplete(folder: Path, start: int, stop: int) -> NoReturn:
    raise EventLogError(
        f"{folder}: the records from offset {start} to {stop} (exclusive) are missing. Put the file back from a backup."
    )


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only writer of a partition; waits for who is."""
    with (folder / _LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _name(offset: int) -> str:
    return f"{offset:020d}.log"
