"""Small files that unpack to much, lines that take themselves apart into millions: memory stays within its bound.

FUZZ_FILES makes them larger, as `make test-fuzz` does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sluice.settings import PROJECT
from tests.fuzz.bombs import BOMBS
from tests.fuzz.campaign import MOST_MB

pytestmark = pytest.mark.slow

DEEP = bool(os.environ.get("FUZZ_FILES"))

# Without it those that once took all memory, and of each other kind one; megabytes unpacked.
QUICK = {"zeros": 100, "many keys": 4, "delimiters": 4, "deep": 4, "lines that are no text": 2}
# Blank and short lines cost DuckDB tens of bytes each, whatever they hold.
LARGE = dict.fromkeys(BOMBS, 100) | {
    "Parquet": 20_000,
    "zeros": 1000,
    "blank lines": 50,
    "short lines": 30,
    "lines that are no text": 10,
}
GOOD = [["2026-01-01", 1, 1, 0, 0], ["2026-01-03", 1, 1, 0, 0]]


def explode(folder: Path, name: str, megabytes: int, **options: Any) -> dict[str, Any]:
    """Ingest a bomb in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.bombs", str(folder / "bomb"), name, str(megabytes), json.dumps(options)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{name}: {done.returncode} {done.stderr[-2000:]}"
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("name", list(BOMBS) if DEEP else list(QUICK))
def test_a_bomb_takes_no_more_memory_than_it_may(name: str, tmp_path: Path) -> None:
    told = explode(tmp_path, name, LARGE[name] if DEEP else QUICK[name])
    print(f"{name}: {told['peak_mb']} MB, {told['ledger'][1:-1]} {told['error'][:200]}")
    assert told["peak_mb"] < MOST_MB
    assert told["balanced"] and told["scratch"] == []
    # What lies beside it is ingested, whatever becomes of the bomb.
    assert [row for row in told["ledger"] if row[0] != "2026-01-02"] == GOOD
    if told["error"]:
        assert told["error"].startswith(("MemoryLimitError: ", "StorageFullError: "))
        assert "2026-01-02" in told["error"] and "Raise SLUICE_MEMORY_LIMIT" in told["error"]
    else:
        (bomb,) = [row for row in told["ledger"] if row[0] == "2026-01-02"]
        assert bomb[1] == sum(bomb[2:])


def test_what_unpacks_to_more_than_is_allowed_is_set_aside_unread(tmp_path: Path) -> None:
    told = explode(tmp_path, "equal rows", 300, file_bytes=100_000_000)
    assert told["ledger"] == [GOOD[0], ["2026-01-02", 1, 0, 1, 0], GOOD[1]]
    ((rule, detail),) = told["problems"]
    assert rule == "too_large"
    assert detail.startswith("The file holds more than 10") and "raise SLUICE_FILE_BYTES" in detail
    assert told["peak_mb"] < 400
