"""What `sluice <command>` does, a module for each family of commands; `sluice.cli` puts them together."""

import argparse
import getpass
from datetime import datetime


def me() -> str:
    """Who runs this, by the system's account; empty where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def moment(text: str) -> datetime:
    """A time given as an argument: a date, or a date and time; without an offset of UTC."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 2026-01-05 or 2026-01-05T12:00") from None
