"""JSON lines as records: documents, and the envelopes of a change feed.

Reading the lines belongs to `lines`, what a field's text is worth to `sluice.rules`.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from sluice.contracts import Contract
from sluice.records import envelopes
from sluice.records.envelopes import Fault
from sluice.records.json_paths import json_path, path_of, steps
from sluice.records.shape import JSON_HAS_NUL, JSON_LAYOUT, MOST_NEW_COLUMNS, NUL_DETAIL, TextColumn, feed_columns
from sluice.sql import literal, temp_table


def json_records(
    con: duckdb.DuckDBPyConnection, contract: Contract, columns: list[TextColumn], file_ids: Sequence[int]
) -> str:
    """The query of the records of JSON lines; empty without any."""
    if not file_ids:
        return ""
    temp_table(con, "json_files", "file_id INTEGER", [(file_id,) for file_id in file_ids])
    envelope = len(feed_columns(contract))
    own = columns[envelope:]
    paths = [json_path(c.source_name) for c in own]
    known = [c.source_name for c in own]
    # CASE and not AND: DuckDB may evaluate both sides of an AND, and json_type raises on what is no JSON.
    valid = "CASE WHEN json_valid(raw) THEN json_type(raw) = 'OBJECT' ELSE false END"
    # A key that stands twice says two things, and readers differ in which they believe.
    twice = "coalesce(list_unique(keys) < len(keys), false)"
    if not any(name.startswith("$") for name in known):
        # Comparing costs as much as all the rest: only where there are more keys than values.
        twice = f"CASE WHEN len(others) > 0 OR len(keys) > list_count(fields) THEN {twice} ELSE false END"
    malformed = literal("malformed")
    faults = [Fault("NOT valid", malformed, literal("not a JSON object"))]
    faults.append(Fault("twice", malformed, literal("a key stands twice in an object")))
    # Before those of an envelope, so that it is told of a delete, too.
    faults.append(Fault(JSON_HAS_NUL, literal("encoding"), literal(NUL_DETAIL)))
    # Likewise one by which a column's path goes on within. The keys of all these objects at once cost what one's do.
    within = list(dict.fromkeys(pair for path in known for pair in _keys_within(path)))
    inner = list(dict.fromkeys(path for path, _ in within))
    for path, key in within:
        of_it = f"objects[{inner.index(path) + 2}]"
        again_in_it = f"list_contains({of_it}[list_position({of_it}, {literal(key)}) + 1:], {literal(key)})"
        twice += f" OR coalesce({again_in_it}, false)"
    if contract.change_feed:
        names = [c.source_name for c in columns[:envelope]]
        meta = [json_path(name, nested=True) for name in names]
        parents = {json_path(name.rpartition(".")[0], nested=True) for name in names if "." in name[1:]}
        objects = ["raw", "event", *(f"json_extract(event, {literal(path)})" for path in sorted(parents))]
        again = " OR ".join(f"list_unique(json_keys({o})) < len(json_keys({o}))" for o in objects)
        found = envelopes.look(con, contract)
        # A converter may wrap the event as {schema, payload}. A delete's image is what was there before it.
        wrapped = "CASE WHEN valid THEN json_exists(raw, '$.payload') AND json_exists(raw, '$.schema') END"
        state = "CASE WHEN meta[1] = 'd' THEN before ELSE after END"
        named, unnamed = envelopes.no_change("imaged", "named")
        events = (
            f"wraps AS (SELECT *, {wrapped} AS wrapped FROM docs), "
            "events AS (SELECT *, CASE WHEN wrapped THEN json_extract(raw, '$.payload') WHEN valid THEN raw::JSON END "
            "AS event FROM wraps), "
            f"imaged AS (SELECT *, json_extract_string(event, {_sql_list(meta)}) AS meta, "
            f"CASE WHEN valid THEN coalesce({again}, false) END AS again, "
            "nullif(json_extract(event, '$.before'), 'null') AS before, "
            f"nullif(json_extract(event, '$.after'), 'null') AS after FROM events), {named}, "
            f"{'came' if found.any else 'taken'} AS (SELECT *, {state} AS doc FROM named)"
        )
        if found.any:
            events += f", {envelopes.decoding(contract, found, 'came', 'taken')}"
        twice = f"again OR {twice}"
        faults[0] = envelopes.tombstone_or(faults[0])
        faults += [*_state_faults(), *envelopes.faults(contract, found)]
        values = "".join(f", meta[{i + 1}] AS {c.sql}" for i, c in enumerate(columns[:envelope]))
    else:
        events = "taken AS (SELECT *, CASE WHEN valid THEN raw::JSON END AS doc FROM docs)"
        values = ""
    taken_in = f"len(others) > 0 AND NOT twice AND NOT ({JSON_HAS_NUL})"
    if contract.schema_evolution == "evolve":
        # One record of a thousand keys must not refuse the batch, as a table of a thousand new columns does.
        detail = f"len(others) || ' keys the contract does not know; at most {MOST_NEW_COLUMNS} are taken in'"
        faults.append(Fault(f"len(others) > {MOST_NEW_COLUMNS}", literal("too_many_columns"), detail))
        taken_in += f" AND len(others) <= {MOST_NEW_COLUMNS}"
    if contract.change_feed:
        # Few have no operation: only of those is it asked what they are.
        faults.append(unnamed)
    fault = f"CASE {' '.join(f'WHEN {f.condition} THEN {f.rule}' for f in faults)} END"
    fault_detail = f"CASE {' '.join(f'WHEN {f.condition} THEN {f.detail}' for f in faults)} END"
    values += "".join(f", fields[{i + 1}] AS {c.sql}" for i, c in enumerate(own))
    return (
        f"(WITH docs AS (SELECT l.*, {valid} AS valid FROM lines AS l JOIN json_files USING (file_id) "
        f"WHERE raw IS NOT NULL), {events}, "
        f"split AS (SELECT *, json_extract_string(doc, {_sql_list(paths)}) AS fields, "
        f"CASE WHEN json_type(doc) = 'OBJECT' THEN json_keys(doc, {_sql_list(['$', *inner])}) END AS objects, "
        "objects[1] AS keys, "
        f"list_filter(keys, lambda k: k NOT IN ({', '.join(map(literal, known))})) AS others FROM taken), "
        f"compared AS (SELECT *, ({twice}) AS twice FROM split) "
        f"SELECT row_id, file_id, batch_no, line, raw, 'utf-8' AS raw_encoding, {JSON_LAYOUT} AS layout, "
        f"{fault} AS fault, {fault_detail} AS fault_detail, "
        # All values at once: to extract each key's from the document copied the document for each.
        f"CASE WHEN {taken_in} THEN to_json(map_from_entries(list_filter(list_zip(keys, "
        f"json_extract(doc, '$.*')), lambda e: e[1] NOT IN ({', '.join(map(literal, known))}))))::VARCHAR END AS extra"
        f"{values} FROM compared)"
    )


def _state_faults() -> list[Fault]:
    """Changes without the state of the row that their operation needs."""
    texts = "json_type(doc) = 'VARCHAR' AND starts_with(json_extract_string(doc, '$'), '{')"
    mongo = literal(
        "the row is a text, as MongoDB's documents come, which is not read: deliver them as JSON lines of their own, "
        "without an envelope (ExtractNewDocumentState)"
    )
    return [
        Fault("meta[1] = 'd' AND after IS NOT NULL", literal("envelope"), literal("a delete with a state after it")),
        Fault(
            "meta[1] IN ('c', 'u', 'r', 'd') AND coalesce(json_type(doc), 'NULL') <> 'OBJECT'",
            literal("envelope"),
            "CASE WHEN meta[1] = 'd' AND doc IS NULL THEN "
            f"'a delete without the row before it (is REPLICA IDENTITY set?)' WHEN {texts} THEN {mongo} "
            "ELSE 'no row state where the operation needs one' END",
        ),
    ]


def _keys_within(path: str) -> list[tuple[str, str]]:
    """The keys of a JSON path that stand in objects within a document, each with the path of its object.

    A name that is no path has none.
    """
    found = steps(path) if path.startswith("$") else []
    return [(path_of(found[:n]), step) for n, step in enumerate(found) if n and isinstance(step, str)]


def _sql_list(texts: list[str]) -> str:
    return "[" + ", ".join(map(literal, texts)) + "]"
