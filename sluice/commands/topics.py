"""`sluice topics`: arguments and output. What is done belongs to `sluice.eventlog` and `sluice.retention`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sluice.commands import count, many, moment_utc, shown
from sluice.errors import EventLogError
from sluice.settings import Settings

if TYPE_CHECKING:
    from sluice.eventlog import Bounds, EventLog, Message

# Partitions of a topic that nobody has thought about: enough for one machine, and the next number up is a new topic.
_PARTITIONS = 3

# Characters of a value or key that are shown.
_MOST = 2_000

# Bytes read at once to be shown: a topic's records may be large, and a person reads few.
_BYTES = 16 * 1024 * 1024


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the family to the parser of `sluice`."""
    family = commands.add_parser("topics", help="the event log: list, make, look into and fill its topics")
    verbs = family.add_subparsers(dest="verb", required=True)
    listed = verbs.add_parser("list", help="every topic, its partitions and the span of its offsets")
    listed.set_defaults(run=_list)
    created = verbs.add_parser("create", help="make a topic; one that is there stays as it is")
    created.add_argument("name", metavar="NAME")
    created.add_argument(
        "--partitions",
        type=count,
        help=f"for good: keys are spread by it (as a contract that reads the topic says, else {_PARTITIONS})",
    )
    created.set_defaults(run=_create)
    told = verbs.add_parser("show", help="the offsets of each partition; with --offset or --limit records, too")
    told.add_argument("name", metavar="NAME")
    told.add_argument("--partition", type=_number, help="this one alone")
    told.add_argument("--offset", type=_number, help="records from here on (the first there is)")
    told.add_argument("--limit", type=count, help="at most so many records (20)")
    told.set_defaults(run=_show)
    appended = verbs.add_parser(
        "append", help="append lines of JSON from standard input, all or none of them read well"
    )
    appended.add_argument("name", metavar="NAME")
    appended.add_argument("--key", metavar="FIELD", help="of each line, by whose value it is given to a partition")
    appended.set_defaults(run=_append)
    trimmed = verbs.add_parser("trim", help="let go of old records that every source has read (embedded log)")
    trimmed.add_argument("name", metavar="NAME")
    trimmed.add_argument(
        "--before", required=True, type=moment_utc, metavar="TIME", help="of records older than this (UTC), whole files"
    )
    trimmed.set_defaults(run=_trim)


def _number(text: str) -> int:
    """A number that may be 0, for `argparse`."""
    return 0 if text == "0" else count(text)


def _list(settings: Settings, _: argparse.Namespace) -> int:
    from sluice.eventlog import open_log

    with open_log(settings) as log:
        names = log.topics()
        for name in names:
            bounds = log.bounds(name)
            offsets = sum(b.end - b.start for b in bounds.values())
            print(f"{name}  {many(len(bounds), 'partition')}, {many(offsets, 'offset')}")
        if not names:
            print(f"No topic yet in {log.name}.")
    return 0


