"""Fixtures of tests of the engine."""

from __future__ import annotations

import pytest

from sluice.contracts import Contract
from tests.conftest import Bench
from tests.sluice.planted import Planted


@pytest.fixture
def home(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench whose home the command finds in the environment."""
    monkeypatch.setenv("SLUICE_HOME", str(bench.settings.home))
    return bench


@pytest.fixture
def planted(bench: Bench, contracts: dict[str, Contract]) -> Planted:
    """A shop with a person to erase."""
    return Planted(bench, contracts)
