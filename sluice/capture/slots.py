"""Whether a capture may go on with its replication slot: it is the capture's own, and holds all since the last run.

What the database itself has to be set up for is asked in `sluice.capture.database`.
"""

from __future__ import annotations

from sluice.capture.configuration import Capture
from sluice.capture.database import Slot

LOST = (
    "What was committed since cannot be had from it. `sluice capture resnapshot {name}`, then run it again: rows are "
    "read as they are now, those that are gone end, and changes in between that were overwritten are not known."
)


def trouble(capture: Capture, stage: str, slot: Slot | None) -> str | None:
    """What is wrong with the slot of a capture at a stage, and what to do; None if nothing is."""
    name = f"The slot {capture.slot} of the capture {capture.name}"
    if stage == "new":
        if slot is not None:
            return (
                f"{name} is there, but this capture has not made it: somebody else may read from it. Choose another "
                f"slot in captures/{capture.name}.yaml; or if it is left over, `sluice capture resnapshot "
                f"{capture.name}` drops it."
            )
        return None
    if stage == "streaming" and slot is None:
        return f"{name} is gone. " + LOST.format(name=capture.name)
    if slot is not None and slot.wal_status == "lost":
        return (
            f"{name} fell behind further than max_slot_wal_keep_size allows, and the server has let go of its log. "
            + LOST.format(name=capture.name)
        )
    if slot is not None and slot.plugin != "pgoutput":
        return f"{name} is of the plugin {slot.plugin}, not pgoutput. Choose another slot."
    return None
