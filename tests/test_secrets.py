"""Secrets come from the environment and stay there: planted ones are looked for in everything that is written or said.

Things are made to fail, for it is errors that tell too much: runs in Dagster, dbt, alerts. Then every file below the
home folder, all tables and all output are searched. Errors of the engine alone: tests/sluice/test_connections.py.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import pytest

from assets.ingest import build_ingest_asset
from resources.dbt import DBT_PROJECT, dbt_environment
from resources.lake import LakeResource
from resources.notifier import Notifier
from resources.partitions import run_tags
from sluice.audits import record_audit
from sluice.backup import back_up
from sluice.contracts import load_contracts
from sluice.lake import Lake
from sluice.publication import publish
from sluice.readers import refresh_readers
from sluice.settings import PROJECT, Settings
from tests.postgres import PASSWORD, Server
from tests.shop import END, START, order_line, settings_in, write_orders

WRONG = "quince-jelly-41"
BUCKET = "medlar-cheese-93"
PLANTED = (PASSWORD, WRONG, BUCKET)
CONTRACT = load_contracts(PROJECT / "contracts")["orders"]


def leaks(texts: Iterable[tuple[str, bytes]]) -> list[str]:
    """Names of the texts in which a planted secret stands, plain, in base64 or as an address has it."""
    forms = [
        form
        for secret in PLANTED
        for form in (secret.encode(), base64.b64encode(secret.encode())[:-4], quote(secret).encode())
    ]
    return [name for name, text in texts if any(form in text for form in forms)]


def files(*folders: Path) -> Iterator[tuple[str, bytes]]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield str(path), path.read_bytes()


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name, text in (("plain", f"x={WRONG};"), ("packed", base64.b64encode(BUCKET.encode()).decode()), ("none", "x")):
        (tmp_path / "deep" / name).write_text(text)
    assert [Path(name).name for name in leaks(files(tmp_path))] == ["packed", "plain"]


def filled(postgres: Server, folder: Path, name: str) -> Settings:
    """A lake with good rows, dead letters and a publication; its settings hold the password."""
    catalog = f"postgres:{postgres.database(name)} password={PASSWORD}"
    made = settings_in(folder, catalog=catalog)
    good = [order_line(number) for number in range(60)]
    write_orders(made, "2026-01-02", "uk", [*good, "bad", order_line(2, price="x")])
    return made


def materialize(settings: Settings, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance) -> bool:
    for key, value in {
        "SLUICE_CATALOG": settings.catalog.get_secret_value(),
        "SLUICE_LANDING": str(settings.landing_path),
        "SLUICE_START_DATE": str(START),
        "SLUICE_END_DATE": str(END),
    }.items():
        monkeypatch.setenv(key, value)
    asset = build_ingest_asset(CONTRACT, settings)
    assert asset.partitions_def is not None
    return dg.materialize(
        [asset],
        tags=run_tags(["2026-01-02|uk"], asset.partitions_def),
        resources={"lake": LakeResource(home=str(settings.home))},
        instance=instance,
        raise_on_error=False,
    ).success


def test_neither_runs_nor_tables_nor_backups_hold_a_password(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = filled(postgres, tmp_path, "secrets_runs")
    wrong = settings_in(tmp_path, catalog=f"postgres:{postgres.connection('secrets_runs')} password={WRONG}")
    storage = tmp_path / "dagster"
    storage.mkdir()
    with dg.DagsterInstance.local_temp(str(storage)) as instance:
        assert materialize(settings, monkeypatch, instance)
        assert not materialize(wrong, monkeypatch, instance)
        runs = instance.get_runs()
        assert sorted(run.status.value for run in runs) == ["FAILURE", "SUCCESS"]
        failed = next(run for run in runs if run.status == dg.DagsterRunStatus.FAILURE)
        events = "".join(str(event) for event in instance.all_logs(failed.run_id))
        assert "password authentication failed" in events
    # With the password of a bucket, in place of a folder that cannot be reached.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", BUCKET)
    monkeypatch.setenv("SLUICE_S3_ENDPOINT", "127.0.0.1:1")
    monkeypatch.setenv("SLUICE_S3_USE_SSL", "false")
    afar = settings_in(tmp_path, catalog="", home=str(tmp_path / "afar"), data_path="s3://bucket/lake/")
    lake = Lake(afar)
    lake.create()
    with pytest.raises(Exception) as caught:
        lake.write(lambda c: c.execute("CREATE TABLE gold.t AS SELECT range AS n FROM range(1000)"), "x")
    told = [("bucket", "".join(traceback.format_exception(caught.value)).encode())]

    record_audit(Lake(settings), run_id="b", checks_passed=1, failed=[])
    publish(Lake(settings), run_id="p")
    refresh_readers(settings)
    back_up(settings, tmp_path / "backup")
    with Lake(settings).reading() as con:
        tables = con.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE database_name = 'lake'"
        )
        for (table,) in tables.fetchall():
            rows = con.execute(f"FROM {table}").fetchall()
            told.append((table, repr(rows).encode()))
    assert {"bronze.orders", "ops.dead_letters", "ops.ledger"} <= {name for name, _ in told}
    dump = subprocess.run(
        [str(postgres.programs / "pg_dump"), "-d", postgres.connection("secrets_runs")],
        env={**os.environ, "PGPASSWORD": PASSWORD}, capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert b"ducklake_data_file" in dump
    told.append(("catalog", dump))
    told.append(("output", "".join(capfd.readouterr()).encode()))
    assert leaks(told) == []
    assert leaks(files(tmp_path)) == []


def test_dbt_is_never_told_the_password(postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = filled(postgres, tmp_path, "secrets_dbt")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", BUCKET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    afar = {"home": str(tmp_path / "afar"), "data_path": "s3://bucket/lake/"}
    right = settings_in(tmp_path, catalog=settings.catalog, **afar)
    wrong = settings_in(tmp_path, catalog=f"postgres:{postgres.connection('secrets_dbt')} password={WRONG}", **afar)
    Lake(right).create()
    told = []
    for name, made, words in (("right", right, "bronze"), ("wrong", wrong, "password authentication failed")):
        target = tmp_path / "dbt" / name
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("dbt")), "--debug", "--log-level-file", "debug", "run",
                "--select", "stg_orders", "--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT),
                "--target-path", str(target), "--log-path", str(target),
            ],
            env={**os.environ, **dbt_environment(made)}, capture_output=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode and words.encode() in done.stdout, (name, done.stdout[-2000:])
        told.append((name, done.stdout + done.stderr))
        assert (target / "dbt.log").exists()
    assert leaks(told) == []
    assert leaks(files(tmp_path)) == []


def test_an_alert_hides_what_a_message_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = tmp_path / "heard"
    monkeypatch.setenv("SLUICE_ALERT_COMMAND", f"tee {heard}")
    connection = f"host=h passwrd={WRONG} user=u"
    monkeypatch.setenv("SLUICE_CATALOG", f"postgres:{connection}")
    assert Notifier().tell("failed", f'at "{connection}": no, and password={PASSWORD}') is None
    assert heard.read_text() == 'failed\nat "host=h user=u": no, and password=***'
