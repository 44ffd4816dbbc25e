"""Files that lie in the landing area but belong to no partition: told, and kept in the books as dead letters.

Files that do belong somewhere are ingested by `sluice.ingest`, which this leaves alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

import duckdb

from sluice.contracts import Contract
from sluice.lake import Lake
from sluice.landing import Unroutable, scan, strays
from sluice.ops_tables import now_utc
from sluice.sql import temp_table

# Where the ledger books them: no partition is called so.
PARTITION_KEY = "(unroutable)"

# The source they are booked under when they lie in no contract's folder.
NOBODY = "(none)"

_ADVICE = ". Move or rename it, or mend the setting or the contract that leaves it out."


@dataclass(frozen=True)
class Inventory:
    """What lies in one source's part of the landing area."""

    source: str
    files: int
    bytes: int
    partitions: int
    unroutable: tuple[Unroutable, ...]


def take_inventory(lake: Lake, contracts: Iterable[Contract], *, run_id: str = "") -> list[Inventory]:
    """List every source's files and note in the books those that belong to no partition.

    A file stands in the books as one row, for nobody has read it. One that has been moved or mended since is marked as
    superseded.

    Raises:
        LandingError: the landing folder is not there.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    settings = lake.settings
    found = []
    listed = list(contracts)
    lake.create()
    nobodys = strays(listed, settings.landing_path)
    found.append(Inventory(NOBODY, 0, 0, 0, nobodys))
    _note(lake, NOBODY, "", "", nobodys, run_id)
    for contract in listed:
        seen = scan(contract, settings.landing_path, settings.start_date, settings.end_date)
        found.append(
            Inventory(
                contract.name,
                len(seen.files),
                sum(f.size for f in seen.files),
                len(seen.by_partition()),
                seen.unroutable,
            )
        )
        _note(lake, contract.name, contract.version, contract.hash, seen.unroutable, run_id)
    return found


def is_noted(lake: Lake, source: str, code: str, files: tuple[Unroutable, ...]) -> bool:
    """Whether the books already have just these files as unroutable.

    Args:
        lake: whose books.
        source: the contract's name, or `NOBODY`.
        code: the contract's hash, empty for `NOBODY`.
        files: unroutable now.
    """
    with lake.reading() as con:
        return _is_noted(con, source, _batch_id(source, code, files), bool(files))


def _is_noted(con: duckdb.DuckDBPyConnection, source: str, batch_id: str, any_files: bool) -> bool:
    rows = con.execute(
        "SELECT batch_id FROM ops.ledger WHERE source = ? AND partition_key = ? AND superseded_by IS NULL",
        [source, PARTITION_KEY],
    ).fetchall()
    return rows == [(batch_id,)] or (not rows and not any_files)


def _batch_id(source: str, code: str, files: tuple[Unroutable, ...]) -> str:
    content = json.dumps([source, code, [(f.path, f.size, f.mtime_ns, f.reason) for f in files]])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _note(lake: Lake, source: str, version: str, code: str, files: tuple[Unroutable, ...], run_id: str) -> None:
    batch_id = _batch_id(source, code, files)
    with lake.connect() as con:
        if _is_noted(con, source, batch_id, bool(files)):
            return
        temp_table(con, "unroutable", "file VARCHAR, reason VARCHAR", [(f.path, f.reason) for f in files])
        lake.transaction(
            con,
            lambda c: _write(c, source, version, code, batch_id, len(files), run_id),
            f"inventory of {source}: {len(files)} unroutable files",
        )


def _write(
    con: duckdb.DuckDBPyConnection, source: str, version: str, code: str, batch_id: str, files: int, run_id: str
) -> None:
    now = now_utc()
    where = {"source": source, "key": PARTITION_KEY, "batch": batch_id}
    for table in ("dead_letters", "ledger"):
        con.execute(f"DELETE FROM ops.{table} WHERE batch_id = ?", [batch_id])
    con.execute(
        "UPDATE ops.dead_letters SET status = 'superseded' "
        "WHERE source = $source AND partition_key = $key AND batch_id <> $batch AND status = 'open'",
        where,
    )
    con.execute(
        "UPDATE ops.ledger SET superseded_by = $batch "
        "WHERE source = $source AND partition_key = $key AND superseded_by IS NULL",
        where,
    )
    con.execute(
        "INSERT INTO ops.dead_letters (dead_letter_id, batch_id, source, partition_key, file, rows, reasons, "
        "error_class, contract_version, first_failed_at, last_failed_at, attempts, same_failures, status) "
        "SELECT md5(concat_ws('|', $batch, file)), $batch, $source, $key, file, 1, "
        "[{'rule': 'unroutable', 'column': NULL::VARCHAR, 'value': file, 'detail': reason || $advice}], "
        "'file', $version, $now, $now, 1, 1, 'open' FROM unroutable",
        {**where, "version": version, "now": now, "advice": _ADVICE},
    )
    con.execute(
        "INSERT INTO ops.ledger (batch_id, source, partition_key, status, files, rows_read, rows_accepted, "
        "rows_dead_lettered, rows_duplicate, contract_version, contract_hash, run_id, ingested_at, reason) "
        "VALUES ($batch, $source, $key, 'refused', $n, $n, 0, $n, 0, $version, $hash, $run, $now, "
        "'no partition is theirs')",
        {**where, "n": files, "version": version, "hash": code, "run": run_id, "now": now},
    )
