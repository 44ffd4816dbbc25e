"""Ingest: landing files in, and in one transaction bronze rows, dead letters, ledger and positions out.

Many batches go through the same statements at once and keep their own books. Belongs here: which files are read, which
batches are new, and the way from the one to the other. How files become records belongs to `sluice.records`, what a
contract's rules are to `sluice.rules`, judging and writing to `sluice.judging` and `sluice.booking`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import duckdb

from sluice.batches import Batch, BatchOutcome, FileProblem, IngestResult, batch_id
from sluice.booking import commit, note_positions
from sluice.bronze import create_bronze
from sluice.contracts import Contract
from sluice.drift import differing_columns, drift_of, refuse
from sluice.erasure.landing import delivered
from sluice.errors import MemoryLimitError
from sluice.gates import apply_gates, keep_what_stands
from sluice.judging import judge
from sluice.lake import Lake, aside
from sluice.lake_errors import explain
from sluice.landing import LandingFile, scan
from sluice.preflight import Inspected, inspect_all
from sluice.records import SourceFile, extract, keep_lines
from sluice.replay import reapply
from sluice.settings import Settings
from sluice.sql import quoted, temp_table

# Gzip shrinks the real order files to a sixth and JSON lines to a twelfth: an estimate only for the chunk's size.
_GZIP_RATIO = 10


def ingest(
    lake: Lake,
    contract: Contract,
    partitions: Iterable[str] | None = None,
    *,
    run_id: str = "",
    again: bool = False,
    force: bool = False,
) -> IngestResult:
    """Bring partitions of a source from the landing area into bronze.

    A batch that is already in the books (same files, same contract) is left as it is, so that running again changes
    nothing; otherwise it replaces what its partition held. A batch whose rejected share passes the contract's
    threshold is refused: nothing of it is accepted, what the partition held before stays.

    What the gates only tell of a batch is in `ops.warnings`.

    Args:
        lake: where to.
        contract: of the source.
        partitions: partition keys; all that have files when None.
        run_id: noted in the ledger.
        again: write batches again that are already in the books.
        force: likewise, and give up accepted rows whose files are gone from the landing area.

    Raises:
        LandingError: the landing folder is not there.
        BooksDoNotBalanceError: rows went astray, a defect; nothing of the transaction was committed.
        MemoryLimitError: partitions that do not fit into memory; all others were ingested.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    settings = lake.settings
    found = scan(contract, settings.landing_path, settings.start_date, settings.end_date)
    by_partition = found.by_partition()
    wanted = sorted(by_partition) if partitions is None else sorted(set(partitions))
    present = {key: by_partition[key] for key in wanted if key in by_partition}
    outcomes: list[BatchOutcome] = []
    problems: list[FileProblem] = []
    differing: set[str] = set()
    too_big: dict[str, MemoryLimitError] = {}
    with lake.connect() as con:
        lake.create(con)
        create_bronze(lake, con, contract)
        rewritten = delivered(con, contract.name)
        pending = list(_chunks(present, settings.chunk_bytes))
        while pending:
            chunk = pending.pop(0)
            try:
                with _scratch(lake) as temp:
                    batches = _batches(chunk, contract, settings, temp, rewritten)
                    told, trouble, columns = _ingest_chunk(lake, con, contract, batches, run_id, again, force)
            except MemoryLimitError as error:
                # A batch that is too much for the memory must not hold up those it happens to stand beside.
                if len(chunk) == 1:
                    too_big[next(iter(chunk))] = error
                else:
                    pending[:0] = [{key: files} for key, files in chunk.items()]
                continue
            outcomes += told
            problems += trouble
            differing |= columns
        drift = drift_of(con, contract.name, differing) if differing else []
    if too_big:
        first = next(iter(too_big.values()))
        raise MemoryLimitError(
            f"{contract.name} {', '.join(too_big)}: {first} The other partitions were ingested."
        ) from first
    return IngestResult(
        contract.name,
        tuple(sorted(outcomes, key=lambda b: b.partition_key)),
        tuple(problems),
        tuple(key for key in wanted if key not in present),
        tuple(drift),
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
    chunk: dict[str, list[LandingFile]],
    contract: Contract,
    settings: Settings,
    temp: Path,
    rewritten: Mapping[tuple[str, str], str],
) -> list[Batch]:
    files = [f for own in chunk.values() for f in own]
    inspected = inspect_all(
        files,
        settings.landing_path,
        temp,
        lambda f: contract.landing.csv.encoding if f.format == "csv" else "utf-8",
        settings.threads or os.cpu_count() or 1,
        settings.file_bytes,
    )
    by_key: dict[str, list[Inspected]] = {}
    for item in inspected:
        # What an erasure has rewritten is still what was delivered.
        as_delivered = replace(item, sha256=rewritten.get((item.file.path, item.sha256), item.sha256))
        by_key.setdefault(item.file.partition_key, []).append(as_delivered)
    return [
        Batch(number, batch_id(contract, key, own), key, tuple(own)) for number, (key, own) in enumerate(by_key.items())
    ]


