"""A continuous run of a stream's asset, in a process of its own, as somebody starts it in the UI with `seconds` set.

Run by `benchmarks.latency`. It is on the instance of DAGSTER_HOME, so that the daemon's automation learns what was
read.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Read the source named in the arguments for so many seconds."""
    source, seconds = sys.argv[1], float(sys.argv[2])

    import dagster as dg

    from assets.streams import StreamConfig, stream_key
    from definitions import defs
    from sensors.landing import SOURCE_TAG
    from sluice.contracts import load_contracts
    from sluice.settings import load_settings

    key = stream_key(load_contracts(load_settings().contracts)[source])
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def(f"stream_{source}").execute_in_process(
            instance=instance,
            # Or the sensor of the topic starts runs of its own beside it.
            tags={SOURCE_TAG: "/".join(key.path)},
            run_config=dg.RunConfig({key.to_python_identifier(): StreamConfig(seconds=seconds)}),
            raise_on_error=True,
        )
        assert result.success


if __name__ == "__main__":
    main()
