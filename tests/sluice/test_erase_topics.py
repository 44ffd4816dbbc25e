"""Erasing a person from the embedded event log: the messages lose them, and every offset stays what it was."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from sluice import rebuild as rebuilding
from sluice import streams
from sluice.books import books
from sluice.contracts import Contract
from sluice.erasure.run import Erased, erase, find
from sluice.eventlog import Message
from sluice.eventlog.embedded import EmbeddedLog
from sluice.rebuild import rebuild
from sluice.stream_positions import broken_ranges, lag
from sluice.streams import read_stream
from tests.conftest import Bench, MakeBench
from tests.sluice.planted import ANN, BOB, MAIL, change, event

CUSTOMERS, EVENTS, NOTES = "shop.public.customers", "shop.events", "notes"
MIDNIGHT = 1_767_225_600_000


class Shop:
    """Topics in which Ann (to be erased) and Bob (to stay) are everywhere, read into bronze."""

    def __init__(self, bench: Bench, contracts: dict[str, Contract]) -> None:
        self.bench = bench
        self.contracts = [contracts["customers"], contracts["events"]]
        self.log = EmbeddedLog(bench.settings.topics_path)
        for topic in (CUSTOMERS, EVENTS, NOTES):
            self.log.create(topic, 1)
        self.send(CUSTOMERS, change(ANN, MAIL, 1), key=json.dumps({"customer_id": ANN}))
        self.send(CUSTOMERS, change(BOB, "bob@shop.example", 2), key=json.dumps({"customer_id": BOB}))
        self.send(CUSTOMERS, change(ANN, MAIL, 3, "d"), key=json.dumps({"customer_id": ANN}))
        self.send(CUSTOMERS, None, key=json.dumps({"customer_id": ANN}))
        self.send(CUSTOMERS, f"no document of {ANN}", key="k")
        self.send(EVENTS, event(1, ANN), key="v1", headers=((b"who", ANN.encode()),))
        self.send(EVENTS, event(2, BOB), key="v2")
        # The same digits are a product's code here.
        self.send(EVENTS, event(3, BOB, stock_code=ANN), key="v3")
        self.send(NOTES, f"call {MAIL} back", key=ANN)
        for contract in self.contracts:
            read_stream(bench.lake, contract, self.log)

    def send(self, topic: str, value: str | None, *, key: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        named = tuple((name.decode(), data) for name, data in headers)
        data = None if value is None else value.encode()
        self.log.append(topic, [Message(data, key.encode(), MIDNIGHT, named)])

    def messages(self, topic: str) -> list[tuple[int, bytes | None, bytes | None]]:
        """Offset, key and value of all there are."""
        tables = self.log.tables(topic, 0)
        return [(r["offset"], r["key"], r["value"]) for table in tables for r in table.to_pylist()]

    def erase(self) -> Erased:
        self.bench.close()
        return erase(self.bench.lake, self.contracts, "customer", ANN, rebuild=lambda: None, by="a test")


@pytest.fixture
def shop(bench: Bench, contracts: dict[str, Contract]) -> Shop:
    return Shop(bench, contracts)


def test_topics_lose_the_person_and_keep_everything_else(shop: Shop) -> None:
    before = {topic: shop.messages(topic) for topic in (CUSTOMERS, EVENTS, NOTES)}
    found = find(shop.bench.lake, shop.contracts, "customer", ANN).found
    assert {f"topic {CUSTOMERS}": 4, f"topic {EVENTS}": 1, f"topic {NOTES}": 1}.items() <= found.items()
    done = shop.erase()
    assert done.messages == 6
    assert done.findings.found == {}
    after = {topic: shop.messages(topic) for topic in (CUSTOMERS, EVENTS, NOTES)}
    for topic, rows in after.items():
        assert [row[0] for row in rows] == [row[0] for row in before[topic]]
        for row in rows:
            assert ANN.encode() not in (row[1] or b"")
            assert MAIL.encode() not in (row[2] or b"")
    assert [row[2] for row in after[CUSTOMERS][:4]] == [None, before[CUSTOMERS][1][2], None, None]
    assert after[CUSTOMERS][1] == before[CUSTOMERS][1]
    assert after[EVENTS][1:] == before[EVENTS][1:]
    assert json.loads(after[EVENTS][0][2] or b"")["customer_id"] is None
    assert json.loads(after[EVENTS][0][2] or b"")["event_id"] == "e1"
    # Nobody else's digits: the product of event 3 is called as Ann is.
    assert done.findings.elsewhere


def test_reading_goes_on_and_rows_made_again_are_without_the_person(shop: Shop, contracts: dict[str, Contract]) -> None:
    shop.erase()
    shop.send(CUSTOMERS, change(BOB, "new@shop.example", 4, "u"), key=json.dumps({"customer_id": BOB}))
    for contract in shop.contracts:
        read_stream(shop.bench.lake, contract, shop.log)
        rebuild(shop.bench.lake, contract, shop.log, datetime(2020, 1, 1))
    shop.bench.close()
    assert shop.bench.sql("SELECT customer_id, email FROM bronze.customers ORDER BY _line") == [
        (BOB, "bob@shop.example"),
        (BOB, "new@shop.example"),
    ]
    assert shop.bench.sql("SELECT event_id, customer_id FROM bronze.events ORDER BY event_id") == [
        ("e1", None),
        ("e2", BOB),
        ("e3", BOB),
    ]
    # What was Ann's is in the books as discarded from the first, and nobody is asked about it.
    assert shop.bench.letters("customers") == []
    assert [b.balanced for b in books(shop.bench.lake, ["customers", "events"])] == [True, True]
    assert find(shop.bench.lake, shop.contracts, "customer", ANN).found == {}
    with shop.bench.lake.reading() as con:
        for contract in shop.contracts:
            assert broken_ranges(con, contract) == []
            assert sum(each.records for each in lag(con, contract, shop.log)) == 0


def test_an_erasure_while_rows_are_made_again_holds(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_ROWS", 2)
    _, events = shop.contracts
    told: list[str] = []

    def tell(text: str) -> None:
        # Between two batches: the first holds Ann.
        if not told:
            assert find(shop.bench.lake, shop.contracts, "customer", ANN).found
            assert shop.erase().findings.found == {}
        told.append(text)

    assert rebuild(shop.bench.lake, events, shop.log, datetime(2020, 1, 1), tell=tell).swapped
    assert "a person was erased meanwhile: all is read again, without them" in told
    shop.bench.close()
    assert shop.bench.sql("SELECT event_id, customer_id FROM bronze.events ORDER BY event_id") == [
        ("e1", None),
        ("e2", BOB),
        ("e3", BOB),
    ]
    assert [b.balanced for b in books(shop.bench.lake, ["events"])] == [True]
    assert find(shop.bench.lake, shop.contracts, "customer", ANN).found == {}


def test_an_erasure_just_before_the_swap_holds(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    _, events = shop.contracts
    real, swaps = rebuilding.swap, []

    def swap(*given: Any) -> Any:
        swaps.append(given)
        return real(*given)

    def begun(con: Any) -> tuple[int, int]:
        return (0, 0) if not swaps else known(con)

    # As if the shadow had been begun by a transaction that overlapped with that of the erasure: it was not swept away.
    shop.erase()
    known = rebuilding.erasures
    monkeypatch.setattr(rebuilding, "swap", swap)
    monkeypatch.setattr(rebuilding, "erasures", begun)
    assert rebuild(shop.bench.lake, events, shop.log, datetime(2020, 1, 1)).swapped
    assert len(swaps) == 2
    assert len({shadow.name for _, _, shadow, _ in swaps}) == 2


def test_an_erasure_takes_what_a_killed_replay_has_left(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    _, events = shop.contracts
    monkeypatch.setattr(rebuilding, "swap", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(rebuilding, "end", lambda *given: None)
    with pytest.raises(KeyboardInterrupt):
        rebuild(shop.bench.lake, events, shop.log, datetime(2020, 1, 1))
    shop.bench.close()
    tables = "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'lake' AND table_name LIKE 'events_%rebuilt%'"
    assert shop.bench.sql(tables) == [(1,)]
    assert shop.erase().findings.found == {}
    shop.bench.close()
    assert shop.bench.sql(tables) == [(0,)]
    assert shop.bench.sql("SELECT DISTINCT source FROM ops.stream_positions ORDER BY 1") == [
        ("customers",),
        ("events",),
    ]


def test_rows_and_letters_lose_keys_and_headers_of_the_person(shop: Shop) -> None:
    shop.erase()
    shop.bench.close()
    assert shop.bench.sql("SELECT _message_key, _headers FROM bronze.events WHERE event_id = 'e1'") == [(None, None)]
    assert shop.bench.sql("SELECT message_key, headers, raw FROM ops.dead_letters WHERE line = 4") == [
        (None, None, None)
    ]


def test_an_erasure_that_is_repeated_finds_nothing_to_do(shop: Shop, make_bench: MakeBench) -> None:
    shop.erase()
    before = shop.messages(CUSTOMERS)
    assert shop.erase().messages == 0
    assert shop.messages(CUSTOMERS) == before
