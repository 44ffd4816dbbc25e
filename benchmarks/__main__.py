"""`python -m benchmarks`: run them and print what came out.

Only arguments and output belong here. Missing an aim is no failure: a time depends on the machine, and what it means is
for the reader to say.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import duckdb

from benchmarks import ingest, year
from benchmarks.measure import Result, machine
from sluice.errors import SluiceError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks asked for; returns the exit code, 0 also when an aim is missed."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure Sluice against peers, in the same run.")
    parser.add_argument("benchmark", nargs="?", choices=("year", "ingest", "all"), default="all")
    parser.add_argument("--runs", type=_at_least_one, default=3, help="alternating rounds; the median counts (3)")
    parser.add_argument("--landing", type=Path, help="year: a landing area; a simulated shop's when left out")
    parser.add_argument("--days", type=_at_least_one, default=30, help="year: days the simulated shop trades (30)")
    parser.add_argument("--scale", type=float, default=1.0, help="year: size of the simulated shop (1)")
    parser.add_argument("--rows", type=_at_least_one, default=1_000_000, help="ingest: order lines (1,000,000)")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    chosen = parser.parse_args(arguments)
    about = machine()
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    results: list[Result] = []
    try:
        if chosen.benchmark in ("year", "all"):
            results.append(_told(year.run(chosen.landing, chosen.runs, chosen.days, chosen.scale)))
        if chosen.benchmark in ("ingest", "all"):
            results.append(_told(ingest.run(chosen.rows, chosen.runs)))
        if chosen.json:
            text = json.dumps({"machine": about, "results": [r.data() for r in results]}, indent=1)
            chosen.json.write_text(text + "\n", encoding="utf-8")
    except (SluiceError, RuntimeError, ValueError, OSError, duckdb.Error) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


def _told(result: Result) -> Result:
    print(f"\n{result.text()}", flush=True)
    return result


def _at_least_one(text: str) -> int:
    number = int(text.replace("_", "").replace(",", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
