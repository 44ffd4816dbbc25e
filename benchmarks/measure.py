"""Timing, the machine it was done on, and how a result is shown.

Belongs here: what every benchmark needs. What is timed, and against what, belongs to the benchmarks.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

_PACKAGES = ("duckdb", "duckdb-extension-ducklake", "dbt-core", "dbt-duckdb", "dagster")


@dataclass
class Timing:
    """One thing timed once per round. CPU seconds, all threads and child processes, where they were taken."""

    name: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.seconds)

    @contextmanager
    def round(self) -> Iterator[None]:
        """Time what is done inside."""
        cpu, begun = _cpu(), time.perf_counter()
        yield
        self.seconds.append(time.perf_counter() - begun)
        self.cpu_seconds.append(_cpu() - cpu)


def total(name: str, parts: Sequence[Timing]) -> Timing:
    """The sum of several timings, round by round; without CPU time where a part has none."""
    made = Timing(name, [sum(seconds) for seconds in zip(*(p.seconds for p in parts), strict=True)])
    if all(p.cpu_seconds for p in parts):
        made.cpu_seconds = [sum(seconds) for seconds in zip(*(p.cpu_seconds for p in parts), strict=True)]
    return made


@dataclass(frozen=True)
class Ratio:
    """How many times as long one thing took as another, by their medians, and the most it should be."""

    name: str
    value: float
    aim: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the aim was met; empty without one."""
        if self.aim is None:
            return ""
        return "met" if self.value <= self.aim else "not met"


def ratio(name: str, ours: Timing, peer: Timing, aim: float | None = None) -> Ratio:
    """The ratio of two medians."""
    return Ratio(name, ours.median / peer.median, aim)


@dataclass(frozen=True)
class Result:
    """What a benchmark found: about what data, how long each part took, and the ratios."""

    title: str
    facts: tuple[str, ...]
    timings: tuple[Timing, ...]
    ratios: tuple[Ratio, ...]

    def text(self) -> str:
        """For people."""
        times = [
            [
                t.name,
                f"{t.median:.2f}",
                f"{min(t.seconds):.2f}-{max(t.seconds):.2f}",
                f"{statistics.median(t.cpu_seconds):.2f}" if t.cpu_seconds else "",
            ]
            for t in self.timings
        ]
        ratios = [[r.name, f"{r.value:.2f}", "" if r.aim is None else f"<= {r.aim:g}", r.verdict] for r in self.ratios]
        return "\n".join(
            [
                self.title,
                *(f"  {fact}" for fact in self.facts),
                "",
                *_table(["seconds", "median", "min-max", "CPU"], times),
                "",
                *_table(["ratio of medians", "", "aim", ""], ratios),
            ]
        )

    def data(self) -> dict[str, Any]:
        """For machines."""
        return {
            "title": self.title,
            "facts": list(self.facts),
            "timings": [
                {"name": t.name, "median": t.median, "seconds": t.seconds, "cpu_seconds": t.cpu_seconds}
                for t in self.timings
            ],
            "ratios": [{"name": r.name, "value": r.value, "aim": r.aim, "verdict": r.verdict} for r in self.ratios],
        }


def machine() -> dict[str, str]:
    """What the numbers depend on: cores, memory, load, versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = {"cores": str(cores)}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    if hasattr(os, "getloadavg"):
        # Above 0 before the first round: something else was running, and the seconds are worth less.
        found["load before"] = f"{os.getloadavg()[0]:.1f}"
    found["system"] = f"{platform.system()} {platform.machine()}"
    found["python"] = platform.python_version()
    return found | {name: version(name) for name in _PACKAGES}


def _cpu() -> float:
    # User and system time of this process and of the children it has waited for.
    return sum(os.times()[:4])


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    cells = [head, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  "
        + "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
