"""`sluice stream`: arguments and output. What is done belongs to `sluice.streams`."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import TYPE_CHECKING

from sluice.commands import many, moment_utc, shown
from sluice.settings import Settings

if TYPE_CHECKING:
    from sluice.contracts import Contract
    from sluice.stream_positions import Lag
    from sluice.streams import StreamResult

_ENDS = ("unread", "earliest", "latest")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add it to the parser of `sluice`."""
    stream = commands.add_parser("stream", help="read topics of the event log into bronze; how far they are read")
    actions = stream.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="read what waits in a source's topic")
    run.add_argument("source")
    run.add_argument(
        "--for", dest="seconds", type=_seconds, default=0.0, metavar="SECONDS", help="go on reading for so long"
    )
    run.add_argument(
        "--force", action="store_true", help="set bad rows aside one by one where their batch would be refused"
    )
    status = actions.add_parser("status", help="show positions, what waits, and watermarks")
    seek = actions.add_parser("seek", help="move a source's positions; what it has read stays")
    seek.add_argument("source")
    seek.add_argument(
        "--to",
        required=True,
        type=_place,
        metavar="PLACE",
        help="unread (behind what was read of this very topic), earliest, latest, or a time (UTC)",
    )
    seek.add_argument(
        "--force", action="store_true", help="also where messages would be read a second time, or passed over"
    )
    for action, done in ((run, _run), (status, _status), (seek, _seek)):
        action.set_defaults(run=done)


def _seconds(text: str) -> float:
    # A hundred hours; who wants more lets it be started again.
    if not text.replace(".", "", 1).isdecimal() or len(text) > 9 or not 0 < float(text) <= 360_000:
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is no number of seconds up to 360000")
    return float(text)


def _place(text: str) -> datetime | str:
    try:
        return text if text in _ENDS else moment_utc(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, or {', '.join(_ENDS[:-1])} or {_ENDS[-1]}") from None


def _contract(settings: Settings, source: str) -> Contract:
    from sluice.contracts import load_contracts
    from sluice.errors import ContractError

    contracts = load_contracts(settings.contracts)
    if source not in contracts:
        streams = ", ".join(c.name for c in contracts.values() if c.stream) or "none"
        raise ContractError(f"There is no contract of a source {shown(source)!r}. Those with a stream: {streams}.")
    return contracts[source]


def _run(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.eventlog import open_log
    from sluice.lake import Lake
    from sluice.stream_positions import stream_of
    from sluice.streams import StreamResult, read_until

    contract = _contract(settings, chosen.source)
    total = StreamResult(contract.name, ())
    with open_log(settings) as log:
        # Where there is no such topic nothing is made of it, and no lake either.
        log.bounds(stream_of(contract).topic)
        for result in read_until(Lake(settings), contract, log, force=chosen.force, seconds=chosen.seconds):
            total = total.with_more(result)
            print(_told(result), flush=True)
    print(f"in all: {_told(total)}" if total.batches else f"{contract.name}: nothing waits")
    return 0


def _told(result: StreamResult) -> str:
    late = f", {result.late} late" if result.late else ""
    return (
        f"{result.source}: {many(len(result.batches), 'batch', 'batches')}, {many(result.total('rows_read'), 'row')} "
        f"read = {result.total('rows_accepted'):,} accepted + {result.total('rows_dead_lettered'):,} dead-lettered + "
        f"{many(result.total('rows_duplicate'), 'duplicate')}{late}"
    )


def _status(settings: Settings, _: argparse.Namespace) -> int:
    from sluice.contracts import load_contracts
    from sluice.errors import EventLogError
    from sluice.eventlog import open_log
    from sluice.lake import Lake
    from sluice.stream_positions import former_topics, lag, next_watermark, positions

    log = open_log(settings)
    streams = [c for c in load_contracts(settings.contracts).values() if c.stream]
    if not streams:
        print("No contract has a stream.")
        return 0
    code = 0
    topics = log.topics()
    with Lake(settings).reading() as con:
        for contract in streams:
            assert contract.stream is not None
            if contract.stream.topic not in topics:
                print(f"{contract.name}: there is no topic {contract.stream.topic} ({log.name}) yet")
                continue
            try:
                waiting = lag(con, contract, log)
            except EventLogError as error:
                print(f"{contract.name}: {error}")
                code = 1
                continue
            if former_topics(con, contract, log):
                print(
                    f"{contract.name}: was read from another topic {contract.stream.topic}: it was made anew, or "
                    f"SLUICE_KAFKA names another event log. `sluice stream seek {contract.name} --to unread` goes on "
                    f"with what was not read of this one ({log.name}) yet."
                )
                code = 1
                continue
            mark = next_watermark(con, contract, positions(con, contract), waiting)
            print(
                f"{contract.name}: topic {contract.stream.topic} ({log.name}), {sum(w.records for w in waiting)} wait, "
                f"watermark {f'{mark:%Y-%m-%d %H:%M:%S} UTC' if mark else 'none yet'}"
            )
            _print_positions(waiting)
    return code


def _seek(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.eventlog import open_log
    from sluice.lake import Lake
    from sluice.stream_positions import seek

    contract = _contract(settings, chosen.source)
    _print_positions(seek(Lake(settings), contract, open_log(settings), chosen.to, force=chosen.force))
    return 0


def _print_positions(waiting: list[Lag]) -> None:
    for each in waiting:
        print(f"  partition {each.partition}: read up to {each.next_offset} of {each.end}, {each.records} wait")
