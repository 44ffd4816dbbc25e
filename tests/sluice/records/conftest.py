"""A contract that asks for next to nothing: what is taken apart is of files, not of rules."""

from __future__ import annotations

import pytest

from sluice.contracts import Contract
from tests.sluice.records.reading import Make


@pytest.fixture(scope="module")
def abc(make_contract: Make) -> Contract:
    """Three text columns, the first required."""
    return make_contract({"a": {"required": True}, "b": {}, "c": {}}, formats=["csv", "jsonl", "parquet"])
