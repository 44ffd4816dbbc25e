"""Replay: dead letters through the same records, rules and books as the files they came from, under today's contract.

A row that passes moves into its batch, with the file and line it always had, and out of the dead letters in one
transaction with the ledger. What was never taken apart into rows (a file, a refused batch) is ingested again whole.
Choosing letters belongs to `sluice.dead_letters`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from sluice.batches import Batch, BatchOutcome
from sluice.booking import REPEATED_REASONS, balanced, insert_accepted, row_reasons, same_failures, take_turn
from sluice.bronze import create_bronze
from sluice.contracts import Contract
from sluice.dead_letters import DUPLICATE_WHY, POISON, Choice, any_more, as_loaded
from sluice.drift import reject_rows
from sluice.erasure.register import ERASED, ERASED_REASONS, ERASED_WHY, leave_out, leave_out_of_texts
from sluice.erasure.rows import corrections_of_erased
from sluice.errors import DeadLetterError
from sluice.gates import count_warnings
from sluice.inventory import PARTITION_KEY as UNROUTABLE
from sluice.judging import judge
from sluice.lake import Lake
from sluice.landing import format_of, tokens_of
from sluice.ops_tables import now_utc
from sluice.preflight import LONGEST_LINE_BYTES, UNIT_SEPARATOR
from sluice.records import LetterFile, Origin, extract_letters
from sluice.repeats import judge_repeats
from sluice.sql import literal, temp_table


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
        undecodable: letters whose bytes are no text, or no longer one record, which only a corrected payload helps.
        unroutable: files that lie where they belong to no partition: to be moved, not replayed.
        changed: partition keys that gained rows.
    """

    source: str
    accepted: int = 0
    duplicate: int = 0
    failed: int = 0
    poison: int = 0
    partitions: tuple[str, ...] = ()
    undecodable: int = 0
    unroutable: int = 0
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
    """Take the open letters of one source that are chosen again, all in one transaction.

    Args:
        lake: whose letters.
        contract: of the source, as it is now.
        choice: which of them; only open ones can be.
        corrections: payloads to take instead of the original ones, by `dead_letter_id`; the originals are kept. What
            is corrected is taken whether it is chosen or not.
        by: who supplies the corrections or asks for it; kept with the letters.
        run_id: kept as who asks, where nobody else is known.

    Raises:
        DeadLetterError: a correction is for no open letter of a row of the source, or is no record.
        LandingError: the contract now says otherwise where the letters' files belong.
        BooksDoNotBalanceError: rows went astray, a defect; nothing was committed.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    supplied = {letter: as_loaded(payload) for letter, payload in (corrections or {}).items()}
    for letter, payload in supplied.items():
        _check_payload(contract, letter, payload)
    condition, given = dataclasses.replace(choice, source=contract.name, status="open").condition()
    if choice.source not in ("", contract.name):
        # Another source is meant; of this one only what is corrected.
        condition, given = "false", {}
    # A letter named by its id is meant, however often it has failed.
    meant = _Meant(condition, given, bool(choice.ids), supplied, by, run_id)
    with lake.connect() as con:
        lake.create(con)
        create_bronze(lake, con, contract)
        return lake.transaction(
            con, lambda c: _take_again(c, contract, meant), f"replay dead letters of {contract.name}"
        )


def reapply(con: duckdb.DuckDBPyConnection, contract: Contract, outcomes: list[BatchOutcome]) -> list[BatchOutcome]:
    """Take rows again that fail as they did before, where somebody has supplied what is right in their place.

    Part of the transaction in which `sluice.booking.commit` has written their batches: readers of bronze never see a
    batch without its corrections.
    """
    if not con.execute("SELECT 1 FROM former_letters WHERE decision.corrected IS NOT NULL LIMIT 1").fetchone():
        return outcomes
    take_corrected(con, contract, "SELECT batch_id FROM batch_books WHERE NOT refused")
    now = {b.batch_id: b for b in balanced(con, contract.name)}
    return [now.get(b.batch_id, b) for b in outcomes]


def take_corrected(
    con: duckdb.DuckDBPyConnection, contract: Contract, batches: str, letters: str = "SELECT NULL"
) -> None:
    """Take the open letters of some batches again for which somebody has supplied what is right.

    Args:
        con: in a transaction.
        contract: of their source.
        batches: SQL of the ids of the batches.
        letters: SQL of the ids of letters in them that are taken as well.
    """
    meant = f"(corrected IS NOT NULL OR dead_letter_id IN ({letters}))"
    condition = f"line IS NOT NULL AND {meant} AND status = 'open' AND batch_id IN ({batches})"
    _take_again(con, contract, _Meant(condition, {}, True, {}, "", "", counted=True))


@dataclass(frozen=True)
class _Meant:
    """Which letters are to be taken: a condition on `ops.dead_letters` and its values, poison or not, and by whom.

    `counted`: who asks is part of a load, which has said already whether it is one more attempt.
    """

    condition: str
    given: Mapping[str, Any]
    poison_too: bool
    corrections: Mapping[str, str]
    by: str
    run_id: str
    counted: bool = False


def _check_payload(contract: Contract, letter: str, payload: str) -> None:
    """Whether a corrected payload could stand in a file as one record."""
    csv = contract.landing.csv
    try:
        size = len(payload.encode())
    except UnicodeEncodeError:  # bytes on the command line that are no text
        size = LONGEST_LINE_BYTES + 1
    lines = payload.split("\n")
    # Where records run over lines, they do so between quotes: their number before each line's end is odd.
    ends = ["\n".join(lines[:n]).count(csv.quote) % 2 for n in range(1, len(lines))]
    if (
        not payload.strip()
        or size > LONGEST_LINE_BYTES
        or UNIT_SEPARATOR in payload
        or "\0" in payload
        or (ends and not (csv.multiline and all(ends)))
    ):
        raise DeadLetterError(
            f"The correction of {letter!r} is no record: it must be one line of text, as it would stand in the file, "
            f"without control characters, not blank, and of at most {LONGEST_LINE_BYTES:,} bytes."
        )


def _take_again(con: duckdb.DuckDBPyConnection, contract: Contract, meant: _Meant) -> Replayed:
    """Choose, judge and move letters: the body of a transaction. Repeatable."""
    told = _choose(con, contract, meant)
    files = _files(con, contract)
    if not files:
        return told
    take_turn(con, contract.name)
    batches = [
        Batch(number, batch, key, ())
        for number, batch, key in con.execute(
            "SELECT DISTINCT batch_no, batch_id, partition_key FROM chosen_letters ORDER BY 1"
        ).fetchall()
    ]
    faults = extract_letters(con, contract, files)
    judge(con, contract, batches, [f.origin for f in files], faults)
    # The batch's gates were for all of it; of its worst rows alone they would say nothing.
    reject_rows(con, contract)
    temp_table(
        con,
        "misfits",
        "file_id INTEGER, rule VARCHAR, column VARCHAR, detail VARCHAR",
        [(f.file_id, f.rule, f.column, f.detail) for f in faults],
    )
    leave_out(con, contract)
    if faults:
        # Of a file whose header no longer fits, nothing was taken apart.
        texts = "SELECT row_id, payload AS raw FROM chosen_letters WHERE file_id IN (SELECT file_id FROM misfits)"
        leave_out_of_texts(con, contract, texts)
    judge_repeats(con, contract)
    count_warnings(con, contract)
    return dataclasses.replace(told, **_move(con, contract, meant))


def _choose(con: duckdb.DuckDBPyConnection, contract: Contract, meant: _Meant) -> Replayed:
    """Make `chosen_letters`, the letters to be taken now; returns what of those meant is left out."""
    temp_table(con, "corrections", "dead_letter_id VARCHAR, corrected VARCHAR", list(meant.corrections.items()))
    _check_letters(con, contract)
    con.execute(
        "CREATE OR REPLACE TEMP TABLE meant AS SELECT d.*, c.corrected IS NOT NULL AS supplied, "
        "coalesce(c.corrected, d.corrected) AS correction, l.status AS batch_status "
        "FROM ops.dead_letters AS d LEFT JOIN corrections AS c USING (dead_letter_id) "
        "JOIN ops.ledger AS l USING (batch_id) WHERE d.status = 'open' AND l.superseded_by IS NULL AND "
        f"(d.dead_letter_id IN (SELECT dead_letter_id FROM ops.dead_letters WHERE {meant.condition}) "
        "OR c.dead_letter_id IS NOT NULL)",
        meant.given,
    )
    # Taken as records over lines; by the contract as it is now each of the lines is one.
    torn = "false" if contract.landing.csv.multiline else "(header IS NOT NULL AND contains(raw, chr(10)))"
    poison = "false" if meant.poison_too else f"({POISON} AND NOT supplied)"
    con.execute(
        "CREATE OR REPLACE TEMP TABLE sorted_letters AS SELECT *, "
        f"CASE WHEN partition_key = {literal(UNROUTABLE)} THEN 'unroutable' WHEN {poison} THEN 'poison' "
        "WHEN line IS NULL OR batch_status = 'refused' THEN 'whole' "
        f"WHEN (raw IS NULL OR raw_encoding = 'base64' OR {torn}) AND correction IS NULL THEN 'undecodable' "
        "ELSE 'row' END AS kind FROM meant"
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE chosen_letters AS SELECT dead_letter_id, batch_id, partition_key, file, line, "
        "header, message_key, message_ts, headers, correction, supplied, coalesce(correction, raw) AS payload, "
        # A row that was taken before its person was erased is no duplicate of one that it has become like since.
        f"NOT supplied AND correction IS NOT NULL AND coalesce(decided_why = {literal(ERASED_WHY)}, false) AS own, "
        "row_number() OVER (ORDER BY batch_id, file, line) - 1 AS row_id, "
        "dense_rank() OVER (ORDER BY batch_id) - 1 AS batch_no, "
        "dense_rank() OVER (ORDER BY batch_id, file, header) - 1 AS file_id FROM sorted_letters WHERE kind = 'row'"
    )
    row = con.execute(
        "SELECT count(*) FILTER (kind = 'poison'), count(*) FILTER (kind = 'undecodable'), "
        "count(*) FILTER (kind = 'unroutable'), "
        "coalesce(list_sort(list(DISTINCT partition_key) FILTER (kind = 'whole')), []) FROM sorted_letters"
    ).fetchone()
    assert row is not None, "an aggregate has a row"
    return Replayed(contract.name, poison=row[0], undecodable=row[1], unroutable=row[2], partitions=tuple(row[3]))


def _check_letters(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Whether what `corrections` corrects is an open letter of a row whose batch was accepted."""
    row = con.execute(
        "SELECT c.dead_letter_id, l.status, d.status, d.decided_by, d.decided_why FROM corrections AS c "
        "LEFT JOIN (FROM ops.dead_letters WHERE source = ?) AS d USING (dead_letter_id) "
        "LEFT JOIN ops.ledger AS l ON l.batch_id = d.batch_id AND d.status = 'open' AND d.line IS NOT NULL "
        "AND l.superseded_by IS NULL WHERE l.status IS DISTINCT FROM 'accepted' LIMIT 1",
        [contract.name],
    ).fetchone()
    if row and row[1] == "refused":
        raise DeadLetterError(
            f"{row[0]} is a row of a refused batch, of which nothing is accepted, corrected or not. Mend the file and "
            "deliver it again, or raise gates.maxRejectedShare and replay the partition."
        )
    if row and row[2] in (None, "open"):
        raise DeadLetterError(
            f"{row[0]} is no open dead letter of a row of {contract.name}. See `sluice dead-letters show`, which tells "
            "their ids."
        )
    if row:
        raise DeadLetterError(
            f"{row[0]} is no open dead letter{any_more(*row[2:])}. Nothing was replayed: leave it out of what is "
            "corrected."
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


def _move(con: duckdb.DuckDBPyConnection, contract: Contract, meant: _Meant) -> dict[str, Any]:
    """Write the verdicts: rows into bronze, letters settled or failed once more, and the ledger that says so.

    Returns:
        The fields of `Replayed` that tell of it.
    """
    now = now_utc()
    con.execute(
        "CREATE OR REPLACE TEMP TABLE settled AS SELECT c.*, j.row_id AS judged_row, "
        "coalesce(j.erased OR j.emptied, false) AS theirs, "
        "CASE WHEN j.row_id IS NULL OR j.rejected THEN 'failed' WHEN j.twin THEN 'duplicate' ELSE 'accepted' END "
        "AS outcome FROM chosen_letters AS c LEFT JOIN judged AS j USING (file_id, line)"
    )
    corrections_of_erased(con, contract)
    insert_accepted(con, contract, now)
    con.execute(
        "UPDATE ops.dead_letters AS d SET status = 'replayed', contract_version = $version, "
        "decided_by = coalesce(nullif($by, ''), d.decided_by, nullif($run, '')), decided_at = $now, "
        f"decided_why = CASE WHEN s.outcome = 'duplicate' THEN {literal(DUPLICATE_WHY)} "
        f"WHEN s.own OR s.theirs THEN {literal(ERASED_WHY)} ELSE 'replayed' END, "
        # What was supplied may name somebody who has been erased.
        "raw = CASE WHEN NOT s.theirs THEN d.raw END, "
        "corrected = CASE WHEN s.theirs THEN t.corrected ELSE s.correction END "
        "FROM settled AS s LEFT JOIN their_corrections AS t USING (dead_letter_id) "
        "WHERE d.dead_letter_id = s.dead_letter_id AND s.outcome <> 'failed'",
        {"by": meant.by, "run": meant.run_id, "now": now, "version": contract.version},
    )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE failures AS SELECT s.dead_letter_id, s.correction, s.supplied, "
        "j.erased OR j.emptied OR j.row_id IN (SELECT row_id FROM erased_letters) AS theirs, "
        f"{row_reasons(contract)} AS reasons FROM settled AS s JOIN records AS r USING (file_id, line) "
        f"JOIN judged AS j ON j.row_id = s.judged_row LEFT JOIN {REPEATED_REASONS} AS u ON u.row_id = s.judged_row "
        "WHERE s.outcome = 'failed' UNION ALL SELECT s.dead_letter_id, s.correction, s.supplied, "
        "s.row_id IN (SELECT row_id FROM erased_letters), "
        "[{'rule': m.rule, 'column': m.\"column\", 'value': NULL::VARCHAR, 'detail': m.detail}] "
        "FROM settled AS s JOIN misfits AS m USING (file_id)"
    )
    own = "(f.theirs AND f.correction IS NULL)"
    attempt = (
        f"same_failures = {same_failures('d.reasons', 'f.reasons', 'coalesce(d.same_failures, d.attempts)')}, "
        "attempts = coalesce(d.attempts, 1) + 1, last_failed_at = $now, "
    )
    con.execute(
        # The reasons are those of what was tried last, so that is kept beside them, unless it names somebody who has
        # been erased: then neither is, and of a letter whose own text does so no more than a load would keep.
        f"UPDATE ops.dead_letters AS d SET reasons = CASE WHEN f.theirs THEN {ERASED_REASONS} ELSE f.reasons END, "
        "corrected = CASE WHEN NOT f.theirs THEN f.correction END, "
        f"raw = CASE WHEN NOT {own} THEN d.raw END, "
        f"checksum = CASE WHEN {own} THEN {literal(ERASED)} || d.line ELSE d.checksum END, "
        f"status = CASE WHEN {own} THEN 'discarded' ELSE d.status END, "
        "decided_by = CASE WHEN f.supplied THEN nullif($by, '') ELSE d.decided_by END, "
        "decided_at = CASE WHEN f.supplied THEN $now ELSE d.decided_at END, "
        f"{'' if meant.counted else attempt}contract_version = $version "
        "FROM failures AS f WHERE d.dead_letter_id = f.dead_letter_id",
        {"by": meant.by, "now": now, "version": contract.version},
    )
    con.execute(
        "UPDATE ops.ledger AS l SET rows_accepted = l.rows_accepted + m.accepted, "
        "rows_duplicate = l.rows_duplicate + m.duplicate, "
        "rows_dead_lettered = l.rows_dead_lettered - m.accepted - m.duplicate, "
        "rows_erased = coalesce(l.rows_erased, 0) + m.erased, rows_emptied = coalesce(l.rows_emptied, 0) + m.emptied "
        "FROM (SELECT s.batch_id, "
        "count(*) FILTER (outcome = 'accepted') AS accepted, count(*) FILTER (outcome = 'duplicate') AS duplicate, "
        "count(*) FILTER (outcome = 'accepted' AND j.erased) AS erased, "
        "count(*) FILTER (outcome = 'accepted' AND j.emptied) AS emptied "
        "FROM settled AS s LEFT JOIN judged AS j ON j.row_id = s.judged_row GROUP BY s.batch_id) AS m "
        "WHERE l.batch_id = m.batch_id"
    )
    _add_warnings(con, contract)
    balanced(con, contract.name)
    row = con.execute(
        "SELECT count(*) FILTER (outcome = 'accepted'), count(*) FILTER (outcome = 'duplicate'), "
        "count(*) FILTER (outcome = 'failed'), coalesce(list_sort(list(DISTINCT partition_key) "
        "FILTER (outcome = 'accepted')), []) FROM settled"
    ).fetchone()
    assert row is not None, "an aggregate has a row"
    return {"accepted": row[0], "duplicate": row[1], "failed": row[2], "changed": tuple(row[3])}


def _add_warnings(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Add `findings` to what was told of the batches before."""
    if not con.execute("SELECT 1 FROM findings LIMIT 1").fetchone():
        return
    same = 'w.batch_id = b.batch_id AND w."rule" = f."rule" AND w."column" IS NOT DISTINCT FROM f."column"'
    found = "findings AS f JOIN batches AS b USING (batch_no)"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE untold AS SELECT b.batch_id, b.partition_key, f.* EXCLUDE (batch_no) "
        f"FROM {found} WHERE NOT EXISTS (SELECT 1 FROM ops.warnings AS w WHERE {same})"
    )
    con.execute(f"UPDATE ops.warnings AS w SET rows = w.rows + f.rows, detail = f.detail FROM {found} WHERE {same}")
    con.execute("INSERT INTO ops.warnings BY NAME SELECT *, ? AS source FROM untold", [contract.name])
