"""Parquet taken apart into text; and what all formats have in common."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.contracts import Contract
from tests.conftest import MakeContract
from tests.sluice.records.reading import Read, values


def parquet(con: duckdb.DuckDBPyConnection, folder: Path, query: str) -> bytes:
    path = folder / "made.parquet"
    con.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path.read_bytes()


def test_parquet_values_become_text(
    make_contract: MakeContract, read_files: Read, memory: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    names = ["i", "d", "f", "t", "z", "b", "day", "s", "l", "n"]
    contract = make_contract({n: {} for n in names}, formats=["parquet"])
    data = parquet(
        memory,
        tmp_path,
        "SELECT 7::INTEGER AS i, 1.50::DECIMAL(12,4) AS d, 0.1::DOUBLE AS f, TIMESTAMP '2026-01-01 10:00:00.5' AS t, "
        "TIMESTAMPTZ '2026-01-01 10:00:00+02' AS z, true AS b, DATE '2026-01-01' AS day, 'é' AS s, [1, 2] AS l, "
        "NULL::VARCHAR AS n",
    )
    found = read_files(contract, {"f.parquet": data})
    assert values(found, *names) == [
        (
            1,
            "7",
            "1.5000",
            "0.1",
            "2026-01-01 10:00:00.5",
            "2026-01-01 08:00:00+00",
            "true",
            "2026-01-01",
            "é",
            "[1, 2]",
            None,
        )
    ]
    assert json.loads(found.rows[0]["raw"])["s"] == "é"


def test_parquet_shapes_and_broken_files_do_not_disturb_each_other(
    abc: Contract, read_files: Read, memory: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    good = parquet(memory, tmp_path, "SELECT range::VARCHAR AS a, 'b' AS b, 1 AS c FROM range(3)")
    files = {
        "1.parquet": good,
        "2.parquet": parquet(memory, tmp_path, "SELECT 'x' AS a, true AS new"),
        "3.parquet": parquet(memory, tmp_path, "SELECT 'x' AS aa, 'y' AS b FROM range(5)"),
        "4.parquet": good[:40] + b"\xff" * (len(good) - 80) + good[-40:],
        "5.parquet": good[: len(good) // 2],
        "6.parquet": b"",
        "7.parquet": parquet(memory, tmp_path, "SELECT 'x' AS a WHERE false"),
    }
    found = read_files(abc, files)
    assert [(r["file_id"], r["line"], r["t_a"], r["t_b"], r["t_c"], r["extra"]) for r in found.rows] == [
        (0, 1, "0", "b", "1", None),
        (0, 2, "1", "b", "1", None),
        (0, 3, "2", "b", "1", None),
        (1, 1, "x", None, None, '{"new":"true"}'),
    ]
    assert sorted((f.file_id, f.rule, f.rows) for f in found.faults) == [
        (2, "missing_column", 5),
        (3, "unreadable_file", 1),
        (4, "unreadable_file", 1),
        (5, "empty_file", 0),
    ]
    assert "it has 'aa': if it was renamed" in next(f.detail for f in found.faults if f.file_id == 2)


def test_all_formats_give_the_same_records(
    abc: Contract, read_files: Read, memory: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    found = read_files(
        abc,
        {
            "f.csv": b'a,b,c\n1,"x ""y""",\n',
            "f.jsonl": b'{"a":1,"b":"x \\"y\\"","c":null}\n',
            "f.parquet": parquet(memory, tmp_path, "SELECT 1 AS a, 'x \"y\"' AS b, NULL::VARCHAR AS c"),
        },
    )
    assert [v[1:] for v in values(found)] == [("1", 'x "y"', None)] * 3


def written(folder: Path, names: list[str], rows: int = 1) -> bytes:
    """A file of columns of these names, as DuckDB would not write them: 0, 1, 2 … in each row."""
    path = folder / "written.parquet"
    pq.write_table(pa.table([pa.array([i] * rows) for i in range(len(names))], names=names), path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("names", "column", "words"),
    [
        (["A", "b", "a"], "A", "knows no case: 'A', 'a'. Deliver"),
        (["a", "new", "New"], "new", "knows no case: 'new', 'New'. Deliver"),
        (["a", "b", "b"], "b", "knows no case: 'b', 'b'. Deliver"),
        (
            ["a", "b", "file_row_number"],
            "file_row_number",
            "a name that Parquet's reader needs for a column of its own",
        ),
        (["a", "b", "_Sluice_Path"], "_Sluice_Path", "a name that Parquet's reader needs for a column of its own"),
    ],
)
def test_columns_that_cannot_be_told_apart_set_their_file_aside(
    names: list[str], column: str, words: str, abc: Contract, read_files: Read, tmp_path: Path
) -> None:
    found = read_files(
        abc, {"bad.parquet": written(tmp_path, names, 3), "good.parquet": written(tmp_path, ["a", "b", "c"])}
    )
    assert [(f.file_id, f.rule, f.column, f.rows) for f in found.faults] == [(0, "malformed", column, 3)]
    assert words in found.faults[0].detail
    assert values(found) == [(1, "0", "1", "2")]


def test_names_within_a_column_and_none_are_no_columns_of_their_own(
    make_contract: MakeContract, read_files: Read, tmp_path: Path
) -> None:
    contract = make_contract({"a": {}, "b": {}, "d": {}}, formats=["parquet"])
    path = tmp_path / "nested.parquet"
    pq.write_table(
        pa.table(
            {
                "d": pa.array([{"a": 1, "b": {"a": 2, "A": [3]}}]),
                "l": pa.array([[{"a": 4}]]),
                "m": pa.array([[("a", {"b": 5})]], pa.map_(pa.string(), pa.struct([("b", pa.int64())]))),
                "": pa.array([6]),
                "b": pa.array([7]),
            }
        ),
        path,
    )
    found = read_files(contract, {"a[1].parquet": path.read_bytes()})
    assert found.faults == []
    assert [(r["t_a"], r["t_b"], json.loads(r["extra"]).keys()) for r in found.rows] == [(None, "7", {"l", "m", "C3"})]
