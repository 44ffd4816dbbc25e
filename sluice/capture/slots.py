"""Whether a capture may go on from where it was.

Its replication slot must be the capture's own and hold all since the last run, and its snapshot must have been taken of
the tables it has now: what Debezium streams of others begins with the next change, without a row of before.

What the database itself has to be set up for is asked in `sluice.capture.database`.
"""

from __future__ import annotations

from collections.abc import Mapping

from sluice.capture.configuration import Capture
from sluice.capture.database import Slot
from sluice.capture.progress import Progress

LOST = (
    "What was committed since cannot be had from it. `sluice capture resnapshot {name}`, then run it again: rows are "
    "read as they are now, those that are gone end, and changes in between that were overwritten are not known."
)

_AGAIN = (
    "`sluice capture resnapshot {name}`, then run it again: the rows of all its tables are read anew, as they are then."
)

# Why the rows of a table would not be there, by whether it was captured before.
_NEW = "which its snapshot was not taken of: the rows it has would never come"
_BACK = "which was left out for a while: what happened in it meanwhile would never come"
_OTHER = "which is another table than its snapshot was taken of: the rows of that one would never end"


def trouble(capture: Capture, progress: Progress, slot: Slot | None, numbers: Mapping[str, int]) -> str | None:
    """What is wrong with the slot of a capture or with what it was begun with, and what to do; None if nothing is.

    Args:
        capture: which.
        progress: how far it is.
        slot: the one in the database, if it is there.
        numbers: of the tables in the database (`Database.numbers`).
    """
    stage = progress.stage
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
    return other_begin(capture, progress, numbers) if stage == "streaming" else None


def other_prefix(capture: Capture, before: str) -> str:
    """What to do about a topicPrefix that is not the one the capture was begun with."""
    return (
        f"captures/{capture.name}.yaml has the topicPrefix {capture.prefix}, and the capture was begun with {before}: "
        "the topics of the new name would have no row of before. " + _AGAIN.format(name=capture.name) + f" Or put "
        f"{before} back."
    )


def other_begin(capture: Capture, progress: Progress, numbers: Mapping[str, int]) -> str | None:
    """Why the snapshot of a capture that streams is not one of what it captures now; None if it is.

    Args:
        capture: which.
        progress: how far it is.
        numbers: of the tables in the database (`Database.numbers`).
    """
    begun = progress.begun
    if begun is None:
        return None
    if begun.prefix != capture.prefix:
        return other_prefix(capture, begun.prefix)
    tables = [f"{schema}.{table}" for schema, table in capture.tables]
    for which, why in (
        ([t for t in tables if t not in begun.tables and t not in begun.removed], _NEW),
        ([t for t in tables if t in begun.removed], _BACK),
        # Dropped and made anew, or renamed into its place. Whether all changes of the new one came is not known either.
        ([t for t in tables if t in numbers and begun.numbers.get(t, numbers[t]) != numbers[t]], _OTHER),
    ):
        if which:
            return f"captures/{capture.name}.yaml has {', '.join(which)}, {why}. " + _AGAIN.format(name=capture.name)
    return None
