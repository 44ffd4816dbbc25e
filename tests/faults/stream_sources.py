"""Who makes what the streams' test sends: a shop whose database changes, and a producer of its events.

Each is a process that may be killed at any point, `python -m tests.faults.stream_sources changes | events …`; started
again it goes on from what database or broker have committed. It takes its time until there is a file that says hurry:
so it is at work for as long as others are killed, however long that takes on a machine. Both can tell the truth
afterwards: the database keeps an account of each change in the change's own transaction, and event number n is a
function of n, written down twice, in Python for the producer and in SQL for whoever compares.
"""

from __future__ import annotations

import json
import random
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from tests.postgres import Server, programs
from tests.sluice.capture.source import Session

EVENTS_TOPIC = "shop.events"
# What the producer has sent, in the same transactions: how it knows where to go on.
PROGRESS_TOPIC = "shop.events.progress"

# Sessions whose transactions interleave: most are open whenever somebody is killed. Each has keys of its own, or one
# would wait for another's locks.
SESSIONS = 5
KEYS = 900

SCHEMA = """
CREATE TABLE customers (customer_id TEXT PRIMARY KEY, country TEXT, segment TEXT, email TEXT);
CREATE TABLE products (stock_code TEXT PRIMARY KEY, description TEXT, list_price NUMERIC(12, 4));
CREATE TABLE account (id BIGSERIAL PRIMARY KEY, xid XID DEFAULT pg_current_xact_id()::xid, source TEXT, op TEXT,
    image JSONB);
CREATE FUNCTION note() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND to_jsonb(OLD) ->> TG_ARGV[0] = to_jsonb(NEW) ->> TG_ARGV[0] THEN
        INSERT INTO account (source, op, image) VALUES (TG_TABLE_NAME, 'u', to_jsonb(NEW));
        RETURN NULL;
    END IF;
    -- A changed key is told of as a delete and an insert.
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO account (source, op, image) VALUES (TG_TABLE_NAME, 'd', to_jsonb(OLD));
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO account (source, op, image) VALUES (TG_TABLE_NAME, 'c', to_jsonb(NEW));
    END IF;
    RETURN NULL;
END $$;
INSERT INTO customers SELECT (10000 + i)::TEXT, 'United Kingdom', 'retail', i || '@example.com'
FROM generate_series(0, 299) AS i;
INSERT INTO products SELECT 'P' || i, 'Product ' || i, i / 4.0 FROM generate_series(0, 299) AS i;
INSERT INTO account (source, op, image) SELECT 'customers', 'r', to_jsonb(c) FROM customers AS c;
INSERT INTO account (source, op, image) SELECT 'products', 'r', to_jsonb(p) FROM products AS p;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON customers FOR EACH ROW EXECUTE FUNCTION note('customer_id');
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON products FOR EACH ROW EXECUTE FUNCTION note('stock_code');
"""

# Statements that change some 20 rows, by table and kind. `$keys` are numbers, `$n` says which change it is.
_STATEMENTS = {
    "customers": (
        "INSERT INTO customers SELECT (10000 + k)::TEXT, 'Country ' || ($n + k) % 7, (ARRAY['retail', 'wholesale'])"
        "[1 + ($n + k) % 2], $n || '@example.com' FROM unnest($keys) AS k ON CONFLICT (customer_id) DO UPDATE SET "
        "country = excluded.country, segment = excluded.segment, email = excluded.email",
        "UPDATE customers SET country = 'Country ' || $n % 7 FROM unnest($keys) AS k WHERE customer_id = "
        "(10000 + k)::TEXT",
        "DELETE FROM customers USING unnest(($keys)[:4]) AS k WHERE customer_id = (10000 + k)::TEXT",
        "UPDATE customers SET customer_id = (10000 + ($keys)[2])::TEXT WHERE customer_id = (10000 + ($keys)[1])::TEXT "
        "AND NOT EXISTS (SELECT FROM customers AS c WHERE c.customer_id = (10000 + ($keys)[2])::TEXT)",
    ),
    "products": (
        "INSERT INTO products SELECT 'P' || k, 'Product ' || $n, ($n + k) / 8.0 FROM unnest($keys) AS k "
        "ON CONFLICT (stock_code) DO UPDATE SET description = excluded.description, list_price = excluded.list_price",
        "UPDATE products SET list_price = list_price + 0.25 FROM unnest($keys) AS k WHERE stock_code = 'P' || k",
        "DELETE FROM products USING unnest(($keys)[:4]) AS k WHERE stock_code = 'P' || k",
        "UPDATE products SET stock_code = 'P' || ($keys)[2] WHERE stock_code = 'P' || ($keys)[1] "
        "AND NOT EXISTS (SELECT FROM products AS p WHERE p.stock_code = 'P' || ($keys)[2])",
    ),
}
_WEIGHTS = (6, 6, 2, 3)

_TYPES = ("page_view", "view", "add_to_cart", "remove_from_cart", "checkout", "purchase")
_BEGAN = datetime(2026, 1, 5)


def event(number: int) -> dict[str, object]:
    """Event number n, as the producer sends it."""
    return {
        "event_id": f"e{number}",
        "event_type": _TYPES[number % 6],
        "event_ts": (_BEGAN + timedelta(milliseconds=number * 37)).isoformat(timespec="milliseconds") + "Z",
        "visitor_id": f"v{number % 997}",
        "customer_id": str(10000 + number % KEYS) if number % 3 == 0 else None,
        "stock_code": f"P{number % KEYS}" if number % 2 else None,
        "quantity": 1 + number % 7 if number % 6 == 2 else None,
        "channel": "app" if number % 5 == 0 else "web",
    }


