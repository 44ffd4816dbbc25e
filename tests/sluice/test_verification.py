"""Verifying the lake: damage of every kind is found and named, and what can be made again can be made again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

import sluice
from sluice.audits import record_audit
from sluice.cli import main
from sluice.contracts import Contract
from sluice.errors import DataDamagedError, PublicationError
from sluice.maintenance import maintain
from sluice.publication import publish
from sluice.verification import Damage, set_aside, verify
from tests.conftest import Bench

KEYS = ("2026-01-01|uk", "2026-01-02|uk", "2026-01-03|uk")
# More than DuckLake keeps in its catalog instead of a file.
ROWS = 60


def lines(day: int) -> list[str]:
    return [
        f"{500_000 + 1000 * day + n},85048,CUP,1,2026-01-{day:02} 10:00:00,1.50,12345,United Kingdom"
        for n in range(ROWS)
    ]


@pytest.fixture
def full(bench: Bench, contracts: dict[str, Contract]) -> Bench:
    """Three partitions, each in a data file of its own, of which the second has a file of deletions, too."""
    for day, key in enumerate(KEYS, start=1):
        bench.put_orders(key, *lines(day))
        bench.ingest(contracts["orders"], [key])
    bench.lake.write(lambda con: con.execute("CREATE TABLE gold.sales AS FROM range(1000) AS r(n)"), "a gold table")
    record_audit(bench.lake, run_id="b", checks_passed=1, failed=[])
    publish(bench.lake, run_id="p")
    return bench


def files(bench: Bench, table: str) -> list[Path]:
    return sorted(Path(bench.settings.lake_data_path, table).rglob("*.parquet"), key=lambda path: path.name)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def overwritten_at_the_end(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-60] + b"\xa5" * 60)


def of_another(path: Path) -> None:
    """Good Parquet of the right size, with another number of rows."""
    size = path.stat().st_size
    duckdb.sql(f"COPY (SELECT repeat('x', 10) AS n FROM range(7)) TO '{path}'")
    data = path.read_bytes()
    assert len(data) <= size
    # What lies before the first page is read by nobody.
    path.write_bytes(data[:4] + b"\0" * (size - len(data)) + data[4:])


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (Path.unlink, "is missing"),
        (cut_off, r"has [\d,]+ bytes, the catalog says"),
        (lambda path: path.write_bytes(b""), "has 0 bytes, the catalog says"),
        (overwritten_at_the_end, "cannot be read: .*"),
        (of_another, r"has 7 rows, the catalog says 60"),
    ],
    ids=["missing", "cut off", "empty", "footer", "another file"],
)
def test_damage_is_found_and_named_with_its_partitions(
    harm: Callable[[Path], None],
    told: str,
    full: Bench,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert verify(full.lake, deep=True).damages == ()
    second = files(full, "bronze/orders")[1]
    harm(second)
    (damage,) = verify(full.lake).damages
    assert (damage.file.table, damage.file.path, damage.partitions) == ("bronze.orders", str(second), (KEYS[1],))
    assert damage.current and damage.published and damage.remakable
    monkeypatch.setenv("SLUICE_HOME", str(full.settings.home))
    assert main(["verify"]) == 1
    printed = capsys.readouterr().out
    assert re.search(told, printed), printed
    assert f"bronze.orders: {second}" in printed and f"partitions {KEYS[1]})" in printed
    assert "1 of " in printed and "sluice verify --set-aside" in printed


def test_what_only_reading_all_of_it_shows(full: Bench) -> None:
    (sales,) = files(full, "gold/sales")
    data = bytearray(sales.read_bytes())
    # The page's header, which the footer does not cover.
    data[4:40] = b"\xff" * 36
    sales.write_bytes(bytes(data))
    assert verify(full.lake).damages == ()
    (damage,) = verify(full.lake, deep=True).damages
    assert (damage.file.table, damage.file.path) == ("gold.sales", str(sales))
    assert damage.problem.startswith("cannot be read: ")


def test_a_whole_lake_is_said_to_be_whole(
    full: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(full.settings.home))
    (files(full, "gold/sales")[0].parent / "ducklake-orphan.parquet").write_bytes(b"of a transaction under way")
    assert main(["verify", "--deep"]) == 0
    assert "all there and readable; besides, 1 file the catalog does not name" in capsys.readouterr().out


def test_an_ingest_that_meets_damage_says_so_and_bronze_is_made_again(
    full: Bench, contracts: dict[str, Contract]
) -> None:
    wanted, books = full.bronze("orders"), full.ledger("orders")
    full.close()
    files(full, "bronze/orders")[1].unlink()
    with pytest.raises(
        DataDamagedError, match=r"data file of the lake is missing or damaged.*`sluice verify` names it"
    ):
        full.ingest(contracts["orders"], [KEYS[1]], force=True)
    assert full.ledger("orders") == books
    full.close()
    done = set_aside(full.lake, verify(full.lake))
    assert (len(done.files), done.partitions, done.models) == (1, {"orders": [KEYS[1]]}, ())
    # The published snapshot names it still: readers meet an error, and no part for the whole.
    assert [d.file.path for d in done.left] == [done.files[0].path]
    with sluice.connect(full.settings) as con, pytest.raises(duckdb.Error, match="Cannot open file"):
        con.execute("SELECT sum(quantity) FROM lake.bronze.orders")
    with pytest.raises(PublicationError, match=r"data files set aside: bronze\.orders"):
        publish(full.lake, run_id="p")
    full.ingest(contracts["orders"], done.partitions["orders"], force=True)
    assert (full.bronze("orders"), full.ledger("orders")) == (wanted, books)
    full.close()
    record_audit(full.lake, run_id="b", checks_passed=1, failed=[])
    publish(full.lake, run_id="p")
    again = set_aside(full.lake, verify(full.lake))
    assert (again.files, again.partitions, again.left) == ((), {}, ())
    assert again.snapshots_expired > 0
    assert verify(full.lake, deep=True).damages == ()
    maintain(full.lake, keep_days=0, belief_days=0, orphan_age_hours=0)
    assert full.bronze("orders") == wanted


def test_damaged_deletions_take_their_data_file_with_them(full: Bench, contracts: dict[str, Contract]) -> None:
    wanted = full.bronze("orders")
    full.close()
    # Of a merged file the rows of a partition that comes again are marked as deleted.
    maintain(full.lake, keep_days=0, belief_days=0, orphan_age_hours=0)
    full.ingest(contracts["orders"], [KEYS[0]], force=True)
    maintain(full.lake, keep_days=7)
    (deletions,) = [path for path in files(full, "bronze/orders") if path.name.endswith("-delete.parquet")]
    deletions.unlink()
    (damage,) = [d for d in verify(full.lake).damages if d.current]
    assert damage.file.deletes and set(KEYS) <= set(damage.partitions)
    done = set_aside(full.lake, verify(full.lake))
    assert set(done.partitions["orders"]) == {KEYS[1], KEYS[2]}
    full.ingest(contracts["orders"], done.partitions["orders"], force=True)
    assert full.bronze("orders") == wanted


def test_records_are_never_set_aside(full: Bench, contracts: dict[str, Contract]) -> None:
    maintain(full.lake, keep_days=0, belief_days=0, orphan_age_hours=0)
    ledger = files(full, "ops/ledger")[-1]
    ledger.unlink()
    found = verify(full.lake)
    assert "ops.ledger" in {d.file.table for d in found.damages}
    with pytest.raises(DataDamagedError, match=r"of ops\.ledger is missing: .*restore the backup"):
        set_aside(full.lake, found)
    assert verify(full.lake).damages == found.damages


def test_a_file_that_is_put_back_is_no_damage(full: Bench) -> None:
    first = files(full, "bronze/orders")[0]
    kept = first.read_bytes()
    first.unlink()
    assert [type(d) for d in verify(full.lake).damages] == [Damage]
    first.write_bytes(kept)
    assert verify(full.lake, deep=True).damages == ()
