"""What may stand in the place of a change event, and what a change event's own schema says of its values.

The messages a topic or a connector has besides changes of rows are told apart, each with what to do about it; values
are decoded by the schema an event is wrapped with. How a value is decoded belongs to `sluice.encodings`, taking a row's
state apart to `json_lines`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from sluice import encodings
from sluice.contracts import Column, Contract
from sluice.records.json_paths import steps
from sluice.sql import literal, temp_table

# Debezium's names, and those of Kafka Connect, for what a value means. Kind, and the format a contract calls it by.
_SEMANTICS = {
    "io.debezium.time.Date": ("days", "epoch_days"),
    "org.apache.kafka.connect.data.Date": ("days", "epoch_days"),
    "io.debezium.time.Timestamp": ("millis", "epoch_millis"),
    "org.apache.kafka.connect.data.Timestamp": ("millis", "epoch_millis"),
    "io.debezium.time.MicroTimestamp": ("micros", "epoch_micros"),
    "io.debezium.time.NanoTimestamp": ("nanos", "epoch_nanos"),
    "io.debezium.time.Time": ("time_millis", None),
    "org.apache.kafka.connect.data.Time": ("time_millis", None),
    "io.debezium.time.MicroTime": ("time_micros", None),
    "io.debezium.time.NanoTime": ("time_nanos", None),
    "io.debezium.time.IsoDate": ("iso_date", None),
    "org.apache.kafka.connect.data.Decimal": ("decimal", "decimal_base64"),
    "io.debezium.data.VariableScaleDecimal": ("variable", "decimal_base64"),
    "io.debezium.data.Bits": ("bits", None),
}
_COUNTS = ("days", "millis", "micros", "nanos", "time_millis", "time_micros", "time_nanos")
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")

# What stands for a large value that did not change and was not sent, in each of the types a column may have.
_PLACEHOLDER = "__debezium_unavailable_value"
_BYTES = base64.b64encode(_PLACEHOLDER.encode()).decode()
_UUID = str(uuid.UUID(bytes=hashlib.md5(_PLACEHOLDER.encode(), usedforsecurity=False).digest(), version=3))
_UNAVAILABLE = (
    _PLACEHOLDER,
    _BYTES,
    *(
        json.dumps(shape, separators=(",", ":"))
        for shape in ([_PLACEHOLDER], [_BYTES], [_UUID], list(_PLACEHOLDER.encode()), {_PLACEHOLDER: _PLACEHOLDER})
    ),
)
# A line that holds one of them holds one of these. A sign that begins with a rare character is found ten times faster.
_UNAVAILABLE_SIGNS = (_PLACEHOLDER, _BYTES, _UUID[8:], "[95,")
# And one that is wrapped, one of these: a name may be written in codes, too.
_WRAPPING_SIGNS = ('yload"', "\\u00")


@dataclass(frozen=True)
class Found:
    """What the lines at hand hold that few do: schemas by which values are decoded, markers of values not sent."""

    schemas: bool
    unavailable: bool

    @property
    def any(self) -> bool:
        """Whether there is either."""
        return self.schemas or self.unavailable


@dataclass(frozen=True)
class Fault:
    """Why a record cannot be taken: SQL of when, of the rule it breaks, and of what is said of it."""

    condition: str
    rule: str
    detail: str


def look(con: duckdb.DuckDBPyConnection, contract: Contract) -> Found:
    """Look through `lines` of `json_files` for what costs time to heed; make `envelope_schemas` where there are any.

    `envelope_schemas` has a row per distinct schema: its text, and for the state before and after a map from the name
    of a field to what its values are, of those fields that are not what they seem.
    """
    found = con.execute(
        f"SELECT coalesce(bool_or({_holds(_WRAPPING_SIGNS)}), false), "
        f"coalesce(bool_or({_holds(_UNAVAILABLE_SIGNS)}), false) "
        "FROM lines JOIN json_files USING (file_id) WHERE raw IS NOT NULL"
    ).fetchone()
    wraps, unavailable = found or (False, False)
    return Found(bool(wraps) and _read_schemas(con, contract), bool(unavailable))


def _holds(signs: Sequence[str]) -> str:
    return " OR ".join(f"contains(raw, {literal(sign)})" for sign in signs)


def _read_schemas(con: duckdb.DuckDBPyConnection, contract: Contract) -> bool:
    """Make `envelope_schemas`; False where no schema asks for anything."""
    names = {name: c for c in contract.columns if (name := _field(c)) is not None}
    temp_table(
        con,
        "semantics",
        "semantic VARCHAR, kind VARCHAR, format VARCHAR",
        [(semantic, kind, fmt) for semantic, (kind, fmt) in _SEMANTICS.items()],
    )
    temp_table(
        con,
        "envelope_columns",
        "name VARCHAR, type VARCHAR, format VARCHAR, encoded BOOLEAN, named BOOLEAN",
        [
            (n, c.type, c.format, encodings.encoding(c.format) is not None, c.subject is not None)
            for n, c in names.items()
        ],
    )
    schema = "json_extract(raw, '$.schema')::VARCHAR"
    counts, whole = (", ".join(map(literal, names)) for names in (_COUNTS, _WHOLE))
    con.execute(
        "CREATE OR REPLACE TEMP TABLE envelope_schemas AS WITH "
        f"found AS (SELECT DISTINCT {schema} AS schema FROM lines JOIN json_files USING (file_id) "
        f"WHERE CASE WHEN {_holds(_WRAPPING_SIGNS)} THEN json_valid(raw) ELSE false END), "
        "sides AS (SELECT schema, unnest(json_extract(schema, '$.fields[*]')) AS side FROM found "
        "WHERE schema IS NOT NULL), "
        "members AS (SELECT schema, side->>'field' AS side, unnest(json_extract(side, '$.fields[*]')) AS field "
        "FROM sides WHERE side->>'field' IN ('before', 'after')), "
        "named AS (SELECT schema, side, field->>'field' AS name, field->>'type' AS type, field->>'name' AS semantic, "
        "TRY_CAST(field->>'$.parameters.scale' AS INTEGER) AS scale FROM members), "
        "meant AS (SELECT n.schema, n.side, n.name, n.scale, coalesce(n.semantic, n.type) AS semantic, "
        "coalesce(s.kind, CASE WHEN n.type = 'bytes' THEN 'bytes' ELSE 'plain' END) AS kind, "
        "CASE WHEN s.kind = 'decimal' THEN s.format || ':' || n.scale ELSE s.format END AS means, "
        "c.type AS wanted, c.format, coalesce(c.encoded, false) AS encoded, coalesce(c.named, false) AS subject "
        "FROM named AS n LEFT JOIN semantics AS s USING (semantic) LEFT JOIN envelope_columns AS c USING (name) "
        "WHERE n.name IS NOT NULL), "
        "asked AS (SELECT *, CASE WHEN kind = 'plain' THEN 'plain' "
        # The contract says the same, and the cast to its type decodes it; or it says something else.
        "WHEN encoded THEN CASE WHEN means = format THEN 'plain' ELSE 'contrary' END "
        f"WHEN format IS NOT NULL AND kind IN ({counts}) THEN 'contrary' "
        # An erasure looks for a person's id in the files, and finds it as it is written there.
        "WHEN subject AND kind IN ('decimal', 'variable', 'bits', 'bytes') THEN 'subject' "
        f"WHEN kind IN ({counts}) AND wanted IN ({whole}) THEN 'plain' "
        f"WHEN kind = 'bits' AND wanted IN ({whole}) THEN 'bits' "
        "WHEN kind IN ('bits', 'bytes') THEN CASE WHEN coalesce(wanted, 'VARCHAR') = 'VARCHAR' THEN 'plain' "
        "ELSE 'contrary' END ELSE kind END AS asked FROM meant), "
        "fields AS (SELECT schema, side, name, CASE WHEN count(*) > 1 THEN 'contrary' ELSE any_value(asked) END "
        "AS kind, any_value(scale) AS scale, any_value(semantic) AS semantic, "
        "any_value(coalesce(wanted, 'VARCHAR') || coalesce(' written ' || format, '')) AS wanted "
        "FROM asked GROUP BY schema, side, name), "
        "states AS (SELECT schema, side, map_from_entries(list({'k': name, 'v': {'kind': kind, 'scale': scale, "
        "'semantic': semantic, 'wanted': wanted}}) FILTER (kind <> 'plain')) AS fields FROM fields "
        "GROUP BY schema, side) "
        "SELECT schema, any_value(fields) FILTER (side = 'before') AS fields_before, "
        "any_value(fields) FILTER (side = 'after') AS fields_after FROM states GROUP BY schema "
        "HAVING count(fields) > 0"
    )
    return con.execute("SELECT 1 FROM envelope_schemas LIMIT 1").fetchone() is not None


def _field(column: Column) -> str | None:
    """The field of a row's state that a column is, if it is not a part of one."""
    if not column.source_name.startswith("$"):
        return column.source_name
    found = steps(column.source_name)
    return found[0] if len(found) == 1 and isinstance(found[0], str) else None


