"""Readers with credentials of their own: they see what is published, and can change nothing, on either catalog.

With SQLite the reader is a process that may write nowhere below the home folder; with PostgreSQL a role that selects.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluice.audits import record_audit
from sluice.errors import LakeUnavailableError
from sluice.lake import Lake, copies
from sluice.maintenance import maintain
from sluice.publication import connect, publish
from sluice.readers import refresh_readers
from sluice.settings import PROJECT, Settings, load_settings
from tests.postgres import PASSWORD, Server

DOCUMENT = (PROJECT / "docs" / "deploy.md").read_text(encoding="utf-8")


def fill(settings: Settings) -> None:
    """A published table in files and in the catalog, and one in bronze that is no reader's business."""
    lake = Lake(settings)
    lake.create()
    lake.write(lambda c: c.execute("CREATE TABLE bronze.secret AS SELECT range AS n FROM range(100)"), "make")
    lake.write(lambda c: c.execute("CREATE TABLE gold.t AS SELECT range AS n FROM range(100)"), "make")
    lake.write(lambda c: c.execute("INSERT INTO gold.t VALUES (1000)"), "stays in the catalog")
    record_audit(lake, run_id="b", checks_passed=1, failed=[])
    publish(lake, run_id="p")
    lake.write(lambda c: c.execute("INSERT INTO gold.t SELECT range FROM range(100)"), "not published")


# Of an account that owns nothing, where the test may become one; in any case without a right to write.
READER = """
import os, sys
import duckdb, sluice, sluice.publication, sluice.lake, sluice.cli
from sluice.extensions import install_extensions
install_extensions()
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for code in sys.argv[1:]:
    try:
        exec(code)
    except Exception as error:
        print(type(error).__name__ + ": " + str(error))
    print("--")
"""


