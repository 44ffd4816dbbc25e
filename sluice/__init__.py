"""Sluice: files, changes and events in; a star schema with full history out; books that balance.

The engine. It never imports Dagster. What people use from here is `connect`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sluice.publication import connect

__all__ = ["connect"]


def __getattr__(name: str) -> Any:
    # Deferred: the simulation and the contracts' reader need no DuckDB.
    if name == "connect":
        from sluice.publication import connect

        return connect
    raise AttributeError(name)
