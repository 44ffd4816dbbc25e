"""Naming a set of partitions to Dagster and getting exactly that set back."""

from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from resources.partitions import EXACT_KEYS, RANGE_END, RANGE_START, partitions_of, run_tags, wanted_keys
from sluice.contracts import load_contracts
from sluice.settings import PROJECT, load_settings

CONTRACTS = load_contracts(PROJECT / "contracts")


@pytest.fixture
def orders(tmp_path: Path) -> dg.PartitionsDefinition:
    settings = load_settings(home=str(tmp_path), start_date=date(2026, 1, 30), end_date=date(2026, 2, 3))
    return partitions_of(CONTRACTS["orders"], settings)


@pytest.fixture
def products(tmp_path: Path) -> dg.PartitionsDefinition:
    settings = load_settings(home=str(tmp_path), start_date=date(2026, 1, 30), end_date=date(2026, 2, 3))
    return partitions_of(CONTRACTS["products"], settings)


def keys_of(tags: dict[str, str], definition: dg.PartitionsDefinition) -> list[str]:
    """The keys a run with these tags is for, as the ingest asset takes them."""
    if "dagster/partition" in tags:
        return [tags["dagster/partition"]]
    span = definition.get_partition_keys_in_range(dg.PartitionKeyRange(tags[RANGE_START], tags[RANGE_END]))
    return wanted_keys(span, tags, definition)


def test_days_are_half_open(products: dg.PartitionsDefinition) -> None:
    assert products.get_partition_keys() == ["2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02"]


def test_orders_are_days_times_regions(orders: dg.PartitionsDefinition) -> None:
    assert len(orders.get_partition_keys()) == 12
    assert orders.get_partition_keys()[:3] == ["2026-01-30|uk", "2026-01-30|eu", "2026-01-30|row"]


def test_without_an_end_today_is_a_partition(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    definition = partitions_of(CONTRACTS["products"], load_settings(home=str(tmp_path), start_date=date(2026, 1, 1)))
    assert definition.get_last_partition_key() == datetime.now(UTC).date().isoformat()


@pytest.mark.parametrize(
    "wanted",
    [
        ["2026-01-31|eu"],
        ["2026-01-30|uk", "2026-01-30|eu", "2026-01-30|row"],
        ["2026-01-30|uk", "2026-01-31|uk", "2026-02-01|uk"],
        ["2026-01-30|row", "2026-02-02|uk"],
        ["2026-01-30|uk", "2026-01-30|row"],
        ["2026-01-30|eu", "2026-01-31|uk", "2026-01-31|row", "2026-02-02|eu"],
    ],
)
def test_any_set_of_keys_survives_the_way_through_tags(orders: dg.PartitionsDefinition, wanted: list[str]) -> None:
    tags = run_tags(wanted, orders)
    assert keys_of(tags, orders) == sorted(wanted, key=orders.get_partition_keys().index)
    if RANGE_START in tags:  # what Dagster takes the run to be for holds what it is for
        span = orders.get_partition_keys_in_range(dg.PartitionKeyRange(tags[RANGE_START], tags[RANGE_END]))
        assert set(wanted) <= set(span)


def test_a_rectangle_needs_no_list(orders: dg.PartitionsDefinition) -> None:
    tags = run_tags(orders.get_partition_keys(), orders)
    assert tags == {RANGE_START: "2026-01-30|uk", RANGE_END: "2026-02-02|row"}
    assert EXACT_KEYS in run_tags(["2026-01-30|row", "2026-02-02|uk"], orders)


def test_the_coordinates_a_backfill_of_a_job_notes_do_not_hide_its_range(orders: dg.PartitionsDefinition) -> None:
    tags = {RANGE_START: "2026-01-30|eu", RANGE_END: "2026-02-01|eu"}
    noted = {"dagster/partition/date": "2026-01-30", "dagster/partition/region": "eu"}
    wanted = ["2026-01-30|eu", "2026-01-31|eu", "2026-02-01|eu"]
    assert wanted_keys(["2026-01-30|eu"], {**tags, **noted}, orders) == wanted
    assert wanted_keys(["2026-01-30|eu"], noted, orders) == ["2026-01-30|eu"]


def test_a_key_that_is_none_raises(products: dg.PartitionsDefinition) -> None:
    with pytest.raises(ValueError, match="2027-01-01"):
        run_tags(["2026-01-30", "2027-01-01"], products)
