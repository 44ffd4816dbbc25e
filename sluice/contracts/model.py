"""A source as its contract describes it: values only.

What a contract file may say, and how it is read, belongs to `sluice.contracts.reading`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sluice.contracts.rest import RestSource

FORMATS = ("csv", "jsonl", "parquet")

# What a rule does: tell of the row, set it aside, or refuse its whole batch.
SEVERITIES = ("warn", "quarantine", "fail")

# What happens to a column the contract does not know: it comes into bronze, its batch is refused, it is dropped.
EVOLUTIONS = ("evolve", "freeze", "discard")

# The classification that asks for a treatment, and the treatments there are; the first is the default.
PERSONAL = "personal"
PRIVACY = ("pseudonymize", "mask")

# What happens to a record of a stream that is later than the contract allows: it is taken and told of, or set aside.
LATENESS = ("accept", "quarantine")

# A volume is judged by the median of four weeks, and not before there is a working week of them: of fewer the median
# follows each.
USUAL_HISTORY = 28
LEAST_HISTORY = 5

DECIMAL = re.compile(r"DECIMAL\((\d{1,2}),\s?(\d{1,2})\)")
# In the name of each shadow of a source that is being rebuilt, behind the source's name (sluice.shadows).
REBUILT = "__rebuilt"

# Kafka's rule for the names of topics.
TOPIC = re.compile(r"(?!\.{1,2}$)[a-zA-Z0-9._-]{1,249}")
# Semantic versioning, with a v before it or not.
VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:[-+].*)?")
PATH_TOKEN = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Column:
    """One column of a source: what it is called where it comes from and in bronze, and what a value must meet."""

    name: str
    source_name: str
    type: str
    description: str = ""
    required: bool = False
    unique: bool = False
    primary_key: bool = False
    pattern: str | None = None
    minimum: Any = None
    maximum: Any = None
    exclusive_minimum: Any = None
    exclusive_maximum: Any = None
    min_length: int | None = None
    max_length: int | None = None
    enum: tuple[str, ...] = ()
    format: str | None = None
    classification: str | None = None
    severities: tuple[tuple[str, str], ...] = ()

    def severity(self, rule: str) -> str:
        """What one of its rules does, such as `pattern`; one of SEVERITIES."""
        return dict(self.severities).get(rule, "quarantine")

    # Out of `repr`, of which `Contract.hash` is made: how a column is shown, or whom it names, changes no row's fate.
    privacy: str | None = field(default=None, repr=False)
    subject: str | None = field(default=None, repr=False)

    @property
    def personal(self) -> bool:
        """Whether the column is personal data, which goes into silver and gold as `privacy` says."""
        return self.classification == PERSONAL

    @property
    def scale(self) -> int | None:
        """Decimal places of a DECIMAL column, else None."""
        match = DECIMAL.fullmatch(self.type)
        return int(match.group(2)) if match else None


@dataclass(frozen=True)
class RowRule:
    """A named SQL condition every row must meet; it sees the typed columns. A null result counts as met."""

    name: str
    column: str
    condition: str
    description: str = ""
    severity: str = "quarantine"


@dataclass(frozen=True)
class VolumeGate:
    """How many rows a batch may have, as shares of what is usual: the median of the batches of the days before it.

    Attributes:
        minimum, maximum: shares, such as 0.5 and 2; None: no bound.
        history: of how many batches the median is taken.
        severity: `warn` or `fail`.
    """

    minimum: float | None
    maximum: float | None
    history: int
    severity: str


@dataclass(frozen=True)
class CsvDialect:
    """How a source's CSV files are written. Declared once, never guessed from a file."""

    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    multiline: bool = False
    encoding: str = "utf-8"


@dataclass(frozen=True)
class ChangeFeed:
    """The rows are change events in an envelope; the order is `sequence`, valid from `valid_from`.

    Attributes:
        envelope: `debezium`.
        sequence: path of the first part of the order.
        valid_from: path of the business time, in milliseconds.
        further: paths of the other parts, in order.
        truncates: whether a truncate is a row of it, with an operation and a place and nothing else.
    """

    envelope: str
    sequence: str
    valid_from: str
    # Out of `repr`, of which `Contract.hash` is made: a feed without either is what it was before there were any.
    further: tuple[str, ...] = field(default=(), repr=False)
    truncates: bool = field(default=False, repr=False)

    def __str__(self) -> str:
        also = ", with truncates" if self.truncates else ""
        return f"{self.envelope}, ordered by {', '.join(self.paths)}, valid from {self.valid_from}{also}"

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all parts of the order."""
        return (self.sequence, *self.further)

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations a row may have: create, update, delete, read (snapshot), and truncate where it is one."""
        return ("c", "u", "d", "r", "t") if self.truncates else ("c", "u", "d", "r")


