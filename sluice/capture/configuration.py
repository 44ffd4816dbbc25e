"""What a capture is: a YAML file `captures/<name>.yaml`, and the connection, a secret that only the environment has.

Values and their checks only; nothing here connects to anything.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sluice.connections import parts, problem
from sluice.errors import ConfigurationError
from sluice.settings import Settings

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")

# What PostgreSQL takes for the name of a slot; 63 is its limit for any name.
_SLOT = re.compile(r"[a-z0-9_]{1,63}")

# Debezium puts it into the names of topics, which Kafka limits.
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,100}")

_DAY_SECONDS = 86_400

_KEYS = ("connection", "tables", "topicPrefix", "publication", "slot", "partitions", "properties", "batch")

# What Sluice sets or relies on, and may not be set by hand: by its concern the beginnings of Debezium's names.
_OWN = re.compile(
    # Where secrets and positions are, and how far the server may let go of its log.
    r"name$|connector\.|database\.|driver\.|plugin\.name|slot\.|offset\.|lsn\.|flush\.lsn|publication\.|internal\."
    # That nothing is left out: which tables and rows, what is done about an event that cannot be handled.
    r"|table\.|schema\.(include|exclude)|snapshot\.(mode|include|select|query|tables|lock|isolation)|event\.|errors\."
    r"|skipped\.operations|tombstones|transforms|predicates|replica\.identity|max\.queue\.size\.in\.bytes"
    # Each once and in order: where transactions begin and end, marks and heartbeats, under which names.
    r"|provide\.transaction|topic\.|message\.prefix|heartbeat\.|signal\.|record\.processing"
    # What values look like, as docs/cdc.md has it and contracts read it.
    r"|decimal\.|time\.precision|unavailable\.value|(key\.|value\.|header\.)?converter"
)


@dataclass(frozen=True)
class Capture:
    """Tables of one database whose changes are written into topics, one topic each.

    Attributes:
        name: of the file.
        connection: name of the environment variable with the libpq connection string; it begins with `SLUICE_CDC_`.
        tables: as (schema, table).
        prefix: the topics are `<prefix>.<schema>.<table>`.
        publication: in the database; made there by somebody who may.
        slot: the replication slot; the capture makes it, and nobody else uses it.
        partitions: of a topic, when it is made.
        properties: of Debezium, besides those Sluice sets.
        rows: as many changes that wait are captured at once by the sensor.
        seconds: fewer are, when so long ago something was captured last.
    """

    name: str
    connection: str
    tables: tuple[tuple[str, str], ...]
    prefix: str
    publication: str
    slot: str
    partitions: int
    properties: tuple[tuple[str, str], ...]
    # A run takes some 7 s on the tests' machine, mostly to start Java: more often would be nothing but starts.
    rows: int = 10_000
    seconds: float = 10.0

    def topic(self, schema: str, table: str) -> str:
        """The topic of a table, as Debezium names it."""
        # Debezium's rule: what no topic may have in its name becomes an underscore.
        return re.sub(r"[^a-zA-Z0-9._-]", "_", f"{self.prefix}.{schema}.{table}")

    def connection_string(self) -> str:
        """The libpq connection string from the environment. It may hold a password: never print it.

        Raises:
            ConfigurationError: it is not set, or is none.
        """
        found = os.environ.get(self.connection, "")
        if not found:
            raise ConfigurationError(
                f"The capture {self.name} connects with {self.connection}, which is not set. Set it to a libpq "
                "connection string: host=... port=5432 dbname=... user=... password=..."
            )
        wrong = problem(found)
        if wrong:
            raise ConfigurationError(f"{self.connection} must be a libpq connection string, and {wrong}.")
        given = parts(found)
        missing = [key for key in ("host", "dbname", "user") if not given.get(key)]
        if missing:
            raise ConfigurationError(f"{self.connection} does not say {', '.join(missing)}. Add {missing[0]}=...")
        return found


def load_captures(settings: Settings) -> dict[str, Capture]:
    """Every capture there is, by name; none where there is no folder.

    Raises:
        ConfigurationError: a file is none, or two would use one slot.
    """
    found = {path.stem: _load(path) for path in sorted(settings.captures.glob("*.yaml"))}
    slots: dict[tuple[str, str], str] = {}
    prefixes: dict[str, str] = {}
    for capture in found.values():
        for other in (
            slots.setdefault((capture.connection, capture.slot), capture.name),
            prefixes.setdefault(capture.prefix, capture.name),
        ):
            if other != capture.name:
                raise ConfigurationError(
                    f"The captures {other} and {capture.name} have the same slot or the same topicPrefix. Each needs "
                    f"its own: mend {settings.captures / capture.name}.yaml."
                )
    return found


def load_capture(settings: Settings, name: str) -> Capture:
    """One capture.

    Raises:
        ConfigurationError: there is none of that name, or a file is none.
    """
    captures = load_captures(settings)
    if name in captures:
        return captures[name]
    close = difflib.get_close_matches(name, captures, n=1)
    known = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(captures) or 'none'}."
    raise ConfigurationError(f"There is no capture {name!r} in {settings.captures}. {known}")


def _load(path: Path) -> Capture:
    def fail(message: str) -> ConfigurationError:
        return ConfigurationError(f"{path}: {message} See docs/cdc.md.")

    try:
        return _capture(path, fail)
    except RecursionError:
        raise fail("is nested too deep for a capture.") from None
    except ValueError:
        # Of YAML's dates and numbers: neither it nor Python can say which one without its text.
        raise fail("has a date that no calendar has, or a number of thousands of digits.") from None


def _parsed(path: Path, fail: Any) -> Any:
    """What the file holds. Where it is no YAML no word of it is told: a connection that stands there has a password."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise fail(f"cannot be read: {error}.") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise fail(f"is not valid YAML{where}. Mend it there.") from None


