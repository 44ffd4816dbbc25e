"""Results kept by name in a JSON file, and what is made of them: the tables in a document, the charts.

Belongs here: keeping and rendering. A number in `docs/benchmarks.md` is never typed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import chart
from benchmarks.measure import Result

# Between these two lines of a document stands what is rendered.
BEGIN, END = "<!-- begin of what `python -m benchmarks render` writes -->", "<!-- end of it -->"


@dataclass(frozen=True)
class Kept:
    """A result, and the machine it was measured on as `measure.machine()` describes it."""

    result: Result
    machine: Mapping[str, str]


def load(path: Path) -> dict[str, Kept]:
    """The results kept in a file, by name; none if there is no file.

    Raises:
        ValueError: the file is not one of `save`.
    """
    if not path.exists():
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {entry["name"]: Kept(Result.of(entry), entry["machine"]) for entry in kept["results"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no results of benchmarks: {error!r}. Name another file.") from error


def save(path: Path, results: Mapping[str, Kept]) -> None:
    """Write results to a file, in the order of their names; whoever reads it meanwhile sees the former ones whole."""
    entries = [{**results[name].result.data(), "machine": dict(results[name].machine)} for name in sorted(results)]
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f"{path.name}.tmp")
    written.write_text(json.dumps({"results": entries}, indent=1) + "\n", encoding="utf-8")
    written.replace(path)


def render(document: Path, results: Mapping[str, Kept], charts: Path | None = None) -> None:
    """Put tables into a document, between its two marks.

    Args:
        document: to be changed.
        results: all there are, by name.
        charts: folder of the charts, if they are to be shown.

    Raises:
        ValueError: the document lacks a mark.
    """
    text = document.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{document} needs the lines {BEGIN!r} and {END!r}, once each and in this order.")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    sections = [_section(results[name], document, charts) for name in sorted(results)]
    document.write_text(
        "\n\n".join([before + BEGIN, *([_aims(results)] if results else []), *sections, after]), encoding="utf-8"
    )


def _aims(results: Mapping[str, Kept]) -> str:
    """Every ratio that has an aim, beside what was measured."""
    rows = [
        f"| {result.title} | {each.name} | {each.aimed} | {each.value:.2f} | {each.shown_verdict} |"
        for name in sorted(results)
        for result in [results[name].result]
        for each in result.ratios
        if each.aim is not None
    ]
    return "\n".join(["| benchmark | ratio of medians | aim | measured | |", "|---|---|---|---:|---|", *rows])


def _section(kept: Kept, document: Path, charts: Path | None) -> str:
    result = kept.result
    machine = ", ".join(f"{name} {value}" for name, value in kept.machine.items())
    parts = [f"### {result.title[0].upper()}{result.title[1:]}", f"{result.markdown()}\n\nMachine: {machine}."]
    if charts is not None:
        image = os.path.relpath(chart.path_of(result, charts), document.parent)
        parts.insert(1, f"![{result.title}]({Path(image).as_posix()})")
    return "\n\n".join(parts)
