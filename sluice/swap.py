"""The swap: what a shadow holds compared with its source's rows, and put in their place in one transaction.

Rows, books and positions change places together, what was decided about dead letters is kept, and columns that the
shadow has taken in come along. How a shadow is filled belongs to `sluice.rebuild`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import duckdb

from sluice.booking import balanced, same_failures, take_turn
from sluice.bronze import evolved_columns, free_name, table_columns
from sluice.contracts import Contract
from sluice.erasure.register import ERASED
from sluice.errors import PositionMovedError
from sluice.records import message_path
from sluice.replay import take_corrected
from sluice.shadows import BOOKS, ShadowLostError, erasures, is_there
from sluice.sql import literal, quoted, temp_table
from sluice.stream_positions import Position, positions, stream_of

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
        earlier: rows of that time that are not made again, because they were read before a position was moved.
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
    earlier: int = 0


def _made_again(con: duckdb.DuckDBPyConnection, contract: Contract, shadow: Contract) -> list[Range]:
    """Make `made_again`: by the place messages have, from which offset on the shadow has read them again.

    Raises:
        PositionMovedError: the source has been read further, or its position was moved.
        ShadowLostError: there is no shadow any more.
    """
    if not is_there(con, shadow):
        raise ShadowLostError(f"What was read again of {contract.name} was taken away.")
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


def compare(con: duckdb.DuckDBPyConnection, contract: Contract, shadow: Contract) -> Rebuilt:
    """Hold the rows of a shadow that has come as far as its source against those of the source; changes nothing.

    Letters that people have corrected or taken in count as set aside: they are taken again with the swap.

    Raises:
        PositionMovedError: the source has been read further, or its position was moved.
        ShadowLostError: there is no shadow any more.
    """
    ranges = _made_again(con, contract, shadow)
    values = _values(con, contract, shadow)
    _remember(con, contract, [old for _, old, _ in values])
    made = ", ".join(sql for _, _, sql in values)
    rows = f"SELECT _file, _line, hash({made}) AS content FROM bronze.{quoted(shadow.name)}"
    letters = con.execute(
        "SELECT coalesce(sum(rows), 0)::BIGINT FROM ops.dead_letters WHERE source = ?", [shadow.name]
    ).fetchone()
    assert letters is not None, "an aggregate has a row"
    return _difference(con, contract, ranges, rows, letters[0])


def _remember(con: duckdb.DuckDBPyConnection, contract: Contract, values: list[str]) -> None:
    """Make `old_rows`: the source's rows that are, or would be, replaced: their places, and a hash of `values`."""
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE old_rows AS SELECT _file, _line, hash({', '.join(values)}) AS content "
        f"FROM bronze.{quoted(contract.name)} AS b SEMI JOIN made_again AS m "
        "ON b._file = m.file AND b._line >= m.start"
    )


def _difference(
    con: duckdb.DuckDBPyConnection, contract: Contract, ranges: list[Range], made: str, dead_letters: int
) -> Rebuilt:
    """What `old_rows` and the rows of `made` (SQL) differ by."""
    row = con.execute(
        f"WITH made AS ({made}) "
        "SELECT count(old._line), count(made._line), count(*) FILTER (made._line IS NULL), "
        "count(*) FILTER (old._line IS NULL), count(*) FILTER (old.content <> made.content) "
        "FROM old_rows AS old FULL JOIN made ON old._file = made._file AND old._line = made._line"
    ).fetchone()
    assert row is not None, "an aggregate has a row"
    before, after, gone, new, changed = row
    return Rebuilt(contract.name, tuple(ranges), before, after, gone, new, changed, dead_letters)


def _matched(con: duckdb.DuckDBPyConnection, contract: Contract, shadow: Contract) -> dict[str, str]:
    """The columns of the shadow's table, with the name each has, or is to have, in the source's.

    Another name only where both have taken in columns meanwhile that came to be called the same.
    """
    taken = set(table_columns(con, contract.name))
    known = evolved_columns(con, contract.name)
    delivered = {held: column for column, held in evolved_columns(con, shadow.name).items()}
    matched = {}
    for column in table_columns(con, shadow.name):
        if column not in delivered:
            matched[column] = column
            continue
        matched[column] = known.get(delivered[column]) or free_name(delivered[column], taken)
        taken.add(matched[column])
    return matched


def _values(con: duckdb.DuckDBPyConnection, contract: Contract, shadow: Contract) -> list[tuple[str, str, str]]:
    """What makes a row what it is: the column's name in the source's table, and SQL of it there and in the shadow's.

    It is null where one of the two has no such column.
    """
    here, there = table_columns(con, contract.name), table_columns(con, shadow.name)
    matched = _matched(con, contract, shadow)
    found = [
        (quoted(name), quoted(name) if name in here else f"NULL::{there[column]}", quoted(column))
        for column, name in matched.items()
        if name not in _OF_THE_READING
    ]
    return found + [(quoted(n), quoted(n), f"NULL::{kind}") for n, kind in here.items() if n not in matched.values()]


