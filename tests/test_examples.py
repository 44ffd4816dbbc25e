"""The examples: what comes of real events is what their makers expect, in whatever pieces they come."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import snowplow_ecommerce, snowplow_web
from examples.running import Example, compare, load, settings_of
from sluice.books import books
from sluice.contracts import load_contracts
from sluice.lake import Lake
from tests.warehouse import overlapping

EXAMPLES = [snowplow_web.EXAMPLE, snowplow_ecommerce.EXAMPLE]

# Read, accepted, dead-lettered. Of the web events three were sent more than three days late, one has no session, one
# view of a page has no id; of the shop's one is another application's.
BOOKS = {"snowplow_web": (160, 155, 5), "snowplow_ecommerce": (833, 832, 1)}


@pytest.mark.parametrize("name", BOOKS)
def test_an_example_has_its_contract_and_models(name: str) -> None:
    (example,) = (e for e in EXAMPLES if e.name == name)
    assert load_contracts(example.folder / "contracts")
    assert (example.folder / "dbt_project" / "dbt_project.yml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.name)
def test_what_comes_of_the_events_is_what_is_expected(tmp_path: Path, example: Example) -> None:
    if not example.data.is_dir():
        pytest.skip(f"the data of the example are not beside the project: ../shared/data/{example.name}")
    settings = settings_of(example, tmp_path / "home")
    example.deliver(example.data, settings.landing_path)
    days = sorted({path.name.removeprefix("date=") for path in settings.landing_path.rglob("date=*")})
    # Late days first, some days twice: a build that is incremental must come to the same.
    load(example, settings, overlapping(days, pieces=3, seed=3))
    lake = Lake(settings)
    with lake.reading() as con:
        found = {e.table: compare(con, example, e) for e in example.expected}
        wholes = con.execute(
            "SELECT count(*) FROM ops.rewrites WHERE slice IS NULL AND reason <> 'first build'"
        ).fetchall()
    assert {table: c.differences for table, c in found.items() if not c.as_known} == {}
    assert wholes == [(0,)]
    (book,) = books(lake, list(load_contracts(settings.contracts)))
    assert (book.rows_read, book.rows_accepted, book.rows_dead_lettered) == BOOKS[example.name]
    assert book.balanced
