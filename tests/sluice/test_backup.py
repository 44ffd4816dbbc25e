"""Backup and restore: what is restored is the original as of one instant, row by row, and nothing less passes for it.

Backups are taken while another process writes, while maintenance removes files, and after being interrupted.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sluice.audits import record_audit
from sluice.backup import back_up, copying, manifest, restore, verify
from sluice.books import books
from sluice.cli import main
from sluice.contracts import Contract
from sluice.errors import BackupError, LakeUnavailableError, NoLakeError
from sluice.lake import Lake
from sluice.maintenance import maintain
from sluice.publication import connect, publish
from sluice.settings import PROJECT, Settings, load_settings
from sluice.sql import quoted
from tests.conftest import Bench, MakeBench

GOOD = "{n},85048,CUP,1,2026-01-01 10:00:00,1.50,12345,United Kingdom"


def tables(settings: Settings, snapshot: int) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables of a lake at a snapshot."""
    with Lake(settings).reading(snapshot) as con:
        names = con.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'lake' ORDER BY ALL"
        ).fetchall()
        return {
            f"{schema}.{table}": con.execute(f"FROM {quoted(schema)}.{quoted(table)} ORDER BY ALL").fetchall()
            for schema, table in names
        }


def restored(backup: Path, to: Path) -> Settings:
    restore(backup, to, load_settings(home=to))
    return load_settings(home=to)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, contracts: dict[str, Contract]) -> Path:
    """A home of all kinds: good and bad rows, deletes, partitions, small tables in the catalog, renamed tables."""
    bench = Bench(tmp_path_factory.mktemp("made") / "home")
    for day in range(1, 4):
        lines = [GOOD.format(n=500000 + 100 * day + n) for n in range(40)]
        bench.put_orders(f"2026-01-0{day}|uk", *lines, lines[0], "bad")
    bench.ingest(contracts["orders"])
    with bench.lake.connect() as con:

        def write(sql: str) -> None:
            bench.lake.transaction(con, lambda c: c.execute(sql), "a write")

        write('CREATE TABLE gold."odd name/ü" AS SELECT range AS n FROM range(100)')
        write("CREATE TABLE gold.t AS SELECT range AS n, range % 2 AS part FROM range(100)")
        write("DELETE FROM gold.t WHERE n = 7")
        write("ALTER TABLE gold.t RENAME TO u")
        write("INSERT INTO gold.u SELECT range, 9 FROM range(100)")
    record_audit(bench.lake, run_id="b", checks_passed=1, failed=[])
    publish(bench.lake, run_id="p1")
    with bench.lake.connect() as con:
        write("ALTER TABLE gold.u SET PARTITIONED BY (part)")
        write("INSERT INTO gold.u SELECT range, range % 3 FROM range(100)")
        write("CREATE VIEW gold.v AS SELECT sum(n) AS n FROM gold.u")
        # So few rows stay in the catalog.
        write("INSERT INTO gold.u VALUES (1000, 1)")
    record_audit(bench.lake, run_id="b", checks_passed=1, failed=[])
    publish(bench.lake, run_id="p2")
    return bench.settings.home


@pytest.fixture
def full(made: Path, make_bench: MakeBench) -> Bench:
    """That home, for this test alone."""
    bench = make_bench("home")
    shutil.copytree(made, bench.settings.home, dirs_exist_ok=True)
    with closing(sqlite3.connect(bench.settings.catalog_path)) as con, con:
        con.execute("UPDATE ducklake_metadata SET value = ? WHERE key = 'data_path'", [bench.settings.lake_data_path])
    return bench


