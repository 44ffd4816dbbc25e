"""One writer at a time: who writes while another does waits for them, and no longer than they live."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from sluice import writers
from sluice.settings import PROJECT
from sluice.writers import alone
from tests.conftest import Bench

HOLDER = """
import sys, time
from sluice.settings import load_settings
from sluice.writers import alone

with alone(load_settings(home=sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(bench: Bench) -> subprocess.Popen[str]:
    """A process that is alone with the lake until a line comes in."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(bench.settings.home)],
        cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("ending", ["let go", "killed"])
def test_a_transaction_waits_for_who_is_writing(
    bench: Bench, ending: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.lake.create()
    monkeypatch.setattr(writers, "_QUIET_SECONDS", 0.2)
    done = threading.Event()

    def write() -> None:
        bench.lake.write(lambda con: con.execute("CREATE TABLE ops.after AS SELECT 1 AS n"), "waited")
        done.set()

    with holder(bench) as process, caplog.at_level(logging.WARNING):
        writer = threading.Thread(target=write)
        writer.start()
        assert not done.wait(1)
        # Readers wait for nobody.
        assert bench.sql("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'after'") == [(0,)]
        process.kill() if ending == "killed" else process.communicate("\n")
        writer.join(30)
    assert done.is_set()
    assert bench.sql("FROM ops.after") == [(1,)]
    assert "Waiting for somebody else who writes" in caplog.text


def test_who_is_alone_may_write_and_be_alone_again(bench: Bench) -> None:
    bench.lake.create()
    with alone(bench.settings):
        with alone(bench.settings):
            bench.lake.write(lambda con: con.execute("CREATE TABLE ops.within AS SELECT 1 AS n"), "within")
        others = threading.Thread(target=_briefly_alone(bench))
        others.start()
        others.join(0.3)
        assert others.is_alive(), "another thread was alone with the lake, too"
    others.join(30)
    assert not others.is_alive()
    assert bench.sql("FROM ops.within") == [(1,)]


def _briefly_alone(bench: Bench) -> Callable[[], None]:
    def run() -> None:
        with alone(bench.settings):
            time.sleep(0)

    return run
