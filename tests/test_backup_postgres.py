"""Backup and restore of a lake whose catalog is PostgreSQL: `pg_dump` in the snapshot the list of files is read in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sluice.audits import record_audit
from sluice.backup import back_up, restore, verify
from sluice.books import books
from sluice.contracts import load_contracts
from sluice.errors import BackupError, LakeUnavailableError, NoLakeError
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.publication import connect, publish
from sluice.settings import PROJECT, Settings, load_settings
from tests.postgres import PASSWORD, Server
from tests.shop import order_line, settings_in, write_orders
from tests.sluice.test_backup import WRITER, tables

DAYS = [f"2026-01-0{day}" for day in range(1, 6)]


def at(server: Server, name: str) -> str:
    """The setting for a database, with its password."""
    return f"postgres:{server.connection(name)} password='{PASSWORD}'"


@pytest.fixture(scope="module")
def settings(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake with a published day, deletes, and rows that stay in the catalog; more days wait to be loaded."""
    postgres.database("backed_up")
    made = settings_in(tmp_path_factory.mktemp("lake"), catalog=at(postgres, "backed_up"))
    for number, day in enumerate(DAYS):
        lines = [order_line(100 * number + n, at=f"{day} 10:00:00") for n in range(50)]
        write_orders(made, day, "uk", [*lines, "bad"])
    lake = Lake(made)
    ingest(lake, load_contracts(PROJECT / "contracts")["orders"], [f"{DAYS[0]}|uk"])
    # DuckLake keeps them in columns of the catalog's own types.
    lake.write(
        lambda c: c.execute(
            "CREATE TABLE gold.t AS SELECT range AS n, 'ü' || range AS s, 1.5::DECIMAL(12, 4) AS d, now() AS moment, "
            "[{'a': range}] AS l, 'x'::BLOB AS b, NULL::DATE AS nothing FROM range(100)"
        ),
        "make",
    )
    lake.write(lambda c: c.execute("DELETE FROM gold.t WHERE n < 3"), "delete")
    lake.write(
        lambda c: c.execute(
            "INSERT INTO gold.t SELECT -n, 'a''b', d, moment, l, '\\x00'::BLOB, nothing FROM gold.t LIMIT 2"
        ),
        "rows that stay in the catalog",
    )
    record_audit(lake, run_id="b", checks_passed=1, failed=[])
    publish(lake, run_id="p")
    return made


def test_a_backup_taken_while_another_process_ingests(settings: Settings, postgres: Server, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "SLUICE_HOME": str(settings.home),
        "SLUICE_CATALOG": settings.catalog.get_secret_value(),
        "SLUICE_START_DATE": str(settings.start_date),
        "SLUICE_END_DATE": str(settings.end_date),
    }
    keys = [f"{day}|uk" for day in DAYS[1:]]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, *keys], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    folder = tmp_path / "backup"
    done = back_up(settings, folder)
    assert writer.wait(timeout=120) == 0
    assert verify(folder) == done and (folder / "catalog.pgdump").exists()
    with Lake(settings).reading() as con:
        assert done.snapshot_id < Lake(settings).current_snapshot(con)

    postgres.database("restored")
    home = tmp_path / "restored"
    target = load_settings(home=str(home), catalog=at(postgres, "restored"))
    restore(folder, home, target)
    assert tables(target, done.snapshot_id) == tables(settings, done.snapshot_id)
    [orders] = books(Lake(target), ["orders"])
    assert orders.balanced and orders.rows_read == 51 * orders.batches and orders.batches < len(DAYS)
    with connect(target) as con:
        assert con.execute("SELECT count(*) FROM t").fetchall() == [(99,)]
    assert sorted(p.name for p in home.iterdir()) == ["lake", "published.sql"]
    assert [p.name for p in (home / "lake").iterdir()] == ["data"]
    # Neither lake writes where the other does.
    Lake(target).write(
        lambda c: c.execute("INSERT INTO gold.t SELECT range, '', 0, now(), [], '', NULL FROM range(100)"), ""
    )
    assert len(tables(settings, done.snapshot_id)["gold.t"]) == 99
    for written in (folder, home):
        told = subprocess.run(["grep", "-rlF", PASSWORD, str(written)], capture_output=True, text=True, check=False)
        assert told.stdout == ""


def test_what_cannot_be_restored_is_refused(settings: Settings, postgres: Server, tmp_path: Path) -> None:
    folder, home = tmp_path / "backup", tmp_path / "home"
    back_up(settings, folder)
    with pytest.raises(BackupError, match="set SLUICE_CATALOG to an empty database"):
        restore(folder, home, load_settings(home=str(home)))
    with pytest.raises(BackupError, match="The database of SLUICE_CATALOG has a lake already"):
        restore(folder, home, settings)
    wrong = at(postgres, "nowhere")
    with pytest.raises(LakeUnavailableError, match='"nowhere" does not exist') as caught:
        restore(folder, home, load_settings(home=str(home), catalog=wrong))
    assert PASSWORD not in str(caught.value)
    with pytest.raises(LakeUnavailableError) as caught:
        back_up(load_settings(home=str(home), catalog=wrong), tmp_path / "other")
    assert PASSWORD not in str(caught.value)
    postgres.database("no_lake")
    with pytest.raises(NoLakeError, match="There is no lake at the database of SLUICE_CATALOG yet"):
        back_up(load_settings(home=str(home), catalog=at(postgres, "no_lake")), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    # One that came to nothing leaves the database empty, for the next try.
    postgres.database("spare")
    spare = load_settings(home=str(home), catalog=at(postgres, "spare"))
    file = next(folder.rglob("*.parquet"))
    content = file.read_bytes()
    file.write_bytes(b"x" * len(content))
    with pytest.raises(BackupError, match=f"{file} is not what was backed up"):
        restore(folder, home, spare)
    assert not home.exists()
    assert postgres.run("spare", "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'ducklake%'") == "0\n"
    file.write_bytes(content)
    restore(folder, home, spare)
    assert home.exists()
