"""What has arrived since it was last read: the landing area held against `ops.positions`.

There is no other memory of what was seen, so nothing is missed or read twice across restarts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sluice.contracts import Contract
from sluice.lake import Lake
from sluice.landing import Unroutable, scan


@dataclass(frozen=True)
class Arrivals:
    """Partitions with files that are new or changed, each with a fingerprint of its files' names, sizes and times."""

    pending: dict[str, str]
    newest_mtime_ns: dict[str, int]
    unroutable: tuple[Unroutable, ...]

    def delivery(self, keys: list[str]) -> str:
        """Identifies this very content of these partitions."""
        return hashlib.sha256("|".join(f"{k}={self.pending[k]}" for k in sorted(keys)).encode()).hexdigest()[:16]


def arrivals(lake: Lake, contract: Contract) -> Arrivals:
    """Hold a source's landing files against the positions last noted.

    Raises:
        LandingError: the landing folder is not there.
        LakeUnavailableError: the catalog cannot be reached.
    """
    settings = lake.settings
    found = scan(contract, settings.landing_path, settings.start_date, settings.end_date)
    lake.create()
    with lake.reading() as con:
        noted = set(
            con.execute(
                "SELECT partition_key, file, size, mtime_ns FROM ops.positions WHERE source = ?", [contract.name]
            ).fetchall()
        )
    pending: dict[str, str] = {}
    newest: dict[str, int] = {}
    for key, files in found.by_partition().items():
        if any((key, f.path, f.size, f.mtime_ns) not in noted for f in files):
            listed = "|".join(f"{f.path}:{f.size}:{f.mtime_ns}" for f in files)
            pending[key] = hashlib.sha256(listed.encode()).hexdigest()[:16]
            newest[key] = max(f.mtime_ns for f in files)
    return Arrivals(pending, newest, found.unroutable)
