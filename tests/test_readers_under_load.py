"""Eight readers query while days are loaded, some builds fail, all is tidied: nobody sees a mixed or failed state."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from sluice.audits import record_audit
from sluice.errors import PublicationError
from sluice.lake import Lake
from sluice.maintenance import maintain
from sluice.publication import publish
from sluice.settings import PROJECT, load_settings
from sluice.simulation import generate
from tests.warehouse import days_of, load

READERS = 8

# What must agree if all tables are of one instant, each asked on its own, with time for others to write in between.
QUESTIONS = (
    "SELECT count(*), sum(line_amount)::VARCHAR FROM fct_order_lines",
    "SELECT sum(order_lines)::BIGINT, sum(net_amount)::VARCHAR FROM fct_daily_sales",
    "SELECT sum(order_lines)::BIGINT, sum(net_amount)::VARCHAR FROM mart_daily_sales",
)

READER = """
import json, sys, time
from pathlib import Path
import sluice
from sluice.settings import load_settings

home, out, questions = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
settings = load_settings(home=home)
with out.open("w") as told:
    while not (Path(home) / "stop").exists():
        begun = time.process_time()
        with sluice.connect(settings) as con:
            answers = []
            for question in questions:
                answers.append(con.execute(question).fetchone())
                time.sleep(0.05)
        told.write(json.dumps(answers) + "\\n")
        told.flush()
        # Two cores for eight of them and for the writer: whatever the machine, they take eight tenths of a core.
        time.sleep(10 * (time.process_time() - begun))
"""


def answers(lake: Lake, snapshot: int | None = None) -> list[list[Any]]:
    """What a reader of a snapshot must see."""
    with lake.reading(snapshot) as con:
        con.execute("USE lake.gold")
        return [list(con.execute(question).fetchone() or ()) for question in QUESTIONS]


def test_readers_see_published_states_and_no_others(tmp_path: Path) -> None:
    home = tmp_path / "home"
    generate(home / "landing", days=4, scale=0.05)
    settings = load_settings(home=str(home), start_date=date(2026, 1, 1), end_date=date(2026, 1, 5))
    lake = Lake(settings)
    first, *rest = days_of(settings)
    load(settings, [[first]])
    record_audit(lake, run_id="first", checks_passed=1, failed=[])
    publish(lake, run_id="first")
    published, failed = [answers(lake)], []
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(home), str(tmp_path / f"{n}.jsonl"), json.dumps(QUESTIONS)],
            cwd=PROJECT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(READERS)
    ]
    try:
        for number, day in enumerate(rest):
            load(settings, [[day]])
            fails = number % 2 == 0
            record_audit(lake, run_id=day, checks_passed=1, failed=["a_gate"] if fails else [])
            (failed if fails else published).append(answers(lake))
            if fails:
                with pytest.raises(PublicationError, match="failed 1 of its gates"):
                    publish(lake, run_id=day)
            else:
                publish(lake, run_id=day)
            maintain(lake)
        wait_until(lambda: all(len(readings(tmp_path, n)) > 3 for n in range(READERS)))
    finally:
        (home / "stop").touch()
        errors = [reader.communicate(timeout=60)[1] for reader in readers]
    assert errors == [""] * READERS
    seen = [reading for n in range(READERS) for reading in readings(tmp_path, n)]
    # Each table on its own is the one its publication has, and they agree with each other.
    assert [reading for reading in seen if reading not in published] == []
    assert all(one[:2] == other[:2] for one, *others in seen for other in others)
    assert not [reading for reading in failed if reading in published]
    # They saw the readers' place move while they read.
    assert len({json.dumps(reading) for reading in seen}) > 1


def readings(folder: Path, number: int) -> list[list[list[Any]]]:
    """What a reader has told so far, whole lines only."""
    path = folder / f"{number}.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_until(holds: Any, seconds: float = 60) -> None:
    """Wait for what must come."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "the readers did not get to read"
        time.sleep(0.1)
