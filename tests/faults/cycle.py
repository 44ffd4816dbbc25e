"""One cycle of a home, in a process that may be killed at any point: ingest, build, audit, publish.

`python -m tests.faults.cycle HOME` says on standard output which stage begins. What is in the landing area is what is
loaded; a cycle after a killed one goes on from wherever that was.
"""

from __future__ import annotations

import sys
from datetime import date

from resources.dbt import project_fingerprint
from sluice.bronze import create_bronze_tables
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.publication import publish, record_audit
from sluice.settings import Settings, load_settings
from tests.warehouse import CONTRACTS, load

STAGES = ("ingest", "dbt", "publish", "done")


def settings_of(home: str) -> Settings:
    """The settings of a home of these tests: 2026, from its first day on."""
    return load_settings(home=home, start_date=date(2026, 1, 1), end_date=date(2026, 2, 1))


def cycle(settings: Settings) -> None:
    """All of it; each stage is announced."""
    lake = Lake(settings)
    say("ingest")
    create_bronze_tables(lake, CONTRACTS)
    for contract in CONTRACTS:
        ingest(lake, contract)
    say("dbt")
    load(settings, [[]])
    say("publish")
    record_audit(lake, run_id="cycle", checks_passed=1, failed=[], code=project_fingerprint(settings))
    publish(lake, run_id="cycle")
    say("done")


def say(stage: str) -> None:
    """Tell whoever watches."""
    sys.stdout.write(f"{stage}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    cycle(settings_of(sys.argv[1]))
