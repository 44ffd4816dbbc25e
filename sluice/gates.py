"""The gates of a batch: how many rows were rejected, rules that refuse it or only tell, how many rows are usual.

Reads what `sluice.judging.judge` has left on the connection and says of each batch whether it is refused and why, and
what is to be told of it. Rules of single rows belong to `sluice.rules`; silver's and gold's gates are dbt tests.
"""

from __future__ import annotations

import duckdb

from sluice.contracts import LEAST_HISTORY, Contract
from sluice.lake import literal, quoted, temp_table
from sluice.landing import STREAM_PREFIX, dimensions
from sluice.rules import telling

VOLUME = "volume"

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
    _refuse(
        con, "volume IS NOT NULL OR rows_bad / nullif(rows_read, 0) > $limit", {"limit": contract.max_rejected_share}
    )


def apply_stream_gates(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Likewise of batches of messages, which are cut by time: of three a single bad one would be a third.

    The share is therefore that of a batch together with those before it, of LEAST_SHARED_ROWS rows and more; of fewer
    it is not judged. A batch is not refused for what came before it: its own share must be too large as well. Nothing
    is usual about the volume of a few seconds.
    """
    count_warnings(con, contract)
    row = con.execute(
        "SELECT coalesce(sum(rows_dead_lettered), 0)::BIGINT, coalesce(sum(rows_read), 0)::BIGINT FROM ("
        "SELECT *, sum(rows_read) OVER (ORDER BY ingested_at DESC, partition_key) AS seen FROM ops.ledger "
        "WHERE source = ? AND starts_with(partition_key, ?) AND superseded_by IS NULL) WHERE seen - rows_read < ?",
        [contract.name, STREAM_PREFIX, LEAST_SHARED_ROWS],
    ).fetchone()
    assert row is not None, "an aggregate has a row"
    _refuse(
        con,
        "(rows_bad / nullif(rows_read, 0) > $limit "
        "AND (SELECT (sum(rows_bad) + $bad) / nullif(sum(rows_read) + $read, 0) > $limit "
        "AND sum(rows_read) + $read >= $least FROM batch_books))",
        {"limit": contract.max_rejected_share, "bad": row[0], "read": row[1], "least": LEAST_SHARED_ROWS},
    )


def _refuse(con: duckdb.DuckDBPyConnection, condition: str, given: dict[str, float]) -> None:
    con.execute(
        "UPDATE batch_books SET refused = true, reason = CASE "
        "WHEN rows_failing > 0 THEN format('{} rows break a rule that lets nothing on', rows_failing) "
        "WHEN volume IS NOT NULL THEN volume "
        "ELSE format('{} of {} rows were rejected, more than the contract allows (gates.maxRejectedShare: {})', "
        "rows_bad, rows_read, $limit::DOUBLE) END "
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

    Where there are fewer than LEAST_HISTORY of them nothing is usual yet. A static partition (a region) has a history
    of its own.
    """
    gate = contract.volume
    if gate is None:
        return
    low = f"rows_read < {gate.minimum} * usual" if gate.minimum is not None else "false"
    high = f"rows_read > {gate.maximum} * usual" if gate.maximum is not None else "false"
    allowed = " and ".join(
        part
        for part in (
            f"at least {gate.minimum:g}" if gate.minimum is not None else "",
            f"at most {gate.maximum:g}" if gate.maximum is not None else "",
        )
        if part
    )
    parts = {name: f"split_part(partition_key, '|', {n})" for n, name in enumerate(dimensions(contract), start=1)}
    day = parts.pop("date")
    con.execute(
        "CREATE OR REPLACE TEMP TABLE volumes AS SELECT batch_no, format('{} rows; the median of the {} batches before "
        f"it is {{}}, and {allowed} of that is allowed', rows_read, past, usual) AS told FROM ("
        "SELECT *, median(rows_read) OVER before AS usual, count(*) OVER before AS past FROM ("
        "SELECT batch_no, partition_key, rows_read FROM batch_books UNION ALL "
        "SELECT NULL, partition_key, rows_read FROM ops.ledger WHERE source = ? AND status = 'accepted' "
        f"AND superseded_by IS NULL AND NOT starts_with(partition_key, {literal(STREAM_PREFIX)}) "
        "AND partition_key NOT IN (SELECT partition_key FROM batch_books)) "
        f"WINDOW before AS (PARTITION BY {', '.join(parts.values()) or 'NULL'} ORDER BY {day} "
        f"ROWS BETWEEN {gate.history} PRECEDING AND 1 PRECEDING)) "
        f"WHERE batch_no IS NOT NULL AND past >= {LEAST_HISTORY} AND ({low} OR {high})",
        [contract.name],
    )
    if gate.severity == "fail":
        con.execute("UPDATE batch_books AS b SET volume = v.told FROM volumes AS v WHERE b.batch_no = v.batch_no")
    else:
        con.execute(f"INSERT INTO findings SELECT batch_no, {literal(VOLUME)}, '', 0, told, NULL FROM volumes")
