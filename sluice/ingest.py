"""Ingest: landing files in, and in one transaction bronze rows, dead letters, ledger and positions out.

The unit is a batch, the files of one partition with one content under one contract. Many batches go through the same
statements at once and keep their own books. What a contract's rules are belongs to `sluice.rules`, how files become
records to `sluice.records`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import duckdb

from sluice.contracts import Contract
from sluice.errors import BooksDoNotBalanceError, ContractError
from sluice.lake import LAKE, Lake, explain, literal, quoted, temp_table
from sluice.landing import LandingFile, scan
from sluice.preflight import Inspected, inspect_all
from sluice.records import FileFault, SourceFile, extract, keep_lines
from sluice.rules import broken, reasons, typed_columns, value, violations

# Raise when the meaning of an accepted row changes without its contract changing: every batch is then new.
FORMAT = 1

# Gzip shrinks the real order files to a sixth and JSON lines to a twelfth: an estimate only for the chunk's size.
_GZIP_RATIO = 10

META_COLUMNS = (
    ("_batch_id", "VARCHAR"),
    ("_partition_key", "VARCHAR"),
    ("_file", "VARCHAR"),
    ("_line", "BIGINT"),
    ("_extra", "VARCHAR"),
    ("_ingested_at", "TIMESTAMP"),
)

Status = Literal["accepted", "refused"]


@dataclass(frozen=True)
class FileProblem:
    """A file that was set aside as a whole, or told about: its path, the rule, and what to do."""

    file: str
    rule: str
    detail: str
    rows: int
    partition_key: str


@dataclass(frozen=True)
class BatchOutcome:
    """What became of one batch, as the ledger has it. `unchanged` when an earlier run already wrote just this."""

    batch_id: str
    partition_key: str
    status: Status
    files: int
    rows_read: int
    rows_accepted: int
    rows_dead_lettered: int
    rows_duplicate: int
    unchanged: bool = False

    @property
    def balanced(self) -> bool:
        """The conservation law of this batch."""
        return self.rows_read == self.rows_accepted + self.rows_dead_lettered + self.rows_duplicate

    @property
    def rejected_share(self) -> float:
        """Share of the rows read that was set aside, 0 for an empty batch."""
        return self.rows_dead_lettered / self.rows_read if self.rows_read else 0.0


@dataclass(frozen=True)
class IngestResult:
    """What one call did: the batches by partition key, files set aside, partitions that had no file."""

    source: str
    batches: tuple[BatchOutcome, ...]
    problems: tuple[FileProblem, ...]
    empty_partitions: tuple[str, ...]

    @property
    def refused(self) -> tuple[BatchOutcome, ...]:
        """Batches of which nothing was accepted."""
        return tuple(b for b in self.batches if b.status == "refused")

    @property
    def held_back(self) -> tuple[FileProblem, ...]:
        """Files whose partitions were left as they are, because files they came from have vanished."""
        return tuple(p for p in self.problems if p.rule == "file_vanished")

    def total(self, field: str) -> int:
        """Sum of one of the rows_ counts over the batches."""
        return sum(getattr(b, field) for b in self.batches)


@dataclass(frozen=True)
class _Batch:
    number: int
    batch_id: str
    partition_key: str
    files: tuple[Inspected, ...]


def bronze_columns(contract: Contract) -> list[tuple[str, str]]:
    """Name and SQL type of every column of a source's bronze table, in order."""
    tokens = [(name, "DATE" if name == "date" else "VARCHAR") for name in contract.landing.tokens]
    return tokens + [(c.name, c.type) for c in typed_columns(contract)] + list(META_COLUMNS)


