"""Replay: dead letters through the same records, rules and books as the files they came from, under today's contract.

A row that passes moves into its batch, with the file and line it always had, and out of the dead letters in one
transaction with the ledger. What was never taken apart into rows (a file, a refused batch) is ingested again whole.
Choosing letters belongs to `sluice.dead_letters`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import duckdb

from sluice.batches import Batch
from sluice.booking import REPEATED_REASONS, balanced, insert_accepted, row_reasons, take_turn
from sluice.bronze import create_bronze
from sluice.contracts import Contract
from sluice.dead_letters import Choice, poison_condition
from sluice.errors import DeadLetterError
from sluice.judging import judge
from sluice.lake import Lake, quoted, temp_table
from sluice.landing import format_of, tokens_of
from sluice.preflight import LONGEST_LINE_BYTES, UNIT_SEPARATOR
from sluice.records import LetterFile, Origin, extract_letters
from sluice.rules import typed_columns, value


@dataclass(frozen=True)
class Replayed:
    """What became of the letters of one source.

    Attributes:
        source: name of the contract.
        accepted: letters whose row is in bronze now.
        duplicate: letters whose row turned out to be in bronze already.
        failed: letters that failed again.
        poison: letters left alone because they have failed too often; named by id they are taken.
        partitions: partition keys whose letters stand for more than rows: they are to be ingested again.
        undecodable: letters whose bytes are no text, which only a corrected payload helps.
        changed: partition keys that gained rows.
    """

    source: str
    accepted: int = 0
    duplicate: int = 0
    failed: int = 0
    poison: int = 0
    partitions: tuple[str, ...] = ()
    undecodable: int = 0
    changed: tuple[str, ...] = ()


def replay(
    lake: Lake,
    contract: Contract,
    choice: Choice,
    *,
    corrections: Mapping[str, str] | None = None,
    by: str = "",
    run_id: str = "",
) -> Replayed:
    """Take the open letters of one source that are chosen again.

    Args:
        lake: whose letters.
        contract: of the source, as it is now.
        choice: which; its source and status are set here.
        corrections: payloads to take instead of the original ones, by `dead_letter_id`; the originals are kept.
        by: who supplies the corrections or asks for it; kept with the letters.
        run_id: kept as who asks, where `by` is empty.

    Raises:
        DeadLetterError: a correction is for no open letter of the source, or is no record.
        BooksDoNotBalanceError: rows went astray, a defect; nothing was committed.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    corrections = corrections or {}
    who = by or run_id
    with lake.connect() as con:
        lake.create(con)
        create_bronze(lake, con, contract)
        told = _choose(con, contract, choice, corrections)
        files = _files(con, contract)
        if not files:
            return told
        batches = [
            Batch(number, batch, key, ())
            for number, batch, key in con.execute(
                "SELECT DISTINCT batch_no, batch_id, partition_key FROM chosen_letters ORDER BY 1"
            ).fetchall()
        ]
        faults = extract_letters(con, contract, files)
        judge(con, contract, batches, [f.origin for f in files], faults)
        # What share of a batch is rejected was judged when it came; of its worst rows alone it says nothing.
        con.execute("UPDATE batch_books SET refused = false")
        _judge_against_bronze(con, contract)
        temp_table(
            con,
            "misfits",
            "file_id INTEGER, rule VARCHAR, column VARCHAR, detail VARCHAR",
            [(f.file_id, f.rule, f.column, f.detail) for f in faults],
        )
        moved = lake.transaction(con, lambda c: _move(c, contract, who), f"replay dead letters of {contract.name}")
    return replace(told, **moved)


