"""`sluice trace`: arguments and output. The way back is walked by `sluice.trace`."""

from __future__ import annotations

import argparse
import re
from datetime import date, datetime
from typing import TYPE_CHECKING

from sluice.commands import many, moment, place_word, shown
from sluice.settings import Settings

if TYPE_CHECKING:
    from sluice.trace import Step

# Files shown of a step; all of them with --all.
FILES_SHOWN = 10


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of `sluice`."""
    command = commands.add_parser(
        "trace",
        help="where a published number comes from: file and line, batch, contract, run",
        epilog="sluice trace 2026-01-05 | sluice trace mart_daily_sales date_key=20260105 region_key=uk",
    )
    command.add_argument("what", metavar="TABLE|DATE", help="a table, or a day: the facts of that day")
    command.add_argument("conditions", nargs="*", default=[], metavar="COLUMN=VALUE", help="which of its rows")
    command.add_argument("--all", action="store_true", help=f"every file, not the first {FILES_SHOWN}")
    command.add_argument("--as-of", type=moment, metavar="TIME", help="of what readers saw then")
    command.set_defaults(run=_trace)


def _trace(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.errors import TraceError
    from sluice.trace import trace, trace_day

    day = _day(chosen.what)
    if day is not None:
        if chosen.conditions:
            raise TraceError("A day alone means all facts of it; with conditions name the table: TABLE COLUMN=VALUE.")
        steps = trace_day(settings, day, chosen.as_of)
    else:
        pairs = []
        for text in chosen.conditions:
            column, given, value = text.partition("=")
            if not given:
                raise TraceError(f"{text!r} is no condition; write COLUMN=VALUE.")
            pairs.append((column, value))
        steps = trace(settings, chosen.what, pairs, chosen.as_of)
    for number, step in enumerate(steps):
        _show(step, None if chosen.all else FILES_SHOWN)
        ends = number + 1 == len(steps) or steps[number + 1].depth <= step.depth
        if ends and not step.origins and not step.untraced:
            print(f"{'  ' * step.depth}  no origin: nothing notes which rows it was made of")
    return 0


def _show(step: Step, most: int | None) -> None:
    indent = "  " * step.depth
    print(f"{indent}{step.table}: {many(step.rows, 'row')}, {step.by}")
    first = step.origins[:most]
    for origin in first:
        word = place_word(origin.file)
        lines = (
            f"{word} {origin.first}"
            if origin.lines == 1
            else f"{origin.lines:,} {word}s, {origin.first} to {origin.last}"
        )
        print(f"{indent}  {shown(origin.file)}: {lines}")
        print(
            f"{indent}    batch {origin.batch_id} of {origin.source} {origin.partition_key}: {origin.read:,} read = "
            f"{origin.accepted:,} accepted + {origin.dead_lettered:,} dead-lettered + {origin.duplicate:,} duplicate"
        )
        print(
            f"{indent}    contract {origin.contract_version} ({origin.contract_hash}), run {origin.run_id or '-'}, "
            f"{origin.ingested_at:%Y-%m-%d %H:%M:%S} UTC"
        )
        for letter in origin.replayed[:most]:
            how = "corrected and replayed" if letter.corrected else "replayed"
            print(
                f"{indent}    {word} {letter.line} was set aside, {how}: dead letter {letter.dead_letter_id[:12]}, "
                f"{shown(letter.decided_by) or '-'}, {letter.decided_at:%Y-%m-%d %H:%M:%S} UTC"
            )
        if len(origin.replayed) > len(origin.replayed[:most]):
            print(f"{indent}    and {len(origin.replayed[most:])} more lines that were set aside first (--all)")
    if len(step.origins) > len(first):
        rest = step.origins[len(first) :]
        print(f"{indent}  and {len(rest)} more files with {sum(o.lines for o in rest):,} lines (--all)")
    if step.looked_up:
        print(f"{indent}  looked up in {', '.join(step.looked_up)}")
    if step.untraced:
        print(f"{indent}  also made of {', '.join(step.untraced)}, with which it shares no key")


def _day(text: str) -> date | None:
    from sluice.errors import TraceError

    # Also as date_key has it, and this command shows it.
    form = "%Y%m%d" if re.fullmatch(r"\d{8}", text) else "%Y-%m-%d"
    try:
        return datetime.strptime(text, form).date()
    except ValueError:
        if re.fullmatch(r"\d+(-\d+-\d+)?", text):
            raise TraceError(f"{text!r} is no day of the calendar. Write it as 2026-01-05.") from None
        return None
