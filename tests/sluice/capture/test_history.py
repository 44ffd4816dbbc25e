"""The history of `dim_customer` is what the database did: transactions interleaved, keys changed, truncates, slot lost.

The truth is taken from the database itself: after every commit its time and what the table then held.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from resources.dbt import DBT_PROJECT
from sluice.contracts import Contract, load_contracts
from sluice.eventlog import open_log
from sluice.lake import Lake
from sluice.settings import PROJECT, Settings, load_settings
from tests.sluice.capture.source import CAPTURE_SECONDS, Session, Source
from tests.warehouse import load

pytestmark = pytest.mark.slow

DAY = "2026-01-02"
Moment = tuple[datetime, dict[str, dict[str, Any]]]
Version = tuple[str, str | None, str | None, datetime, datetime | None, bool]


@pytest.fixture
def contracts(tmp_path: Path) -> list[Contract]:
    """The project's, the customers' ordered as a capture of one's own gives them."""
    folder = tmp_path / "contracts"
    shutil.copytree(PROJECT / "contracts", folder)
    path = folder / "customers.odcs.yaml"
    document = yaml.safe_load(path.read_text())
    for custom in document["schema"][0]["customProperties"]:
        if custom["property"] == "changeFeed":
            custom["value"] |= {"sequence": ["position.commit", "position.order"], "truncates": True}
    path.write_text(yaml.safe_dump(document))
    return list(load_contracts(folder).values())


def warehouse(source: Source, contracts: list[Contract], tmp_path: Path) -> list[Version]:
    """What `dim_customer` is made of the events of the topic."""
    settings = load_settings(
        home=source.home, captures=source.home / "definitions", start_date=date(2026, 1, 1), end_date=date(2026, 1, 8)
    )
    deliver(source, settings)
    project = tmp_path / "dbt"
    if not project.exists():
        shutil.copytree(DBT_PROJECT, project, ignore=shutil.ignore_patterns("target", "logs", "contracts.yml"))
    load(settings, [[DAY]], project, contracts, "+dim_customer")
    with Lake(settings).reading() as con:
        rows = con.execute(
            # The image of a deleted version is the last before it, though nobody saw it after a commit.
            "SELECT customer_id, CASE WHEN NOT is_deleted THEN country END, CASE WHEN NOT is_deleted THEN segment END, "
            "valid_from, valid_to, is_deleted FROM gold.dim_customer "
            "WHERE NOT is_unknown ORDER BY customer_id, valid_from"
        ).fetchall()
    found: list[Version] = []
    for row in rows:
        if found and found[-1][0] == row[0] and found[-1][5] and row[5] and found[-1][4] == row[3]:
            # It came back and went within one transaction: another image, and deleted before and after.
            row = (*found.pop()[:4], *row[4:])
        if row[5] and (not found or found[-1][0] != row[0]):
            # It came and went within one transaction: nobody ever saw it.
            continue
        found.append(row)
    return sorted(found, key=repr)


def deliver(source: Source, settings: Settings) -> None:
    """The events of the topic as landing files, one of each partition, in its order."""
    log = open_log(settings)
    topic = "shop.public.customers"
    folder = settings.landing_path / "cdc" / "customers" / f"date={DAY}"
    folder.mkdir(parents=True, exist_ok=True)
    for number, bounds in log.bounds(topic).items():
        values = [
            row
            for each in log.read(topic, {number: bounds.start}, max_rows=10**9, max_bytes=1 << 40)
            for row in each.records.column("value").to_pylist()
            if row is not None
        ]
        (folder / f"{topic}-{number}.jsonl").write_bytes(b"".join(value + b"\n" for value in values))


