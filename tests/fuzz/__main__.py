"""`python -m tests.fuzz [--files N] [--seed S] [--first N]`: rounds of bad input; exit code 1 if anything was wrong."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

from tests.fuzz.campaign import run
from tests.fuzz.cases import TOGETHER


def main() -> int:
    """Run, report, and say how to run it again."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Ingest spoilt files and look for every row."
    )
    parser.add_argument(
        "--files", type=int, default=int(os.environ.get("FUZZ_FILES") or 10_000), help="how many (10000)"
    )
    parser.add_argument(
        "--seed", type=int, default=int(os.environ.get("FUZZ_SEED") or secrets.randbelow(10**6)), help="(anew)"
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first one (0)")
    parser.add_argument("--jobs", type=int, default=2, help="rounds at a time (2)")
    parser.add_argument("--kept", type=Path, default=Path(".fuzz"), help="folder for files that failed (.fuzz)")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}; again: python -m tests.fuzz --seed {chosen.seed} --files {chosen.files}", flush=True)
    first = chosen.first // TOGETHER * TOGETHER
    count = -(-chosen.files // TOGETHER) * TOGETHER
    found = run(chosen.seed, range(first, first + count), chosen.kept.resolve(), chosen.jobs, print)
    for line in found.lines():
        print(line)
    return 1 if found.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
