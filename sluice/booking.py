"""Booking judged batches: bronze rows, dead letters, ledger and positions, written in one transaction, held together.

Whether the books of the whole lake balance, later and at any time, belongs to `sluice.books`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import compress

import duckdb

from sluice.batches import Batch, BatchOutcome
from sluice.bronze import bronze_columns
from sluice.contracts import Contract
from sluice.drift import take_in
from sluice.erasure.register import ERASED, ERASED_REASONS, ERASED_WHY, leave_out
from sluice.errors import BooksDoNotBalanceError
from sluice.ops_tables import now_utc
from sluice.records.messages import ERASED_FAULT
from sluice.rules import reasons, rejecting, typed_columns, value
from sluice.sql import literal, quoted, temp_table


def commit(con: duckdb.DuckDBPyConnection, contract: Contract, batches: list[Batch], run_id: str) -> list[BatchOutcome]:
    """Write the judged batches: the body of the one transaction. Repeatable.

    Reads what `sluice.judging.judge`, `sluice.gates.apply_gates` and `sluice.drift.refuse` have left on the connection:
    `batches`, `batch_books`, `batch_files`, `file_faults`, `judged`, `repeated`, `findings`, `drift`, `file_refusals`,
    and the view `records`.
    """
    source = contract.name
    table = f"bronze.{quoted(source)}"
    now = now_utc()
    params = {"source": source, "now": now, "version": contract.version, "hash": contract.hash, "run": run_id}

    def run(sql: str, *names: str) -> None:
        con.execute(sql, {name: params[name] for name in names})

    take_turn(con, source)
    leave_out(con, contract)
    # Rows of a partition are nowhere unless it is in the ledger. Where it is not, nothing needs to be replaced: six
    # statements less, which took 0.16 s of the lake's catalog.
    before = con.execute(
        "SELECT 1 FROM ops.ledger WHERE source = ? AND partition_key IN (SELECT partition_key FROM batches) LIMIT 1",
        [source],
    ).fetchone()
    _remember_letters(con, contract, any_before=before is not None)
    if before:
        # What these very batches wrote in an earlier, forced-again run.
        for ops_table in ("dead_letters", "ledger", "warnings"):
            run(f"DELETE FROM ops.{ops_table} WHERE batch_id IN (SELECT batch_id FROM batches)")
        run(f"DELETE FROM {table} WHERE _partition_key IN (SELECT partition_key FROM batch_books WHERE NOT refused)")
    insert_accepted(con, contract, now)
    _write_dead_letters(con, run, contract)
    if before:
        _supersede(run, contract)
    run(
        "INSERT INTO ops.ledger BY NAME SELECT batch_id, $source AS source, partition_key, "
        "CASE WHEN refused THEN 'refused' ELSE 'accepted' END AS status, files, rows_read, "
        "CASE WHEN refused THEN 0 ELSE rows_read - rows_bad - rows_duplicate END AS rows_accepted, "
        "CASE WHEN refused THEN rows_read - rows_duplicate ELSE rows_bad END AS rows_dead_lettered, rows_duplicate, "
        "$version AS contract_version, $hash AS contract_hash, $run AS run_id, $now AS ingested_at, reason, "
        "CASE WHEN refused THEN 0 ELSE coalesce(e.erased, 0) END AS rows_erased, "
        "CASE WHEN refused THEN 0 ELSE coalesce(e.emptied, 0) END AS rows_emptied "
        f"FROM batch_books LEFT JOIN {ROWS_OF_ERASED} AS e USING (batch_no)",
        *params,
    )
    run(
        "INSERT INTO ops.warnings BY NAME SELECT b.batch_id, $source AS source, b.partition_key, "
        'w."rule", w."column", w.rows, w.detail, w.sample FROM findings AS w JOIN batch_books AS b USING (batch_no)',
        "source",
    )
    note_positions(con, contract, batches, replace=before is not None)
    outcomes = balanced(con, source)
    # Books and tables are both made of the temporary tables; that these are of the batches at hand, Python knows.
    if {(o.batch_id, o.files) for o in outcomes} != {(b.batch_id, len(b.files)) for b in batches}:
        raise BooksDoNotBalanceError(
            f"{source}: the books written are not those of the {len(batches)} batches that were read. Nothing was "
            "committed. Please report this defect."
        )
    return outcomes


def take_turn(con: duckdb.DuckDBPyConnection, source: str) -> None:
    """Conflict with whoever else writes rows of this source at the same time."""
    con.execute("UPDATE ops.turns SET n = n + 1 WHERE source = ?", [source])


def insert_accepted(con: duckdb.DuckDBPyConnection, contract: Contract, now: datetime) -> None:
    """Write the good rows of `judged`, but for those of refused batches, into the source's bronze table.

    What their files have besides the contract's columns is dealt with as it says.
    """
    tokens = [f"f.{quoted(n)}" if n != "date" else _date(contract) for n in contract.landing.tokens]
    new = take_in(con, contract, now)
    names = [n for n, _ in bronze_columns(contract)] + [n for n, _ in new]
    of_message, messages = "", ""
    if contract.stream:
        # A key tells of whom the message is.
        of_message = ", CASE WHEN NOT j.emptied THEN m.message_key END, m.message_ts, CASE WHEN NOT j.emptied THEN "
        of_message += "m.headers END"
        messages = "LEFT JOIN messages AS m ON m.file_id = j.file_id AND m.line = j.line "
    con.execute(
        f"INSERT INTO bronze.{quoted(contract.name)} ({', '.join(map(quoted, names))}) "
        f"SELECT {', '.join(tokens)}, {', '.join('j.' + value(c.name) for c in typed_columns(contract))}, "
        f"b.batch_id, b.partition_key, f.path, j.line, j.extra, $now{of_message}"
        f"{''.join(f', {sql}' for _, sql in new)} FROM judged AS j "
        f"JOIN batch_books AS b ON b.batch_no = j.batch_no JOIN batch_files AS f ON f.file_id = j.file_id {messages}"
        "WHERE NOT j.twin AND NOT j.rejected AND NOT j.erased AND NOT b.refused",
        {"now": now},
    )


def _date(contract: Contract) -> str:
    """SQL of the day a row came: its path's, or that of its message's time."""
    return 'coalesce(m.message_ts::DATE, f."date"::DATE)' if contract.stream else 'f."date"::DATE'


def _identity(contract: Contract, letter: str) -> str:
    """SQL of what makes `letter` (an alias) the same one in another batch of its partition.

    Its text below the same header; and its file where equal lines of two files are two rows, as equal files are. A text
    may read as the base 64 of other bytes, which it is not. Of a whole file also why it was refused: who has given it
    up for one reason has not heard of the next.
    """
    own_file = "true" if contract.landing.duplicates == "file" else f"{letter}.line IS NULL"
    return (
        f"[{letter}.partition_key, CASE WHEN {own_file} THEN {letter}.file ELSE '' END, "
        f"coalesce({letter}.header, ''), coalesce({letter}.raw_encoding, ''), coalesce({letter}.checksum, ''), "
        f"CASE WHEN {letter}.line IS NULL THEN {letter}.reasons[1].\"rule\" ELSE '' END]"
    )


def _remember_letters(con: duckdb.DuckDBPyConnection, contract: Contract, *, any_before: bool) -> None:
    """Make `former_letters`: what is known of rows and files of these partitions that failed before.

    A row that fails again is the letter it was: since when it fails and how often, what was supplied in its place, that
    somebody discarded it. It has failed once more if it was tried once more: in the same batch, which is read again
    only when somebody asks for it, or under another contract; not because a file beside its own has come.
    """
    erased = f"coalesce(decided_why = {literal(ERASED_WHY)}, false)"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE former_letters AS SELECT {_identity(contract, 'd')} AS identity, "
        "min(first_failed_at) AS first_failed_at, max(coalesce(attempts, 1)) AS attempts, "
        # The number of attempts tells which came last, whatever the clock said.
        "arg_max({reasons: reasons, same: coalesce(same_failures, attempts, 1), batch: batch_id, "
        "version: contract_version}, coalesce(attempts, 1)) AS failed, "
        # A correction that was lost with the person it named is none that could be applied again.
        f"arg_max({{corrected: corrected, discarded: status = 'discarded' OR (corrected IS NULL AND {erased}), "
        f"erased: {erased}, decided_by: decided_by, decided_why: decided_why, decided_at: decided_at}}, "
        "coalesce(decided_at, first_failed_at)) "
        f"FILTER (status = 'discarded' OR corrected IS NOT NULL OR {erased}) AS decision "
        f"FROM ops.dead_letters AS d WHERE {str(any_before).lower()} AND source = ? AND status <> 'superseded' "
        "AND partition_key IN (SELECT partition_key FROM batches) GROUP BY ALL",
        [contract.name],
    )


def same_failures(before: str, now: str, count: str) -> str:
    """SQL of how often in a row a letter has failed for the same reasons, that it has just failed again included.

    Args:
        before: SQL of its reasons the last time.
        now: SQL of its reasons this time.
        count: SQL of how often it had failed for `before`.
    """
    kinds = 'list_sort(list_transform({}, lambda r: concat_ws(\' \', r."rule", r."column")))'
    return f"CASE WHEN {kinds.format(before)} = {kinds.format(now)} THEN coalesce({count}, 1) + 1 ELSE 1 END"


def _supersede(run: Callable[..., None], contract: Contract) -> None:
    """An accepted batch takes the place of all before it; a refused one only of earlier refusals.

    What was decided about a letter stays to be read, unless the batch has the same letter again: then it is there.
    """
    run(
        "UPDATE ops.dead_letters AS d SET status = 'superseded' FROM batch_books AS b, ops.ledger AS l "
        "WHERE d.source = $source AND d.partition_key = b.partition_key AND d.batch_id <> b.batch_id "
        "AND d.status <> 'superseded' AND l.batch_id = d.batch_id AND (NOT b.refused OR l.status = 'refused') "
        f"AND (d.status = 'open' OR {_identity(contract, 'd')} IN (SELECT {_identity(contract, 'n')} "
        "FROM ops.dead_letters AS n WHERE n.batch_id IN (SELECT batch_id FROM batches)))",
        "source",
    )
    run(
        "UPDATE ops.ledger AS l SET superseded_by = b.batch_id FROM batch_books AS b WHERE l.source = $source "
        "AND l.partition_key = b.partition_key AND l.superseded_by IS NULL AND (NOT b.refused OR l.status = 'refused')",
        "source",
    )


def row_reasons(contract: Contract) -> str:
    """SQL of all reasons a record `r` of `records` was rejected for; `u` are the `REPEATED_REASONS`."""
    return (
        "CASE WHEN r.fault IS NOT NULL THEN [{'rule': r.fault, 'column': NULL::VARCHAR, 'value': NULL::VARCHAR, "
        f"'detail': r.fault_detail}}] ELSE list_concat({reasons(rejecting(contract))}, coalesce(u.reasons, [])) END"
    )


# Of each batch, how many good rows are of people who have been erased.
ROWS_OF_ERASED = (
    "(SELECT batch_no, count(*) FILTER (erased) AS erased, count(*) FILTER (emptied) AS emptied FROM judged "
    "WHERE NOT twin AND NOT rejected GROUP BY batch_no)"
)

# Of each row in `repeated`, the reasons as the dead letters have them.
REPEATED_REASONS = (
    "(SELECT row_id, list({'rule': \"rule\", 'column': \"column\", 'value': NULL::VARCHAR, 'detail': detail}) "
    "AS reasons FROM repeated GROUP BY row_id)"
)


def _write_dead_letters(con: duckdb.DuckDBPyConnection, run: Callable[..., None], contract: Contract) -> None:
    """Rejected rows with all their reasons, files set aside as a whole, and the good rows of refused batches."""
    # Most loads have none of some kind, and planning its statement for nothing is 5 % of a small one.
    (there_are,) = con.execute(
        "SELECT EXISTS (FROM judged WHERE NOT twin AND rejected), EXISTS (FROM file_faults), "
        "EXISTS (FROM batch_books WHERE refused)"
    ).fetchall()

    def kept(expression: str) -> str:
        return f"CASE WHEN r.row_id NOT IN (SELECT row_id FROM erased_letters) THEN {expression} END"

    in_row = (
        "SELECT md5(concat_ws('|', b.batch_id, f.path, r.line)) AS dead_letter_id, b.batch_id, b.partition_key, "
        f"f.path AS file, r.line, 1 AS rows, {kept('r.raw')} AS raw, r.raw_encoding, "
        f"coalesce({kept(row_reasons(contract))}, {ERASED_REASONS}) AS reasons, 'data' AS error_class, h.header, "
        f"CASE WHEN r.fault = {literal(ERASED_FAULT)} THEN {literal(ERASED)} || r.line "
        "WHEN r.raw IS NULL AND r.row_id NOT IN (SELECT row_id FROM erased_letters) THEN '' "
        f"ELSE coalesce({kept('sha256(concat(r.raw, r.digest))')}, {literal(ERASED)} || r.line) END AS checksum, "
        f"{kept('m.message_key')} AS message_key, m.message_ts, {kept('m.headers')} AS headers "
        "FROM records AS r JOIN judged AS j USING (row_id) JOIN batch_books AS b ON b.batch_no = r.batch_no "
        "JOIN batch_files AS f ON f.file_id = r.file_id LEFT JOIN file_headers AS h ON h.file_id = r.file_id "
        f"LEFT JOIN {REPEATED_REASONS} AS u ON u.row_id = j.row_id "
        "LEFT JOIN messages AS m ON m.file_id = r.file_id AND m.line = r.line WHERE NOT j.twin AND j.rejected"
    )
    whole_file = (
        "SELECT md5(concat_ws('|', b.batch_id, f.path, x.rule)) AS dead_letter_id, b.batch_id, b.partition_key, "
        "f.path AS file, x.rows, [{'rule': x.rule, 'column': x.\"column\", 'value': NULL::VARCHAR, 'detail': "
        "x.detail}] AS reasons, 'file' AS error_class, f.sha256 AS checksum "
        "FROM file_faults AS x JOIN batch_files AS f USING (file_id) JOIN batch_books AS b USING (batch_no)"
    )
    # Of the files for which a batch was refused each has a letter, though none of its rows be good.
    of_refused = (
        "SELECT md5(concat_ws('|', b.batch_id, f.path, coalesce(x.rule, 'batch_refused'))) AS dead_letter_id, "
        "b.batch_id, b.partition_key, f.path AS file, coalesce(j.rows, 0) AS rows, "
        "[{'rule': coalesce(x.rule, 'batch_refused'), 'column': NULL::VARCHAR, 'value': NULL::VARCHAR, "
        "'detail': coalesce(x.detail, b.reason || '; these rows are good but were not accepted')}] AS reasons, "
        "CASE WHEN x.rule IS NULL THEN 'batch' ELSE 'file' END AS error_class, f.sha256 AS checksum "
        "FROM batch_files AS f JOIN batch_books AS b USING (batch_no) LEFT JOIN (SELECT file_id, count(*) AS rows "
        "FROM judged WHERE NOT twin AND NOT rejected GROUP BY file_id) AS j USING (file_id) "
        "LEFT JOIN file_refusals AS x USING (file_id) WHERE b.refused AND (j.rows > 0 OR x.rule IS NOT NULL)"
    )
    tried = "(k.failed.batch = l.batch_id OR k.failed.version IS DISTINCT FROM $version)"
    for letters in compress((in_row, whole_file, of_refused), there_are):
        # A column that one of the three does not have is null for its letters.
        run(
            "INSERT INTO ops.dead_letters BY NAME WITH letters AS "
            "(FROM (SELECT NULL::VARCHAR AS header, NULL::VARCHAR AS raw_encoding, NULL::BIGINT AS line LIMIT 0) "
            f"UNION ALL BY NAME {letters}) SELECT l.*, $source AS source, $version AS contract_version, "
            "coalesce(k.first_failed_at, $now) AS first_failed_at, $now AS last_failed_at, "
            f"CASE WHEN k.attempts IS NULL THEN 1 ELSE k.attempts + {tried}::INTEGER END AS attempts, "
            f"CASE WHEN k.attempts IS NOT NULL AND NOT {tried} THEN k.failed.same "
            f"ELSE {same_failures('k.failed.reasons', 'l.reasons', 'k.failed.same')} END AS same_failures, "
            f"CASE WHEN k.decision.discarded OR starts_with(l.checksum, {literal(ERASED)}) THEN 'discarded' "
            "ELSE 'open' END AS status, "
            "k.decision.corrected, k.decision.decided_by, k.decision.decided_at, "
            "CASE WHEN k.decision.discarded OR k.decision.erased THEN k.decision.decided_why END AS decided_why "
            f"FROM letters AS l LEFT JOIN former_letters AS k ON k.identity = {_identity(contract, 'l')}",
            "source",
            "version",
            "now",
        )


def note_positions(
    con: duckdb.DuckDBPyConnection, contract: Contract, batches: list[Batch], *, replace: bool = True
) -> None:
    """Note which files the partitions of `batches` have now been read from; `replace` what was noted of them before."""
    temp_table(
        con,
        "new_positions",
        "source VARCHAR, partition_key VARCHAR, batch_id VARCHAR, file VARCHAR, size BIGINT, mtime_ns BIGINT, "
        "sha256 VARCHAR, rows BIGINT",
        [
            (contract.name, b.partition_key, b.batch_id, f.file.path, f.file.size, f.file.mtime_ns, f.sha256, f.lines)
            for b in batches
            for f in b.files
        ],
    )
    if replace:
        con.execute(
            "DELETE FROM ops.positions WHERE source = ? AND partition_key IN (SELECT partition_key FROM new_positions)",
            [contract.name],
        )
    con.execute("INSERT INTO ops.positions BY NAME SELECT * FROM new_positions")


def balanced(con: duckdb.DuckDBPyConnection, source: str) -> list[BatchOutcome]:
    """Hold the ledger rows of `batches` against the rows in bronze and the dead letters that stand for rows.

    Raises:
        BooksDoNotBalanceError: they differ, or a ledger row breaks the conservation law.
    """
    rows = con.execute(
        "SELECT l.batch_id, l.partition_key, l.status, l.files, l.rows_read, l.rows_accepted, l.rows_dead_lettered, "
        "l.rows_duplicate, coalesce(l.reason, ''), coalesce(l.rows_erased, 0), coalesce(l.rows_emptied, 0), "
        "coalesce(a.rows, 0), coalesce(d.rows, 0) FROM ops.ledger AS l "
        "JOIN batches AS b USING (batch_id) "
        f"LEFT JOIN (SELECT _batch_id, count(*) AS rows FROM bronze.{quoted(source)} "
        "WHERE _batch_id IN (SELECT batch_id FROM batches) GROUP BY ALL) AS a ON a._batch_id = l.batch_id "
        "LEFT JOIN (SELECT batch_id, sum(rows) AS rows FROM ops.dead_letters WHERE batch_id IN "
        "(SELECT batch_id FROM batches) AND status <> 'replayed' GROUP BY ALL) AS d ON d.batch_id = l.batch_id "
        "ORDER BY l.partition_key"
    ).fetchall()
    outcomes = []
    for *booked, accepted, dead in rows:
        outcome = BatchOutcome(*booked)
        if not outcome.balanced or (
            outcome.rows_accepted - outcome.rows_erased,
            outcome.rows_dead_lettered,
        ) != (accepted, dead):
            raise BooksDoNotBalanceError(
                f"{source} {outcome.partition_key}: read {outcome.rows_read}, accepted {accepted}, dead-lettered "
                f"{dead}, duplicates {outcome.rows_duplicate} do not add up. Nothing was committed. "
                "Please report this defect with the files of the partition."
            )
        outcomes.append(outcome)
    return outcomes
