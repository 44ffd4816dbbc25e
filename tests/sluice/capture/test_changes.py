"""What a database may do to a captured table, and what comes of it in the topic and in bronze."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sluice.eventlog import open_log
from tests.conftest import Bench, MakeContract
from tests.sluice.capture.source import Event, Source

FEED = {
    "envelope": "debezium",
    "sequence": ["position.commit", "position.order"],
    "validFrom": "source.ts_ms",
    "truncates": True,
}
ID = {"id": {"physicalType": "INTEGER", "primaryKey": True}}


def deliver(source: Source, bench: Bench, table: str, skip: int = 0) -> None:
    """The events of a topic as a landing file."""
    topic = f"shop.public.{table}"
    (found,) = open_log(source.settings).read(topic, {0: 0}, max_rows=10**9, max_bytes=1 << 40)
    values = [value for value in found.records.column("value").to_pylist() if value is not None]
    bench.put("things/date=2026-01-02/things.jsonl", b"".join(value + b"\n" for value in values[skip:]))


def kinds(events: list[Event]) -> list[tuple[Any, str | None]]:
    return [(None if e.key is None else e.key["id"], e.op) for e in events]


def test_a_snapshot_and_every_kind_of_change(source: Source, bench: Bench, make_contract: MakeContract) -> None:
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v TEXT); INSERT INTO things VALUES (1, 'a'), (2, 'b')")
    source.define("public.things")
    source.once()
    source.sql("INSERT INTO things VALUES (3, NULL)")
    source.sql("UPDATE things SET v = 'c' WHERE id = 1")
    source.sql("UPDATE things SET id = 9 WHERE id = 2")
    source.sql("DELETE FROM things WHERE id = 3")
    source.sql(
        "BEGIN; INSERT INTO things VALUES (4, 'x'); SAVEPOINT s; UPDATE things SET v = 'y' WHERE id = 4; "
        "ROLLBACK TO s; UPDATE things SET v = 'z' WHERE id = 4; COMMIT"
    )
    source.sql("BEGIN; INSERT INTO things VALUES (5, 'never'); ROLLBACK")
    source.sql("TRUNCATE things")
    source.sql("INSERT INTO things VALUES (1, 'again')")
    source.once()
    events = source.events("things")
    assert kinds(events) == [
        (1, "r"), (2, "r"), (3, "c"), (1, "u"),
        # A changed key: the old one is deleted, and its tombstone follows, before the new one comes.
        (2, "d"), (2, None), (9, "c"),
        (3, "d"), (3, None), (4, "c"), (4, "u"), (None, "t"), (1, "c"),
    ]  # fmt: skip
    assert [e.place for e in events if e.value] == sorted(e.place for e in events if e.value)
    assert events[4].place[0] == events[6].place[0] and events[4].place[1] + 1 == events[6].place[1]

    deliver(source, bench, "things")
    bench.ingest(make_contract({**ID, "v": {}}, formats=["jsonl"], feed=FEED))
    rows = bench.sql('SELECT id, _op, v, "_seq_2" FROM bronze.things ORDER BY _line')
    assert rows == [
        (1, "r", "a", 0), (2, "r", "b", 0), (3, "c", None, 1), (1, "u", "c", 1), (2, "d", "b", 1), (9, "c", "b", 2),
        (3, "d", None, 1), (4, "c", "x", 1), (4, "u", "z", 2), (None, "t", None, 1), (1, "c", "again", 1),
    ]  # fmt: skip
    assert bench.letters("things") == []


def test_values_arrive_exactly(source: Source, bench: Bench, make_contract: MakeContract) -> None:
    source.sql(
        "CREATE TABLE things (id INT PRIMARY KEY, amount NUMERIC(20,4), free NUMERIC, big BIGINT, local TIMESTAMP, "
        "zoned TIMESTAMPTZ, day DATE, flag BOOLEAN, token UUID, share FLOAT8, doc JSONB, raw BYTEA)"
    )
    source.define("public.things")
    values = (
        "(1, 12345678901234.5678, 0.000000000000000000000000000001, 9007199254740993, '2026-03-29 01:30:00.123456', "
        "'2026-03-29 01:30:00.123456+02', '2026-02-28', false, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 0.1, "
        "'{\"a\": [1, null]}', '\\x00ff')"
    )
    source.sql(f"INSERT INTO things VALUES {values}")
    source.once()
    source.sql(
        f"INSERT INTO things VALUES {values.replace('(1', '(2')}, (3)".replace(
            ", (3)", "; INSERT INTO things (id) VALUES (3)"
        )
    )
    source.sql("UPDATE things SET free = 'NaN', local = 'infinity' WHERE id = 2")
    source.once()
    deliver(source, bench, "things")
    contract = make_contract(
        {
            **ID,
            "amount": {"physicalType": "DECIMAL(20,4)"},
            "free": {"physicalType": "DECIMAL(38,30)"},
            "big": {"physicalType": "BIGINT"},
            "local": {"physicalType": "TIMESTAMP"},
            "zoned": {"physicalType": "TIMESTAMP"},
            "day": {"physicalType": "DATE", "logicalTypeOptions": {"format": "%Y-%m-%dZ"}},
            "flag": {"physicalType": "BOOLEAN"},
            "token": {"physicalType": "UUID"},
            "share": {"physicalType": "DOUBLE"},
            "doc": {},
            "raw": {},
        },
        formats=["jsonl"],
        feed=FEED,
    )
    bench.ingest(contract)
    columns = "id, amount, free, big, local, zoned, day, flag, token::VARCHAR, share, doc, raw"
    rows = bench.sql(f"SELECT {columns} FROM bronze.things ORDER BY _line")
    full = (
        Decimal("12345678901234.5678"), Decimal("1E-30"), 9007199254740993, datetime(2026, 3, 29, 1, 30, 0, 123456),
        # With a zone: in UTC.
        datetime(2026, 3, 28, 23, 30, 0, 123456), date(2026, 2, 28), False, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", 0.1,
        '{"a": [1, null]}', "AP8=",
    )  # fmt: skip
    assert rows == [(1, *full), (2, *full), (3, *(None,) * 11)]
    # What no column of bronze can hold is set aside, never bent.
    ((_, _, _, rules),) = bench.letters("things")
    assert set(rules) == {"type"}


def test_columns_come_go_and_are_renamed(source: Source, bench: Bench, make_contract: MakeContract) -> None:
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v TEXT, w TEXT)")
    source.define("public.things")
    source.sql("INSERT INTO things VALUES (1, 'a', 'b')")
    source.once()
    source.sql("ALTER TABLE things ADD COLUMN extra TEXT DEFAULT 'usual'")
    source.sql("UPDATE things SET v = 'c' WHERE id = 1")
    source.sql("ALTER TABLE things RENAME COLUMN extra TO other")
    source.sql("INSERT INTO things VALUES (2, 'a', 'b', 'new')")
    source.sql("ALTER TABLE things DROP COLUMN w")
    source.sql("INSERT INTO things VALUES (3, 'a', 'last')")
    source.once()
    assert [list(e.value["after"]) for e in source.events("things")] == [
        ["id", "v", "w"], ["id", "v", "w", "extra"], ["id", "v", "w", "other"], ["id", "v", "other"]
    ]  # fmt: skip
    deliver(source, bench, "things")
    contract = make_contract({**ID, "v": {}, "w": {}}, formats=["jsonl"], feed=FEED)
    bench.ingest(contract)
    # By schemaEvolution: evolve, what is new is a column, under its name of then; what is gone is null.
    assert bench.sql("SELECT id, v, w, extra, other FROM bronze.things ORDER BY _line") == [
        (1, "a", "b", None, None), (1, "c", "b", "usual", None), (2, "a", "b", None, "new"),
        (3, "a", None, None, "last"),
    ]  # fmt: skip


def test_a_large_value_that_did_not_change_is_sent_with_full_identity(source: Source) -> None:
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v TEXT, note TEXT)")
    source.sql("ALTER TABLE things ALTER note SET STORAGE EXTERNAL")
    source.define("public.things", full=False)
    code, said = source.command("run", source.name, "--once")
    assert code == 1
    assert "public.things has columns that may be stored out of line (v, note)" in said
    assert 'ALTER TABLE "public"."things" REPLICA IDENTITY FULL;' in said
    source.sql("ALTER TABLE things REPLICA IDENTITY FULL")
    source.once()
    source.sql("INSERT INTO things VALUES (1, 'a', repeat('x', 100000))")
    source.sql("UPDATE things SET v = 'b'")
    source.once()
    assert [
        (e.op, e.value["after"]["v"], e.value["after"]["note"] == "x" * 100000) for e in source.events("things")
    ] == [
        ("c", "a", True),
        ("u", "b", True),
    ]


def test_a_large_value_that_was_not_sent_never_becomes_one(
    source: Source, bench: Bench, make_contract: MakeContract
) -> None:
    """The identity was taken back under way: the change is set aside, with its reason."""
    source.sql("CREATE TABLE things (id INT PRIMARY KEY, v TEXT, note TEXT)")
    source.sql("ALTER TABLE things ALTER note SET STORAGE EXTERNAL")
    source.define("public.things")
    source.once()
    source.sql("ALTER TABLE things REPLICA IDENTITY DEFAULT")
    source.sql("INSERT INTO things VALUES (1, 'a', repeat('x', 100000))")
    source.sql("UPDATE things SET v = 'b'")
    source.sql("ALTER TABLE things REPLICA IDENTITY FULL")
    source.once()
    assert [e.value["after"]["note"][:28] for e in source.events("things")][1] == "__debezium_unavailable_value"
    deliver(source, bench, "things")
    contract = make_contract({**ID, "v": {}, "note": {}}, formats=["jsonl"], feed=FEED)
    bench.ingest(contract)
    assert bench.sql("SELECT v, length(note) FROM bronze.things") == [("a", 100000)]
    assert [rules for *_, rules in bench.letters("things")] == [["unsent_value"]]
    (detail,) = bench.sql("SELECT reasons[1].detail FROM ops.dead_letters")[0]
    assert "Set REPLICA IDENTITY FULL" in detail
