"""One PostgreSQL with logical replication for all tests of capturing; each has a database and a home of its own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import go_without
from tests.postgres import Server, programs, serving
from tests.sluice.capture.source import Source, missing

_numbers = itertools.count()


@pytest.fixture(scope="session")
def logical() -> Iterator[Server]:
    lacking = missing()
    found = programs()
    if lacking or found is None:
        go_without(f"{lacking} (apt install postgresql default-jre-headless; make .venv/dev)")
    # A slot for each test, which stays until the server is gone.
    with serving(
        found, wal_level="logical", track_commit_timestamp="on", max_replication_slots="60", max_wal_senders="20"
    ) as server:
        yield server


@pytest.fixture
def source(logical: Server, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    """A database, and nothing captured yet."""
    # PostgreSQL cuts longer names off.
    words = re.sub(r"\W", "_", request.node.name)[:50]
    name = f"{words}_{next(_numbers)}"
    logical.database(name)
    # The server's slots are of all its databases.
    made = Source(logical, name, tmp_path / "home", slot=f"slot_{name.rpartition('_')[2]}")
    yield made
    made.close()
