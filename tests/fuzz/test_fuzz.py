"""Spoilt files, some hundred in `make test` and FUZZ_FILES of them in `make test-fuzz`: every row is where it must be.

The checks themselves are checked: what is changed behind the lake's back must be complained about.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter

import duckdb
import pytest

from sluice.ingest import ingest
from sluice.inventory import take_inventory
from sluice.settings import PROJECT
from sluice.sql import quoted
from tests.fuzz.campaign import run
from tests.fuzz.cases import make_case
from tests.fuzz.oracle import read_file
from tests.fuzz.round import Round
from tests.fuzz.sources import SOURCES

FILES = int(os.environ.get("FUZZ_FILES") or 300)
# A fixed one by default: the quick suite tests the code, not luck.
SEED = int(os.environ.get("FUZZ_SEED") or (secrets.randbelow(10**6) if "FUZZ_FILES" in os.environ else 20260101))


def test_every_row_of_spoilt_files_is_accounted_for(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        if "FUZZ_FILES" in os.environ:
            print(f"\nFUZZ_SEED={SEED}; again: python -m tests.fuzz --seed {SEED} --files {FILES}", flush=True)
        deep = "FUZZ_FILES" in os.environ
        found = run(SEED, range(FILES), PROJECT / ".fuzz", 2 if deep else 1, print if deep else lambda line: None)
        if "FUZZ_FILES" in os.environ:
            print("\n".join(found.lines()))
    assert found.complaints == [], "\n".join(found.complaints[:20])
    assert found.counts["files delivered"] > 0.95 * FILES
    # It is no test where nothing, or everything, is set aside.
    assert min(found.counts["rows accepted"], found.counts["rows dead-lettered"]) > 2 * FILES
    assert found.counts["files set aside"] > FILES / 20 and found.counts["files told of as unroutable"] > FILES / 100
    assert len(found.families) > 8


def test_a_case_is_made_from_its_number_alone(memory: duckdb.DuckDBPyConnection) -> None:
    first = [make_case(memory, 5, n) for n in range(40)]
    again = [make_case(memory, 5, n) for n in reversed(range(40))][::-1]
    text = [c for c in first if "parquet" not in c.family]
    assert [(c.title, c.data) for c in text] == [(c.title, c.data) for c in again if "parquet" not in c.family]
    assert [c.title for c in first] != [make_case(memory, 6, n).title for n in range(40)]
    assert len(Counter(c.family for c in first)) > 5


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Round:
    """A few cases, ingested, and nothing to complain about."""
    with duckdb.connect() as con:
        trial = Round(tmp_path_factory.mktemp("fuzz") / "round", [make_case(con, 20260101, n) for n in range(60)])
    trial.deliver()
    for contract in trial.contracts.values():
        ingest(trial.lake, contract)
    take_inventory(trial.lake, trial.contracts.values())
    return trial


def looked_at(trial: Round) -> list[str]:
    told = {(c.source.name, c.path.decode("utf-8", "replace")) for c in trial.delivered}
    return [what for _, what in trial.compare(told).complaints]


TAMPERED = {
    "a row is taken away": ("DELETE FROM {bronze} WHERE _file = (SELECT min(_file) FROM {bronze})", "is nowhere"),
    "a value is changed": ("UPDATE {bronze} SET unit_price = unit_price + 1", "unit_price is"),
    "a row is in twice": ("INSERT INTO {bronze} SELECT * FROM {bronze} LIMIT 1", "was accepted twice"),
    "a row is in another partition": ("UPDATE {bronze} SET date = DATE '2026-07-01'", "is in partition '2026-07-01'"),
    "a dead letter is taken away": ("DELETE FROM ops.dead_letters WHERE line > 0 AND source = 'tills'", "is nowhere"),
    "a letter's text is changed": ("UPDATE ops.dead_letters SET raw = 'x', raw_encoding = 'utf-8'", "is kept as 'x'"),
    "a message is empty": (
        "UPDATE ops.dead_letters SET reasons = [struct_update(reasons[1], detail := '')]",
        "without a message",
    ),
    "a file is forgotten": ("DELETE FROM ops.dead_letters WHERE error_class = 'file'", "expected to be set aside"),
    "a count is wrong": ("UPDATE ops.ledger SET rows_duplicate = rows_duplicate + 1", "do not add up"),
    "a stray is not told of": ("DELETE FROM ops.dead_letters WHERE partition_key = '(unroutable)'", "not told of"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
def test_what_is_wrong_in_the_lake_is_complained_about(what: str, delivered: Round) -> None:
    if what == "a row is taken away":
        assert looked_at(delivered) == []
    sql, words = TAMPERED[what]
    with delivered.lake.reading() as con:
        before = delivered.lake.current_snapshot(con)
    with delivered.lake.connect() as con:
        con.execute(sql.format(bronze="bronze.tills"))
    found = looked_at(delivered)
    assert any(words in complaint for complaint in found), found[:5]
    with delivered.lake.connect() as con:  # as it was
        for table in ("ops.dead_letters", "ops.ledger", f"bronze.{quoted('tills')}"):
            con.execute(f"CREATE OR REPLACE TEMP TABLE was AS SELECT * FROM {table} AT (VERSION => {before})")
            con.execute(f"DELETE FROM {table}")
            con.execute(f"INSERT INTO {table} SELECT * FROM was")


def test_the_oracle_reads_what_is_plain() -> None:
    tills = SOURCES["tills"]
    header = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
    good = '489434,85048,"CUP, ""BIG""",1,2026-01-01 10:00:00,1.50,,France\n'
    reading = read_file(tills, "f.csv", (header + good + "\n" + good.replace(",1,", ",x,")).encode())
    assert [(r.line, r.verdict, r.why) for r in reading.rows] == [(2, "good", ""), (4, "bad", "quantity")]
    assert reading.rows[0].values == {
        "invoice": "489434", "stock_code": "85048", "description": 'CUP, "BIG"', "quantity": "1",
        "invoiced_at": "2026-01-01 10:00:00", "unit_price": "1.5000", "customer_id": None, "country": "France",
    }  # fmt: skip
    assert read_file(tills, "f.csv", b"Invoice\n1\n\n2\n").rules == ("missing_column",)
    assert read_file(tills, "f.csv.gz", b"\x1f\x8b").stands_for == 1
