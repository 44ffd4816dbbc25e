"""Streams: messages of a topic into bronze, batch by batch, each exactly once.

A batch is a range of offsets of one partition. One transaction writes its rows, dead letters, ledger and the offset
behind it, so that a run that dies has either read a batch or not; the lake alone knows how far a source is read.
Belongs here: which offsets are read, and the way from the log to the books. The log itself belongs to
`sluice.eventlog`, how messages become records to `sluice.records`, who is late to `sluice.lateness`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow.compute as pc

from sluice.batches import Batch, BatchOutcome, message_batch_id
from sluice.booking import commit
from sluice.bronze import create_bronze
from sluice.contracts import REBUILT, Contract, Stream
from sluice.drift import Drift, differing_columns, drift_of, refuse, reject_rows
from sluice.errors import BooksDoNotBalanceError, OffsetLostError, PositionMovedError, StreamHeldError
from sluice.eventlog import Bounds, EventLog, Slice
from sluice.gates import apply_stream_gates, count_warnings
from sluice.judging import judge
from sluice.lake import Lake
from sluice.landing import STREAM_PREFIX, tokens_of
from sluice.lateness import judge_lateness, tell_lateness
from sluice.records import (
    MessageFile,
    Origin,
    extract_messages,
    keep_lines,
    message_partition,
    message_path,
    twin_tombstones,
)
from sluice.replay import reapply
from sluice.rules import value
from sluice.sql import temp_table
from sluice.stream_positions import Lag, Position, next_watermark, positions, stream_of

# Of one transaction: 250,000 small messages are read, judged and written in some 2 s and 300 MB; more would only take
# longer to come back after a kill.
MOST_ROWS = 250_000

# A continuous reading looks again after this when there was nothing to read: well below the second people call live.
_LOOK_AGAIN_SECONDS = 0.2


@dataclass(frozen=True)
class StreamResult:
    """What one call read: its batches, how many records were late, the watermark they were held against (UTC).

    `drift` has the columns by which messages differ from the contract.
    """

    source: str
    batches: tuple[BatchOutcome, ...]
    late: int = 0
    watermark: datetime | None = None
    drift: tuple[Drift, ...] = ()

    def total(self, field: str) -> int:
        """Sum of one of the rows_ counts over the batches."""
        return sum(getattr(b, field) for b in self.batches)

    def with_more(self, later: StreamResult) -> StreamResult:
        """This and what was read after it."""
        return StreamResult(
            self.source,
            self.batches + later.batches,
            self.late + later.late,
            later.watermark or self.watermark,
            tuple(dict.fromkeys(self.drift + later.drift)),
        )


def read_stream(
    lake: Lake,
    contract: Contract,
    log: EventLog,
    *,
    run_id: str = "",
    force: bool = False,
    most_rows: int | None = None,
) -> StreamResult:
    """Bring the messages that wait in a source's topic into bronze, in one transaction of at most `most_rows`.

    Whoever else reads the same topic at the same time: one of the two commits, the other reads on behind it.

    Args:
        lake: where to.
        contract: of the source; it must have a stream.
        log: where its topic is.
        run_id: noted in the ledger.
        force: set rows aside one by one where the batch would be refused, so that the stream goes on.
        most_rows: of one call; MOST_ROWS when None.

    Returns:
        No batches where nothing waits.

    Raises:
        StreamHeldError: a batch was refused: too many of its rows were rejected, a rule lets nothing on, or its columns
            are not those of the contract. Nothing was written, and the position stays.
        EventLogError, EventLogUnavailableError: as `EventLog`.
        OffsetLostError: messages are gone unread, or the topic was made anew.
        BooksDoNotBalanceError: rows went astray, a defect; nothing of the transaction was committed.
        LakeUnavailableError, StorageFullError, MemoryLimitError: as `Lake`.
    """
    reader = Reader(lake, contract, log, run_id, force)
    with reader.connected() as con:
        return reader.read_next(con, most_rows)


def read_until(
    lake: Lake,
    contract: Contract,
    log: EventLog,
    *,
    run_id: str = "",
    force: bool = False,
    seconds: float = 0.0,
    most_batches: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    idle: Callable[[], None] = lambda: None,
) -> Iterator[StreamResult]:
    """Read batch after batch: until nothing waits, or, with `seconds`, whatever comes within that time.

    Args:
        lake: where to.
        contract: of the source; it must have a stream.
        log: where its topic is.
        run_id: noted in the ledger.
        force: as of `read_stream`.
        seconds: how long to go on looking for more.
        most_batches: end after so many transactions, that a run is bounded.
        stop: asked between batches; true ends it.
        idle: called each time nothing waits, several times a second while that lasts.

    Yields:
        What each transaction read; none without a batch.

    Raises:
        As `read_stream`.
    """
    reader = Reader(lake, contract, log, run_id, force)
    until = time.monotonic() + seconds
    done = 0
    # One connection for all: attaching the lake takes as long as reading some thousand messages.
    with reader.connected() as con:
        while not stop() and (most_batches is None or done < most_batches):
            result = reader.read_next(con)
            if result.batches:
                done += 1
                yield result
            else:
                idle()
                if time.monotonic() >= until:
                    return
                time.sleep(min(_LOOK_AGAIN_SECONDS, max(until - time.monotonic(), 0)))
            if seconds and time.monotonic() >= until:
                return


class Reader:
    """Reads one source's topic into bronze, a transaction at a time.

    Args:
        lake: where to.
        contract: of the source; it must have a stream.
        log: where its topic is.
        run_id: noted in the ledger.
        force: as of `read_stream`.

    Raises:
        ContractError: the source has no stream.
    """

    def __init__(self, lake: Lake, contract: Contract, log: EventLog, run_id: str = "", force: bool = False) -> None:
        self._lake, self._contract, self._log = lake, contract, log
        self._stream = stream_of(contract)
        self._run_id, self._force = run_id, force

    @contextmanager
    def connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection on which the source's bronze table is as its contract says."""
        with self._lake.connect() as con:
            self._lake.create(con)
            create_bronze(self._lake, con, self._contract)
            yield con

    def read_next(self, con: duckdb.DuckDBPyConnection, most_rows: int | None = None) -> StreamResult:
        """Read once; where somebody else has read the same offsets meanwhile, behind them."""
        while True:
            try:
                return self.read_once(con, most_rows)
            except PositionMovedError:
                # He has moved on, and so do we: this ends.
                continue

    def read_once(
        self, con: duckdb.DuckDBPyConnection, most_rows: int | None = None, stops: Mapping[int, int] | None = None
    ) -> StreamResult:
        """One transaction of reading.

        Args:
            con: as `connected` gives it.
            most_rows: of the transaction; MOST_ROWS when None.
            stops: of each partition the offset before which reading ends; None: the end there is.

        Raises:
            PositionMovedError: somebody else has read these offsets meanwhile.
            StreamHeldError, OffsetLostError: as `read_stream`.
        """
        contract, stream = self._contract, self._stream
        bounds = {
            n: b if stops is None else Bounds(b.start, min(b.end, stops.get(n, b.end)))
            for n, b in self._log.bounds(stream.topic).items()
        }
        read = positions(con, contract)
        known = {number: read.get(number, Position(number)) for number in bounds}
        starts = {number: known[number].start(b) for number, b in bounds.items()}
        topic_id = self._log.topic_id(stream.topic)
        _check_there(contract, stream, bounds, starts, {p.topic_id for p in read.values()} - {"", topic_id})
        waiting = {number for number, start in starts.items() if start < bounds[number].end}
        if not waiting:
            return StreamResult(contract.name, ())
        # All partitions each time, whether or not something waits: so a log goes on where it has read ahead.
        slices = self._log.read(
            stream.topic, starts, max_rows=most_rows or MOST_ROWS, max_bytes=self._lake.settings.chunk_bytes
        )
        if stops is not None:
            slices = [_before(s, bounds[s.partition].end) for s in slices if s.partition in waiting]
        if not slices:
            return StreamResult(contract.name, ())
        mark = next_watermark(con, contract, known, [Lag(n, starts[n], b.end) for n, b in bounds.items()])
        batches = self._judge(con, slices, known, mark)
        columns = differing_columns(con, contract)
        keep_lines(con, "SELECT row_id FROM judged WHERE rejected AND NOT twin")

        def write(c: duckdb.DuckDBPyConnection) -> list[BatchOutcome]:
            now = positions(c, contract)
            if any(now.get(s.partition, Position(s.partition)).start(bounds[s.partition]) != s.start for s in slices):
                raise PositionMovedError
            outcomes = reapply(c, contract, commit(c, contract, batches, self._run_id))
            _note_positions(c, contract, stream, slices, batches, known, mark, topic_id)
            return outcomes

        told = ", ".join(f"{s.partition}: [{s.start}, {s.stop})" for s in slices)
        outcomes = self._lake.transaction(con, write, f"stream {contract.name} from {stream.topic} {told}")
        late = con.execute("SELECT count(*) FROM late_rows").fetchone()
        drift = drift_of(con, contract.name, columns) if columns else []
        return StreamResult(contract.name, tuple(outcomes), late[0] if late else 0, mark, tuple(drift))

    def _judge(
        self,
        con: duckdb.DuckDBPyConnection,
        slices: Sequence[Slice],
        known: Mapping[int, Position],
        mark: datetime | None,
    ) -> list[Batch]:
        """Take the messages apart and judge them, as `sluice.booking.commit` wants them."""
        contract = self._contract
        batches, files = [], []
        for number, part in enumerate(slices):
            era = known[part.partition].era
            identity = message_batch_id(contract, part.topic, part.partition, era, part.start, part.stop)
            path = message_path(part.topic, part.partition, era)
            batches.append(Batch(number, identity, message_partition(path, part.start), ()))
            files.append(MessageFile(Origin(number, number, path, tokens_of(contract, path)), part.records))
        extract_messages(con, contract, files)
        judge(con, contract, batches, [f.origin for f in files], [])
        _count_messages(con, slices)
        twin_tombstones(con, contract)
        judge_lateness(con, contract, mark)
        if self._force:
            reject_rows(con, contract)
            con.execute("CREATE OR REPLACE TEMP TABLE file_refusals (file_id INTEGER, rule VARCHAR, detail VARCHAR)")
            _count_again(con)
            count_warnings(con, contract)
        else:
            _count_again(con)
            apply_stream_gates(con, contract)
            refuse(con, contract, [], [f.origin.file_id for f in files])
        tell_lateness(con, contract, mark)
        held = con.execute(
            "SELECT partition_key, reason FROM batch_books WHERE refused ORDER BY batch_no LIMIT 1"
        ).fetchone()
        if held:
            raise StreamHeldError(
                f"{contract.name} stands still before {held[0].removeprefix(STREAM_PREFIX)}: {held[1]}. Nothing of it "
                "was taken, and nothing is lost while the log keeps it. Mend the contract and it goes on by itself; or "
                f"let it go on with `sluice stream run {contract.name} --force`, which sets bad rows "
                "aside one by one."
            )
        return batches


