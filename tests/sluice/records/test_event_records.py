"""Change events of Debezium taken apart: the row, what was done to it and when."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from sluice.contracts import Contract
from sluice.settings import PROJECT
from tests.conftest import Bench, Extracted, MakeContract
from tests.sluice.records.reading import Read, faults, values

DEBEZIUM = PROJECT.parent / "shared" / "data" / "debezium_samples"
LSN_FEED = {"envelope": "debezium", "sequence": "source.lsn", "validFrom": "source.ts_ms"}


@pytest.fixture(scope="module")
def feed(make_contract: MakeContract) -> Contract:
    return make_contract({"id": {"primaryKey": True}, "name": {}}, formats=["jsonl"], feed=LSN_FEED)


def event(op: str | None, before: Any, after: Any, lsn: Any = 5, ts: Any = 1000) -> dict[str, Any]:
    return {"before": before, "after": after, "source": {"lsn": lsn, "ts_ms": ts}, "op": op}


FEED_COLUMNS = ("_op", "_lsn", "_source_ts", "id", "name")


def read_events(read_files: Read, feed: Contract, *events: Any) -> Extracted:
    return read_files(feed, {"f.jsonl": "".join(json.dumps(e) + "\n" for e in events).encode()})


def test_an_event_is_read_with_and_without_its_schema(feed: Contract, read_files: Read) -> None:
    plain = [
        event("c", None, {"id": "1", "name": "x"}),
        event("u", {"id": "1", "name": "x"}, {"id": "1", "name": "y", "more": 3}),
        event("r", None, {"id": "2", "name": None}),
        event("d", {"id": "1", "name": "y"}, None),
    ]
    expected = [
        (1, "c", "5", "1000", "1", "x"),
        (2, "u", "5", "1000", "1", "y"),
        (3, "r", "5", "1000", "2", None),
        (4, "d", "5", "1000", "1", "y"),
    ]
    wrapped = [{"schema": {"type": "struct"}, "payload": e} for e in plain]
    for events in (plain, wrapped):
        found = read_events(read_files, feed, *events)
        assert values(found, *FEED_COLUMNS) == expected
        assert [r["extra"] for r in found.rows] == [None, '{"more":3}', None, None]


def test_a_row_of_its_own_called_payload_is_no_wrapper(feed: Contract, read_files: Read) -> None:
    found = read_events(read_files, feed, {**event("c", None, {"id": "1", "name": "x"}), "payload": 1})
    assert values(found, "_op", "id") == [(1, "c", "1")]


@pytest.mark.parametrize(
    ("made", "rule", "detail"),
    [
        (event("d", {"id": "1"}, {"id": "1"}), "envelope", "a delete with a state after it"),
        (event("d", None, None), "envelope", "a delete without the row before it (is REPLICA IDENTITY set?)"),
        (event("u", {"id": "1"}, None), "envelope", "no row state where the operation needs one"),
        (event("c", None, "text"), "envelope", "no row state where the operation needs one"),
        (event("r", None, [1]), "envelope", "no row state where the operation needs one"),
        ([], "malformed", "not a JSON object"),
    ],
)
def test_an_event_without_its_row_is_a_fault(
    made: Any, rule: str, detail: str, feed: Contract, read_files: Read
) -> None:
    found = read_events(read_files, feed, event("c", None, {"id": "1"}), made)
    assert faults(found) == [(2, rule, detail)]


def test_an_envelope_without_meta_leaves_it_to_the_rules(feed: Contract, read_files: Read) -> None:
    found = read_events(read_files, feed, {"after": {"id": "1"}}, {"op": {"x": 1}})
    assert values(found, *FEED_COLUMNS) == [
        (1, None, None, None, "1", None),
        (2, '{"x":1}', None, None, None, None),
    ]


@pytest.mark.skipif(not DEBEZIUM.is_dir(), reason=f"the captured Debezium events are not at {DEBEZIUM}")
def test_events_captured_elsewhere_are_accepted_or_told(bench: Bench, make_contract: MakeContract) -> None:
    contract = make_contract(
        {"id": {"physicalType": "INTEGER", "primaryKey": True}, "name": {}},
        formats=["jsonl"],
        feed={"envelope": "debezium", "sequence": "source.lsn", "validFrom": "source.ts_ms"},
    )
    lines = 0
    for number, path in enumerate(sorted(DEBEZIUM.rglob("*.jsonl"))):
        # A day each: they are of several tables, and a file without the key would take the others' batch with it.
        bench.put(f"things/date={date(2026, 1, 1) + timedelta(number)}/{number:02}-{path.name}", path.read_bytes())
        lines += sum(1 for line in path.read_bytes().splitlines() if line.strip())
    result = bench.ingest(contract)
    assert result.total("rows_read") == lines > 90
    assert all(b.balanced for b in result.batches) and result.total("rows_accepted") > 20
    letters = bench.letters("things")
    assert sum(rows for _, _, rows, _ in letters) == result.total("rows_dead_lettered")
    assert all(rules for *_, rules in letters)
    # PostgreSQL's 16 events: with the row before it a delete is taken, in its twin it has a state after it, too.
    accepted = dict(bench.sql("SELECT _file, count(*) FROM bronze.things WHERE _file LIKE '%postgres%' GROUP BY ALL"))
    assert {Path(f).name.split("postgres-data-")[1]: n for f, n in accepted.items()} == {
        "replica-identity.jsonl": 15,
        "schema-exclude.jsonl": 16,
    }
    deletes = [(Path(f).name[3:], line, rules) for f, line, _, rules in letters if "envelope" in rules and "flink" in f]
    assert deletes == [("flink_debezium-postgres-data-replica-identity.jsonl", 16, ["envelope"])]
