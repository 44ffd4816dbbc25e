"""A small shop in which one person is everywhere: what tests of erasing plant, find, and erase.

Belongs here: rows and files of that person. What an erasure must do with them is said by the tests.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from typing import Any

import duckdb

from sluice.contracts import Contract
from sluice.erasure.run import Erased, erase, find
from tests.conftest import Bench

ANN, BOB = "15036", "12345"
MAIL = "ann@shop.example"
DAY = "2026-01-02"


def change(customer: str, mail: str | None, lsn: int, op: str = "c") -> str:
    image = {"customer_id": customer, "country": "France", "segment": "retail", "email": mail}
    before, after = (image, None) if op == "d" else (None if op == "c" else image, image)
    source = {"lsn": lsn, "ts_ms": 1767225600000 + lsn}
    return json.dumps({"op": op, "before": before, "after": after, "source": source}, separators=(",", ":"))


def event(number: int, customer: str | None, **more: Any) -> str:
    given = {"event_id": f"e{number}", "event_type": "view", "event_ts": f"{DAY}T10:00:00Z", "visitor_id": f"v{number}"}
    return json.dumps({**given, "customer_id": customer, "stock_code": "85048", "channel": "web", **more})


def order(number: int, customer: str, *, stock: str = "85048", quantity: object = 2) -> str:
    return f"{500000 + number},{stock},CUP,{quantity},{DAY} 10:00:00,2.50,{customer},France"


class Planted:
    """A small shop in which Ann (to be erased) and Bob (to stay) are everywhere."""

    def __init__(self, bench: Bench, contracts: dict[str, Contract]) -> None:
        self.bench = bench
        self.contracts = [dataclasses.replace(c, max_rejected_share=1.0) for c in contracts.values()]
        self.deliver()
        self.ingest()
        home = bench.settings.home
        (home / "dagster" / "storage").mkdir(parents=True)
        (home / "dagster" / "run.log").write_text(f"row of {ANN}, {MAIL}; of {BOB}\n")
        (home / "packed.txt").write_text("nothing")
        # Configuration is nobody's row, though a number in it be Ann's.
        (home / "settings.env").write_text(f"SLUICE_BELIEF_DAYS={ANN}\n")
        with sqlite3.connect(home / "dagster" / "storage" / "index.db") as con:
            con.execute("PRAGMA journal_mode = WAL")
            con.execute("CREATE TABLE event_logs (event TEXT)")
            con.executemany(
                "INSERT INTO event_logs VALUES (?)",
                [(f'{{"preview": "| {ANN} | France |", "pid": {ANN}}}',), (f'{{"preview": "| {BOB} |"}}',)],
            )
        con.close()

    def deliver(self) -> None:
        bench = self.bench
        changes = [change(ANN, "old@ann.example", 1), change(BOB, "bob@shop.example", 2), change(ANN, MAIL, 3, "u")]
        # Twice the same line, and a delete that breaks the envelope and so becomes a dead letter.
        bad = change(ANN, MAIL, 4, "d").replace('"after":null', '"after":{"customer_id":"15036"}')
        bench.put(f"cdc/customers/date={DAY}/c.jsonl.gz", "\n".join([*changes, changes[2], bad]) + "\n")
        bench.put_orders(
            f"{DAY}|uk",
            order(1, ANN),
            order(2, BOB),
            order(3, BOB, stock=ANN),  # a product with the digits of Ann's id
            order(4, ANN, quantity="two"),
            f"500005,{ANN}",
            order(6, BOB, stock=ANN, quantity="two"),
            order(7, ANN),
        )
        bench.put(
            f"events/date={DAY}/hour=10/e.jsonl", "\n".join([event(1, ANN), event(2, BOB), event(3, None)]) + "\n"
        )
        path = bench.landing / f"events/date={DAY}/hour=11/e.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect() as con:
            rows = "\n".join([event(4, ANN), event(5, BOB)])
            (path.parent / "rows.tmp").write_text(rows)
            read = f"read_json('{path.parent}/rows.tmp', format = 'newline_delimited', hive_partitioning = false)"
            con.execute(f"COPY (FROM {read}) TO '{path}'")
        (path.parent / "rows.tmp").unlink()
        bench.put("elsewhere/list.csv", f"name,id\nAnn,{ANN}\nBob,{BOB}\n")

    def ingest(self, **options: Any) -> dict[str, Any]:
        self.bench.close()
        return {c.name: self.bench.ingest(c, **options) for c in self.contracts}

    def find(self, who: str = ANN) -> dict[str, int]:
        self.bench.close()
        return find(self.bench.lake, self.contracts, "customer", who).found

    def erase(self, who: str = ANN, **options: Any) -> Erased:
        self.bench.close()
        return erase(self.bench.lake, self.contracts, "customer", who, rebuild=nothing_to_build, by="a test", **options)

    def everything(self, source: str) -> list[tuple[Any, ...]]:
        return self.bench.sql(f"SELECT * EXCLUDE (_ingested_at) FROM bronze.{source} ORDER BY _file, _line")


def nothing_to_build() -> None:
    raise AssertionError("there is no gold to build")
