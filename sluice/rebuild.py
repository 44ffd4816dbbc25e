"""A source's rows made again from its topic: under today's contract, beside the old ones, compared, and swapped.

The log is read once more into a shadow of the source: a source of its own (`<source>__rebuilt`) with its own bronze
table, books and positions, by the very code that reads the topic. Readers and the stream itself go on meanwhile. When
the shadow has come as far as the source, one transaction puts its rows, books and positions in the place of the old.
Belongs here: the shadow, the comparison and the swap; reading belongs to `sluice.streams`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import duckdb

from sluice.booking import balanced, take_turn
from sluice.bronze import create_bronze
from sluice.contracts import REBUILT, Contract
from sluice.erasure.register import ERASED
from sluice.errors import EventLogError, PositionMovedError
from sluice.eventlog import EventLog
from sluice.lake import Lake, literal, quoted, temp_table
from sluice.records import message_path
from sluice.replay import take_corrected
from sluice.stream_positions import Position, former_topics, positions, stream_of
from sluice.streams import Reader

_BOOKS = ("ledger", "dead_letters", "warnings", "stream_positions", "schema_drift")

# How a row is the same in both: all but when, and by which batch, it was read.
_OF_THE_READING = ("_batch_id", "_partition_key", "_ingested_at")


@dataclass(frozen=True)
class Range:
    """The offsets [start, stop) of a partition that were made again."""

    partition: int
    start: int
    stop: int


@dataclass(frozen=True)
class Rebuilt:
    """What making rows again came to.

    Attributes:
        source: whose rows.
        ranges: which offsets were read again.
        before: rows bronze had of them.
        after: rows it has now, or would have.
        gone: rows that are not made again: they are dead letters or duplicates by now.
        new: rows that were none before.
        changed: rows that are there before and after, with other values.
        dead_letters: rows of these offsets that are set aside now.
        swapped: whether the new rows are in the place of the old.
    """

    source: str
    ranges: tuple[Range, ...]
    before: int = 0
    after: int = 0
    gone: int = 0
    new: int = 0
    changed: int = 0
    dead_letters: int = 0
    swapped: bool = False


def shadow_of(contract: Contract) -> Contract:
    """The source that rows are made again as."""
    return dataclasses.replace(contract, name=contract.name + REBUILT)


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
        StreamHeldError: a batch is refused under today's contract; nothing was changed.
        EventLogUnavailableError, LakeUnavailableError, StorageFullError: as `read_stream`.
    """
    stream_of(contract)
    with lake.connect() as con:
        lake.create(con)
        create_bronze(lake, con, contract)
        ranges = _ranges(con, contract, log, since)
        if not ranges:
            return Rebuilt(contract.name, ())
        shadow = shadow_of(contract)
        lake.transaction(con, lambda c: _begin(c, contract, shadow, ranges), f"rebuild of {contract.name}: begun")
        reader = Reader(lake, shadow, log, run_id, force)
        try:
            while True:
                _read(reader, con, contract, tell)
                try:
                    if compare_only:
                        return _compare(con, contract, shadow)
                    return lake.transaction(con, lambda c: _swap(c, contract, shadow), f"{contract.name} rebuilt")
                except PositionMovedError:
                    # The stream went on between the last reading and the swap: a few messages more to read.
                    continue
        finally:
            lake.transaction(con, lambda c: _clear(c, shadow), f"rebuild of {contract.name}: ended")


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
            "SELECT max(start_offset) FILTER (start_offset <= $wanted), min(start_offset) FROM ops.stream_positions "
            "WHERE source = $source AND topic = $topic AND partition = $partition AND era = $era "
            "AND batch_id IS NOT NULL AND start_offset >= $held",
            {
                "wanted": wanted[number],
                "source": contract.name,
                "topic": stream.topic,
                "partition": number,
                "era": position.era,
                "held": held[number].start,
            },
        ).fetchone()
        start = None if row is None else row[0] if row[0] is not None else row[1]
        if start is None:
            raise EventLogError(
                f"{stream.topic} partition {number} holds no whole batch any more that was read since {since}: its "
                f"records begin at {held[number].start}. Nothing was changed."
            )
        found.append(Range(number, start, position.next_offset))
    return found


