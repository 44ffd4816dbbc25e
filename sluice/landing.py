"""Which landing files there are, and which partition each belongs to.

Only names, sizes and times are looked at here; a file's content belongs to `sluice.preflight`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from sluice.contracts import Contract
from sluice.errors import LandingError

_SUFFIXES = {"csv": (".csv",), "jsonl": (".jsonl", ".ndjson"), "parquet": (".parquet",)}
GZIP_SUFFIX = ".gz"

# How the place of a message begins that stands where a file's path does (sluice.records.messages): it is JSON, and no
# path gives its tokens values.
STREAM_PREFIX = "stream:"

# How uploads in flight are named by rsync, Spark, browsers and people. They are not landing files yet.
_IN_FLIGHT_PREFIXES = (".", "_")
_IN_FLIGHT_SUFFIXES = (".tmp", ".part", ".partial", ".crdownload", ".filepart")


@dataclass(frozen=True)
class LandingFile:
    """A file and where its path puts it. `path` is relative to the landing folder, with forward slashes."""

    path: str
    size: int
    mtime_ns: int
    partition_key: str
    tokens: tuple[tuple[str, str], ...]
    format: str
    gzipped: bool


@dataclass(frozen=True)
class Unroutable:
    """A file that belongs to no partition of its source, and why."""

    path: str
    size: int
    mtime_ns: int
    reason: str


@dataclass(frozen=True)
class Scan:
    """What lies in a source's part of the landing area."""

    files: tuple[LandingFile, ...]
    unroutable: tuple[Unroutable, ...]

    def by_partition(self) -> dict[str, list[LandingFile]]:
        """The files by partition key, keys and files in order."""
        found: dict[str, list[LandingFile]] = {}
        for file in sorted(self.files, key=lambda f: (f.partition_key, f.path)):
            found.setdefault(file.partition_key, []).append(file)
        return found


def partition_key(contract: Contract, tokens: dict[str, str]) -> str:
    """The key of a partition as Dagster writes it: its dimensions' values in order of their names (`2026-01-31|uk`)."""
    return "|".join(tokens[name] for name in dimensions(contract))


def dimensions(contract: Contract) -> tuple[str, ...]:
    """The names of a partition key's parts, `date` among them, in the order they have there."""
    return tuple(sorted(["date", *contract.landing.partitions]))


def scan(contract: Contract, landing: Path, start: date, end: date | None) -> Scan:
    """List a source's files below `landing`.

    Files in flight (hidden, or ending in .tmp, .part …) are left out. A file whose path fits no partition between
    `start` (inclusive) and `end` (exclusive) is unroutable, never silently skipped.

    Raises:
        LandingError: the landing folder is not there or cannot be listed. A source that has no folder yet is empty.
    """
    if not landing.is_dir():
        raise LandingError(
            f"The landing folder {landing} is not there. Create it, mount it, or set SLUICE_LANDING to where "
            "files arrive."
        )
    root = landing / contract.landing.prefix
    files: list[LandingFile] = []
    unroutable: list[Unroutable] = []
    pattern = _path_pattern(contract)
    for entry, relative in _walk(root, landing):
        useless = _useless(entry)
        try:
            stat = entry.stat(follow_symlinks=useless is None)
        except FileNotFoundError:  # taken away since it was listed
            continue
        except PermissionError as error:
            # A folder may tell the names in it, and no more.
            raise LandingError(f"Cannot look at {entry.path}: {error.strerror}. Check its rights.") from error
        routed = useless or _route(contract, pattern, relative, entry, landing, start, end)
        if isinstance(routed, str):
            name = relative.encode("utf-8", "backslashreplace").decode()
            unroutable.append(Unroutable(name, stat.st_size, stat.st_mtime_ns, routed))
        else:
            key, tokens, file_format, gzipped = routed
            files.append(LandingFile(relative, stat.st_size, stat.st_mtime_ns, key, tokens, file_format, gzipped))
    return Scan(tuple(sorted(files, key=lambda f: f.path)), tuple(sorted(unroutable, key=lambda f: f.path)))


def strays(contracts: Iterable[Contract], landing: Path) -> tuple[Unroutable, ...]:
    """Files that lie in no contract's folder.

    Raises:
        LandingError: the landing folder is not there or cannot be listed.
    """
    if not landing.is_dir():
        raise LandingError(
            f"The landing folder {landing} is not there. Create it, mount it, or set SLUICE_LANDING to where "
            "files arrive."
        )
    prefixes = [c.landing.prefix for c in contracts]
    found = []
    for entry, relative in _walk(landing, landing, tuple(prefixes)):
        try:
            stat = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # taken away since it was listed
            continue
        name = relative.encode("utf-8", "backslashreplace").decode()
        reason = f"it lies in no contract's folder; those are {', '.join(sorted(prefixes))}"
        found.append(Unroutable(name, stat.st_size, stat.st_mtime_ns, reason))
    return tuple(sorted(found, key=lambda f: f.path))


