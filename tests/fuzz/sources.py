"""The sources that are fuzzed: their contracts, and good rows of each.

Between them they have every format, every type, both scopes of duplicates, a change feed, records that run over lines,
another encoding, a file without a header, and a gate. How rows are spoilt belongs to `mutators`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml

from tests.conftest import contract_document

Row = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A source: its contract's content, and a maker of good rows.

    Attributes:
        name: of the contract.
        columns: ODCS properties by column name.
        formats: endings it may be delivered with.
        row: a good row from a generator and a number; values are JSON's.
        share: of rejected rows above which a batch is refused.
        options: of `landing` besides path and formats.
        feed: its `changeFeed`.
        path: folders with tokens.
        evolution: its `schemaEvolution`.
    """

    name: str
    columns: dict[str, dict[str, Any]]
    formats: tuple[str, ...]
    row: Callable[[Random, int], Row]
    share: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    feed: dict[str, str] | None = None
    path: str = ""
    evolution: str = "evolve"

    @property
    def folder(self) -> str:
        """Its landing path with tokens."""
        return self.path or f"{self.name}/date={{date}}"

    @property
    def csv(self) -> dict[str, Any]:
        """Its CSV dialect, defaults included."""
        default = {"delimiter": ",", "quote": '"', "header": True, "multiline": False, "encoding": "utf-8"}
        return {**default, **self.options.get("csv", {})}

    @property
    def duplicates(self) -> str:
        """Within what an exact copy of a line is a duplicate."""
        return str(self.options.get("duplicates", "file"))

    def write_contract(self, folder: Path) -> None:
        """Write its contract file."""
        document = contract_document(
            self.columns, name=self.name, formats=self.formats, share=self.share, feed=self.feed,
            evolution=self.evolution, **self.options,
        )  # fmt: skip
        if self.path:
            for item in document["schema"][0]["customProperties"]:
                if item["property"] == "landing":
                    item["value"]["path"] = self.path
        (folder / f"{self.name}.odcs.yaml").write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")


def _order(rng: Random, number: int) -> Row:
    return {
        "Invoice": f"{rng.choice(['', '', '', 'C', 'A'])}{489434 + number:06d}",
        "StockCode": rng.choice(["85048", "POST", "22041A", "é-1"]),
        "Description": rng.choice(["CUP", 'PLATE 10"', "TEA, LOOSE", " WHITE  MUG ", "", "CAFÉ ☕", None]),
        "Quantity": str(rng.randint(1, 5000) * rng.choice([1, 1, 1, -1])),
        "InvoiceDate": f"2026-01-{rng.randint(1, 31):02d} {rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:00",
        "Price": f"{rng.randint(0, 99999) / 100:.2f}",
        "Customer ID": rng.choice(["12345", "17850", None]),
        "Country": rng.choice(["United Kingdom", "France", "EIRE"]),
    }


_ORDER_COLUMNS: dict[str, dict[str, Any]] = {
    "invoice": {
        "physicalName": "Invoice",
        "required": True,
        "logicalTypeOptions": {"pattern": r"^[AC]?\d{6}$"},
    },
    "stock_code": {"physicalName": "StockCode", "required": True},
    "description": {"physicalName": "Description"},
    "quantity": {
        "physicalName": "Quantity",
        "physicalType": "INTEGER",
        "required": True,
        "logicalTypeOptions": {"minimum": -1000000, "maximum": 1000000},
    },
    "invoiced_at": {"physicalName": "InvoiceDate", "physicalType": "TIMESTAMP", "required": True},
    "unit_price": {
        "physicalName": "Price",
        "physicalType": "DECIMAL(12,4)",
        "required": True,
        "logicalTypeOptions": {"minimum": 0},
    },
    "customer_id": {"physicalName": "Customer ID", "logicalTypeOptions": {"pattern": r"^\d{5}$"}},
    "country": {"physicalName": "Country", "required": True},
}


def _mixed(rng: Random, number: int) -> Row:
    day = f"20{rng.randint(10, 29)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    return {
        "id": f"n{number}",
        "tiny": str(rng.randint(-128, 127)),
        "huge": str(rng.randint(-(10**37), 10**37)),
        "day": rng.choice([day, None]),
        "share": rng.choice(["0.5", "-1e3", "12345.678", ".25", None]),
        "flag": rng.choice(["true", "false", None]),
        "uid": f"{rng.getrandbits(128):032x}",
        "note": rng.choice(["short", "two words", "", None, "a;b", "l'été"]),
    }


