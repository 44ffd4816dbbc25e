"""`sluice fetch` and `sluice rest status | reset`: arguments and output. Fetching belongs to `sluice.rest`."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from sluice.commands import shown
from sluice.errors import ConfigurationError, LandingError, RestUnavailableError
from sluice.settings import Settings

if TYPE_CHECKING:
    from sluice.contracts import Contract

# EX_TEMPFAIL of sysexits.h: who calls may try again later.
TRY_LATER = 75


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both to the parser of `sluice`."""
    fetch = commands.add_parser(
        "fetch",
        help=f"fetch a REST source into the landing area; exit 1 if somebody must look, {TRY_LATER} to try later",
        epilog="sluice fetch exchange_rates | sluice fetch exchange_rates --date 2026-01-05..2026-01-09",
    )
    fetch.add_argument("source", help="name of the contract")
    fetch.add_argument(
        "--date",
        type=_days,
        action="append",
        metavar="DAY",
        help="a day, or FIRST..LAST; may be given again (the last days the contract's schedule says, up to yesterday)",
    )
    fetch.set_defaults(run=_fetch)
    family = commands.add_parser("rest", help="how fresh REST sources are, and their circuit breakers")
    verbs = family.add_subparsers(dest="verb", required=True)
    status = verbs.add_parser("status", help="freshness, failures and circuit breakers; exit 1 if a source is stale")
    status.add_argument("source", nargs="?", help="name of the contract (all with `rest`)")
    status.set_defaults(run=_status)
    reset = verbs.add_parser("reset", help="close the circuit breakers of a source and forget its failures")
    reset.add_argument("source", help="name of the contract")
    reset.set_defaults(run=_reset)


def _days(text: str) -> list[date]:
    try:
        first, _, last = text.partition("..")
        begin = date.fromisoformat(first)
        end = date.fromisoformat(last) if last else begin
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{shown(text)!r} is no day; write 2026-01-05 or 2026-01-05..2026-01-09"
        ) from None
    # Ten years of days; more is a typing error, and a request each.
    if not 0 <= (end - begin).days < 3_660:
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is no span of days: the first one first, ten years at most")
    return [begin + timedelta(days=n) for n in range((end - begin).days + 1)]


def _rest_contracts(settings: Settings, name: str | None) -> list[Contract]:
    from sluice.contracts import load_contracts

    found = [c for c in load_contracts(settings.contracts).values() if c.rest is not None]
    if name is None:
        return found
    chosen = [c for c in found if c.name == name]
    if not chosen:
        known = ", ".join(c.name for c in found) or "none"
        raise ConfigurationError(f"There is no contract {name!r} with `rest`. Those are: {known}.")
    return chosen


def _fetch(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.rest import fetch, scheduled_days

    (contract,) = _rest_contracts(settings, chosen.source)
    assert contract.rest is not None, "chosen for having it"
    today = datetime.now(UTC).date()
    days = [d for given in chosen.date for d in given] if chosen.date else scheduled_days(contract.rest, today)
    end = settings.end_date or today + timedelta(days=1)
    outside = [d for d in days if not settings.start_date <= d < end]
    if outside:
        raise LandingError(
            f"{outside[0]} is no partition: they go from {settings.start_date} to {end - timedelta(days=1)} "
            "(SLUICE_START_DATE, SLUICE_END_DATE). Give --date."
        )
    done = fetch(settings, contract, _keys(contract, days))
    for each in done.fetched:
        news = "no rows" if not each.rows else f"{each.rows} rows{'' if each.changed else ', as before'}"
        print(f"{each.partition_key}: {news} ({each.requests} requests, {each.bytes} bytes)")
    for key, error in done.failed:
        print(f"sluice: {key}: {shown(str(error), 1000)}", file=sys.stderr)
    if done.untried:
        print(f"sluice: {len(done.untried)} more not tried, from {done.untried[0]}", file=sys.stderr)
    if done.good:
        return 0
    print("sluice: what was fetched before stays as it is", file=sys.stderr)
    return TRY_LATER if all(isinstance(error, RestUnavailableError) for _, error in done.failed) else 1


def _keys(contract: Contract, days: list[date]) -> list[str]:
    from sluice.landing import partition_key

    static = contract.static_dimension
    if static is None:
        return [day.isoformat() for day in days]
    return [
        partition_key(contract, {"date": day.isoformat(), static: value})
        for day in days
        for value in contract.landing.partitions[static]
    ]


def _status(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.rest import staleness

    stale = False
    for contract in _rest_contracts(settings, chosen.source):
        found = staleness(settings, contract)
        stale |= found.stale
        print(f"{found.source}: {shown(found.told, 500)}")
        for breaker in found.breakers:
            opened = (
                f", opened {_time(breaker.opened_at)}, tries {_time(breaker.tries_at)}" if breaker.opened_at else ""
            )
            print(f"  breaker {shown(breaker.name)}: {breaker.state}, {breaker.failures} failures in a row{opened}")
        for row in found.failing:
            print(f"  {row.partition_key} fails since {_time(row.failing_since)}: {shown(row.error, 500)}")
    return 1 if stale else 0


def _time(moment: float | None) -> str:
    return "-" if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _reset(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.rest.state import State

    (contract,) = _rest_contracts(settings, chosen.source)
    State.of(settings).reset(contract.name)
    print(f"{contract.name}: breakers closed, failures forgotten")
    return 0
