"""What rows that come by replay repeat: of each other, and of the rows their batch has in bronze already.

Bronze keeps no raw text, so a row is a duplicate of one with equal values in every column; that is so of letters taken
together as well, or it would matter which are. Files are told apart by their texts, in `sluice.judging`.
"""

from __future__ import annotations

import json

import duckdb

from sluice.contracts import Contract
from sluice.judging import judge_unique
from sluice.rules import typed_columns, value
from sluice.sql import literal, quoted

# Rows that were taken before their person was erased: no duplicates of what they have become like since.
_OWN = "(SELECT (file_id, line) FROM chosen_letters WHERE own)"


def judge_repeats(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Say anew of the rows in `judged` which are twins, and which repeat a value that must be unique. Repeatable.

    Reads `chosen_letters` besides what `sluice.judging.judge` has left.
    """
    # Equal texts of two letters were two different lines: where one fails, the other is a duplicate of nothing.
    con.execute("UPDATE judged SET twin = false")
    con.execute(
        "UPDATE judged SET rejected = false WHERE row_id IN "
        "(SELECT row_id FROM repeated GROUP BY row_id HAVING bool_and(\"rule\" = 'unique'))"
    )
    con.execute("DELETE FROM repeated WHERE \"rule\" = 'unique'")
    _find_twins(con, contract)
    judge_unique(con, contract)
    _judge_unique_in_bronze(con, contract)
    # A twin is one of a row that stands; where that fails, so does it, and for the same reasons.
    con.execute(
        'INSERT INTO repeated SELECT t.row_id, u."column", u."rule", u.detail FROM twins AS t '
        "JOIN repeated AS u ON u.row_id = t.first_id"
    )
    con.execute(
        "UPDATE judged SET twin = false, rejected = true WHERE row_id IN (SELECT t.row_id FROM twins AS t "
        "JOIN judged AS f ON f.row_id = t.first_id WHERE f.rejected)"
    )


def _find_twins(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Mark twins of rows in bronze, then those of other letters; make `twins` of the latter anew."""
    columns = typed_columns(contract)
    same = " AND ".join(f"o.{quoted(c.name)} IS NOT DISTINCT FROM j.{value(c.name)}" for c in columns)
    # A column that has been declared meanwhile still stands in `_extra` of older rows.
    declared = literal(json.dumps({c.source_name: None for c in contract.columns}, ensure_ascii=False))

    def undeclared(extra: str) -> str:
        return f"nullif(json_merge_patch({extra}, {declared})::VARCHAR, '{{}}')"

    by_file = contract.landing.duplicates == "file"
    con.execute(
        "UPDATE judged SET twin = true WHERE row_id IN (SELECT j.row_id FROM judged AS j "
        "JOIN batches AS b USING (batch_no) JOIN batch_files AS f USING (file_id) "
        f"JOIN bronze.{quoted(contract.name)} AS o ON o._batch_id = b.batch_id "
        f"{'AND o._file = f.path ' if by_file else ''}"
        f"AND {same} AND (o._extra IS NOT DISTINCT FROM j.extra "
        f"OR {undeclared('o._extra')} IS NOT DISTINCT FROM {undeclared('j.extra')}) "
        f"WHERE NOT j.rejected AND (file_id, line) NOT IN {_OWN})"
    )
    values = ", ".join(value(c.name) for c in columns)
    con.execute(
        "CREATE OR REPLACE TEMP TABLE twins AS SELECT row_id, first_id FROM (SELECT row_id, own, "
        "row_number() OVER same AS nth, first_value(row_id) OVER same AS first_id FROM "
        f"(SELECT *, (file_id, line) IN {_OWN} AS own FROM judged WHERE NOT twin AND NOT rejected) "
        f"WINDOW same AS (PARTITION BY {'file_id' if by_file else 'batch_no'}, {values}, {undeclared('extra')} "
        "ORDER BY NOT own, file_id, line)) WHERE nth > 1 AND NOT own"
    )
    con.execute("UPDATE judged SET twin = true WHERE row_id IN (SELECT row_id FROM twins)")


def _judge_unique_in_bronze(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Reject rows whose value of a unique column a row of their batch in bronze has already."""
    for column in contract.columns:
        if column.unique:
            name = value(column.name)
            con.execute(
                'INSERT INTO repeated (row_id, "column") SELECT j.row_id, ? FROM judged AS j '
                "JOIN batches AS b USING (batch_no) "
                f"WHERE NOT j.twin AND NOT j.rejected AND EXISTS (SELECT 1 FROM bronze.{quoted(contract.name)} AS o "
                f"WHERE o._batch_id = b.batch_id AND o.{quoted(column.name)} = j.{name})",
                [column.name],
            )
    con.execute("UPDATE judged SET rejected = true WHERE row_id IN (SELECT row_id FROM repeated)")
