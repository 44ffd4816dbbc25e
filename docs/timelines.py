"""Draw the time lines of docs/scd.md: logs go through the real materialization, and what comes out is drawn.

Only the pictures and their logs belong here; the rules are in docs/scd.md. Run from the project's folder:

    python -m docs.timelines docs/images
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.scd_harness import Harness, Model, Row

LOG = {"k": "VARCHAR", "at": "BIGINT", "n": "BIGINT", "gone": "BOOLEAN", "value": "VARCHAR"}
CONFIG: dict[str, Any] = {
    "natural_key": "k",
    "columns": {"value": 2},
    "sequence_by": ["n"],
    "valid_from": "at",
    "delete_when": "gone",
}
END = 34  # of the axis; open versions end in an arrow there


@dataclass(frozen=True)
class Picture:
    """A log in batches, and one line to be drawn for the result after each batch, or for each of several options.

    Args:
        batches: changes as (at, value) or (at, None) for a delete.
        lines: name of each line, the options it is made with, how many batches it has seen, and the column it shows.
    """

    name: str
    batches: Sequence[Sequence[tuple[int, str | None]]]
    lines: Sequence[tuple[str, dict[str, Any], int, str]]
    sequence: Sequence[int] | None = None


PICTURES = (
    Picture(
        "late-row",
        [[(5, "Alice"), (15, "Alice"), (20, "Carol")], [(10, "Bob")]],
        [("before", {}, 1, "value"), ("after", {}, 2, "value")],
    ),
    Picture(
        "delete-and-return",
        [[(10, "a"), (20, None), (28, "a")]],
        [("deletes='close'", {}, 1, "value"), ("deletes='keep'", {"deletes": "keep"}, 1, "value")],
    ),
    Picture("tie", [[(10, "b"), (10, "a"), (22, "c")]], [("whichever came first", {}, 1, "value")], sequence=(1, 1, 2)),
    Picture(
        "type-6",
        [[(8, "gold"), (20, "silver")]],
        [
            ("tier: as it was", {"columns": {"value": 6}}, 1, "value"),
            ("current_tier: as it is", {"columns": {"value": 6}}, 1, "current_value"),
        ],
    ),
)

_CHANGE, _LATE, _DELETE = "#2f6db5", "#d9822b", "#b23b3b"
_FILL = {False: "#cfe0f3", True: "#f3d3d3"}


def main() -> int:
    """Draw every picture into the folder given."""
    if len(sys.argv) != 2:
        print("usage: python -m docs.timelines FOLDER", file=sys.stderr)
        return 2
    for path in draw_all(Path(sys.argv[1])):
        print(path)
    return 0


def draw_all(folder: Path) -> list[Path]:
    """Build the histories, draw them; returns the files written, `scd-<name>.svg`."""
    with tempfile.TemporaryDirectory(prefix="sluice-timelines-") as work, Harness(Path(work) / "lake") as harness:
        return [_draw(picture, _histories(picture, harness), folder) for picture in PICTURES]


def _histories(picture: Picture, harness: Harness) -> list[list[Row]]:
    stem = picture.name.replace("-", "_")
    models = [Model(f"{stem}_{i}", CONFIG | options, LOG) for i, (_, options, _, _) in enumerate(picture.lines)]
    harness.define(models)
    number = 0
    found: list[list[Row]] = [[] for _ in models]
    for batch, changes in enumerate(picture.batches):
        rows: list[Row] = []
        for at, value in changes:
            place = picture.sequence[number] if picture.sequence else at
            rows.append({"k": "key", "at": at, "n": place, "gone": value is None, "value": value})
            number += 1
        harness.change_logs({model.name: {batch: rows} for model in models})
        failed = {name: why for name, why in harness.build([m.name for m in models]).items() if why}
        if failed:
            raise RuntimeError(f"{picture.name}: {failed}")
        for i, (_, _, seen, _) in enumerate(picture.lines):
            if seen == batch + 1:
                found[i] = sorted(harness.read(models[i].name), key=lambda row: row["valid_from"])
    return found


def _draw(picture: Picture, histories: list[list[Row]], folder: Path) -> Path:
    # Deferred: matplotlib takes most of a second to import.
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    path = folder / f"scd-{picture.name}.svg"
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "sluice", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7.2, 0.55 + 0.45 * (len(histories) + 1)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        top = len(histories)
        _draw_log(axes, picture, top)
        for i, rows in enumerate(histories):
            _draw_versions(axes, rows, picture.lines[i][3], top - 1 - i)
        axes.set_yticks([*range(top, -1, -1)], ["log", *(line[0] for line in picture.lines)])
        axes.set_ylim(-0.5, top + 0.6)
        axes.set_xlim(0, END + 1.5)
        axes.set_xticks(range(0, END, 5))
        axes.tick_params(length=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
    return path


def _draw_log(axes: Any, picture: Picture, place: int) -> None:
    at_once: dict[int, int] = {}
    for batch, changes in enumerate(picture.batches):
        for at, value in changes:
            shift = at_once.get(at, 0)
            at_once[at] = shift + 1
            color = _DELETE if value is None else _LATE if batch else _CHANGE
            axes.plot([at], [place], marker="x" if value is None else "o", color=color, markersize=6)
            text = "delete" if value is None else value + (", late" if batch else "")
            # Beside each other where they share an instant.
            axes.annotate(text, (at, place), (6 + 14 * shift, 4), textcoords="offset points", color=color)


def _draw_versions(axes: Any, rows: list[Row], column: str, place: int) -> None:
    for row in rows:
        begin, end = row["valid_from"], row["valid_to"]
        deleted = bool(row.get("is_deleted"))
        until = END if end is None else end
        axes.barh([place], [until - begin], left=begin, height=0.5, color=_FILL[deleted], edgecolor="#333333", lw=0.8)
        if end is None:
            axes.plot([until + 0.4], [place], marker=">", color="#333333", markersize=5)
        text = f"{row[column]}" + (" (deleted)" if deleted else "")
        axes.text(begin + 0.4, place, text, va="center", ha="left")


if __name__ == "__main__":
    sys.exit(main())
