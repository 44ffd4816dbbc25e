"""Many rounds, each in a process of its own, two at a time; and how a failing case is found, kept and run again.

A round that ends without an answer (a crash, an exception, no memory) is run again in halves until the case that does
it stands alone. What failed is kept in a folder: the file as it was delivered, and the command that runs it again.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from sluice.settings import PROJECT
from tests.fuzz.cases import TOGETHER, make_case

# Cases in a round: enough that attaching the lake and starting Python cost little, few enough to find one among them.
ROUND = 500

# What a round may take at most: DuckDB's limit, which `round` sets to 1 GB, and Python with the cases and the oracle.
# The address space is what a process may ask for, and DuckDB asks for more than it uses.
MOST_MB = 1600
ADDRESS_SPACE = 12 * 1024**3
SECONDS = 1800


@dataclass
class Outcome:
    """What all rounds found."""

    complaints: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    families: Counter[str] = field(default_factory=Counter)
    peak_mb: int = 0
    seconds: float = 0

    def lines(self) -> Iterator[str]:
        """A report for people."""
        yield f"{self.counts['files delivered']:,} files in {self.seconds:.0f} s, at most {self.peak_mb} MB of memory"
        yield ", ".join(f"{name} {count:,}" for name, count in sorted(self.counts.items()))
        yield ", ".join(f"{name} {count:,}" for name, count in sorted(self.families.items()))
        yield f"{len(self.complaints)} complaints"
        yield from self.complaints


def run(
    seed: int, numbers: range, kept: Path, jobs: int = 2, tell: Callable[[str], None] = lambda line: None
) -> Outcome:
    """Run the cases of these numbers.

    Args:
        seed: they are made from.
        numbers: of the cases; whole groups that share a partition.
        kept: folder for what fails.
        jobs: rounds at a time.
        tell: gets a line after each round.
    """
    started = time.monotonic()
    found = Outcome()
    pieces = [numbers[i : i + ROUND] for i in range(0, len(numbers), ROUND)]
    with ThreadPoolExecutor(jobs) as pool:
        for piece, told in zip(pieces, pool.map(lambda piece: _round(seed, piece), pieces), strict=True):
            for result in told:
                _add(found, seed, result, kept)
            tell(f"{time.monotonic() - started:6.0f} s  cases to {piece[-1]:>6}  {len(found.complaints)} complaints")
    found.seconds = time.monotonic() - started
    return found


def _add(found: Outcome, seed: int, result: dict[str, Any], kept: Path) -> None:
    found.counts.update(result.get("counts", {}))
    found.families.update(result.get("families", {}))
    found.peak_mb = max(found.peak_mb, result.get("peak_mb", 0))
    piece = result["numbers"]
    for number, what in result["complaints"]:
        first, last = (
            (number // TOGETHER * TOGETHER, number // TOGETHER * TOGETHER + TOGETHER - 1)
            if number is not None
            else piece
        )
        again = f"python -m tests.fuzz --seed {seed} --first {first} --files {last - first + 1}"
        found.complaints.append(f"{what}\n    again: {again}")
        if number is not None:
            _keep(seed, number, again, what, kept)


def _keep(seed: int, number: int, again: str, what: str, kept: Path) -> None:
    folder = kept / f"{seed}-{number}"
    if folder.exists():
        return
    folder.mkdir(parents=True)
    with duckdb.connect() as con:
        case = make_case(con, seed, number)
    (folder / "delivered").write_bytes(case.data)
    (folder / "README").write_text(f"{case.title}\n{what}\n{again}\n", encoding="utf-8")


def _round(seed: int, numbers: range) -> list[dict[str, Any]]:
    """The results of one round, or of its halves where it gives none."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-fuzz-"))
    command = [sys.executable, "-m", "tests.fuzz.round", str(folder), str(seed), f"{numbers[0]}-{numbers[-1]}"]
    where = [numbers[0], numbers[-1]]
    try:
        done = subprocess.run(
            command, cwd=PROJECT, capture_output=True, text=True, timeout=SECONDS, check=False, preexec_fn=_limit,
            env={**{k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}, "PYTHONPATH": str(PROJECT)},
        )  # fmt: skip
        result: dict[str, Any] = (
            json.loads(done.stdout) if done.returncode == 0 else {"complaints": [], "error": _ending(done)}
        )
    except subprocess.TimeoutExpired:
        result = {"complaints": [], "error": f"no answer within {SECONDS} s"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result["numbers"] = where
    if result.get("peak_mb", 0) > MOST_MB:
        result["complaints"].append(
            [None, f"cases {where[0]} to {where[1]} took {result['peak_mb']} MB, more than {MOST_MB}"]
        )
    if not result.get("error"):
        return [result]
    if len(numbers) <= TOGETHER:
        result["complaints"].append([numbers[0], f"cases {where[0]} to {where[1]} failed: {result['error']}"])
        return [result]
    half = len(numbers) // 2 // TOGETHER * TOGETHER or TOGETHER
    halves = _round(seed, numbers[:half]) + _round(seed, numbers[half:])
    if not any(h["complaints"] for h in halves):
        halves.append({"complaints": [[None, f"only together: {result['error']}"]], "numbers": where})
    return halves


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    how = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return f"{how}: {done.stderr[-2000:]}"
