"""Judging records by their contract: typed, then told apart as good ones, rejected ones and twins of earlier ones.

What a rule says in SQL belongs to `sluice.rules`, what is written of the verdicts to `sluice.booking`.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from sluice.batches import Batch
from sluice.contracts import Contract
from sluice.records import FileFault, Origin
from sluice.rules import Violation, broken, failing, rejecting, telling, typed_columns, value
from sluice.sql import literal, temp_table


def judge(
    con: duckdb.DuckDBPyConnection,
    contract: Contract,
    batches: list[Batch],
    files: Sequence[Origin],
    faults: list[FileFault],
) -> None:
    """Type and judge every record of the temporary view `records`.

    Makes the temporary tables `judged` (a row per record: twin of an earlier one, rejected or good, typed values;
    `erased` and `emptied` are for `sluice.erasure.register.leave_out` to say), `batch_books` (a row per batch: its
    balance; whether it is refused is for `sluice.gates` to say), `repeated` (rows and columns that break uniqueness),
    and of what was given `batches`, `batch_files` and `file_faults`. `sluice.booking` reads them all.
    """
    tokens = "".join(f", {name} VARCHAR" for name in contract.landing.tokens)
    temp_table(
        con,
        "batch_files",
        f"file_id INTEGER, batch_no INTEGER, path VARCHAR, sha256 VARCHAR{tokens}",
        [(f.file_id, f.batch_no, f.path, f.sha256, *(value_ for _, value_ in f.tokens)) for f in files],
    )
    temp_table(
        con,
        "batches",
        "batch_no INTEGER, batch_id VARCHAR, partition_key VARCHAR, files BIGINT",
        [(b.number, b.batch_id, b.partition_key, len(b.files)) for b in batches],
    )
    temp_table(
        con,
        "file_faults",
        "file_id INTEGER, rule VARCHAR, column VARCHAR, detail VARCHAR, rows BIGINT",
        [(f.file_id, f.rule, f.column, f.detail, f.rows) for f in faults],
    )
    # What makes a record the same as another, besides its text; and which of them came first.
    scope = "file_id" if contract.landing.duplicates == "file" else "batch_no"
    place = "line" if scope == "file_id" else "(file_id, line)"
    con.execute(
        # Hashes find the few candidates cheaply; the texts themselves decide. The firsts are kept and not the twins: of
        # a file of fifteen million equal lines these were as many, and finding one among them took 1.6 GB.
        f"CREATE OR REPLACE TEMP TABLE firsts AS SELECT {scope}, layout, raw_encoding, raw, digest, "
        f"arg_min(row_id, {place}) AS first_id FROM records "
        f"WHERE raw IS NOT NULL AND ({scope}, hash(raw)) IN (SELECT ({scope}, hash(raw)) FROM records "
        "GROUP BY ALL HAVING count(*) > 1) GROUP BY ALL HAVING count(*) > 1"
    )
    columns = typed_columns(contract)
    typed = ", ".join(f"{c.expression} AS {value(c.name)}" for c in columns)
    con.execute(
        "CREATE OR REPLACE TEMP TABLE judged AS SELECT row_id, r.file_id, r.batch_no, line, extra, "
        "coalesce(row_id <> first_id, false) AS twin, false AS erased, false AS emptied, "
        f"fault IS NOT NULL OR {broken(rejecting(contract))} AS rejected, "
        f"fault IS NULL AND {broken(failing(contract))} AS failing, {_numbers(telling(contract))} AS warned, "
        f"{', '.join(value(c.name) for c in columns)} FROM (SELECT *, {typed} FROM records) AS r LEFT JOIN firsts AS f "
        f"ON f.{scope} = r.{scope} AND f.layout = r.layout AND f.raw_encoding = r.raw_encoding AND f.raw = r.raw "
        "AND f.digest IS NOT DISTINCT FROM r.digest"
    )
    con.execute(
        'CREATE OR REPLACE TEMP TABLE repeated (row_id BIGINT, "column" VARCHAR, "rule" VARCHAR DEFAULT \'unique\', '
        "detail VARCHAR DEFAULT 'an earlier row of the batch has this value')"
    )
    judge_unique(con, contract)
    con.execute(
        "CREATE OR REPLACE TEMP TABLE batch_books AS WITH "
        "rows_of AS (SELECT batch_no, count(*) AS seen, count(*) FILTER (twin) AS twins, "
        "count(*) FILTER (NOT twin AND rejected) AS bad, count(*) FILTER (NOT twin AND failing) AS failing FROM judged "
        "GROUP BY batch_no), "
        "whole_of AS (SELECT f.batch_no, sum(x.rows) AS bad FROM file_faults AS x "
        "JOIN batch_files AS f USING (file_id) GROUP BY f.batch_no) "
        "SELECT b.*, coalesce(r.seen, 0) + coalesce(w.bad, 0) AS rows_read, coalesce(r.twins, 0) AS rows_duplicate, "
        "coalesce(r.bad, 0) + coalesce(w.bad, 0) AS rows_bad, coalesce(r.failing, 0) AS rows_failing, "
        "NULL::VARCHAR AS volume, false AS refused, NULL::VARCHAR AS reason "
        "FROM batches AS b LEFT JOIN rows_of AS r USING (batch_no) LEFT JOIN whole_of AS w USING (batch_no)"
    )


def _numbers(rules: list[Violation]) -> str:
    """SQL of the list of the numbers of the rules a row breaks."""
    if not rules:
        return "NULL::INTEGER[]"
    parts = ", ".join(f"CASE WHEN {rule.condition} THEN {number} END" for number, rule in enumerate(rules))
    return f"list_filter([{parts}], lambda n: n IS NOT NULL)"


def judge_unique(con: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Reject all but the first good row of each value, within a batch, of the columns declared unique.

    Adds to the temporary table `repeated`.
    """
    for column in contract.columns:
        if not column.unique:
            continue
        name = value(column.name)
        con.execute(
            f'INSERT INTO repeated (row_id, "column") SELECT row_id, {literal(column.name)} FROM (SELECT row_id, '
            f"row_number() OVER (PARTITION BY batch_no, {name} ORDER BY file_id, line) AS nth FROM judged "
            f"WHERE NOT twin AND NOT rejected AND (batch_no, {name}) IN (SELECT (batch_no, {name}) FROM judged "
            f"WHERE NOT twin AND NOT rejected AND {name} IS NOT NULL GROUP BY ALL HAVING count(*) > 1)) WHERE nth > 1"
        )
        fails = ", failing = true" if column.severity("unique") == "fail" else ""
        con.execute(f"UPDATE judged SET rejected = true{fails} WHERE row_id IN (SELECT row_id FROM repeated)")