def _create(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.eventlog import open_log

    with open_log(settings) as log:
        there = chosen.name in log.topics()
        if there:
            told = f"{chosen.name} is there already, "
        else:
            wanted, why = (chosen.partitions, "") if chosen.partitions else _wanted_partitions(settings, chosen.name)
            log.create(chosen.name, wanted)
            told = f"{chosen.name} made{why}, "
        print(f"{told}{many(len(log.bounds(chosen.name)), 'partition')} ({log.name})")
    return 0


def _wanted_partitions(settings: Settings, topic: str) -> tuple[int, str]:
    """How many partitions a topic is made with that nobody has said it of, and words for where the number is from.

    Raises:
        ConfigurationError: a contract cannot be read; it might be the one that says.
    """
    from sluice.contracts import load_contracts

    said = {
        contract.name: contract.stream.partitions
        for contract in load_contracts(settings.contracts).values()
        if contract.stream and contract.stream.topic == topic
    }
    if not said:
        return _PARTITIONS, " with the default, for no contract reads it"
    # Of several the largest: more are never too few for a reader, and the number is for good.
    name = max(said, key=said.__getitem__)
    return said[name], f" as the contract {name} says"


def _show(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.eventlog import open_log

    with open_log(settings) as log:
        bounds = log.bounds(chosen.name)
        if chosen.partition is not None:
            if chosen.partition not in bounds:
                raise EventLogError(
                    f"The topic {chosen.name} has no partition {chosen.partition}; it has {len(bounds)}."
                )
            bounds = {chosen.partition: bounds[chosen.partition]}
        for number, each in bounds.items():
            print(f"partition {number}: offsets {each.start} to {each.end} (exclusive)")
        if chosen.offset is not None or chosen.limit is not None:
            for line in _records(log, chosen.name, bounds, chosen.offset or 0, chosen.limit or 20):
                print(line)
    return 0


def _records(log: EventLog, topic: str, bounds: dict[int, Bounds], offset: int, limit: int) -> Iterator[str]:
    """Lines of records from an offset on, `limit` in all, partition by partition."""
    starts = {number: max(offset, each.start) for number, each in bounds.items() if offset < each.end}
    left = limit
    while left and starts:
        read = log.read(topic, starts, max_rows=left, max_bytes=_BYTES)
        for each in read:
            starts[each.partition] = each.stop
            for record in each.records.slice(0, left).to_pylist():
                yield _told(each.partition, record)
                left -= 1
        if not read:
            return


def _told(partition: int, record: dict[str, Any]) -> str:
    # Added, not converted: a producer may have sent any number of milliseconds.
    try:
        at = f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=record['timestamp_ms']):%Y-%m-%d %H:%M:%S.%f}"
        at = f"{at[:-3]} UTC"
    except OverflowError:
        at = f"{record['timestamp_ms']} ms"
    headers = "".join(
        f"\n    {shown(header['name'], 200)}: {_text(header['value'])}" for header in record["headers"] or ()
    )
    return f"{partition}:{record['offset']}  {at}  {_text(record['key'])}  {_text(record['value'])}{headers}"


def _text(value: bytes | None) -> str:
    """Bytes as one line: what is no UTF-8, or would steer a terminal, as its escape."""
    return "(null)" if value is None else shown(value.decode(errors="backslashreplace"), _MOST)


def _append(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.eventlog import open_log

    with open_log(settings) as log:
        # A topic that is not there is told before standard input is waited for.
        log.bounds(chosen.name)
        messages = list(_messages(sys.stdin.buffer, chosen.key))
        appended = log.append(chosen.name, (message for message, _ in messages))
        print(f"{many(appended, 'record')} appended to {chosen.name} ({log.name})")
        others = sum(not is_object for _, is_object in messages)
        if others:
            told = "is no JSON object: a contract will set it"
            if others > 1:
                told = "are no JSON objects: a contract will set them"
            print(f"{others:,} of them {told} aside")
    return 0


def _trim(settings: Settings, chosen: argparse.Namespace) -> int:
    from sluice.contracts import load_contracts
    from sluice.eventlog.embedded import SEGMENT_BYTES
    from sluice.lake import Lake
    from sluice.retention import let_go

    contracts = load_contracts(settings.contracts).values()
    for done in let_go(Lake(settings), contracts, chosen.name, chosen.before):
        waiting = ""
        if done.unread_by:
            waiting = f"; older ones stay that {', '.join(done.unread_by)} has yet to read"
        elif not done.files and done.bounds.start < done.bounds.end:
            size = SEGMENT_BYTES // (1024 * 1024)
            waiting = f"; only whole files go that hold nothing newer: files are of {size} MB, and the newest stays"
        print(
            f"partition {done.partition}: let go of {many(done.files, 'file')}, offsets {done.bounds.start} to "
            f"{done.bounds.end} (exclusive) are left{waiting}"
        )
    return 0


def _messages(lines: Iterable[bytes], key: str | None) -> Iterator[tuple[Message, bool]]:
    """A message of each line, just as it is, and whether it is a JSON object; empty ones are passed over."""
    from sluice.eventlog import Message

    for number, line in enumerate(lines, start=1):
        value = line.strip()
        if not value:
            continue
        try:
            found = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise EventLogError(f"Line {number} is no JSON: {error}. Nothing was appended.") from None
        if key is None:
            yield Message(value), isinstance(found, dict)
            continue
        if not isinstance(found, dict) or key not in found:
            raise EventLogError(f"Line {number} has no field {key!r} for the key. Nothing was appended.")
        own = found[key]
        if own is not None and not isinstance(own, str):
            own = json.dumps(own, separators=(",", ":"), ensure_ascii=False)
        try:
            yield Message(value, None if own is None else own.encode()), True
        except UnicodeEncodeError:
            raise EventLogError(f"Line {number}: its {key!r} is no text. Nothing was appended.") from None
