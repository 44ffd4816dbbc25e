"""SQL as text: quoting, and temporary tables of what Python knows."""

from __future__ import annotations

import duckdb

from sluice.sql import literal, quoted, temp_table


def test_names_and_texts_are_quoted() -> None:
    with duckdb.connect() as con:
        name, text = 'odd "name"', "it's; -- text"
        con.execute(f"CREATE TABLE {quoted(name)} ({quoted('select')} VARCHAR)")
        con.execute(f"INSERT INTO {quoted(name)} VALUES ({literal(text)})")
        assert con.execute(f"SELECT {quoted('select')} FROM {quoted(name)}").fetchall() == [(text,)]


def test_a_temporary_table_takes_what_python_knows() -> None:
    with duckdb.connect() as con:
        rows = [(1, 'it\'s "ü"\n', ["a", "b"], None), (2, "", [], 2**40)]
        temp_table(con, "t", "n INTEGER, select VARCHAR, list VARCHAR[], big BIGINT", rows)
        assert con.execute("SELECT * FROM t ORDER BY n").fetchall() == rows
        temp_table(con, "t", "n INTEGER", [])
        assert con.execute("SELECT count(*) FROM t").fetchone() == (0,)