def bronze_changes(con: duckdb.DuckDBPyConnection, contract: Contract) -> list[str]:
    """The SQL that makes a source's bronze table, or adds the columns its contract has gained; none when all is there.

    Raises:
        ContractError: a column's type differs from the table's.
    """
    present = dict(
        con.execute(
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = ? AND schema_name = 'bronze' AND table_name = ?",
            [LAKE, contract.name],
        ).fetchall()
    )
    table = f"bronze.{quoted(contract.name)}"
    dimensions = 1 + len(contract.landing.partitions)
    other = con.execute(
        "SELECT partition_key FROM ops.ledger WHERE source = ? AND status = 'accepted' AND superseded_by IS NULL "
        "AND len(string_split(partition_key, '|')) <> ? LIMIT 1",
        [contract.name, dimensions],
    ).fetchone()
    if other:
        # The same files would be loaded a second time under other keys.
        raise ContractError(
            f"{contract.path.name}: {table} holds partitions such as {other[0]!r}, but the contract now cuts a day "
            "differently. Keep landing.partitions, or load the source under a new name."
        )
    if not present:
        columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in bronze_columns(contract))
        return [f"CREATE TABLE IF NOT EXISTS {table} ({columns})"]
    changes = []
    for name, kind in bronze_columns(contract):
        if name not in present:
            changes.append(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {kind}")
        elif present[name] != kind:
            raise ContractError(
                f"{contract.path.name}: {name} is {kind} in the contract but {present[name]} in {table}. "
                "Keep the type, or load the source under a new name."
            )
    return changes


def create_bronze_tables(lake: Lake, contracts: Iterable[Contract]) -> None:
    """Make the bronze tables of these sources as far as they are not there, so that what reads them can be built.

    Raises:
        ContractError: a column's type differs from the table's.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    with lake.connect() as con:
        lake.create(con)
        for contract in contracts:
            _create_bronze(lake, con, contract)


def _create_bronze(lake: Lake, con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    changes = bronze_changes(con, contract)
    if not con.execute("SELECT 1 FROM ops.turns WHERE source = ?", [contract.name]).fetchone():
        changes.append(f"INSERT INTO ops.turns VALUES ({literal(contract.name)}, 0)")
    if changes:
        lake.transaction(con, lambda c: [c.execute(sql) for sql in changes], f"bronze table of {contract.name}")


def ingest(
    lake: Lake,
    contract: Contract,
    partitions: Iterable[str] | None = None,
    *,
    run_id: str = "",
    force: bool = False,
) -> IngestResult:
    """Bring partitions of a source from the landing area into bronze.

    A batch that is already in the books (same files, same contract) is left as it is, so that running again changes
    nothing; otherwise it replaces what its partition held. A batch whose rejected share passes the contract's
    threshold is refused: nothing of it is accepted, what the partition held before stays.

    Args:
        lake: where to.
        contract: of the source.
        partitions: partition keys; all that have files when None.
        run_id: noted in the ledger.
        force: write batches again that are already in the books.

    Raises:
        LandingError: the landing folder is not there.
        BooksDoNotBalanceError: rows went astray, a defect; nothing of the transaction was committed.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    settings = lake.settings
    found = scan(contract, settings.landing_path, settings.start_date, settings.end_date)
    by_partition = found.by_partition()
    wanted = sorted(by_partition) if partitions is None else sorted(set(partitions))
    present = {key: by_partition[key] for key in wanted if key in by_partition}
    outcomes: list[BatchOutcome] = []
    problems: list[FileProblem] = []
    with lake.connect() as con:
        lake.create(con)
        _create_bronze(lake, con, contract)
        for chunk in _chunks(present, settings.chunk_bytes):
            with _scratch(lake) as temp:
                batches = _batches(chunk, contract, settings.landing_path, temp, settings.threads)
                told, trouble = _ingest_chunk(lake, con, contract, batches, run_id, force)
            outcomes += told
            problems += trouble
    return IngestResult(
        contract.name,
        tuple(sorted(outcomes, key=lambda b: b.partition_key)),
        tuple(problems),
        tuple(key for key in wanted if key not in present),
    )


class _scratch:
    """A folder for unclean files' copies, gone at the end. Errors of the disk are told as the lake's are."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def __enter__(self) -> Path:
        try:
            self.lake.settings.temp_path.mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(prefix="ingest-", dir=self.lake.settings.temp_path))
        except OSError as error:
            raise explain(error, self.lake.settings) or error from error
        return self.path

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if isinstance(error, duckdb.Error | OSError):
            told = explain(error, self.lake.settings)
            if told is not None:
                raise told from error


def _chunks(partitions: dict[str, list[LandingFile]], limit: int) -> Iterator[dict[str, list[LandingFile]]]:
    """Whole partitions, as many as are estimated to unpack to `limit` bytes, at least one."""
    chunk: dict[str, list[LandingFile]] = {}
    size = 0
    for key, files in partitions.items():
        own = sum(f.size * (_GZIP_RATIO if f.gzipped else 1) for f in files)
        if chunk and size + own > limit:
            yield chunk
            chunk, size = {}, 0
        chunk[key] = files
        size += own
    if chunk:
        yield chunk


def _batches(
    chunk: dict[str, list[LandingFile]], contract: Contract, landing: Path, temp: Path, threads: int
) -> list[_Batch]:
    files = [f for own in chunk.values() for f in own]
    inspected = inspect_all(
        files,
        landing,
        temp,
        lambda f: contract.landing.csv.encoding if f.format == "csv" else "utf-8",
        threads or os.cpu_count() or 1,
    )
    by_key: dict[str, list[Inspected]] = {}
    for item in inspected:
        by_key.setdefault(item.file.partition_key, []).append(item)
    return [
        _Batch(number, batch_id(contract, key, own), key, tuple(own))
        for number, (key, own) in enumerate(by_key.items())
    ]


def batch_id(contract: Contract, key: str, files: list[Inspected]) -> str:
    """Identifies a batch by source, partition, content and contract: 32 hex digits of a SHA-256."""
    content = [FORMAT, contract.name, contract.hash, key, [(f.file.path, f.sha256, f.problem) for f in files]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _ingest_chunk(
    lake: Lake, con: duckdb.DuckDBPyConnection, contract: Contract, batches: list[_Batch], run_id: str, force: bool
) -> tuple[list[BatchOutcome], list[FileProblem]]:
    known = _latest(con, contract.name, [b.partition_key for b in batches])
    old = [
        b for b in batches if not force and b.partition_key in known and known[b.partition_key].batch_id == b.batch_id
    ]
    new = [b for b in batches if b not in old]
    outcomes = [known[b.partition_key] for b in old]
    problems: list[FileProblem] = []
    if old:
        moved = _touched(con, old)
        if moved:
            lake.transaction(con, lambda c: _note_positions(c, contract, moved), f"positions of {contract.name}")
        problems += _known_problems(con, [b.batch_id for b in old])
    if not force and any(b.partition_key in known for b in new):
        vanished = _vanished(con, contract, new)
        problems += vanished
        new = [b for b in new if b.partition_key not in {p.partition_key for p in vanished}]
    if not new:
        return outcomes, problems
    files = [
        SourceFile(number, batch.number, item)
        for number, (batch, item) in enumerate((b, i) for b in new for i in b.files)
    ]
    faults = extract(con, contract, files)
    _judge(con, contract, new, files, faults)
    first, last = new[0].partition_key, new[-1].partition_key
    span = first if first == last else f"{first} to {last}"
    message = f"ingest {contract.name} {span} ({len(new)} {'batch' if len(new) == 1 else 'batches'})"
    outcomes += lake.transaction(con, lambda c: _commit(c, contract, new, run_id), message)
    by_id = {f.file_id: f for f in files}
    for fault in faults:
        file = by_id[fault.file_id].inspected.file
        problems.append(FileProblem(file.path, fault.rule, fault.detail, fault.rows, file.partition_key))
    return outcomes, problems


def _latest(con: duckdb.DuckDBPyConnection, source: str, keys: list[str]) -> dict[str, BatchOutcome]:
    """The last attempt at each partition, refused or accepted."""
    rows = con.execute(
        "SELECT partition_key, arg_max((batch_id, status, files, rows_read, rows_accepted, rows_dead_lettered, "
        # A refusal that is not superseded always came after the accepted batch it left standing.
        "rows_duplicate), status = 'refused') FROM ops.ledger "
        "WHERE source = ? AND superseded_by IS NULL AND partition_key IN (SELECT unnest(?)) GROUP BY partition_key",
        [source, keys],
    ).fetchall()
    found = {}
    for key, (batch, status, files, read, accepted, dead, twins) in rows:
        found[key] = BatchOutcome(batch, key, status, files, read, accepted, dead, twins, unchanged=True)
    return found


def _touched(con: duckdb.DuckDBPyConnection, batches: list[_Batch]) -> list[_Batch]:
    """Batches whose files were written again with the same content: only their positions are to be noted."""
    noted = set(
        con.execute(
            "SELECT batch_id, file, size, mtime_ns FROM ops.positions WHERE batch_id IN (SELECT unnest(?))",
            [[b.batch_id for b in batches]],
        ).fetchall()
    )
    return [
        b for b in batches if any((b.batch_id, f.file.path, f.file.size, f.file.mtime_ns) not in noted for f in b.files)
    ]


def _vanished(con: duckdb.DuckDBPyConnection, contract: Contract, batches: list[_Batch]) -> list[FileProblem]:
    """Files whose accepted rows would go with their batch's replacement, for they are gone from the landing area.

    A batch is what lies in its partition now; but rows are not given up because somebody tidied a folder.
    """
    temp_table(
        con,
        "present_files",
        "partition_key VARCHAR, file VARCHAR",
        [(b.partition_key, f.file.path) for b in batches for f in b.files],
    )
    rows = con.execute(
        f"SELECT _file, count(*), _partition_key FROM bronze.{quoted(contract.name)} "
        "WHERE _partition_key IN (SELECT partition_key FROM present_files) "
        "AND (_partition_key, _file) NOT IN (SELECT (partition_key, file) FROM present_files) GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    detail = (
        "The file is gone from the landing area, and its {} accepted rows would go with it. Nothing of its partition "
        "was changed. Put the file back, or materialize the partition with force: true to give the rows up."
    )
    return [FileProblem(file, "file_vanished", detail.format(count), count, key) for file, count, key in rows]


def _known_problems(con: duckdb.DuckDBPyConnection, batch_ids: list[str]) -> list[FileProblem]:
    rows = con.execute(
        "SELECT file, reasons[1].rule, reasons[1].detail, rows, partition_key FROM ops.dead_letters "
        "WHERE line IS NULL AND reasons[1].rule <> 'batch_refused' AND batch_id IN (SELECT unnest(?)) ORDER BY file",
        [batch_ids],
    ).fetchall()
    return [FileProblem(*row) for row in rows]


def _judge(
    con: duckdb.DuckDBPyConnection,
    contract: Contract,
    batches: list[_Batch],
    files: list[SourceFile],
    faults: list[FileFault],
) -> None:
    """Type and judge every record of the temporary view `records`, and leave in it those with a reason to be told.

    Makes the temporary tables `judged` (a row per record: twin of an earlier one, rejected or good, typed values),
    `batch_books` (a row per batch: its balance and whether it is refused) and the lookups they need.
    """
    tokens = "".join(f", {name} VARCHAR" for name in contract.landing.tokens)
    temp_table(
        con,
        "batch_files",
        f"file_id INTEGER, batch_no INTEGER, path VARCHAR{tokens}",
        [(f.file_id, f.batch_no, f.inspected.file.path, *(v for _, v in f.inspected.file.tokens)) for f in files],
    )
    temp_table(
        con,
        "batches",
        "batch_no INTEGER, batch_id VARCHAR, partition_key VARCHAR, files BIGINT",
        [(b.number, b.batch_id, b.partition_key, len(b.files)) for b in batches],
    )
    temp_table(
        con,
        "file_faults",
        "file_id INTEGER, rule VARCHAR, column VARCHAR, detail VARCHAR, rows BIGINT",
        [(f.file_id, f.rule, f.column, f.detail, f.rows) for f in faults],
    )
    scope = "file_id" if contract.landing.duplicates == "file" else "batch_no"
    con.execute(
        # Hashes find the few candidates cheaply; the texts themselves decide.
        "CREATE OR REPLACE TEMP TABLE twins AS SELECT row_id FROM (SELECT row_id, "
        f"row_number() OVER (PARTITION BY {scope}, layout, raw_encoding, raw ORDER BY file_id, line) AS nth "
        f"FROM records WHERE ({scope}, hash(raw)) IN (SELECT ({scope}, hash(raw)) FROM records "
        f"GROUP BY {scope}, hash(raw) HAVING count(*) > 1)) WHERE nth > 1"
    )
    columns = typed_columns(contract)
    typed = ", ".join(f"{c.expression} AS {value(c.name)}" for c in columns)
    con.execute(
        "CREATE OR REPLACE TEMP TABLE judged AS SELECT row_id, file_id, batch_no, line, extra, "
        "row_id IN (SELECT row_id FROM twins) AS twin, "
        f"fault IS NOT NULL OR {broken(violations(contract))} AS rejected, "
        f"{', '.join(value(c.name) for c in columns)} FROM (SELECT *, {typed} FROM records)"
    )
    _judge_unique(con, contract)
    keep_lines(con, "SELECT row_id FROM judged WHERE rejected AND NOT twin")
    con.execute(
        "CREATE OR REPLACE TEMP TABLE batch_books AS WITH "
        "rows_of AS (SELECT batch_no, count(*) AS seen, count(*) FILTER (twin) AS twins, "
        "count(*) FILTER (NOT twin AND rejected) AS bad FROM judged GROUP BY batch_no), "
        "whole_of AS (SELECT f.batch_no, sum(x.rows) AS bad FROM file_faults AS x "
        "JOIN batch_files AS f USING (file_id) GROUP BY f.batch_no) "
        "SELECT b.*, coalesce(r.seen, 0) + coalesce(w.bad, 0) AS rows_read, coalesce(r.twins, 0) AS rows_duplicate, "
        "coalesce(r.bad, 0) + coalesce(w.bad, 0) AS rows_bad, "
        # In doubles: a share of exactly the threshold passes.
        "coalesce((coalesce(r.bad, 0) + coalesce(w.bad, 0)) / nullif(coalesce(r.seen, 0) + coalesce(w.bad, 0), 0), 0) "
        "> $limit AS refused "
        "FROM batches AS b LEFT JOIN rows_of AS r USING (batch_no) LEFT JOIN whole_of AS w USING (batch_no)",
        {"limit": contract.max_rejected_share},
    )


def _judge_unique(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Reject all but the first good row of each value, within a batch, of the columns declared unique."""
    con.execute('CREATE OR REPLACE TEMP TABLE repeated (row_id BIGINT, "column" VARCHAR)')
    for column in contract.columns:
        if not column.unique:
            continue
        name = value(column.name)
        con.execute(
            f"INSERT INTO repeated SELECT row_id, {literal(column.name)} FROM (SELECT row_id, "
            f"row_number() OVER (PARTITION BY batch_no, {name} ORDER BY file_id, line) AS nth FROM judged "
            f"WHERE NOT twin AND NOT rejected AND (batch_no, {name}) IN (SELECT (batch_no, {name}) FROM judged "
            f"WHERE NOT twin AND NOT rejected AND {name} IS NOT NULL GROUP BY ALL HAVING count(*) > 1)) WHERE nth > 1"
        )
        con.execute("UPDATE judged SET rejected = true WHERE row_id IN (SELECT row_id FROM repeated)")


def _commit(
    con: duckdb.DuckDBPyConnection, contract: Contract, batches: list[_Batch], run_id: str
) -> list[BatchOutcome]:
    """Write the judged batches: the body of the one transaction. Repeatable."""
    source = contract.name
    table = f"bronze.{quoted(source)}"
    now = datetime.now(UTC).replace(tzinfo=None)
    params = {"source": source, "now": now, "version": contract.version, "hash": contract.hash, "run": run_id}

    def run(sql: str, *names: str) -> None:
        con.execute(sql, {name: params[name] for name in names})

    run("UPDATE ops.turns SET n = n + 1 WHERE source = $source", "source")
    # Rows of a partition are nowhere unless it is in the ledger. Where it is not, nothing needs to be replaced: six
    # statements less, which took 0.16 s of the lake's catalog.
    before = con.execute(
        "SELECT 1 FROM ops.ledger WHERE source = ? AND partition_key IN (SELECT partition_key FROM batches) LIMIT 1",
        [source],
    ).fetchone()
    if before:
        # What these very batches wrote in an earlier, forced-again run.
        for ops_table in ("dead_letters", "ledger"):
            run(f"DELETE FROM ops.{ops_table} WHERE batch_id IN (SELECT batch_id FROM batches)")
        run(f"DELETE FROM {table} WHERE _partition_key IN (SELECT partition_key FROM batch_books WHERE NOT refused)")
    tokens = [f"f.{quoted(n)}" + ("::DATE" if n == "date" else "") for n in contract.landing.tokens]
    run(
        f"INSERT INTO {table} ({', '.join(quoted(n) for n, _ in bronze_columns(contract))}) "
        f"SELECT {', '.join(tokens)}, {', '.join('j.' + value(c.name) for c in typed_columns(contract))}, "
        "b.batch_id, b.partition_key, f.path, j.line, j.extra, $now FROM judged AS j "
        "JOIN batch_books AS b USING (batch_no) JOIN batch_files AS f USING (file_id) "
        "WHERE NOT j.twin AND NOT j.rejected AND NOT b.refused",
        "now",
    )
    _write_dead_letters(run, contract)
    if before:
        _supersede(run)
    run(
        "INSERT INTO ops.ledger SELECT batch_id, $source, partition_key, "
        "CASE WHEN refused THEN 'refused' ELSE 'accepted' END, files, rows_read, "
        "CASE WHEN refused THEN 0 ELSE rows_read - rows_bad - rows_duplicate END, "
        "CASE WHEN refused THEN rows_read - rows_duplicate ELSE rows_bad END, rows_duplicate, "
        "$version, $hash, $run, $now, NULL FROM batch_books",
        *params,
    )
    _note_positions(con, contract, batches, replace=before is not None)
    return _balanced(con, table, source)


def _supersede(run: Callable[..., None]) -> None:
    """An accepted batch takes the place of all before it; a refused one only of earlier refusals."""
    run(
        "UPDATE ops.dead_letters AS d SET status = 'superseded' FROM batch_books AS b, ops.ledger AS l "
        "WHERE d.source = $source AND d.partition_key = b.partition_key AND d.batch_id <> b.batch_id "
        "AND d.status = 'open' AND l.batch_id = d.batch_id AND (NOT b.refused OR l.status = 'refused')",
        "source",
    )
    run(
        "UPDATE ops.ledger AS l SET superseded_by = b.batch_id FROM batch_books AS b WHERE l.source = $source "
        "AND l.partition_key = b.partition_key AND l.superseded_by IS NULL AND (NOT b.refused OR l.status = 'refused')",
        "source",
    )


def _write_dead_letters(run: Callable[..., None], contract: Contract) -> None:
    """Rejected rows with all their reasons, files set aside as a whole, and the good rows of refused batches."""
    row_reasons = (
        "CASE WHEN r.fault IS NOT NULL THEN [{'rule': r.fault, 'column': NULL::VARCHAR, 'value': NULL::VARCHAR, "
        f"'detail': r.fault_detail}}] ELSE list_concat({reasons(violations(contract))}, coalesce(u.reasons, [])) END"
    )
    into = (
        "INSERT INTO ops.dead_letters (dead_letter_id, batch_id, source, partition_key, file, line, rows, raw, "
        "raw_encoding, reasons, error_class, contract_version, first_failed_at, status) "
    )
    run(
        into + "SELECT md5(concat_ws('|', b.batch_id, f.path, r.line)), b.batch_id, $source, b.partition_key, f.path, "
        f"r.line, 1, r.raw, r.raw_encoding, {row_reasons}, 'data', $version, $now, 'open' "
        "FROM records AS r JOIN judged AS j USING (row_id) JOIN batch_books AS b ON b.batch_no = r.batch_no "
        "JOIN batch_files AS f ON f.file_id = r.file_id LEFT JOIN (SELECT row_id, list({'rule': 'unique', "
        "'column': \"column\", 'value': NULL::VARCHAR, 'detail': 'an earlier row of the batch has this value'}) "
        "AS reasons FROM repeated GROUP BY row_id) AS u ON u.row_id = j.row_id WHERE NOT j.twin AND j.rejected",
        "source",
        "version",
        "now",
    )
    run(
        into + "SELECT md5(concat_ws('|', b.batch_id, f.path, x.rule)), b.batch_id, $source, b.partition_key, f.path, "
        "NULL, x.rows, NULL, NULL, [{'rule': x.rule, 'column': x.\"column\", 'value': NULL::VARCHAR, 'detail': "
        "x.detail}], 'file', $version, $now, 'open' "
        "FROM file_faults AS x JOIN batch_files AS f USING (file_id) JOIN batch_books AS b USING (batch_no)",
        "source",
        "version",
        "now",
    )
    run(
        into + "SELECT md5(concat_ws('|', b.batch_id, f.path, 'batch_refused')), b.batch_id, $source, b.partition_key, "
        "f.path, NULL, count(*), NULL, NULL, [{'rule': 'batch_refused', 'column': NULL::VARCHAR, 'value': "
        "NULL::VARCHAR, 'detail': format('{} of {} rows were rejected, more than the contract allows; these rows are "
        "good but were not accepted', any_value(b.rows_bad), any_value(b.rows_read))}], "
        "'batch', $version, $now, 'open' FROM judged AS j JOIN batch_files AS f USING (file_id) "
        "JOIN batch_books AS b ON b.batch_no = j.batch_no "
        "WHERE b.refused AND NOT j.twin AND NOT j.rejected GROUP BY ALL",
        "source",
        "version",
        "now",
    )


def _note_positions(
    con: duckdb.DuckDBPyConnection, contract: Contract, batches: list[_Batch], *, replace: bool = True
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


def _balanced(con: duckdb.DuckDBPyConnection, table: str, source: str) -> list[BatchOutcome]:
    """Hold the ledger rows just written against the rows just written.

    Raises:
        BooksDoNotBalanceError: they differ, or a ledger row breaks the conservation law.
    """
    rows = con.execute(
        "SELECT l.batch_id, l.partition_key, l.status, l.files, l.rows_read, l.rows_accepted, l.rows_dead_lettered, "
        "l.rows_duplicate, coalesce(a.rows, 0), coalesce(d.rows, 0) FROM ops.ledger AS l "
        "JOIN batches AS b USING (batch_id) "
        f"LEFT JOIN (SELECT _batch_id, count(*) AS rows FROM {table} WHERE _batch_id IN (SELECT batch_id FROM batches) "
        "GROUP BY ALL) AS a ON a._batch_id = l.batch_id "
        "LEFT JOIN (SELECT batch_id, sum(rows) AS rows FROM ops.dead_letters WHERE batch_id IN "
        "(SELECT batch_id FROM batches) GROUP BY ALL) AS d ON d.batch_id = l.batch_id ORDER BY l.partition_key"
    ).fetchall()
    outcomes = []
    for *booked, accepted, dead in rows:
        outcome = BatchOutcome(*booked)
        if not outcome.balanced or (outcome.rows_accepted, outcome.rows_dead_lettered) != (accepted, dead):
            raise BooksDoNotBalanceError(
                f"{source} {outcome.partition_key}: read {outcome.rows_read}, accepted {accepted}, dead-lettered "
                f"{dead}, duplicates {outcome.rows_duplicate} do not add up. Nothing was committed. "
                "Please report this defect with the files of the partition."
            )
        outcomes.append(outcome)
    return outcomes
