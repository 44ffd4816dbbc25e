"""What must hold of a home at any time, whatever was done to it."""

from __future__ import annotations

import os
from pathlib import Path

from sluice.books import books
from sluice.errors import NoLakeError
from sluice.lake import CATALOG, Lake
from sluice.maintenance import maintain
from sluice.settings import Settings
from sluice.verification import verify
from tests.warehouse import CONTRACTS, assert_same, gold

# Of one instant: what bronze holds, what facts are made of it, what their sums say.
AGREEMENT = """
SELECT (SELECT count(_line) FROM bronze.orders), (SELECT count(_line) FROM gold.fct_order_lines),
    (SELECT sum(order_lines) FROM gold.fct_daily_sales), (SELECT sum(order_lines) FROM gold.mart_daily_sales),
    (SELECT sum(line_amount) FROM gold.fct_order_lines), (SELECT sum(net_amount) FROM gold.fct_daily_sales),
    (SELECT sum(net_amount) FROM gold.mart_daily_sales)
"""

# What two homes must have in common that were given the same files, besides bronze and gold.
OPS = {
    "ledger": "SELECT source, partition_key, batch_id, status, files, rows_read, rows_accepted, rows_dead_lettered, "
    "rows_duplicate FROM ops.ledger WHERE superseded_by IS NULL ORDER BY ALL",
    "dead_letters": "SELECT source, partition_key, file, line, rows, raw, reasons, status FROM ops.dead_letters "
    "WHERE status <> 'superseded' ORDER BY ALL",
    "positions": "SELECT source, partition_key, batch_id, file, size, sha256, rows FROM ops.positions ORDER BY ALL",
}


def state(settings: Settings) -> dict[str, list[tuple[object, ...]]]:
    """Every row of gold and bronze, the books and the dead letters, without times and runs."""
    found = gold(settings)
    with Lake(settings).reading() as con:
        for contract in CONTRACTS:
            sql = f"SELECT * EXCLUDE (_ingested_at) FROM bronze.{contract.name} ORDER BY ALL"
            found[f"bronze.{contract.name}"] = con.execute(sql).fetchall()
        for name, sql in OPS.items():
            found[f"ops.{name}"] = con.execute(sql).fetchall()
    return found


def has(settings: Settings, table: str) -> bool:
    """Whether there is a lake, and this table in it."""
    try:
        with Lake(settings).reading() as con:
            return con.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [table]).fetchone() is not None
    except NoLakeError:
        # None has been made, or whoever made it died before it was one.
        return False


def books_hold(settings: Settings) -> None:
    """Every source's books balance, by batch and against the rows that are there."""
    if not has(settings, "ledger"):
        return
    lake = Lake(settings)
    found = books(lake, [contract.name for contract in CONTRACTS])
    assert [b for b in found if not b.balanced] == []
    with lake.reading() as con:
        unbalanced = "SELECT * FROM ops.ledger WHERE rows_read <> rows_accepted + rows_dead_lettered + rows_duplicate"
        assert con.execute(unbalanced).fetchall() == []
        for source in [b.source for b in found]:
            # Counted, not taken from the catalog's notes.
            astray = con.execute(
                f"SELECT * FROM (SELECT _batch_id AS batch_id, count(_line) AS n FROM bronze.{source} GROUP BY ALL) "
                "FULL JOIN (SELECT batch_id, rows_accepted FROM ops.ledger WHERE source = ? AND status = 'accepted' "
                "AND superseded_by IS NULL AND rows_accepted > 0) USING (batch_id) "
                "WHERE n IS DISTINCT FROM rows_accepted",
                [source],
            ).fetchall()
            assert astray == [], source


def published_state_is_whole(settings: Settings) -> bool:
    """Readers see a state that passed, all tables of one instant; false before the first publication."""
    if not has(settings, "publications"):
        return False
    lake = Lake(settings)
    with lake.reading() as con:
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
    """After maintenance the data folder holds the files the catalog names and no others, and all can be read."""
    # What the first round replaces, the second removes.
    for _ in range(2):
        maintain(Lake(settings), keep_days=0, belief_days=0, orphan_age_hours=0)
    with Lake(settings).reading() as con:
        named = con.execute(
            f"SELECT path FROM {CATALOG}.ducklake_data_file UNION ALL SELECT path FROM {CATALOG}.ducklake_delete_file"
        ).fetchall()
    names = sorted(Path(path).name for (path,) in named)
    there = sorted(name for _, _, files in os.walk(settings.lake_data_path) for name in files)
    assert there == names
    found = verify(Lake(settings), deep=True)
    assert (found.damages, found.unnamed) == ((), 0)
    assert list(settings.temp_path.iterdir()) == []
    assert list(settings.readers_path.glob(".*")) == []


def holds_in_the_end(settings: Settings, undisturbed: Settings) -> None:
    """All of it, of a home that was disturbed and has been let finish, against one that was not."""
    books_hold(settings)
    assert published_state_is_whole(settings)
    assert_same(state(settings), state(undisturbed))
    nothing_is_left_behind(settings)
    assert_same(state(settings), state(undisturbed))
    assert published_state_is_whole(settings)
