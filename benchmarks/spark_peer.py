"""The peer Spark: a topic into Parquet by Structured Streaming. Run by an interpreter that has pyspark.

Belongs here: nothing but Spark's own way of doing it, for this file runs in an environment of its own
(requirements-bench.lock) and may import nothing of Sluice. Reads the topic twice into two folders, the second time with
a JVM that is warm. Prints one line of JSON: rows that arrived and seconds, of each time, and Spark's version.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession
from pyspark.sql.functions import col, from_json


def read(spark: SparkSession, brokers: str, topic: str, schema: str, work: Path) -> int:
    """Read a topic to its end as of now into Parquet files below `work`; the rows in them."""
    messages = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", brokers)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        # As Sluice reads: what an aborted transaction wrote does not count.
        .option("kafka.isolation.level", "read_committed")
        .load()
    )
    events = messages.select(from_json(col("value").cast("string"), schema).alias("event")).select("event.*")
    query = (
        events.writeStream.format("parquet")
        .option("path", str(work / "rows"))
        .option("checkpointLocation", str(work / "checkpoint"))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    return sum(progress.numInputRows for progress in query.recentProgress)


def main() -> None:
    """Read a topic, twice, and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("brokers")
    parser.add_argument("topic")
    parser.add_argument("schema", help="of a value, as Spark's DDL")
    parser.add_argument("classpath", help="Spark's Kafka source")
    parser.add_argument("work", type=Path, help="a folder for what it writes")
    parser.add_argument("cores", type=int)
    chosen = parser.parse_args()
    spark = (
        SparkSession.builder.master(f"local[{chosen.cores}]")
        .appName("peer")
        .config("spark.driver.extraClassPath", chosen.classpath)
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.local.dir", str(chosen.work / "local"))
        .config("spark.sql.warehouse.dir", str(chosen.work / "warehouse"))
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    rows, seconds = [], []
    for number in range(2):
        begun = time.perf_counter()
        rows.append(read(spark, chosen.brokers, chosen.topic, chosen.schema, chosen.work / f"{number}"))
        seconds.append(time.perf_counter() - begun)
    # On the last line of its own, whatever else was said.
    print(json.dumps({"rows": rows, "seconds": seconds, "version": pyspark.__version__}), flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