class Home:
    """A home folder whose files nobody may write, and its reader."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder

    def close_to_readers(self, *parts: str) -> None:
        for part in parts:
            (self.folder / part).chmod(0o700 if os.getuid() == 0 else 0)

    def read(self, *code: str) -> list[str]:
        """Run pieces of Python as the reader; returns what each prints, its error included."""
        done = subprocess.run(
            [sys.executable, "-c", READER, *code],
            cwd=PROJECT,
            # A folder for the extensions that is not root's.
            env={**os.environ, "SLUICE_HOME": str(self.settings.home), "HOME": str(self.folder.parent / "reader")},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split("--\n")[:-1]


@pytest.fixture
def home() -> Iterator[Home]:
    # Not below pytest's folder, which is closed to other accounts.
    with tempfile.TemporaryDirectory(prefix="sluice-readers-") as name:
        Path(name).chmod(0o755)
        (Path(name) / "reader").mkdir()
        settings = load_settings(home=Path(name) / "home")
        fill(settings)
        folder = settings.home
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            yield Home(settings, folder)
        finally:
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)


def test_an_account_without_rights_reads_what_is_published(home: Home) -> None:
    home.close_to_readers("lake/data/bronze", "tmp")
    (told,) = home.read(
        "with sluice.connect() as con:\n"
        "    print(con.execute('SELECT count(*), max(n) FROM t').fetchall())\n"
        "sluice.cli.main(['published'])\n"
        "sluice.cli.main(['query', 'SELECT sum(n) AS summed FROM t'])\n"
        f"con = duckdb.connect(); con.execute(open('{home.folder}/readers/published.sql').read())\n"
        "print(con.execute('FROM t').fetchall().__len__())"
    )
    assert told.startswith("[(101, 1000)]\npublication 1: snapshot ") and "5950" in told and told.endswith("\n101\n")


def test_an_account_without_rights_changes_nothing(home: Home) -> None:
    home.close_to_readers("lake/data/bronze")
    before = {p: p.read_bytes() for p in home.folder.rglob("*") if p.is_file()}
    lake = "sluice.lake.Lake(sluice.settings.load_settings())"
    attempts = {
        "sluice.connect().execute('INSERT INTO t VALUES (1)')": "attached in read-only mode",
        "sluice.connect().execute('SELECT sum(n) FROM lake.bronze.secret')": "Permission denied",
        f"{lake}.write(lambda c: c.execute('DELETE FROM gold.t'), 'x')": "LakeUnavailableError: ",
        f"{lake}.create()": "LakeUnavailableError: ",
        f"open('{home.folder}/readers/catalog-1.sqlite', 'r+b')": "Permission denied",
        f"open('{home.folder}/lake/catalog.sqlite', 'r+b')": "Permission denied",
        f"os.remove('{home.folder}/readers/catalog-1.sqlite')": "Permission denied",
        f"open('{home.folder}/lake/data/x', 'w')": "Permission denied",
        f"sluice.lake.duckdb.connect()"
        f".execute(\"ATTACH 'ducklake:sqlite:{home.folder}/readers/catalog-1.sqlite' AS l\")"
        ".execute('CREATE TABLE l.main.x (n INT)')": "readonly database",
    }
    for (code, words), told in zip(attempts.items(), home.read(*attempts), strict=True):
        assert words in told, f"{code}:\n{told}"
    assert {p: p.read_bytes() for p in home.folder.rglob("*") if p.is_file()} == before


def test_an_account_without_rights_is_told_to_wait_for_the_first_publication(home: Home) -> None:
    home.folder.chmod(0o755)
    shutil.rmtree(home.folder / "readers")
    lake = "sluice.lake.Lake(sluice.settings.load_settings())"
    for told in home.read("sluice.connect()", f"{lake}.connect(read_only=True)"):
        assert told.startswith(f"PublicationError: Nothing has been published yet of the lake in {home.folder}")
        assert f"the first publication makes in {home.folder}/readers (docs/deploy.md, 'Readers')" in told


def test_an_account_that_may_not_enter_is_told_in_a_line(home: Home) -> None:
    """Before an administrator has let it in, as docs/deploy.md says how."""
    say = (
        "import contextlib\nwith contextlib.redirect_stderr(sys.stdout):\n"
        "    print(sluice.cli.main(['query', 'FROM t']))"
    )
    home.close_to_readers("lake")
    home.folder.chmod(0o755)
    readers = home.folder / "readers"
    readers.rename(home.folder / "kept")
    (told,) = home.read(say)
    assert told.startswith(f"sluice: Nothing has been published yet of the lake in {home.folder}") and told.endswith(
        "1\n"
    )
    (home.folder / "kept").rename(readers)
    home.close_to_readers("readers")
    (told,) = home.read(say)
    assert told == (
        f"sluice: What readers see is in {readers}, which this account may not read. Who administers the lake lets it "
        "in (docs/deploy.md, 'Readers').\n1\n"
    )
    (home.folder / "settings.env").write_text("")
    home.close_to_readers(".")
    (told,) = home.read(say)
    assert told == f"sluice: {home.folder}/settings.env: Permission denied. Check the path and its rights.\n1\n"


def test_the_copy_follows_publication_and_maintenance(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home")
    fill(settings)
    script = settings.readers_path / "published.sql"

    def read() -> tuple[int, int]:
        import duckdb

        with duckdb.connect() as con:
            con.execute(script.read_text())
            return con.execute("SELECT count(*), max(n) FROM t").fetchall()[0]

    assert read() == (101, 1000)
    lake = Lake(settings)
    record_audit(lake, run_id="b", checks_passed=1, failed=[])
    assert read() == (101, 1000)
    publish(lake, run_id="p")
    assert read() == (201, 1000)
    maintain(lake, keep_days=0, belief_days=0, orphan_age_hours=0)
    assert read() == (201, 1000)
    # Who has opened a copy goes on with it for a while.
    assert sorted(p.name for p in settings.readers_path.iterdir()) == [
        *(f"catalog-{n}.sqlite" for n in (1, 2, 3)),
        "published.sql",
    ]
    os.utime(settings.readers_path / "catalog-1.sqlite", (0, 0))
    refresh_readers(settings)
    assert [p.name for p in copies(settings)] == [f"catalog-{n}.sqlite" for n in (2, 3, 4)]
    refresh_readers(settings, only=True)
    assert [p.name for p in copies(settings)] == ["catalog-5.sqlite"]
    assert read() == (201, 1000)


def documented_roles() -> str:
    """The SQL of docs/deploy.md that makes a reader, as it stands there."""
    block = DOCUMENT.split("<!-- readers -->")[1].split("```sql\n")[1].split("```")[0]
    assert "CREATE ROLE reader" in block
    return block


def test_a_role_that_may_select_reads_and_changes_nothing(postgres: Server, tmp_path: Path) -> None:
    name = "with_readers"
    owner = load_settings(home=tmp_path / "home", catalog=f"postgres:{postgres.database(name)} password={PASSWORD}")
    Lake(owner).create()
    postgres.run(name, documented_roles().replace("DBNAME", name).replace("CHANGE-ME", "reader's"[:6]))
    # Tables of the catalog that are made after the role are read as well.
    fill(owner)
    reader = load_settings(
        home=tmp_path / "reader-home",
        data_path=owner.lake_data_path,
        catalog=f"postgres:{postgres.connection(name, 'reader')} password=reader",
    )
    with connect(reader) as con:
        assert con.execute("SELECT count(*), max(n) FROM t").fetchall() == [(101, 1000)]
    files = {p: p.stat().st_mtime_ns for p in Path(owner.lake_data_path).rglob("*.parquet")}
    with pytest.raises(LakeUnavailableError, match=r"permission denied for table ducklake_"):
        Lake(reader).write(lambda c: c.execute("DELETE FROM gold.t"), "x")
    for sql in (
        "DELETE FROM ducklake_snapshot",
        "UPDATE ducklake_metadata SET value = 'x'",
        "CREATE TABLE mine (n INT)",
        "DROP TABLE ducklake_snapshot",
    ):
        with pytest.raises(subprocess.CalledProcessError) as caught:
            postgres.run(name, sql, user="reader", password="reader")
        assert "permission denied" in caught.value.stderr or "must be owner" in caught.value.stderr, sql
    assert files.items() <= {p: p.stat().st_mtime_ns for p in Path(owner.lake_data_path).rglob("*.parquet")}.items()
    with connect(reader) as con:
        assert con.execute("SELECT count(*), max(n) FROM t").fetchall() == [(101, 1000)]
