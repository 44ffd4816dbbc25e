"""Dagster's instance folder, and the environment a Sluice process runs in."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from resources.dbt import dbt_environment
from sluice.errors import SluiceError
from sluice.settings import PROJECT, Settings, load_settings


def instance_folder(settings: Settings) -> Path:
    """Where Dagster keeps what it knows."""
    return settings.home / "dagster"


def prepare_instance(settings: Settings) -> Path:
    """Make the instance folder with the project's `dagster.yaml` in it, and point this process at it."""
    folder = instance_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROJECT / "dagster.yaml", folder / "dagster.yaml")
    os.environ.update(dbt_environment(settings))
    os.environ["DAGSTER_HOME"] = str(folder)
    os.environ["SLUICE_HOME"] = str(settings.home)
    return folder


def port_problem(text: str) -> str | None:
    """Why the web UI cannot be served on a port of 127.0.0.1; None if it can."""
    port = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    if not 0 < port < 65_536:
        return f"{text!r} is no port. Choose a number from 1 to 65535: make dev PORT=3000"
    with socket.socket() as probe:
        # As the webserver does, so that a port just given up counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return (
                f"Port {port} cannot be used: {error.strerror}. Is `make dev` running already? Otherwise choose "
                f"another: make dev PORT={port + 1}"
            )
    return None


def main(arguments: Sequence[str]) -> int:
    """What `make dev` runs before Dagster starts: prepare the instance, and look whether the port is free."""
    try:
        prepare_instance(load_settings())
    except SluiceError as error:
        print(f"dev: {error}", file=sys.stderr)
        return 1
    problem = port_problem(arguments[0]) if arguments else None
    if problem:
        print(f"dev: {problem}", file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