def _choose(
    con: duckdb.DuckDBPyConnection, contract: Contract, choice: Choice, corrections: Mapping[str, str]
) -> Replayed:
    """Make `chosen_letters`, the letters to be taken now; returns what of those meant is left out."""
    temp_table(con, "corrections", "dead_letter_id VARCHAR, corrected VARCHAR", list(corrections.items()))
    _check_corrections(con, contract)
    condition, given = Choice(
        choice.ids, contract.name, choice.partition, choice.rule, choice.column, "open"
    ).condition()
    con.execute(
        "CREATE OR REPLACE TEMP TABLE meant AS SELECT d.*, coalesce(c.corrected, d.corrected) AS correction, "
        "l.status AS batch_status FROM ops.dead_letters AS d LEFT JOIN corrections AS c USING (dead_letter_id) "
        f"JOIN ops.ledger AS l USING (batch_id) WHERE l.superseded_by IS NULL AND "
        f"(d.dead_letter_id IN (SELECT dead_letter_id FROM ops.dead_letters WHERE {condition}) "
        "OR c.dead_letter_id IS NOT NULL) AND d.status = 'open'",
        given,
    )
    whole = "(line IS NULL OR batch_status = 'refused')"
    # A letter named by its id is meant, however often it has failed; so is one with a new correction.
    left = (
        "false"
        if choice.ids
        else (f"{poison_condition()} AND dead_letter_id NOT IN (SELECT dead_letter_id FROM corrections)")
    )
    unread = "raw_encoding = 'base64' AND correction IS NULL"
    con.execute(
        "CREATE OR REPLACE TEMP TABLE chosen_letters AS SELECT dead_letter_id, batch_id, partition_key, file, line, "
        "header, correction, coalesce(correction, raw) AS payload, row_number() OVER (ORDER BY batch_id, file, line) - 1 "
        "AS row_id, dense_rank() OVER (ORDER BY batch_id) - 1 AS batch_no, "
        "dense_rank() OVER (ORDER BY batch_id, file, header) - 1 AS file_id "
        f"FROM meant WHERE NOT {whole} AND NOT ({left}) AND NOT ({unread})"
    )
    row = con.execute(
        f"SELECT count(*) FILTER (NOT {whole} AND ({left})), count(*) FILTER (NOT {whole} AND NOT ({left}) AND {unread}), "
        f"coalesce(list_sort(list(DISTINCT partition_key) FILTER ({whole})), []) FROM meant"
    ).fetchone()
    assert row is not None, "an aggregate has a row"
    return Replayed(contract.name, poison=row[0], undecodable=row[1], partitions=tuple(row[2]))


