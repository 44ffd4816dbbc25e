"""What must hold of a home at any time, whatever was done to it."""

from __future__ import annotations

from pathlib import Path

from sluice.books import books
from sluice.contracts import load_contracts
from sluice.lake import LAKE, Lake
from sluice.maintenance import maintain
from sluice.settings import PROJECT, Settings

# Of one instant: what bronze holds, what facts are made of it, what their sums say.
AGREEMENT = """
SELECT (SELECT count(*) FROM bronze.orders), (SELECT count(*) FROM gold.fct_order_lines),
    (SELECT sum(order_lines) FROM gold.fct_daily_sales), (SELECT sum(order_lines) FROM gold.mart_daily_sales),
    (SELECT sum(line_amount) FROM gold.fct_order_lines), (SELECT sum(net_amount) FROM gold.fct_daily_sales),
    (SELECT sum(net_amount) FROM gold.mart_daily_sales)
"""


def books_hold(settings: Settings) -> None:
    """Every source's books balance, by batch and against the rows that are there."""
    if not settings.catalog_path.exists():
        return
    lake = Lake(settings)
    with lake.reading() as con:
        there = con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'ledger'").fetchall()
    if not there:
        return
    found = books(lake, sorted(load_contracts(PROJECT / "contracts")))
    assert [b for b in found if not b.balanced] == []
    with lake.reading() as con:
        assert (
            con.execute(
                "SELECT * FROM ops.ledger WHERE rows_read <> rows_accepted + rows_dead_lettered + rows_duplicate"
            ).fetchall()
            == []
        )


def published_state_is_whole(settings: Settings) -> bool:
    """Readers see a state that passed, all tables of one instant; false before the first publication."""
    if not settings.catalog_path.exists():
        return False
    lake = Lake(settings)
    with lake.reading() as con:
        if not con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'publications'").fetchall():
            return False
        row = con.execute(
            "SELECT p.snapshot_id, bool_or(a.passed) FROM ops.publications AS p LEFT JOIN ops.audits AS a "
            "USING (snapshot_id) GROUP BY p.publication_id, p.snapshot_id ORDER BY p.publication_id DESC LIMIT 1"
        ).fetchone()
    if row is None:
        return False
    snapshot, passed = row
    assert passed, f"snapshot {snapshot} is published and did not pass"
    with lake.reading(snapshot) as con:
        (answer,) = con.execute(AGREEMENT).fetchall()
    lines, *counts = answer[:4]
    assert counts == [lines] * 3, answer
    assert len(set(answer[4:])) == 1, answer
    return True


def nothing_is_left_behind(settings: Settings) -> None:
    """After maintenance the data folder holds the files the catalog names, and no others."""
    maintain(Lake(settings), keep_days=0, belief_days=0, orphan_age_hours=0)
    with Lake(settings).reading() as con:
        named = con.execute(
            f"SELECT path FROM __ducklake_metadata_{LAKE}.ducklake_data_file UNION ALL "
            f"SELECT path FROM __ducklake_metadata_{LAKE}.ducklake_delete_file"
        ).fetchall()
    names = sorted(Path(path).name for (path,) in named)
    there = sorted(path.name for path in Path(settings.lake_data_path).rglob("*") if path.is_file())
    assert there == names
    assert list(settings.temp_path.glob("ingest-*")) == []