def decoding(contract: Contract, found: Found, events: str, states: str) -> str:
    """CTEs that make `states` of `events`: every value of `doc` as its schema says.

    Args:
        contract: of the source.
        found: what the lines hold.
        events: name of a relation with raw, wrapped, meta and doc.
        states: name of the relation made: that with `doc` replaced, in `unsent` the names of the values that are
            markers, and in `undecoded` what is to be said of those that are not as their schema says.
    """
    unsent = _unsent(contract) if found.unavailable else "NULL::VARCHAR[]"
    if not found.schemas:
        return f"{states} AS (SELECT *, {unsent} AS unsent, NULL::VARCHAR[] AS undecoded FROM {events})"
    plan = (
        "CASE WHEN meta[1] = 'd' THEN coalesce(fields_before, fields_after) "
        "ELSE coalesce(fields_after, fields_before) END"
    )
    came, value = "f.e[2]", "(f.e[2]->>'$')"
    # A count is a number, bytes are a text: what is not as its schema says is not guessed at.
    counted, texted = f"json_type({came}) IN ('BIGINT', 'UBIGINT')", f"json_type({came}) = 'VARCHAR'"
    cases = [("days", counted, f"({encodings.date_of_days(value)})::VARCHAR")]
    for name, per_second in (("millis", 10**3), ("micros", 10**6), ("nanos", 10**9)):
        cases.append((name, counted, f"({encodings.instant(value, per_second)})::VARCHAR"))
        cases.append((f"time_{name}", counted, encodings.time_text(value, per_second)))
    numeric = f"json_type({came}) IN ('BIGINT', 'UBIGINT', 'DOUBLE')"
    # A converter may write decimals as numbers. One with more digits than a double keeps was rounded on the way.
    digits = f"length(ltrim(regexp_replace(regexp_replace({value}, '[.]0$', ''), '[^0-9]', '', 'g'), '0'))"
    cases += [
        ("decimal", texted, encodings.decimal_text(value, "f.p.scale")),
        ("decimal", f"{numeric} AND (regexp_full_match({value}, '-?[0-9]+') OR {digits} <= 15)", value),
        ("variable", f"json_type({came}) = 'OBJECT'", encodings.scaled_decimal_text(f"{came}::VARCHAR")),
        ("bits", texted, encodings.bits_text(value)),
        ("iso_date", texted, f"regexp_replace({value}, 'Z$', '')"),
    ]
    chosen = " ".join(f"WHEN f.p.kind = {literal(kind)} AND ({fits}) THEN {sql}" for kind, fits, sql in cases)
    pairs = "list_transform(list_zip(json_keys(doc), json_extract(doc, '$.*')), lambda e: {'e': e, 'p': plan[e[1]]})"
    member = (
        f"{{'k': f.e[1], 'p': f.p, 'null': json_type({came}) = 'NULL', 'v': CASE WHEN f.p IS NULL OR "
        f"json_type({came}) = 'NULL' THEN {came} ELSE to_json(CASE {chosen} END) END}}"
    )
    failed = "m.p IS NOT NULL AND NOT m.null AND coalesce(m.v::VARCHAR, 'null') = 'null'"
    meant = "m.p.semantic || coalesce(' of scale ' || m.p.scale, '') || ' by the schema of its event, '"
    said = (
        "m.k || CASE WHEN m.p.kind = 'subject' THEN ' names a person, and comes as ' || m.p.semantic || ': an erasure "
        "would not find it in the files; have the connector write it as text (decimal.handling.mode: string)' "
        f"WHEN m.p.kind = 'contrary' THEN ' is ' || {meant} || 'which the contract''s ' || m.p.wanted || "
        f"' contradicts: mend the contract' ELSE ' is ' || {meant} || 'and no value of that, or one that does not fit: "
        "mend the connector''s settings (docs/contracts.md)' END"
    )
    return (
        f"planned AS (SELECT t.*, {plan} AS plan, {unsent} AS unsent "
        f"FROM {events} AS t LEFT JOIN envelope_schemas AS s ON s.schema = "
        "CASE WHEN t.wrapped THEN json_extract(t.raw, '$.schema')::VARCHAR END), "
        "paired AS (SELECT *, CASE WHEN plan IS NOT NULL THEN CASE WHEN json_type(doc) = 'OBJECT' THEN CASE WHEN "
        f"list_unique(json_keys(doc)) = len(json_keys(doc)) THEN {pairs} END END END AS pairs FROM planned), "
        f"decoded AS (SELECT * EXCLUDE (pairs), list_transform(pairs, lambda f: {member}) AS members FROM paired), "
        f"{states} AS (SELECT * EXCLUDE (members) REPLACE (CASE WHEN members IS NULL THEN doc ELSE to_json("
        "map_from_entries(list_transform(members, lambda m: {'k': m.k, 'v': m.v}))) END AS doc), "
        f"list_transform(list_filter(members, lambda m: {failed}), lambda m: {said}) AS undecoded FROM decoded)"
    )