def _walk(root: Path, landing: Path, but: tuple[str, ...] = ()) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Every entry below `root` but folders and files in flight, with its path relative to `landing`.

    A folder's link is not followed, and folders named in `but` (relative to `landing`) are left out.
    """
    pending = [str(root)]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(_IN_FLIGHT_PREFIXES) or entry.name.endswith(_IN_FLIGHT_SUFFIXES):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if Path(entry.path).relative_to(landing).as_posix() not in but:
                            pending.append(entry.path)
                    else:
                        yield entry, Path(entry.path).relative_to(landing).as_posix()
        except FileNotFoundError:
            # The source has delivered nothing yet, or somebody moved the folder between listing and reading it.
            continue
        except OSError as error:
            raise LandingError(f"Cannot list {folder}: {error.strerror}. Check its rights and its mount.") from error


def _useless(entry: os.DirEntry[str]) -> str | None:
    """Why an entry cannot be read as a file or its name not be written into the books; None when both can."""
    try:
        if not entry.is_file():
            return "the link leads to no file" if entry.is_symlink() else "it is no file but a pipe, socket or device"
        entry.path.encode("utf-8")
    except UnicodeEncodeError:
        return "the name is not UTF-8"
    except OSError as error:
        return f"the link cannot be followed: {error.strerror}"
    # DuckDB takes it for an escape where the name holds *, ? or [ as well.
    return "the name holds a backslash" if "\\" in entry.name else None


def _path_pattern(contract: Contract) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", contract.landing.path)
    pattern = "".join(re.escape(p) if i % 2 == 0 else f"(?P<{p}>[^/]+)" for i, p in enumerate(parts))
    return re.compile(pattern + r"/(?P<_name>[^/]+)")


def tokens_of(contract: Contract, path: str) -> tuple[tuple[str, str | None], ...]:
    """The values a landing path (relative, with forward slashes) gives to the tokens of its source; none of a message.

    Raises:
        LandingError: the path does not fit the contract, which may have changed since the file was read.
    """
    if path.startswith(STREAM_PREFIX):
        return tuple((name, None) for name in contract.landing.tokens)
    match = _path_pattern(contract).fullmatch(path)
    if match is None:
        raise LandingError(
            f"{path} does not fit {contract.landing.path}/<file> any more. Put landing.path of {contract.path.name} "
            "back, or deliver the file where it now belongs."
        )
    return tuple((name, value) for name, value in match.groupdict().items() if name != "_name")


def format_of(contract: Contract, name: str) -> str | None:
    """The format of a file by the ending of its name; None where it is none the contract allows."""
    if name.startswith(STREAM_PREFIX):
        return "jsonl"
    stem = name.removesuffix(GZIP_SUFFIX)
    fitting = [f for f in contract.landing.formats if stem.endswith(_SUFFIXES[f])]
    return None if not fitting or (stem != name and fitting[0] == "parquet") else fitting[0]


def _route(
    contract: Contract,
    pattern: re.Pattern[str],
    relative: str,
    entry: os.DirEntry[str],
    landing: Path,
    start: date,
    end: date | None,
) -> str | tuple[str, tuple[tuple[str, str], ...], str, bool]:
    """Where a file belongs, or the reason why it belongs nowhere."""
    match = pattern.fullmatch(relative)
    if match is None:
        return f"the path does not fit {contract.landing.path}/<file>"
    tokens = {name: value for name, value in match.groupdict().items() if name != "_name"}
    try:
        day = date.fromisoformat(tokens["date"])
    except ValueError:
        day = None
    if day is None or day.isoformat() != tokens["date"]:
        return f"{tokens['date']!r} is no date like 2026-01-31"
    if day < start or (end is not None and day >= end):
        bound = f"before SLUICE_START_DATE {start}" if day < start else f"not before SLUICE_END_DATE {end}"
        return f"the date {day} lies {bound}"
    static = contract.static_dimension
    if static is not None and tokens[static] not in contract.landing.partitions[static]:
        return f"unknown {static} {tokens[static]!r}; known are {', '.join(contract.landing.partitions[static])}"
    name = match["_name"]
    kind = format_of(contract, name)
    if kind is None:
        return f"the ending of {name!r} is none the contract allows ({', '.join(contract.landing.formats)})"
    if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(landing.resolve()):
        return "the link points outside the landing folder"
    return partition_key(contract, tokens), tuple(tokens.items()), kind, name.endswith(GZIP_SUFFIX)