def events_truth(count: int) -> str:
    """A query for the events 0 to `count`, as they must be in bronze."""
    return f"""
    SELECT 'e' || n AS event_id, {list(_TYPES)}[1 + n % 6] AS event_type,
        TIMESTAMP '{_BEGAN}' + to_milliseconds(n * 37) AS event_ts, 'v' || n % 997 AS visitor_id,
        CASE WHEN n % 3 = 0 THEN CAST(10000 + n % {KEYS} AS VARCHAR) END AS customer_id,
        CASE WHEN n % 2 = 1 THEN 'P' || n % {KEYS} END AS stock_code,
        CASE WHEN n % 6 = 2 THEN 1 + n % 7 END AS quantity, CASE WHEN n % 5 = 0 THEN 'app' ELSE 'web' END AS channel
    FROM range({count}) AS numbers (n)"""


class Pace:
    """So many a second, counted from what there is, until the file is there; from then on as fast as it goes."""

    def __init__(self, rate: float, hurry: Path, done: int) -> None:
        self._rate, self._hurry = rate, hurry
        self._began = time.monotonic() - done / rate

    def keep(self, done: int) -> None:
        """Wait until it is time for more than so many."""
        while time.monotonic() < self._began + done / self._rate and not self._hurry.exists():
            time.sleep(0.02)


def produce(brokers: str, count: int, rate: float, hurry: Path) -> None:
    """Send events up to number `count`, so many a second, in transactions of which a fifth is aborted."""
    settings = {
        "bootstrap.servers": brokers,
        "transactional.id": "shop-events",
        "partitioner": "murmur2_random",
        "reconnect.backoff.max.ms": 500,
    }
    producer = Producer(settings)
    # Whatever a producer of before has left open is aborted; only then it is certain what was committed.
    producer.init_transactions(60)
    number = _sent(brokers)
    rng = random.Random(number)
    pace = Pace(rate, hurry, number)
    while number < count:
        stop = min(number + rng.randint(1, max(2, int(rate))), count)  # up to a second's
        commit = rng.random() < 0.8
        producer.begin_transaction()
        for each in range(number, stop):
            message = event(each)
            producer.produce(EVENTS_TOPIC, json.dumps(message), key=str(message["visitor_id"]))
            if each % 1000 == 0:
                producer.poll(0)
        producer.produce(PROGRESS_TOPIC, str(stop))
        (producer.commit_transaction if commit else producer.abort_transaction)(60)
        number = stop if commit else number
        print(number, flush=True)
        pace.keep(number)
    # A commit returns before its markers are in the log; who takes the name over waits for them.
    Producer(settings).init_transactions(60)


def _sent(brokers: str) -> int:
    """How many events have been committed."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "none",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(PROGRESS_TOPIC, 0, 0)])
    found = 0
    while True:
        message = consumer.poll(1.0)
        if message is None:
            continue
        error = message.error()
        if error is None:
            found = int(message.value() or b"")
        elif error.code() == KafkaError._PARTITION_EOF:
            consumer.close()
            return found


def change(server: Server, database: str, count: int, rate: float, hurry: Path) -> None:
    """Change rows until the account has `count` changes, so many a second, in transactions that interleave."""
    sessions = [Session(server, database) for _ in range(SESSIONS)]

    def made() -> int:
        return int(sessions[0]("SELECT count(*) FROM account WHERE op <> 'r'")[0])

    done = made()
    rng = random.Random(done)
    pace = Pace(rate, hurry, done)
    is_open = [False] * SESSIONS
    statements = 0
    while done < count:
        which = rng.randrange(SESSIONS)
        table = rng.choice(list(_STATEMENTS))
        keys = [k * SESSIONS + which for k in rng.sample(range(KEYS // SESSIONS), 20)]
        statement = rng.choices(_STATEMENTS[table], _WEIGHTS)[0]
        text = statement.replace("$keys", f"(ARRAY{keys})").replace("$n", str(rng.randrange(10**6)))
        sessions[which](("" if is_open[which] else "BEGIN; ") + text)
        is_open[which] = rng.random() < 0.75
        if not is_open[which]:
            sessions[which]("ROLLBACK" if rng.random() < 0.15 else "COMMIT")
        statements += 1
        # A statement changes some ten rows; what was committed is asked for now and then.
        pace.keep(done + 10 * (statements % 20))
        if statements % 20 == 0:
            done = made()
            print(done, flush=True)
    for session, begun in zip(sessions, is_open, strict=True):
        if begun:
            session("COMMIT")
        session.close()


def main() -> None:
    """`changes PORT DATABASE COUNT RATE HURRY` or `events BROKERS COUNT RATE HURRY`."""
    what, *given = sys.argv[1:]
    if what == "events":
        brokers, count, rate, hurry = given
        produce(brokers, int(count), float(rate), Path(hurry))
    else:
        port, database, count, rate, hurry = given
        binary = programs()
        assert binary is not None
        change(Server(binary, Path(), int(port)), database, int(count), float(rate), Path(hurry))


if __name__ == "__main__":
    main()
