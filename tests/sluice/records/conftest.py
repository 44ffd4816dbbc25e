"""A contract that asks for next to nothing: what is taken apart is of files, not of rules."""

from __future__ import annotations

import pytest

from sluice.contracts import Contract
from tests.conftest import MakeContract


@pytest.fixture(scope="module")
def abc(make_contract: MakeContract) -> Contract:
    """Three text columns, the first required."""
    return make_contract({"a": {"required": True}, "b": {}, "c": {}}, formats=["csv", "jsonl", "parquet"])
