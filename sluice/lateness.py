"""Who is late: records of a stream held against their source's watermark, and what the contract says becomes of them.

The watermark is how far event time has come, less what the contract allows: a record before it is late. It never goes
back, and never counts a record that is of a later time than its own message: a clock that runs ahead would make all
others late. A partition that is behind holds it back, for its records are not late, only read late.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb

from sluice.contracts import Contract, Stream
from sluice.rules import value
from sluice.sql import literal

LATE = "late"


@dataclass(frozen=True)
class Progress:
    """How far one partition of a topic has been read: the newest event among what was, and whether more waits."""

    newest_event: datetime | None
    behind: bool


def watermark(stream: Stream, before: datetime | None, partitions: Iterable[Progress]) -> datetime | None:
    """The watermark that records read now are held against; None while nobody can be late.

    Args:
        stream: of the source.
        before: the source's watermark so far.
        partitions: every partition of its topic, as it was before this batch.
    """
    known = list(partitions)
    waiting = [p.newest_event for p in known if p.behind]
    times = [p.newest_event for p in known if p.newest_event is not None]
    if not times or None in waiting:
        return before
    reached = min(t for t in waiting if t is not None) if waiting else max(times)
    allowed = timedelta(seconds=stream.allowed_lateness_seconds)
    # There is no time before the year 1.
    now = max(reached, datetime.min + allowed) - allowed
    return now if before is None else max(before, now)


def judge_lateness(con: duckdb.DuckDBPyConnection, contract: Contract, mark: datetime | None) -> None:
    """Set aside, or only tell of, the good rows in `judged` that are before the watermark.

    Between `sluice.judging.judge` and the gates; the rows are to be counted again after it. Makes `late_rows`, all of
    them.
    """
    stream = contract.stream
    assert stream is not None, "only records of a stream are late"
    con.execute("CREATE OR REPLACE TEMP TABLE late_rows (row_id BIGINT, batch_no INTEGER)")
    if stream.event_time is None or mark is None:
        return
    con.execute(
        f"INSERT INTO late_rows SELECT row_id, batch_no FROM judged WHERE NOT twin AND NOT rejected "
        f"AND {value(stream.event_time)} < ?",
        [mark],
    )
    if stream.late == "accept":
        return
    con.execute(
        'INSERT INTO repeated (row_id, "column", "rule", detail) SELECT row_id, ?, ?, ? FROM late_rows',
        [stream.event_time, LATE, _detail(stream, mark)],
    )
    con.execute("UPDATE judged SET rejected = true WHERE row_id IN (SELECT row_id FROM late_rows)")


def tell_lateness(con: duckdb.DuckDBPyConnection, contract: Contract, mark: datetime | None) -> None:
    """Add to `findings` the late rows that were accepted all the same; after the gates have made it."""
    stream = contract.stream
    assert stream is not None, "only records of a stream are late"
    if stream.event_time is None or stream.late != "accept" or mark is None:
        return
    con.execute(
        f"INSERT INTO findings SELECT l.batch_no, {literal(LATE)}, ?, count(*), ?, "
        "arg_min(format('{}, offset {}', f.path, j.line), j.line) FROM late_rows AS l JOIN judged AS j USING (row_id) "
        "JOIN batch_files AS f ON f.file_id = j.file_id GROUP BY l.batch_no",
        [stream.event_time, _detail(stream, mark)],
    )


def _detail(stream: Stream, mark: datetime) -> str:
    return (
        f"before the watermark {mark:%Y-%m-%d %H:%M:%S} UTC: more than {stream.allowed_lateness_seconds:g} s behind "
        "the newest event"
    )
