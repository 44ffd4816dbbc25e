"""The peer that promises nothing: a Kafka consumer that takes values apart and writes Parquet.

As short as anybody would write it who needs no more: no check of a value, no dead letter, no books, no position that
could be gone on from, and a file that is half there when it is killed. The messages are read as fast as Sluice reads
them: in batches, with the one setting of the client by which it does not idle.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

# As many as Sluice takes in a transaction, so that both hold as much in memory.
BATCH = 250_000


def with_json_loads(values: list[bytes], schema: pa.Schema) -> pa.Table:
    """Take values apart one by one, as Python's standard library does."""
    return pa.Table.from_pylist([json.loads(value) for value in values], schema)


def with_arrow(values: list[bytes], schema: pa.Schema) -> pa.Table:
    """Take values apart all at once. One that is no JSON, or of another type, ends it."""
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    return pyarrow.json.read_json(io.BytesIO(b"\n".join(values)), parse_options=options)


def consume(
    brokers: str, topic: str, schema: pa.Schema, into: Path, parse: Callable[[list[bytes], pa.Schema], pa.Table]
) -> int:
    """Read a topic to its end into one Parquet file.

    Args:
        brokers: of the Kafka.
        topic: to read.
        schema: of the values.
        into: the file.
        parse: makes a table of values.

    Returns:
        The messages read.

    Raises:
        KafkaException: as the client says.
    """
    settings: dict[str, Any] = {
        "bootstrap.servers": brokers,
        "group.id": "peer",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        # As in `sluice.eventlog.kafka_reader`: by default the client idles for most of a second time and again.
        "fetch.queue.backoff.ms": 10,
    }
    consumer = Consumer(settings)
    read, values = 0, list[bytes]()
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        open_ = len(partitions)
        with pq.ParquetWriter(into, schema, compression="zstd") as file:
            while open_:
                for message in consumer.consume(10_000, 0.1):
                    error = message.error()
                    value = message.value()
                    if error is not None:
                        if error.code() != KafkaError._PARTITION_EOF:
                            raise KafkaException(error)
                        open_ -= 1
                    elif value is not None:
                        values.append(value)
                if values and (len(values) >= BATCH or not open_):
                    file.write_table(parse(values, schema))
                    read += len(values)
                    values = []
    finally:
        consumer.close()
    return read
