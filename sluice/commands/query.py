"""`sluice query`: arguments and output. What a reader's connection holds is `sluice.publication`'s to say."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sluice.commands import add_as_of
from sluice.settings import Settings

if TYPE_CHECKING:
    import duckdb

# Bytes taken from the pipe at once: as many as one holds, on Linux.
_BLOCK = 64 * 1024

# DuckDB clears an interrupt where a statement begins: one that came just before is lost, and is said again.
_INTERRUPT_EVERY_SECONDS = 0.1


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of `sluice`."""
    command = commands.add_parser("query", help="run SQL on the published lake")
    command.add_argument("sql")
    add_as_of(command)
    command.add_argument(
        "--live", action="store_true", help="the lake as it is now, for the views live_*; nothing pinned"
    )
    command.add_argument("--csv", action="store_true", help="all rows as CSV, for other programs; a null is empty")
    command.set_defaults(run=_query)


def _query(settings: Settings, chosen: argparse.Namespace) -> int:
    import duckdb

    from sluice.lake_errors import damaged
    from sluice.publication import connect

    with connect(settings, as_of=chosen.as_of, live=chosen.live) as con:
        # A name in the query is a table's, and no variable's of this module.
        con.execute("SET python_enable_replacements = false")
        try:
            result = con.sql(chosen.sql)
            if result is not None and chosen.csv:
                # Not JSON: DuckDB writes a DECIMAL there as a double.
                _write_csv(con, result)
            elif result is not None:
                result.show(max_width=180, max_rows=100)
        except duckdb.Error as error:
            print(f"sluice: {damaged(str(error), settings) or error}", file=sys.stderr)
            return 1
    return 0


def _write_csv(con: duckdb.DuckDBPyConnection, result: duckdb.DuckDBPyRelation) -> None:
    """Write all rows to the standard output as it is open, after what others have written there.

    DuckDB knows files by name only. By a name of the standard output it would open that anew: cut off what it holds,
    begin at its first byte, and take the name away when the query fails. So it writes into a pipe, emptied here.

    Raises:
        duckdb.Error: the query failed.
        OSError: the output takes no more: whoever read it has gone, or there is no room.
    """
    sys.stdout.flush()
    reader, writer = os.pipe()

    def make() -> None:
        try:
            result.write_csv(f"/dev/fd/{writer}")
        finally:
            os.close(writer)

    # DuckDB beside, the output here: a signal comes to the main thread, and must not find it waiting for DuckDB.
    with _interrupts() as heed, ThreadPoolExecutor(1) as pool:
        made = pool.submit(make)
        try:
            heed(True)
            while block := os.read(reader, _BLOCK):
                _write_all(sys.stdout.fileno(), block)
        except BaseException:
            heed(False)
            _give_up(con, reader, made)
            raise
        os.close(reader)
        made.result()


def _give_up(con: duckdb.DuckDBPyConnection, reader: int, made: Future[None]) -> None:
    """End a query whose rows nobody takes any more, wherever it is."""
    # It may be waiting for room in the pipe, or computing its first row.
    os.close(reader)
    while not made.done():
        con.interrupt()
        wait([made], _INTERRUPT_EVERY_SECONDS)


@contextmanager
def _interrupts() -> Iterator[Callable[[bool], None]]:
    """Heed Ctrl-C where something can be done about it, and once: in the midst of ending a query it would leave that.

    Yields:
        Says whether to heed it from here on; one that has come before is not lost.
    """
    decided = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    if decided or threading.current_thread() is not threading.main_thread():
        # Somebody else decides what it means, or is told of it.
        yield lambda _: None
        return
    heeded = heard = False

    def heed(yes: bool) -> None:
        nonlocal heeded
        heeded = yes
        if heeded and heard:
            raise KeyboardInterrupt

    def interrupted(*_: object) -> None:
        nonlocal heeded, heard
        heard = True
        if heeded:
            heeded = False
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield heed
    finally:
        # Once interrupted the command ends, and another Ctrl-C in the midst of saying so would be a traceback.
        if not heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _write_all(output: int, block: bytes) -> None:
    """Write a block whole, where one call may take a part of it, or none as long as a reader is not ready."""
    left = memoryview(block)
    while left:
        try:
            left = left[os.write(output, left) :]
        except BlockingIOError:
            select.select([], [output], [])
