"""`sluice query`: all rows go into the output as it is open, whatever it does, or people are told."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sluice.audits import record_audit
from sluice.cli import main
from sluice.publication import publish
from sluice.settings import PROJECT
from tests.conftest import Bench


@pytest.fixture
def published(home: Bench) -> Bench:
    """A home whose readers see a table of thousand rows."""
    home.lake.create()
    rows = (
        "SELECT n, CAST(n AS DECIMAL(9, 2)) / 4 AS price, NULL AS nothing, 'a \"b\", c' AS said "
        "FROM range(1000) AS r (n)"
    )
    home.lake.write(lambda con: con.execute(f"CREATE TABLE gold.t AS {rows}"), "build")
    record_audit(home.lake, run_id="b", checks_passed=1, failed=[])
    publish(home.lake, run_id="p")
    return home


@pytest.mark.usefixtures("published")
def test_all_rows_as_csv(capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main(["query", "--csv", "SELECT n, price::DECIMAL(9, 2) AS price, nothing, said FROM t ORDER BY n"]) == 0
    head, *lines = capfd.readouterr().out.splitlines()
    assert head == "n,price,nothing,said"
    assert len(lines) == 1000
    assert lines[6] == '6,1.50,,"a ""b"", c"'
    assert main(["query", "--csv", "FROM nowhere"]) == 1
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("published")
def test_csv_goes_into_the_output_as_it_is_open(tmp_path: Path) -> None:
    target = tmp_path / "all.csv"

    def shell(line: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            env={**os.environ, "SLUICE": f"{sys.executable} -m sluice query --csv", "TARGET": str(target)},
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stderr

    assert shell('{ echo header; $SLUICE "SELECT 1 AS x"; echo trailer; } > "$TARGET"') == (0, "")
    assert target.read_text() == "header\nx\n1\ntrailer\n"
    assert shell('$SLUICE "SELECT 2 AS x" >> "$TARGET"') == (0, "")
    assert target.read_text() == "header\nx\n1\ntrailer\nx\n2\n"
    # More than pipes hold: whoever goes on writing after the reader has left waits for ever, or complains.
    assert shell('$SLUICE "FROM range(1000000)" | head -1 > "$TARGET"') == (1, "")
    assert target.read_text() == "range\n"
    # It fails after much has been written, which stays, as what stood there before does.
    late = "SELECT if(n = 990000, error('too late'), n) AS n FROM range(1000000) AS r (n)"
    code, told = shell(f'$SLUICE "{late}" >> "$TARGET"')
    assert (code, told) == (1, "sluice: Invalid Input Error: too late\n")
    lines = target.read_text().splitlines()
    assert lines[:3] == ["range", "n", "0"] and len(lines) > 10_000
    assert shell('$SLUICE "FROM range(1000000)" > /dev/full') == (
        1,
        "sluice: No space left on device. Make room and run the command again.\n",
    )
    # Past the room there is, one write takes a part of what it is given: that must not pass for all.
    for unbuffered in ("", "1"):
        limited = f'ulimit -f 100; PYTHONUNBUFFERED={unbuffered} $SLUICE "FROM range(20000)" > "$TARGET"'
        assert shell(limited) == (1, "sluice: File too large. Make room and run the command again.\n")
        assert target.stat().st_size == 100 * 1024
    for query in ('--csv "SELECT 1"', '"SELECT 1"'):
        assert shell(f"${{SLUICE% --csv}} {query} >&-") == (
            1,
            "sluice: The standard output is closed. Send it to /dev/null if nobody is to read it.\n",
        )
    assert shell('$SLUICE "SELECT 1" 1< /dev/null') == (
        1,
        "sluice: The standard output is not open for writing. Send it somewhere else.\n",
    )


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.usefixtures("published")
def test_csv_waits_for_a_reader_that_does_not_wait(unbuffered: str) -> None:
    reader, writer = os.pipe()
    # As programs of Node.js make theirs: a write that finds no room is refused instead of waiting.
    os.set_blocking(writer, False)
    with subprocess.Popen(
        [sys.executable, "-m", "sluice", "query", "--csv", "FROM range(200000)"],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        cwd=PROJECT,
        stdout=writer,
    ) as process:
        os.close(writer)
        select.select([reader], [], [])
        with os.fdopen(reader) as taken:
            # The pipe is full soon after its first byte.
            time.sleep(0.5)
            assert taken.read().splitlines() == ["range", *map(str, range(200_000))]
    assert process.returncode == 0


# In a background job of a shell Python finds SIGINT ignored, and leaves it so.
WITH_INTERRUPTS = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from sluice.cli import main; sys.exit(main(sys.argv[1:]))"
)


def interruptible(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WITH_INTERRUPTS, "query", *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# It writes at once, and then computes for longer than anybody waits.
COMPUTING = "FROM range(10000) UNION ALL SELECT count(*) FROM range(10000000) a, range(10000000) b"


@pytest.mark.parametrize("times", [1, 2, 9])
@pytest.mark.usefixtures("published")
def test_an_interrupted_query_ends(times: int) -> None:
    writing = "FROM range(1000000000)"
    for sql, lines in ((writing, 10), (COMPUTING, 9_000)):
        with interruptible("--csv", sql) as process:
            assert process.stdout is not None
            # As soon as it has written, it is under way, and the second has no more to write.
            for _ in range(lines):
                assert process.stdout.readline()
            for _ in range(times):
                process.send_signal(signal.SIGINT)
            assert process.wait(120) == 130
            assert process.stderr is not None
            assert process.stderr.read() == "sluice: interrupted.\n"


@pytest.mark.usefixtures("published")
def test_an_interrupted_query_for_people_ends() -> None:
    # The second statement begins when the first has written its file.
    home = Path(os.environ["SLUICE_HOME"])
    begun = home / "begun.csv"
    with interruptible(f"COPY (SELECT 1) TO '{begun}'; {COMPUTING}") as process:
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
        assert process.stderr is not None
        assert process.stderr.read() == "sluice: interrupted.\n"


AT_ONCE = """
import os, signal
from concurrent import futures
class Pool(futures.ThreadPoolExecutor):
    def submit(self, *given):
        made = super().submit(*given)
        os.kill(os.getpid(), signal.SIGINT)
        return made
from sluice.commands import query
query.ThreadPoolExecutor = Pool
"""


@pytest.mark.usefixtures("published")
def test_an_interrupt_as_soon_as_it_has_begun_ends_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE + WITH_INTERRUPTS, "query", "--csv", COMPUTING],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (130, "sluice: interrupted.\n")
