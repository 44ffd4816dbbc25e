"""The `sluice` command: what people do to the lake outside Dagster. Errors are one message and exit code 1.

Running pipelines belongs to Dagster (`make dev`), generating a shop to `python -m sluice.simulation`.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import re
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from sluice.commands import (
    add_as_of,
    backup,
    capture,
    contracts,
    dead_letters,
    erase,
    many,
    publish,
    query,
    replay,
    rest,
    shown,
    stream,
    topics,
    trace,
    verify,
)
from sluice.errors import SluiceError
from sluice.settings import PROJECT, Settings, load_settings

# A full disk, a full quota, and the longest file this account may write.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What is wrong with a path, whoever named it.
_PATHS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS)


class _Parser(argparse.ArgumentParser):
    """A parser, and with it those of its commands, that says what was probably meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is not known here, and not only where all began: with the usage of this command."""
        known, more = super().parse_known_args(args, namespace)
        if more:
            close = difflib.get_close_matches(more[0].partition("=")[0], self._option_string_actions, n=1)
            self.error(f"unrecognized arguments: {' '.join(more)}" + (f"; did you mean {close[0]}?" if close else ""))
        return known, more

    def error(self, message: str) -> NoReturn:
        """End with the usage and a message; of a choice that is not offered with the nearest one."""
        wrong = re.search(r"invalid choice: '(.+?)' \(choose from (.+)\)", message)
        close = difflib.get_close_matches(wrong[1], re.findall(r"[\w-]+", wrong[2]), n=1) if wrong else []
        super().error(message + (f"; did you mean {close[0]}?" if close else ""))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser: argparse.ArgumentParser = _Parser(prog="sluice", description="Look after the lake.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('sluice')}")
    commands = parser.add_subparsers(dest="command", required=True)
    sync = commands.add_parser("sync", help="check the contracts and write the dbt sources made from them")
    books = commands.add_parser("books", help="show the ledger per source; exit 1 if it does not balance")
    published = commands.add_parser("published", help="show what readers see")
    query.add(commands)
    capture.add(commands)
    pull = commands.add_parser("pull", help="read what changed in a source's database into a landing file")
    pull.add_argument("source", metavar="SOURCE", help="name of a contract with a pull")
    pull.add_argument(
        "--from",
        dest="since",
        metavar="MARK",
        help="go on from this value of the cursor, or from the `beginning`: rows past it are delivered again",
    )
    contracts.add(commands)
    dead_letters.add(commands)
    publish.add(commands)
    trace.add(commands)
    backup.add(commands)
    verify.add(commands)
    stream.add(commands)
    replay.add(commands)
    erase.add(commands)
    rest.add(commands)
    topics.add(commands)
    add_as_of(published)
    for command, run in ((sync, _sync), (books, _books), (published, _published), (pull, _pull)):
        command.set_defaults(run=run)
    given = sys.argv[1:] if arguments is None else arguments
    for argument in given:
        # Bytes that are no text come in as lone surrogates, which no table can hold.
        try:
            argument.encode()
        except UnicodeEncodeError:
            parser.error(f"{argument!a} is no UTF-8. Texts and paths are given in UTF-8.")
    chosen = parser.parse_args(given)
    if sys.stdout is None:
        print("sluice: The standard output is closed. Send it to /dev/null if nobody is to read it.", file=sys.stderr)
        return 1
    try:
        code: int = chosen.run(load_settings(), chosen)
        sys.stdout.flush()
        return code
    except SluiceError as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno in _PATHS:
            path = error.filename or "A file"
            print(f"sluice: {path}: {error.strerror}. Check the path and its rights.", file=sys.stderr)
            return 1
        if error.errno not in (errno.EPIPE, errno.EBADF, *_NO_ROOM):
            raise
        # Whoever read the output has seen enough (`| head`), or it has no room. Python would complain once more,
        # closing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno in _NO_ROOM:
            print(f"sluice: {error.strerror}. Make room and run the command again.", file=sys.stderr)
        elif error.errno == errno.EBADF:
            print("sluice: The standard output is not open for writing. Send it somewhere else.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if type(error) is RuntimeError and str(error) == "Query interrupted":
            # DuckDB's, for a Ctrl-C while it computes.
            return _interrupted()
        if type(error) is RuntimeError and str(error).startswith("Symlink loop from"):
            # pathlib's, until Python 3.13, for what the system says as an OSError.
            print(f"sluice: {error}. Check the path.", file=sys.stderr)
            return 1
        # Deferred: help and contracts need no DuckDB.
        import duckdb

        from sluice.lake_errors import explain

        told = explain(error, load_settings()) if isinstance(error, duckdb.Error) else None
        if told is None:
            raise
        print(f"sluice: {told}", file=sys.stderr)
        return 1


def _interrupted() -> int:
    """Say so; the exit code is what shells say of a program that SIGINT has ended."""
    print("sluice: interrupted.", file=sys.stderr)
    return 128 + signal.SIGINT


def _sync(settings: Settings, _: argparse.Namespace) -> int:
    from sluice.contracts import SUFFIX, load_contracts, misnamed
    from sluice.dbt_sources import RELATIVE_PATH, write_sources

    contracts = load_contracts(settings.contracts)
    written = write_sources(contracts.values(), PROJECT / "dbt_project")
    names = ", ".join(f"{c.name} {c.version}" for c in contracts.values())
    done = "written" if written else "unchanged"
    print(f"{many(len(contracts), 'contract')} ({names}); dbt_project/{RELATIVE_PATH} {done}")
    for path in misnamed(settings.contracts):
        print(f"sluice: {path} was not read: the name of a contract ends in {SUFFIX}.", file=sys.stderr)
    return 0


def _books(settings: Settings, _: argparse.Namespace) -> int:
    from sluice.books import books, sources, warnings
    from sluice.contracts import load_contracts
    from sluice.lake import Lake

    lake = Lake(settings)
    rows = books(lake, sorted({*load_contracts(settings.contracts), *sources(lake)}))
    head = ("source", "batches", "refused", "read", "accepted", "dead-lettered", "duplicates", "balanced")
    print(" ".join(f"{h:>13}" for h in head))
    for b in rows:
        cells = (b.source, b.batches, b.refused, b.rows_read, b.rows_accepted, b.rows_dead_lettered, b.rows_duplicate)
        print(" ".join(f"{c:>13}" for c in (*cells, "yes" if b.balanced else "NO")))
    for told in warnings(lake):
        place = f", last {told.sample}" if told.sample else ""
        rows_told = f", {many(told.rows, 'row')}" if told.rows else ""
        column = f" ({told.column})" if told.column else ""
        batches = many(told.batches, "batch", "batches")
        print(f"warning: {told.source} {told.rule}{column}: {batches}{rows_told}{place}: {told.detail}")
    return 0 if all(b.balanced for b in rows) else 1


def _published(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.lake import Lake
    from sluice.publication import current_publication, publication_at

    lake = Lake(settings)
    publication = publication_at(lake, chosen.as_of) if chosen.as_of else current_publication(lake)
    if publication is None:
        # Without an offset it is of UTC, and says so.
        moment_told = f"{chosen.as_of}{'' if chosen.as_of and chosen.as_of.tzinfo else ' UTC'}"
        print(f"Nothing had been published by {moment_told}." if chosen.as_of else "Nothing has been published yet.")
        return 1
    # A rollback or a pin was somebody's decision, and a build is not what readers wait for then.
    decided = (
        f"; {shown(publication.decided_by) or '-'}: {shown(publication.reason, 500)}" if publication.reason else ""
    )
    print(
        f"publication {publication.publication_id}: snapshot {publication.snapshot_id}, "
        f"{publication.published_at:%Y-%m-%d %H:%M:%S} UTC, run {publication.run_id or '-'}"
        f"{', pinned' if publication.pinned else ''}{decided}"
    )
    return 0


def _pull(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.contracts import load_contracts
    from sluice.errors import ContractError
    from sluice.lake import Lake
    from sluice.pull import pull

    contracts = load_contracts(settings.contracts)
    if chosen.source not in contracts:
        raise ContractError(f"There is no contract {chosen.source!r}. See `sluice sync` for their names.")
    done = pull(Lake(settings), contracts[chosen.source], chosen.since)
    for warning in done.warnings:
        print(f"sluice: warning: {warning}", file=sys.stderr)
    where = f"in {done.file}" if done.file else "nothing new"
    print(f"{chosen.source}: {done.rows} rows, {where}; mark {done.mark if done.mark is not None else 'none yet'}")
    return 0
