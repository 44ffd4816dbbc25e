"""Messages of an event log as records: their values are the lines, their offsets the lines' numbers.

A value is one JSON document. Taking it apart belongs to `json_lines`; which messages are read, to `sluice.streams`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from sluice.contracts import Contract
from sluice.landing import STREAM_PREFIX
from sluice.preflight import LONGEST_LINE_BYTES
from sluice.records.json_lines import json_records
from sluice.records.shape import OPERATION, Origin, TextColumn, text_columns
from sluice.sql import quoted

if TYPE_CHECKING:
    # Only who reads a topic pays for its import.
    import pyarrow as pa

# Kafka's default for the largest message is 1 MiB; a value is bounded as a landing file's line is.
_LONGEST_BYTES = LONGEST_LINE_BYTES


# A header of a message that an erasure has emptied: it is no tombstone, and nobody need look at it again.
ERASED_HEADER = "sluice.erased"

# Stands for the person in the reasons of what was theirs; the rule of a dead letter that is discarded from the first.
ERASED_FAULT = "erased"


@dataclass(frozen=True)
class MessageFile:
    """Messages of one partition of a topic, as `sluice.eventlog.RECORDS`, and where they come from."""

    origin: Origin
    records: pa.Table


def message_path(topic: str, partition: int, era: int) -> str:
    """What stands in place of a file's path: `stream:<topic>/<partition>`, and behind `~` the era where there are some.

    An offset that was read in two eras is two places.
    """
    return f"{STREAM_PREFIX}{topic}/{partition}" + (f"~{era}" if era else "")


def message_partition(path: str, start: int) -> str:
    """What stands in the books as the partition of a batch of messages: where it begins.

    In digits, so that texts sort as offsets do.
    """
    return f"{path}@{start:020d}"


def make_messages(con: duckdb.DuckDBPyConnection, letters: str | None = None) -> None:
    """Make the temporary table `messages`: key, time and headers of records that are messages, by file and line.

    Args:
        con: the connection that will own it.
        letters: SQL of those of dead letters; None: for now there are none.
    """
    con.execute(
        "CREATE OR REPLACE TEMP TABLE messages (file_id INTEGER, line BIGINT, message_key VARCHAR, "
        "message_ts TIMESTAMP, headers VARCHAR)"
    )
    if letters:
        con.execute(f"INSERT INTO messages {letters}")


def load_messages(con: duckdb.DuckDBPyConnection, contract: Contract, files: Sequence[MessageFile]) -> str:
    """Make the view `lines` of the messages' values, and `messages`; what is no text goes to `taken_records`.

    A tombstone (a message without a value) after the delete it belongs to says nothing new: it becomes a twin of it
    (`tombstones` has those). Any other has the fault `tombstone`.

    Returns:
        The query of the records.
    """
    parts = []
    try:
        for number, file in enumerate(files):
            con.register(f"incoming_{number}", file.records)
            origin = file.origin
            parts.append(f"SELECT {origin.file_id} AS file_id, {origin.batch_no} AS batch_no, * FROM incoming_{number}")
        # No text of the lake holds a NUL: what reads it after us may end there. Of what is text the bytes are not kept
        # beside it: copying them took a twentieth of all the work on a message.
        con.execute(
            "CREATE OR REPLACE TEMP TABLE incoming AS SELECT * REPLACE (CASE WHEN raw IS NULL THEN value END AS value) "
            "FROM (SELECT * EXCLUDE (decoded), CASE WHEN NOT contains(decoded, chr(0)) THEN decoded END AS raw FROM ("
            'SELECT file_id, batch_no, "offset" AS line, timestamp_ms, key, value, headers, '
            "CASE WHEN octet_length(value) <= $longest THEN TRY(decode(value)) END AS decoded "
            f"FROM ({' UNION ALL '.join(parts)})))",
            {"longest": _LONGEST_BYTES},
        )
    finally:
        for number in range(len(parts)):
            con.unregister(f"incoming_{number}")
    make_messages(
        con,
        f"SELECT file_id, line, {_text('key')}, TRY(epoch_ms(timestamp_ms)), "
        "CASE WHEN len(headers) > 0 THEN to_json(list_transform(headers, lambda h: "
        f"{{'name': h.name, 'value': {_text('h.value')}}}))::VARCHAR END FROM incoming",
    )
    con.execute(
        "CREATE OR REPLACE TEMP VIEW lines AS SELECT rowid AS row_id, file_id, batch_no, line, raw FROM incoming "
        "WHERE raw IS NOT NULL"
    )
    _take_what_is_no_text(con)
    return json_records(con, contract, text_columns(contract), [f.origin.file_id for f in files])


def _text(column: str) -> str:
    """SQL of bytes as text, where they are none, or hold a NUL, as base64."""
    decoded = f"TRY(decode({column}))"
    return f"CASE WHEN NOT contains({decoded}, chr(0)) THEN {decoded} ELSE 'base64:' || base64({column}) END"


def _take_what_is_no_text(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(
        "INSERT INTO taken_records BY NAME SELECT file_id, batch_no, line, base64(value[:$longest]) AS raw, "
        "CASE WHEN value IS NOT NULL THEN 'base64' END AS raw_encoding, "
        "CASE WHEN octet_length(value) > $longest THEN sha256(value) END AS digest, "
        "CASE WHEN value IS NULL AND list_contains(list_transform(headers, lambda h: h.name), $header) THEN $erased "
        "WHEN value IS NULL THEN 'tombstone' WHEN octet_length(value) > $longest THEN 'too_long' "
        "ELSE 'encoding' END AS fault, CASE WHEN value IS NULL THEN 'the message has no value, and no delete comes "
        "right before it that it could belong to' WHEN octet_length(value) > $longest THEN 'the message has ' || "
        "octet_length(value) || ' bytes; at most ' || $longest || ' are read' ELSE 'the value is not UTF-8, or holds "
        "a NUL' END AS fault_detail FROM incoming WHERE raw IS NULL",
        {"longest": _LONGEST_BYTES, "header": ERASED_HEADER, "erased": ERASED_FAULT},
    )


def twin_tombstones(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Mark the tombstones that say again what the delete before them said as twins; after `sluice.judging.judge`.

    Debezium writes one after each delete, for a compacted topic to forget the key; so it is found by its place. The
    delete may have been read by an earlier batch, and may have been set aside: it says the same in either case.
    """
    if contract.change_feed is None:
        return
    operation = TextColumn(OPERATION, "op").sql
    con.execute(
        "CREATE OR REPLACE TEMP TABLE tombstones AS SELECT t.row_id FROM (SELECT r.row_id, r.file_id, r.line, f.path "
        "FROM records AS r JOIN batch_files AS f USING (file_id) WHERE r.fault = 'tombstone') AS t WHERE EXISTS ("
        f"SELECT 1 FROM records AS d WHERE d.file_id = t.file_id AND d.line = t.line - 1 "
        f"AND (d.{operation} = 'd' OR d.fault = '{ERASED_FAULT}')) "
        f"OR EXISTS (SELECT 1 FROM bronze.{quoted(contract.name)} AS b "
        f"WHERE b._file = t.path AND b._line = t.line - 1 AND b.{quoted(OPERATION)} = 'd') "
        "OR EXISTS (SELECT 1 FROM ops.dead_letters AS l WHERE l.source = $source AND l.file = t.path "
        f"AND l.line = t.line - 1 AND l.status <> 'superseded' AND (l.reasons[1].\"rule\" = '{ERASED_FAULT}' "
        "OR CASE WHEN json_valid(l.raw) THEN coalesce(json_extract_string(l.raw, '$.payload.op'), "
        "json_extract_string(l.raw, '$.op')) END = 'd'))",
        {"source": contract.name},
    )
    con.execute("UPDATE judged SET twin = true WHERE row_id IN (SELECT row_id FROM tombstones)")
