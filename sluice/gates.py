"""The gates of a batch: how many rows were rejected, rules that refuse it or only tell, how many rows are usual.

Reads what `sluice.judging.judge` has left on the connection and says of each batch whether it is refused and why, and
what is to be told of it. Rules of single rows belong to `sluice.rules`; silver's and gold's gates are dbt tests.
"""

from __future__ import annotations

from collections import defaultdict, deque
from statistics import median

import duckdb

from sluice.contracts import LEAST_HISTORY, Contract
from sluice.landing import STREAM_PREFIX, dimensions
from sluice.rules import telling
from sluice.sql import literal, quoted, temp_table

VOLUME = "volume"

# Of a batch in `batch_books`: rows that are no exact duplicates, and the share of them that is bad. Were the duplicates
# counted, a good row with the same line of an error a thousand times would be a good file.
_OWN_ROWS = "(rows_read - rows_duplicate)"
_SHARE = f"(rows_bad / nullif({_OWN_ROWS}, 0))"

# By fewer rows a share of a hundredth, what contracts usually allow, is less than ten rows: chance.
LEAST_SHARED_ROWS = 1000


def apply_gates(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Refuse batches of `batch_books`, with a reason; make `findings`: what is told of a batch, by rule and column.

    A batch is refused when a row breaks a rule of severity `fail`, when its volume is out of bounds and that gate's
    severity is `fail`, and when the share of its rejected rows passes the contract's threshold.
    """
    count_warnings(con, contract)
    _judge_volume(con, contract)
    # In doubles: a share of exactly the threshold passes.
    _refuse(con, f"volume IS NOT NULL OR {_SHARE} > $limit", {"limit": contract.max_rejected_share})


def apply_stream_gates(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Likewise of batches of messages, which are cut by time: of three a single bad one would be a third.

    The share is therefore that of a batch together with those before it, of LEAST_SHARED_ROWS rows and more; of fewer
    it is not judged. A batch is not refused for what came before it: its own share must be too large as well. Nothing
    is usual about the volume of a few seconds.
    """
    count_warnings(con, contract)
    row = con.execute(
        "SELECT coalesce(sum(rows_dead_lettered), 0)::BIGINT, coalesce(sum(own), 0)::BIGINT FROM ("
        "SELECT *, rows_read - rows_duplicate AS own, "
        "sum(own) OVER (ORDER BY ingested_at DESC, partition_key) AS seen FROM ops.ledger "
        "WHERE source = ? AND starts_with(partition_key, ?) AND superseded_by IS NULL) WHERE seen - own < ?",
        [contract.name, STREAM_PREFIX, LEAST_SHARED_ROWS],
    ).fetchone()
    assert row is not None, "an aggregate has a row"
    _refuse(
        con,
        f"({_SHARE} > $limit AND (SELECT (sum(rows_bad) + $bad) / nullif(sum({_OWN_ROWS}) + $read, 0) > $limit "
        f"AND sum({_OWN_ROWS}) + $read >= $least FROM batch_books))",
        {"limit": contract.max_rejected_share, "bad": row[0], "read": row[1], "least": LEAST_SHARED_ROWS},
    )


def _refuse(con: duckdb.DuckDBPyConnection, condition: str, given: dict[str, float]) -> None:
    con.execute(
        "UPDATE batch_books SET refused = true, reason = CASE "
        "WHEN rows_failing > 0 THEN format('{} rows break a rule that lets nothing on', rows_failing) "
        "WHEN volume IS NOT NULL THEN volume "
        "ELSE format('{} of {} rows were rejected, more than the contract allows (gates.maxRejectedShare: {})', "
        f"rows_bad, {_OWN_ROWS}, $limit::DOUBLE) END "
        f"WHERE rows_failing > 0 OR {condition}",
        given,
    )


def keep_what_stands(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Refuse batches in which a file is set aside as a whole that has accepted rows: they would go for a damaged file.

    As with a file that is gone, giving them up is for somebody to say, by force.
    """
    con.execute(
        "UPDATE batch_books AS b SET refused = true, reason = l.reason FROM ("
        "SELECT f.batch_no, arg_min(format('{} has {} accepted rows, which would go with it: it cannot be read as it "
        "is now ({}). Deliver it whole, or materialize the partition with force: true to give the rows up', "
        'f.path, s.rows, x."rule"), f.path) AS reason FROM file_faults AS x JOIN batch_files AS f USING (file_id) '
        f"JOIN (SELECT _file, _partition_key, count(*) AS rows FROM bronze.{quoted(contract.name)} "
        "WHERE _partition_key IN (SELECT partition_key FROM batches) GROUP BY ALL) AS s ON s._file = f.path "
        "JOIN batches AS p ON p.batch_no = f.batch_no AND p.partition_key = s._partition_key GROUP BY f.batch_no) AS l "
        "WHERE l.batch_no = b.batch_no AND NOT b.refused"
    )


def count_warnings(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Make `findings` of the rules that only warn: rows that break each, and where the first of them is.

    Of the rows in `judged` that are accepted; of those of replayed letters as of those of files.
    """
    con.execute(
        'CREATE OR REPLACE TEMP TABLE findings (batch_no INTEGER, "rule" VARCHAR, "column" VARCHAR, rows BIGINT, '
        "detail VARCHAR, sample VARCHAR)"
    )
    rules = telling(contract)
    if not rules:
        return
    temp_table(
        con,
        "telling_rules",
        "number INTEGER, rule VARCHAR, column VARCHAR, detail VARCHAR",
        [(number, rule.rule, rule.column, rule.detail) for number, rule in enumerate(rules)],
    )
    con.execute(
        'INSERT INTO findings SELECT w.batch_no, t."rule", t."column", w.rows, t.detail, w.sample FROM ('
        "SELECT batch_no, number, count(*) AS rows, arg_min(format('{}, line {}', f.path, j.line), (f.path, j.line)) "
        "AS sample FROM (SELECT batch_no, file_id, line, unnest(warned) AS number FROM judged "
        "WHERE NOT twin AND NOT rejected) AS j JOIN batch_files AS f USING (batch_no, file_id) GROUP BY ALL) AS w "
        "JOIN telling_rules AS t USING (number)"
    )


def _judge_volume(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Hold each batch's rows against the median of the batches of the days before it, those of this run among them.

    Refused ones do not count, whichever run refused them: what is usual must not depend on how many load at once. Where
    there are fewer than LEAST_HISTORY of them nothing is usual yet. A static partition (a region) has its own history.
    """
    gate = contract.volume
    if gate is None:
        return
    allowed = " and ".join(
        part
        for part in (
            f"at least {gate.minimum:g}" if gate.minimum is not None else "",
            f"at most {gate.maximum:g}" if gate.maximum is not None else "",
        )
        if part
    )
    rows = con.execute(
        f"SELECT batch_no, partition_key, rows_read, rows_failing > 0 OR coalesce({_SHARE} > $limit, false) "
        "FROM batch_books UNION ALL SELECT NULL, partition_key, rows_read, false FROM ops.ledger "
        "WHERE source = $source AND status = 'accepted' AND superseded_by IS NULL "
        f"AND NOT starts_with(partition_key, {literal(STREAM_PREFIX)}) "
        "AND partition_key NOT IN (SELECT partition_key FROM batch_books)",
        {"source": contract.name, "limit": contract.max_rejected_share},
    ).fetchall()
    date = list(dimensions(contract)).index("date")
    # A loop over batches, not rows: what is usual for one depends on which of those before it were refused, which
    # depends on what was usual for them. A thousand batches take 1 ms.
    past: dict[tuple[str, ...], deque[int]] = defaultdict(lambda: deque(maxlen=gate.history))
    found: list[tuple[int, str]] = []
    for number, key, read, refused in sorted(rows, key=lambda row: str(row[1]).split("|")[date]):
        parts = key.split("|")
        before = past[tuple(parts[:date] + parts[date + 1 :])]
        if number is not None and len(before) >= LEAST_HISTORY:
            usual = float(median(before))
            low = gate.minimum is not None and read < gate.minimum * usual
            if low or (gate.maximum is not None and read > gate.maximum * usual):
                told = f"{read} rows; the median of the {len(before)} batches before it is {usual}, and {allowed} of "
                found.append((number, f"{told}that is allowed"))
                refused = refused or gate.severity == "fail"
        if not refused:
            before.append(read)
    temp_table(con, "volumes", "batch_no INTEGER, told VARCHAR", found)
    if gate.severity == "fail":
        con.execute("UPDATE batch_books AS b SET volume = v.told FROM volumes AS v WHERE b.batch_no = v.batch_no")
    else:
        con.execute(f"INSERT INTO findings SELECT batch_no, {literal(VOLUME)}, '', 0, told, NULL FROM volumes")
