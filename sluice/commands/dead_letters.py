"""`sluice dead-letters list | show | replay | discard | export`: arguments and output.

What is done belongs to `sluice.dead_letters` and `sluice.replay`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sluice.commands import count, many, me, place_word, shown
from sluice.errors import DeadLetterError
from sluice.settings import Settings

if TYPE_CHECKING:
    from sluice.dead_letters import Choice, Letter
    from sluice.lake import Lake


_MEANT = "Say which dead letters are meant: IDs, --source, --partition, --rule or --column"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the family to the parser of `sluice`."""
    family = commands.add_parser("dead-letters", help="rows that were set aside: find, mend, replay or discard them")
    verbs = family.add_subparsers(dest="verb", required=True)
    meant = argparse.ArgumentParser(add_help=False)
    meant.add_argument("--source", default="", help="name of the contract")
    meant.add_argument("--partition", default="", help="partition key, 2026-01-31 or 2026-01-31|uk")
    meant.add_argument("--rule", default="", help="that was broken")
    meant.add_argument("--column", default="", help="that broke a rule")
    by_id = argparse.ArgumentParser(add_help=False)
    by_id.add_argument(
        "ids", nargs="*", default=[], metavar="ID", help="of a dead letter; its first 6 characters or more"
    )
    status = argparse.ArgumentParser(add_help=False)
    status.add_argument(
        "--status",
        choices=["open", "replayed", "discarded", "superseded", "all"],
        help="(open; of letters named by ID any)",
    )
    who = argparse.ArgumentParser(add_help=False)
    who.add_argument("--by", default=me(), help="who does it, kept with the letters (you)")

    listed = verbs.add_parser("list", parents=[meant, status], help="by reason, with counts and a sample")
    listed.set_defaults(run=_list)
    shown = verbs.add_parser("show", parents=[by_id, meant, status], help="each one whole")
    shown.add_argument("--limit", type=count, default=20, help="at most so many (20)")
    shown.set_defaults(run=_show)
    replayed = verbs.add_parser("replay", parents=[by_id, meant, who], help="through the ingest path again")
    replayed.add_argument("--payload", help="to be taken instead of the original one, which is kept; for one ID")
    replayed.add_argument(
        "--corrections", type=Path, help="a file as `export` writes it, with its column `corrected` filled in"
    )
    replayed.add_argument("--all", action="store_true", help="every open letter there is, of all sources")
    replayed.set_defaults(run=_replay)
    given_up = verbs.add_parser("discard", parents=[by_id, meant, who], help="give letters up; they stay in the books")
    given_up.add_argument("--why", required=True, help="kept with the letters")
    given_up.set_defaults(run=_discard)
    exported = verbs.add_parser("export", parents=[meant, status], help="to a file, to be mended there")
    exported.add_argument("path", type=Path, metavar="FILE", help="its ending is the format: .csv, .jsonl, .parquet")
    exported.add_argument("--overwrite", action="store_true", help="a file of this name, with what was mended in it")
    exported.set_defaults(run=_export)


def _choice(settings: Settings, lake: Lake, chosen: argparse.Namespace) -> Choice:
    from sluice.contracts import load_contracts
    from sluice.dead_letters import Choice, check_source

    check_source(lake, chosen.source, lambda: load_contracts(settings.contracts))
    # `replay` and `discard` have no choice: only open letters can be.
    status = getattr(chosen, "status", "open") or ("all" if getattr(chosen, "ids", ()) else "open")
    return Choice(
        tuple(getattr(chosen, "ids", ())),
        chosen.source,
        chosen.partition,
        chosen.rule,
        chosen.column,
        "" if status == "all" else status,
    )


def _none_of(chosen: argparse.Namespace, found: int) -> bool:
    """Whether somebody asked for letters of a kind of which there is none: a misspelt name looks the same."""
    if found or not (chosen.source or chosen.partition or chosen.rule or chosen.column):
        return False
    print("No dead letter matches.")
    return True


