"""What `sluice <command>` does, a module for each family of commands; `sluice.cli` puts them together.

Here is what the families share.
"""

import argparse
import getpass
from datetime import UTC, datetime

# How a message's place begins where a file's path is else: STREAM_PREFIX of `sluice.landing`, which would bring
# DuckDB along.
PREFIX = "stream:"


def me() -> str:
    """Who runs this, by the system's account; empty where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def shown(text: str | None, most: int = 120) -> str:
    """One line without control characters: what a file holds or is called must not steer a terminal."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text or "")
    return line if len(line) <= most else line[: most - 1] + "…"


def place_word(file: str) -> str:
    """What the number of a row's place in a file is called: of a message it is its offset."""
    return "offset" if file.startswith(PREFIX) else "line"


def many(number: int, thing: str, plural: str = "") -> str:
    """A number of things: 1 letter, 2 letters, 1,000 letters."""
    return f"{number:,} {thing if number == 1 else plural or thing + 's'}"


# No list is longer, and DuckDB takes it for a limit.
_MOST_COUNTED = 10**15


def count(text: str) -> int:
    """A number of rows to be told, for `argparse`."""
    # The length first: Python refuses to read a number of thousands of digits.
    if not text.isdecimal() or len(text) > len(str(_MOST_COUNTED)) or not 1 <= int(text) <= _MOST_COUNTED:
        raise argparse.ArgumentTypeError(f"{shown(text)!r} is no number from 1 to {_MOST_COUNTED}")
    return int(text)


def add_as_of(command: argparse.ArgumentParser) -> None:
    """Have a command take the moment whose published state it is about."""
    command.add_argument(
        "--as-of", type=moment, metavar="TIME", help="what readers saw then: 2026-01-05, 2026-01-05T12:00 (UTC)"
    )


def moment(text: str) -> datetime:
    """A time given as an argument: a date, or a date and time; without an offset of UTC."""
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            # In UTC it may lie before the year 1 or after 9999.
            found.astimezone(UTC)
        return found
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 2026-01-05 or 2026-01-05T12:00") from None


def moment_utc(text: str) -> datetime:
    """Likewise, as the lake and event logs have it: of UTC, without a zone."""
    found = moment(text)
    return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
