"""The same lake on a PostgreSQL catalog: one setting, several writers at once, no password told."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest

from sluice.audits import record_audit
from sluice.books import books
from sluice.bronze import create_bronze_tables
from sluice.contracts import load_contracts
from sluice.errors import LakeUnavailableError
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.publication import connect, publish
from sluice.settings import PROJECT, Settings
from sluice.writers import alone
from tests.postgres import PASSWORD, Server
from tests.shop import order_line, settings_in, write_orders
from tests.warehouse import CONTRACTS, building


@pytest.fixture(scope="module")
def server(postgres: Server) -> str:
    """The connection string of a database for this module, without a password."""
    return f"postgres:{postgres.database('lake')}"


@pytest.fixture(scope="module")
def settings(server: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    made = settings_in(tmp_path_factory.mktemp("lake"), catalog=f"{server} password={PASSWORD}")
    for day in ("2026-01-02", "2026-01-03"):
        for region in ("uk", "eu", "row"):
            write_orders(made, day, region, [order_line(n, at=f"{day} 10:00:00") for n in range(50)])
    return made


WORKER = """
import os, sys
from sluice.contracts import load_contracts
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.settings import load_settings
settings = load_settings()
ingest(Lake(settings), load_contracts(settings.contracts)["orders"], [sys.argv[1]])
"""


def test_several_processes_write_at_once(settings: Settings) -> None:
    Lake(settings).create()
    environment = {
        **os.environ,
        "SLUICE_HOME": str(settings.home),
        "SLUICE_CATALOG": settings.catalog.get_secret_value(),
        "SLUICE_START_DATE": str(settings.start_date),
        "SLUICE_END_DATE": str(settings.end_date),
    }
    keys = [f"{day}|{region}" for day in ("2026-01-02", "2026-01-03") for region in ("uk", "eu", "row")]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, key], cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True
        )
        for key in keys
    ]
    told = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0] * len(keys), told
    [orders] = books(Lake(settings), ["orders"])
    assert orders.balanced
    assert (orders.batches, orders.rows_read, orders.rows_in_bronze) == (6, 300, 300)


def test_the_same_partition_loaded_by_several_processes_is_there_once(settings: Settings, server: str) -> None:
    write_orders(settings, "2026-01-05", "uk", [order_line(n, at="2026-01-05 10:00:00") for n in range(50)])
    environment = {
        **os.environ,
        "SLUICE_HOME": str(settings.home),
        "SLUICE_CATALOG": settings.catalog.get_secret_value(),
        "SLUICE_START_DATE": str(settings.start_date),
        "SLUICE_END_DATE": str(settings.end_date),
    }
    running = [
        subprocess.Popen([sys.executable, "-c", WORKER, "2026-01-05|uk"], cwd=PROJECT, env=environment)
        for _ in range(3)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    with Lake(settings).reading() as con:
        assert con.execute(
            "SELECT count(*), count(DISTINCT _batch_id) FROM bronze.orders WHERE _partition_key = '2026-01-05|uk'"
        ).fetchall() == [(50, 1)]
    [orders] = books(Lake(settings), ["orders"])
    assert orders.balanced


def test_publishing_and_reading(settings: Settings) -> None:
    lake = Lake(settings)
    contract = load_contracts(PROJECT / "contracts")["orders"]
    ingest(lake, contract)
    record_audit(lake, run_id="r", checks_passed=1, failed=[])
    publish(lake, run_id="r")
    with connect(settings) as con:
        write_orders(settings, "2026-01-04", "uk", [order_line(1)])
        ingest(lake, contract)
        assert con.execute("SELECT count(*) FROM lake.bronze.orders").fetchall() == [(350,)]
    assert PASSWORD not in (settings.home / "published.sql").read_text()


def test_what_is_loaded_during_a_build_waits_for_its_audit(settings: Settings) -> None:
    """Else readers would see in bronze, and in the views on it, rows that nothing has built or tested."""
    lake = Lake(settings)
    contract = load_contracts(PROJECT / "contracts")["orders"]
    with lake.reading() as con:
        (before,) = con.execute("SELECT count(*) FROM bronze.orders").fetchall()
    write_orders(settings, "2026-01-06", "uk", [order_line(n, at="2026-01-06 10:00:00") for n in range(50)])
    load = threading.Thread(target=lambda: ingest(Lake(settings), contract, ["2026-01-06|uk"]))
    with alone(settings):
        load.start()
        load.join(5)
        assert load.is_alive(), "a load went on during a build"
        audit = record_audit(lake, run_id="built", checks_passed=1, failed=[])
    load.join(60)
    assert not load.is_alive()
    publication, _ = publish(lake, run_id="built")
    assert publication.snapshot_id == audit.snapshot_id
    with connect(settings) as con, lake.reading() as now:
        assert con.execute("SELECT count(*) FROM lake.bronze.orders").fetchall() == [before]
        assert now.execute("SELECT count(*) FROM bronze.orders").fetchall() == [(before[0] + 50,)]


@pytest.mark.slow
def test_the_first_build_of_a_lake(postgres: Server, tmp_path: Path) -> None:
    """Several models are built at once, and each notes what it was built from."""
    made = settings_in(tmp_path, catalog=f"postgres:{postgres.database('fresh')} password={PASSWORD}")
    create_bronze_tables(Lake(made), CONTRACTS)
    with building(made) as build:
        build()
    with Lake(made).reading() as con:
        (models,) = con.execute("SELECT count(DISTINCT relation) FROM ops.builds").fetchall()
    assert models > (4,)


def test_a_wrong_password_is_one_clear_message_without_it(server: str, tmp_path: Path) -> None:
    wrong = settings_in(tmp_path, catalog=f"{server} password=wrong-{PASSWORD}")
    with pytest.raises(LakeUnavailableError) as caught:
        Lake(wrong).create()
    assert "PostgreSQL catalog" in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_a_lost_database_is_not_replaced_by_an_empty_lake(postgres: Server, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, catalog=f"postgres:{postgres.database('lost')} password={PASSWORD}")
    write_orders(settings, "2026-01-02", "uk", [order_line(n) for n in range(50)])
    contract = load_contracts(PROJECT / "contracts")["orders"]
    with pytest.raises(LakeUnavailableError, match="There is no lake at the database of SLUICE_CATALOG yet"):
        Lake(settings).connect(read_only=True)
    ingest(Lake(settings), contract)
    postgres.run("postgres", "DROP DATABASE lost")
    with pytest.raises(LakeUnavailableError, match="PostgreSQL catalog"):
        ingest(Lake(settings), contract)
    postgres.database("lost")
    for call in (lambda: ingest(Lake(settings), contract), lambda: Lake(settings).connect(read_only=True)):
        with pytest.raises(LakeUnavailableError, match=r"the catalog is gone.*Nothing was made anew") as caught:
            call()
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert postgres.run("lost", "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'ducklake%'") == "0\n"
