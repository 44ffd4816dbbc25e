"""The peer dlt: load CSV files into a DuckDB file, by rows or by its DuckDB reader. Run by an interpreter that has dlt.

Belongs here: nothing but dlt's own way of doing it, for this file runs in an environment of its own
(requirements-bench.lock) and may import nothing of Sluice. Prints one line of JSON: rows that arrived, the wall and CPU
seconds `pipeline.run` took, which neither imports nor the making of the pipeline are part of, and dlt's version.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import duckdb
from dlt.sources.filesystem import filesystem, read_csv_duckdb

# Rows handed over at once. dlt's own readers take 5,000 or 10,000; its documentation advises pages, for rows handed
# over one by one cost more.
PAGE = 10_000

# Of Arrow tables: as many rows as DuckDB has in a row group. dlt's default of 5,000 would be slower.
ARROW_PAGE = 122_880


def rows_of(files: list[Path]) -> Iterator[list[dict[str, Any]]]:
    """Every line as a dictionary, a page at a time."""
    for path in files:
        with path.open(newline="", encoding="utf-8") as lines:
            page = []
            for row in csv.DictReader(lines):
                page.append(row)
                if len(page) == PAGE:
                    yield page
                    page = []
            yield page


def main() -> None:
    """Load the files below a folder, print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("rows", "duckdb"))
    parser.add_argument("landing", type=Path)
    parser.add_argument("work", type=Path, help="a folder for the database and for dlt's own files")
    chosen = parser.parse_args()
    database = chosen.work / "dlt.duckdb"
    pipeline = dlt.pipeline(
        pipeline_name="orders",
        pipelines_dir=str(chosen.work / "pipelines"),
        destination=dlt.destinations.duckdb(str(database)),
        dataset_name="bronze",
    )
    data: Any
    if chosen.mode == "rows":
        data = dlt.resource(rows_of(sorted(chosen.landing.rglob("*.csv"))), name="orders")
    else:
        data = filesystem(bucket_url=chosen.landing.resolve().as_uri(), file_glob="**/*.csv") | read_csv_duckdb(
            chunk_size=ARROW_PAGE, use_pyarrow=True, header=True, all_varchar=True
        )
        data = data.with_name("orders")
    cpu, begun = sum(os.times()[:4]), time.perf_counter()
    pipeline.run(data, write_disposition="append").raise_on_failed_jobs()
    seconds, cpu = time.perf_counter() - begun, sum(os.times()[:4]) - cpu
    with duckdb.connect(str(database), read_only=True) as con:
        row = con.execute("SELECT count(*) FROM bronze.orders").fetchone()
    rows = row[0] if row else 0
    print(json.dumps({"rows": rows, "seconds": seconds, "cpu_seconds": cpu, "version": dlt.__version__}))


if __name__ == "__main__":
    main()
