"""Fetching partitions: every page of one into one landing file, whole or not at all, and a note of how it went.

The file is written beside its place under a name no scan takes, and renamed when all pages are there and add up. So
whatever an API does, what lies in the landing area is the last good answer.
"""

from __future__ import annotations

import fcntl
import filecmp
import os
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import IO

from sluice.contracts import Contract
from sluice.contracts.rest import RestSource
from sluice.errors import (
    ConfigurationError,
    LandingError,
    RestAnswerError,
    RestCircuitOpenError,
    RestRefusedError,
    SluiceError,
    StorageFullError,
)
from sluice.landing import dimensions
from sluice.rest.client import Client
from sluice.rest.clock import Clock
from sluice.rest.documents import write
from sluice.rest.pages import pages
from sluice.rest.secrets import Secrets
from sluice.rest.state import State
from sluice.settings import Settings

# Statuses by which a server refuses whoever asks, not what is asked for: every other day would be refused as well.
_NOT_LET_IN = (401, 403)


@dataclass(frozen=True)
class Fetched:
    """A partition that was fetched.

    Attributes:
        rows: in the answer; 0 where the day has none, and then there is no file.
        changed: whether the landing area has something new.
        requests: sent, tries and redirects included.
        waited: seconds waited for the pace and between tries.
    """

    partition_key: str
    rows: int
    changed: bool
    pages: int
    requests: int
    bytes: int
    waited: float