def _capture(path: Path, fail: Any) -> Capture:
    given = _parsed(path, fail)
    if not isinstance(given, dict):
        raise fail("holds no capture.")
    for key in given:
        if key not in _KEYS:
            close = difflib.get_close_matches(str(key), _KEYS, n=1)
            raise fail(
                f"{key!r} is not known. " + (f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(_KEYS)}.")
            )
    name = path.stem
    if not _NAME.fullmatch(name):
        raise fail("the file's name must be lower-case letters, digits and underscores, at most 40.")
    connection = given.get("connection", f"SLUICE_CDC_{name.upper()}")
    if not isinstance(connection, str) or not re.fullmatch(r"SLUICE_CDC_[A-Z0-9_]+", connection):
        raise fail(
            "connection must be the name of an environment variable that begins with SLUICE_CDC_, such as "
            f"SLUICE_CDC_{name.upper()}. The connection itself stays out of files."
        )
    partitions = given.get("partitions", 1)
    if isinstance(partitions, bool) or not isinstance(partitions, int) or not 1 <= partitions <= 1000:
        raise fail(f"partitions must be a number from 1 to 1000; it is {partitions!r}.")
    rows, seconds = _batch(given.get("batch") or {}, fail)
    texts = {
        "topicPrefix": (given.get("topicPrefix", name), _PREFIX),
        "slot": (given.get("slot", f"sluice_{name}"), _SLOT),
        "publication": (given.get("publication", f"sluice_{name}"), re.compile(r"[^\x00]{1,63}")),
    }
    for key, (value, pattern) in texts.items():
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise fail(f"{key} {value!r} is no name PostgreSQL and Debezium take: it must match {pattern.pattern}.")
    return Capture(
        name=name,
        connection=connection,
        tables=_tables(given.get("tables"), fail),
        prefix=texts["topicPrefix"][0],
        publication=texts["publication"][0],
        slot=texts["slot"][0],
        partitions=partitions,
        properties=_properties(given.get("properties") or {}, fail),
        rows=rows,
        seconds=seconds,
    )


def _tables(given: Any, fail: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(given, list) or not given:
        raise fail("tables must list the tables, such as [public.customers].")
    found = []
    for name in given:
        # Debezium parts its list by commas and takes each for a regular expression; what would need more than dots
        # and words is asked for by nobody.
        match = re.fullmatch(r"(\w+)\.(\w+)", name) if isinstance(name, str) else None
        if match is None:
            raise fail(f"tables has {name!r}; a table is <schema>.<table>, of letters, digits and underscores.")
        found.append((match.group(1), match.group(2)))
    if len(set(found)) < len(found):
        raise fail("tables names one table twice.")
    return tuple(found)


def _properties(given: Any, fail: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(given, dict):
        raise fail("properties must be a mapping of Debezium's properties.")
    for key in given:
        if _OWN.match(str(key)):
            raise fail(f"properties has {key!r}, which Sluice sets itself or relies on.")
    return tuple(
        (str(key), str(value).lower() if isinstance(value, bool) else str(value)) for key, value in given.items()
    )


def _batch(given: Any, fail: Any) -> tuple[int, float]:
    if not isinstance(given, dict) or set(given) - {"rows", "seconds"}:
        raise fail("batch must be a mapping of rows and seconds.")
    rows, seconds = given.get("rows", Capture.rows), given.get("seconds", Capture.seconds)
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise fail(f"batch.rows is {rows!r}; it must be a number of changes, 1 or more.")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < _DAY_SECONDS:
        raise fail(f"batch.seconds is {seconds!r}; it must be a number above 0 and below a day.")
    return rows, float(seconds)