def _begin(con: duckdb.DuckDBPyConnection, contract: Contract, shadow: Contract, ranges: list[Range]) -> None:
    """Make the shadow: an empty table like the source's, positions before what is to be read."""
    _clear(con, shadow)
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


def _made_again(con: duckdb.DuckDBPyConnection, contract: Contract, shadow: Contract) -> list[Range]:
    """Make `made_again`: by the place messages have, from which offset on the shadow has read them again.

    Raises:
        PositionMovedError: the source has been read further, or its position was moved.
    """
    topic = stream_of(contract).topic
    now, then = positions(con, contract), positions(con, shadow)

    def place(found: dict[int, Position]) -> dict[int, tuple[int, int | None]]:
        return {n: (p.era, p.next_offset) for n, p in found.items()}

    if place(now) != place(then):
        raise PositionMovedError(f"{contract.name} was read on meanwhile. Try again.")
    rows = con.execute(
        "SELECT partition, min(start_offset), max(stop_offset) FROM ops.stream_positions WHERE source = ? "
        "GROUP BY partition HAVING min(start_offset) < max(stop_offset) ORDER BY 1",
        [shadow.name],
    ).fetchall()
    ranges = [Range(*row) for row in rows]
    temp_table(
        con,
        "made_again",
        "partition INTEGER, file VARCHAR, start BIGINT",
        [(r.partition, message_path(topic, r.partition, now[r.partition].era), r.start) for r in ranges],
    )
    return ranges


def _compare(con: duckdb.DuckDBPyConnection, contract: Contract, shadow: Contract) -> Rebuilt:
    """Hold the rows of the shadow against those of the source."""
    ranges = _made_again(con, contract, shadow)
    # A name with blanks: no column of bronze can be called so.
    row = con.execute(
        'WITH old AS (SELECT _file, _line, hash("the row") AS content FROM (SELECT b.* EXCLUDE '
        f"({', '.join(_OF_THE_READING)}) FROM bronze.{quoted(contract.name)} AS b SEMI JOIN made_again AS m "
        'ON b._file = m.file AND b._line >= m.start) AS "the row"), '
        'made AS (SELECT _file, _line, hash("the row") AS content FROM (SELECT * EXCLUDE '
        f'({", ".join(_OF_THE_READING)}) FROM bronze.{quoted(shadow.name)}) AS "the row") '
        "SELECT count(old._line), count(made._line), count(*) FILTER (made._line IS NULL), "
        "count(*) FILTER (old._line IS NULL), count(*) FILTER (old.content <> made.content) "
        "FROM old FULL JOIN made ON old._file = made._file AND old._line = made._line"
    ).fetchone()
    letters = con.execute(
        "SELECT coalesce(sum(rows), 0)::BIGINT FROM ops.dead_letters WHERE source = ?", [shadow.name]
    ).fetchone()
    assert row is not None and letters is not None, "an aggregate has a row"
    before, after, gone, new, changed = row
    return Rebuilt(contract.name, tuple(ranges), before, after, gone, new, changed, letters[0])


