"""A capture that is told to stop while it starts: it ends, and says nothing wrong."""

from __future__ import annotations

import pytest

from tests.sluice.capture.source import Source

pytestmark = pytest.mark.slow


def test_whose_time_is_over_before_it_has_started_ends(source: Source) -> None:
    source.sql("CREATE TABLE things (id INT PRIMARY KEY); INSERT INTO things VALUES (1)")
    source.define("public.things")
    # Debezium refuses to be stopped while it starts its tasks; when that is differs from time to time.
    for number, seconds in enumerate(("0.01", "0.3", "0.5", "0.8"), start=2):
        code, said = source.command("run", source.name, "--for", seconds)
        assert code == 0, said
        source.sql(f"INSERT INTO things VALUES ({number})")
    # And nothing is lost by it, nor twice.
    source.once()
    found = [e for e in source.events("things") if e.op in ("r", "c", "t")]
    last = max(n for n, e in enumerate(found) if e.op == "t" or n == 0)
    assert sorted(e.value["after"]["id"] for e in found[last:] if e.op != "t") == [1, 2, 3, 4, 5]
