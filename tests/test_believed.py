"""The second axis of time in SQL: a table as readers saw it at a moment, through the real dbt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest

from resources.dbt import dbt_environment, prepare_dbt_project
from sluice.audits import record_audit
from sluice.contracts import load_contracts
from sluice.maintenance import maintain
from sluice.publication import publish
from sluice.settings import PROJECT
from tests.conftest import Bench

QUERY = """
select count(*) as n from
{{{{ believed_at(api.Relation.create(database='lake', schema='gold', identifier='dim_thing'), "{}") }}}} as things
"""

# Rows seen at a moment, or why there is nothing to see.
Count = Callable[[object], int | str]


@pytest.fixture
def told(bench: Bench) -> Bench:
    """A gold table of one row when first published, of two when published again, of three by now."""
    bench.lake.create()
    bench.lake.write(lambda con: con.execute("CREATE TABLE gold.dim_thing (n INTEGER)"), "make")
    for number in (1, 2, 3):
        bench.lake.write(lambda con, n=number: con.execute("INSERT INTO gold.dim_thing VALUES (?)", [n]), "load")
        if number < 3:
            record_audit(bench.lake, run_id="b", checks_passed=1, failed=[])
            publish(bench.lake, run_id="p")
    return bench


@pytest.fixture
def count(told: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Count]:
    """Asks dbt, within this process and parsed once."""
    # Deferred: importing dbt takes more than a second.
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.cli.main import dbtRunner

    project = prepare_dbt_project(load_contracts(PROJECT / "contracts").values(), told.settings)
    for name, value in dbt_environment(told.settings).items():
        monkeypatch.setenv(name, value)
    target = told.settings.home / "target"
    # fmt: off
    places = [
        "--project-dir", str(project.project_dir), "--profiles-dir", str(project.profiles_dir),
        "--target-path", str(target), "--log-path", str(target),
    ]
    # fmt: on
    # dbt takes a connection that is still open for its own, whichever lake it was opened for.
    DuckDBConnectionManager.close_all_connections()
    parsed = dbtRunner().invoke(["--quiet", "parse", *places])
    assert parsed.success, parsed.exception

    def ask(moment: object) -> int | str:
        # An inline query becomes a node of the manifest it is asked of, once.
        parsed.result.nodes.pop("sql_operation.sluice.inline_query", None)
        done = dbtRunner(manifest=parsed.result).invoke(["--quiet", "show", "--inline", QUERY.format(moment), *places])
        if done.success:
            return int(done.result.results[0].agate_table.rows[0][0])
        return str(done.exception or done.result.results[0].message)

    yield ask
    DuckDBConnectionManager.close_all_connections()


def test_a_table_as_it_was_believed(told: Bench, count: Count) -> None:
    first, second = (at for (at,) in told.sql("SELECT published_at FROM ops.publications ORDER BY publication_id"))
    assert count(first) == 1
    assert count(second - timedelta(microseconds=1)) == 1
    assert count(second + timedelta(days=1)) == 2
    # The same instant on another clock.
    for hours in (-5, 2):
        there = first.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=hours)))
        assert count(there) == 1
        assert "nothing had been published" in str(count(there - timedelta(microseconds=1)))
    assert "nothing had been published" in str(count(datetime(2000, 1, 1).date()))
    for nonsense in ("yesterday", "2026-13-01", "", "infinity", "2026-01-01'; drop table x; --"):
        assert "is no time" in str(count(nonsense)), nonsense

    told.close()
    maintain(told.lake, keep_days=0, belief_days=0, orphan_age_hours=0)
    assert "is no longer kept. SLUICE_BELIEF_DAYS" in str(count(first))
    assert count(second) == 2
