"""What is in the lake after a round, held against the oracle: every row of every file, in the books or a complaint.

What people see and what must not have happened belongs to `aftermath`.
"""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import duckdb

from sluice.contracts import Contract
from sluice.inventory import PARTITION_KEY
from tests.fuzz.cases import Case
from tests.fuzz.oracle import ANY, MOST_NEW, Row
from tests.fuzz.sources import SOURCES
from tests.fuzz.values import BAD, GOOD, UNSURE

# Rules of a file's columns, for which its whole batch is refused; and those that leave its good rows readable.
SCHEMA = ("missing_column", "unexpected_column", "too_many_columns")
HELD = ("batch_refused", "unexpected_column", "too_many_columns")
# docs/contracts.md: of so many documents none has a value in a required column.
LEAST_DOCUMENTS = 20


class Comparison:
    """Of the cases `delivered` with what a connection to the lake shows.

    `complaints` are the number of a case, where it is about one, and what is wrong; `counts` what was looked at.
    """

    def __init__(self, delivered: list[Case], contracts: Mapping[str, Contract]) -> None:
        self.delivered = delivered
        self.contracts = contracts
        self.complaints: list[tuple[int | None, str]] = []
        self.counts: Counter[str] = Counter()
        self.letters: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        self.evolved: dict[str, set[str]] = defaultdict(set)

    def complain(self, what: str, case: Case | None = None) -> None:
        """Note what is wrong."""
        self.complaints.append((case.number if case else None, f"{case.title}: {what}" if case else what))

    def look(self, con: duckdb.DuckDBPyConnection, told: set[tuple[str, str]]) -> None:
        """Compare everything; `told` are source and path of the files the ingest named as set aside."""
        self._letters(con)
        for name, column in con.execute(
            "SELECT source, \"column\" FROM ops.schema_drift WHERE action = 'evolved'"
        ).fetchall():
            self.evolved[name].add(column)
        for source in SOURCES:
            self._source(con, source, told)
        self._unroutable(con)

    def _letters(self, con: duckdb.DuckDBPyConnection) -> None:
        result = con.execute(
            "SELECT source, partition_key, file, line, rows, raw, raw_encoding, reasons, header FROM ops.dead_letters"
        )
        names = [c[0] for c in result.description]
        for row in result.fetchall():
            letter = dict(zip(names, row, strict=True))
            self.letters[letter["source"], letter["file"]].append(letter)
            if not letter["reasons"] or not all(r["rule"] and r["detail"] for r in letter["reasons"]):
                self.complain(f"a dead letter without a message: {letter}")

    def _source(self, con: duckdb.DuckDBPyConnection, name: str, told: set[tuple[str, str]]) -> None:
        source = SOURCES[name]
        cases = sorted(
            (c for c in self.delivered if c.source is source and c.place[0] == "read"), key=lambda c: c.path.decode()
        )
        con.execute(f"SELECT * FROM bronze.{name}").fetchall()  # as a reader would, in their own types
        columns = [*(["_op", "_lsn", "_source_ts"] if source.feed else []), *source.columns]
        shown = ", ".join(f'"{c}"::VARCHAR' for c in columns)
        accepted: dict[tuple[str, int], dict[str, Any]] = {}
        tokens = "hour" if "{hour}" in source.folder else "''"
        for file, line, day, hour, *values in con.execute(
            f"SELECT _file, _line, date::VARCHAR, {tokens}, {shown} FROM bronze.{name}"
        ).fetchall():
            if (file, line) in accepted:
                self.complain(f"{name}: {file} line {line} was accepted twice")
            accepted[file, line] = {**dict(zip(columns, values, strict=True)), "date": day, "hour": hour}
        ledger = {
            key: rest
            for key, *rest in con.execute(
                "SELECT partition_key, status, files, rows_read, rows_accepted, rows_dead_lettered, rows_duplicate "
                "FROM ops.ledger WHERE source = ? AND partition_key <> ?", [name, PARTITION_KEY]
            ).fetchall()
        }  # fmt: skip
        by_key: dict[str, list[Case]] = defaultdict(list)
        for case in cases:
            by_key[case.place[1]].append(case)
        if set(by_key) != set(ledger):
            self.complain(f"{name}: partitions {set(by_key) ^ set(ledger)} are only in one of landing area and ledger")
        by_file: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        for (file, line), values in accepted.items():
            by_file[file][line] = values
        known = {c.path.decode() for c in cases}
        for file in by_file.keys() - known:
            self.complain(f"{name}: rows of {file!r}, which was never delivered there")
        for key, own in by_key.items():
            if key in ledger:
                self._batch(source.name, own, ledger[key], by_file, told)

    def _batch(
        self,
        name: str,
        cases: list[Case],
        booked: list[Any],
        accepted: dict[str, dict[int, dict[str, Any]]],
        told: set[tuple[str, str]],
    ) -> None:
        status, files, *totals = booked
        if files != len(cases):
            self.complain(f"{name}: {files} files booked, {len(cases)} delivered", cases[0])
        twins = self._twins(cases)
        read = duplicates = unsure = bad = 0
        exact, unfit = True, False
        for case in cases:
            file = case.path.decode()
            letters = self.letters[name, file]
            reading = case.reading
            whole = [(x, x["reasons"][0]["rule"]) for x in letters if x["line"] is None]
            faults = [x for x, rule in whole if rule not in HELD or rule in reading.rules]
            held = sum(x["rows"] for x, rule in whole if rule in HELD and rule not in reading.rules)
            in_bronze = accepted.get(file, {})
            unfit |= any(rule in SCHEMA for _, rule in whole)
            self._columns(case, cases, status, [rule for _, rule in whole])
            self.counts["files"] += 1
            for fault in faults:
                self.counts["files set aside"] += 1
                if (name, file) not in told:
                    self.complain(f"set aside without a message: {fault}", case)
            if len(faults) > 1:
                self.complain(f"set aside twice: {faults}", case)
            if not reading.rules and faults and self._no_record_has_it(case, faults[0]):
                exact = False
                continue
            if bool(reading.rules) != bool(faults) and reading.certain:
                wanted = f"set aside: {reading.rules}" if reading.rules else "read"
                self.complain(f"expected to be {wanted}, but {faults or 'read'}", case)
                exact = False
                continue
            if not reading.certain:
                # Of a damaged Parquet file only its own footer knows the number of rows.
                rows = held + len(in_bronze) + sum(x["rows"] for x in letters if x["line"] is not None)
                if reading.stands_for is not None and not faults and rows > reading.stands_for:
                    self.complain(f"{rows} rows where there are {reading.stands_for}", case)
                exact = False
                continue
            if faults:
                fault = faults[0]
                if fault["reasons"][0]["rule"] not in reading.rules:
                    self.complain(f"set aside for {fault['reasons']}, expected {reading.rules}", case)
                if fault["rows"] != reading.stands_for:
                    self.complain(f"stands for {fault['rows']} rows, expected {reading.stands_for}", case)
                if in_bronze or len(letters) != len(faults):
                    self.complain("set aside, and yet rows of it are in the books", case)
                read += fault["rows"]
                bad += fault["rows"]
                continue
            self._rows(case, status, [r for r in reading.rows if (file, r.line) not in twins], in_bronze, letters, held)
            here = [r for r in reading.rows if (file, r.line) not in twins]
            read += len(reading.rows)
            duplicates += len(reading.rows) - len(here)
            bad += sum(r.verdict == BAD for r in here)
            unsure += sum(r.verdict == UNSURE for r in here)
        if unfit and (status != "refused" or totals[1]):
            self.complain(
                f"{name}: {status} with {totals[1]} rows though the columns of a file are not in order", cases[0]
            )
        if totals[0] != sum(totals[1:]):
            self.complain(f"{name}: {totals} do not add up", cases[0])
        if exact and (totals[0], totals[3]) != (read, duplicates):
            self.complain(f"{name}: booked {totals}; the oracle counts {read} read, {duplicates} duplicates", cases[0])
        share = self.contracts[name].max_rejected_share
        own = read - duplicates
        if exact and own:
            if status == "accepted" and bad / own > share:
                self.complain(f"{name}: accepted with {bad} of {own} rows bad", cases[0])
            if status == "refused" and not unfit and (bad + unsure) / own <= share:
                self.complain(f"{name}: refused with at most {bad + unsure} of {own} rows bad", cases[0])
        self.counts["rows read"] += totals[0]
        self.counts["rows accepted"] += totals[1]
        self.counts["rows dead-lettered"] += totals[2]
        self.counts["rows duplicate"] += totals[3]
        self.counts["batches"] += 1
        self.counts["batches refused"] += status == "refused"

    def _columns(self, case: Case, batch: list[Case], status: str, rules: list[str]) -> None:
        """Whether a file whose columns are not those of its contract is let in only where it may.

        At most `MOST_NEW` are taken in with a batch, whichever of its files have them.
        """
        reading, evolution = case.reading, case.source.evolution
        if reading.rules or not reading.certain:
            return
        told = [r for r in rules if r in ("unexpected_column", "too_many_columns")]
        for rule in told:
            allowed = rule == {"freeze": "unexpected_column", "evolve": "too_many_columns"}.get(evolution)
            if allowed and evolution == "freeze":
                allowed = reading.rumoured is None or bool(reading.rumoured)
            elif allowed:
                beside = [c.reading.rumoured for c in batch if not c.reading.rules]
                known = self.evolved[case.source.name]
                allowed = None in beside or len(known.union(*filter(None, beside))) > MOST_NEW
            if not allowed:
                self.complain(f"refused as {rule}, its new columns are {reading.rumoured}", case)
        if evolution == "freeze" and reading.new and status != "refused":
            self.complain(f"accepted with columns {sorted(reading.new)[:5]} that are to be kept out", case)

    def _no_record_has_it(self, case: Case, fault: dict[str, Any]) -> bool:
        """Whether so many documents, none of them good, may be said to lack a column."""
        rows = case.reading.rows
        return (
            fault["reasons"][0]["rule"] == "missing_column"
            and len(rows) >= LEAST_DOCUMENTS
            and not any(r.verdict == GOOD for r in rows)
        )

    def _twins(self, cases: list[Case]) -> set[tuple[str, int]]:
        """File and line of every exact copy of an earlier line; and of later rows with a value that must be unique."""
        seen: set[Any] = set()
        ids: set[Any] = set()
        found = set()
        unknown = False
        for case in cases:
            if case.source.duplicates == "file":
                seen, ids = set(), set()
            # A damaged Parquet file may hold any value that must be unique in its batch.
            unknown = unknown or not case.reading.certain
            for row in case.reading.rows:
                key = (row.layout if row.layout is ANY else "text", row.layout, row.raw)
                if key in seen:
                    found.add((case.path.decode(), row.line))
                    continue
                seen.add(key)
                self._repeated(case, row, ids)
                if unknown and row.verdict == GOOD and any(s.get("unique") for s in case.source.columns.values()):
                    row.verdict = UNSURE
        return found

    def _repeated(self, case: Case, row: Row, ids: set[Any]) -> None:
        unique = [n for n, s in case.source.columns.items() if s.get("unique")]
        for name in unique:
            value = row.values.get(name)
            if row.verdict == BAD or value is None:
                continue
            if value in ids or value is ANY:
                # Whether an UNSURE row was there first nobody can say; a GOOD one makes all later ones bad.
                row.verdict = BAD if (value, "sure") in ids and value is not ANY else UNSURE
            if row.verdict == GOOD:
                ids.add((value, "sure"))
            ids.add(value)

    def _rows(
        self,
        case: Case,
        status: str,
        rows: Iterable[Row],
        in_bronze: dict[int, dict[str, Any]],
        letters: list[dict[str, Any]],
        held: int,
    ) -> None:
        by_line = {x["line"]: x for x in letters if x["line"] is not None}
        good_but_refused = 0
        seen = set()
        for row in rows:
            seen.add(row.line)
            letter, values = by_line.get(row.line), in_bronze.get(row.line)
            if letter and values:
                self.complain(f"line {row.line} is both accepted and a dead letter", case)
            if letter:
                if row.verdict == GOOD:
                    self.complain(f"line {row.line} is good but {letter['reasons']}: {row.raw!r:.300}", case)
                self._raw(case, row, letter)
                self.counts["dead letters whose bytes were compared"] += 1
            elif values:
                if row.verdict == BAD:
                    self.complain(
                        f"line {row.line} was accepted though {row.why} is bad: {row.raw!r:.300} became {values}", case
                    )
                elif row.verdict == GOOD:
                    self._values(case, row, values)
                    self.counts["accepted rows whose values were compared"] += 1
            elif status == "refused" and row.verdict != BAD:
                good_but_refused += 1
            else:
                self.complain(f"line {row.line} is nowhere: {row.raw!r:.300}", case)
        if held != good_but_refused:
            self.complain(f"{held} good rows of a refused batch booked, the oracle counts {good_but_refused}", case)
        for line in (by_line.keys() | in_bronze.keys()) - seen:
            self.complain(f"line {line} is in the books but no row: {by_line.get(line) or in_bronze.get(line)}", case)

    def _raw(self, case: Case, row: Row, letter: dict[str, Any]) -> None:
        if row.layout is ANY:  # Parquet: a row as JSON of texts
            kept = json.loads(letter["raw"])
            for name, spec in case.source.columns.items():
                known = spec.get("physicalName", name)
                if known in kept and f"({name!r}, {kept[known]!r})" not in str(row.raw):
                    self.complain(f"line {row.line} keeps {known} as {kept[known]!r:.100}: {row.raw!r:.300}", case)
            return
        kept = base64.b64decode(letter["raw"]) if letter["raw_encoding"] == "base64" else letter["raw"]
        if kept != row.raw:
            self.complain(f"line {row.line} is kept as {kept!r:.200}, was {row.raw!r:.200}", case)

    def _values(self, case: Case, row: Row, values: dict[str, Any]) -> None:
        for name, expected in row.values.items():
            found = values[name]
            if expected is ANY or found == expected:
                continue
            if isinstance(expected, float) and found is not None and float(found) == expected:
                continue
            self.complain(f"line {row.line}: {name} is {found!r:.200}, expected {expected!r:.200}", case)
        if values["date"] != case.place[1] or (case.place[2] and values["hour"] != case.place[2]):
            self.complain(
                f"line {row.line} is in partition {values['date']!r} {values['hour']!r}, expected {case.place}", case
            )

    def _unroutable(self, con: duckdb.DuckDBPyConnection) -> None:
        told = {
            (s, f) for (s, f), letters in self.letters.items() for x in letters if x["partition_key"] == PARTITION_KEY
        }
        expected = {
            (c.source.name, c.path.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode())
            for c in self.delivered
            if c.place[0] == "told"
        }
        for missing in expected - told:
            self.complain(f"not told of as unroutable: {missing}")
        for stray in told - expected:
            self.complain(f"told of as unroutable, but it belongs somewhere or was never delivered: {stray}")
        self.counts["files told of as unroutable"] += len(expected & told)
        self.counts["files in flight left alone"] += sum(c.place[0] == "left" for c in self.delivered)
        self.counts["files delivered"] += len(self.delivered)
