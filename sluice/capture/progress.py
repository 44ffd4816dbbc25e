"""How far a capture has come: positions in the log; stage, what the snapshot was taken of, and offsets in its folder.

The log is the truth of what was captured: each record there carries its place in a header. Debezium's offsets say where
it goes on; they lie in a file it writes in place, so that a copy is kept of the last one known to be whole.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sluice.capture.configuration import Capture
from sluice.errors import CaptureError
from sluice.eventlog import EventLog
from sluice.settings import Settings

# The header with a record's place, for the capture that goes on.
HEADER = "sluice.position"

OTHER_PREFIX = (
    "Give the capture {name} another topicPrefix in captures/{name}.yaml, `sluice capture resnapshot {name}`, then run "
    "it again: its topics begin anew under the other name, and whoever reads them is to read those."
)

# Records read to find the newest with a place. A log of others may have records of other writers behind it, and gaps.
_TAIL = (1, 100, 10_000)


class Position(NamedTuple):
    """The place of a record among all of a capture, in the order of the stream.

    Attributes:
        commit: end of the last commit before the record's transaction, in bytes of the database's log (LSN); of a
            snapshot's rows where the snapshot was taken, which is the end of the last commit it has.
        order: the how-manieth event of its transaction, from 1; 0 of a snapshot's rows, -1 of the truncate before them.
        step: 0 of an event, 1 of the tombstone behind it.
    """

    commit: int
    order: int
    step: int = 0

    def encode(self) -> bytes:
        """As the header has it."""
        return "/".join(map(str, self)).encode()

    @classmethod
    def decode(cls, header: bytes) -> Position:
        """From a header."""
        return cls(*map(int, header.split(b"/")))


@dataclass(frozen=True)
class Begun:
    """What a capture was begun with: its snapshot has the rows of these tables, in topics of this prefix.

    Attributes:
        tables: captured ever since, as `<schema>.<table>`.
        removed: captured at first, and then left out of the capture's file.
        numbers: the database's own of the tables (`Database.numbers`); of a version that did not note them empty.
    """

    prefix: str
    tables: tuple[str, ...]
    removed: tuple[str, ...] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)


def last_positions(log: EventLog, topic: str, name: str) -> dict[int, Position]:
    """Of each partition of a topic of the capture `name`, the place of its newest record; none of an empty one.

    Raises:
        CaptureError: a partition holds records, but none of the newest was written by a capture.
        EventLogError, EventLogUnavailableError: as the log.
    """
    found = {}
    for number, bounds in log.bounds(topic).items():
        if bounds.start == bounds.end:
            continue
        for count in _TAIL:
            start = max(bounds.end - count, bounds.start)
            slices = log.read(topic, {number: start}, max_rows=count, max_bytes=1 << 30)
            headers = [row for each in slices for row in each.records.column("headers").to_pylist()]
            places = [h["value"] for row in headers for h in row or () if h["name"] == HEADER]
            if places:
                found[number] = Position.decode(places[-1])
                break
        else:
            raise CaptureError(
                f"The topic {topic} (partition {number}) holds records that no capture wrote. Nothing tells which "
                "changes it has. " + OTHER_PREFIX.format(name=name)
            )
    return found


class Progress:
    """The folder of a capture: its stage, what its snapshot has and where it was taken, Debezium's offsets."""

    def __init__(self, settings: Settings, capture: Capture) -> None:
        self._capture = capture
        self.folder = settings.capture_path / capture.name
        self.offsets = self.folder / "offsets.dat"
        self._kept = self.folder / "offsets.kept"
        self._state = self.folder / "state.json"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one at work with this capture.

        Raises:
            CaptureError: somebody else is.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CaptureError(f"The capture {self.folder.name} runs already. Stop that first.") from None
            yield

    @property
    def running(self) -> bool:
        """Whether somebody is at work with this capture now."""
        try:
            with self.alone():
                return False
        except CaptureError:
            return True

    @property
    def stage(self) -> str:
        """`new`, `snapshot` (begun, not finished) or `streaming`."""
        return str(self._read().get("stage", "new"))

    @property
    def snapshot(self) -> int | None:
        """Where the snapshot was taken, in bytes of the database's log; None before it is finished."""
        found = self._read().get("snapshot")
        return found if isinstance(found, int) else None

    @property
    def begun(self) -> Begun | None:
        """With what the capture was begun; None of one that was not, or by a version that did not note it."""
        found = self._read().get("begun")
        if not isinstance(found, dict):
            return None
        return Begun(found["prefix"], tuple(found["tables"]), tuple(found["removed"]), found.get("numbers", {}))

    def begin(self, numbers: Mapping[str, int]) -> None:
        """A snapshot of the capture's tables is about to be taken: from here on the slot is the capture's own.

        Args:
            numbers: of the tables, as `Begun` keeps them.
        """
        begun = Begun(self._capture.prefix, self._tables, numbers=numbers)
        self._write({"stage": "snapshot", "begun": asdict(begun)})
        self.offsets.unlink(missing_ok=True)
        self._kept.unlink(missing_ok=True)

    def streaming(self, snapshot: int) -> None:
        """The snapshot is in the log and Debezium's offsets are behind it."""
        self._write({**self._read(), "stage": "streaming", "snapshot": snapshot})

    def go_on(self, numbers: Mapping[str, int]) -> None:
        """The capture goes on with the tables it has now: of others it passes over what happens from here on.

        Args:
            numbers: of the tables now; noted of those of which none was.
        """
        before = self.begun or Begun(self._capture.prefix, self._tables)
        kept = tuple(table for table in before.tables if table in self._tables)
        gone = tuple(table for table in before.tables if table not in self._tables)
        known = {table: number for table, number in {**numbers, **before.numbers}.items() if table in kept}
        now = Begun(before.prefix, kept, (*before.removed, *gone), known)
        if now != self.begun:
            self._write({**self._read(), "begun": asdict(now)})

    def forget(self) -> None:
        """Begin anew with the next run."""
        self._state.unlink(missing_ok=True)
        self.offsets.unlink(missing_ok=True)
        self._kept.unlink(missing_ok=True)

    def keep_offsets(self) -> None:
        """Keep a copy of the offsets as they are; Debezium has just written them and is not at it."""
        if self.offsets.exists():
            _replace(self._kept, self.offsets.read_bytes())

    def put_offsets(self, content: bytes) -> None:
        """Have Debezium begin with these offsets; it must not be at work."""
        _replace(self.offsets, content)

    def kept_offsets(self) -> bytes | None:
        """The copy; None if there is none."""
        return self._kept.read_bytes() if self._kept.exists() else None

    @property
    def noted_at(self) -> datetime | None:
        """When it was last noted how far the capture is (UTC); None: never."""
        try:
            return datetime.fromtimestamp(self._kept.stat().st_mtime, UTC)
        except FileNotFoundError:
            return None

    @property
    def _tables(self) -> tuple[str, ...]:
        return tuple(f"{schema}.{table}" for schema, table in self._capture.tables)

    def _read(self) -> dict[str, object]:
        if not self._state.exists():
            return {}
        found: dict[str, object] = json.loads(self._state.read_text(encoding="utf-8"))
        return found

    def _write(self, state: dict[str, object]) -> None:
        _replace(self._state, json.dumps(state).encode())


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole, and have the disk keep it."""
    unfinished = path.with_suffix(path.suffix + ".tmp")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
