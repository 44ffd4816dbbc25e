"""The embedded event log: topics as files below the home folder, for who runs no Kafka.

A partition is a folder of segments, each a file named by its first offset. A segment is a row of frames, one for each
append: a fixed header, then the records as an Arrow stream. A frame is whole or it is not there: its header holds
length and checksum, and what a writer that died has left behind the last whole frame is cut off by the next one.

One writer of a partition at a time (a lock the kernel lets go of), any number of readers, who never wait. Belongs here:
the files. Which records a source has read, and what they are worth, does not.
"""

from __future__ import annotations

import bisect
import fcntl
import itertools
import os
import re
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from sluice.errors import EventLogError, EventLogUnavailableError, OffsetLostError
from sluice.eventlog.protocol import RECORDS, Bounds, Message, Slice, records

# Kafka's rule for names, so that a topic can move there; names are folders here.
_TOPIC = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")

# magic, CRC-32 of all that follows it, bytes of the payload, first offset, records, least and greatest milliseconds.
_HEADER = struct.Struct("<4sIQqqqq")
_MAGIC = b"SLG1"
_CHECKED_FROM = 8

# A segment is closed past this: large enough that a year of a shop is some hundred files, small enough to be let go of
# one by one. A frame is never parted, so that a segment may be larger by one.
SEGMENT_BYTES = 64 * 1024 * 1024

# Records of one frame: an append of more is several frames, each atomic by itself, so that a reader who wants few
# records need not unpack many.
FRAME_ROWS = 50_000


@dataclass(frozen=True)
class _Frame:
    """Where a frame lies in its segment, and what its header says."""

    position: int
    length: int
    start: int
    rows: int
    oldest_ms: int
    newest_ms: int

    @property
    def end(self) -> int:
        return self.start + self.rows


