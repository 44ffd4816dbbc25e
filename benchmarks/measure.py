"""Timing, the machine it was done on, and how a result is shown.

Belongs here: what every benchmark needs. What is timed, and against what, belongs to the benchmarks.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

_PACKAGES = ("duckdb", "duckdb-extension-ducklake", "dbt-core", "dbt-duckdb", "dagster")


@dataclass
class Timing:
    """One thing timed once per round. CPU seconds, all threads and child processes, where they were taken.

    `reckoned` is set where the seconds were not measured but follow from what was, and the name says how.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    reckoned: bool = False

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


def times(name: str, measured: Timing, factor: float) -> Timing:
    """What `measured` comes to so many times over: reckoned, not measured."""
    return Timing(
        name, [s * factor for s in measured.seconds], [s * factor for s in measured.cpu_seconds], reckoned=True
    )


@dataclass(frozen=True)
class Ratio:
    """How many times as long one thing took as another, by their medians, and what that should be at most or least."""

    name: str
    value: float
    aim: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Whether the aim was met; empty without one."""
        if self.aim is None:
            return ""
        return "met" if (self.value >= self.aim if self.at_least else self.value <= self.aim) else "not met"

    @property
    def shown_verdict(self) -> str:
        """Likewise in Markdown: an aim that was missed stands out."""
        return f"**{self.verdict}**" if self.verdict == "not met" else self.verdict

    @property
    def aimed(self) -> str:
        """The aim in words; empty without one."""
        if self.aim is None:
            return ""
        return f"{self.aim:g} at {'least' if self.at_least else 'most'}"


def ratio(name: str, over: Timing, under: Timing, aim: float | None = None, *, at_least: bool = False) -> Ratio:
    """The ratio of two medians."""
    return Ratio(name, over.median / under.median, aim, at_least)


def short(number: int) -> str:
    """A round number as it is said in names: 10m, 50k; others whole."""
    for size, letter in ((1_000_000, "m"), (1_000, "k")):
        if number >= size and number % size == 0:
            return f"{number // size}{letter}"
    return str(number)


@dataclass(frozen=True)
class Result:
    """What a benchmark found: about what data, how long each part took, and the ratios.

    `name` is of letters, digits and hyphens: files are named by it.
    """

    name: str
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
        ratios = [[r.name, f"{r.value:.2f}", r.aimed, r.verdict] for r in self.ratios]
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
            "name": self.name,
            "title": self.title,
            "facts": list(self.facts),
            "timings": [
                {
                    "name": t.name,
                    "median": t.median,
                    "seconds": t.seconds,
                    "cpu_seconds": t.cpu_seconds,
                    "reckoned": t.reckoned,
                }
                for t in self.timings
            ],
            "ratios": [
                {"name": r.name, "value": r.value, "aim": r.aim, "at_least": r.at_least, "verdict": r.verdict}
                for r in self.ratios
            ],
        }

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Result:
        """The result `data()` was made of."""
        return cls(
            data["name"],
            data["title"],
            tuple(data["facts"]),
            tuple(Timing(t["name"], t["seconds"], t["cpu_seconds"], t["reckoned"]) for t in data["timings"]),
            tuple(Ratio(r["name"], r["value"], r["aim"], r["at_least"]) for r in data["ratios"]),
        )

    def markdown(self) -> str:
        """For `docs/benchmarks.md`."""
        times = [
            f"| {t.name} | {t.median:.2f} | {min(t.seconds):.2f} to {max(t.seconds):.2f} | "
            f"{f'{statistics.median(t.cpu_seconds):.2f}' if t.cpu_seconds else ''} |"
            for t in self.timings
        ]
        ratios = [f"| {r.name} | {r.value:.2f} | {r.aimed} | {r.shown_verdict} |" for r in self.ratios]
        return "\n".join(
            [
                *(f"- {fact}" for fact in self.facts),
                "",
                "| seconds | median | min to max | CPU, median |",
                "|---|---:|---:|---:|",
                *times,
                "",
                "| ratio of medians | | aim | |",
                "|---|---:|---|---|",
                *ratios,
            ]
        )


def machine() -> dict[str, str]:
    """What the numbers depend on: cores, memory, load, versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = {"cores": str(cores)}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    if hasattr(os, "getloadavg"):
        # Of the minute before, to which a benchmark before this one counts.
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
