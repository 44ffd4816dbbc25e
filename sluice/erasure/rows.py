"""Bronze and dead letters without the person, and the books that say so: one transaction.

Rows about the person go. Rows that count something stay, with the id and the personal columns null, so that sums by
day, product or region are what they were. Silver and gold are built of that.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

import duckdb

from sluice import rules
from sluice.booking import take_turn
from sluice.bronze import bronze_columns, table_columns
from sluice.contracts import Contract
from sluice.dead_letters import DUPLICATE_WHY
from sluice.erasure import landing
from sluice.erasure.lines import header_of, without
from sluice.erasure.person import Person, Place, places, table_exists
from sluice.erasure.register import ERASED, ERASED_REASONS, ERASED_WHY
from sluice.landing import format_of
from sluice.sql import literal, quoted, temp_table


@dataclass(frozen=True)
class Emptied:
    """What was done: rows of bronze removed, rows that lost the person, dead letters that lost their text."""

    rows_removed: int
    rows_emptied: int
    letters_emptied: int


def erase_rows(con: duckdb.DuckDBPyConnection, where: Iterable[Place], person: Person) -> Emptied:
    """The body of the transaction. Repeatable."""
    removed = emptied = 0
    by_source = {place.contract.name: place for place in where}
    for name, place in by_source.items():
        if not table_exists(con, name):
            continue
        take_turn(con, name)
        given = {"id": person.id}
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE of_person AS SELECT _batch_id, count(*) AS n FROM {place.table} "
            f"WHERE {place.is_theirs()} GROUP BY ALL",
            given,
        )
        found = con.execute("SELECT coalesce(sum(n), 0)::BIGINT FROM of_person").fetchone()
        if not found or not found[0]:
            continue
        if place.about:
            con.execute(f"DELETE FROM {place.table} WHERE {place.is_theirs()}", given)
            removed += found[0]
        else:
            # What the contract does not classify may be about the person, too: columns that came by themselves, those
            # it no longer has, and texts beside the typed column they became.
            declared = {column for column, _ in bronze_columns(place.contract)}
            unknown = [*(c for c in table_columns(con, name) if c not in declared), "_extra"]
            if place.contract.stream:
                # A key tells of whom its message is.
                unknown += ["_message_key", "_headers"]
            names = [quoted(n) for n in (*(c.name for c in (*place.ids, *place.personal)), *unknown)]
            con.execute(
                f"UPDATE {place.table} SET {', '.join(f'{n} = NULL' for n in names)} WHERE {place.is_theirs()}", given
            )
            emptied += found[0]
        column = "rows_erased" if place.about else "rows_emptied"
        con.execute(
            f"UPDATE ops.ledger AS l SET {column} = coalesce(l.{column}, 0) + p.n FROM of_person AS p "
            "WHERE l.batch_id = p._batch_id"
        )
    letters = letters_of(con, by_source, person)
    columns = "dead_letter_id VARCHAR, checksum VARCHAR, corrected VARCHAR, header VARCHAR"
    temp_table(con, "their_letters", columns, letters)
    con.execute(
        # A correction that was taken is applied again when its row is read again.
        "UPDATE ops.dead_letters AS d SET raw = NULL, message_key = NULL, headers = NULL, "
        "corrected = CASE WHEN d.status = 'replayed' THEN t.corrected END, "
        f"header = t.header, reasons = {ERASED_REASONS}, "
        f"checksum = coalesce(t.checksum, {literal(ERASED)} || coalesce(d.line::VARCHAR, '')), "
        "status = CASE WHEN d.status = 'open' THEN 'discarded' ELSE d.status END, "
        f"decided_why = CASE WHEN d.decided_why = {literal(DUPLICATE_WHY)} THEN d.decided_why "
        f"ELSE {literal(ERASED_WHY)} END FROM their_letters AS t WHERE d.dead_letter_id = t.dead_letter_id"
    )
    return Emptied(removed, emptied, len(letters))


def letters_of(
    con: duckdb.DuckDBPyConnection, by_source: dict[str, Place], person: Person
) -> list[tuple[str, str | None, str | None, str | None]]:
    """The dead letters whose text names the person, or may: id, checksum, correction and header without the person.

    The checksum is that of the line as an erasure leaves it, so that it is known when it is read again; None where it
    leaves none. The correction is None where there is none, or where the person cannot be taken out of it for sure;
    the header, where it names the person.
    """
    condition, given = may_name(by_source.values(), person)
    rows = con.execute(
        "SELECT dead_letter_id, line, checksum, source, file, raw, raw_encoding, corrected, header, "
        f"CAST(reasons AS VARCHAR), decided_why FROM ops.dead_letters WHERE {condition}",
        given,
    ).fetchall()
    found = []
    for letter, line, checksum, source, *texts in rows:
        place = by_source.get(source)
        if names_them(place, person, *texts):
            file, raw, raw_encoding, corrected, header, *_ = texts
            known = None if line is None else checksum
            # Else its landing file was rewritten, and the checksum is that of its line there.
            if known is not None and raw is not None and known == landing.checksum(raw):
                known = None if raw_encoding == "base64" else _checksum(_left(place, person, file, raw, header))
            kept = None if header is None or person.is_in(header) else header
            found.append((letter, known, _left(place, person, file, corrected, header), kept))
    return found


def _checksum(text: str | None) -> str | None:
    return None if text is None else landing.checksum(text)


def _left(place: Place | None, person: Person, file: str, text: str | None, header: str | None) -> str | None:
    """A record without the person; None where nothing is left of it, or where it cannot be taken apart."""
    if not text:
        return None
    if place is None:
        return person.mask_values(text.encode()).decode()
    form = format_of(place.contract, file) or "jsonl"
    line = without(place, person, text, form, header_of(place, header) if form == "csv" else None)
    return None if line.verdict == "unclear" or not line.text.strip() else line.text


def corrections_of_erased(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Make `their_corrections`: corrections that were taken and name people who are erased already, without them.

    Reads `settled`, the letters that are replayed, and what `sluice.erasure.register.leave_out` has left. There is
    none for a correction of which nothing is left.
    """
    named = [(c.name, c.subject) for c in contract.columns if c.subject]
    # An id that the row came with and has lost is that of somebody erased.
    ids = [f"CASE WHEN j.{rules.value(n)} IS NULL THEN r.{rules.text(n)} END" for n, _ in named]
    found: list[tuple[str, str | None]] = []
    # Few replays have any, and `records` takes every line apart.
    if con.execute("SELECT 1 FROM settled WHERE theirs AND correction IS NOT NULL LIMIT 1").fetchone():
        rows = con.execute(
            f"SELECT s.dead_letter_id, s.file, s.header, s.correction, [{', '.join(ids)}] FROM settled AS s "
            "JOIN judged AS j ON j.row_id = s.judged_row JOIN records AS r ON r.row_id = j.row_id "
            "WHERE j.emptied AND NOT j.erased AND s.outcome <> 'failed' AND s.correction IS NOT NULL"
        ).fetchall()
        for letter, file, header, correction, theirs in rows:
            left: str | None = correction
            for (_, subject), person_id in zip(named, theirs, strict=True):
                for place in places([contract], subject) if (person_id or "").strip() else ():
                    left = _left(place, Person(subject, person_id), file, left, header)
            found.append((letter, left))
    temp_table(con, "their_corrections", "dead_letter_id VARCHAR, corrected VARCHAR", found)


