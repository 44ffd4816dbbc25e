"""`sluice verify`: arguments and output. What is done belongs to `sluice.verification`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sluice.commands import many, shown
from sluice.settings import Settings

if TYPE_CHECKING:
    from sluice.verification import Damage, SetAside

# A list of partitions is read by a person.
_SHOWN = 12


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add it to the parser of `sluice`."""
    verify = commands.add_parser("verify", help="look whether every data file of the lake is there and can be read")
    verify.add_argument("--deep", action="store_true", help="read every value, not only each file's footer")
    verify.add_argument(
        "--set-aside",
        action="store_true",
        help="take damaged files out of the lake, so that what was in them can be made again",
    )
    verify.set_defaults(run=_verify)


def _verify(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.lake import Lake
    from sluice.verification import set_aside, verify

    lake = Lake(settings)
    found = verify(lake, deep=chosen.deep)
    for damage in found.damages:
        print(_told(damage))
    aside = (
        f"; besides, {many(found.unnamed, 'file')} the catalog does not name (of loads under way or cut short; "
        "maintenance removes what is left of the latter)"
        if found.unnamed
        else ""
    )
    if not found.damages:
        print(f"{found.files} files, {found.bytes / 1e6:.1f} MB: all there and readable{aside}")
        return 0
    print(f"{len(found.damages)} of {found.files} files are missing or damaged{aside}")
    if not chosen.set_aside:
        print(
            "Put them back if you can: `sluice backup` keeps each under the same name in data/, and they never change. "
            "If not, `sluice verify --set-aside` takes them out and says how their rows are made again."
        )
        return 1
    done = set_aside(lake, found)
    for line in _what_next(done):
        print(line)
    return 1 if done.left else 0


def _told(damage: Damage) -> str:
    file = damage.file
    kind = "deletions" if file.deletes else "rows"
    if damage.current:
        when = "in use" + (", readers meet it" if damage.published else "")
    else:
        when = "published: readers meet it" if damage.published else "of earlier snapshots only"
    where = f", partitions {_list(damage.partitions)}" if damage.partitions else ""
    return f"{file.table}: {shown(file.path, 500)} {shown(damage.problem, 300)} ({file.rows:,} {kind}; {when}{where})"


def _what_next(done: SetAside) -> list[str]:
    lines = [f"set aside: {len(done.files)} files; {done.snapshots_expired} earlier snapshots that named them expired"]
    for source, keys in done.partitions.items():
        lines.append(f"bronze/{source}: materialize with `force: true` (docs/operations.md): {', '.join(keys)}")
    for topic, since in done.topics.items():
        lines.append(f"messages of {topic}: `sluice replay --topic {topic} --from {since:%Y-%m-%dT%H:%M:%S}`")
    if done.partitions or done.topics or done.models:
        lines.append("then build the warehouse (job build_warehouse); what follows these tables is computed whole")
    if done.left:
        lines.append("readers go on meeting an error until that build is published; then run this again")
    return lines


def _list(keys: Sequence[str]) -> str:
    names = list(keys[:_SHOWN])
    return ", ".join(names) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
