"""The ways in which a good line is spoilt, and how often.

What belongs here: for each source the kinds of rejected line, the rules they break and their schedule. What
does not: dirt that a contract accepts (duplicates, lateness, disorder, odd headers); it arises where the
files are put together.

A spoilt line is made from a copy of a good one, so that it carries real keys and real amounts: a platform
that lets it pass gets a wrong total instead of a harmless one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from random import Random
from typing import Any

from sluice.simulation.landing import Line

RATE = 0.003  # about one spoilt line in 330: common enough to be met daily, far from the limit of a batch
CDC_RATE = 0.005  # the change streams have few lines; at RATE some kind would have no example in 30 days
LIMIT = 20  # at most one spoilt line to so many good ones, hence always below 5 % of a batch
MOST_OWED = 3.0  # small batches may not save up a flood for the next large one
CSV_MARKS = frozenset(',"\r\n')  # the characters for which RFC 4180 asks for quotes
REPEAT_EVERY = 8  # each eighth spoilt line is delivered twice: a bad line can be a duplicate, too

ORDER_KINDS: dict[str, tuple[str, ...]] = {
    "too_few_fields": ("malformed",),
    "too_many_fields": ("malformed",),
    "open_quote": ("malformed",),
    "quantity_word": ("type",),
    "quantity_fraction": ("type",),
    "date_impossible": ("type",),
    "date_word": ("type",),
    "price_comma": ("type",),
    "price_word": ("type",),
    "price_places": ("type",),
    "stock_code_empty": ("required",),
    "country_empty": ("required",),
    "invoice_pattern": ("pattern",),
    "customer_pattern": ("pattern",),
    "quantity_zero": ("quantity_not_zero",),
    "price_negative": ("minimum",),
    "zero_and_negative": ("quantity_not_zero", "minimum"),
    "no_code_and_price_word": ("required", "type"),
    "invoice_and_quantity": ("pattern", "type"),
}

_ORDER_CHANGES: dict[str, dict[str, str]] = {
    "quantity_word": {"Quantity": "three"},
    "quantity_fraction": {"Quantity": "1.5"},
    "date_impossible": {"InvoiceDate": "2026-02-30 10:00:00"},
    "date_word": {"InvoiceDate": "yesterday"},
    "price_comma": {"Price": "12,5"},
    "price_word": {"Price": "abc"},
    "price_places": {"Price": "1.23456"},
    "stock_code_empty": {"StockCode": ""},
    "country_empty": {"Country": ""},
    "invoice_pattern": {"Invoice": "53A1"},
    "customer_pattern": {"Customer ID": "1234"},
    "quantity_zero": {"Quantity": "0"},
    "price_negative": {"Price": "-4.95"},
    "zero_and_negative": {"Quantity": "0", "Price": "-1.25"},
    "no_code_and_price_word": {"StockCode": "", "Price": "abc"},
    "invoice_and_quantity": {"Invoice": "53A1", "Quantity": "three"},
}

CUSTOMER_KINDS: dict[str, tuple[str, ...]] = {
    "not_json": ("malformed",),
    "cut": ("malformed",),
    "unknown_op": ("enum",),
    "key_absent": ("required",),
    "key_null": ("required",),
}

PRODUCT_KINDS: dict[str, tuple[str, ...]] = {
    **CUSTOMER_KINDS,
    "price_text": ("type",),
    "price_negative": ("minimum",),
}

EVENT_KINDS: dict[str, tuple[str, ...]] = {
    "not_json": ("malformed",),
    "cut": ("malformed",),
    "unknown_type": ("enum",),
    "time_impossible": ("type",),
    "time_word": ("type",),
    "id_absent": ("required",),
    "id_null": ("required",),
    "id_reused": ("unique",),
}


class Schedule:
    """Decides how many lines of a batch are spoilt and how; kinds take turns, so that each one occurs."""

    def __init__(self, kinds: Sequence[str], rate: float) -> None:
        """Begin with the first kind.

        Args:
            kinds: the kinds in the order of their turns.
            rate: spoilt lines per good line, over many batches.

        """
        self._kinds = kinds
        self._rate = rate
        self._owed = 0.0
        self._turn = 0

    def take(self, good: int) -> list[tuple[str, bool]]:
        """Return the kinds to add to a batch.

        Args:
            good: the number of good lines in it.

        Returns:
            (kind, whether the spoilt line is delivered twice) of each, at most one to `LIMIT` good lines.

        """
        self._owed += self._rate * good
        count = min(int(self._owed), good // LIMIT)
        self._owed = min(self._owed - count, MOST_OWED)
        kinds = []
        for _ in range(count):
            self._turn += 1
            kinds.append((self._kinds[self._turn % len(self._kinds)], self._turn % REPEAT_EVERY == 0))
        return kinds


def csv_field(value: str) -> str:
    """Return a value as a CSV field, quoted only when RFC 4180 asks for it."""
    if not CSV_MARKS.isdisjoint(value):
        return '"' + value.replace('"', '""') + '"'
    return value


def json_line(value: dict[str, Any]) -> str:
    """Return an object as compact JSON on one line, other scripts unescaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def spoil_order(kind: str, row: dict[str, str], header: Sequence[str], rng: Random) -> Line:
    """Return a spoilt order line.

    Args:
        kind: a key of `ORDER_KINDS`.
        row: the good values by column.
        header: the columns of the file, in order; `Description` may be missing but is never the last.
        rng: the source of every draw.

    """
    row = row | _ORDER_CHANGES.get(kind, {})
    fields = [csv_field(row[column]) for column in header]
    if kind == "too_few_fields":
        fields = fields[: -rng.randint(2, 4)]
    elif kind == "too_many_fields":
        fields += ["surplus"] * rng.randint(1, 2)
    elif kind == "open_quote":
        # The quote opens a field that is not the last: even a lenient reader then finds too few fields.
        column = "Description" if "Description" in header else "StockCode"
        fields[header.index(column)] = '"' + row[column].replace('"', "").replace(",", "")
    return Line(",".join(fields), ORDER_KINDS[kind])


