"""What `sluice <command>` does, a module for each family of commands; `sluice.cli` puts them together."""

import getpass


def me() -> str:
    """Who runs this, by the system's account; empty where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
