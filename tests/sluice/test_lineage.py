"""Lineage: each column of a model is traced to the columns it is made from; what cannot be read has none."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from sluice.lineage import cached_lineage, column_lineage

TABLES = {
    "bronze.orders": {"invoice": "VARCHAR", "quantity": "INTEGER", "unit_price": "DECIMAL(12,4)", "code": "VARCHAR"},
    "silver.products": {"code": "VARCHAR", "name": "VARCHAR"},
}


def test_columns_are_traced_through_ctes_joins_and_windows() -> None:
    sql = """
        WITH lines AS (SELECT *, quantity * unit_price AS value FROM "lake"."bronze"."orders"),
        named AS (SELECT l.invoice, l.value, p.name FROM lines AS l LEFT JOIN lake.silver.products AS p USING (code))
        SELECT invoice AS id, sum(value) AS revenue, max(name) AS product, 1 AS one,
               count(*) OVER (PARTITION BY invoice) AS n
        FROM named GROUP BY invoice
    """
    assert column_lineage(sql, TABLES) == {
        "id": [("bronze.orders", "invoice")],
        "revenue": [("bronze.orders", "quantity"), ("bronze.orders", "unit_price")],
        "product": [("silver.products", "name")],
        "one": [],
        "n": [("bronze.orders", "invoice")],
    }


def test_both_sides_of_a_union_count() -> None:
    sql = "SELECT code AS c FROM lake.bronze.orders UNION ALL SELECT name FROM lake.silver.products"
    assert column_lineage(sql, TABLES) == {"c": [("bronze.orders", "code"), ("silver.products", "name")]}


@pytest.mark.parametrize("sql", ["SELECT FROM WHERE", "SELECT missing FROM lake.bronze.orders"])
def test_what_cannot_be_read_has_no_lineage_and_is_said(sql: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert column_lineage(sql, TABLES) == {}
    assert "no column lineage" in caplog.text


def test_a_trace_is_kept_and_made_anew_for_other_sql_or_tables(tmp_path: Path) -> None:
    folder = tmp_path / "lineage"
    sql = "SELECT invoice FROM lake.bronze.orders"
    first = cached_lineage(sql, TABLES, folder)
    assert first == {"invoice": [("bronze.orders", "invoice")]}
    (kept,) = folder.iterdir()
    # The file is what answers from now on.
    kept.write_text(json.dumps({"invoice": [["from", "file"]]}))
    assert cached_lineage(sql, TABLES, folder) == {"invoice": [("from", "file")]}
    assert cached_lineage(sql + " LIMIT 5", TABLES, folder) == first
    assert cached_lineage(sql, {**TABLES, "gold.x": {"a": "INTEGER"}}, folder) == first
    assert len(list(folder.iterdir())) == 3
