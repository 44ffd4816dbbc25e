"""Fixtures of tests of the engine."""

from __future__ import annotations

import pytest

from tests.conftest import Bench


@pytest.fixture
def home(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench whose home the command finds in the environment."""
    monkeypatch.setenv("SLUICE_HOME", str(bench.settings.home))
    return bench
