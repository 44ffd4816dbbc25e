"""Inventory: files of no partition are counted and kept as dead letters until somebody moves them."""

from __future__ import annotations

from sluice.contracts import Contract
from sluice.inventory import NOBODY, PARTITION_KEY, take_inventory
from tests.conftest import Bench

STRAY = "orders/region=mars/date=2026-01-01/o.csv"
ODD = "orders/region=uk/date=soon/it's odd.csv"
GOOD = "489434,85048,CUP,1,2026-01-01 10:00:00,1.50,12345,United Kingdom"


def test_what_lies_there_is_counted_by_source(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put(STRAY, "123")
    path = bench.put_orders("2026-01-01|uk", GOOD)
    bench.put_orders("2026-01-01|uk", GOOD, name="b.csv")
    bench.put("events/date=2026-01-01/hour=00/e.jsonl", "{}")
    (bench.landing / "ordres").mkdir()
    bench.put("ordres/typo.csv", "x")
    nobody, orders, events = take_inventory(bench.lake, [contracts["orders"], contracts["events"]], run_id="r")
    # What lies in no contract's folder is told of, too.
    assert (nobody.source, [u.path for u in nobody.unroutable]) == (NOBODY, ["ordres/typo.csv"])
    assert (orders.source, orders.files, orders.bytes, orders.partitions) == ("orders", 2, 2 * path.stat().st_size, 1)
    assert [(u.path, u.size) for u in orders.unroutable] == [(STRAY, 3)]
    assert (events.source, events.files, events.bytes, events.partitions, events.unroutable) == ("events", 1, 2, 1, ())
    assert bench.sql("SELECT DISTINCT source FROM ops.ledger ORDER BY 1") == [(NOBODY,), ("orders",)]


def test_a_stray_file_stays_in_the_books_until_it_is_moved(bench: Bench, contracts: dict[str, Contract]) -> None:
    orders = contracts["orders"]
    stray, odd = bench.put(STRAY, "x"), bench.put(ODD, "x")
    take_inventory(bench.lake, [orders], run_id="r1")
    assert bench.letters("orders") == [(STRAY, None, 1, ["unroutable"]), (ODD, None, 1, ["unroutable"])]
    assert bench.ledger("orders") == {PARTITION_KEY: (2, 0, 2, 0)}
    assert bench.sql("SELECT DISTINCT error_class, status FROM ops.dead_letters") == [("file", "open")]
    # Looking again without a change writes nothing.
    count = bench.snapshots()
    take_inventory(bench.lake, [orders], run_id="r2")
    assert bench.snapshots() == count
    assert bench.sql("SELECT run_id FROM ops.ledger") == [("r1",)]
    # One is moved where it belongs.
    target = bench.landing / "orders/region=uk/date=2026-01-01/o.csv"
    target.parent.mkdir(parents=True)
    stray.rename(target)
    take_inventory(bench.lake, [orders])
    assert bench.letters("orders") == [(ODD, None, 1, ["unroutable"])]
    assert len(bench.letters("orders", "superseded")) == 2
    assert bench.ledger("orders") == {PARTITION_KEY: (1, 0, 1, 0)}
    # And the other.
    odd.unlink()
    take_inventory(bench.lake, [orders])
    assert bench.letters("orders") == []
    assert bench.ledger("orders") == {PARTITION_KEY: (0, 0, 0, 0)}


def test_a_landing_area_in_order_leaves_no_trace(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put_orders("2026-01-01|uk", GOOD)
    bench.lake.create()
    count = bench.snapshots()
    take_inventory(bench.lake, contracts.values())
    assert bench.snapshots() == count
    assert bench.sql("SELECT count(*) FROM ops.ledger") == [(0,)]
