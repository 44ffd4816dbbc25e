"""`sluice replay`: arguments and output. What is done belongs to `sluice.rebuild`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sluice.commands import moment_utc, shown
from sluice.settings import Settings

if TYPE_CHECKING:
    from sluice.swap import Rebuilt


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add it to the parser of `sluice`."""
    replay = commands.add_parser(
        "replay", help="make the rows of a topic again from the log, under today's contract (dead letters: see there)"
    )
    replay.add_argument("--topic", required=True)
    replay.add_argument(
        "--from",
        dest="since",
        required=True,
        type=moment_utc,
        metavar="TIME",
        help="since when: 2026-01-05T12:00 (UTC)",
    )
    replay.add_argument("--compare", action="store_true", help="only say what would become different")
    replay.add_argument(
        "--force", action="store_true", help="set bad rows aside one by one where their batch would be refused"
    )
    replay.set_defaults(run=_replay)


def _replay(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.contracts import load_contracts
    from sluice.errors import ContractError
    from sluice.eventlog import open_log
    from sluice.lake import Lake
    from sluice.rebuild import rebuild

    contracts = load_contracts(settings.contracts).values()
    sources = [c for c in contracts if c.stream and c.stream.topic == chosen.topic]
    if not sources:
        known = ", ".join(sorted(c.stream.topic for c in contracts if c.stream)) or "none"
        raise ContractError(f"No contract reads the topic {shown(chosen.topic)!r}. Those that are read: {known}.")
    log = open_log(settings)
    # Where there is no such topic nothing is made of it, and no lake either.
    log.bounds(chosen.topic)
    for contract in sources:
        done = rebuild(
            Lake(settings),
            contract,
            log,
            chosen.since,
            force=chosen.force,
            compare_only=chosen.compare,
            tell=lambda text, name=contract.name: print(f"{name}: {text}", flush=True),  # type: ignore[misc]
        )
        print(told(done))
    return 0


def told(done: Rebuilt) -> str:
    """What is printed of a replay."""
    earlier = (
        f"\n{done.earlier:,} more rows since then were read before a position was moved (sluice stream seek): they are "
        "not made again, and stay as they are"
        if done.earlier
        else ""
    )
    if not done.ranges:
        place = " at today's positions" if done.earlier else ""
        return f"{done.source}: nothing has been read since then{place}{earlier}"
    places = ", ".join(f"partition {r.partition} [{r.start}, {r.stop})" for r in done.ranges)
    changes = f"{done.gone:,} gone, {done.new:,} new, {done.changed:,} changed"
    verdict = "swapped" if done.swapped else "compared only: nothing was changed"
    return (
        f"{done.source}: {places}\n{done.before:,} rows before, {done.after:,} after ({changes}), "
        f"{done.dead_letters:,} set aside; {verdict}{earlier}"
    )
