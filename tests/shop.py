"""Landing areas for tests of the parts around the engine: a small shop's, and files written by hand."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from sluice.settings import Settings, load_settings

START, END = date(2026, 1, 1), date(2026, 1, 8)

ORDER_HEADER = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country"


def settings_in(folder: Path, **overrides: object) -> Settings:
    """Settings with everything below `folder`, a week of partitions, and a landing folder that is there."""
    # One thread: see `tests.conftest.Bench`.
    usual = {"home": str(folder / "home"), "start_date": START, "end_date": END, "threads": 1}
    settings = load_settings(**{**usual, **overrides})
    settings.landing_path.mkdir(parents=True, exist_ok=True)
    return settings


def order_line(number: int, **values: object) -> str:
    """A good order line, or a bad one by the values given."""
    fields: dict[str, object] = {
        "invoice": 500000 + number,
        "stock": "85048",
        "text": "TEA TOWEL",
        "quantity": 1 + number % 5,
        "at": "2026-01-02 10:00:00",
        "price": "2.50",
        "customer": 12345,
        "country": "United Kingdom",
        **values,
    }
    return ",".join(str(v) for v in fields.values())


def write_orders(settings: Settings, day: str, region: str, lines: Sequence[str], name: str = "orders.csv") -> Path:
    """Deliver a file of order lines; gzipped when the name says so."""
    path = settings.landing_path / f"orders/region={region}/date={day}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "\n".join([ORDER_HEADER, *lines, ""]).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
    return path
