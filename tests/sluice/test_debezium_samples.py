"""Change events that others have captured, through the real ingest: every one is read, or set aside with a reason.

What a value is worth is said by a reader of its own, in Python, of each file; nothing of the files is in this project.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sluice.contracts import Contract
from sluice.settings import PROJECT
from tests.conftest import Bench, MakeContract

SAMPLES = PROJECT.parent / "shared" / "data" / "debezium_samples"
FILES = sorted(SAMPLES.rglob("*.jsonl"))

pytestmark = pytest.mark.skipif(not FILES, reason=f"the captured Debezium events are not at {SAMPLES}")

POSTGRES = {"envelope": "debezium", "sequence": "source.lsn", "validFrom": "source.ts_ms"}
# The one whole number of a MySQL event that does not begin anew with each binlog file.
MYSQL = {"envelope": "debezium", "sequence": "ts_ms", "validFrom": "ts_ms"}

DECIMAL = "org.apache.kafka.connect.data.Decimal"
EPOCH = datetime(1970, 1, 1)

# Lines that are set aside, by file and line; all others are read.
SET_ASIDE = {
    ("flink_debezium-postgres-data-replica-identity.jsonl", 16): (
        "envelope",
        "a delete without the row before it (is REPLICA IDENTITY set?)",
    ),
    ("table__schema__alltype__debezium-data-1.jsonl", 1): (
        "type",
        f"_fixed is {DECIMAL} of scale 3 by the schema of its event, and no value of that, or one that does not fit",
    ),
}
# Fields of that line: decimals of more than 30 digits that were rounded to doubles before they came.
ROUNDED = ("_big_decimal", "_fixed", "_fixed_unsigned", "_fixed_unsigned_zerofill")

# A number of fields whose name says what the reader below must find, so that it does not find too little.
LEAST_SEMANTIC = {
    "table__schema__alltype__debezium-data-1.jsonl": 20,
    "seatunnel_debezium-all-types-with-schema.jsonl": 8,
}


class Sample:
    """A file as a reader of its own sees it: its events, the fields of their rows, and what their schemas say."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.documents = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        self.events = [d.get("payload", d) for d in self.documents]
        self.connector = self.events[0]["source"]["connector"]
        self.fields: dict[str, dict[str, Any]] = {}
        for document in self.documents:
            for state in (document.get("schema") or {}).get("fields", []):
                if state["field"] in ("before", "after"):
                    # The last says it: a field whose type has changed is text from then on.
                    self.fields |= {f["field"]: f for f in state["fields"]}
        for event in self.events:
            for field, value in (self.row(event) or {}).items():
                if value is not None:
                    plain = {bool: "boolean", int: "int64", float: "double", str: "string"}
                    self.fields.setdefault(field, {"type": plain.get(type(value), "struct")})

    @staticmethod
    def row(event: dict[str, Any]) -> dict[str, Any] | None:
        row: dict[str, Any] | None = event["before"] if event["op"] == "d" else event["after"]
        return row

    @property
    def key(self) -> str:
        return next(f for f in ("id", "_id") if f in self.fields)


def column_type(field: dict[str, Any]) -> str:
    """The type a contract would give a field."""
    semantic = field.get("name", "")
    if semantic == DECIMAL:
        return f"DECIMAL(38,{field['parameters']['scale']})"
    by_name = {"Date": "DATE", "Timestamp": "TIMESTAMP", "MicroTimestamp": "TIMESTAMP", "ZonedTimestamp": "TIMESTAMP"}
    by_name |= {"MicroTime": "VARCHAR", "Bits": "BIGINT"}
    by_type = {"boolean": "BOOLEAN", "double": "DOUBLE", "int16": "INTEGER", "int32": "BIGINT", "int64": "BIGINT"}
    return by_name.get(semantic.rpartition(".")[2]) or by_type.get(field["type"], "VARCHAR")