@dataclass
class Fetches:
    """What came of the partitions asked for: fetched, failed and why, not tried for the reason of the last failure."""

    source: str
    fetched: list[Fetched] = field(default_factory=list)
    failed: list[tuple[str, SluiceError]] = field(default_factory=list)
    untried: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is missing."""
        return not self.failed and not self.untried


def fetch(
    settings: Settings,
    contract: Contract,
    keys: Iterable[str],
    *,
    clock: Clock | None = None,
    secrets: Secrets | None = None,
) -> Fetches:
    """Fetch partitions of a source into the landing area, one after the other.

    A partition that fails keeps what was fetched before. After one that is not let in, or with the circuit open, the
    others are not tried.

    Args:
        settings: where the landing area is.
        contract: of a source with `rest`.
        keys: of partitions, such as 2026-01-05.
        clock: tells the time and waits; the machine's by default.
        secrets: where variables come from; the environment by default.

    Raises:
        ConfigurationError: the contract has no `rest`, or the file with the circuit breakers cannot be used.
        LandingError: the landing folder is not there.
    """
    rest = contract.rest
    if rest is None:
        raise ConfigurationError(f"{contract.name} is not fetched: {contract.path.name} has no customProperty `rest`.")
    if not settings.landing_path.is_dir():
        raise LandingError(
            f"The landing folder {settings.landing_path} is not there. Create it, mount it, or set SLUICE_LANDING to "
            "where files arrive."
        )
    clock, secrets, state = clock or Clock(), secrets or Secrets(), State.of(settings)
    done = Fetches(contract.name)
    wanted = list(dict.fromkeys(keys))
    with secrets.out_of_logs():
        for number, key in enumerate(wanted):
            try:
                fetched = _fetch_one(settings, contract, rest, key, state, secrets, clock)
            except SluiceError as error:
                _scrub(error, secrets)
                done.failed.append((key, error))
                state.note_bad(contract.name, key, clock.now(), str(error))
                if _goes_for_all(error):
                    done.untried = wanted[number + 1 :]
                    for other in done.untried:
                        state.note_bad(contract.name, other, clock.now(), f"not tried, because of {key}: {error}")
                    break
            else:
                done.fetched.append(fetched)
                state.note_good(contract.name, key, clock.now(), fetched.rows)
    return done


def scheduled_days(rest: RestSource, today: date) -> list[date]:
    """The days a fetch is for when nobody names any: the last ones the contract says, up to yesterday."""
    days = rest.schedule.days if rest.schedule else 1
    return [today - timedelta(days=back) for back in range(days, 0, -1)]


def landing_file(settings: Settings, contract: Contract, key: str) -> Path:
    """Where what is fetched for a partition lies."""
    folder = contract.landing.path
    for name, value in _tokens(contract, key).items():
        folder = folder.replace(f"{{{name}}}", value)
    return settings.landing_path / folder / f"{contract.name}.jsonl"


def _tokens(contract: Contract, key: str) -> dict[str, str]:
    return dict(zip(dimensions(contract), key.split("|"), strict=True))


def _scrub(error: SluiceError, secrets: Secrets) -> None:
    """Take secrets out of a message, and out of reach what it was made of: a host or a key of a document may be one."""
    error.args = (secrets.hide(str(error)),)
    error.__cause__ = error.__context__ = None


def _goes_for_all(error: SluiceError) -> bool:
    if isinstance(error, RestRefusedError):
        return error.status in _NOT_LET_IN or error.status is None
    return isinstance(error, ConfigurationError | RestCircuitOpenError | StorageFullError)


def _fetch_one(
    settings: Settings, contract: Contract, rest: RestSource, key: str, state: State, secrets: Secrets, clock: Clock
) -> Fetched:
    target = landing_file(settings, contract, key)
    rows = count = size = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clear_unfinished(target)
        unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        with (
            unfinished.open("w", encoding="utf-8", newline="\n") as file,
            Client(contract.name, rest, _tokens(contract, key), state=state, secrets=secrets, clock=clock) as client,
        ):
            try:
                # The kernel lets go of it when the process ends, whichever way: so leftovers are told from work.
                fcntl.flock(file, fcntl.LOCK_EX)
                for page in pages(rest, client.first, client.ask):
                    count, rows = count + 1, rows + len(page)
                    size += _write(file, page)
                    if size > settings.file_bytes:
                        raise RestAnswerError(
                            f"{key} has more than {settings.file_bytes} bytes (SLUICE_FILE_BYTES), which ingest "
                            "would set "
                            "aside. Nothing was taken. Raise it, or partition the source."
                        )
                changed = _put(file, unfinished, target, rows, rest, key)
            finally:
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise _landing_trouble(target, error) from error
    finally:
        # A folder made for nothing; others' files keep theirs.
        with suppress(OSError):
            target.parent.rmdir()
    return Fetched(key, rows, changed, count, client.requests, client.bytes, client.waited)


def _write(file: IO[str], page: Sequence[object]) -> int:
    size = 0
    for row in page:
        line = write(row) + "\n"
        file.write(line)
        size += len(line.encode())
    return size


def _put(file: IO[str], unfinished: Path, target: Path, rows: int, rest: RestSource, key: str) -> bool:
    """Put a whole file in its place; whether it differs from what was there."""
    if not rows:
        if target.exists():
            raise RestAnswerError(
                f"The API has no rows for {key} any more; those fetched before stay. If they are to go, remove "
                f"{target.name} of that partition and load it again (docs/rest.md)."
            )
        if rest.empty == "refuse":
            raise RestAnswerError(
                f"The API has no rows for {key}. If a day may have none, set rest.empty: allow; else fetch again later."
            )
        return False
    file.flush()
    os.fsync(file.fileno())
    # A file that says the same keeps its time: no one who watches the folder is told of news that is none.
    if target.exists() and filecmp.cmp(unfinished, target, shallow=False):
        return False
    unfinished.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def _clear_unfinished(target: Path) -> None:
    """Remove what fetches left that were killed; they may hold anybody's data."""
    for path in target.parent.glob(f".{target.name}.*.tmp"):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            # Somebody is at it right now, or has just ended.
            continue


def _landing_trouble(target: Path, error: OSError) -> SluiceError:
    if error.errno in (28, 122):
        return StorageFullError(f"The disk of {target.parent} is full. Nothing was taken. Make room and fetch again.")
    return LandingError(f"Cannot write {target}: {error.strerror}. Nothing was taken. Check its rights and its mount.")
