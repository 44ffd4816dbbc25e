"""Data files that are missing or damaged, of bronze and of gold, in a whole warehouse: found, said, made again."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import duckdb
import pytest

import sluice
from sluice.cli import main
from sluice.errors import DataDamagedError, PublicationError
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.publication import publish
from sluice.verification import Verification, named_files, set_aside, verify
from tests.faults import SEED, deep
from tests.faults.cycle import Shop, cycle
from tests.faults.invariants import holds_in_the_end, state
from tests.warehouse import CONTRACTS, assert_same, load


def largest(shop: Shop, table: str) -> Path:
    """The largest file of a table as it is now."""
    lake = Lake(shop.settings)
    with lake.reading() as con:
        found = [f for f in named_files(lake, con) if f.table == table and f.end is None and not f.deletes]
    return Path(max(found, key=lambda f: f.bytes).path)


def the_damage(found: Verification, path: Path) -> str:
    (damage,) = [d for d in found.damages if d.file.path == str(path)]
    return f"{damage.file.table} {damage.problem}"


@deep
def test_rows_of_bronze_and_of_gold_are_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path, days=3, seed=SEED)
    shop.deliver(*shop.days)
    lake = Lake(shop.settings)
    cycle(shop.settings)
    wanted = state(shop.settings)
    for name, value in (("HOME", shop.home), ("START_DATE", date(2026, 1, 1)), ("END_DATE", date(2026, 2, 1))):
        monkeypatch.setenv(f"SLUICE_{name}", str(value))

    # Bronze: a file is gone. Who must read it fails and says why, and nothing changes.
    lost = largest(shop, "bronze.orders")
    lost.unlink()
    assert the_damage(verify(lake), lost) == "bronze.orders is missing"
    orders = next(contract for contract in CONTRACTS if contract.name == "orders")
    with pytest.raises(DataDamagedError, match="`sluice verify` names it"):
        ingest(lake, orders, force=True)
    capsys.readouterr()
    assert main(["query", "select sum(quantity) from lake.bronze.orders"]) == 1
    assert "A data file of the lake is missing or damaged" in capsys.readouterr().err
    done = set_aside(lake, verify(lake))
    assert list(done.partitions) == ["orders"] and not done.models
    ingest(lake, orders, done.partitions["orders"], force=True)
    cycle(shop.settings)
    assert_same(state(shop.settings), wanted)
    set_aside(lake, verify(lake))
    assert verify(lake, deep=True).damages == ()

    # Gold: a file has been overwritten in part, behind its footer's back.
    spoilt = largest(shop, "gold.fct_order_lines")
    data = bytearray(spoilt.read_bytes())
    data[4:200] = b"\xff" * 196
    spoilt.write_bytes(bytes(data))
    assert the_damage(verify(lake, deep=True), spoilt).startswith("gold.fct_order_lines cannot be read: ")
    with sluice.connect(shop.settings) as con, pytest.raises(duckdb.Error):
        con.execute("SELECT bit_xor(hash(f)) FROM fct_order_lines AS f").fetchall()
    done = set_aside(lake, verify(lake, deep=True))
    assert done.models == ("gold.fct_order_lines",) and not done.partitions
    with pytest.raises(PublicationError, match="data files set aside"):
        publish(lake, run_id="too early")
    cycle(shop.settings)
    assert_same(state(shop.settings), wanted)
    assert set_aside(lake, verify(lake, deep=True)).left == ()
    assert verify(lake, deep=True).damages == ()
    holds_in_the_end(shop.settings, shop.undisturbed())


@deep
def test_a_build_that_meets_damage_fails_by_name(tmp_path: Path) -> None:
    shop = Shop(tmp_path, days=3, seed=SEED)
    shop.deliver(*shop.days[:2])
    cycle(shop.settings)
    lost = largest(shop, "gold.fct_order_lines")
    kept = tmp_path / "kept"
    shutil.move(lost, kept)
    shop.deliver(shop.days[2])
    for contract in CONTRACTS:
        ingest(Lake(shop.settings), contract)
    with pytest.raises(AssertionError, match=lost.name):
        load(shop.settings, [[]])
    # Put back, as from a backup, it goes on as if nothing had been.
    shutil.move(kept, lost)
    cycle(shop.settings)
    holds_in_the_end(shop.settings, shop.undisturbed())
