"""Instants of the simulation as whole milliseconds since 1970 UTC, and their text forms.

What belongs here: conversions between milliseconds, datetimes and text. What does not: any reading of the
machine's clock; the simulation knows only the days it was asked for.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # the zero of Debezium's ts_ms
SECOND = 1_000  # in milliseconds, the unit of every instant here
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR  # UTC has no days of 23 or 25 hours
UTC_OFFSET = "+00:00"  # what isoformat appends to an instant in UTC


def midnight(day: date) -> int:
    """Return the first instant of a day in UTC, in milliseconds since 1970."""
    return (day - EPOCH.date()).days * DAY


def instant(ms: int) -> datetime:
    """Return milliseconds since 1970 as a datetime in UTC; exact, no float is involved."""
    return EPOCH + timedelta(milliseconds=ms)


def iso_milliseconds(ms: int) -> str:
    """Return an instant as `YYYY-MM-DDTHH:MM:SS.mmmZ`."""
    return instant(ms).isoformat(timespec="milliseconds").removesuffix(UTC_OFFSET) + "Z"


def invoice_time(ms: int) -> str:
    """Return an instant as `YYYY-MM-DD HH:MM:SS`, the form of InvoiceDate; milliseconds are cut off."""
    return instant(ms).isoformat(sep=" ", timespec="seconds").removesuffix(UTC_OFFSET)
