"""Data contracts: the only place a source is described.

Open Data Contract Standard (ODCS) v3 YAML is held against the standard (`standard`), read (`reading` and its parts),
and becomes the small, checked model the rest of the engine works from (`model`, `rest`). What to do with a contract
(SQL, assets, dbt sources) does not belong here.
"""

from sluice.contracts.model import (
    EVOLUTIONS,
    FORMATS,
    LATENESS,
    LEAST_HISTORY,
    PERSONAL,
    PRIVACY,
    REBUILT,
    SEVERITIES,
    VERSION,
    ChangeFeed,
    Column,
    Contract,
    CsvDialect,
    Landing,
    Pull,
    PullSchedule,
    RowRule,
    Stream,
    VolumeGate,
)
from sluice.contracts.reading import SUFFIX, load_contract, load_contracts, misnamed
from sluice.contracts.rest import FetchSchedule, RestSource

__all__ = [
    "EVOLUTIONS",
    "FORMATS",
    "LATENESS",
    "LEAST_HISTORY",
    "PERSONAL",
    "PRIVACY",
    "REBUILT",
    "SEVERITIES",
    "SUFFIX",
    "VERSION",
    "ChangeFeed",
    "Column",
    "Contract",
    "CsvDialect",
    "FetchSchedule",
    "Landing",
    "Pull",
    "PullSchedule",
    "RestSource",
    "RowRule",
    "Stream",
    "VolumeGate",
    "load_contract",
    "load_contracts",
    "misnamed",
]
