"""Envelopes: what comes in the place of a change of a row, and values as the event's own schema says they are."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest

from sluice.contracts import Contract
from sluice.dead_letters import Choice
from sluice.replay import replay
from tests.conftest import Bench, Extracted, MakeBench, MakeContract

Read = Callable[..., Extracted]

FEED = {"envelope": "debezium", "sequence": "source.lsn", "validFrom": "source.ts_ms"}
MARKER = "__debezium_unavailable_value"
DECIMAL = "org.apache.kafka.connect.data.Decimal"


def change(op: str, row: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    states = {"before": row, "after": None} if op == "d" else {"before": None, "after": row}
    return {**states, "source": {"lsn": 5, "ts_ms": 1000}, "op": op, "ts_ms": 2000, **more}


def field(name: str, kind: str, semantic: str | None = None, **parameters: str) -> dict[str, Any]:
    made: dict[str, Any] = {"field": name, "type": kind, "optional": True}
    if semantic is not None:
        made["name"] = semantic
    return made | ({"parameters": parameters} if parameters else {})


def wrapped(event: Any, *fields: dict[str, Any], sides: tuple[str, ...] = ("before", "after")) -> dict[str, Any]:
    """An event with a schema that says of its states what `fields` are."""
    states = [{"type": "struct", "field": side, "fields": list(fields)} for side in sides]
    return {"schema": {"type": "struct", "fields": [*states, field("op", "string")]}, "payload": event}


def written(fmt: str) -> dict[str, Any]:
    """A column's property that says its format; of a number the standard has no other place for it."""
    return {"customProperties": [{"property": "format", "value": fmt}]}


def lines(*events: Any) -> bytes:
    return "".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in events).encode()


