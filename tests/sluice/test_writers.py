"""Who is alone with the lake: whoever writes meanwhile waits, and no longer than they live; on PostgreSQL likewise."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from sluice import writers
from sluice.errors import LakeUnavailableError
from sluice.settings import PROJECT
from sluice.writers import alone, beside
from tests.conftest import Bench, MakeBench, go_without
from tests.postgres import PASSWORD, Server, programs, serving

_numbers = itertools.count()

HOLDER = """
import sys, time
from sluice.settings import load_settings
from sluice.writers import alone

with alone(load_settings(home=sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=["sqlite", "postgres"])
def bench(request: pytest.FixtureRequest, make_bench: MakeBench) -> Bench:
    """A home of its own, on a catalog of either kind."""
    if request.param == "sqlite":
        return make_bench("home")
    return on_postgres(request.getfixturevalue("postgres"), make_bench)


def on_postgres(server: Server, make_bench: MakeBench) -> Bench:
    database = server.database(f"writers_{next(_numbers)}")
    return make_bench("home", catalog=f"postgres:{database} password={PASSWORD}")


def holder(bench: Bench) -> subprocess.Popen[str]:
    """A process that is alone with the lake until a line comes in."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(bench.settings.home)],
        cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "SLUICE_CATALOG": bench.settings.catalog.get_secret_value()},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def _until_told(caplog: pytest.LogCaptureFixture, times: int) -> None:
    """Wait until so many have said that they wait."""
    until = time.monotonic() + 120
    while caplog.text.count("Waiting for somebody else who writes") < times:
        assert time.monotonic() < until, "nobody said that it waits"
        time.sleep(0.05)


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
        _until_told(caplog, 1)
        assert not done.is_set()
        # Readers wait for nobody.
        assert bench.sql("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'after'") == [(0,)]
        process.kill() if ending == "killed" else process.communicate("\n")
        writer.join(30)
    assert done.is_set()
    assert bench.sql("FROM ops.after") == [(1,)]


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


def test_on_postgres_loads_go_on_beside_each_other(postgres: Server, make_bench: MakeBench) -> None:
    bench = on_postgres(postgres, make_bench)
    bench.lake.create()

    def load() -> None:
        bench.lake.write(lambda con: con.execute("INSERT INTO ops.turns VALUES ('a', 0)"), "a load")

    with beside(bench.settings):
        other = threading.Thread(target=load)
        other.start()
        other.join(30)
        assert not other.is_alive(), "a load waited for another"
    assert bench.sql("SELECT source FROM ops.turns") == [("a",)]


def test_a_build_is_not_kept_waiting_by_loads_that_come_after_it(
    postgres: Server, make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writers, "_QUIET_SECONDS", 0.2)
    settings = on_postgres(postgres, make_bench).settings
    order: list[str] = []

    def take(place: Callable[..., object], name: str) -> threading.Thread:
        def run() -> None:
            with place(settings):  # type: ignore[attr-defined]
                order.append(name)

        waiting = int(postgres.run("postgres", _WAITING))
        thread = threading.Thread(target=run)
        thread.start()
        until = time.monotonic() + 30
        while int(postgres.run("postgres", _WAITING)) == waiting:
            assert time.monotonic() < until, f"{name} did not wait"
            time.sleep(0.05)
        return thread

    with beside(settings), caplog.at_level(logging.WARNING):
        threads = [take(alone, "build"), take(beside, "load")]
        # However long it takes: to say that one waits is not to wait anew.
        _until_told(caplog, 2)
    for thread in threads:
        thread.join(30)
    assert order == ["build", "load"]


def test_a_turn_lasts_whatever_limits_the_server_has(postgres: Server, make_bench: MakeBench) -> None:
    settings = on_postgres(postgres, make_bench).settings
    name = f"writers_{next(_numbers) - 1}"
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    for limit in limits:
        postgres.run("postgres", f"ALTER DATABASE {name} SET {limit} = '1h'")
    for place in (alone, beside):
        with place(settings):
            session = writers._mine()[settings.connection].con
            for limit in limits:
                assert writers._ask(session, f"SELECT current_setting('{limit}')") == [("0",)], limit


_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.mark.parametrize("loss", ["session", "server"])
def test_who_has_lost_their_place_writes_no_more(loss: str, make_bench: MakeBench) -> None:
    """Others may have written since: what was built is not to be taken for tested."""
    found = programs()
    if found is None:
        go_without("PostgreSQL is not installed (apt install postgresql)")
    with serving(found) as server:
        bench = on_postgres(server, make_bench)
        bench.lake.create()
        with pytest.raises(LakeUnavailableError, match="ended the session") as caught, alone(bench.settings):
            if loss == "server":
                server.crash()
                server.start()
            else:
                locks = "pg_locks WHERE locktype = 'advisory' AND granted"
                server.run("postgres", f"SELECT pg_terminate_backend(pid) FROM {locks}")
            bench.lake.write(lambda con: con.execute("CREATE TABLE ops.after AS SELECT 1 AS n"), "too late")
        assert PASSWORD not in str(caught.value)
        assert bench.sql("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'after'") == [(0,)]
        with alone(bench.settings):
            bench.lake.write(lambda con: con.execute("CREATE TABLE ops.after AS SELECT 1 AS n"), "again")
        assert bench.sql("FROM ops.after") == [(1,)]
        bench.close()