def _unsent(contract: Contract) -> str:
    """SQL of the names in `doc` whose values are markers, of the columns that are kept."""
    marks = ", ".join(map(literal, _UNAVAILABLE))
    kept = ""
    if contract.schema_evolution == "discard":
        names = ", ".join(literal(name) for c in contract.columns if (name := _field(c)) is not None)
        kept = f" AND e[1] IN ({names})" if names else " AND false"
    return (
        "CASE WHEN json_type(doc) = 'OBJECT' THEN list_transform(list_filter(list_zip(json_keys(doc), "
        f"json_extract(doc, '$.*')), lambda e: (e[2]->>'$') IN ({marks}){kept}), lambda e: e[1]) END"
    )


def faults(contract: Contract, found: Found) -> list[Fault]:
    """Messages with an operation that is none of a row, events that do not say when, values that are none."""
    feed = contract.change_feed
    assert feed is not None
    given = [
        Fault(
            "meta[1] = 'm'",
            literal("control_message"),
            literal("a message of pg_logical_emit_message, no row: deliver only the topics of the table"),
        ),
        # What a connector writes that does not know; as a time it would begin every history in 1970.
        Fault(
            "meta[3] = '0'",
            literal("envelope"),
            literal(
                f"{feed.valid_from} is 0: the connector did not know when (MySQL's snapshots). Set "
                "changeFeed.validFrom to ts_ms, or take a new snapshot with a newer connector"
            ),
        ),
    ]
    if not feed.truncates:
        given.append(
            Fault(
                "meta[1] = 't'",
                literal("envelope"),
                literal(
                    "a truncate: every row of the table is gone, and no event says which. Set changeFeed.truncates, "
                    "take a new snapshot, or leave truncates out (skipped.operations: t) and delete row by row"
                ),
            )
        )
    if found.any:
        unsent = literal(
            ": large and unchanged, so it was not sent. Set REPLICA IDENTITY FULL on the table or have the connector "
            "reselect it (ReselectColumnsPostProcessor), and correct this row"
        )
        given += [
            Fault("len(unsent) > 0", literal("unsent_value"), f"array_to_string(unsent, ', ') || {unsent}"),
            Fault("len(undecoded) > 0", literal("type"), "array_to_string(undecoded, '; ')"),
        ]
    return given