def packed(number: int) -> str:
    size = max(1, (number if number >= 0 else ~number).bit_length() // 8 + 1)
    return base64.b64encode(number.to_bytes(size, "big", signed=True)).decode()


@pytest.fixture(scope="module")
def feed(make_contract: MakeContract) -> Contract:
    return make_contract({"id": {"primaryKey": True}, "name": {}}, formats=["jsonl"], feed=FEED)


# What is no change of a row


@pytest.mark.parametrize(
    ("line", "rule", "said"),
    [
        ("null", "tombstone", "a tombstone"),
        ({"schema": None, "payload": None}, "tombstone", "tombstones.on.delete: false"),
        ({"ts_ms": 1767225600000}, "control_message", "a heartbeat"),
        (wrapped({"ts_ms": 1767225600000}), "control_message", "a heartbeat"),
        (
            {"status": "BEGIN", "id": "571:53195829", "event_count": None, "ts_ms": 1767225600000},
            "control_message",
            "provide.transaction.metadata: false",
        ),
        (
            {
                "source": {"server": "shop"},
                "ts_ms": 1,
                "databaseName": "shop",
                "ddl": "DROP TABLE t",
                "tableChanges": [],
            },
            "control_message",
            "a schema change (DDL)",
        ),
        (
            {"op": "m", "ts_ms": 1, "source": {"lsn": 5, "ts_ms": 1000}, "message": {"prefix": "p", "content": "eA=="}},
            "control_message",
            "pg_logical_emit_message",
        ),
        (change("t", None), "envelope", "a truncate"),
        ({"id": "1"}, "envelope", "the values of the messages and not their keys"),
        (wrapped({"id": "1"}), "envelope", "the values of the messages and not their keys"),
        ({"id": "1", "name": "x", "__op": "u"}, "envelope", "take the transform ExtractNewRecordState out"),
        ({"id": "1", "name": "x", "__deleted": "false"}, "envelope", "a row without its envelope"),
        ({"specversion": "1.0", "id": "x", "type": "y", "data": {}}, "envelope", "a CloudEvent"),
        ({"schema": {}, "payload": "AAAA"}, "envelope", "the payload is no object"),
        (change("u", None) | {"after": '{"_id": {"$oid": "1"}}'}, "envelope", "as MongoDB's documents come"),
        (change("c", {"id": "1"}) | {"source": {"lsn": 5, "ts_ms": 0}}, "envelope", "source.ts_ms is 0"),
        ("nul", "malformed", "not a JSON object"),
    ],
)
def test_what_is_no_change_of_a_row_says_what_it_is_and_what_to_do(
    line: Any, rule: str, said: str, feed: Contract, read_files: Read
) -> None:
    found = read_files(feed, {"f.jsonl": lines(change("c", {"id": "1"}), line)})
    (good, bad) = found.rows
    assert (good["fault"], bad["fault"]) == (None, rule)
    assert said in bad["fault_detail"]


def test_a_long_one_nested_deep_is_a_dead_letter_within_the_memory_allowed(
    make_bench: MakeBench, make_contract: MakeContract
) -> None:
    # Of such a line each function of JSON holds some 30 MB: with all its questions asked one by one it took 1.1 GB.
    bench = make_bench("small", memory_limit="700MB")
    contract = make_contract({"id": {"primaryKey": True}}, formats=["jsonl"], feed=FEED)
    deep = '{"a":' * 300_000 + "1" + "}" * 300_000
    bench.put("things/date=2026-01-01/f.jsonl", lines(change("c", {"id": "1"}), deep))
    bench.ingest(contract)
    ((line, raw, reasons),) = bench.sql("SELECT line, raw, reasons FROM ops.dead_letters")
    assert (line, raw) == (2, deep)
    assert [reason["rule"] for reason in reasons] == ["envelope"]
    assert bench.sql("SELECT id FROM bronze.things") == [("1",)]


def test_an_event_may_have_any_of_the_fields_they_have(feed: Contract, read_files: Read) -> None:
    row = {"id": "1", "ddl": "x", "status": "BEGIN", "__op": "c", "specversion": "1.0", "ts_ms": 0}
    found = read_files(feed, {"f.jsonl": lines(change("c", row, ddl="x", status="BEGIN", id="1"))})
    assert [(r["fault"], r["t_id"]) for r in found.rows] == [(None, "1")]


@pytest.mark.parametrize(
    ("path", "source", "taken"),
    [
        ("source.lsn", {"connector": "postgresql", "lsn": 34078720}, 34078720),
        ("source.scn", {"connector": "oracle", "scn": "2868546"}, 2868546),
        ("source.change_lsn", {"connector": "sqlserver", "change_lsn": "00000027:00000758:0003"}, None),
        ("source.commit_lsn", {"connector": "sqlserver", "commit_lsn": "00000027:00000758:0005"}, None),
        ("source.file", {"connector": "mysql", "file": "mysql-bin.000003", "pos": 154}, None),
    ],
)
def test_what_a_connector_orders_its_changes_by_is_read_or_named(
    path: str, source: dict[str, Any], taken: int | None, bench: Bench, make_contract: MakeContract
) -> None:
    contract = make_contract({"id": {"primaryKey": True}}, formats=["jsonl"], feed=FEED | {"sequence": path})
    event = change("c", {"id": "1"}) | {"source": source | {"ts_ms": 1000}}
    bench.put("things/date=2026-01-01/f.jsonl", lines(event))
    bench.ingest(contract)
    assert bench.sql("SELECT _lsn FROM bronze.things") == ([] if taken is None else [(taken,)])
    if taken is None:
        ((reasons,),) = bench.sql("SELECT reasons FROM ops.dead_letters")
        assert [(r["rule"], r["column"]) for r in reasons] == [("type", "_lsn")]
        assert reasons[0]["detail"].startswith(f"{path} must be a whole number; text, as of SQL Server's LSNs")


# Values that were not sent


@pytest.mark.parametrize(
    "marker",
    [
        MARKER,
        base64.b64encode(MARKER.encode()).decode(),
        [MARKER],
        {MARKER: MARKER},
        list(MARKER.encode()),
        [str(uuid.UUID(bytes=hashlib.md5(MARKER.encode()).digest(), version=3))],
    ],
)
@pytest.mark.parametrize("column", ["name", "more"])
def test_a_marker_is_never_taken_for_a_value(marker: Any, column: str, feed: Contract, read_files: Read) -> None:
    good, bad = change("u", {"id": "1", "name": f"no {MARKER}"}), change("u", {"id": "2", column: marker})
    fields = [field("id", "string"), field("at", "int32", "io.debezium.time.Date")]
    for events in ((good, bad), (wrapped(good, *fields), wrapped(bad, *fields))):
        found = read_files(feed, {"f.jsonl": lines(*events)})
        assert [r["fault"] for r in found.rows] == [None, "unsent_value"]
        assert found.rows[1]["fault_detail"].startswith(
            f"{column}: large and unchanged, so it was not sent. Set REPLICA"
        )


def test_a_marker_in_a_column_that_is_dropped_does_no_harm(make_contract: MakeContract, read_files: Read) -> None:
    contract = make_contract({"id": {"primaryKey": True}}, formats=["jsonl"], feed=FEED, evolution="discard")
    found = read_files(contract, {"f.jsonl": lines(change("u", {"id": "1", "more": MARKER}))})
    assert [r["fault"] for r in found.rows] == [None]


# Values as their schema says


FIELDS = [
    field("id", "bytes", DECIMAL, scale="0"),
    field("price", "bytes", DECIMAL, scale="2"),
    field("any_scale", "struct", "io.debezium.data.VariableScaleDecimal"),
    field("day", "int32", "io.debezium.time.Date"),
    field("at", "int64", "io.debezium.time.MicroTimestamp"),
    field("fine", "int64", "io.debezium.time.NanoTimestamp"),
    field("zoned", "string", "io.debezium.time.ZonedTimestamp"),
    field("iso", "string", "io.debezium.time.IsoDate"),
    field("clock", "int64", "io.debezium.time.MicroTime"),
    field("flags", "bytes", "io.debezium.data.Bits", length="16"),
    field("blob", "bytes"),
    field("days", "int32", "io.debezium.time.Date"),
    field("text", "string"),
    field("new_price", "bytes", DECIMAL, scale="1"),
    field("new_day", "int32", "org.apache.kafka.connect.data.Date"),
]
ROW = {
    "id": packed(7),
    "price": packed(-12345),
    "any_scale": {"scale": 3, "value": packed(1500)},
    "day": 20454,
    "at": 1767225600123456,
    "fine": 1767225600123456000,
    "zoned": "2026-01-01T02:00:00.5+02:00",
    "iso": "2026-01-01Z",
    "clock": 36803000000,
    "flags": "AQI=",
    "blob": "eA==",
    "days": 20454,
    "text": "20454",
    "new_price": packed(15),
    "new_day": 20454,
}
COLUMNS: dict[str, dict[str, Any]] = {
    "id": {"physicalType": "BIGINT", "primaryKey": True},
    "price": {"physicalType": "DECIMAL(10,2)"},
    "any_scale": {"physicalType": "DECIMAL(10,3)"},
    "day": {"physicalType": "DATE"},
    "at": {"physicalType": "TIMESTAMP"},
    "fine": {"physicalType": "TIMESTAMP"},
    "zoned": {"physicalType": "TIMESTAMP"},
    "iso": {"physicalType": "DATE"},
    "clock": {},
    "flags": {"physicalType": "INTEGER"},
    "blob": {},
    "days": {"physicalType": "INTEGER"},
    "text": {},
}
VALUES = (
    7,
    Decimal("-123.45"),
    Decimal("1.500"),
    date(2026, 1, 1),
    datetime(2026, 1, 1, 0, 0, 0, 123456),
    datetime(2026, 1, 1, 0, 0, 0, 123456),
    datetime(2026, 1, 1, 0, 0, 0, 500000),
    date(2026, 1, 1),
    "10:13:23",
    513,
    "eA==",
    # The contract asks for a number.
    20454,
    "20454",
)


def test_values_are_what_their_schema_says(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract(COLUMNS, formats=["jsonl"], feed=FEED)
    events = [change("c", ROW), change("u", {"id": packed(8), **dict.fromkeys(list(ROW)[1:])}), change("d", ROW)]
    bench.put("things/date=2026-01-01/f.jsonl", lines(*(wrapped(e, *FIELDS) for e in events)))
    assert bench.ingest(contract).total("rows_accepted") == 3, bench.sql("SELECT reasons FROM ops.dead_letters")
    names = ", ".join(f'"{n}"' for n in [*COLUMNS, "new_price", "new_day"])
    assert bench.sql(f"SELECT _op, {names} FROM bronze.things ORDER BY _line") == [
        ("c", *VALUES, "1.5", "2026-01-01"),
        ("u", 8, *[None] * 14),
        ("d", *VALUES, "1.5", "2026-01-01"),
    ]


def test_without_a_schema_the_contract_says_it(bench: Bench, make_contract: MakeContract) -> None:
    formats = {
        "price": "decimal_base64:2",
        "any_scale": "decimal_base64",
        "day": "epoch_days",
        "at": "epoch_micros",
        "fine": "epoch_nanos",
    }
    columns = {
        "id": {"primaryKey": True},
        **{n: COLUMNS[n] | written(fmt) for n, fmt in formats.items()},
    }
    contract = make_contract(columns, formats=["jsonl"], feed=FEED)
    row = {n: ROW[n] for n in formats} | {"id": "1"}
    bad = [row | {"price": "12.5"}, row | {"day": "2026-01-01"}, row | {"fine": 1767225600123456789}]
    bench.put("things/date=2026-01-01/plain.jsonl", lines(change("c", row), *(change("c", r) for r in bad)))
    # With a schema that says the same all is the same.
    fields = [field("id", "string"), *(f for f in FIELDS if f["field"] in formats)]
    bench.put("things/date=2026-01-02/wrapped.jsonl", lines(wrapped(change("c", row), *fields)))
    assert bench.ingest(contract).total("rows_accepted") == 2
    assert bench.sql('SELECT price, any_scale, day, "at", fine FROM bronze.things') == [VALUES[1:6]] * 2
    letters = bench.sql("SELECT line, reasons[1].rule, reasons[1].column, reasons[1].detail FROM ops.dead_letters")
    assert sorted(letters) == [
        (2, "type", "price", "must be DECIMAL(10,2) written decimal_base64:2"),
        (3, "type", "day", "must be DATE written epoch_days"),
        (4, "type", "fine", "must be TIMESTAMP written epoch_nanos"),
    ]


def test_without_either_they_are_refused_and_it_is_said_what_they_may_be(
    bench: Bench, make_contract: MakeContract
) -> None:
    columns = {n: COLUMNS[n] for n in ("price", "any_scale", "day", "at")}
    contract = make_contract({"id": {"primaryKey": True}, **columns}, formats=["jsonl"], feed=FEED)
    bench.put("things/date=2026-01-01/f.jsonl", lines(change("c", {n: ROW[n] for n in columns} | {"id": "1"})))
    bench.ingest(contract)
    ((reasons,),) = bench.sql("SELECT reasons FROM ops.dead_letters")
    said = {r["column"]: r["detail"] for r in reasons}
    assert said.keys() == columns.keys()
    assert "set format to decimal_base64:<scale>" in said["price"]
    assert "set format to decimal_base64:<scale>" in said["any_scale"]
    assert said["day"].endswith("; if it is a count since 1970, set format to epoch_days")
    assert "epoch_millis or epoch_micros" in said["at"]


@pytest.mark.parametrize(
    ("column", "value", "kind", "said"),
    [
        # Not as its schema says, or nothing the text of a type can say.
        ({"physicalType": "DATE"}, "2026-01-01", field("v", "int32", "io.debezium.time.Date"), "no value of that"),
        ({}, 1.5, field("v", "int32", "io.debezium.time.Date"), "no value of that"),
        ({}, 2932897, field("v", "int32", "io.debezium.time.Date"), "does not fit"),
        ({}, "AMg", field("v", "bytes", DECIMAL, scale="2"), "v is " + DECIMAL + " of scale 2 by the schema"),
        ({}, "AMg=", field("v", "bytes", DECIMAL), "no value of that"),
        # More digits than a double keeps: rounded before it came.
        ({}, 1234567890123456.7, field("v", "bytes", DECIMAL, scale="2"), "does not fit"),
        ({}, packed(2**130), field("v", "bytes", DECIMAL, scale="0"), "does not fit"),
        ({}, 1500, field("v", "int64", "io.debezium.time.NanoTimestamp"), "does not fit"),
        # Another thing than the contract says.
        ({"physicalType": "INTEGER"}, "1234", field("v", "bytes"), "which the contract's INTEGER contradicts"),
        (
            {"physicalType": "TIMESTAMP"} | written("epoch_millis"),
            1767225600123456,
            field("v", "int64", "io.debezium.time.MicroTimestamp"),
            "which the contract's TIMESTAMP written epoch_millis contradicts",
        ),
        (
            {"physicalType": "DECIMAL(10,2)"} | written("decimal_base64:2"),
            packed(1),
            field("v", "bytes", DECIMAL, scale="3"),
            "of scale 3 by the schema of its event, which the contract's DECIMAL(10,2) written decimal_base64:2",
        ),
        (
            {"physicalType": "DATE", "logicalTypeOptions": {"format": "%d.%m.%Y"}},
            20454,
            field("v", "int32", "io.debezium.time.Date"),
            "contradicts: mend the contract",
        ),
    ],
)
def test_a_value_that_is_not_as_its_schema_says_is_set_aside(
    column: dict[str, Any],
    value: Any,
    kind: dict[str, Any],
    said: str,
    make_contract: MakeContract,
    read_files: Read,
) -> None:
    contract = make_contract({"id": {"primaryKey": True}, "v": column}, formats=["jsonl"], feed=FEED)
    events = (wrapped(change("c", {"id": "1", "v": v}), field("id", "string"), kind) for v in (value, None))
    found = read_files(contract, {"f.jsonl": lines(*events)})
    assert [r["fault"] for r in found.rows] == ["type", None]
    assert said in found.rows[0]["fault_detail"]


def test_decimals_may_come_as_numbers(make_contract: MakeContract, read_files: Read) -> None:
    contract = make_contract({"id": {"primaryKey": True}, "v": {}}, formats=["jsonl"], feed=FEED)
    kind = field("v", "bytes", DECIMAL, scale="2")
    numbers = ["12.5", "-7", "123456789012345678901234567890"]
    events = [json.dumps(wrapped(change("c", {"id": "1", "v": 0.5}), kind)).replace("0.5", n) for n in numbers]
    found = read_files(contract, {"f.jsonl": lines(*events)})
    assert [(r["fault"], r["t_v"]) for r in found.rows] == [(None, n) for n in numbers]


def test_an_id_that_an_erasure_would_not_find_is_set_aside(make_contract: MakeContract, read_files: Read) -> None:
    who = {"customProperties": [{"property": "subject", "value": "customer"}], "primaryKey": True}
    contract = make_contract({"id": who}, formats=["jsonl"], feed=FEED)
    kinds = (field("id", "bytes", DECIMAL, scale="0"), field("id", "string"))
    events = [wrapped(change("c", {"id": packed(7)}), kind) for kind in kinds]
    found = read_files(contract, {"f.jsonl": lines(*events)})
    assert [r["fault"] for r in found.rows] == ["type", None]
    assert "decimal.handling.mode: string" in found.rows[0]["fault_detail"]


def test_each_event_is_read_by_its_own_schema(make_contract: MakeContract, read_files: Read) -> None:
    contract = make_contract({"id": {"primaryKey": True}, "v": {"physicalName": "$.v"}}, formats=["jsonl"], feed=FEED)

    def of(value: Any, *fields: dict[str, Any], **options: Any) -> dict[str, Any]:
        return wrapped(change("c", {"id": "1", "v": value}), *fields, **options)

    date_of = field("v", "int32", "io.debezium.time.Date")
    events = [
        of(1, date_of),
        of(1, field("v", "int32")),
        of(1000, field("v", "int64", "io.debezium.time.Timestamp")),
        of(1),
        change("c", {"id": "1", "v": 1}),
        {"schema": None, "payload": change("c", {"id": "1", "v": 1})},
        {"schema": {"fields": "x"}, "payload": change("c", {"id": "1", "v": 1})},
        # A schema may describe one state alone, and a name be written in codes.
        wrapped(change("d", {"id": "1", "v": 1}), date_of, sides=("after",)),
        json.dumps(of(1, date_of)).replace('"payload"', '"\\u0070ayload"'),
    ]
    found = read_files(contract, {"f.jsonl": lines(*events)})
    assert [(r["fault"], r["t_v"]) for r in found.rows] == [
        (None, "1970-01-02"),
        (None, "1"),
        (None, "1970-01-01 00:00:01"),
        (None, "1"),
        (None, "1"),
        (None, "1"),
        (None, "1"),
        (None, "1970-01-02"),
        (None, "1970-01-02"),
    ]


def test_a_key_that_stands_twice_is_malformed_with_a_schema_as_well(feed: Contract, read_files: Read) -> None:
    kinds = (field("id", "string"), field("name", "int32", "io.debezium.time.Date"))
    text = json.dumps(wrapped(change("c", {"id": "1", "name": 5}), *kinds))
    found = read_files(feed, {"f.jsonl": lines(text, text.replace('"name": 5', '"name": 5, "name": 6'))})
    assert [r["fault"] for r in found.rows] == [None, "malformed"]
    contrary = json.dumps(wrapped(change("c", {"id": "1", "name": 5}), *kinds, field("name", "string")))
    found = read_files(feed, {"f.jsonl": lines(contrary)})
    assert [r["fault"] for r in found.rows] == ["type"]


def test_a_dead_letter_is_read_by_its_schema_again(bench: Bench, make_contract: MakeContract) -> None:
    def of(scale: str, **options: Any) -> Contract:
        column = {"physicalType": "DECIMAL(10,2)"} | written(f"decimal_base64:{scale}")
        return make_contract({"id": {"primaryKey": True}, "price": column}, formats=["jsonl"], feed=FEED, **options)

    fields = (field("id", "string"), field("price", "bytes", DECIMAL, scale="2"))
    bench.put("things/date=2026-01-01/f.jsonl", lines(wrapped(change("c", {"id": "1", "price": packed(250)}), *fields)))
    assert bench.ingest(of("3")).total("rows_dead_lettered") == 1
    replay(bench.lake, of("2"), Choice())
    assert bench.sql("SELECT price FROM bronze.things") == [(Decimal("2.50"),)]
