"""The command line of the simulated shop: `python -m sluice.simulation --out DIR`.

What belongs here: parsing of arguments and the one line of summary. What does not: any decision about what
is generated, which `sluice.simulation.shop` takes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from sluice.simulation.shop import DEFAULT_DAYS, DEFAULT_SCALE, DEFAULT_SEED, DEFAULT_START, generate


def main(argv: Sequence[str] | None = None) -> int:
    """Generate a landing area and print one line about it.

    Args:
        argv: the arguments without the program's name; None takes those of the process.

    Returns:
        0, or 2 when an argument or the target folder is refused (the reason is on standard error).

    """
    parser = argparse.ArgumentParser(
        prog="python -m sluice.simulation", description="Write the landing area of a simulated shop."
    )
    parser.add_argument("--out", type=Path, required=True, help="the landing folder to write")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="the seed of every draw")
    parser.add_argument("--days", type=int, default=DEFAULT_DAYS, help="the number of days, at least 1")
    parser.add_argument("--scale", type=float, default=DEFAULT_SCALE, help="the factor on rows, above 0")
    parser.add_argument("--start", type=date.fromisoformat, default=DEFAULT_START, help="the first day, YYYY-MM-DD")
    parser.add_argument("--truth", type=Path, default=None, help="also write the truth as JSON to this file")
    arguments = parser.parse_args(argv)
    try:
        truth = generate(
            arguments.out,
            seed=arguments.seed,
            days=arguments.days,
            scale=arguments.scale,
            start=arguments.start,
        )
    except ValueError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    if arguments.truth is not None:
        truth.write(arguments.truth)
    counts = ", ".join(f"{source} {ledger.rows_read}" for source, ledger in truth.ledger.items())
    bad = sum(ledger.dead_lettered for ledger in truth.ledger.values())
    print(f"{len(truth.arrivals)} files in {arguments.out}: rows {counts}; {bad} of them bad")
    return 0


if __name__ == "__main__":
    sys.exit(main())
