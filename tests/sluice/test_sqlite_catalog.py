"""Copies of the SQLite catalog: whole, harmless to who writes meanwhile, and told of when they cannot be made."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sluice import readers
from sluice.backup import manifest
from sluice.backup.copying import back_up, verify
from sluice.errors import LakeUnavailableError, NoLakeError
from sluice.lake import CATALOG
from sluice.readers import refresh_readers
from sluice.settings import PROJECT
from sluice.sqlite_catalog import UNFINISHED, copy_sqlite
from tests.conftest import Bench
from tests.rest_server import until

# Another process that would write: 0 where it may, 1 where somebody is writing.
_WRITES = """
import sqlite3, sys
con = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    con.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    sys.exit(1 if "locked" in str(error) else 2)
"""


def test_a_transaction_in_the_same_process_keeps_the_catalog(bench: Bench, tmp_path: Path) -> None:
    bench.lake.create()
    catalog = bench.settings.catalog_path
    log = catalog.with_name(f"{catalog.name}-wal")

    def another_may_write() -> int:
        return subprocess.run([sys.executable, "-I", "-S", "-c", _WRITES, str(catalog)]).returncode

    with bench.lake.connect() as con:
        con.execute("BEGIN")
        con.execute(f"INSERT INTO {CATALOG}.ducklake_metadata VALUES ('of a test', 'open', NULL, NULL)")
        assert another_may_write() == 1
        copy_sqlite(bench.settings, tmp_path / "copy.sqlite")
        assert (another_may_write(), log.exists()) == (1, True)
        con.execute("COMMIT")
        assert another_may_write() == 0
        copy_sqlite(bench.settings, tmp_path / "later.sqlite")
    wanted = "SELECT value FROM ducklake_metadata WHERE key = 'of a test'"
    found = []
    for name in ("copy.sqlite", "later.sqlite"):
        with closing(sqlite3.connect(tmp_path / name)) as copy:
            found.append(copy.execute(wanted).fetchall())
            assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert found == [[], [("open",)]]
    assert sorted(p.name for p in tmp_path.glob("*.sqlite*")) == ["copy.sqlite", "later.sqlite"]


def test_what_cannot_be_copied_is_told(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(NoLakeError):
        copy_sqlite(bench.settings, tmp_path / "copy.sqlite")
    bench.lake.create()
    bench.settings.catalog_path.write_bytes(b"no database, but long enough to be taken for one" * 100)
    with pytest.raises(LakeUnavailableError, match=r"catalog\.sqlite .*: file is not a database"):
        copy_sqlite(bench.settings, tmp_path / "copy.sqlite")


def test_a_copy_ends_with_who_wanted_it(bench: Bench) -> None:
    """Else it would go on beside the next one."""
    bench.lake.create()
    folder = bench.settings.readers_path
    wants = "import sys; from sluice.readers import refresh_readers; from sluice.settings import load_settings; "
    wants += "refresh_readers(load_settings(home=sys.argv[1]))"
    with closing(sqlite3.connect(bench.settings.catalog_path, isolation_level=None)) as con:
        # Without a write-ahead log whoever reads waits for who writes.
        con.execute("PRAGMA journal_mode = DELETE")
        con.execute("BEGIN EXCLUSIVE")
        with subprocess.Popen([sys.executable, "-c", wants, str(bench.settings.home)], cwd=PROJECT) as wanting:
            until(lambda: any(folder.glob(f"{UNFINISHED}*/{UNFINISHED}*")), 60)
            children = Path(f"/proc/{wanting.pid}/task/{wanting.pid}/children")
            until(lambda: bool(children.read_text()), 60)
            (copying,) = children.read_text().split()
            wanting.kill()
        until(lambda: _has_ended(copying), 60)
        con.execute("ROLLBACK")
    # An erasure takes what it has begun, unless somebody may still be at it; else maintenance does.
    (left,) = folder.iterdir()
    assert left.name.startswith(UNFINISHED)
    refresh_readers(bench.settings, only=True)
    assert left.exists()
    os.utime(left, (0, 0))
    refresh_readers(bench.settings, only=True)
    assert sorted(path.name for path in folder.iterdir()) == ["catalog-2.sqlite", "published.sql"]


def _has_ended(process: str) -> bool:
    try:
        state = re.search(r"^State:\s+(\w)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return True
    # A zombie has ended, and whoever adopted it has not looked yet.
    return state is not None and state[1] == "Z"


def test_no_room_for_the_copy_is_told_of_where_it_is_missing(bench: Bench, tmp_path: Path) -> None:
    bench.lake.create()
    assert bench.settings.catalog_path.stat().st_size > 100 * 1024
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 100 && exec "$0" -m sluice backup "$1"', sys.executable, str(tmp_path / "there")],
        cwd=PROJECT,
        env={**os.environ, "SLUICE_HOME": str(bench.settings.home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"sluice: There is no room for a copy of the catalog in {tmp_path / 'there'}: ")
    assert done.stderr.count("\n") == 1


def test_a_backup_goes_on_where_it_was_killed_while_it_copied_the_catalog(bench: Bench, tmp_path: Path) -> None:
    bench.lake.create()
    there = tmp_path / "there"
    back_up(bench.settings, there)
    (there / manifest.NAME).rename(there / manifest.UNFINISHED)
    (there / manifest.UNFINISHED).write_bytes(manifest.MARK)
    (there / f"{UNFINISHED}x").mkdir()
    (there / f"{UNFINISHED}x" / "catalog.sqlite-journal").write_text("x")
    done = back_up(bench.settings, there)
    assert verify(there) == done
    assert not any(there.glob(f"{UNFINISHED}*"))


def test_whoever_refreshes_leaves_later_copies_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are what readers are given by then."""
    bench.lake.create()
    refresh_readers(bench.settings)
    named = readers._named

    def overtaken(made: Path, folder: Path) -> Path:
        mine = named(made, folder)
        monkeypatch.setattr(readers, "_named", named)
        refresh_readers(bench.settings)
        return mine

    monkeypatch.setattr(readers, "_named", overtaken)
    refresh_readers(bench.settings, only=True)
    there = sorted(path.name for path in bench.settings.readers_path.glob("catalog-*"))
    assert there == ["catalog-2.sqlite", "catalog-3.sqlite"]
