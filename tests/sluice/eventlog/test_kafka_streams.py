"""Topics of a real Kafka into bronze: transactions, compaction, a broker that restarts, a topic made anew."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from sluice.books import books
from sluice.contracts import Contract
from sluice.errors import OffsetLostError
from sluice.eventlog import EventLog, open_log
from sluice.settings import load_settings
from sluice.stream_positions import broken_ranges, lag, seek
from sluice.streams import read_stream, read_until
from tests.conftest import Bench, MakeBench, MakeContract
from tests.kafka import Broker

COLUMNS: dict[str, dict[str, Any]] = {"id": {"required": True}, "n": {"physicalType": "INTEGER"}}


@pytest.fixture
def bench(make_bench: MakeBench, kafka: Broker) -> Bench:
    return make_bench("home", kafka=kafka.brokers)


@pytest.fixture
def log(bench: Bench) -> Iterator[EventLog]:
    with open_log(bench.settings) as opened:
        assert opened.name != "embedded"
        yield opened


@pytest.fixture
def contract(make_contract: MakeContract) -> Contract:
    return make_contract(COLUMNS, stream={"topic": f"things-{uuid.uuid4().hex[:8]}"})


def topic_of(contract: Contract) -> str:
    assert contract.stream is not None
    return contract.stream.topic


def produce(kafka: Broker, topic: str, *ids: str, transaction: str | None = None, commit: bool = True) -> None:
    """Produce as somebody else's program would, in a transaction if one is named."""
    settings: dict[str, Any] = {"bootstrap.servers": kafka.brokers}
    producer = Producer(settings | ({"transactional.id": transaction} if transaction else {}))
    if transaction:
        producer.init_transactions(30)
        producer.begin_transaction()
    for name in ids:
        producer.produce(topic, json.dumps({"id": name}).encode(), key=name.encode())
    producer.flush(30)
    if transaction:
        (producer.commit_transaction if commit else producer.abort_transaction)(30)
        # That returns before the transaction's markers are in the log; taking its name over waits for them.
        Producer(settings | {"transactional.id": transaction}).init_transactions(30)


def ids(bench: Bench) -> list[str]:
    return [row[0] for row in bench.sql("SELECT id FROM bronze.things ORDER BY id")]


def check(bench: Bench, contract: Contract) -> None:
    assert [b.balanced for b in books(bench.lake, ["things"])] == [True]
    with bench.lake.reading() as con:
        assert broken_ranges(con, contract) == []
    assert bench.sql("SELECT _file, _line FROM bronze.things GROUP BY ALL HAVING count(*) > 1") == []


def test_only_what_was_committed_is_read_and_nothing_waits_after_it(
    bench: Bench, kafka: Broker, log: EventLog, contract: Contract
) -> None:
    topic = topic_of(contract)
    log.create(topic, 2)
    produce(kafka, topic, "a", "b", transaction=f"{topic}-1")
    produce(kafka, topic, "x", "y", transaction=f"{topic}-2", commit=False)
    produce(kafka, topic, "c")
    for _ in read_until(bench.lake, contract, log):
        pass
    assert ids(bench) == ["a", "b", "c"]
    # An end that only holds markers and what was aborted is read past, or it would wait for ever.
    produce(kafka, topic, "z", transaction=f"{topic}-3", commit=False)
    for _ in read_until(bench.lake, contract, log):
        pass
    with bench.lake.reading() as con:
        assert sum(each.records for each in lag(con, contract, log)) == 0
    assert ids(bench) == ["a", "b", "c"]
    check(bench, contract)


def test_a_broker_that_restarts_between_two_batches_costs_nothing(
    bench: Bench, kafka: Broker, log: EventLog, contract: Contract
) -> None:
    topic = topic_of(contract)
    log.create(topic, 1)
    produce(kafka, topic, *(f"{n:03}" for n in range(30)))
    assert read_stream(bench.lake, contract, log, most_rows=10).total("rows_accepted") == 10
    kafka.kill()
    kafka.start()
    produce(kafka, topic, "999")
    for _ in read_until(bench.lake, contract, log):
        pass
    assert ids(bench) == [*(f"{n:03}" for n in range(30)), "999"]
    check(bench, contract)


def test_a_topic_made_anew_is_known_by_its_id_even_when_it_is_longer(
    bench: Bench, kafka: Broker, log: EventLog, contract: Contract
) -> None:
    topic = topic_of(contract)
    log.create(topic, 1)
    produce(kafka, topic, "a")
    read_stream(bench.lake, contract, log)
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    admin.delete_topics([topic])[topic].result(30)
    with open_log(load_settings(home=bench.settings.home, kafka=kafka.brokers)) as anew:
        while topic in anew.topics():
            pass
        anew.create(topic, 1)
        produce(kafka, topic, "b", "c", "d")
        with pytest.raises(OffsetLostError, match="made anew"):
            read_stream(bench.lake, contract, anew)
        seek(bench.lake, contract, anew, "unread")
        read_stream(bench.lake, contract, anew)
    bench.close()
    assert ids(bench) == ["a", "b", "c", "d"]
    check(bench, contract)