def _swap(con: duckdb.DuckDBPyConnection, contract: Contract, shadow: Contract) -> Rebuilt:
    """Put the shadow's rows, books and positions in the place of the source's: the body of one transaction."""
    take_turn(con, contract.name)
    told = _compare(con, contract, shadow)
    stream = stream_of(contract)
    table = f"bronze.{quoted(contract.name)}"
    names = {"source": contract.name, "shadow": shadow.name}
    con.execute(
        "CREATE OR REPLACE TEMP TABLE replaced AS SELECT p.batch_id, p.partition FROM ops.stream_positions AS p "
        "JOIN made_again AS m ON m.partition = p.partition WHERE p.source = $source AND p.topic = $topic "
        "AND p.start_offset >= m.start AND p.batch_id IS NOT NULL AND p.era = (SELECT max(era) "
        "FROM ops.stream_positions AS e WHERE e.source = $source AND e.topic = $topic AND e.partition = p.partition)",
        {"source": contract.name, "topic": stream.topic},
    )
    con.execute(
        f"DELETE FROM {table} WHERE EXISTS (SELECT 1 FROM made_again AS m WHERE m.file = _file AND _line >= m.start)"
    )
    con.execute(f"INSERT INTO {table} BY NAME FROM bronze.{quoted(shadow.name)}")
    _carry_decisions_over(con, names)
    con.execute(
        "UPDATE ops.ledger AS l SET superseded_by = n.batch_id FROM replaced AS r JOIN (SELECT partition, "
        "min(batch_id) AS batch_id FROM ops.stream_positions WHERE source = $shadow AND batch_id IS NOT NULL "
        "GROUP BY partition) AS n USING (partition) WHERE l.batch_id = r.batch_id",
        {"shadow": shadow.name},
    )
    con.execute(
        "DELETE FROM ops.stream_positions WHERE source = $source AND batch_id IN (SELECT batch_id FROM replaced)",
        {"source": contract.name},
    )
    # Where the shadow began is no batch.
    con.execute("DELETE FROM ops.stream_positions WHERE source = $shadow AND batch_id IS NULL", {"shadow": shadow.name})
    con.execute(
        "CREATE OR REPLACE TEMP TABLE batches AS SELECT batch_id FROM ops.stream_positions WHERE source = $shadow",
        {"shadow": shadow.name},
    )
    con.execute(
        'DELETE FROM ops.schema_drift WHERE source = $shadow AND ("column", kind) IN '
        '(SELECT ("column", kind) FROM ops.schema_drift WHERE source = $source)',
        names,
    )
    for ops_table in _BOOKS:
        con.execute(f"UPDATE ops.{ops_table} SET source = $source WHERE source = $shadow", names)
    take_corrected(con, contract, "SELECT batch_id FROM batches")
    con.execute(
        "CREATE OR REPLACE TEMP TABLE batches AS SELECT batch_id FROM ops.stream_positions AS p JOIN made_again AS m "
        "USING (partition) WHERE p.source = $source AND p.start_offset >= m.start AND batch_id IS NOT NULL",
        {"source": contract.name},
    )
    balanced(con, contract.name)
    return dataclasses.replace(told, swapped=True)


def _carry_decisions_over(con: duckdb.DuckDBPyConnection, names: dict[str, str]) -> None:
    """What was known of and decided about a dead letter holds for the same one again; the old ones are superseded."""
    # Of a letter whose person was erased nothing else is left to know it by.
    same = (
        "n.file = o.file AND n.line = o.line "
        f"AND (n.checksum = o.checksum OR starts_with(o.checksum, {literal(ERASED)}))"
    )
    con.execute(
        "UPDATE ops.dead_letters AS n SET first_failed_at = o.first_failed_at, "
        "attempts = coalesce(o.attempts, 1) + 1, "
        "status = CASE WHEN o.status = 'discarded' THEN 'discarded' ELSE n.status END, corrected = o.corrected, "
        "decided_by = o.decided_by, decided_at = o.decided_at, "
        "decided_why = CASE WHEN o.status = 'discarded' THEN o.decided_why END "
        "FROM (SELECT * FROM ops.dead_letters WHERE source = $source AND status <> 'superseded' "
        "AND batch_id IN (SELECT batch_id FROM replaced)) AS o "
        f"WHERE n.source = $shadow AND {same}",
        names,
    )
    con.execute(
        "UPDATE ops.dead_letters AS o SET status = 'superseded' WHERE source = $source "
        "AND batch_id IN (SELECT batch_id FROM replaced) AND (status = 'open' OR EXISTS ("
        f"SELECT 1 FROM ops.dead_letters AS n WHERE n.source = $shadow AND {same}))",
        names,
    )


def _clear(con: duckdb.DuckDBPyConnection, shadow: Contract) -> None:
    """Take the shadow away, be it one that a process that died has left."""
    con.execute(f"DROP TABLE IF EXISTS bronze.{quoted(shadow.name)}")
    for table in (*_BOOKS, "turns"):
        con.execute(f"DELETE FROM ops.{table} WHERE source = {literal(shadow.name)}")