def _take_columns_in(con: duckdb.DuckDBPyConnection, contract: Contract, shadow: Contract) -> dict[str, str]:
    """Give the source's table the columns that the shadow has taken in; returns `_matched`.

    What was noted of a column while it was read again is newer than what was known of it.
    """
    here, there = table_columns(con, contract.name), table_columns(con, shadow.name)
    matched = _matched(con, contract, shadow)
    for column, name in matched.items():
        if name not in here:
            con.execute(f"ALTER TABLE bronze.{quoted(contract.name)} ADD COLUMN {quoted(name)} {there[column]}")
    names = {"source": contract.name, "shadow": shadow.name}
    temp_table(con, "taken_in", "held VARCHAR, name VARCHAR", [(c, n) for c, n in matched.items() if c != n])
    con.execute(
        "UPDATE ops.schema_drift AS d SET bronze_column = t.name FROM taken_in AS t "
        "WHERE d.source = $shadow AND d.bronze_column = t.held",
        {"shadow": shadow.name},
    )
    con.execute(
        "DELETE FROM ops.schema_drift AS o WHERE source = $source AND EXISTS (SELECT 1 FROM ops.schema_drift AS n "
        'WHERE n.source = $shadow AND n."column" = o."column" AND n.kind = o.kind AND n.decided_at > o.decided_at '
        "AND (o.bronze_column IS NULL OR n.bronze_column IS NOT NULL))",
        names,
    )
    con.execute(
        'DELETE FROM ops.schema_drift WHERE source = $shadow AND ("column", kind) IN '
        '(SELECT ("column", kind) FROM ops.schema_drift WHERE source = $source)',
        names,
    )
    return matched


def swap(con: duckdb.DuckDBPyConnection, contract: Contract, shadow: Contract, erased: tuple[int, int]) -> Rebuilt:
    """Put the shadow's rows, books and positions in the place of the source's: the body of one transaction.

    Raises:
        PositionMovedError: the source has been read further.
        ShadowLostError: somebody was erased since the shadow was begun, when who was erased was `erased`.
    """
    take_turn(con, contract.name)
    # Conflicts with an erasure that sweeps it away at the same time.
    take_turn(con, shadow.name)
    if erasures(con) != erased:
        raise ShadowLostError(f"Somebody was erased since rows of {contract.name} began to be made again.")
    ranges = _made_again(con, contract, shadow)
    values = _values(con, contract, shadow)
    _remember(con, contract, [old for _, old, _ in values])
    matched = _take_columns_in(con, contract, shadow)
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
    con.execute(
        f"INSERT INTO {table} ({', '.join(map(quoted, matched.values()))}) "
        f"SELECT {', '.join(map(quoted, matched))} FROM bronze.{quoted(shadow.name)}"
    )
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
    for ops_table in BOOKS:
        con.execute(f"UPDATE ops.{ops_table} SET source = $source WHERE source = $shadow", names)
    take_corrected(con, contract, "SELECT batch_id FROM batches", "SELECT dead_letter_id FROM taken_before")
    con.execute(
        "CREATE OR REPLACE TEMP TABLE batches AS SELECT batch_id FROM ops.stream_positions AS p JOIN made_again AS m "
        "USING (partition) WHERE p.source = $source AND p.start_offset >= m.start AND batch_id IS NOT NULL",
        {"source": contract.name},
    )
    balanced(con, contract.name)
    return _told(con, contract, ranges, [name for name, _, _ in values])


def _told(con: duckdb.DuckDBPyConnection, contract: Contract, ranges: list[Range], value_names: list[str]) -> Rebuilt:
    """What a swap came to, its `batches` and letters taken again included."""
    rows = (
        f"SELECT _file, _line, hash({', '.join(value_names)}) AS content FROM bronze.{quoted(contract.name)} AS b "
        "SEMI JOIN made_again AS m ON b._file = m.file AND b._line >= m.start"
    )
    letters = con.execute(
        "SELECT coalesce(sum(rows), 0)::BIGINT FROM ops.dead_letters WHERE status <> 'replayed' "
        # Not those of batches of the same offsets before a position was moved.
        "AND batch_id IN (SELECT batch_id FROM batches) AND file IN (SELECT file FROM made_again)"
    ).fetchone()
    assert letters is not None, "an aggregate has a row"
    return dataclasses.replace(_difference(con, contract, ranges, rows, letters[0]), swapped=True)


def _carry_decisions_over(con: duckdb.DuckDBPyConnection, names: dict[str, str]) -> None:
    """What was known of and decided about a dead letter holds for the same one again; the old ones are superseded.

    Makes `taken_before`, the letters that somebody has taken in since they were set aside: they are to be again.
    """
    # Of a letter whose person was erased nothing else is left to know it by.
    same = (
        "n.file = o.file AND n.line = o.line "
        f"AND (n.checksum = o.checksum OR starts_with(o.checksum, {literal(ERASED)}))"
    )
    con.execute(
        "UPDATE ops.dead_letters AS n SET first_failed_at = o.first_failed_at, "
        "attempts = coalesce(o.attempts, 1) + 1, "
        f"same_failures = {same_failures('o.reasons', 'n.reasons', 'coalesce(o.same_failures, o.attempts)')}, "
        "status = CASE WHEN o.status = 'discarded' THEN 'discarded' ELSE n.status END, corrected = o.corrected, "
        "decided_by = o.decided_by, decided_at = o.decided_at, "
        "decided_why = CASE WHEN o.status = 'discarded' THEN o.decided_why END "
        "FROM (SELECT * FROM ops.dead_letters WHERE source = $source AND status <> 'superseded' "
        "AND batch_id IN (SELECT batch_id FROM replaced)) AS o "
        f"WHERE n.source = $shadow AND {same}",
        names,
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE taken_before AS SELECT n.dead_letter_id FROM ops.dead_letters AS n "
        f"JOIN ops.dead_letters AS o ON {same} WHERE n.source = $shadow AND o.source = $source "
        "AND o.status = 'replayed' AND o.batch_id IN (SELECT batch_id FROM replaced)",
        names,
    )
    con.execute(
        "UPDATE ops.dead_letters AS o SET status = 'superseded' WHERE source = $source "
        "AND batch_id IN (SELECT batch_id FROM replaced) AND (status = 'open' OR EXISTS ("
        f"SELECT 1 FROM ops.dead_letters AS n WHERE n.source = $shadow AND {same}))",
        names,
    )