def test_a_restored_lake_is_the_original_row_by_row(
    full: Bench, contracts: dict[str, Contract], tmp_path: Path
) -> None:
    # Some files wait to be deleted: no snapshot needs them, and the copy must not look for them.
    maintain(full.lake, keep_days=0)
    with closing(sqlite3.connect(full.settings.catalog_path)) as con:
        assert con.execute("SELECT count(*) FROM ducklake_files_scheduled_for_deletion").fetchone() > (0,)
    done = back_up(full.settings, tmp_path / "backup")
    wanted = {s: tables(full.settings, s) for s in (done.snapshot_id, *published_snapshots(full))}
    moment = datetime.now(UTC)
    full.close()
    # Whatever the copy still needs of the original is not there any more.
    landing = full.settings.landing_path.rename(tmp_path / "landing")
    shutil.rmtree(full.settings.home)
    home = restored(tmp_path / "backup", tmp_path / "elsewhere" / "home")
    for snapshot, rows in wanted.items():
        assert tables(home, snapshot) == rows
    with closing(sqlite3.connect(home.catalog_path)) as con:
        assert con.execute("SELECT count(*) FROM ducklake_files_scheduled_for_deletion").fetchone() == (0,)
    [orders] = books(Lake(home), ["orders"])
    assert orders.balanced and (orders.rows_read, orders.rows_accepted) == (126, 120)
    with connect(home) as con:
        assert con.execute("FROM v").fetchall() == [(4950 - 7 + 4950 + 4950 + 1000,)]
    with connect(home, as_of=moment) as con:
        assert con.execute("SELECT count(*) FROM u").fetchall() == [(300,)]
    assert "elsewhere" in (home.home / "published.sql").read_text()
    # It goes on where the original stopped: what was loaded is known, what is new is loaded, and it can be tidied.
    going_on = Bench(home.home, landing=landing)
    before = newest(going_on)
    going_on.ingest(contracts["orders"])
    assert newest(going_on) == before
    going_on.put_orders("2026-01-05|uk", GOOD.format(n=600000))
    going_on.ingest(contracts["orders"])
    assert going_on.ledger("orders")["2026-01-05|uk"] == (1, 1, 0, 0)
    going_on.close()
    rows = tables(home, newest(going_on))
    maintain(going_on.lake, keep_days=0, belief_days=0, orphan_age_hours=0)
    # Whoever expires snapshots takes a turn, and changes nothing else.
    assert tables(home, newest(going_on)) | {"ops.turns": []} == rows | {"ops.turns": []}
    going_on.close()


def newest(bench: Bench) -> int:
    with bench.lake.reading() as con:
        return bench.lake.current_snapshot(con)


def published_snapshots(bench: Bench) -> list[int]:
    found = [n for (n,) in bench.sql("SELECT snapshot_id FROM ops.publications ORDER BY 1")]
    assert len(found) == 2
    return found


WRITER = """
import sys
from sluice.contracts import load_contracts
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.settings import load_settings
settings = load_settings()
contract = load_contracts(settings.contracts)["orders"]
for key in sys.argv[1:]:
    ingest(Lake(settings), contract, [key])
    print(key, flush=True)
"""


