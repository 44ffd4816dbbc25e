"""One partition from its file to published tables, in a process of its own, as a run of Dagster does it, timed by part.

Run by `benchmarks.overhead`, for what a process imports can only be timed where nothing is imported yet. Prints one
line of JSON: seconds of each part, the folder of dbt's artifacts, and when dbt was started.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Ingest the partition of the source named in the arguments, then build the warehouse."""
    source, partition = sys.argv[1:]
    begun = time.perf_counter()
    marks = {}

    import dagster as dg

    import assets.ingest
    import assets.warehouse
    from sluice.settings import load_settings

    marks["import"] = time.perf_counter() - begun

    begun = time.perf_counter()
    settings = load_settings()
    from resources.instance import prepare_instance

    prepare_instance(settings)
    # Building the definitions is what importing the module does.
    from definitions import defs
    from resources.partitions import run_tags

    marks["definitions"] = time.perf_counter() - begun

    engine = assets.ingest.ingest

    def timed(*given: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return engine(*given, **named)
        finally:
            marks["ingest"] = time.perf_counter() - begun

    assets.ingest.ingest = timed
    calls: list[tuple[float, Path]] = []
    cli = assets.warehouse.DbtCliResource.cli

    def noted(self: Any, *given: Any, **named: Any) -> Any:
        begun = time.time()
        invocation = cli(self, *given, **named)
        calls.append((begun, invocation.target_path))
        return invocation

    assets.warehouse.DbtCliResource.cli = noted  # type: ignore[method-assign]
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.get() as instance:
        definition = defs.resolve_assets_def(dg.AssetKey(["bronze", source])).partitions_def
        assert definition is not None, "ingest assets are partitioned"
        for job, tags in ((f"ingest_{source}", run_tags([partition], definition)), ("build_warehouse", {})):
            begun = time.perf_counter()
            result = defs.resolve_job_def(job).execute_in_process(instance=instance, tags=tags, run_config=quiet)
            marks[job] = time.perf_counter() - begun
            assert result.success
    ((begun, target),) = calls
    print(json.dumps({"marks": marks, "target": str(target), "dbt_begun": begun}))


if __name__ == "__main__":
    main()
