"""`sluice publish list | rollback | pin | unpin`: arguments and output.

What is done belongs to `sluice.publication`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sluice.commands import count, me, shown
from sluice.settings import Settings

if TYPE_CHECKING:
    from sluice.publication import Publication


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the family to the parser of `sluice`."""
    family = commands.add_parser("publish", help="what readers see: list it, take it back, hold it")
    verbs = family.add_subparsers(dest="verb", required=True)
    who = argparse.ArgumentParser(add_help=False)
    who.add_argument("--why", required=True, help="kept with the publication")
    who.add_argument("--by", default=me(), help="who does it, likewise (you)")
    listed = verbs.add_parser("list", help="newest first")
    listed.add_argument("--limit", type=count, default=20, help="at most so many (20)")
    listed.set_defaults(run=_list)
    for name, run, told in (
        ("rollback", _rollback, "move readers back, to the publication before the present one when none is named"),
        ("pin", _pin, "hold readers at a publication, the present one when none is named, whatever is built"),
    ):
        verb = verbs.add_parser(name, parents=[who], help=told)
        verb.add_argument("publication", nargs="?", type=int, metavar="NUMBER", help="of a publication")
        verb.set_defaults(run=run)
    verbs.add_parser("unpin", parents=[who], help="let builds move readers again").set_defaults(run=_unpin)


def _list(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.lake import Lake
    from sluice.publication import publications

    found = publications(Lake(settings), chosen.limit)
    for number, (each, kept) in enumerate(found):
        # What readers were held at once is history, told by the reason; that they are held now is of the newest.
        present = number == 0
        marks = [m for m, so in (("readers", present), ("pinned", present and each.pinned), ("gone", not kept)) if so]
        told = f"{shown(each.decided_by) or each.run_id or '-'}  {shown(each.reason, 500)}"
        marked = f"  ({', '.join(marks)})" if marks else ""
        print(
            f"{each.publication_id:>6}  snapshot {each.snapshot_id:>6}  {each.published_at:%Y-%m-%d %H:%M:%S}  "
            f"{told}{marked}"
        )
    if not found:
        print("Nothing has been published yet.")
    return 0 if found else 1


def _rollback(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.lake import Lake
    from sluice.publication import roll_back

    return _told(roll_back(Lake(settings), chosen.publication, by=chosen.by, why=chosen.why))


def _pin(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.lake import Lake
    from sluice.publication import pin

    return _told(pin(Lake(settings), chosen.publication, by=chosen.by, why=chosen.why))


def _unpin(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.lake import Lake
    from sluice.publication import unpin

    return _told(unpin(Lake(settings), by=chosen.by, why=chosen.why))


def _told(publication: Publication) -> int:
    held = ", pinned" if publication.pinned else ""
    print(f"publication {publication.publication_id}: readers see snapshot {publication.snapshot_id}{held}")
    return 0
