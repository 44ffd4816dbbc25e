"""What waits is known without Java, and a run apart does what a run does: against the real database and Debezium."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

import sluice.capture.behind
from sluice.capture import Backlog, Captured, backlog, load_captures, run_apart
from sluice.capture.apart import _answer
from sluice.errors import CaptureError, CaptureUnavailableError, ConfigurationError
from sluice.settings import PROJECT
from tests.postgres import PASSWORD
from tests.sluice.capture.source import CAPTURE_SECONDS, Source

pytestmark = pytest.mark.slow

THINGS = "CREATE TABLE things (id INT PRIMARY KEY, v INT); INSERT INTO things VALUES (1, 1)"


@pytest.fixture(autouse=True)
def _connection(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_CDC_SHOP", source.connection)


def look(source: Source) -> Backlog:
    return backlog(source.settings, source.capture)


def once(source: Source) -> Captured:
    return run_apart(source.settings, source.capture, once=True)


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + CAPTURE_SECONDS
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_what_is_wrong_is_known_before_anything_runs(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.sql(THINGS)
    source.define("public.things", publish=False)
    found = look(source)
    assert found.waits() and found.trouble is not None and "CREATE PUBLICATION" in found.trouble
    source.sql("CREATE PUBLICATION sluice_shop FOR TABLE things")
    found = look(source)
    assert (found.stage, found.slot, found.lag_bytes, found.last, found.trouble) == ("new", None, None, None, None)
    assert found.waits() and not found.running
    source.sql(f"SELECT pg_create_logical_replication_slot('{source.slot}', 'pgoutput')")
    assert "this capture has not made it" in str(look(source).trouble)
    monkeypatch.setenv("SLUICE_CDC_SHOP", f"host=127.0.0.1 port=1 dbname=x user=x password={PASSWORD}")
    with pytest.raises(CaptureUnavailableError) as caught:
        look(source)
    assert PASSWORD not in str(caught.value)
    monkeypatch.delenv("SLUICE_CDC_SHOP")
    with pytest.raises(ConfigurationError, match="SLUICE_CDC_SHOP, which is not set"):
        look(source)


def test_changes_of_captured_tables_wait_and_nothing_else(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.sql(f"{THINGS}; CREATE TABLE others (id INT PRIMARY KEY, v INT); CREATE TABLE unpublished (id INT)")
    source.define("public.things")
    # Published with it and not captured, as if another capture shared the publication.
    source.sql("ALTER PUBLICATION sluice_shop ADD TABLE others")
    assert once(source) == Captured(1, 0)
    assert (look(source).changes, look(source).waits()) == (0, False)

    source.sql("INSERT INTO others VALUES (1, 1); INSERT INTO unpublished VALUES (1); CHECKPOINT; TRUNCATE others")
    session = source.session()
    session("BEGIN; INSERT INTO things VALUES (9, 9)")
    found = look(source)
    assert found.lag_bytes and found.changes == 0 and not found.waits() and found.trouble is None
    session("ROLLBACK")
    assert look(source).changes == 0

    source.sql("INSERT INTO things VALUES (2, 2), (3, 3); UPDATE things SET v = 0 WHERE id = 2")
    source.sql("ALTER TABLE things ADD COLUMN more TEXT")
    source.sql("DELETE FROM things WHERE id = 3")
    source.sql("TRUNCATE others, things")
    assert (look(source).changes, look(source).waits()) == (5, True)
    # Looking takes nothing away, and a tombstone follows the delete.
    assert once(source) == Captured(6, 0)
    assert [e.op for e in source.events("things")] == ["r", "c", "c", "u", "d", None, "t"]
    found = look(source)
    assert not found.waits() and found.last is not None

    # Far behind, what waits is not counted: it is captured, whatever it is.
    source.sql("INSERT INTO unpublished VALUES (2)")
    assert not look(source).waits()
    with monkeypatch.context() as patched:
        patched.setattr(sluice.capture.behind, "COUNTED_BYTES", 0)
        assert (look(source).changes, look(source).waits()) == (None, True)

    source.sql(f"SELECT pg_drop_replication_slot('{source.slot}')")
    lost = look(source).trouble
    assert lost is not None and "is gone" in lost and "sluice capture resnapshot shop" in lost
    with pytest.raises(CaptureError) as caught:
        once(source)
    assert str(caught.value) == lost


def test_a_run_apart_ends_with_whoever_waits_for_it(source: Source) -> None:
    source.sql(THINGS)
    source.define("public.things")

    class Cancelled(BaseException):
        pass

    def cancel(*_: object) -> None:
        raise Cancelled

    def when_captured() -> None:
        with suppress(AssertionError):
            until(lambda: len(source.events("things")) > 0 and look(source).running)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, cancel)
    try:
        waiter = threading.Thread(target=when_captured)
        waiter.start()
        with pytest.raises(Cancelled):
            run_apart(source.settings, source.capture)
        waiter.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    found = look(source)
    # It ended properly: all it had captured is confirmed to the database.
    assert (found.running, found.stage, found.waits()) == (False, "streaming", False)
    assert [e.op for e in source.events("things")] == ["r"]

    parent = subprocess.Popen(
        [
            sys.executable, "-c",
            "from sluice.capture import load_capture, run_apart; from sluice.settings import load_settings; "
            "settings = load_settings(); run_apart(settings, load_capture(settings, 'shop'))",
        ],
        cwd=PROJECT, env=source.environment(),
    )  # fmt: skip
    source.sql("INSERT INTO things VALUES (2, 2)")
    until(lambda: len(source.events("things")) == 2)
    parent.kill()
    parent.wait()
    until(lambda: not look(source).running)


def test_a_process_that_died_is_told_of_without_secrets(source: Source) -> None:
    source.define("public.things", publish=False, full=False)
    with tempfile.TemporaryFile() as words:
        words.write(b"x" * 9_000 + f"\nno room for Java, password={PASSWORD}\n".encode())
        with pytest.raises(CaptureError, match="was ended by SIGKILL and said") as caught:
            _answer(source.capture, b"", -signal.SIGKILL, words)
    assert "no room for Java" in str(caught.value) and PASSWORD not in str(caught.value)
    assert len(str(caught.value)) < 5_000
    with tempfile.TemporaryFile() as words, pytest.raises(CaptureError, match="exit code 3 and said: nothing"):
        _answer(source.capture, b"", 3, words)


def test_when_the_sensor_starts_a_run_stands_in_the_file(source: Source) -> None:
    source.define("public.things", publish=False, full=False)
    assert (source.capture.rows, source.capture.seconds) == (10_000, 10.0)
    source.define("public.things", publish=False, full=False, batch={"rows": 5, "seconds": 0.5})
    assert (source.capture.rows, source.capture.seconds) == (5, 0.5)
    for batch, words in (
        ({"rows": 0}, "batch.rows is 0"),
        ({"seconds": True}, "batch.seconds is True"),
        ({"seconds": 86_400}, "below a day"),
        ({"minutes": 1}, "a mapping of rows and seconds"),
        ([1], "a mapping of rows and seconds"),
    ):
        source.define("public.things", publish=False, full=False, batch=batch)
        with pytest.raises(ConfigurationError, match=words):
            load_captures(source.settings)