def test_backups_taken_while_another_process_ingests(bench: Bench, tmp_path: Path) -> None:
    keys = [f"2026-01-{day:02}|uk" for day in range(1, 8)]
    for number, key in enumerate(keys):
        bench.put_orders(key, *(GOOD.format(n=500000 + 1000 * number + n) for n in range(200)), "bad")
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, *keys],
        cwd=PROJECT,
        env={**os.environ, "SLUICE_HOME": str(bench.settings.home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    made = []
    while writer.poll() is None:
        folder = tmp_path / f"backup-{len(made)}"
        made.append((folder, back_up(bench.settings, folder)))
    assert writer.wait() == 0
    last = newest(bench)
    taken = {done.snapshot_id: folder for folder, done in made if done.snapshot_id < last}
    assert len(taken) > 1, "the writer had committed before and after these"
    counts = set()
    # The first, and one of which the writer was in the middle.
    for snapshot, folder in [*taken.items()][:: len(taken) - 1][:2]:
        verify(folder)
        home = restored(folder, tmp_path / f"home-{snapshot}")
        rows = tables(home, snapshot)
        assert rows == tables(bench.settings, snapshot)
        [orders] = books(Lake(home), ["orders"])
        assert orders.balanced and orders.rows_read == 201 * orders.batches
        counts.add(orders.batches)
    assert len(counts) == 2 and max(counts) < len(keys)


def test_maintenance_that_removes_files_meanwhile_is_outrun(
    full: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, copied = copying._copy_file, []

    def meanwhile(source: Path, *rest: object) -> object:
        if len(copied) == 3:
            done = maintain(full.lake, keep_days=0, belief_days=0, orphan_age_hours=0)
            assert done.files_removed > 0
        copied.append(source)
        return copy(source, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(copying, "_copy_file", meanwhile)
    full.close()
    done = back_up(full.settings, tmp_path / "backup")
    assert {p for p in copied if not p.exists()}, "files went while they were copied"
    verify(tmp_path / "backup")
    home = restored(tmp_path / "backup", tmp_path / "restored")
    assert tables(home, done.snapshot_id) == tables(full.settings, done.snapshot_id)
    assert done.snapshot_id == newest(full)


def test_files_that_are_removed_again_and_again_end_it(
    full: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copying.catalogs.copy_catalog

    def then_removed(settings: Settings, folder: Path) -> object:
        contents = copy(settings, folder)
        full.lake.write(lambda c: c.execute("CREATE OR REPLACE TABLE gold.u AS SELECT range AS n FROM range(100)"), "")
        maintain(full.lake, keep_days=0, belief_days=0, orphan_age_hours=0)
        return contents

    monkeypatch.setattr(copying.catalogs, "copy_catalog", then_removed)
    monkeypatch.setattr(copying, "ROUNDS", 2)
    for table in ("audits", "publications"):  # nothing is kept for readers
        full.lake.write(lambda c, t=table: c.execute(f"DELETE FROM ops.{t}"), "forget")
    with pytest.raises(BackupError, match="Files were removed from the lake 2 times while they were copied"):
        back_up(full.settings, tmp_path / "backup")
    with pytest.raises(BackupError, match="is an unfinished backup"):
        verify(tmp_path / "backup")


INTERRUPTED = """
import os, sys, time
from pathlib import Path
from sluice.backup import back_up, copying
from sluice.settings import load_settings
copy, left = copying._copied, [4]
def slowly(source, target):
    left[0] -= 1
    if not left[0]:
        target.with_name(target.name + ".part").write_bytes(b"half")
        print("now", flush=True)
        time.sleep(60)
    return copy(source, target)
copying._copied = slowly
back_up(load_settings(), Path(sys.argv[1]))
"""


def test_an_interrupted_backup_is_no_backup_and_is_taken_up_again(full: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(folder)],
        cwd=PROJECT,
        env={**os.environ, "SLUICE_HOME": str(full.settings.home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "now\n"
    with pytest.raises(BackupError, match="is under way"):
        back_up(full.settings, folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(folder.rglob("*.part"))
    for refused in (lambda: verify(folder), lambda: restored(folder, tmp_path / "restored")):
        with pytest.raises(BackupError, match="is an unfinished backup"):
            refused()
    assert not (tmp_path / "restored").exists()
    # Meanwhile the lake has gone on; one file copied before was damaged, another belongs to nothing.
    kept = sorted(folder.rglob("*.parquet"))
    assert len(kept) == 3
    kept[0].write_bytes(b"x" * kept[0].stat().st_size)
    (folder / "data" / "stray.parquet").write_bytes(b"x")
    full.lake.write(lambda c: c.execute("INSERT INTO gold.u SELECT range, 5 FROM range(100)"), "more")
    inode = kept[1].stat().st_ino
    done = back_up(full.settings, folder)
    assert kept[1].stat().st_ino == inode, "it was not copied twice"
    assert not list(folder.rglob("*.part")) and not (folder / "data" / "stray.parquet").exists()
    assert verify(folder) == done
    home = restored(folder, tmp_path / "restored")
    assert tables(home, done.snapshot_id) == tables(full.settings, newest(full))


@pytest.fixture
def whole(full: Bench, tmp_path: Path) -> Path:
    folder = tmp_path / "backup"
    back_up(full.settings, folder)
    return folder


def a_file(folder: Path) -> Path:
    return sorted(folder.rglob("*.parquet"))[1]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lie(folder: Path, change: Callable[[dict[str, object], list[dict[str, object]]], object]) -> None:
    """Change a manifest and make its digest fit."""
    path = folder / manifest.NAME
    content = json.loads(path.read_text())
    del content["digest"]
    change(content, content["files"])
    path.write_text(json.dumps({**content, "digest": manifest._digest(content)}))


def drop_a_file(folder: Path) -> None:
    path = a_file(folder)
    name = path.relative_to(folder).as_posix()
    lie(folder, lambda _, files: files.remove(next(f for f in files if f["path"] == name)))
    path.unlink()


def add_a_file(folder: Path) -> None:
    shutil.copy(a_file(folder), folder / "data" / "other.parquet")
    first = json.loads((folder / manifest.NAME).read_text())["files"]
    name = a_file(folder).relative_to(folder).as_posix()
    entry = next(f for f in first if f["path"] == name)
    lie(folder, lambda _, files: files.append({**entry, "path": "data/other.parquet"}))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda f: a_file(f).unlink(), r"{file} is missing"),
    "flipped": (lambda f: flip(a_file(f)), r"{file} is not what was backed up"),
    "cut off": (lambda f: os.truncate(a_file(f), 10), r"{file} has 10 bytes, the manifest says"),
    "too much": (lambda f: (f / "data" / "x").write_text("x"), r"data/x is not named by the manifest"),
    "a link": (lambda f: (f / "data" / "x").symlink_to(a_file(f)), r"data/x is a link"),
    "catalog flipped": (lambda f: flip(f / "catalog.sqlite"), r"catalog.sqlite is not what was backed up"),
    "no manifest": (lambda f: (f / manifest.NAME).unlink(), r"there is no manifest.json"),
    "manifest cut off": (lambda f: os.truncate(f / manifest.NAME, 300), r"manifest.json was damaged"),
    "manifest flipped": (lambda f: flip(f / manifest.NAME), r"manifest.json was (changed|damaged)"),
    "a file less": (drop_a_file, r"does not fit its catalog: data/.* None in the manifest"),
    "a file more": (add_a_file, r"does not fit its catalog: data/other.parquet has None bytes in the catalog"),
    "another snapshot": (lambda f: lie(f, lambda m, _: m.update(snapshot_id=3)), r"catalog, which ends with snapshot"),
    "outside": (lambda f: lie(f, lambda _, files: files[0].update(path="../x")), r"names '../x', which lies outside"),
    "another format": (
        lambda f: lie(f, lambda m, _: m.update(format=2)),
        r"is of format 2; this Sluice reads format 1",
    ),
}


def test_what_is_not_whole_is_refused_by_name(full: Bench, whole: Path, tmp_path: Path) -> None:
    for name, (damage, words) in DAMAGES.items():
        folder = tmp_path / "damaged" / name.replace(" ", "-")
        shutil.copytree(whole, folder)
        file = str(a_file(folder))
        damage(folder)
        for refused in (lambda f=folder: verify(f), lambda f=folder: restored(f, tmp_path / "restored")):
            with pytest.raises(BackupError, match=words.format(file=file)):
                refused()
            assert not (tmp_path / "restored").exists() and not list(tmp_path.glob("*.restoring*")), name
    verify(whole)


def test_a_catalog_that_is_no_database_is_refused(whole: Path, tmp_path: Path) -> None:
    path = whole / "catalog.sqlite"
    path.write_bytes(b"no database at all" * 1000)
    size, digest = copying._digest(path)

    def change(_: object, files: list[dict[str, object]]) -> None:
        next(f for f in files if f["path"] == path.name).update(size=size, sha256=digest)

    lie(whole, change)
    for refused in (lambda: verify(whole), lambda: restored(whole, tmp_path / "restored")):
        with pytest.raises(BackupError, match=r"catalog\.sqlite is damaged"):
            refused()
    assert not (tmp_path / "restored").exists()


def test_targets_that_hold_something_are_left_alone(full: Bench, whole: Path, tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    busy.mkdir()
    (busy / "mine").write_text("mine")
    before = (whole / manifest.NAME).read_bytes()
    data = Path(full.settings.lake_data_path)
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: back_up(full.settings, whole), "holds a backup already"),
        (lambda: back_up(full.settings, busy), "neither empty nor an unfinished backup"),
        (lambda: back_up(full.settings, busy / "mine"), "neither empty nor"),
        (lambda: back_up(full.settings, busy / "mine" / "x"), "Not a directory. Check the path"),
        (lambda: back_up(full.settings, data / "backup"), "lies in the lake's data folder"),
        *(
            (lambda own=own: back_up(full.settings, full.settings.home / own / "b"), f"lies in .*/{own}, where Sluice")
            for own in ("landing", "topics", "lake", "readers", "tmp")
        ),
        *(
            (lambda own=own: restore(whole, full.settings.home / own / "h", full.settings), f"lies in .*{own}, where")
            for own in ("landing", "topics", "lake", "readers", "tmp")
        ),
        (lambda: back_up(full.settings, full.settings.home / "b"), "all of which `sluice erase` searches"),
        (lambda: restore(whole, full.settings.home / "h", full.settings), "all of which `sluice erase` searches"),
        (lambda: restored(whole, busy), "is not empty"),
        (lambda: restored(whole, busy / "mine"), "is not empty"),
        (lambda: restored(whole, whole / "home"), "lies in the backup"),
        (lambda: restored(whole, busy / "mine" / "x"), "Not a directory. Check the path"),
        (lambda: restored(tmp_path / "nowhere", tmp_path / "restored"), "is no backup"),
        (
            lambda: restore(whole, tmp_path / "restored", load_settings(catalog="postgres:dbname=x")),
            "The backup's catalog is SQLite",
        ),
        (lambda: back_up(load_settings(data_path="s3://b/p/"), tmp_path / "x"), "copies folders only"),
    ]
    for attempt, words in refused:
        with pytest.raises(BackupError, match=words):
            attempt()
    assert [p.name for p in busy.iterdir()] == ["mine"] and (busy / "mine").read_text() == "mine"
    assert (whole / manifest.NAME).read_bytes() == before
    assert not (tmp_path / "restored").exists() and not (tmp_path / "x").exists() and not (data / "backup").exists()
    assert not (full.settings.topics_path / "b").exists()
    with pytest.raises(LakeUnavailableError, match="There is no lake at"):
        back_up(load_settings(home=tmp_path / "none"), tmp_path / "y")
    # An empty folder will do, and what a restore that was killed left is no hindrance.
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.restoring").mkdir()
    (tmp_path / "empty.restoring" / "half").write_text("x")
    restored(whole, tmp_path / "empty")
    assert sorted(p.name for p in (tmp_path / "empty").iterdir()) == ["lake", "published.sql", "readers"]


@pytest.mark.parametrize("catalog", ["half made", "empty", "foreign"])
def test_of_what_is_no_lake_yet_there_is_no_backup(catalog: str, bench: Bench, tmp_path: Path) -> None:
    if catalog == "half made":
        bench.lake.connect().close()
    else:
        bench.settings.catalog_path.parent.mkdir(parents=True)
        bench.settings.catalog_path.touch()
    if catalog == "foreign":
        with closing(sqlite3.connect(bench.settings.catalog_path)) as con, con:
            con.execute("CREATE TABLE somebodys (n INTEGER)")
    with pytest.raises(NoLakeError, match=r"There is no lake at .*catalog\.sqlite yet"):
        back_up(bench.settings, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_somebodys_file_named_unfinished_makes_no_folder_a_backup(full: Bench, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "data").mkdir(parents=True)
    mark = mine / manifest.UNFINISHED
    for name in ("thesis.txt", "data/photo.jpg"):
        (mine / name).write_text("years of work")
    for content in (b"my novel", b"", manifest.MARK[:10], manifest.MARK + b"and more"):
        mark.write_bytes(content)
        with pytest.raises(BackupError, match="neither empty nor an unfinished backup"):
            back_up(full.settings, mine)
        assert mark.read_bytes() == content
    with pytest.raises(BackupError, match="is no backup"):
        verify(mine)
    mark.unlink()
    (tmp_path / "elsewhere").write_bytes(manifest.MARK)
    mark.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackupError, match="neither empty nor an unfinished backup"):
        back_up(full.settings, mine)
    # Put into an unfinished backup.
    mark.unlink()
    mark.write_bytes(manifest.MARK)
    with pytest.raises(BackupError, match=r"thesis\.txt is of no backup"):
        back_up(full.settings, mine)
    assert {p.name: p.read_text() for p in mine.rglob("*") if p.is_file() and p != mark} == {
        "thesis.txt": "years of work",
        "photo.jpg": "years of work",
    }
    # One that was killed before it had written the mark, or all of it.
    for content in (b"", manifest.MARK[:10]):
        folder = tmp_path / f"killed-{len(content)}"
        folder.mkdir()
        (folder / manifest.UNFINISHED).write_bytes(content)
        done = back_up(full.settings, folder)
        assert verify(folder) == done
        assert not (folder / manifest.UNFINISHED).exists()


def test_new_folders_are_their_owners_alone(full: Bench, whole: Path, tmp_path: Path) -> None:
    full.settings.home.chmod(0o755)
    for path in (whole, restored(whole, tmp_path / "new" / "home").home):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    # Somebody has chosen the rights of a folder that is there.
    for make in (lambda to: back_up(full.settings, to), lambda to: restored(whole, to)):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        folder.chmod(0o750)
        make(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_a_damaged_lake_is_told_by_its_file(full: Bench, tmp_path: Path) -> None:
    full.close()
    path = a_file(Path(full.settings.lake_data_path))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(BackupError, match=f"The lake is damaged: {path} has"):
        back_up(full.settings, tmp_path / "one")
    path.unlink()
    with pytest.raises(BackupError, match=f"The lake is damaged: its catalog names {path}"):
        back_up(full.settings, tmp_path / "two")
    with pytest.raises(BackupError, match="unfinished"):
        verify(tmp_path / "two")


def test_files_outside_the_data_folder_are_told(full: Bench, tmp_path: Path) -> None:
    full.close()
    with sqlite3.connect(full.settings.catalog_path) as con:
        con.execute(
            "UPDATE ducklake_data_file SET path = '/x.parquet', path_is_relative = 0 "
            "WHERE data_file_id = (SELECT max(data_file_id) FROM ducklake_data_file)"
        )
    con.close()
    with pytest.raises(BackupError, match="names a file that is not in the lake's own data folder"):
        back_up(full.settings, tmp_path / "backup")


def test_on_the_command_line(
    full: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(full.settings.home))
    folder, home = tmp_path / "backup", tmp_path / "restored"
    full.close()
    assert main(["backup", str(folder)]) == 0
    assert capsys.readouterr().out.startswith(f"{folder}: backed up, snapshot {newest(full)} of ")
    assert main(["backup", "--verify", str(folder)]) == 0
    assert capsys.readouterr().out.startswith(f"{folder}: whole, snapshot ")
    assert main(["restore", str(folder), str(home)]) == 0
    first, *told = capsys.readouterr().out.splitlines()
    assert first.endswith(f"Use it with SLUICE_HOME={home}")
    # What a backup lacks, and what is undone by restoring it.
    assert "erasure.key" in told[1] and "landing/" in told[1]
    assert f"erased after {verify(folder).made_at}" in told[2] and "`sluice erase --list`" in told[2]
    flip(a_file(folder))
    for words in (["backup", "--verify", str(folder)], ["restore", str(folder), str(tmp_path / "other")]):
        assert main(words) == 1
        told = capsys.readouterr()
        assert told.out == "" and told.err.startswith(f"sluice: {a_file(folder)} is not what was backed up")
    monkeypatch.setenv("SLUICE_HOME", str(home))
    assert main(["query", "SELECT count(*) AS counted FROM u"]) == 0
    assert "300" in capsys.readouterr().out
