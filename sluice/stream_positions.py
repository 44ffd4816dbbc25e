"""How far a source has read its topic: positions, what waits behind them, and moving them.

A position is the offset behind the newest batch in `ops.stream_positions`, which `sluice.streams` writes together with
the batch's rows. Nothing here reads messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb

from sluice.booking import take_turn
from sluice.bronze import create_bronze
from sluice.contracts import Contract, Stream
from sluice.errors import ContractError, EventLogError
from sluice.eventlog import Bounds, EventLog
from sluice.lake import Lake
from sluice.lateness import Progress, watermark
from sluice.sql import temp_table


@dataclass(frozen=True)
class Position:
    """How far a source has read one partition of its topic; without more than the partition, not at all.

    Attributes:
        era: raised when somebody moves the position.
        topic_id: which topic of this name it is a position in.
        next_offset: the first offset not read yet; None where nothing was.
        newest_event: the latest event time of what was read, as `sluice.lateness` counts it.
    """

    partition: int
    era: int = 0
    topic_id: str = ""
    next_offset: int | None = None
    newest_event: datetime | None = None

    def start(self, bounds: Bounds) -> int:
        """Where reading goes on: at the beginning of the log where nothing was read."""
        return bounds.start if self.next_offset is None else self.next_offset


@dataclass(frozen=True)
class Lag:
    """What of one partition waits to be read: `records` offsets from `next_offset` to `end`."""

    partition: int
    next_offset: int
    end: int

    @property
    def records(self) -> int:
        """Offsets that wait; in a compacted log fewer records."""
        return self.end - self.next_offset


def stream_of(contract: Contract) -> Stream:
    """The stream of a source.

    Raises:
        ContractError: it has none.
    """
    if contract.stream is None:
        raise ContractError(
            f"{contract.path.name} has no stream. Give it the customProperty stream with a topic (docs/contracts.md)."
        )
    return contract.stream


def positions(con: duckdb.DuckDBPyConnection, contract: Contract) -> dict[int, Position]:
    """How far a source has read each partition of its topic; of those never read there is nothing."""
    rows = con.execute(
        "SELECT partition, era, any_value(topic_id), max(stop_offset), max(newest_event) FROM ops.stream_positions "
        "WHERE source = ? AND topic = ? GROUP BY partition, era QUALIFY era = max(era) OVER (PARTITION BY partition)",
        [contract.name, stream_of(contract).topic],
    ).fetchall()
    return {row[0]: Position(*row) for row in rows}


def lag(con: duckdb.DuckDBPyConnection, contract: Contract, log: EventLog) -> list[Lag]:
    """What of each partition waits, whether or not it is still there to be read.

    Raises:
        EventLogError, EventLogUnavailableError: as `EventLog`.
    """
    known = positions(con, contract)
    return [
        Lag(number, known.get(number, Position(number)).start(bounds), bounds.end)
        for number, bounds in sorted(log.bounds(stream_of(contract).topic).items())
    ]


def last_read(con: duckdb.DuckDBPyConnection, contract: Contract) -> datetime | None:
    """When a batch of a source's topic was last written, UTC; None before the first."""
    row = con.execute(
        "SELECT max(l.ingested_at) FROM ops.ledger AS l SEMI JOIN ops.stream_positions AS p "
        "ON p.batch_id = l.batch_id AND p.source = l.source WHERE l.source = ?",
        [contract.name],
    ).fetchone()
    return row[0] if row else None


def broken_ranges(con: duckdb.DuckDBPyConnection, contract: Contract) -> list[str]:
    """Where a batch does not begin at the offset at which the one before it ended; there must be none."""
    rows = con.execute(
        "SELECT partition, era, former, start_offset FROM (SELECT *, lag(stop_offset) OVER (PARTITION BY topic, "
        "partition, era ORDER BY start_offset, stop_offset) AS former FROM ops.stream_positions WHERE source = ? "
        "AND topic = ?) WHERE former <> start_offset ORDER BY ALL",
        [contract.name, stream_of(contract).topic],
    ).fetchall()
    return [f"partition {p}{f' (era {e})' if e else ''}: read up to {f}, then from {s} on" for p, e, f, s in rows]


def source_watermark(con: duckdb.DuckDBPyConnection, contract: Contract) -> datetime | None:
    """What the last batch of a source was held against. Where a position was moved it begins anew: nothing is late."""
    row = con.execute(
        "SELECT max(watermark) FROM (FROM ops.stream_positions WHERE source = ? AND topic = ? "
        "QUALIFY era = max(era) OVER (PARTITION BY partition))",
        [contract.name, stream_of(contract).topic],
    ).fetchone()
    return row[0] if row else None


