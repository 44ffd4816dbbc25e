"""A source's rows made again from its topic: under today's contract, beside the old ones, compared, and swapped.

The log is read once more into a shadow of the source: a source of its own with its own bronze table, books and
positions, by the very code that reads the topic. Readers and the stream itself go on meanwhile. When the shadow has
come as far as the source, one transaction puts its rows, books and positions in the place of the old. Belongs here:
what is read again, and from where; reading belongs to `sluice.streams`, comparison and swap to `sluice.swap`, how a
shadow goes to `sluice.shadows`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime

import duckdb

from sluice.bronze import create_bronze
from sluice.contracts import Contract
from sluice.errors import EventLogError, PositionMovedError, RebuildHeldError, SluiceError
from sluice.eventlog import EventLog
from sluice.lake import Lake
from sluice.records import message_path
from sluice.shadows import ShadowLostError, end, erasures, is_there, shadow_of, sweep, turn_of
from sluice.sql import quoted, temp_table
from sluice.stream_positions import former_topics, positions, stream_of
from sluice.streams import Reader
from sluice.swap import Range, Rebuilt, compare, swap


def rebuild(
    lake: Lake,
    contract: Contract,
    log: EventLog,
    since: datetime,
    *,
    run_id: str = "",
    force: bool = False,
    compare_only: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Rebuilt:
    """Read a source's topic again from a time on, and put what comes of it in the place of what is in bronze.

    What was read as whole batches is read again as such, so that it begins with the batch that holds the first message
    of `since`. What people decided about dead letters holds for the same letters again.

    Args:
        lake: whose bronze.
        contract: of the source, as it is now.
        log: where its topic is.
        since: UTC.
        run_id: noted in the ledger.
        force: as of `sluice.streams.read_stream`.
        compare_only: leave everything as it is, and only say what would be.
        tell: is told how far it has come.

    Raises:
        EventLogError: of what was read since then the log holds nothing any more.
        RebuildHeldError: another replay of this source is under way; nothing was changed.
        StreamHeldError: a batch is refused under today's contract; nothing was changed.
        EventLogUnavailableError, LakeUnavailableError, StorageFullError: as `read_stream`.
    """
    stream_of(contract)
    with turn_of(lake.settings, contract.name):
        while True:
            # Of the first erasure there was, only a new connection has the key.
            with lake.connect() as con:
                lake.create(con)
                create_bronze(lake, con, contract)
                done = _once(lake, con, contract, log, since, run_id, force, compare_only, tell)
            if done is not None:
                return done
            tell("a person was erased meanwhile: all is read again, without them")


def _once(
    lake: Lake,
    con: duckdb.DuckDBPyConnection,
    contract: Contract,
    log: EventLog,
    since: datetime,
    run_id: str,
    force: bool,
    compare_only: bool,
    tell: Callable[[str], None],
) -> Rebuilt | None:
    """Make rows again by one shadow; None where it came to nothing, because somebody was erased meanwhile."""
    earlier = _earlier(con, contract, since)
    ranges = _ranges(con, contract, log, since)
    if not ranges:
        return Rebuilt(contract.name, (), earlier=earlier)
    shadow = shadow_of(contract)
    erased = lake.transaction(con, _beginning(contract, shadow, ranges), f"rebuild of {contract.name}: begun")
    reader = Reader(lake, shadow, log, run_id, force)
    try:
        done = _made(lake, con, contract, reader, shadow, erased, compare_only, tell)
        return dataclasses.replace(done, earlier=earlier)
    except (duckdb.Error, SluiceError) as error:
        # Whoever writes into a shadow that was swept away meets one error or another.
        if is_there(con, shadow) and not isinstance(error, ShadowLostError):
            raise
        if erasures(con) == erased:
            raise RebuildHeldError(
                f"What was read again of {contract.name} was taken away by another replay of it, on another machine. "
                "Nothing was changed. Run this one again when that has ended."
            ) from error
        return None
    finally:
        lake.transaction(con, lambda c: end(c, shadow), f"rebuild of {contract.name}: ended")


def _made(
    lake: Lake,
    con: duckdb.DuckDBPyConnection,
    contract: Contract,
    reader: Reader,
    shadow: Contract,
    erased: tuple[int, int],
    compare_only: bool,
    tell: Callable[[str], None],
) -> Rebuilt:
    """Fill a shadow, and compare or swap it."""
    while True:
        _read(reader, con, contract, tell)
        try:
            if compare_only:
                return compare(con, contract, shadow)
            return lake.transaction(con, lambda c: swap(c, contract, shadow, erased), f"{contract.name} rebuilt")
        except PositionMovedError:
            # The stream went on between the last reading and the swap: a few messages more to read.
            continue


def _earlier(con: duckdb.DuckDBPyConnection, contract: Contract, since: datetime) -> int:
    """How many rows of that time were read before a position was moved: their places are not those of today."""
    topic = stream_of(contract).topic
    eras = con.execute(
        "SELECT DISTINCT partition, era FROM ops.stream_positions WHERE source = ? AND topic = ? "
        "QUALIFY era < max(era) OVER (PARTITION BY partition)",
        [contract.name, topic],
    ).fetchall()
    row = con.execute(
        f"SELECT count(*) FROM bronze.{quoted(contract.name)} WHERE _file IN (SELECT unnest(?)) "
        "AND (_message_ts >= ? OR _message_ts IS NULL)",
        [[message_path(topic, partition, era) for partition, era in eras], since],
    ).fetchone()
    assert row is not None, "an aggregate has a row"
    return int(row[0])


def _ranges(con: duckdb.DuckDBPyConnection, contract: Contract, log: EventLog, since: datetime) -> list[Range]:
    """Of each partition the offsets to be read again: whole batches, from that which holds the first message meant."""
    stream = stream_of(contract)
    known = positions(con, contract)
    if former_topics(con, contract, log):
        raise EventLogError(
            f"The topic {stream.topic} there is now ({log.name}) is not the one that {contract.name} was read from, so "
            "its rows cannot be made again from it. Nothing was changed."
        )
    wanted = log.offsets_at(stream.topic, since)
    held = log.bounds(stream.topic)
    found = []
    for number, position in sorted(known.items()):
        if position.next_offset is None or number not in wanted or wanted[number] >= position.next_offset:
            continue
        row = con.execute(
            "SELECT max(start_offset) FILTER (start_offset BETWEEN $held AND $wanted), "
            "min(start_offset) FILTER (start_offset >= $held), count(*) FROM ops.stream_positions "
            "WHERE source = $source AND topic = $topic AND partition = $partition AND era = $era "
            "AND batch_id IS NOT NULL",
            {
                "wanted": wanted[number],
                "source": contract.name,
                "topic": stream.topic,
                "partition": number,
                "era": position.era,
                "held": held[number].start,
            },
        ).fetchone()
        assert row is not None, "an aggregate has a row"
        at_or_before, behind, batches = row
        if not batches:
            # Its position was moved, and nothing has come since.
            continue
        start = at_or_before if at_or_before is not None else behind
        if start is None:
            raise EventLogError(
                f"{stream.topic} partition {number} holds no whole batch any more that was read since {since}: its "
                f"records begin at {held[number].start}. Nothing was changed."
            )
        found.append(Range(number, start, position.next_offset))
    return found


def _beginning(
    contract: Contract, shadow: Contract, ranges: list[Range]
) -> Callable[[duckdb.DuckDBPyConnection], tuple[int, int]]:
    """The transaction that makes a shadow, and tells who was erased before."""

    def begin(con: duckdb.DuckDBPyConnection) -> tuple[int, int]:
        sweep(con, contract.name)
        _begin(con, contract, shadow, ranges)
        return erasures(con)

    return begin


def _begin(con: duckdb.DuckDBPyConnection, contract: Contract, shadow: Contract, ranges: list[Range]) -> None:
    """Make the shadow: an empty table like the source's, positions before what is to be read."""
    stream = stream_of(contract)
    con.execute(f"CREATE TABLE bronze.{quoted(shadow.name)} AS FROM bronze.{quoted(contract.name)} LIMIT 0")
    # Columns that came in by themselves are to have the names they have.
    con.execute(
        "INSERT INTO ops.schema_drift BY NAME SELECT * REPLACE ($shadow AS source) FROM ops.schema_drift "
        "WHERE source = $source",
        {"shadow": shadow.name, "source": contract.name},
    )
    con.execute("INSERT INTO ops.turns VALUES (?, 0)", [shadow.name])
    by_partition = {r.partition: r for r in ranges}
    starts = [
        (
            number,
            position.era,
            position.topic_id,
            by_partition[number].start if number in by_partition else position.next_offset,
        )
        for number, position in positions(con, contract).items()
    ]
    temp_table(con, "shadow_starts", "partition INTEGER, era INTEGER, topic_id VARCHAR, start BIGINT", starts)
    con.execute(
        # Who was late when they were first read is late again.
        "INSERT INTO ops.stream_positions BY NAME SELECT $shadow AS source, $topic AS topic, s.topic_id, s.partition, "
        "s.era, "
        "s.start AS start_offset, s.start AS stop_offset, 0 AS records, 0 AS late, b.watermark, "
        "(SELECT max(newest_event) FROM ops.stream_positions AS p WHERE p.source = $source AND p.topic = $topic "
        "AND p.partition = s.partition AND p.era = s.era AND p.stop_offset <= s.start) AS newest_event "
        "FROM shadow_starts AS s LEFT JOIN ops.stream_positions AS b ON b.source = $source AND b.topic = $topic "
        "AND b.partition = s.partition AND b.era = s.era AND b.start_offset = s.start AND b.batch_id IS NOT NULL",
        {"shadow": shadow.name, "source": contract.name, "topic": stream.topic},
    )


def _read(
    reader: Reader,
    con: duckdb.DuckDBPyConnection,
    contract: Contract,
    tell: Callable[[str], None],
) -> None:
    """Read into the shadow until it has come as far as the source."""
    while True:
        stops = {n: p.next_offset for n, p in positions(con, contract).items() if p.next_offset is not None}
        result = reader.read_once(con, stops=stops)
        if not result.batches:
            return
        tell(f"{result.total('rows_read'):,} messages read again, {result.total('rows_accepted'):,} accepted")