def _before(part: Slice, stop: int) -> Slice:
    """The records of a slice before an offset."""
    if part.stop <= stop:
        return part
    kept = part.records.filter(pc.less(part.records.column("offset"), stop))
    return Slice(part.topic, part.partition, part.start, stop, kept)


def _check_there(
    contract: Contract, stream: Stream, bounds: dict[int, Bounds], starts: dict[int, int], former: set[str]
) -> None:
    """Whether what is to be read next is still there; `former` are other topics of this name that were read.

    Raises:
        OffsetLostError: it is not.
    """
    # Rows that are made again are read under another name.
    source = contract.name.partition(REBUILT)[0]
    if former:
        raise OffsetLostError(
            f"{source}: {stream.topic} is not the topic that was read so far: the topic was made anew, or SLUICE_KAFKA "
            f"names another event log. If that is meant, `sluice stream seek {source} --to unread` goes on with what "
            "was not read of it yet; what was read stays."
        )
    for number, held in bounds.items():
        start = starts[number]
        if start < held.start:
            raise OffsetLostError(
                f"{source}: {held.start - start} offsets of {stream.topic} partition {number}, from {start} on, "
                "are gone from the log and were never read (its retention is shorter than the stream stood still). "
                f"Deliver what was lost as files, then `sluice stream seek {source} --to unread` goes on."
            )
        if start > held.end:
            raise OffsetLostError(
                f"{source}: {stream.topic} partition {number} was read up to {start}, but ends at {held.end}: the log "
                "has lost its newest records, and gives their offsets to others. "
                f"`sluice stream seek {source} --to latest` goes on with what comes from now on."
            )


