"""A batch (the files of one partition with one content under one contract), and what became of it: words of ingest.

Values only. How a batch is read, judged and written belongs to `sluice.ingest`, `sluice.judging` and `sluice.booking`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from sluice.contracts import Contract
from sluice.drift import Drift
from sluice.preflight import Inspected

# Raise when the meaning of an accepted row changes without its contract changing: every batch is then new.
FORMAT = 1

Status = Literal["accepted", "refused"]


@dataclass(frozen=True)
class FileProblem:
    """A file that was set aside as a whole, or told about: its path, the rule, and what to do."""

    file: str
    rule: str
    detail: str
    rows: int
    partition_key: str


@dataclass(frozen=True)
class BatchOutcome:
    """What became of one batch, as the ledger has it.

    `reason` says why it was refused; `unchanged` that an earlier run already wrote just this. Of the rows accepted,
    `rows_erased` are not in bronze, for they were about people who have been erased, and `rows_emptied` are there
    without them.
    """

    batch_id: str
    partition_key: str
    status: Status
    files: int
    rows_read: int
    rows_accepted: int
    rows_dead_lettered: int
    rows_duplicate: int
    reason: str = ""
    rows_erased: int = 0
    rows_emptied: int = 0
    unchanged: bool = False

    @property
    def balanced(self) -> bool:
        """The conservation law of this batch."""
        return self.rows_read == self.rows_accepted + self.rows_dead_lettered + self.rows_duplicate


@dataclass(frozen=True)
class IngestResult:
    """What one call did: the batches by partition key, files set aside, partitions that had no file.

    `drift` has the columns by which files differ from the contract, of the batches that were read.
    """

    source: str
    batches: tuple[BatchOutcome, ...]
    problems: tuple[FileProblem, ...]
    empty_partitions: tuple[str, ...]
    drift: tuple[Drift, ...] = ()

    @property
    def refused(self) -> tuple[BatchOutcome, ...]:
        """Batches of which nothing was accepted."""
        return tuple(b for b in self.batches if b.status == "refused")

    @property
    def held_back(self) -> tuple[FileProblem, ...]:
        """Files whose partitions were left as they are, because files they came from have vanished."""
        return tuple(p for p in self.problems if p.rule == "file_vanished")

    def total(self, field: str) -> int:
        """Sum of one of the rows_ counts over the batches."""
        return sum(getattr(b, field) for b in self.batches)


@dataclass(frozen=True)
class Batch:
    """The files of one partition that are brought in together, and the id that says so."""

    number: int
    batch_id: str
    partition_key: str
    files: tuple[Inspected, ...]


def message_batch_id(contract: Contract, topic: str, partition: int, era: int, start: int, stop: int) -> str:
    """Identifies a batch of messages by source, place and contract: 32 hex digits of a SHA-256."""
    content = [FORMAT, contract.name, contract.hash, topic, partition, era, start, stop]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def batch_id(contract: Contract, key: str, files: list[Inspected]) -> str:
    """Identifies a batch by source, partition, content and contract: 32 hex digits of a SHA-256."""
    content = [FORMAT, contract.name, contract.hash, key, [(f.file.path, f.sha256, f.problem) for f in files]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