def spoil_change(kind: str, key_column: str, envelope: dict[str, Any], rng: Random) -> Line:
    """Return a spoilt line of a change stream.

    Args:
        kind: a key of `PRODUCT_KINDS`; prices only for products.
        key_column: the name of the key column of the table.
        envelope: a good change whose `after` is set; it is not altered.
        rng: the source of every draw.

    """
    bad = deepcopy(envelope)
    # Between two positions of the real log: a bad change must not share the position of a good one.
    bad["source"]["lsn"] += rng.randint(1, 7)
    images = [image for image in (bad["before"], bad["after"]) if image is not None]
    if kind == "unknown_op":
        bad["op"] = "x"
    elif kind == "key_absent":
        for image in images:
            del image[key_column]
    elif kind == "key_null":
        for image in images:
            image[key_column] = None
    elif kind == "price_text":
        bad["after"]["list_price"] = "N/A"
    elif kind == "price_negative":
        bad["after"]["list_price"] = "-4.9500"
    return Line(_broken(kind, json_line(bad), rng), PRODUCT_KINDS[kind])


def spoil_event(kind: str, event: dict[str, Any], fresh_id: Callable[[], str], rng: Random) -> Line:
    """Return a spoilt event line.

    Args:
        kind: a key of `EVENT_KINDS`.
        event: a good event; it is not altered.
        fresh_id: gives an event id not used before.
        rng: the source of every draw.

    """
    bad = dict(event)
    if kind == "id_reused":
        # The id of the good event with another payload; a purchase, so that taking it is seen in the totals.
        bad |= {"event_type": "purchase", "quantity": 999, "channel": "app"}
        return Line(json_line(bad), EVENT_KINDS[kind])
    bad["event_id"] = fresh_id()
    if kind == "unknown_type":
        bad["event_type"] = rng.choice(("veiw", "teleport", "PURCHASE"))
    elif kind == "time_impossible":
        bad["event_ts"] = "2026-02-30T10:00:00.000Z"
    elif kind == "time_word":
        bad["event_ts"] = "yesterday"
    elif kind == "id_absent":
        del bad["event_id"]
    elif kind == "id_null":
        bad["event_id"] = None
    return Line(_broken(kind, json_line(bad), rng), EVENT_KINDS[kind])


def _broken(kind: str, text: str, rng: Random) -> str:
    if kind == "cut":
        return text[: len(text) // 2]
    if kind == "not_json":
        return f"WARN consumer {rng.getrandbits(32):08x} restarted"
    return text
