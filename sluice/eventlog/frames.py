"""Frames: how records lie in a file of the embedded event log, read and written.

A frame is a fixed header, then the records as an Arrow stream. It is whole or it is not there: the header holds
length and checksum. Belongs here: one file, its bytes and what the disk keeps of them. Which files there are, and who
may write them, is the log's (`embedded`).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sluice.errors import EventLogError
from sluice.eventlog.protocol import RECORDS

# magic, CRC-32 of the fields behind it, CRC-32 of the payload, bytes of the payload, first offset, records, least and
# greatest milliseconds. The header has a checksum of its own: a length that cannot be trusted would make what follows
# look like the remains of a dead writer, which the next writer cuts off.
_HEADER = struct.Struct("<4sIIQqqqq")
_MAGIC = b"SLG1"
_CHECKED_FROM = 8


class Frame(NamedTuple):
    """Where a frame lies in its segment, and what its header says."""

    position: int
    length: int
    checksum: int
    start: int
    rows: int
    oldest_ms: int
    newest_ms: int

    @property
    def end(self) -> int:
        """The offset behind its last record."""
        return self.start + self.rows

    @property
    def behind(self) -> int:
        """Where the next one begins."""
        return self.position + _HEADER.size + self.length


def frames(file: BinaryIO, position: int = 0, start: int | None = None) -> Iterator[Frame]:
    """The whole frames of a segment, by their headers; ends where the file does, or where a writer has died.

    Args:
        file: the segment.
        position: where a frame begins.
        start: the offset it must have, where that is known.

    Raises:
        EventLogError: what follows is neither.
    """
    size = os.fstat(file.fileno()).st_size
    while position + _HEADER.size <= size:
        file.seek(position)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            # What a dead writer has left is cut off at this moment.
            return
        magic, checksum, payload, length, first, *rest = _HEADER.unpack(header)
        if (
            magic != _MAGIC
            or checksum != zlib.crc32(header[_CHECKED_FROM:])
            or (first if start is None else start) != first
        ):
            if not any(header) and not any(file.read()):
                # A machine that lost power has kept the file's length, but not what was being written.
                return
            where = "" if start is None else f", where offset {start} is expected"
            raise EventLogError(
                f"{file.name} is damaged at byte {position}{where}: no frame begins there. Put the file back from a "
                "backup."
            )
        frame = Frame(position, length, payload, first, *rest)
        if frame.behind > size:
            return
        yield frame
        position, start = frame.behind, frame.end


def records_of(file: BinaryIO, frame: Frame) -> pa.Table:
    """The records of a frame, with their offsets.

    Raises:
        EventLogError: the frame's bytes are not those that were written.
    """
    file.seek(frame.position + _HEADER.size)
    payload = file.read(frame.length)
    if zlib.crc32(payload) != frame.checksum:
        raise EventLogError(
            f"{file.name} is damaged: the records from offset {frame.start} to {frame.end} (exclusive) are not as they "
            "were written. Put the file back from a backup."
        )
    with pa.ipc.open_stream(payload) as reader:
        table = reader.read_all()
    offsets = pa.array(range(frame.start, frame.end), pa.int64())
    return pa.Table.from_arrays([offsets, *table.columns], schema=RECORDS)


def framed(rows: pa.Table, start: int) -> bytes:
    """The frame of some records, as `RECORDS` in one chunk; their offsets count from `start`."""
    sink = pa.BufferOutputStream()
    body = rows.drop_columns(["offset"])
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, body.schema, options=options) as writer:
        writer.write_table(body)
    payload: bytes = sink.getvalue().to_pybytes()
    span = pc.min_max(rows.column("timestamp_ms")).as_py()
    fields = (len(payload), start, rows.num_rows, span["min"], span["max"])
    checked = _HEADER.pack(_MAGIC, 0, zlib.crc32(payload), *fields)[_CHECKED_FROM:]
    return _HEADER.pack(_MAGIC, zlib.crc32(checked), zlib.crc32(payload), *fields) + payload


def put(path: Path, position: int, frame: bytes) -> None:
    """Write a frame at a place of a file, and have the disk keep it before anybody is told."""
    new = not path.exists()
    with path.open("xb" if new else "r+b", buffering=0) as file:
        # What a writer that died has left.
        file.truncate(position)
        file.seek(position)
        try:
            rest = memoryview(frame)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            # A frame of which nobody was told must not be read either.
            file.truncate(position)
            raise
    if new:
        sync(path.parent)


def sync(*paths: Path) -> None:
    """Have the disk keep files or what folders name."""
    for path in paths:
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