def _with_uuid(row: Row) -> Row:
    u = row["uid"]
    return {**row, "uid": f"{u[:8]}-{u[8:12]}-{u[12:16]}-{u[16:20]}-{u[20:]}"}


def _note(rng: Random, number: int) -> Row:
    row = _with_uuid(_mixed(rng, number))
    if rng.random() < 0.2:
        row["note"] = rng.choice(["line\nend", "a\n\nb", "\n", "x\ny;z"])
    return row


_MIXED_COLUMNS: dict[str, dict[str, Any]] = {
    "id": {"required": True},
    "tiny": {"physicalType": "TINYINT"},
    "huge": {"physicalType": "DECIMAL(38,0)"},
    "day": {"physicalType": "DATE"},
    "share": {"physicalType": "DOUBLE"},
    "flag": {"physicalType": "BOOLEAN"},
    "uid": {"physicalType": "UUID"},
    "note": {"logicalTypeOptions": {"maxLength": 50}},
}


def _change(rng: Random, number: int) -> Row:
    op = rng.choice("ccuurd")
    state = {
        "customer_id": f"{10000 + number % 90000}",
        "country": rng.choice(["France", "EIRE", None]),
        "balance": rng.choice(["10.50", "0", None]),
        "email": rng.choice(["a@example.com", None]),
    }
    event = {
        "before": state if op in "ud" else None,
        "after": None if op == "d" else {**state, "country": "Spain"},
        "source": {"lsn": 1000 + number, "ts_ms": 1767225600000 + number, "table": "customers"},
        "op": op,
        "ts_ms": 1767225600000,
    }
    return {"schema": {"type": "struct"}, "payload": event} if rng.random() < 0.2 else event


_FEED_COLUMNS: dict[str, dict[str, Any]] = {
    "customer_id": {"required": True, "primaryKey": True, "logicalTypeOptions": {"pattern": r"^\d{5}$"}},
    "country": {},
    "balance": {"physicalType": "DECIMAL(12,4)"},
    "email": {},
}


def _click(rng: Random, number: int) -> Row:
    return {
        "event_id": f"e{number}",
        "event_ts": f"2026-01-{rng.randint(1, 28):02d}T10:{rng.randint(0, 59):02d}:00Z",
        "quantity": rng.choice([1, 2, "3", None]),
        "channel": rng.choice(["web", "app", None]),
        "page": rng.choice(["/", "/cup", None]),
    }


_CLICK_COLUMNS: dict[str, dict[str, Any]] = {
    "event_id": {"required": True, "unique": True},
    "event_ts": {"physicalType": "TIMESTAMP", "required": True},
    "quantity": {"physicalType": "INTEGER", "logicalTypeOptions": {"minimum": 1}},
    "channel": {
        "quality": [
            {
                "name": "channel_known",
                "type": "library",
                "metric": "invalidValues",
                "arguments": {"validValues": ["web", "app"]},
                "mustBe": 0,
            }
        ]
    },
    "page": {},
}

SOURCES: dict[str, Source] = {
    s.name: s
    for s in (
        Source("tills", _ORDER_COLUMNS, ("csv", "jsonl", "parquet"), _order),
        Source("gated", _ORDER_COLUMNS, ("csv", "jsonl"), _order, share=0.05, evolution="freeze"),
        Source(
            "notes",
            _MIXED_COLUMNS,
            ("csv",),
            _note,
            options={"csv": {"delimiter": ";", "quote": "'", "multiline": True}},
            evolution="discard",
        ),
        Source(
            "plain",
            _MIXED_COLUMNS,
            ("csv",),
            lambda rng, number: _with_uuid(_mixed(rng, number)),
            options={"csv": {"delimiter": "\t", "header": False, "encoding": "cp1252"}},
        ),
        Source(
            "changes",
            _FEED_COLUMNS,
            ("jsonl",),
            _change,
            feed={"envelope": "debezium", "sequence": "source.lsn", "validFrom": "source.ts_ms"},
        ),
        Source(
            "clicks",
            _CLICK_COLUMNS,
            ("jsonl", "parquet"),
            _click,
            options={"duplicates": "batch"},
            evolution="discard",
            path="clicks/date={date}/hour={hour}",
        ),
    )
}

# How often each is taken.
WEIGHTS = {"tills": 6, "gated": 2, "notes": 3, "plain": 2, "changes": 4, "clicks": 4}