def _count_messages(con: duckdb.DuckDBPyConnection, slices: Sequence[Slice]) -> None:
    """Hold what SQL read against what the log gave.

    Raises:
        BooksDoNotBalanceError: they differ.
    """
    read = dict(con.execute("SELECT batch_no, rows_read FROM batch_books").fetchall())
    for number, part in enumerate(slices):
        if read.get(number) != part.records.num_rows:
            raise BooksDoNotBalanceError(
                f"{part.topic} partition {part.partition}: the log gave {part.records.num_rows} records from offset "
                f"{part.start} on, and {read.get(number)} were read. Nothing was committed. Please report this defect."
            )


def _count_again(con: duckdb.DuckDBPyConnection) -> None:
    """Count rejected rows and twins anew: some have become so since `judge` has counted."""
    con.execute(
        "UPDATE batch_books AS b SET rows_bad = c.bad, rows_duplicate = c.twins FROM ("
        "SELECT batch_no, count(*) FILTER (NOT twin AND rejected) AS bad, count(*) FILTER (twin) AS twins "
        "FROM judged GROUP BY batch_no) AS c WHERE c.batch_no = b.batch_no"
    )


def _note_positions(
    con: duckdb.DuckDBPyConnection,
    contract: Contract,
    stream: Stream,
    slices: Sequence[Slice],
    batches: Sequence[Batch],
    known: Mapping[int, Position],
    mark: datetime | None,
    topic_id: str,
) -> None:
    temp_table(
        con,
        "new_offsets",
        "batch_no INTEGER, batch_id VARCHAR, topic VARCHAR, partition INTEGER, era INTEGER, start_offset BIGINT, "
        "stop_offset BIGINT, records BIGINT, former_event VARCHAR",
        [
            (
                b.number,
                b.batch_id,
                s.topic,
                s.partition,
                known[s.partition].era,
                s.start,
                s.stop,
                s.records.num_rows,
                str(known[s.partition].newest_event or "") or None,
            )
            for b, s in zip(batches, slices, strict=True)
        ],
    )
    event = f"least(j.{value(stream.event_time)}, m.message_ts)" if stream.event_time else "NULL::TIMESTAMP"
    con.execute(
        "INSERT INTO ops.stream_positions BY NAME SELECT $source AS source, $topic_id AS topic_id, "
        "o.* EXCLUDE (batch_no, former_event), "
        "t.newest_message, $mark AS watermark, greatest(o.former_event::TIMESTAMP, t.newest_event) AS newest_event, "
        "coalesce(l.late, 0) AS late FROM new_offsets AS o LEFT JOIN ("
        f"SELECT j.batch_no, max(m.message_ts) AS newest_message, max({event}) FILTER (NOT j.rejected) AS newest_event "
        "FROM judged AS j JOIN messages AS m ON m.file_id = j.file_id AND m.line = j.line GROUP BY j.batch_no) AS t "
        "USING (batch_no) LEFT JOIN (SELECT batch_no, count(*) AS late FROM late_rows GROUP BY batch_no) AS l "
        "USING (batch_no)",
        {"source": contract.name, "topic_id": topic_id, "mark": mark},
    )
