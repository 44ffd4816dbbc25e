"""Audits: complete builds of the warehouse, at the snapshots they left, and how their gates went.

What is published by them belongs to `sluice.publication`; gates of batches, to `sluice.gates`; those of silver and gold
are dbt's tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from sluice.lake import Lake
from sluice.ops_tables import now_utc


@dataclass(frozen=True)
class Audit:
    """A complete build of the warehouse: at which snapshot it ended, and whether every gate passed."""

    snapshot_id: int
    run_id: str
    passed: bool
    checks_passed: int
    checks_failed: int
    failed: tuple[str, ...]
    warned: tuple[str, ...] = ()


def record_audit(
    lake: Lake, *, run_id: str, checks_passed: int, failed: list[str], warned: Sequence[str] = (), code: str = ""
) -> Audit:
    """Note that a complete build ended at the lake's present snapshot, and how its gates went.

    Call it while still holding the writer's place: the snapshot must be the one the build left.

    Args:
        lake: that was built.
        run_id: of the build.
        checks_passed: how many gates passed.
        failed: names of those that did not.
        warned: names of those that failed and only warn: they are told of, and hold nobody up.
        code: fingerprint of the SQL that built it, so that `is_built` can tell.
    """

    def work(con: duckdb.DuckDBPyConnection) -> Audit:
        audit = Audit(
            lake.current_snapshot(con), run_id, not failed, checks_passed, len(failed), tuple(failed), tuple(warned)
        )
        con.execute(
            "INSERT INTO ops.audits (snapshot_id, run_id, passed, checks_passed, checks_failed, failed, fingerprint, "
            "audited_at, warned) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                audit.snapshot_id,
                run_id,
                audit.passed,
                checks_passed,
                len(failed),
                failed,
                fingerprint(con, code),
                now_utc(),
                list(warned),
            ],
        )
        return audit

    return lake.write(work, f"audit: {'passed' if not failed else 'failed'}")


def is_built(lake: Lake, code: str) -> bool:
    """Whether the newest build passed, used this code, and read the very batches that are current now."""
    with lake.reading() as con:
        row = con.execute("SELECT passed, fingerprint FROM ops.audits ORDER BY snapshot_id DESC LIMIT 1").fetchone()
        return row == (True, fingerprint(con, code))


def latest_audit(lake: Lake) -> Audit | None:
    """The newest audit, passed or failed; None before the first."""
    with lake.reading() as con:
        return newest_audit(con, only_passed=False)


def newest_audit(con: duckdb.DuckDBPyConnection, *, only_passed: bool) -> Audit | None:
    """The newest audit, or the newest that passed, as a connection sees it; None before the first."""
    row = con.execute(
        "SELECT snapshot_id, run_id, passed, checks_passed, checks_failed, failed, coalesce(warned, []) "
        "FROM ops.audits "
        f"{'WHERE passed ' if only_passed else ''}ORDER BY snapshot_id DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    snapshot, run_id, passed, checks_passed, checks_failed, failed, warned = row
    return Audit(snapshot, run_id, passed, checks_passed, checks_failed, tuple(failed), tuple(warned))


def fingerprint(con: duckdb.DuckDBPyConnection, code: str, snapshot: int | None = None) -> str:
    """Identifies what a build is made of: its code, and the batches in the books, now or at a snapshot."""
    ledger = "ops.ledger" if snapshot is None else f"(SELECT * FROM ops.ledger AT (VERSION => {snapshot}))"
    row = con.execute(
        # A replay of dead letters brings rows into a batch: the batch alone does not say what is in bronze.
        # An erasure takes some away, or what they say.
        "SELECT md5(? || coalesce(string_agg(concat(batch_id, ':', rows_accepted, "
        "'-' || nullif(coalesce(rows_erased, 0) + coalesce(rows_emptied, 0), 0)), ',' ORDER BY batch_id), '')) "
        f"FROM {ledger} WHERE superseded_by IS NULL",
        [code],
    ).fetchone()
    assert row is not None, "an aggregate has a row"
    return str(row[0])