class EmbeddedLog:
    """Topics in files below `root`; an `EventLog`. Cheap to make: nothing is opened until it is asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def name(self) -> str:
        """What people call it."""
        return "embedded"

    def topics(self) -> list[str]:
        """Names of the topics there are, in order."""
        if not self._root.is_dir():
            return []
        return sorted(p.name for p in self._root.iterdir() if p.is_dir() and _TOPIC.fullmatch(p.name))

    def create(self, topic: str, partitions: int) -> None:
        """Make a topic of some partitions, if it is not there."""
        if not _TOPIC.fullmatch(topic):
            raise EventLogError(
                f"A topic cannot be named {topic!r}. Use letters, digits, dots, underscores and hyphens, at most 249."
            )
        if partitions < 1:
            raise EventLogError(f"The topic {topic} needs a partition or more, not {partitions}.")
        folder = self._root / topic
        if folder.is_dir():
            return
        # Whole at once: who lists the topic meanwhile must not take it for one of fewer partitions, by which keys are
        # spread.
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            unfinished = self._root / f"{topic}.{os.getpid()}.{time.monotonic_ns()}~"
            for number in range(partitions):
                (unfinished / str(number)).mkdir(parents=True)
            try:
                unfinished.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
                for number in range(partitions):
                    (unfinished / str(number)).rmdir()
                unfinished.rmdir()
        except OSError as error:
            raise EventLogUnavailableError(
                f"Cannot make the topic {topic} in {self._root}: {error.strerror}. Check SLUICE_HOME and its rights."
            ) from error

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """The offsets each partition of a topic has."""
        return {number: self._bounds(folder) for number, folder in self._partitions(topic).items()}

    def read(self, topic: str, starts: Mapping[int, int], *, max_rows: int, max_bytes: int) -> list[Slice]:
        """Records from `starts` to the end, partitions sharing what is read."""
        folders = self._partitions(topic)
        found: list[Slice] = []
        waiting = sorted(starts)
        rows, size = max_rows, max_bytes
        while waiting:
            number = waiting.pop(0)
            if number not in folders:
                raise EventLogError(f"The topic {topic} has no partition {number}; it has {len(folders)}.")
            share = len(waiting) + 1
            read = self._slice(topic, number, folders[number], starts[number], rows // share, size // share)
            if read is not None:
                found.append(read)
                rows -= read.records.num_rows
                size -= _weight(read.records)
        return found

    def offsets_at(self, topic: str, when: datetime) -> dict[int, int]:
        """Of each partition the first offset of `when` or later."""
        wanted = round(when.replace(tzinfo=when.tzinfo or UTC).timestamp() * 1000)
        found = {}
        for number, folder in self._partitions(topic).items():
            offset = None
            for path in _segments(folder):
                with path.open("rb") as file:
                    for frame in _frames(file):
                        if offset is None and frame.newest_ms >= wanted:
                            times = _records(file, frame).column("timestamp_ms").to_pylist()
                            offset = frame.start + next(i for i, ms in enumerate(times) if ms >= wanted)
                if offset is not None:
                    break
            found[number] = self._bounds(folder).end if offset is None else offset
        return found

    def append(self, topic: str, messages: Iterable[Message], *, partition: int | None = None) -> int:
        """Append records durably; those of one key go to one partition."""
        folders = self._partitions(topic)
        if partition is not None and partition not in folders:
            raise EventLogError(f"The topic {topic} has no partition {partition}; it has {len(folders)}.")
        by_partition: dict[int, list[Message]] = {}
        for number, message in enumerate(messages):
            if partition is not None:
                place = partition
            elif message.key is not None:
                place = zlib.crc32(message.key) % len(folders)
            else:
                place = number % len(folders)
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
        folder = self._partitions(topic)[partition]
        try:
            with _alone(folder):
                return _append(folder, table)
        except OSError as error:
            raise EventLogUnavailableError(
                f"Cannot write to {folder}: {error.strerror}. No record of this append counts. Make room or mend the "
                "folder's rights, and append again."
            ) from error

    def drop_before(self, topic: str, partition: int, offset: int) -> int:
        """Let go of segments that hold only records before `offset`, the newest segment excepted; how many went."""
        folder = self._partitions(topic)[partition]
        with _alone(folder):
            paths = _segments(folder)
            gone = [p for p, later in itertools.pairwise(paths) if int(later.stem) <= offset]
            for path in gone:
                path.unlink()
        return len(gone)

    def _partitions(self, topic: str) -> dict[int, Path]:
        folder = self._root / topic
        if not _TOPIC.fullmatch(topic) or not folder.is_dir():
            known = ", ".join(self.topics()) or "none yet"
            raise EventLogError(
                f"There is no topic {topic!r} in {self._root}; there are: {known}. `sluice topics create {topic}` "
                "makes it, or mend stream.topic of the contract."
            )
        return {int(p.name): p for p in sorted(folder.iterdir(), key=lambda p: (len(p.name), p.name)) if p.is_dir()}

    def _bounds(self, folder: Path) -> Bounds:
        paths = _segments(folder)
        if not paths:
            return Bounds(0, 0)
        with paths[-1].open("rb") as file:
            end = int(paths[-1].stem)
            for frame in _frames(file):
                end = frame.end
        return Bounds(int(paths[0].stem), end)

    def _slice(self, topic: str, number: int, folder: Path, start: int, max_rows: int, max_bytes: int) -> Slice | None:
        bounds = self._bounds(folder)
        if not bounds.start <= start <= bounds.end:
            raise OffsetLostError(
                f"{topic} partition {number}: offset {start} was to be read next, but the log holds "
                f"[{bounds.start}, {bounds.end}). Records were let go of unread, or the topic was made anew."
            )
        tables: list[pa.Table] = []
        rows = size = 0
        stop = start
        paths = _segments(folder)
        first = max(bisect.bisect_right([int(p.stem) for p in paths], start) - 1, 0)
        for path in paths[first:]:
            with path.open("rb") as file:
                for frame in _frames(file):
                    if frame.end <= stop or frame.start >= bounds.end:
                        continue
                    table = _records(file, frame).slice(max(stop - frame.start, 0))
                    table = _within(table, max_rows - rows, max_bytes - size, least=0 if rows else 1)
                    if table.num_rows:
                        tables.append(table)
                        rows += table.num_rows
                        size += _weight(table)
                        stop = table.column("offset")[-1].as_py() + 1
                    if stop < frame.end:
                        return Slice(topic, number, start, stop, pa.concat_tables(tables))
        return Slice(topic, number, start, stop, pa.concat_tables(tables)) if tables else None


def _within(table: pa.Table, max_rows: int, max_bytes: int, *, least: int) -> pa.Table:
    """As many of the first rows as the bounds allow, at least `least`."""
    table = table.slice(0, max(max_rows, least))
    while table.num_rows > least and _weight(table) > max_bytes:
        # By halves, for rows are about of a size.
        table = table.slice(0, max(table.num_rows // 2, least))
    return table


def _weight(table: pa.Table) -> int:
    """Bytes of keys and values, as far as they are of these rows."""
    return sum(chunk.nbytes for name in ("key", "value") for chunk in table.column(name).chunks)


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only writer of a partition; waits for who is."""
    with (folder / "writer.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _frames(file: BinaryIO) -> Iterator[_Frame]:
    """The whole frames of a segment, by their headers; ends where the file does, or where a writer has died.

    Raises:
        EventLogError: what follows is neither.
    """
    size = os.fstat(file.fileno()).st_size
    position = 0
    while position + _HEADER.size <= size:
        file.seek(position)
        magic, _, length, start, rows, oldest, newest = _HEADER.unpack(file.read(_HEADER.size))
        if magic != _MAGIC:
            raise EventLogError(
                f"{file.name} is damaged at byte {position}: no frame begins there. Put the file back from a backup."
            )
        if position + _HEADER.size + length > size:
            return
        yield _Frame(position, length, start, rows, oldest, newest)
        position += _HEADER.size + length


def _records(file: BinaryIO, frame: _Frame) -> pa.Table:
    """The records of a frame, with their offsets.

    Raises:
        EventLogError: the frame's bytes are not those that were written.
    """
    file.seek(frame.position)
    header = file.read(_HEADER.size)
    payload = file.read(frame.length)
    if _checksum(header, payload) != _HEADER.unpack(header)[1]:
        raise EventLogError(
            f"{file.name} is damaged: the records from offset {frame.start} to {frame.end} (exclusive) are not as they "
            "were written. Put the file back from a backup."
        )
    with pa.ipc.open_stream(payload) as reader:
        table = reader.read_all()
    offsets = pa.array(range(frame.start, frame.end), pa.int64())
    return pa.Table.from_arrays([offsets, *table.columns], schema=RECORDS)


def _checksum(header: bytes, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(header[_CHECKED_FROM:]))


def _append(folder: Path, table: pa.Table) -> int:
    """Write a table's rows behind the last whole frame; the first's offset. The caller is the only writer."""
    paths = _segments(folder)
    path = paths[-1] if paths else folder / _name(0)
    end, position = int(path.stem), 0
    if path.exists():
        with path.open("rb") as file:
            for frame in _frames(file):
                end, position = frame.end, frame.position + _HEADER.size + frame.length
    first = end
    for at in range(0, table.num_rows, FRAME_ROWS):
        rows = table.slice(at, FRAME_ROWS).combine_chunks()
        if position >= SEGMENT_BYTES:
            path, position = folder / _name(end), 0
        written = _framed(rows, end)
        _write(path, position, written)
        position += len(written)
        end += rows.num_rows
    return first


def _framed(rows: pa.Table, start: int) -> bytes:
    sink = pa.BufferOutputStream()
    body = rows.drop_columns(["offset"])
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, body.schema, options=options) as writer:
        writer.write_table(body)
    payload: bytes = sink.getvalue().to_pybytes()
    times = rows.column("timestamp_ms")
    span = pc.min_max(times).as_py()
    fields = (len(payload), start, rows.num_rows, span["min"], span["max"])
    header = _HEADER.pack(_MAGIC, 0, *fields)
    return _HEADER.pack(_MAGIC, _checksum(header, payload), *fields) + payload


def _write(path: Path, position: int, frame: bytes) -> None:
    """Write a frame at a place of a file, and have the disk keep it before anybody is told."""
    new = not path.exists()
    with path.open("xb" if new else "r+b") as file:
        # What a writer that died has left.
        file.truncate(position)
        file.seek(position)
        file.write(frame)
        file.flush()
        os.fsync(file.fileno())
    if new:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _name(offset: int) -> str:
    return f"{offset:020d}.log"
