"""Extensions are checked once in a process, and again when their files are no longer the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sluice import extensions
from sluice.settings import PROJECT
from tests.conftest import Bench

# Attaches a lake twice and says how; between the two, the extension's file is what SPOIL makes of it.
TWICE = """
import os, sys
from pathlib import Path
from sluice.lake import Lake
from sluice.settings import load_settings

lake = Lake(load_settings(home=sys.argv[1]))
lake.create()
(path,) = (Path(sys.argv[1]) / ".duckdb").rglob("ducklake.duckdb_extension")
if sys.argv[2] == "spoil":
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    # Under another inode: this process has the old one mapped.
    other = path.with_name("other")
    other.write_bytes(content)
    os.replace(other, path)
with lake.reading() as con:
    print(con.execute("SELECT count(*) > 0 FROM duckdb_tables() WHERE schema_name = 'ops'").fetchall())
"""


def test_what_was_checked_is_loaded_again_without_and_nothing_else_may_be(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extensions, "_checked", {})
    asked: list[dict[str, Any]] = []
    connect = duckdb.connect

    def noting(database: str = ":memory:", *, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
        asked.append(config)
        return connect(database, config=config)

    bench.lake.create()
    monkeypatch.setattr(extensions, "_checked", {})
    monkeypatch.setattr(duckdb, "connect", noting)
    for _ in range(3):
        with bench.lake.reading() as con:
            assert con.execute("SELECT current_setting('allow_unsigned_extensions')").fetchone() == (False,)
            with pytest.raises(duckdb.InvalidInputException, match="Cannot change allow_unsigned_extensions"):
                con.execute("SET allow_unsigned_extensions = true")
            con.execute("FROM ops.ledger")
    assert asked == [{}, *[{"allow_unsigned_extensions": "true"}] * 2]


@pytest.mark.parametrize(("what", "code", "told"), [("leave", 0, "[(True,)]"), ("spoil", 1, "signature")])
def test_another_file_under_its_name_is_checked(tmp_path: Path, what: str, code: int, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWICE, str(tmp_path), what],
        cwd=PROJECT,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert told in done.stdout + done.stderr
