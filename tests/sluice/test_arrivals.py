"""Arrivals: what is new is known from the positions alone, so nothing is missed and nothing told twice."""

from __future__ import annotations

import os

import pytest

from sluice.arrivals import arrivals
from sluice.contracts import Contract
from sluice.errors import LandingError
from tests.conftest import Bench

GOOD = "489434,85048,CUP,1,2026-01-01 10:00:00,1.50,12345,United Kingdom"


def test_partitions_are_pending_until_they_are_read(bench: Bench, contracts: dict[str, Contract]) -> None:
    orders = contracts["orders"]
    assert arrivals(bench.lake, orders).pending == {}
    path = bench.put_orders("2026-01-01|uk", GOOD)
    bench.put_orders("2026-01-02|eu", GOOD)
    os.utime(path, ns=(9_000_000_000, 9_000_000_000))
    found = arrivals(bench.lake, orders)
    assert sorted(found.pending) == ["2026-01-01|uk", "2026-01-02|eu"]
    assert found.newest_mtime_ns["2026-01-01|uk"] == 9_000_000_000 < found.newest_mtime_ns["2026-01-02|eu"]
    bench.ingest(orders, ["2026-01-01|uk"])
    assert sorted(arrivals(bench.lake, orders).pending) == ["2026-01-02|eu"]
    bench.ingest(orders)
    assert arrivals(bench.lake, orders).pending == {}
    assert arrivals(bench.lake, orders).newest_mtime_ns == {}
    # A refused batch has been read, too: telling it for ever would not mend it.
    bench.put_orders("2026-01-03|uk", "x")
    assert [b.status for b in bench.ingest(orders).batches if b.partition_key == "2026-01-03|uk"] == ["refused"]
    assert arrivals(bench.lake, orders).pending == {}


def test_a_new_a_changed_and_a_touched_file_make_their_partition_pending(
    bench: Bench, contracts: dict[str, Contract]
) -> None:
    orders = contracts["orders"]
    path = bench.put_orders("2026-01-01|uk", GOOD)
    bench.put_orders("2026-01-02|uk", GOOD)
    first = arrivals(bench.lake, orders)
    bench.ingest(orders)
    fingerprints = set()
    for change in (
        lambda: bench.put_orders("2026-01-01|uk", GOOD, name="late.csv"),
        lambda: path.write_text(path.read_text() + GOOD.replace("CUP", "MUG") + "\n"),
        lambda: os.utime(path, ns=(5, 5)),
    ):
        change()
        found = arrivals(bench.lake, orders)
        assert list(found.pending) == ["2026-01-01|uk"]
        fingerprints.add(found.pending["2026-01-01|uk"])
        bench.ingest(orders)
        assert arrivals(bench.lake, orders).pending == {}
    assert len(fingerprints) == 3 and first.pending["2026-01-01|uk"] not in fingerprints


def test_a_delivery_is_named_by_its_content(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put_orders("2026-01-01|uk", GOOD)
    bench.put_orders("2026-01-02|uk", GOOD)
    found = arrivals(bench.lake, contracts["orders"])
    keys = ["2026-01-01|uk", "2026-01-02|uk"]
    assert (
        found.delivery(keys) == found.delivery(keys[::-1]) == arrivals(bench.lake, contracts["orders"]).delivery(keys)
    )
    assert found.delivery(keys[:1]) != found.delivery(keys[1:]) != found.delivery(keys)
    bench.put_orders("2026-01-01|uk", GOOD, GOOD)
    assert arrivals(bench.lake, contracts["orders"]).delivery(keys) != found.delivery(keys)


def test_strays_are_told_and_other_sources_left_out(bench: Bench, contracts: dict[str, Contract]) -> None:
    bench.put("orders/region=mars/date=2026-01-01/o.csv", "x")
    bench.put("events/date=2026-01-01/hour=00/e.jsonl", "{}")
    found = arrivals(bench.lake, contracts["orders"])
    assert found.pending == {}
    assert [u.path for u in found.unroutable] == ["orders/region=mars/date=2026-01-01/o.csv"]
    bench.landing.rename(bench.landing.with_name("away"))
    with pytest.raises(LandingError):
        arrivals(bench.lake, contracts["orders"])
