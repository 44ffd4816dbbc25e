"""Reading what a contract says of how its records arrive: files, a topic, change events, a database that is asked.

What it says of an HTTP API is in `reading_rest`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

from sluice.contracts.model import (
    FORMATS,
    LATENESS,
    PATH_TOKEN,
    TOPIC,
    ChangeFeed,
    Column,
    CsvDialect,
    Landing,
    Pull,
    PullSchedule,
    Stream,
)
from sluice.contracts.reading_schedule import read_when
from sluice.errors import ContractError

# Refuses a value that is no mapping or has other keys than those given; says where.
Mapped = Callable[[Any, str, tuple[str, ...]], dict[str, Any]]
# Makes the error of a message, with the contract's file before it.
Fail = Callable[[str], ContractError]

# Kafka's own advice is some thousands a broker; a topic of more than this is a mistyped number.
_MOST_PARTITIONS = 1000

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s?(s|min|h|d)")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def read_landing(value: Any, mapped: Mapped, fail: Fail) -> Landing:
    """Where files arrive, by the custom property `landing`.

    Raises:
        ContractError: a key or value is not offered.
    """
    given = mapped(value, "customProperties.landing", ("path", "formats", "partitions", "csv", "duplicates"))
    path = str(given.get("path", "")).strip("/")
    tokens = PATH_TOKEN.findall(path)
    if "date" not in tokens or len(set(tokens)) != len(tokens):
        raise fail(f"landing.path {path!r} needs the token {{date}}, and each token once.")
    if not path.split("{")[0].rpartition("/")[0] or ".." in path.split("/"):
        raise fail(f"landing.path {path!r} must begin with a folder of its own and stay inside the landing area.")
    formats = tuple(given.get("formats") or ())
    if not formats or set(formats) - set(FORMATS):
        close = [c for f in formats if f not in FORMATS for c in difflib.get_close_matches(str(f), FORMATS, n=1)]
        meant = f" Did you mean {close[0]}?" if close else ""
        raise fail(f"landing.formats must list some of {', '.join(FORMATS)}; it is {list(formats)}.{meant}")
    partitions = mapped(given.get("partitions") or {}, "landing.partitions", tuple(tokens))
    for token, values in partitions.items():
        if token == "date" or not isinstance(values, list) or not values:
            raise fail(f"landing.partitions.{token} must list the values of a token other than {{date}}.")
    if len(partitions) > 1:
        raise fail("landing.partitions takes one static dimension besides {date}: Dagster's limit is two.")
    csv = mapped(given.get("csv") or {}, "landing.csv", ("delimiter", "quote", "header", "multiline", "encoding"))
    for key in ("delimiter", "quote"):
        if key in csv and (not isinstance(csv[key], str) or len(csv[key]) != 1):
            raise fail(f"landing.csv.{key} must be one character, in quotes.")
    if csv.get("delimiter", ",") == csv.get("quote", '"'):
        raise fail("landing.csv.delimiter and landing.csv.quote must differ.")
    for key in ("header", "multiline"):
        if key in csv and not isinstance(csv[key], bool):
            raise fail(f"landing.csv.{key} must be true or false.")
    if not _one_byte_line_ends(csv.get("encoding", "utf-8")):
        raise fail(
            f"landing.csv.encoding {csv['encoding']!r} is not offered. Use an encoding that extends ASCII: utf-8, "
            "latin-1, cp1252 …"
        )
    duplicates = given.get("duplicates", "file")
    if duplicates not in ("file", "batch"):
        raise fail(f"landing.duplicates is {duplicates!r}; it must be file or batch.")
    return Landing(
        path=path,
        formats=formats,
        partitions={k: tuple(str(v) for v in values) for k, values in partitions.items()},
        csv=CsvDialect(**csv),
        duplicates=duplicates,
    )


def read_stream(value: Any, columns: Sequence[Column], mapped: Mapped, fail: Fail) -> Stream | None:
    """The topic by which records come, by the custom property `stream`; None where the contract has none.

    Raises:
        ContractError: a key or value is not offered.
    """
    if value is None:
        return None
    known = ("topic", "partitions", "eventTime", "allowedLateness", "late", "batch")
    given = mapped(value, "customProperties.stream", known)
    topic = given.get("topic")
    if not isinstance(topic, str) or not TOPIC.fullmatch(topic):
        raise fail(
            f"stream.topic is {topic!r}; it must be letters, digits, dots, underscores and hyphens, at most 249."
        )
    partitions = given.get("partitions", 1)
    if isinstance(partitions, bool) or not isinstance(partitions, int) or not 1 <= partitions <= _MOST_PARTITIONS:
        raise fail(f"stream.partitions is {partitions!r}; it must be a number from 1 to {_MOST_PARTITIONS}.")
    event_time = given.get("eventTime")
    times = [c.name for c in columns if c.type == "TIMESTAMP"]
    if event_time is not None and event_time not in times:
        raise fail(f"stream.eventTime is {event_time!r}; it must be a TIMESTAMP column ({', '.join(times) or 'none'}).")
    late = given.get("late", LATENESS[0])
    if late not in LATENESS:
        raise fail(f"stream.late is {late!r}; it must be {' or '.join(LATENESS)}.")
    if event_time is None and ("late" in given or "allowedLateness" in given):
        raise fail("stream: who is late is told by eventTime. Name the column, or drop late, allowedLateness.")
    batch = mapped(given.get("batch") or {}, "stream.batch", ("rows", "seconds"))
    rows, seconds = batch.get("rows", Stream.rows), batch.get("seconds", Stream.seconds)
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise fail(f"stream.batch.rows is {rows!r}; it must be a number of records, 1 or more.")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < _SECONDS["d"]:
        raise fail(f"stream.batch.seconds is {seconds!r}; it must be a number above 0 and below a day.")
    lateness = _duration(fail, "stream.allowedLateness", given.get("allowedLateness", "0s"))
    return Stream(topic, partitions, event_time, lateness, str(late), rows, float(seconds))


def _duration(fail: Fail, where: str, value: Any) -> float:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise fail(f"{where} is {value!r}; write a number and s, min, h or d, such as 30min.")
    return float(match.group(1)) * _SECONDS[match.group(2)]


def read_change_feed(value: Any, mapped: Mapped, fail: Fail) -> ChangeFeed | None:
    """That the rows are change events, by the custom property `changeFeed`; None where the contract has none.

    Raises:
        ContractError: a key or value is not offered.
    """
    if value is None:
        return None
    given = mapped(value, "customProperties.changeFeed", ("envelope", "sequence", "validFrom", "truncates"))
    if given.get("envelope") != "debezium":
        raise fail(f"changeFeed.envelope {given.get('envelope')!r} is not offered. Use debezium.")
    sequence = given.get("sequence")
    paths = sequence if isinstance(sequence, list) and sequence else [sequence]
    for key, path in (*(("sequence", p) for p in paths), ("validFrom", given.get("validFrom"))):
        if not re.fullmatch(r"\w+(\.\w+)*", str(path or "")):
            raise fail(f"changeFeed.{key} must be a path in the envelope such as source.lsn.")
    if len(set(paths)) < len(paths):
        raise fail("changeFeed.sequence has a path twice.")
    truncates = given.get("truncates", False)
    if not isinstance(truncates, bool):
        raise fail("changeFeed.truncates must be true or false.")
    _check_sequence(fail, paths[0])
    return ChangeFeed(given["envelope"], paths[0], given["validFrom"], tuple(paths[1:]), truncates)


def read_pull(value: Any, source: str, landing: Landing, mapped: Mapped, fail: Fail) -> Pull | None:
    """The database that is asked for what changed, by the custom property `pull`; None where the contract has none.

    Raises:
        ContractError: a key or value is not offered.
    """
    if value is None:
        return None
    given = mapped(value, "customProperties.pull", ("connection", "table", "query", "cursor", "overlap", "schedule"))
    connection = given.get("connection", f"SLUICE_PULL_{source.upper()}")
    if not isinstance(connection, str) or not re.fullmatch(r"SLUICE_PULL_[A-Z0-9_]+", connection):
        raise fail(
            "pull.connection must be the name of an environment variable that begins with SLUICE_PULL_; the "
            "connection itself stays out of contracts."
        )
    table, query = given.get("table", ""), given.get("query", "")
    if bool(table) == bool(query) or not all(isinstance(v, str) for v in (table, query)):
        raise fail("pull needs either a table, such as public.suppliers, or a query.")
    if table and not re.fullmatch(r"[^.\x00]+(\.[^.\x00]+)?", table):
        raise fail(f"pull.table {table!r} must be <schema>.<table>.")
    cursor, overlap = given.get("cursor"), given.get("overlap", 0)
    if not isinstance(cursor, str) or not cursor:
        raise fail("pull.cursor must name the column by which rows are newer, such as updated_at.")
    if isinstance(overlap, bool) or not isinstance(overlap, int) or not 0 <= overlap <= 10**9:
        raise fail("pull.overlap must be a whole number: seconds of a time, days of a date, or units.")
    if not {"jsonl", "parquet"} & set(landing.formats) or set(landing.tokens) != {"date"}:
        raise fail("pull needs jsonl or parquet among landing.formats, and {date} alone in its path.")
    schedule = None
    if given.get("schedule") is not None:
        schedule = PullSchedule(
            *read_when(mapped(given["schedule"], "pull.schedule", ("cron", "active")), "pull.schedule", fail)
        )
    return Pull(connection, table, query.strip().rstrip(";"), cursor, overlap, schedule)


def _check_sequence(fail: Fail, first: str) -> None:
    """What begins anew every so often cannot be what the changes are ordered by first."""
    for path, anew in (
        ("source.pos", "with each binlog file"),
        ("source.row", "with each event of the binlog"),
        ("source.ord", "with each second of MongoDB's log"),
        ("source.event_serial_no", "with each change LSN"),
        ("transaction.total_order", "with each transaction"),
        ("transaction.data_collection_order", "with each transaction"),
    ):
        if first == path:
            raise fail(
                f"changeFeed.sequence {path} begins anew {anew}: alone it would put changes in a wrong order. What "
                "a connector has is in docs/contracts.md."
            )


def _one_byte_line_ends(encoding: Any) -> bool:
    """Whether Python knows an encoding, and its lines can be found by their bytes (not so in UTF-16)."""
    try:
        return "a\n".encode(encoding) == b"a\n"
    except (LookupError, TypeError):
        return False
