"""Privacy over the whole way: a shop is built with a key by the real job, then one customer is erased by the command.

What stays of each layer is compared with before; what is gone is proved by the command's own search, which first finds
the customer, and by looking for their bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

import sluice
from sluice.cli import main
from sluice.commands.erase import _build
from sluice.contracts import load_contracts
from sluice.errors import PublicationError
from sluice.ingest import ingest
from sluice.lake import Lake
from sluice.pseudonyms import Key
from sluice.publication import current_publication
from sluice.settings import PROJECT, Settings, load_settings
from sluice.simulation import generate
from tests.warehouse import dbt_test, load

pytestmark = pytest.mark.slow

SECRET = "a secret of forty-two characters, no fewer"

# What an erasure must not change: counts and sums by day, region and product.
AGGREGATES = (
    "SELECT * FROM gold.fct_daily_sales ORDER BY ALL",
    "SELECT * EXCLUDE (known_customers) FROM gold.mart_daily_sales ORDER BY ALL",
    "SELECT date_key, event_type, channel, count(*), sum(quantity) FROM gold.fct_events GROUP BY ALL ORDER BY ALL",
)


@pytest.fixture(scope="module")
def built(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A shop of two days, built, tested and published by the job `build_warehouse`."""
    home = tmp_path_factory.mktemp("privacy") / "home"
    generate(home / "landing", seed=3, days=2, scale=0.1, start=date(2026, 1, 1))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "SLUICE_HOME": str(home),
            "SLUICE_START_DATE": "2026-01-01",
            "SLUICE_END_DATE": "2026-01-03",
            "SLUICE_PSEUDONYM_KEY": SECRET,
        }.items():
            patch.setenv(name, value)
        settings = load_settings()
        for contract in load_contracts(PROJECT / "contracts").values():
            ingest(Lake(settings), contract)
        _build(settings)
        yield settings


@pytest.fixture(autouse=True)
def _environment(built: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(built.home))
    monkeypatch.setenv("SLUICE_START_DATE", "2026-01-01")
    monkeypatch.setenv("SLUICE_END_DATE", "2026-01-03")
    monkeypatch.setenv("SLUICE_PSEUDONYM_KEY", SECRET)


def published(query: str) -> list[tuple[Any, ...]]:
    with sluice.connect() as con:
        return con.sql(query).fetchall()


def test_gold_has_pseudonyms_and_no_address(built: Settings) -> None:
    wanted = {Key(SECRET.encode()).digest(f)[:32] for (f,) in published("SELECT DISTINCT email FROM bronze.customers "
                                                                           "WHERE email IS NOT NULL")}  # fmt: skip
    found = {e for (e,) in published("SELECT DISTINCT email FROM gold.dim_customer WHERE email IS NOT NULL")}
    assert found
    assert found <= wanted
    # Who reads the view without the key sees that there is something, not what.
    assert published("SELECT DISTINCT email FROM silver.stg_customer_changes WHERE email IS NOT NULL") == [("***",)]


def test_the_key_is_written_nowhere(built: Settings) -> None:
    folders = [built.home, PROJECT / "dbt_project" / "target", PROJECT / "dbt_project" / "logs"]
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    assert len(files) > 50
    key = Key(SECRET.encode())
    with duckdb.connect() as con:
        key.put(con, "k")
        row = con.execute("SELECT getvariable('k_inner'), getvariable('k_outer')").fetchone()
    assert row is not None
    for path in files:
        data = path.read_bytes()
        assert SECRET.encode() not in data, path
        assert not any(part[:20] in data for part in row), path
    # But which key it was is in the view's SQL: another key is other SQL.
    (sql,) = published("SELECT sql FROM duckdb_views() WHERE view_name = 'stg_customer_changes'")[0]
    assert key.id in sql


def test_a_customer_is_erased_and_sums_stay(built: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    ((customer, mail),) = published(
        "SELECT o.customer_id, any_value(c.email) FROM bronze.orders AS o JOIN bronze.customers AS c "
        "USING (customer_id) JOIN bronze.events AS e USING (customer_id) WHERE c.email IS NOT NULL "
        "GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1"
    )
    before = [published(query) for query in AGGREGATES]
    rows = published("SELECT count(*), sum(line_amount) FROM gold.fct_order_lines")
    versions = published(
        f"SELECT * FROM gold.dim_customer WHERE customer_id IS DISTINCT FROM '{customer}' ORDER BY ALL"
    )
    reader = sluice.connect()
    reader.close()
    old = current_publication(Lake(built))
    assert old is not None

    assert main(["erase", "--customer", customer, "--find"]) == 1
    said = capsys.readouterr().out
    for place in (
        "gold.dim_customer: customer_id",
        "gold.fct_order_lines",
        "gold.mart_orders_wide",
        "FOUND",
        "landing",
    ):
        assert place in said

    assert main(["erase", "--customer", customer, "--by", "a test"]) == 0
    said = capsys.readouterr().out
    assert "Nothing was found." in said
    assert main(["erase", "--customer", customer, "--find"]) == 0

    assert [published(query) for query in AGGREGATES] == before
    assert published("SELECT count(*), sum(line_amount) FROM gold.fct_order_lines") == rows
    assert published("SELECT * FROM gold.dim_customer ORDER BY ALL") == versions
    unknown = "00000000-0000-0000-0000-000000000000"
    assert published(f"SELECT count(*) > 0 FROM gold.fct_order_lines WHERE customer_key = '{unknown}'") == [(True,)]
    data = Path(built.lake_data_path)
    for path in (p for p in [*data.rglob("*"), built.catalog_path] if p.is_file()):
        assert mail.encode() not in path.read_bytes()
    # What readers saw before is gone, and says so.
    assert old.published_at is not None
    with pytest.raises(PublicationError, match="no longer kept"):
        sluice.connect(as_of=old.published_at)
    assert main(["erase", "--list"]) == 0
    said = capsys.readouterr().out
    assert "1 erasure, 0 unfinished" in said
    assert customer not in said


def test_a_column_that_went_around_the_macro_is_not_published(built: Settings) -> None:
    gate = "no_personal_value_in_silver_or_gold"
    lake = Lake(built)
    load(built, [[]])
    assert dbt_test(built, gate) == 0
    ((mail,),) = published("SELECT any_value(email) FROM bronze.customers")
    key = "SELECT min(customer_key) FROM gold.dim_customer"
    ((segment,),) = published(f"SELECT segment FROM gold.dim_customer WHERE customer_key = ({key})")
    sql = f"UPDATE gold.dim_customer SET segment = ? WHERE customer_key = ({key})"
    lake.write(lambda con: con.execute(sql, [mail]), "sabotage")
    try:
        assert dbt_test(built, gate) == 1
    finally:
        lake.write(lambda con: con.execute(sql, [segment]), "repaired")


def test_another_key_makes_other_pseudonyms_and_none_makes_masks(built: Settings) -> None:
    emails = "SELECT DISTINCT email FROM gold.dim_customer WHERE email IS NOT NULL"

    def found(key: str) -> set[str]:
        load(load_settings(pseudonym_key=key), [[]])
        with Lake(built).reading() as con:
            return {email for (email,) in con.execute(emails).fetchall()}

    other = "another secret of more than 32 characters"
    first, second = found(SECRET), found(other)
    assert len(first) == len(second) > 5
    assert not first & second
    assert {len(email) for email in second} == {32}
    assert found("") == {"***"}