def next_watermark(
    con: duckdb.DuckDBPyConnection, contract: Contract, known: Mapping[int, Position], waiting: Iterable[Lag]
) -> datetime | None:
    """What the source's next batch will be held against; None while nobody can be late.

    Args:
        con: a connection on the lake.
        contract: of the source.
        known: its positions.
        waiting: what waits, of every partition of its topic.
    """
    return watermark(
        stream_of(contract),
        source_watermark(con, contract),
        [Progress(known.get(w.partition, Position(w.partition)).newest_event, w.records > 0) for w in waiting],
    )


def former_topics(con: duckdb.DuckDBPyConnection, contract: Contract, log: EventLog) -> set[str]:
    """Ids of other topics of this name that positions are in: it was made anew, or is of another event log.

    Raises:
        EventLogError, EventLogUnavailableError: as `EventLog`.
    """
    known = {p.topic_id for p in positions(con, contract).values()}
    return known - {"", log.topic_id(stream_of(contract).topic)}


def seek(lake: Lake, contract: Contract, log: EventLog, where: datetime | str, *, force: bool = False) -> list[Lag]:
    """Move a source's positions; what it has read stays.

    Args:
        lake: whose positions.
        contract: of the source.
        log: where its topic is.
        where: `unread` (behind what was read of this very topic), `earliest`, `latest`, or a time (UTC).
        force: also where messages would come into bronze a second time, or would be passed over.

    Returns:
        What waits of each partition now.

    Raises:
        EventLogError: messages would be read twice or passed over; nothing was moved. Also as `EventLog`.
        EventLogUnavailableError: as `EventLog`.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    stream = stream_of(contract)
    bounds, topic_id = log.bounds(stream.topic), log.topic_id(stream.topic)
    at = log.offsets_at(stream.topic, where) if isinstance(where, datetime) else {}

    def write(con: duckdb.DuckDBPyConnection) -> None:
        take_turn(con, contract.name)
        known = positions(con, contract)
        unread = {n: max(reached, bounds[n].start) for n, reached in _reached(con, contract, topic_id, bounds).items()}
        targets = dict(at) or {
            n: {"unread": min(unread[n], b.end), "earliest": b.start, "latest": b.end}[str(where)]
            for n, b in bounds.items()
        }
        twice = sum(max(min(unread[n], bounds[n].end) - target, 0) for n, target in targets.items())
        passed_over = sum(max(target - unread[n], 0) for n, target in targets.items())
        if not force and (twice or passed_over):
            raise EventLogError(
                f"{contract.name}: {f'{twice:,} offsets would be read a second time' if twice else ''}"
                f"{' and ' if twice and passed_over else ''}"
                f"{f'{passed_over:,} that wait would be passed over' if passed_over else ''}; nothing was moved. "
                f"`sluice replay --topic {stream.topic} --from TIME` makes rows anew without doubling them, "
                f"`--to unread` goes on behind what was read. --force moves all the same."
            )
        # Partitions that the topic had when it was another one are not positions in it any more.
        targets |= {n: 0 for n in known if n not in bounds}
        rows = [
            (contract.name, stream.topic, n, known[n].era + 1 if n in known else 0, t, t) for n, t in targets.items()
        ]
        temp_table(
            con,
            "sought",
            "source VARCHAR, topic VARCHAR, partition INTEGER, era INTEGER, start_offset BIGINT, stop_offset BIGINT",
            rows,
        )
        con.execute(
            "INSERT INTO ops.stream_positions BY NAME SELECT *, ? AS topic_id, 0 AS records, 0 AS late FROM sought",
            [topic_id],
        )

    with lake.connect() as con:
        lake.create(con)
        create_bronze(lake, con, contract)
        lake.transaction(con, write, f"stream {contract.name}: positions moved")
        return lag(con, contract, log)


def _reached(
    con: duckdb.DuckDBPyConnection, contract: Contract, topic_id: str, bounds: Mapping[int, Bounds]
) -> dict[int, int]:
    """Of each partition the offset behind what was ever read of this very topic, whatever was read of others since."""
    rows = con.execute(
        "SELECT partition, max(stop_offset) FROM ops.stream_positions WHERE source = ? AND topic = ? AND topic_id = ? "
        "AND batch_id IS NOT NULL GROUP BY partition",
        [contract.name, stream_of(contract).topic, topic_id],
    ).fetchall()
    read = dict(rows)
    return {number: read.get(number, 0) for number in bounds}
