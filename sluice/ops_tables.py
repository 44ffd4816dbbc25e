"""The tables of `ops`: books, dead letters and notes, each column with its type.

The lake makes them, and adds columns that a lake of an earlier version lacks (`sluice.lake`). What is written into one
belongs to the module of its purpose; into `builds` and `rewrites`, to dbt's macros.
"""

from __future__ import annotations

from datetime import UTC, datetime

OPS_TABLES: dict[str, dict[str, str]] = {
    # One row per batch: what was read and what became of it. The books: read = accepted + dead-lettered + duplicate.
    # `reason` says why a batch was refused.
    "ledger": {
        "batch_id": "VARCHAR",
        "source": "VARCHAR",
        "partition_key": "VARCHAR",
        "status": "VARCHAR",
        "files": "BIGINT",
        "rows_read": "BIGINT",
        "rows_accepted": "BIGINT",
        "rows_dead_lettered": "BIGINT",
        "rows_duplicate": "BIGINT",
        "contract_version": "VARCHAR",
        "contract_hash": "VARCHAR",
        "run_id": "VARCHAR",
        "ingested_at": "TIMESTAMP",
        "superseded_by": "VARCHAR",
        "reason": "VARCHAR",
        # Of the rows accepted: those that are in bronze no longer because they were about a person who was erased, and
        # those that are there without the person.
        "rows_erased": "BIGINT",
        "rows_emptied": "BIGINT",
    },
    # One row per batch and gate that only tells: the rule, how many rows, where the first of them is.
    "warnings": {
        "batch_id": "VARCHAR",
        "source": "VARCHAR",
        "partition_key": "VARCHAR",
        "rule": "VARCHAR",
        "column": "VARCHAR",
        "rows": "BIGINT",
        "detail": "VARCHAR",
        "sample": "VARCHAR",
    },
    # One row per rejected row, or per rejected file with the number of rows it stands for. `header` is the first line
    # of a CSV file, by which `raw` is taken apart; `checksum` the SHA-256 of `raw` or of the file; `same_failures` how
    # often in a row it failed for the same reasons; `corrected` what was supplied in its place; `decided_…` who
    # corrected, replayed or discarded it, when and why.
    "dead_letters": {
        "dead_letter_id": "VARCHAR",
        "batch_id": "VARCHAR",
        "source": "VARCHAR",
        "partition_key": "VARCHAR",
        "file": "VARCHAR",
        "line": "BIGINT",
        "rows": "BIGINT",
        "raw": "VARCHAR",
        "raw_encoding": "VARCHAR",
        "reasons": 'STRUCT("rule" VARCHAR, "column" VARCHAR, "value" VARCHAR, detail VARCHAR)[]',
        "error_class": "VARCHAR",
        "contract_version": "VARCHAR",
        "first_failed_at": "TIMESTAMP",
        "status": "VARCHAR",
        "header": "VARCHAR",
        "checksum": "VARCHAR",
        "last_failed_at": "TIMESTAMP",
        "attempts": "INTEGER",
        "same_failures": "INTEGER",
        "corrected": "VARCHAR",
        "decided_by": "VARCHAR",
        "decided_why": "VARCHAR",
        "decided_at": "TIMESTAMP",
        # Of a message: its key, the time the event log has of it, its headers as a JSON list.
        "message_key": "VARCHAR",
        "message_ts": "TIMESTAMP",
        "headers": "VARCHAR",
    },
    # One row per source and column by which its files ever differed from its contract: `kind` is unexpected or missing,
    # `action` what was done (evolved, discarded, refused, null) or, later, declared, `bronze_column` where its values
    # are. File and batch are the first ones; `decided_at` is since when the action is what it is.
    "schema_drift": {
        "source": "VARCHAR",
        "column": "VARCHAR",
        "kind": "VARCHAR",
        "action": "VARCHAR",
        "bronze_column": "VARCHAR",
        "detail": "VARCHAR",
        "file": "VARCHAR",
        "batch_id": "VARCHAR",
        "contract_version": "VARCHAR",
        "first_seen_at": "TIMESTAMP",
        "decided_at": "TIMESTAMP",
    },
    # One row per landing file as last read: how the sensor knows what is new.
    "positions": {
        "source": "VARCHAR",
        "partition_key": "VARCHAR",
        "batch_id": "VARCHAR",
        "file": "VARCHAR",
        "size": "BIGINT",
        "mtime_ns": "BIGINT",
        "sha256": "VARCHAR",
        "rows": "BIGINT",
    },
    # One row per batch of messages: the offsets [start_offset, stop_offset) of a partition of a topic. The greatest
    # stop of an era is where the next batch begins; an era ends when somebody moves the position. `watermark` is what
    # the batch's records were held against, `newest_event` the latest time among them and all before.
    "stream_positions": {
        "source": "VARCHAR",
        "topic": "VARCHAR",
        "topic_id": "VARCHAR",
        "partition": "INTEGER",
        "era": "INTEGER",
        "start_offset": "BIGINT",
        "stop_offset": "BIGINT",
        "batch_id": "VARCHAR",
        "records": "BIGINT",
        "newest_message": "TIMESTAMP",
        "watermark": "TIMESTAMP",
        "newest_event": "TIMESTAMP",
        "late": "BIGINT",
    },
    # One row per source and file that is pulled (sluice.pull_marks), from the last one that has been read: up to which
    # cursor, with the hashes of the rows the next pull may give again; `written` is false while the file is on its way,
    # and the mark still old. `pulled` is what was pulled by which cursor.
    "pulls": {
        "source": "VARCHAR",
        "number": "BIGINT",
        "mark": "VARCHAR",
        "recent": "VARCHAR[]",
        "file": "VARCHAR",
        "written": "BOOLEAN",
        "rows": "BIGINT",
        "pulled_at": "TIMESTAMP",
        "pulled": "VARCHAR",
    },
    # One row per person who was erased, or is being: a keyed hash of the id, never the id (sluice.erasure.register).
    # `snapshot_id` is the lake before it began.
    "erasures": {
        "subject": "VARCHAR",
        "subject_hash": "VARCHAR",
        "key_id": "VARCHAR",
        "state": "VARCHAR",
        "snapshot_id": "BIGINT",
        "rows_removed": "BIGINT",
        "rows_emptied": "BIGINT",
        "letters_emptied": "BIGINT",
        "requested_by": "VARCHAR",
        "requested_at": "TIMESTAMP",
        "completed_at": "TIMESTAMP",
    },
    # One row per landing file an erasure has rewritten: its content counts as what was delivered, so that nothing is
    # loaded again for it.
    "rewritten_files": {"source": "VARCHAR", "file": "VARCHAR", "sha256": "VARCHAR", "delivered_sha256": "VARCHAR"},
    # One row per source, written by every commit of its batches: two writers of one source then conflict, and the
    # second starts over, where DuckLake alone would take both their inserts.
    "turns": {"source": "VARCHAR", "n": "BIGINT"},
    # One row per build of a model: the snapshot it read, what it followed. Made here, for a first build has several
    # models at once, each in a transaction of its own, and PostgreSQL lets only one of them make a table. In a project
    # without Sluice the macro makes both (dbt_project/macros/scd/builds.sql); a test holds the columns to each other.
    "builds": {
        "relation": "VARCHAR",
        "snapshot_id": "BIGINT",
        "fingerprint": "VARCHAR",
        "feeds": "MAP(VARCHAR, VARCHAR)",
        "invocation_id": "VARCHAR",
    },
    # One row per slice of a model that a build rewrote, and why.
    "rewrites": {
        "relation": "VARCHAR",
        "invocation_id": "VARCHAR",
        "snapshot_id": "BIGINT",
        "slice": "VARCHAR",
        "reason": "VARCHAR",
        "rows_removed": "BIGINT",
        "rows_added": "BIGINT",
    },
    # One row per complete build of the warehouse: did every gate pass, and at which snapshot.
    "audits": {
        "snapshot_id": "BIGINT",
        "run_id": "VARCHAR",
        "passed": "BOOLEAN",
        "checks_passed": "BIGINT",
        "checks_failed": "BIGINT",
        "failed": "VARCHAR[]",
        "fingerprint": "VARCHAR",
        "audited_at": "TIMESTAMP",
        "warned": "VARCHAR[]",
    },
    # One row per publication; the newest is what readers see. While it is pinned, no build moves them.
    "publications": {
        "publication_id": "BIGINT",
        "snapshot_id": "BIGINT",
        "run_id": "VARCHAR",
        "reason": "VARCHAR",
        "published_at": "TIMESTAMP",
        "pinned": "BOOLEAN",
        "decided_by": "VARCHAR",
    },
}


def now_utc() -> datetime:
    """This moment as these tables have moments: of UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)
