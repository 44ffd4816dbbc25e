"""Smallest and largest values of whole tables in the catalog, which outlive the rows they were of."""

from __future__ import annotations

from typing import Any

import pytest

from sluice.dead_letters import Choice, letters
from sluice.erasure.bounds import _beside, widen
from sluice.erasure.person import Person
from sluice.erasure.run import erase
from sluice.lake import CATALOG
from sluice.replay import replay
from tests.conftest import Bench, MakeContract

NAMES_A_CUSTOMER = {"customProperties": [{"property": "subject", "value": "customer"}]}
COLUMNS: dict[str, dict[str, Any]] = {
    "id": NAMES_A_CUSTOMER,
    "name": {"classification": "personal"},
    "n": {"physicalType": "INTEGER"},
}


@pytest.mark.parametrize("corrected", [False, True])
def test_the_only_dead_letter_is_not_found_in_the_catalog(
    bench: Bench, make_contract: MakeContract, corrected: bool
) -> None:
    """It was both the smallest and the largest, and no other takes its place."""
    contract = make_contract(COLUMNS)
    bench.put("things/date=2026-01-01/a.csv", "id,name,n\n15036,Ann,x\n2,Bob,2\n")
    bench.ingest(contract)
    if corrected:
        (letter,) = letters(bench.lake, Choice(), 10)
        replay(bench.lake, contract, Choice(), corrections={letter.dead_letter_id: "15036,Ann,1"})
    done = erase(bench.lake, [contract], "customer", "15036", rebuild=lambda: None)
    assert done.findings.found == {}
    bench.close()
    assert bench.sql("SELECT count(*) FROM bronze.things WHERE n = 2") == [(1,)]


def test_queries_find_all_rows_within_the_wider_bounds(bench: Bench) -> None:
    """Of every type, now and after rows have come that lie within and beyond them."""
    lake = bench.lake
    lake.create()
    kinds = {"a": "VARCHAR", "b": "INTEGER", "c": "DATE", "d": "DECIMAL(9, 2)", "e": "UUID", "f": "TIMESTAMP"}
    least = ("15036", "15036", "1980-05-05", "15036.00", "10000000-0000-0000-0000-000000000000", "1980-05-05 01:02:03")
    more = ("x 15036", "15038", "1990-05-05", "15038.00", "20000000-0000-0000-0000-000000000000", "1990-05-05 01:02:03")
    within = ("m", "15037", "1985-05-05", "15037.00", "15000000-0000-0000-0000-000000000000", "1985-05-05 01:02:03")
    beyond = ("a", "15037", "1970-01-01", "1.00", "00000000-0000-0000-0000-000000000001", "1970-01-01 01:02:03")
    person = Person("customer", "15036", (*least[2:], *more[2:], more[1]))

    def insert(*rows: tuple[str, ...]) -> None:
        for row in rows:
            lake.write(lambda con, row=row: con.execute("INSERT INTO bronze.t VALUES (?, ?, ?, ?, ?, ?)", row), "rows")

    columns = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    lake.write(lambda con: con.execute(f"CREATE TABLE bronze.t ({columns})"), "a table")
    insert(least, within, more)
    lake.write(lambda con: con.execute("DELETE FROM bronze.t WHERE b <> 15037"), "the person goes")
    assert widen(lake, person) == len(kinds)
    assert widen(lake, person) == 0
    with lake.reading() as con:
        bounds = con.execute(
            f"SELECT min_value, max_value FROM {CATALOG}.ducklake_table_column_stats "
            f"JOIN {CATALOG}.ducklake_table USING (table_id) WHERE table_name = 't' ORDER BY column_id"
        ).fetchall()
    assert bounds == [
        ("", "x \U0010ffff"),
        ("15035", "15039"),
        ("1980-05-04", "1990-05-06"),
        ("15035.00", "15039.00"),
        ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
        ("1980-05-04 01:02:03", "1990-05-06 01:02:03"),
    ]

    def all_found(count: int) -> None:
        with lake.reading() as con:
            for i, (name, kind) in enumerate(kinds.items()):
                value = f"'{within[i]}'::{kind}"
                wanted = sum(1 for row in (within, beyond)[:count] if row[i] == within[i])
                for condition, found in (
                    (f"{name} = {value}", wanted), (f"{name} IS NOT NULL", count), (f"{name} >= {value}", wanted),
                    (f"{name} <= {value}", count),
                ):  # fmt: skip
                    row = con.execute(f"SELECT count(*) FROM bronze.t WHERE {condition}").fetchone()
                    assert row == (found,), condition
            row = con.execute("SELECT max(a), max(b), max(c), max(d) FROM bronze.t").fetchone()
            assert row is not None
            assert [str(v) for v in row] == list(within[:4])

    all_found(1)
    insert(beyond)
    all_found(2)


def test_a_type_ends_somewhere() -> None:
    assert [_beside("int8", "127", 1), _beside("int8", "-128", -1), _beside("uint8", "0", -1)] == ["127", "-128", "0"]
    assert [_beside("boolean", "true", 1), _beside("date", "infinity", 1)] == ["true", "infinity"]
