"""`python -m benchmarks`: run them, print what came out, and keep it where asked.

Only arguments and output belong here. Missing an aim is no failure: a time depends on the machine, and what it means is
for the reader to say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import duckdb

from benchmarks import chart, daily, facts, history, ingest, latency, overhead, report, stream, year
from benchmarks.measure import Result, Timing, machine
from sluice.errors import SluiceError

NAMES = ("history", "daily", "facts", "ingest", "overhead", "year", "stream", "latency")

# Measures nothing, and makes charts and document of the results that are there.
RENDER = "render"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks asked for; returns the exit code, 0 also when an aim is missed."""
    chosen = _parsed(arguments)
    try:
        # Read first: a file that cannot be merged into is told of before hours are spent.
        kept = report.load(chosen.json) if chosen.json else {}
        if RENDER in chosen.benchmark:
            for each in kept.values():
                _drawn(each.result, chosen)
            _rendered(kept, chosen)
            return 0
        for measure in _measurements(chosen):
            about = machine()
            print("\n" + ", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
            result = measure()
            print(f"\n{result.text()}", flush=True)
            # At once, so that no later failure takes it along; read again, for another run may have added its own.
            if chosen.json:
                kept = {**report.load(chosen.json), result.name: report.Kept(result, about)}
                report.save(chosen.json, kept)
            _drawn(result, chosen)
            _rendered(kept, chosen)
    except (SluiceError, RuntimeError, ValueError, OSError, duckdb.Error) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure Sluice against peers, in the same run.")
    parser.add_argument(
        "benchmark",
        nargs="*",
        metavar="benchmark",
        help=f"of {', '.join(NAMES)}; all when left out; '{RENDER}' measures nothing and shows anew what --json holds",
    )
    parser.add_argument("--runs", type=_at_least_one, default=3, help="alternating rounds; the median counts (3)")
    parser.add_argument(
        "--size", type=_share, default=1.0, help="history, daily, facts: share of the full number of rows (1)"
    )
    parser.add_argument(
        "--rows",
        type=_at_least_one,
        nargs="+",
        default=[1_000_000, 10_000_000],
        help="ingest: order lines, each number a measurement of its own (1,000,000 10,000,000)",
    )
    parser.add_argument(
        "--events", type=_at_least_one, default=1_000_000, help="stream: messages in the topic (1,000,000)"
    )
    parser.add_argument(
        "--probes", type=_at_least_one, default=60, help="latency: events, and commits, whose way is timed (60)"
    )
    parser.add_argument("--landing", type=Path, help="year: a landing area; a simulated shop's when left out")
    parser.add_argument("--days", type=_at_least_one, default=30, help="year: days the simulated shop trades (30)")
    parser.add_argument("--scale", type=float, default=1.0, help="year: size of the simulated shop (1)")
    parser.add_argument("--json", type=Path, help="keep each result in this file; one of the same name is replaced")
    parser.add_argument("--charts", type=Path, help="draw each result into this folder, bench-<name>.svg")
    parser.add_argument("--markdown", type=Path, help="write all results of --json into this document, as tables")
    chosen = parser.parse_args(arguments)
    known = {*NAMES, "all", RENDER}
    if unknown := [name for name in chosen.benchmark if name not in known]:
        parser.error(f"there is no benchmark {unknown[0]!r}; choose from {', '.join([*NAMES, 'all', RENDER])}")
    if RENDER in chosen.benchmark and len(chosen.benchmark) > 1:
        parser.error(f"{RENDER!r} measures nothing, so it stands alone")
    if chosen.json is None and (chosen.markdown or RENDER in chosen.benchmark):
        parser.error("the document and the charts are made of what is in --json; name the file")
    return chosen


def _measurements(chosen: argparse.Namespace) -> Iterator[Callable[[], Result]]:
    every = not chosen.benchmark or "all" in chosen.benchmark
    asked = [name for name in NAMES if every or name in chosen.benchmark]
    for name in asked:
        if name == "ingest":
            known: dict[int, Timing] = {}
            yield from (partial(ingest.run, rows, chosen.runs, known) for rows in chosen.rows)
        elif name == "year":
            yield partial(year.run, chosen.landing, chosen.runs, chosen.days, chosen.scale)
        elif name == "stream":
            yield partial(stream.run, chosen.events, chosen.runs)
        elif name == "latency":
            yield partial(latency.run, chosen.probes)
        elif name == "overhead":
            yield partial(overhead.run, chosen.runs)
        else:
            sized = {"history": history.run, "daily": daily.run, "facts": facts.run}[name]
            yield partial(sized, chosen.size, chosen.runs)


def _drawn(result: Result, chosen: argparse.Namespace) -> None:
    if chosen.charts:
        chart.draw(result, chosen.charts)


def _rendered(kept: dict[str, report.Kept], chosen: argparse.Namespace) -> None:
    if chosen.markdown:
        report.render(chosen.markdown, kept, chosen.charts)


def _at_least_one(text: str) -> int:
    number = int(text.replace("_", "").replace(",", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, not {text}")
    return share


if __name__ == "__main__":
    sys.exit(main())