def _list(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.dead_letters import counts, groups
    from sluice.lake import Lake

    lake = Lake(settings)
    choice = _choice(settings, lake, chosen)
    found = groups(lake, choice)
    if _none_of(chosen, len(found)):
        return 1
    for group in found:
        told = f", {group.poison} poison" if group.poison else ""
        print(
            f"{group.source}  {group.rule}{f' ({shown(group.column)})' if group.column else ''}: "
            f"{many(group.letters, 'letter')}, {many(group.rows, 'row')}{told}, "
            f"{group.first_failed_at:%Y-%m-%d %H:%M} to {group.last_failed_at:%Y-%m-%d %H:%M}"
        )
        print(f"    {shown(group.sample)}")
    by_status = counts(lake, choice)
    print(", ".join(f"{by_status.get(name, 0)} {name}" for name in ("open", "replayed", "discarded", "superseded")))
    return 0


def _show(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.dead_letters import letters
    from sluice.lake import Lake

    lake = Lake(settings)
    found = letters(lake, _choice(settings, lake, chosen), chosen.limit)
    for letter in found:
        place = shown(letter.file, 500) + (
            f", {place_word(letter.file)} {letter.line}" if letter.line is not None else f", {many(letter.rows, 'row')}"
        )
        print(f"{letter.dead_letter_id}  {letter.status}  {letter.source}  {letter.partition_key}")
        print(f"    {place}; batch {letter.batch_id}, contract {letter.contract_version}")
        print(f"    failed {_when(letter)}")
        for reason in letter.reasons:
            column = f" ({shown(reason['column'])})" if reason["column"] else ""
            value = f": {shown(reason['value'])}" if reason["value"] is not None else ""
            print(f"    - {reason['rule']}{column}{value}: {shown(reason['detail'], 500)}")
        if letter.message_ts is not None:
            headers = f", headers {shown(letter.headers, 500)}" if letter.headers else ""
            print(f"    message of {letter.message_ts} UTC, key {shown(letter.message_key) or '-'}{headers}")
        if letter.raw is not None:
            print(f"    {letter.raw_encoding}: {shown(letter.raw, 2_000)}")
        if letter.corrected is not None:
            # The reasons are of what was tried last; what was taken in the end has none.
            failed = (
                " (not taken; the reasons are of what was tried last)" if letter.status in ("open", "discarded") else ""
            )
            print(f"    corrected{failed}: {shown(letter.corrected, 2_000)}")
        if letter.decided_at is not None:
            decided = shown(letter.decided_why, 500) if letter.decided_why else "corrected"
            print(f"    {letter.decided_at:%Y-%m-%d %H:%M:%S} UTC, {shown(letter.decided_by) or '-'}: {decided}")
    if not found:
        print("No dead letter matches.")
    return 0 if found else 1


def _when(letter: Letter) -> str:
    first, last = (
        f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else "-"
        for at in (letter.first_failed_at, letter.last_failed_at or letter.first_failed_at)
    )
    attempts = letter.attempts or 1
    return f"once, {first}" if attempts == 1 else f"{attempts:,} times, {first} to {last}"


def _replay(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.contracts import load_contracts
    from sluice.dead_letters import Choice, applied, corrections_of, ids_by_source, resolved
    from sluice.ingest import ingest
    from sluice.lake import Lake
    from sluice.replay import replay

    lake = Lake(settings)
    choice = resolved(lake, _choice(settings, lake, chosen))
    corrections = corrections_of(chosen.corrections) if chosen.corrections else {}
    if chosen.corrections and not corrections:
        raise DeadLetterError(f"{chosen.corrections} corrects nothing: its column `corrected` is empty.")
    # A file is filled in bit by bit, and given again as a whole.
    before = applied(lake, corrections)
    if before:
        print(f"{many(len(before), 'correction')} already in bronze")
        corrections = {letter: payload for letter, payload in corrections.items() if letter not in before}
        if not corrections and choice == Choice() and not chosen.all:
            return 0
    if chosen.payload is not None:
        if len(chosen.ids) != 1:
            raise DeadLetterError("--payload is the correction of one dead letter: name its ID.")
        if chosen.ids[0] in corrections:
            raise DeadLetterError(f"{chosen.corrections} corrects {chosen.ids[0]!r}, too; leave one of the two out.")
        corrections[chosen.ids[0]] = chosen.payload
    if corrections and choice == Choice() and not chosen.all:
        # A file of corrections alone means just what it corrects.
        choice = resolved(lake, Choice(ids=tuple(corrections)))
    elif choice == Choice() and not chosen.all:
        raise DeadLetterError(f"{_MEANT}, or --all.")
    contracts = load_contracts(settings.contracts)
    by_source = ids_by_source(lake, choice, corrections)
    if not by_source:
        print("No open dead letter matches.")
        return 1
    failed = 0
    for source, own in by_source.items():
        if source not in contracts:
            print(f"{source}: there is no contract of this name; its dead letters stay (discard them).")
            failed += 1
            continue
        done = replay(lake, contracts[source], choice, corrections=own, by=chosen.by)
        one = choice.ids and len({*choice.ids, *own}) == 1
        which = (chosen.ids or choice.ids)[0] if one else f"--source {source}"
        why = f" (`sluice dead-letters show {which}` says why)" if done.failed else ""
        told = f"{done.accepted} accepted, {done.duplicate} duplicates, {done.failed} failed again{why}"
        if done.poison:
            told += f", {done.poison} left alone (poison: name them by ID or correct them)"
        if done.undecodable:
            told += f", {done.undecodable} are no text, or no single record (correct them)"
        if done.unroutable:
            told += f", {done.unroutable} files belong to no partition (move them)"
        rows = done.accepted + done.duplicate + done.failed + done.poison + done.undecodable + done.unroutable
        if rows or not done.partitions:
            print(f"{source}: {told}")
        failed += done.failed + done.undecodable + done.unroutable
        if not (done.accepted or done.duplicate or done.partitions):
            failed += done.poison
        if done.partitions:
            again = ingest(lake, contracts[source], done.partitions, again=True)
            refused = {b.partition_key: b.reason for b in again.refused}
            taken = many(len(again.batches) - len(refused), "partition")
            print(
                f"{source}: {taken} ingested again, {len(refused)} refused, {len(again.empty_partitions)} without files"
            )
            for key, reason in refused.items():
                print(f"    {key}: {shown(reason, 500)}")
            for each in again.drift:
                print(f"{source}: {shown(str(each), 300)}")
            for problem in again.problems:
                print(f"    {shown(problem.file, 500)}: {problem.rule}: {shown(problem.detail, 500)}")
            failed += len(refused) + len(again.empty_partitions) + len(again.problems)
    return 1 if failed else 0


def _discard(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.dead_letters import discard
    from sluice.lake import Lake

    if not (chosen.ids or chosen.source or chosen.partition or chosen.rule or chosen.column):
        raise DeadLetterError(f"{_MEANT}.")
    lake = Lake(settings)
    given_up = discard(lake, _choice(settings, lake, chosen), by=chosen.by, why=chosen.why)
    print(f"{many(given_up, 'dead letter')} discarded")
    return 0


def _export(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.dead_letters import export, letters
    from sluice.lake import Lake

    lake = Lake(settings)
    choice = _choice(settings, lake, chosen)
    if _none_of(chosen, len(letters(lake, choice, 1))):
        return 1
    written = export(lake, choice, chosen.path, overwrite=chosen.overwrite)
    print(f"{many(written, 'dead letter')} written to {chosen.path}")
    return 0