def _check_corrections(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    stray = con.execute(
        "SELECT dead_letter_id FROM corrections WHERE dead_letter_id NOT IN "
        "(SELECT dead_letter_id FROM ops.dead_letters WHERE source = ? AND status = 'open' AND line IS NOT NULL) LIMIT 1",
        [contract.name],
    ).fetchone()
    if stray:
        raise DeadLetterError(
            f"{stray[0]} is no open dead letter of a row of {contract.name}. See `sluice dead-letters list`."
        )
    lines = (
        "false" if contract.landing.csv.multiline else "contains(corrected, chr(10)) OR contains(corrected, chr(13))"
    )
    unfit = con.execute(
        f"SELECT dead_letter_id FROM corrections WHERE trim(corrected) = '' OR strlen(corrected) > {LONGEST_LINE_BYTES} "
        f"OR contains(corrected, ?) OR contains(corrected, chr(0)) OR {lines} LIMIT 1",
        [UNIT_SEPARATOR],
    ).fetchone()
    if unfit:
        raise DeadLetterError(
            f"The correction of {unfit[0]} is no record: it must be one line of text, as it would stand in the file, "
            "without control characters and not blank."
        )


def _files(con: duckdb.DuckDBPyConnection, contract: Contract) -> list[LetterFile]:
    """The files the chosen letters came from.

    Raises:
        LandingError, DeadLetterError: the contract now says otherwise where such a file belongs, or what it is.
    """
    found = []
    for file_id, batch_no, path, header in con.execute(
        "SELECT DISTINCT file_id, batch_no, file, header FROM chosen_letters ORDER BY 1"
    ).fetchall():
        kind = format_of(contract, path)
        if kind is None:
            raise DeadLetterError(
                f"{path}: the contract allows its format no more. Put it back into landing.formats of "
                f"{contract.path.name}, or discard its dead letters."
            )
        found.append(LetterFile(Origin(file_id, batch_no, path, tokens_of(contract, path)), kind, header))
    return found


def _judge_against_bronze(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """What the rows of one batch must not have in common, held against the rows of the batch that are there already.

    Bronze keeps no raw text, so a row is a duplicate of one with equal values in every column.
    """
    columns = typed_columns(contract)
    same = " AND ".join(f"o.{quoted(c.name)} IS NOT DISTINCT FROM j.{value(c.name)}" for c in columns)
    file = "AND o._file = f.path " if contract.landing.duplicates == "file" else ""
    con.execute(
        "UPDATE judged SET twin = true WHERE row_id IN (SELECT j.row_id FROM judged AS j JOIN batches AS b USING (batch_no) "
        f"JOIN batch_files AS f USING (file_id) JOIN bronze.{quoted(contract.name)} AS o ON o._batch_id = b.batch_id {file}"
        f"AND {same} AND o._extra IS NOT DISTINCT FROM j.extra WHERE NOT j.twin AND NOT j.rejected)"
    )
    for column in contract.columns:
        if column.unique:
            name = value(column.name)
            con.execute(
                "INSERT INTO repeated SELECT j.row_id, ? FROM judged AS j JOIN batches AS b USING (batch_no) "
                f"WHERE NOT j.twin AND NOT j.rejected AND EXISTS (SELECT 1 FROM bronze.{quoted(contract.name)} AS o "
                f"WHERE o._batch_id = b.batch_id AND o.{quoted(column.name)} = j.{name})",
                [column.name],
            )
    con.execute("UPDATE judged SET rejected = true WHERE row_id IN (SELECT row_id FROM repeated)")


def _move(con: duckdb.DuckDBPyConnection, contract: Contract, who: str) -> dict[str, Any]:
    """Write what came of the letters: the body of the one transaction. Repeatable.

    Returns:
        The fields of `Replayed` that tell of it.
    """
    now = datetime.now(UTC).replace(tzinfo=None)
    take_turn(con, contract.name)
    # Somebody else may have replayed, discarded or replaced them since they were chosen.
    con.execute(
        "CREATE OR REPLACE TEMP TABLE settled AS SELECT c.*, j.row_id AS judged_row, "
        "CASE WHEN j.row_id IS NULL OR (j.rejected AND NOT j.twin) THEN 'failed' WHEN j.twin THEN 'duplicate' "
        "ELSE 'accepted' END AS outcome FROM chosen_letters AS c LEFT JOIN judged AS j USING (file_id, line) "
        "WHERE c.dead_letter_id IN (SELECT d.dead_letter_id FROM ops.dead_letters AS d JOIN ops.ledger AS l "
        "USING (batch_id) WHERE d.status = 'open' AND l.superseded_by IS NULL AND l.status = 'accepted')"
    )
    con.execute("DELETE FROM judged WHERE (file_id, line) NOT IN (SELECT (file_id, line) FROM settled)")
    insert_accepted(con, contract, now)
    con.execute(
        "UPDATE ops.dead_letters AS d SET status = 'replayed', corrected = s.correction, decided_by = coalesce(nullif($who, ''), "
        "d.decided_by), decided_at = $now, decided_why = CASE s.outcome WHEN 'duplicate' THEN 'replayed: the row is there already' "
        "ELSE 'replayed' END, contract_version = $version FROM settled AS s "
        "WHERE d.dead_letter_id = s.dead_letter_id AND s.outcome <> 'failed'",
        {"who": who, "now": now, "version": contract.version},
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE failures AS SELECT s.dead_letter_id, {row_reasons(contract)} AS reasons "
        f"FROM settled AS s JOIN records AS r USING (file_id, line) JOIN judged AS j ON j.row_id = s.judged_row "
        f"LEFT JOIN {REPEATED_REASONS} AS u ON u.row_id = s.judged_row WHERE s.outcome = 'failed' UNION ALL "
        "SELECT s.dead_letter_id, [{'rule': m.rule, 'column': m.\"column\", 'value': NULL::VARCHAR, 'detail': m.detail}] "
        "FROM settled AS s JOIN misfits AS m USING (file_id)"
    )
    con.execute(
        "UPDATE ops.dead_letters AS d SET reasons = f.reasons, attempts = coalesce(d.attempts, 1) + 1, "
        "last_failed_at = $now, contract_version = $version FROM failures AS f "
        "WHERE d.dead_letter_id = f.dead_letter_id",
        {"now": now, "version": contract.version},
    )
    con.execute(
        "UPDATE ops.ledger AS l SET rows_accepted = l.rows_accepted + m.accepted, rows_duplicate = l.rows_duplicate + "
        "m.duplicate, rows_dead_lettered = l.rows_dead_lettered - m.accepted - m.duplicate FROM (SELECT batch_id, "
        "count(*) FILTER (outcome = 'accepted') AS accepted, count(*) FILTER (outcome = 'duplicate') AS duplicate "
        "FROM settled GROUP BY batch_id) AS m WHERE l.batch_id = m.batch_id"
    )
    balanced(con, contract.name)
    row = con.execute(
        "SELECT count(*) FILTER (outcome = 'accepted'), count(*) FILTER (outcome = 'duplicate'), "
        "count(*) FILTER (outcome = 'failed'), coalesce(list_sort(list(DISTINCT partition_key) "
        "FILTER (outcome = 'accepted')), []) FROM settled"
    ).fetchone()
    assert row is not None, "an aggregate has a row"
    return {"accepted": row[0], "duplicate": row[1], "failed": row[2], "changed": tuple(row[3])}
