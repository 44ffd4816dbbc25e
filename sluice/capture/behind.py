"""What waits to be captured, asked of the database alone: cheap enough for every few seconds, and without Java.

Whether to start a run for it is for whoever asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sluice.capture.configuration import Capture
from sluice.capture.database import Slot, connected
from sluice.capture.progress import Progress
from sluice.capture.slots import trouble
from sluice.errors import CaptureError
from sluice.settings import Settings

# The server decodes its log to count what waits: 16 MiB, a file of it, in a fifth of a second on the tests' machine.
# Further behind the capture runs uncounted; if nothing of that is the capture's, the server may then let go of it.
COUNTED_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Backlog:
    """How far a capture is behind.

    Attributes:
        stage: `new`, `snapshot` or `streaming`.
        running: whether somebody captures now; nothing is counted then.
        slot: the replication slot; None if it is not there.
        position: where the database's log ends, in bytes.
        changes: of captured tables, committed and not captured; None: not counted, but there is something to do.
        last: when something was last noted as captured (UTC); None: never.
        trouble: why a run could not go on, and what to do; None if nothing is known.
    """

    capture: Capture
    stage: str
    running: bool
    slot: Slot | None
    position: int
    changes: int | None
    last: datetime | None
    trouble: str | None

    @property
    def lag_bytes(self) -> int | None:
        """Of the database's log, written and not confirmed as captured; None without a slot."""
        return None if self.slot is None else max(self.position - self.slot.confirmed, 0)

    def waits(self) -> bool:
        """Whether there is something to capture: a snapshot, changes, or more of the log than is counted."""
        return self.changes is None or self.changes > 0


def backlog(settings: Settings, capture: Capture) -> Backlog:
    """How far a capture is behind, and whether something waits. Takes nothing from the slot.

    Raises:
        ConfigurationError: the environment has no connection for it.
        CaptureUnavailableError: the database cannot be reached.
        CaptureError: it lets nobody in so, or somebody began to read from the slot while it was asked.
    """
    progress = Progress(settings, capture)
    with connected(capture) as database:
        slot, position = database.slot(), database.position()
        stage = progress.stage
        running = progress.running or (slot is not None and slot.active)
        wrong = trouble(capture, progress, slot, database.numbers())
        changes: int | None = None
        if wrong is None and not running:
            try:
                # Also where nothing waits: of what a publication leaves out nothing ever does.
                database.check(streaming=stage == "streaming")
            except CaptureError as error:
                wrong = str(error)
        if wrong is None and not running and stage == "streaming" and slot is not None:
            if slot.confirmed >= position:
                changes = 0
            elif position - slot.restart <= COUNTED_BYTES:
                changes = database.waiting()
        return Backlog(capture, stage, running, slot, position, changes, progress.noted_at, wrong)
