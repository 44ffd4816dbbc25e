"""What tests of records read of what was taken apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.conftest import Extracted

Read = Callable[..., Extracted]


def values(found: Extracted, *columns: str) -> list[tuple[Any, ...]]:
    """Line and the texts of columns, of the rows without a fault."""
    names = columns or ("a", "b", "c")
    return [(r["line"], *(r[f"t_{n}"] for n in names)) for r in found.rows if r["fault"] is None]


def faults(found: Extracted) -> list[tuple[int, str, str]]:
    """Line, fault and what was said of it, of the rows with one."""
    return [(r["line"], r["fault"], r["fault_detail"]) for r in found.rows if r["fault"] is not None]
