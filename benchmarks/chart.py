"""A result as a chart: bars of the medians with their least and greatest round, as SVG.

Only drawing belongs here. The same numbers give the same bytes, so that a change in a chart is a change of a number.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import Result

# Ours and the peers', told apart by the first word of a timing's name. What was reckoned is hatched.
_OURS, _PEER = "#2f6db5", "#9aa5b1"

# Longer names are broken between words.
_NAME_LENGTH = 34

# From here on one bar is a hair beside another, and only a logarithm shows both.
_LOGARITHM_FROM = 150.0


def path_of(result: Result, folder: Path) -> Path:
    """Where the chart of a result is kept."""
    return folder / f"bench-{result.name}.svg"


def draw(result: Result, folder: Path) -> Path:
    """Write `bench-<name>.svg` into a folder; returns its path."""
    # Deferred: matplotlib takes most of a second to import, and no measurement needs it.
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    medians = [t.median for t in result.timings]
    lows = [m - min(t.seconds) for m, t in zip(medians, result.timings, strict=True)]
    highs = [max(t.seconds) - m for m, t in zip(medians, result.timings, strict=True)]
    places = range(len(medians))[::-1]
    path = path_of(result, folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Element ids are drawn from a salt that is random otherwise; text stays text, so that it can be searched.
    with matplotlib.rc_context({"svg.hashsalt": "sluice", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, 0.9 + 0.36 * len(medians)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        bars = axes.barh(
            places,
            medians,
            height=0.62,
            color=[_OURS if t.name.startswith("Sluice") else _PEER for t in result.timings],
            xerr=[lows, highs],
            error_kw={"linewidth": 0.9, "capsize": 2.5, "ecolor": "#333333"},
        )
        for bar, timing in zip(bars, result.timings, strict=True):
            if timing.reckoned:
                bar.set_hatch("////")
                bar.set_edgecolor("white")
        for place, median, high in zip(places, medians, highs, strict=True):
            axes.annotate(
                _seconds(median), (median + high, place), (4, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_ylim(-0.6, len(medians) - 0.4)
        axes.set_yticks(list(places), [_broken(t.name) for t in result.timings])
        if max(medians) > _LOGARITHM_FROM * max(min(medians), 1e-9):
            axes.set_xscale("log")
            axes.set_xlim(min(medians) / 2, max(medians) * 4)
        else:
            axes.set_xlim(0, max(m + h for m, h in zip(medians, highs, strict=True)) * 1.14)
        axes.set_xlabel("seconds, " + _rounds(result) + (", logarithmic" if axes.get_xscale() == "log" else ""))
        axes.set_title(result.title, loc="left", fontsize=10)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    # The SVG writer ends lines with blanks, which no diff wants.
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
    return path


def _rounds(result: Result) -> str:
    counts = {len(t.seconds) for t in result.timings}
    if counts == {1}:
        return "one round"
    return "median, least and greatest" + (f" of {counts.pop()} rounds" if len(counts) == 1 else " round")


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.01 else f"{value:.4f}"


def _broken(name: str) -> str:
    lines = [""]
    for word in name.split():
        if lines[-1] and len(lines[-1]) + len(word) >= _NAME_LENGTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
