"""`sluice capture run | status | resnapshot`: arguments and output. What is done belongs to `sluice.capture`."""

from __future__ import annotations

import argparse
import math

from sluice.commands import many
from sluice.settings import Settings


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the family to the parser of `sluice`."""
    family = commands.add_parser("capture", help="write the changes of a database into the event log, as they happen")
    verbs = family.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="capture until stopped, or for a while")
    run.add_argument("name", metavar="NAME", help="of captures/NAME.yaml")
    how = run.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="end when all is captured that was committed before")
    how.add_argument("--for", dest="seconds", type=_seconds, metavar="SECONDS", help="end after so long")
    run.set_defaults(run=_run)
    status = verbs.add_parser("status", help="slot, position, lag and last event; exit 1 if something is wrong")
    status.add_argument("name", metavar="NAME", nargs="?", help="one capture (all)")
    status.set_defaults(run=_status)
    anew = verbs.add_parser("resnapshot", help="drop the slot, so that the next run reads all rows anew")
    anew.add_argument("name", metavar="NAME")
    anew.set_defaults(run=_resnapshot)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return found


def _run(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.capture import load_capture, run

    done = run(settings, load_capture(settings, chosen.name), once=chosen.once, seconds=chosen.seconds)
    print(f"{chosen.name}: {many(done.written, 'event')} captured, {done.skipped} had been before")
    return 0


def _status(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.capture import load_capture, load_captures, local_status, status
    from sluice.errors import CaptureError, CaptureUnavailableError

    captures = [load_capture(settings, chosen.name)] if chosen.name else list(load_captures(settings).values())
    if not captures:
        print(f"There is no capture in {settings.captures}.")
    wrong = 0
    for capture in captures:
        try:
            found = status(settings, capture)
        except (CaptureError, CaptureUnavailableError) as error:
            # What is here is known all the same, and tells how much there is to catch up with.
            found = local_status(settings, capture, str(error))
        print(f"{capture.name}: {found.stage}, {'running' if found.running else 'not running'}")
        if not found.reached:
            print(f"  slot {capture.slot}: not known")
        elif found.slot is not None:
            print(
                f"  slot {capture.slot}: confirmed {found.slot.confirmed}, {many(found.lag_bytes or 0, 'byte')} behind"
                f"{f' ({found.slot.wal_status})' if found.slot.wal_status else ''}"
            )
        else:
            print(f"  slot {capture.slot}: none")
        for topic, records, newest, place in found.topics:
            last = f", last captured {newest:%Y-%m-%d %H:%M:%S} UTC" if newest else ""
            at = f" at {place.commit}/{place.order}" if place else ""
            print(f"  topic {topic}: {many(records, 'record')}{last}{at}")
        if found.trouble:
            print(f"  {found.trouble}")
            wrong += 1
    return 1 if wrong else 0


def _resnapshot(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.capture import load_capture, resnapshot

    resnapshot(settings, load_capture(settings, chosen.name))
    print(f"{chosen.name}: the next run reads all rows anew")
    return 0