def worth(value: Any, field: dict[str, Any]) -> Any:
    """What a value is worth."""
    if value is None:
        return None
    semantic = field.get("name", "").rpartition(".")[2]
    if semantic == "Decimal":
        return Decimal(str(value))
    if semantic == "Date":
        return date(1970, 1, 1) + timedelta(value)
    if semantic in ("Timestamp", "MicroTimestamp"):
        return EPOCH + timedelta(microseconds=value * (1000 if semantic == "Timestamp" else 1))
    if semantic == "ZonedTimestamp":
        return datetime.fromisoformat(value.replace("Z", "+00:00")).astimezone(UTC).replace(tzinfo=None)
    if semantic == "MicroTime":
        return (EPOCH + timedelta(microseconds=value)).time().isoformat()
    if semantic == "Bits":
        return int.from_bytes(base64.b64decode(value), "little")
    if field["type"] == "string":
        return str(value)
    return value


def contract_of(sample: Sample, make_contract: MakeContract, **options: Any) -> Contract:
    """A contract that names every field of a file, `c_` before it."""
    columns = {
        f"c_{field}": {
            "physicalName": field,
            "physicalType": column_type(spec),
            "primaryKey": field == sample.key,
        }
        for field, spec in sample.fields.items()
    }
    feed = POSTGRES if sample.connector == "postgresql" else MYSQL
    return make_contract(columns, formats=["jsonl"], feed=feed, **options)


def ingest(bench: Bench, contract: Contract, path: Path, text: str | None = None) -> int:
    """Ingest a file; return the number of rows accepted."""
    bench.put(f"things/date=2026-01-01/{path.name}", path.read_bytes() if text is None else text)
    result = bench.ingest(contract)
    assert all(batch.balanced for batch in result.batches)
    return result.total("rows_accepted")


def check_values(bench: Bench, sample: Sample, skipped: set[int]) -> None:
    """Every row but those skipped is in bronze, each value what it is worth."""
    names = ", ".join(f'"c_{field}"' for field in sample.fields)
    found = {line: values for line, *values in bench.sql(f"SELECT _line, _op, {names} FROM bronze.things")}
    assert sorted(found) == [n for n in range(1, len(sample.events) + 1) if n not in skipped]
    for line, (op, *values) in found.items():
        event = sample.events[line - 1]
        row = sample.row(event)
        assert row is not None
        assert op == event["op"]
        for (field, spec), value in zip(sample.fields.items(), values, strict=True):
            expected = worth(row.get(field), spec)
            if spec["type"] == "struct" and value is not None:
                value = json.loads(value)
            assert value == expected, (sample.name, line, field)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_event_is_read_or_set_aside_with_a_reason(path: Path, bench: Bench, make_contract: MakeContract) -> None:
    sample = Sample(path)
    semantic = [f for f in sample.fields.values() if f.get("name", "").startswith(("io.debezium.time", DECIMAL))]
    assert len(semantic) >= LEAST_SEMANTIC.get(path.name, 0)
    wanted = {line: said for (name, line), said in SET_ASIDE.items() if name == path.name}
    accepted = ingest(bench, contract_of(sample, make_contract), path)
    assert accepted == len(sample.events) - len(wanted)
    letters = bench.sql(
        "SELECT line, reasons[1].rule, reasons[1].detail, len(reasons) FROM ops.dead_letters ORDER BY 1"
    )
    assert [(line, rule, count) for line, rule, _, count in letters] == [(n, r, 1) for n, (r, _) in wanted.items()]
    for line, _, detail, _ in letters:
        assert detail.startswith(wanted[line][1])
    if accepted:
        check_values(bench, sample, set(wanted))


def test_a_decimal_that_was_rounded_names_itself_and_without_it_the_row_is_read(
    bench: Bench, make_contract: MakeContract
) -> None:
    (path,) = SAMPLES.rglob("table__schema__alltype__debezium-data-1.jsonl")
    sample = Sample(path)
    assert ingest(bench, contract_of(sample, make_contract), path) == 0
    ((detail,),) = bench.sql("SELECT reasons[1].detail FROM ops.dead_letters")
    assert sorted(part.split(" is ")[0] for part in detail.split("; ")) == sorted(ROUNDED)
    for field in ROUNDED:
        assert len(repr(sample.events[0]["after"].pop(field)).replace(".", "").split("e")[0]) > 15
        del sample.fields[field]
    assert ingest(bench, contract_of(sample, make_contract), path, json.dumps(sample.documents[0])) == 1
    check_values(bench, sample, set())


