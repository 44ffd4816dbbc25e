"""`sluice contracts diff | drift`: arguments and output.

What is compared belongs to `sluice.contract_diff`, what files brought to `sluice.drift`.
"""

from __future__ import annotations

import argparse
import sys

from sluice.commands import many, shown
from sluice.errors import ContractError, unknown
from sluice.settings import Settings


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the family to the parser of `sluice`."""
    family = commands.add_parser("contracts", help="what changed in the contracts, and where files differ from them")
    verbs = family.add_subparsers(dest="verb", required=True)
    diff = verbs.add_parser(
        "diff",
        help="each change and whom it breaks; exit 1 where a version does not say so, 2 where nothing can be compared",
    )
    diff.add_argument(
        "old", metavar="OLD", help="a folder of contracts, or a revision: git:HEAD^, git:v1.0.0:contracts"
    )
    diff.add_argument("new", metavar="NEW", nargs="?", help="likewise (the contracts in force)")
    diff.set_defaults(run=_diff)
    told = verbs.add_parser("drift", help="columns by which files differed from their contract, and what was done")
    told.add_argument("--source", default="", help="name of the contract (all)")
    told.set_defaults(run=_drift)


def _diff(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.contract_diff import compare, contracts_at

    try:
        old = contracts_at(chosen.old, settings.contracts)
        new = contracts_at(chosen.new or str(settings.contracts), settings.contracts)
        found = compare(old, new)
    except ContractError as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 2
    for each in found:
        print(f"{each.name} {each.before or '(none)'} → {each.after or '(none)'}")
        for change in each.changes:
            print(f"    {change.kind:<13} {shown(f'{change.where}: {change.what}')}")
        if each.complaint:
            print(f"    refused: {each.complaint}")
    refused = sum(bool(each.complaint) for each in found)
    same = len({*old, *new}) - len(found)
    print(f"{many(len(found), 'contract')} changed, {same} did not, {refused} refused")
    return 1 if refused else 0


def _drift(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.contracts import load_contracts
    from sluice.drift import drift
    from sluice.lake import Lake

    contracts = load_contracts(settings.contracts)
    if chosen.source and chosen.source not in contracts:
        raise ContractError(unknown("contract", chosen.source, contracts))
    for each in drift(Lake(settings), chosen.source):
        print(f"{each.source}  {each.first_seen_at:%Y-%m-%d %H:%M}  {shown(str(each), 300)}")
    return 0