def tombstone_or(other: Fault) -> Fault:
    """The fault of a line that is no JSON object, which in a change feed may be a tombstone."""
    null = "CASE WHEN trim(raw) = 'null' THEN {} ELSE {} END"
    return Fault(
        other.condition,
        null.format(literal("tombstone"), other.rule),
        null.format(literal(_TOMBSTONE), other.detail),
    )


def no_change(events: str, named: str) -> tuple[str, Fault]:
    """A document without an operation; no fault, but for the rules to tell, where it may be an event all the same.

    Args:
        events: name of a relation with event and meta.
        named: name of the relation made.

    Returns:
        A CTE that makes `named` of `events`: with `no_change`, the number of what each of those documents is; and the
        fault, by that number. Each is taken apart three times, whatever is asked of it: a function of JSON holds what
        it has taken apart, some 30 MB of a line of 1.8 MB, until it is called again.
    """
    names = ("ddl", "tableChanges", "id", "specversion", "__op", "__deleted", "before", "after", "source")
    kinds = [
        ("coalesce(has[1], 'NULL') = 'NULL'", "tombstone", _TOMBSTONE),
        (
            "has[1] <> 'OBJECT'",
            "envelope",
            "the payload is no object: set the converter to JSON (org.apache.kafka.connect.json.JsonConverter)",
        ),
        (
            "{ddl} OR {tableChanges}",
            "control_message",
            "a schema change (DDL), no row: deliver only the topics of the table (include.schema.changes: false), and "
            "mend the contract if the table is another now",
        ),
        (
            "json_extract_string(event, '$.status') IN ('BEGIN', 'END') AND {id}",
            "control_message",
            "the begin or end of a transaction, no row: deliver only the topics of the table "
            "(provide.transaction.metadata: false)",
        ),
        (
            "json_keys(event) = ['ts_ms']",
            "control_message",
            "a heartbeat, no row: deliver only the topics of the table, not __debezium-heartbeat",
        ),
        (
            "{specversion}",
            "envelope",
            "a CloudEvent: set the converter to org.apache.kafka.connect.json.JsonConverter",
        ),
        (
            "{__op} OR {__deleted}",
            "envelope",
            "a row without its envelope: take the transform ExtractNewRecordState out of the connector",
        ),
        (
            "NOT {before} AND NOT {after} AND NOT {source}",
            "envelope",
            "no change event: it has no op, before, after or source. Deliver the values of the messages and not their "
            "keys, and take transforms that flatten them (ExtractNewRecordState) out of the connector",
        ),
    ]
    paths = ", ".join(literal(path) for path in ("$", *(f"$.{name}" for name in names)))
    has = {name: f"(has[{number}] IS NOT NULL)" for number, name in enumerate(names, 2)}
    chosen = " ".join(f"WHEN {when.format_map(has)} THEN {number}" for number, (when, _, _) in enumerate(kinds, 1))
    relation = (
        f"{named} AS (SELECT * EXCLUDE (has), CASE WHEN meta[1] IS NULL THEN CASE {chosen} END END AS no_change FROM "
        f"(SELECT *, CASE WHEN meta[1] IS NULL THEN json_type(event, [{paths}]) END AS has FROM {events}))"
    )
    rules, details = (f"[{', '.join(map(literal, texts))}][no_change]" for texts in list(zip(*kinds, strict=True))[1:])
    return relation, Fault("meta[1] IS NULL", rules, details)


_TOMBSTONE = (
    "a tombstone, which only tells Kafka to compact: the delete before it says all. Set tombstones.on.delete: false, "
    "or discard it"
)