def test_snapshot_rows_of_mysql_do_not_say_when(bench: Bench, make_contract: MakeContract) -> None:
    (path,) = SAMPLES.rglob("seatunnel_debezium-mysql-schema-exclude.jsonl")
    sample = Sample(path)
    columns = {"id": {"physicalType": "INTEGER", "primaryKey": True}, "name": {}}
    feed = {"envelope": "debezium", "sequence": "ts_ms", "validFrom": "source.ts_ms"}
    ingest(bench, make_contract(columns, formats=["jsonl"], feed=feed, evolution="discard"), path)
    timeless = [n for n, e in enumerate(sample.events, 1) if e["source"]["ts_ms"] == 0]
    assert len(timeless) > 5
    letters = bench.sql("SELECT line, reasons[1].rule, reasons[1].detail FROM ops.dead_letters ORDER BY line")
    assert [(line, rule) for line, rule, _ in letters] == [(n, "envelope") for n in timeless]
    assert all("source.ts_ms is 0" in detail and "validFrom to ts_ms" in detail for *_, detail in letters)


def test_without_its_sequence_an_event_is_set_aside_by_name(bench: Bench, make_contract: MakeContract) -> None:
    (path,) = SAMPLES.rglob("seatunnel_debezium-mysql-schema-exclude.jsonl")
    columns = {"id": {"physicalType": "INTEGER", "primaryKey": True}}
    contract = make_contract(columns, formats=["jsonl"], feed=POSTGRES | {"validFrom": "ts_ms"}, evolution="discard")
    assert ingest(bench, contract, path) == 0
    said = bench.sql("SELECT DISTINCT reasons[1].rule, reasons[1].column, reasons[1].detail FROM ops.dead_letters")
    ((rule, column, detail),) = said
    assert (rule, column) == ("required", "_lsn")
    assert detail.startswith("the envelope has no source.lsn")


def test_columns_that_come_later_come_in_and_a_part_of_a_document_can_be_one(
    bench: Bench, make_contract: MakeContract
) -> None:
    columns = {"id": {"physicalType": "INTEGER", "primaryKey": True}, "name": {}, "weight": {"physicalType": "DOUBLE"}}
    evolving = sorted(SAMPLES.rglob("table__schema__schemaevolution__debezium-data-?.jsonl"))
    assert len(evolving) == 5
    for number, path in enumerate(evolving, 1):
        bench.put(f"things/date=2026-01-{number:02}/f.jsonl", path.read_bytes())
    assert bench.ingest(make_contract(columns, formats=["jsonl"], feed=MYSQL)).total("rows_accepted") == 5
    ages = [(Sample(p).events[0]["after"].get("age"), Sample(p).events[0]["after"]["id"]) for p in evolving]
    assert bench.sql("SELECT age, id FROM bronze.things ORDER BY date") == [
        (None if age is None else str(age), id_) for age, id_ in ages
    ]
    (path,) = SAMPLES.rglob("table__nestedtype__debezium-data-1.jsonl")
    row = Sample(path).events[0]["after"]
    ((outer, inner),) = ((k, next(iter(v))) for k, v in row.items() if isinstance(v, dict))
    part = {"part": {"physicalName": f"$.{outer}.{inner}"}}
    contract = make_contract(columns | part, formats=["jsonl"], feed=MYSQL, name="nested")
    bench.put("nested/date=2026-01-01/f.jsonl", path.read_bytes())
    assert bench.ingest(contract).total("rows_accepted") == 1
    assert bench.sql("SELECT part FROM bronze.nested") == [(row[outer][inner],)]
