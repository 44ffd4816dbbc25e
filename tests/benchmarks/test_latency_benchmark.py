"""The benchmark of latency, once: an event and a commit come to a reader by the real path. No test asserts a time."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import chart, latency
from benchmarks.measure import Result
from deploy.kafka_broker import missing as missing_broker
from tests.conftest import go_without
from tests.sluice.capture.source import missing as missing_capture


@pytest.mark.parametrize(("seconds", "found"), [([7.0], 7.0), ([float(n) for n in range(101)], 95.0)])
def test_a_percentile_is_that_of_the_values(seconds: list[float], found: float) -> None:
    assert latency.percentile(seconds, 95) == found


# A build for the snapshot and one for the commit, by a daemon: three minutes of two cores.
@pytest.mark.skipif("YEAR_PIECES" not in os.environ, reason="takes minutes: make test-deep")
def test_an_event_and_a_commit_come_to_a_reader(tmp_path: Path) -> None:
    if lacking := missing_broker() or missing_capture():
        go_without(lacking)
    result = latency.run(1)
    events, commits, builds = result.timings
    assert (len(events.seconds), len(commits.seconds)) == (1, 1)
    # That of the snapshot. That of the commit is seen when it is published, and may not have ended then.
    assert len(builds.seconds) >= 1
    assert Result.of(result.data()) == result
    assert ET.parse(chart.draw(result, tmp_path)).getroot().tag.endswith("svg")
    assert "95th percentile" in result.text()