def may_name(where: Iterable[Place], person: Person) -> tuple[str, dict[str, object]]:
    """SQL of whether a dead letter is worth taking apart, and its parameters."""
    every = "concat_ws(chr(10), raw, corrected, header, CAST(reasons AS VARCHAR), decided_why)"
    numeric = [place.contract.name for place in where if place.numeric and person.number is not None]
    texts = "concat_ws(chr(10), raw, corrected)"
    digits = f"(regexp_matches({texts}, $number) OR contains({texts}, '\\u'))"
    return (
        f"(raw_encoding = 'base64' OR {person.tokens.may_be_in_sql(every)} "
        # A number has many forms, and JSON may write its digits as their codes.
        f"OR (source IN (SELECT unnest($numeric)) AND {digits}))",
        {"numeric": numeric, "number": person.number_pattern},
    )


def names_them(
    place: Place | None,
    person: Person,
    file: str,
    raw: str | None,
    raw_encoding: str | None,
    corrected: str | None,
    header: str | None,
    reasons: str | None,
    why: str | None,
) -> bool:
    """Whether a dead letter names the person: by its contract where its text can be taken apart by it, else at all."""
    loose = " ".join(filter(None, (header, why, reasons)))
    if raw_encoding == "base64" and raw:
        raw = base64.b64decode(raw).decode("utf-8", "surrogateescape")
    if place is None:
        return person.is_in_by_value(" ".join(filter(None, (loose, raw, corrected))))
    form = format_of(place.contract, file) or "jsonl"
    names = header_of(place, header) if form == "csv" else None
    for text in filter(None, (raw, corrected)):
        if without(place, person, text, form, names).verdict != "other":
            return True
    # Of a record that was taken apart, what its reasons quote is in it; they name a column of another meaning, then.
    return person.is_in_by_value(loose) if raw else person.is_in(loose)
