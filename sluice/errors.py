"""The errors Sluice raises on purpose.

Every one says what went wrong, where, and what to do about it; the class says whether trying again can help.
Bad rows are no errors: they are dead letters (see `sluice.ingest`). No other module defines exception classes.
"""

import difflib
from collections.abc import Iterable


class SluiceError(Exception):
    """Base of every error Sluice raises on purpose. The message ends with what to do."""


class ConfigurationError(SluiceError):
    """A setting is missing or wrong. Persistent: only a person can mend it."""


class ContractError(SluiceError):
    """A contract cannot be read or asks for what Sluice does not offer. Persistent."""


class LandingError(SluiceError):
    """The landing area is not there or cannot be listed. Persistent until someone mends the path or the mount."""


class EventLogError(SluiceError):
    """A topic is not there, or what was asked of the event log cannot be had. Persistent."""


class OffsetLostError(EventLogError):
    """Records not yet read are gone from the event log, or its offsets began anew. Persistent: rows are at stake."""


class EventLogUnavailableError(SluiceError):
    """The event log cannot be reached now. Transient."""


class StreamHeldError(SluiceError):
    """A batch of messages was refused, so its stream stands still before it. Nothing was written. Persistent."""


class PositionMovedError(SluiceError):
    """Somebody else has committed the offsets that were about to be. Transient: reading goes on behind them."""


class RebuildHeldError(SluiceError):
    """Rows of a source are being made again by somebody else. Nothing was changed. Transient."""


class RestUnavailableError(SluiceError):
    """An API cannot be reached, does not answer in time, or answers that it cannot now. Transient; nothing landed.

    Attributes:
        retry_after: seconds the server asks to be left alone; None: it does not say.
        throttled: the server is well and wants fewer requests.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, throttled: bool = False) -> None:
        super().__init__(message)
        self.retry_after, self.throttled = retry_after, throttled


class RestCircuitOpenError(RestUnavailableError):
    """An API failed so often that it is left alone for a while; nothing was sent. Transient."""


class RestRefusedError(SluiceError):
    """An API refuses what it is asked: credentials, address, request. Persistent; nothing landed.

    Attributes:
        status: of the answer; None where there was none, as with a certificate that is not trusted.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RestAnswerError(SluiceError):
    """An answer is not what the contract says, or not all of it. Persistent until somebody looks; nothing landed."""


class CaptureError(SluiceError):
    """Changes of a database cannot be captured as it is set up, or its log is no longer held. Persistent."""


class CaptureUnavailableError(SluiceError):
    """The database whose changes are captured cannot be reached now. Transient."""


class PullError(SluiceError):
    """The database a source is pulled from refuses. The mark has not moved. Persistent."""


class PullUnavailableError(SluiceError):
    """The database a source is pulled from cannot be reached now. Transient."""


class LakeUnavailableError(SluiceError):
    """The lake's catalog or its data cannot be reached, or stayed locked through every retry. Transient."""


class NoLakeError(LakeUnavailableError):
    """Nothing has been loaded yet: there is no lake, one without ops tables, or its maker has not come to its end."""


class DataDamagedError(SluiceError):
    """A data file that the lake's catalog names is missing or cannot be read. Nothing was committed. Persistent."""


class StorageFullError(SluiceError):
    """No room to write data or to spill. Nothing was committed. Persistent until someone makes room."""


class MemoryLimitError(SluiceError):
    """DuckDB's memory limit does not suffice for a batch. Nothing of it was committed. Persistent."""


class BooksDoNotBalanceError(SluiceError):
    """Rows read differ from rows accepted, dead-lettered and dropped as duplicates. A defect; nothing was committed."""


class DeadLetterError(SluiceError):
    """What was asked of dead letters cannot be done: none is meant, or a corrected payload is no record. Persistent."""


class PublicationError(SluiceError):
    """There is nothing that may be published, or nothing has been published yet."""


class TraceError(SluiceError):
    """What is to be traced is not there: no such table, column or row."""


class BackupError(SluiceError):
    """A backup cannot be made, is not whole, or cannot be restored there. Nothing was put in place. Persistent."""


class ErasureError(SluiceError):
    """A person cannot be erased (yet), or the erased cannot be recognised. What was done stays done."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """What to say of a name that nothing has: what was probably meant, or else what there is."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"There is no {kind} {name!r}. Did you mean {close[0]!r}?"
    return f"There is no {kind} {name!r}. There is: {', '.join(names)}." if names else f"There is no {kind} {name!r}."
