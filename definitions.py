"""Assembles everything Dagster runs. Each part can be replaced by a test; nothing is computed or configured here."""

from __future__ import annotations

import warnings
from pathlib import Path

import dagster as dg
from dagster_dbt import DbtProject

from assets.capture import build_capture_asset, capture_key, topic_writers
from assets.dead_letters import build_dead_letters, build_replay_job, no_poison
from assets.ingest import build_ingest_assets
from assets.inventory import KEY as INVENTORY
from assets.inventory import build_landing_inventory
from assets.maintenance import KEY as MAINTENANCE
from assets.maintenance import lake_maintenance
from assets.publication import build_publication
from assets.pull import build_pull_assets
from assets.rest import build_rest_assets
from assets.streams import build_stream_assets, stream_key
from assets.warehouse import build_warehouse
from resources.dbt import DBT_PROJECT, dbt_resource, prepare_dbt_project
from resources.lake import LakeResource
from resources.notifier import Notifier
from sensors.alerts import alert_on_failure
from sensors.automation import automated, automation_sensor
from sensors.capture import capture_sensor
from sensors.landing import inventory_sensor, landing_sensor
from sensors.publication import publication_sensor
from sensors.schedules import (
    capture_job,
    daily_schedule,
    fetch_job,
    fetch_schedule,
    maintenance_job,
    maintenance_schedule,
    pull_job,
    pull_schedule,
    source_job,
    stream_job,
    warehouse_job,
)
from sensors.streams import stream_sensor
from sluice.capture import load_captures
from sluice.contracts import load_contracts
from sluice.extensions import install_extensions
from sluice.settings import Settings, load_settings


def build_definitions(
    settings: Settings | None = None, project: DbtProject | None = None, dbt_folder: Path = DBT_PROJECT
) -> dg.Definitions:
    """Everything, for these settings; those of the environment by default."""
    settings = settings or load_settings()
    # Said in assets/ingest.py; once is enough.
    warnings.filterwarnings("ignore", message="Parameter `backfill_policy`", category=dg.BetaWarning)
    install_extensions()
    contracts = list(load_contracts(settings.contracts).values())
    captures = load_captures(settings)
    project = project or prepare_dbt_project(contracts, settings, dbt_folder)

    fetched = [c for c in contracts if c.rest is not None]
    landing = build_rest_assets(fetched, settings)
    pulled = [c for c in contracts if c.pull is not None]
    pulls = build_pull_assets(pulled)
    ingest = build_ingest_assets(contracts, settings)
    streams = build_stream_assets(contracts, settings, topic_writers(captures))
    warehouse = build_warehouse(project, contracts, {c.name: stream_key(c) for c in contracts if c.stream})
    published = build_publication([key for key in warehouse.keys if key.path[0] == "gold"])
    inventory = build_landing_inventory(contracts)
    dead_letters = build_dead_letters(contracts)

    loads = [source_job(c.name, a.key) for c, a in zip(contracts, ingest, strict=True)]
    fetches = [fetch_job(c, a.key) for c, a in zip(fetched, landing, strict=True)]
    fetching = [fetch_schedule(c, job, a) for c, job, a in zip(fetched, fetches, landing, strict=True)]
    pull_jobs = [pull_job(c, a.key) for c, a in zip(pulled, pulls, strict=True)]
    pulling = [pull_schedule(c, job, a.key) for c, job, a in zip(pulled, pull_jobs, pulls, strict=True)]
    maintain = maintenance_job(MAINTENANCE)
    return dg.Definitions(
        assets=[
            *(build_capture_asset(c) for c in captures.values()),
            *landing,
            *pulls,
            *ingest,
            *streams,
            *(
                automated(a, [i.key for i in ingest], published.key, streams=[s.key for s in streams])
                for a in (warehouse, dead_letters, published)
            ),
            inventory,
            lake_maintenance,
        ],
        asset_checks=[no_poison],
        jobs=[
            *(capture_job(c.name, capture_key(c)) for c in captures.values()),
            *fetches,
            *pull_jobs,
            *loads,
            *(stream_job(c.name, stream_key(c)) for c in contracts if c.stream),
            warehouse_job(dg.AssetSelection.assets(*warehouse.keys, dead_letters.key, published.key)),
            maintain,
            build_replay_job(contracts),
        ],
        schedules=[
            *(daily_schedule(job, a) for job, a in zip(loads, ingest, strict=True)),
            *(schedule for schedule in [*fetching, *pulling] if schedule is not None),
            maintenance_schedule(maintain),
        ],
        sensors=[
            *(capture_sensor(c, capture_key(c)) for c in captures.values()),
            *(landing_sensor(c, a) for c, a in zip(contracts, ingest, strict=True)),
            *(stream_sensor(c, stream_key(c)) for c in contracts if c.stream),
            inventory_sensor(contracts, INVENTORY),
            publication_sensor(published.key),
            automation_sensor,
            alert_on_failure,
        ],
        resources={"lake": LakeResource(home=str(settings.home)), "dbt": dbt_resource(project), "notifier": Notifier()},
        # In one process: a step of its own costs 0.8 s, and every writer waits for the same pool anyway.
        executor=dg.in_process_executor,
    )


defs = build_definitions()
