"""The command line: what it prints, and exit code 1 with one line when something is wrong."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from sluice import cli
from sluice.audits import record_audit
from sluice.cli import main
from sluice.contracts import Contract
from sluice.publication import publish
from sluice.settings import PROJECT
from tests.conftest import Bench, MakeBench

TOO_LONG = "x" * 300
GOOD = "489434,85048,CUP,1,2026-01-01 10:00:00,1.50,12345,United Kingdom"


def test_books(home: Bench, contracts: dict[str, Contract], capsys: pytest.CaptureFixture[str]) -> None:
    home.put_orders("2026-01-01|uk", GOOD, GOOD)
    home.put_orders("2026-01-02|uk", "x")
    home.ingest(contracts["orders"])
    assert main(["books"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "source",
        "batches",
        "refused",
        "read",
        "accepted",
        "dead-lettered",
        "duplicates",
        "balanced",
    ]
    assert row.split() == ["orders", "2", "1", "3", "1", "1", "1", "yes"]
    home.lake.write(lambda con: con.execute("DELETE FROM bronze.orders"), "an accident")
    assert main(["books"]) == 1
    assert capsys.readouterr().out.split()[-1] == "NO"


def test_published_and_query(home: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    home.lake.create()
    assert main(["published"]) == 1
    assert capsys.readouterr().out == "Nothing has been published yet.\n"
    assert main(["query", "SELECT 1"]) == 1
    assert capsys.readouterr().err.startswith("sluice: Nothing has been published yet.")
    home.lake.write(lambda con: con.execute("CREATE TABLE gold.t AS SELECT 'fourty-two' AS answer"), "build")
    audit = record_audit(home.lake, run_id="b", checks_passed=1, failed=[])
    publish(home.lake, run_id="p")
    assert main(["published"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"publication 1: snapshot {audit.snapshot_id}, ") and out.endswith("UTC, run p\n")
    assert main(["query", "SELECT answer FROM t"]) == 0
    out = capsys.readouterr().out
    assert "answer" in out and "fourty-two" in out
    for sql, words in (
        ("SELECT * FROM nowhere", "nowhere does not exist"),
        ("SELECT * FROM settings", "settings does not exist"),
        ("DROP TABLE t", "read-only"),
    ):
        assert main(["query", sql]) == 1
        err = capsys.readouterr().err
        assert err.startswith("sluice: ") and words in err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert capsys.readouterr().out == f"sluice {project['version']}\n"


def test_what_was_seen_at_a_moment(home: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    home.lake.create()
    for number in (1, 2):
        home.lake.write(lambda con, n=number: con.execute(f"CREATE TABLE gold.t{n} AS SELECT {n} AS n"), "build")
        record_audit(home.lake, run_id="b", checks_passed=1, failed=[])
        publish(home.lake, run_id=f"p{number}")
    first = home.sql("SELECT published_at FROM ops.publications WHERE publication_id = 1")[0][0].isoformat()
    assert main(["published", "--as-of", first]) == 0
    assert capsys.readouterr().out.endswith("UTC, run p1\n")
    assert main(["query", "--as-of", first, "SELECT n FROM t1"]) == 0
    assert main(["query", "--as-of", first, "SELECT n FROM t2"]) == 1
    assert main(["query", "SELECT n FROM t2"]) == 0
    capsys.readouterr()
    assert main(["published", "--as-of", "2000-01-01"]) == 1
    assert capsys.readouterr().out == "Nothing had been published by 2000-01-01 00:00:00 UTC.\n"
    assert main(["query", "--as-of", "2000-01-01", "SELECT 1"]) == 1
    assert "the first publication is of" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["query", "--as-of", "yesterday", "SELECT 1"])
    assert "write 2026-01-05" in capsys.readouterr().err


def test_sync_writes_the_dbt_sources(
    home: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "PROJECT", tmp_path)
    assert main(["sync"]) == 0
    assert capsys.readouterr().out == (
        "5 contracts (customers 1.1.0, events 1.1.0, exchange_rates 1.0.0, orders 1.0.0, products 1.1.0); "
        "dbt_project/models/sources/contracts.yml written\n"
    )
    assert (tmp_path / "dbt_project/models/sources/contracts.yml").exists()
    assert main(["sync"]) == 0
    assert capsys.readouterr().out.endswith("unchanged\n")


def test_sync_tells_of_contracts_it_does_not_read(
    home: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "PROJECT", tmp_path)
    for name in ("orders.odcs.yaml", "orders.odcs.yml", "orders.yaml", "orders.md"):
        shutil.copy(PROJECT / "contracts/orders.odcs.yaml", tmp_path / name)
    monkeypatch.setenv("SLUICE_CONTRACTS", str(tmp_path))
    assert main(["sync"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("1 contract (orders 1.0.0); ")
    assert captured.err.splitlines() == [
        f"sluice: {tmp_path}/{name} was not read: the name of a contract ends in .odcs.yaml."
        for name in ("orders.odcs.yml", "orders.yaml")
    ]


def test_an_error_is_one_line_and_code_1(
    home: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["books"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("sluice: There is no lake at ")
    assert len(captured.err.splitlines()) == 1
    monkeypatch.setenv("SLUICE_CONTRACTS", str(tmp_path / "none"))
    assert main(["sync"]) == 1
    assert "Set SLUICE_CONTRACTS" in capsys.readouterr().err
    monkeypatch.setenv("SLUICE_THREADS", "many")
    assert main(["books"]) == 1
    assert "SLUICE_THREADS" in capsys.readouterr().err


def test_what_no_calendar_number_or_text_holds_is_told(
    home: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.lake.create()
    record_audit(home.lake, run_id="b", checks_passed=1, failed=[])
    publish(home.lake, run_id="p")
    for number in ("9" * 60, "-" + "9" * 60):
        assert main(["publish", "rollback", "--why", "x", "--", number]) == 1
        told = capsys.readouterr().err
        assert told == f"sluice: There is no publication number {number}. See `sluice publish list`.\n"
    for moment in ("0001-01-01T00:00+14:00", "9999-12-31T23:59:59-14:00"):
        with pytest.raises(SystemExit) as ended:
            main(["query", "SELECT 1", "--as-of", moment])
        assert ended.value.code == 2 and f"{moment!r} is no time" in capsys.readouterr().err
    given = SimpleNamespace(buffer=io.BytesIO(b"\xff\n"))
    monkeypatch.setattr(sys, "stdin", given)
    assert main(["erase", "--find", "--id", "-"]) == 1
    assert capsys.readouterr().err == "sluice: The id is no UTF-8. Give it as the source writes it, in UTF-8.\n"
    monkeypatch.setenv("SLUICE_DATA_PATH", str(tmp_path / "other"))
    assert main(["published"]) == 1
    told = capsys.readouterr().err
    where = home.settings.lake_data_path
    assert told.startswith(
        f"sluice: This lake's data lies in {where}, and not in {tmp_path}/other/. Mend SLUICE_DATA_PATH"
    )


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["frobnicate"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
    assert "sync" in capsys.readouterr().err


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sluice", "published"],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
        env={**os.environ, "SLUICE_HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("sluice: There is no lake at ")


@pytest.mark.parametrize(
    ("words", "table"),
    [
        (["published"], "publications"),
        (["query", "SELECT 1"], "publications"),
        (["books"], "ledger"),
        (["dead-letters", "list"], "dead_letters"),
        (["publish", "list"], "publications"),
        (["trace", "mart_daily_sales"], "publications"),
    ],
)
@pytest.mark.parametrize("schema", ["silver", "ops"])
def test_a_lake_without_ops_tables_is_told(
    words: list[str],
    table: str,
    schema: str,
    make_bench: MakeBench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench = make_bench("bare")
    monkeypatch.setenv("SLUICE_HOME", str(bench.settings.home))
    with bench.lake.connect() as con:
        con.execute(f"CREATE SCHEMA lake.{schema}")
    assert main(words) == 1
    told = capsys.readouterr()
    lake = bench.settings.catalog_path
    assert told.out == "" and told.err.startswith(
        f"sluice: The lake at {lake} has no table ops.{table}: Sluice has not"
    )


def test_erase_without_a_lake_makes_none(home: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--list"], ["--customer", "1"], ["--customer", "1", "--find"]):
        assert main(["erase", *arguments]) == 1
        assert "There is no lake" in capsys.readouterr().err
    assert not home.settings.catalog_path.exists() and not home.settings.erasure_key_path.exists()


def test_the_list_of_the_erased_is_only_read(home: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    home.lake.create()
    home.lake.write(lambda con: con.execute("DROP TABLE ops.erasures"), "as a lake from before there were erasures")
    before = home.snapshots()
    home.close()
    assert main(["erase", "--list"]) == 0
    assert capsys.readouterr().out == "0 erasures, 0 unfinished\n"
    assert home.snapshots() == before
    assert main(["erase", "--list", "--find"]) == 1
    assert capsys.readouterr().err == (
        "sluice: --list tells of all who were erased, --find looks for one person: give one of them.\n"
    )


@pytest.mark.parametrize(
    ("words", "usage", "told"),
    [
        (["book"], "usage: sluice [-h]", "did you mean books?"),
        (
            ["erase", "--custmer", "1"],
            "usage: sluice erase ",
            "unrecognized arguments: --custmer 1; did you mean --customer?",
        ),
        (["dead-letters", "shw"], "usage: sluice dead-letters ", "did you mean show?"),
        (["dead-letters", "list", "--sorce=x"], "usage: sluice dead-letters list ", "did you mean --source?"),
        (["books", "more"], "usage: sluice books ", "unrecognized arguments: more"),
    ],
)
def test_a_mistyped_command_or_option_is_told(
    words: list[str], usage: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.startswith(usage) and err.endswith(f"{told}\n")


def test_what_may_be_left_out_is_not_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["trace"])
    assert capsys.readouterr().err.endswith("the following arguments are required: TABLE|DATE\n")


def test_publications_are_listed_and_moved(home: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str, code: int = 0) -> str:
        assert main(["publish", *arguments]) == code
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err
        return captured.out + captured.err

    for verb in ("rollback", "pin", "unpin"):
        assert "There is no lake" in said(verb, "--why", "x", code=1)
    assert not home.settings.catalog_path.exists()
    home.lake.create()
    assert said("list", code=1) == "Nothing has been published yet.\n"
    assert "Nothing has been published yet" in said("rollback", "--why", "x", code=1)
    for number in (1, 2):
        home.lake.write(lambda con, n=number: con.execute(f"CREATE TABLE gold.t{n} AS SELECT {n} AS n"), "build")
        record_audit(home.lake, run_id="b", checks_passed=1, failed=[])
        publish(home.lake, run_id=f"p{number}")
    assert main(["query", "SELECT n FROM t2"]) == 0
    capsys.readouterr()
    assert said("rollback", "--why", "pence\x1b[31m", "--by", "ann").startswith("publication 3: readers see snapshot")
    assert main(["query", "SELECT n FROM t2"]) == 1
    assert "no publication number 9" in said("pin", "9", "--why", "x", code=1)
    assert said("pin", "--why", "held", "--by", "ann").endswith(", pinned\n")
    listed = said("list").splitlines()
    assert listed[0].endswith("pinned to publication 3: held  (readers, pinned)")
    assert r"ann  rolled back to publication 1: pence\x1b[31m" in listed[1]
    assert main(["published"]) == 0
    assert capsys.readouterr().out.endswith(", pinned; ann: pinned to publication 3: held\n")
    assert "pinned" not in said("unpin", "--why", "done")
    assert "(pinned)" not in said("list")
    assert len(said("list", "--limit", "2").splitlines()) == 2
    with pytest.raises(SystemExit):
        main(["publish", "rollback"])


@pytest.mark.parametrize(("name", "words"), [(TOO_LONG, "File name too long"), ("loop/x", "Symlink loop")])
def test_a_path_that_cannot_be_is_told_in_a_line(
    name: str, words: str, home: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home.lake.create()
    (tmp_path / "loop").symlink_to("loop")
    path = tmp_path / name
    for command in (["restore", str(path), str(tmp_path / "there")], ["backup", str(path)]):
        assert main(command) == 1
        (told,) = capsys.readouterr().err.splitlines()
        assert told.startswith("sluice: ") and words in told, told


def test_looking_at_streams_makes_no_lake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be taken for the lake that was meant, with nothing in it."""
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "wrong"))
    for command, words in (
        (["stream", "status"], "There is no lake at "),
        (["stream", "run", "events"], "There is no topic 'shop.events'"),
        (["replay", "--topic", "shop.events", "--from", "2026-01-31", "--compare"], "There is no topic 'shop.events'"),
    ):
        assert main(command) == 1
        assert capsys.readouterr().err.startswith(f"sluice: {words}")
    assert not (tmp_path / "wrong" / "lake").exists()
    with pytest.raises(SystemExit):
        main(["stream", "seek", "events", "--to", "nowhere"])
    assert "or unread, earliest or latest" in capsys.readouterr().err