class Table:
    """The customers, and what they were after every commit."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.reader = source.session()
        self.moments: list[Moment] = []

    def seen(self, session: Session) -> None:
        """Right after a commit of a session."""
        (at,) = session("SELECT extract(epoch FROM timestamp) * 1000000 FROM pg_last_committed_xact()")
        self.note(round(float(at)) // 1000)
        # Commits within a millisecond are at one instant for Debezium, and the last of them counts.
        time.sleep(0.003)

    def note(self, milliseconds: int) -> None:
        rows = [json.loads(row) for row in self.reader("SELECT row_to_json(c) FROM customers AS c")]
        when = datetime(1970, 1, 1) + timedelta(milliseconds=milliseconds)
        self.moments.append((when, {row["customer_id"]: row for row in rows}))

    def versions(self) -> list[Version]:
        """The history there should be, deleted versions without an image."""
        found: list[Version] = []
        for key in {key for _, rows in self.moments for key in rows}:
            states: list[tuple[datetime, tuple[Any, Any], bool]] = []
            for when, rows in self.moments:
                row = rows.get(key)
                if row is None:
                    if not states:
                        continue
                    state = (when, (None, None), True)
                else:
                    state = (when, (row["country"], row["segment"]), False)
                if not states or states[-1][1:] != state[1:]:
                    states.append(state)
            ends = [when for when, _, _ in states[1:]] + [None]
            found += [(key, *image, when, end, gone) for (when, image, gone), end in zip(states, ends, strict=True)]
        return sorted(found, key=repr)


def customers(source: Source, partitions: int = 1) -> Table:
    session = source.session()
    session(
        "CREATE TABLE customers (customer_id TEXT PRIMARY KEY, country TEXT, segment TEXT CHECK (segment IN "
        "('retail', 'wholesale')), email TEXT)"
    )
    session("INSERT INTO customers SELECT 10000 + i, 'Norway', 'retail' FROM generate_series(1, 12) AS i")
    source.define("public.customers", partitions=partitions)
    return Table(source)


def snapshot_taken(table: Table) -> None:
    """Note the newest snapshot of the capture: its rows are valid from when it was taken."""
    read = [e for e in table.source.events("customers") if e.op == "r"]
    table.note(read[-1].value["source"]["ts_ms"])


@pytest.mark.parametrize("partitions", [1, 3])
def test_interleaved_transactions_and_changed_keys(
    source: Source, contracts: list[Contract], tmp_path: Path, partitions: int
) -> None:
    table = customers(source, partitions)
    source.once()
    snapshot_taken(table)
    rng = random.Random(7 + partitions)
    sessions = [source.session() for _ in range(3)]
    opened: set[int] = set()
    for step in range(400):
        number = rng.randrange(3)
        session = sessions[number]
        if number in opened and rng.random() < 0.25:
            opened.discard(number)
            if rng.random() < 0.15:
                session("ROLLBACK")
            else:
                session("COMMIT")
                table.seen(session)
            continue
        if number not in opened:
            session("BEGIN")
            opened.add(number)
        # Each session has customers of its own, so that none waits for another.
        key = 10000 + number + 3 * rng.randrange(8)
        country, segment = rng.choice(["Norway", "Chile", "Japan"]), rng.choice(["'retail'", "'wholesale'", "NULL"])
        session(
            rng.choices(
                [
                    f"INSERT INTO customers VALUES ('{key}', '{country}', {segment}) ON CONFLICT (customer_id) "
                    f"DO UPDATE SET country = '{country}', segment = {segment}",
                    f"UPDATE customers SET country = '{country}' WHERE customer_id = '{key}'",
                    f"DELETE FROM customers WHERE customer_id = '{key}'",
                    # The key changes, and perhaps to one that was there before.
                    f"UPDATE customers SET customer_id = '{key + 30 * rng.randint(1, 3)}' WHERE customer_id = '{key}' "
                    f"AND NOT EXISTS (SELECT FROM customers WHERE customer_id::int >= 10030 AND "
                    f"customer_id::int % 30 = {key % 30})",
                    f"UPDATE customers SET customer_id = '{key}' WHERE customer_id = '{key + 30}' "
                    f"AND NOT EXISTS (SELECT FROM customers WHERE customer_id = '{key}')",
                ],
                weights=[5, 5, 2, 2, 2],
            )[0]
        )
        if step in (150, 300):
            for each in sorted(opened):
                sessions[each]("COMMIT")
                table.seen(sessions[each])
            opened.clear()
            session("TRUNCATE customers")
            table.seen(session)
    for each in sorted(opened):
        sessions[each]("COMMIT")
        table.seen(sessions[each])
    source.once()

    events = [e for e in source.events("customers") if e.op in ("c", "u", "d")]
    positions = [e.value["source"]["lsn"] for e in events]
    if partitions == 1:
        # What it is about: in the order of the stream the positions of the changes jump back.
        assert positions != sorted(positions)
    at_once = [e for e in events if e.op == "d" and positions.count(e.value["source"]["lsn"]) > 1]
    assert at_once, "a changed key is a delete and an insert at one position"
    assert len(events) > 150
    assert warehouse(source, contracts, tmp_path) == table.versions()


def test_after_a_lost_slot_a_new_snapshot_goes_on_with_the_history(
    source: Source, contracts: list[Contract], tmp_path: Path
) -> None:
    table = customers(source)
    source.once()
    snapshot_taken(table)
    session = source.session()
    session("UPDATE customers SET country = 'Chile' WHERE customer_id = '10001'")
    table.seen(session)
    source.once()
    source.sql(f"SELECT pg_drop_replication_slot('{source.slot}')")
    # Nobody sees these as they happen: the next snapshot tells what came of them.
    session("UPDATE customers SET country = 'Japan' WHERE customer_id = '10001'")
    session("UPDATE customers SET country = 'Chile' WHERE customer_id = '10001'")
    session("DELETE FROM customers WHERE customer_id = '10002'")
    session("UPDATE customers SET segment = 'wholesale' WHERE customer_id = '10003'")
    session("INSERT INTO customers VALUES ('10099', 'Peru', 'retail')")

    code, said = source.command("run", source.name, "--once")
    assert code == 1 and "is gone" in said and "sluice capture resnapshot shop" in said
    assert source.command("resnapshot", source.name)[0] == 0
    source.once()
    snapshot_taken(table)
    session("UPDATE customers SET country = 'Peru' WHERE customer_id = '10001'")
    table.seen(session)
    source.once()

    found = warehouse(source, contracts, tmp_path)
    assert found == table.versions()
    by_key: dict[str, int] = {}
    for version in found:
        by_key[version[0]] = by_key.get(version[0], 0) + 1
    # What did not change has one version, snapshot or not; what is gone has a last one, deleted.
    assert (by_key["10001"], by_key["10002"], by_key["10003"], by_key["10004"]) == (3, 2, 2, 1)


def test_a_transaction_older_than_the_slot_and_committed_after_it(
    source: Source, contracts: list[Contract], tmp_path: Path
) -> None:
    """Its changes lie before the snapshot in the database's log, and count after it all the same."""
    table = customers(source)
    first, second, third = (source.session() for _ in range(3))
    first("BEGIN; UPDATE customers SET country = 'Chile' WHERE customer_id = '10001'")
    process = source.start("run", source.name, "--once")

    def slots() -> list[str]:
        return source.sql(f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{source.slot}'")

    def awaited(session: Session) -> bool:
        """Whether the server waits for this session's transaction: here the slot, which wants it over."""
        (xid,) = session("SELECT pg_current_xact_id()")
        lock = f"locktype = 'transactionid' AND NOT granted AND transactionid = '{xid}'"
        return bool(source.sql(f"SELECT 1 FROM pg_locks WHERE {lock}"))

    _until(lambda: bool(slots()))
    _until(lambda: awaited(first))
    second("BEGIN; UPDATE customers SET country = 'Chile' WHERE customer_id = '10002'")
    first("COMMIT")
    _until(lambda: awaited(second))
    third("BEGIN; UPDATE customers SET country = 'Chile' WHERE customer_id = '10003'")
    third("UPDATE customers SET country = 'Peru' WHERE customer_id = '10003'")
    second("COMMIT")
    _until(lambda: bool(source.events("customers")))
    read = [e for e in source.events("customers") if e.op == "r"]
    third("COMMIT")
    (at,) = third("SELECT extract(epoch FROM timestamp) * 1000000 FROM pg_last_committed_xact()")
    said, _ = process.communicate(timeout=CAPTURE_SECONDS)
    assert process.returncode == 0, said
    source.once()
    when = datetime(1970, 1, 1) + timedelta(milliseconds=read[-1].value["source"]["ts_ms"])
    rows = {e.key["customer_id"]: e.value["after"] for e in source.events("customers") if e.op == "r"}
    table.moments.append((when, rows))
    assert rows["10003"]["country"] == "Norway"
    table.note(round(float(at)) // 1000)
    late = [e for e in source.events("customers") if e.op == "u"]
    assert late[0].value["source"]["lsn"] < read[0].value["source"]["lsn"]
    assert warehouse(source, contracts, tmp_path) == table.versions()


def _until(holds: Any, seconds: float = CAPTURE_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)
