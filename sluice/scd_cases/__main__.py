"""`python -m sluice.scd_cases PATH...`: arguments and output, and nothing else of the package."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sluice.errors import SluiceError
from sluice.scd_cases.cases import read_cases
from sluice.scd_cases.verdicts import run_cases


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases of some paths; prints a line per case and one of summary.

    Returns:
        0 if none failed, 1 if one did, 2 if the input cannot be used (the reason is on standard error).
    """
    parser = argparse.ArgumentParser(
        prog="python -m sluice.scd_cases", description="Run cases of history through the materialization scd."
    )
    parser.add_argument("path", nargs="+", type=Path, help=".jsonl files, or folders of them")
    chosen = parser.parse_args(arguments)
    began = time.perf_counter()
    try:
        cases = read_cases(chosen.path)
        with tempfile.TemporaryDirectory(prefix="scd_cases_") as folder:
            verdicts = run_cases(cases, Path(folder))
    except SluiceError as error:
        sys.stderr.write(f"scd_cases: {error}\n")
        return 2
    width = max(len(case.name) for case in cases)
    for verdict in verdicts:
        lines = [f"{verdict.case.name:<{width}}  {verdict.said}", *(f"    {line}" for line in verdict.details)]
        if verdict.said == "FAIL":
            lines.insert(1, f"    {verdict.case.where}")
        sys.stdout.write("\n".join(lines) + "\n")
    counts = Counter(verdict.said.split(":")[0] for verdict in verdicts)
    said = ", ".join(f"{counts[word]} {word}" for word in ("pass", "decided otherwise", "dialect only", "FAIL"))
    sys.stdout.write(f"{len(cases)} cases: {said}; {time.perf_counter() - began:.1f} s\n")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
