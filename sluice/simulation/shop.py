"""The generator of a simulated shop's landing area, day by day.

What belongs here: the checks of the arguments, the order of the steps and the assembly of the truth. What
does not: what the files contain, which `history`, `sales` and `sessions` decide, and how they are written
(`landing`).

Everything follows from the arguments: each part draws from a generator of its own, seeded with the seed and
the part's name, and nothing asks for the time. Files are byte for byte the same wherever the same zlib packs
them.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import date, timedelta
from pathlib import Path
from random import Random

from sluice.simulation.catalog import make_cast
from sluice.simulation.clock import midnight
from sluice.simulation.history import ChangeFeed, make_history
from sluice.simulation.landing import Landing
from sluice.simulation.sales import Facts, Sales, check_size
from sluice.simulation.sessions import Sessions
from sluice.simulation.truth import Truth

DEFAULT_SEED = 7  # any number does; a fixed one makes two plain runs agree
DEFAULT_DAYS = 30  # long enough for every kind of dirt to occur
DEFAULT_SCALE = 1.0  # the sizes named in `catalog`, `sales` and `sessions`
DEFAULT_START = date(2026, 1, 1)  # a Thursday; the month holds all weekdays four times and more


def generate(
    out: Path,
    *,
    seed: int = DEFAULT_SEED,
    days: int = DEFAULT_DAYS,
    scale: float = DEFAULT_SCALE,
    start: date = DEFAULT_START,
    besides: Collection[str] = (),
) -> Truth:
    """Write the landing area of a simulated shop and return the right answers.

    Below `out` there are afterwards only the folders `orders`, `cdc` and `events` of this generation; files
    of a former one are removed. The list by which they are recognised is `.<name of out>.shop-manifest`
    beside `out`. Folders named in `besides` are nobody's business here.

    Args:
        out: the landing folder; made if absent.
        seed: the seed of every draw.
        days: length of the period in days, at least 1.
        scale: factor on the numbers of rows, above 0. At 1 there are about 1,500 order lines and 3,000 events
            a day, 600 products and 900 customers.
        start: the first day, UTC.
        besides: folders below `out` that others fill, such as `exchange_rates`.

    Returns:
        The truth about the files written.

    Raises:
        ValueError: days or scale is out of range, the period passes the calendar's end or needs more
            six-digit invoice numbers than there are, `out` is no folder or holds files of others. Nothing has
            been written or removed then.
        OSError: a file cannot be written.

    """
    if days < 1:
        raise ValueError(f"days must be at least 1, not {days}")
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a number above 0, not {scale}")
    if days > (date.max - start).days:
        raise ValueError(f"{days} days from {start.isoformat()} pass the end of the calendar")
    check_size(days, scale)

    first_ms = midnight(start)
    cast = make_cast(Random(f"{seed}/cast"), scale)
    history = make_history(Random(f"{seed}/history"), cast, first_ms, days)
    facts = Facts(history)
    sales = Sales(Random(f"{seed}/sales"), cast, history, scale=scale, days=days)
    sessions = Sessions(Random(f"{seed}/sessions"), cast, scale=scale, days=days, first_ms=first_ms)
    feeds = {
        table: ChangeFeed(Random(f"{seed}/{table}"), table, history.changes, first_ms, days)
        for table in ("products", "customers")
    }

    with Landing(out, besides) as landing:
        for index in range(days):
            day = start + timedelta(days=index)
            for table, feed in feeds.items():
                lines = feed.lines(index)
                # Customers come unpacked on every fifth day: readers must take both forms.
                packed = "" if table == "customers" and index % 5 == 3 else ".gz"
                if lines:
                    landing.deliver(
                        table,
                        day.isoformat(),
                        f"cdc/{table}/date={day.isoformat()}/{table}.jsonl{packed}",
                        lines,
                        day=index,
                    )
            invoices = sales.invoices(index, day, midnight(day))
            for invoice in invoices:
                facts.add(day, invoice)
            sales.deliver(landing, index, day, invoices)
            sessions.deliver(landing, index, day, invoices)

    return Truth(
        ledger=landing.ledger(),
        ledger_by_partition=landing.ledger_by_partition(),
        reasons=landing.reasons(),
        arrivals=landing.arrivals(),
        versions={"products": history.products.all(), "customers": history.customers.all()},
        facts={**facts.totals(), **sessions.totals()},
        revenue_by_day_region=facts.revenue_by_day_region(),
    )