def _ingest_chunk(
    lake: Lake,
    con: duckdb.DuckDBPyConnection,
    contract: Contract,
    batches: list[Batch],
    run_id: str,
    again: bool,
    force: bool,
) -> tuple[list[BatchOutcome], list[FileProblem], set[str]]:
    known = _latest(con, contract.name, [b.partition_key for b in batches])
    old = [
        b
        for b in batches
        if not (again or force) and b.partition_key in known and known[b.partition_key].batch_id == b.batch_id
    ]
    new = [b for b in batches if b not in old]
    outcomes = [known[b.partition_key] for b in old]
    problems: list[FileProblem] = []
    if old:
        moved = _touched(con, old)
        if moved:
            lake.transaction(con, lambda c: note_positions(c, contract, moved), f"positions of {contract.name}")
        problems += _known_problems(con, [b.batch_id for b in old])
    if not force and any(b.partition_key in known for b in new):
        vanished = _vanished(con, contract, new)
        problems += vanished
        new = [b for b in new if b.partition_key not in {p.partition_key for p in vanished}]
    if not new:
        return outcomes, problems, set()
    files = [
        SourceFile(number, batch.number, item)
        for number, (batch, item) in enumerate((b, i) for b in new for i in b.files)
    ]
    with aside(con):
        faults = extract(con, contract, files)
        judge(con, contract, new, [f.origin for f in files], faults)
    apply_gates(con, contract)
    if faults and not force:
        keep_what_stands(con, contract)
    faults += refuse(con, contract, faults, [f.file_id for f in files if f.inspected.file.format == "jsonl"])
    columns = differing_columns(con, contract)
    # Of the texts only those are wanted that become dead letters.
    keep_lines(con, "SELECT row_id FROM judged WHERE rejected AND NOT twin")
    first, last = new[0].partition_key, new[-1].partition_key
    span = first if first == last else f"{first} to {last}"
    message = f"ingest {contract.name} {span} ({len(new)} {'batch' if len(new) == 1 else 'batches'})"
    outcomes += lake.transaction(con, lambda c: reapply(c, contract, commit(c, contract, new, run_id)), message)
    by_id = {f.file_id: f for f in files}
    for fault in faults:
        file = by_id[fault.file_id].inspected.file
        problems.append(FileProblem(file.path, fault.rule, fault.detail, fault.rows, file.partition_key))
    return outcomes, problems, columns


def _latest(con: duckdb.DuckDBPyConnection, source: str, keys: list[str]) -> dict[str, BatchOutcome]:
    """The last attempt at each partition, refused or accepted."""
    rows = con.execute(
        "SELECT partition_key, arg_max((batch_id, status, files, rows_read, rows_accepted, rows_dead_lettered, "
        # A refusal that is not superseded always came after the accepted batch it left standing.
        "rows_duplicate, coalesce(reason, '')), status = 'refused') FROM ops.ledger "
        "WHERE source = ? AND superseded_by IS NULL AND partition_key IN (SELECT unnest(?)) GROUP BY partition_key",
        [source, keys],
    ).fetchall()
    found = {}
    for key, (batch, status, files, read, accepted, dead, twins, reason) in rows:
        found[key] = BatchOutcome(batch, key, status, files, read, accepted, dead, twins, reason, unchanged=True)
    return found


def _touched(con: duckdb.DuckDBPyConnection, batches: list[Batch]) -> list[Batch]:
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


def _vanished(con: duckdb.DuckDBPyConnection, contract: Contract, batches: list[Batch]) -> list[FileProblem]:
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