@dataclass(frozen=True)
class PullSchedule:
    """When a source is pulled by itself: cron (UTC), and whether on from the start."""

    cron: str
    active: bool = True


@dataclass(frozen=True)
class Pull:
    """The source is a database that is asked for what changed; see `sluice.pull`.

    Attributes:
        connection: name of the environment variable with the libpq connection string; it begins with `SLUICE_PULL_`.
        table: what is pulled, `schema.table`; empty with a query.
        query: likewise, as SQL; empty with a table.
        cursor: the column by which rows are newer: a time, a date or a whole number.
        overlap: how far before the mark is read again: seconds of a time, days of a date, units of a number.
        schedule: when it is pulled by itself; None: by hand only.
    """

    connection: str
    table: str
    query: str
    cursor: str
    overlap: int
    schedule: PullSchedule | None = None


@dataclass(frozen=True)
class Landing:
    """Where a source's files lie and how their path says which partition they belong to.

    `path` holds tokens: `{date}` is the daily partition, a token listed in `partitions` takes only the values given
    there, any other token is free and becomes a column only.
    """

    path: str
    formats: tuple[str, ...]
    partitions: Mapping[str, tuple[str, ...]]
    csv: CsvDialect
    duplicates: str

    @property
    def tokens(self) -> tuple[str, ...]:
        """Names of the tokens in `path`, in order."""
        return tuple(PATH_TOKEN.findall(self.path))

    @property
    def prefix(self) -> str:
        """The leading part of `path` that is the same for every file."""
        return self.path.split("{")[0].rpartition("/")[0]


@dataclass(frozen=True)
class Stream:
    """The source's records also come by an event log, one JSON document a message.

    Attributes:
        topic: where they are.
        partitions: the topic is made with, where Sluice makes it.
        event_time: the column that says when a record happened; None: lateness is not judged.
        allowed_lateness_seconds: how far behind the newest record one may be and not be late.
        late: what happens to one that is; one of LATENESS.
        rows, seconds: a batch is read when so many records wait, or one has waited so long.
    """

    topic: str
    partitions: int = 1
    event_time: str | None = None
    allowed_lateness_seconds: float = 0.0
    late: str = LATENESS[0]
    rows: int = 10_000
    seconds: float = 10.0


@dataclass(frozen=True)
class Contract:
    """A source as its contract describes it.

    `hash` changes with any change that can change the fate of a row of a landing file. How records of a stream arrive
    is no part of it: what was read of a topic is not read again.
    """

    name: str
    version: str
    title: str
    description: str
    granularity: str
    domain: str
    owners: tuple[str, ...]
    columns: tuple[Column, ...]
    rules: tuple[RowRule, ...]
    landing: Landing
    change_feed: ChangeFeed | None
    stream: Stream | None
    max_rejected_share: float
    volume: VolumeGate | None
    schema_evolution: str
    latency_hours: float | None
    status: str
    # How landing files come to be changes no row's fate: no part of `hash`.
    rest: RestSource | None
    pull: Pull | None
    path: Path = field(compare=False)

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the primary key's columns."""
        return tuple(c.name for c in self.columns if c.primary_key)

    @property
    def subjects(self) -> frozenset[str]:
        """The kinds of person its rows name, such as `customer`."""
        return frozenset(c.subject for c in self.columns if c.subject)

    @property
    def tells_of_people(self) -> bool:
        """Whether a row of it may name somebody: whoever sees the UI is not thereby allowed to see people."""
        return any(c.personal or c.subject for c in self.columns)

    @property
    def static_dimension(self) -> str | None:
        """The path token that fans a day out into several partitions, such as `region`; None when a day is one."""
        return next(iter(self.landing.partitions), None)

    @cached_property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of everything that decides a row's fate."""
        # What people only read is left out: a mended description must not load every batch again.
        columns = tuple(replace(c, description="", classification=None) for c in self.columns)
        conditions = tuple(replace(r, description="") for r in self.rules)
        # Defaults are left out: they came later than the first lakes, whose batches are to stay what they are.
        feed = self.change_feed
        given = (self.volume, self.schema_evolution, feed.further if feed else (), feed.truncates if feed else False)
        later = [v for v in given if v not in (None, EVOLUTIONS[0], (), False)]
        rules = repr((columns, conditions, self.landing, self.change_feed, self.max_rejected_share, *later))
        return hashlib.sha256(rules.encode()).hexdigest()[:16]
