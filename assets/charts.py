"""What a table looks like: row count, a preview, and a chart where it tells more than rows.

Reads the lake, writes nothing. Which model gets which chart is decided here and nowhere else.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import dagster as dg
import duckdb

_PREVIEW_ROWS = 8
_PREVIEW_COLUMNS = 14
_CELL = 40

# Ten years of three regions; more points than that are not told apart on 800 pixels.
_CHART_ROWS = 11_000

# Model: a query of (x, y, series), and the title. A line each.
_CHARTS = {
    "gold.mart_daily_sales": (
        "SELECT calendar_date, net_amount::DOUBLE, region_key FROM {table} ORDER BY 1",
        "Net amount per day and region",
    ),
}


def preview_metadata(
    con: duckdb.DuckDBPyConnection, table: str, personal: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Row count, first rows, and the chart of a table named `schema.table`.

    Args:
        con: attached to the lake.
        table: `schema.table`.
        personal: columns left out: whoever sees the UI is not thereby allowed to see people.
    """
    row = con.execute(f"SELECT count(*) FROM {table}").fetchone()
    found: dict[str, Any] = {
        "dagster/row_count": row[0] if row else 0,
        "preview": dg.MetadataValue.md(_preview(con, table, personal)),
    }
    if table in _CHARTS:
        query, title = _CHARTS[table]
        rows = con.execute(query.format(table=table)).fetchmany(_CHART_ROWS)
        found["chart"] = dg.MetadataValue.md(_chart(rows, title))
    return found


def _preview(con: duckdb.DuckDBPyConnection, table: str, personal: frozenset[str]) -> str:
    result = con.execute(f"SELECT * FROM {table} LIMIT {_PREVIEW_ROWS}")
    names = [d[0] for d in result.description or []]
    shown = [i for i, name in enumerate(names) if name not in personal and not name.startswith("_")][:_PREVIEW_COLUMNS]
    lines = ["| " + " | ".join(names[i] for i in shown) + " |", "|" + "---|" * len(shown)]
    lines += ["| " + " | ".join(_cell(row[i]) for i in shown) + " |" for row in result.fetchall()]
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    text = text.replace("|", "\\|").replace("\n", " ").replace("\r", " ")
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _chart(rows: list[tuple[Any, float, str]], title: str) -> str:
    """A line per series."""
    figure, axes = _axes(title)
    for series in sorted({r[2] for r in rows}):
        own = [r for r in rows if r[2] == series]
        axes.plot([r[0] for r in own], [r[1] for r in own], label=series, linewidth=1.2)
    axes.grid(axis="y", linewidth=0.3)
    if rows:
        axes.legend(fontsize=8, frameon=False)
    return _markdown(figure, title)


def bars(rows: Sequence[tuple[str, int]], title: str) -> str:
    """A bar per name, the first on top, as an image in Markdown."""
    figure, axes = _axes(title)
    # A dollar sign would begin a formula.
    names = [name.replace("$", r"\$") for name, _ in rows][::-1]
    drawn = axes.barh(names, [count for _, count in rows][::-1], height=0.6)
    axes.bar_label(drawn, fontsize=8, padding=2)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return _markdown(figure, title)


def _axes(title: str) -> tuple[Any, Any]:
    # Deferred: matplotlib takes most of a second to import.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=10)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _markdown(figure: Any, title: str) -> str:
    """A figure as a PNG in Markdown: Dagster shows Markdown images, and nothing is fetched to draw them."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90)
    return f"![{title}](data:image/png;base64,{base64.b64encode(out.getvalue()).decode()})"
