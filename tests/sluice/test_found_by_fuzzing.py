"""What `make test-fuzz` has found, each as small as it can be shown: one bad file or row must not cost another one."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sluice import preflight
from sluice.contracts import Contract
from sluice.errors import MemoryLimitError
from sluice.landing import LandingFile
from sluice.preflight import Inspected, inspect
from tests.conftest import ORDERS_HEADER, Bench, Extracted, MakeBench, MakeContract

GOOD = "489434,85048,CUP,1,2026-01-01 10:00:00,1.50,12345,United Kingdom"
KEY = "2026-01-01|uk"
FOLDER = "orders/region=uk/date=2026-01-01"
FEED = {"envelope": "debezium", "sequence": "source.lsn", "validFrom": "source.ts_ms"}


def packed(data: bytes, flags: int) -> bytes:
    """A gzip member whose header has the optional parts of `flags` (RFC 1952)."""
    head = b"\x1f\x8b\x08" + bytes([flags]) + b"\0\0\0\0\0\xff"
    head += b"\x03\0abc" if flags & 4 else b""
    head += b"name\0" if flags & 8 else b""
    head += b"comment\0" if flags & 16 else b""
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF) if flags & 2 else b""
    body = zlib.compressobj(6, zlib.DEFLATED, -15)
    return head + body.compress(data) + body.flush() + struct.pack("<II", zlib.crc32(data), len(data))


@pytest.mark.parametrize("flags", range(32))
def test_any_gzip_header_is_read(flags: int, make_contract: MakeContract, read_files: Any) -> None:
    """DuckDB refuses those with a comment or a checksum, and with them all files of the scan."""
    contract = make_contract({"a": {}})
    found: Extracted = read_files(contract, {"f.csv.gz": packed(b"a\n1\n", flags), "other.csv": b"a\n2\n"})
    assert [r["t_a"] for r in found.rows] == ["1", "2"]


def test_an_empty_member_before_one_duckdb_does_not_read(make_contract: MakeContract, read_files: Any) -> None:
    """The unpacked size at the end is that of the whole, and the first header plain."""
    contract = make_contract({"a": {}})
    data = gzip.compress(b"") + packed(b"a\n1\n", 2)
    found: Extracted = read_files(contract, {"f.csv.gz": data, "other.csv": b"a\n2\n"})
    assert [r["t_a"] for r in found.rows] == ["1", "2"]


@pytest.mark.parametrize("value", ["}", "{", "a}'b", "\\}", "'x': '"])
def test_dead_letters_stay_readable_whatever_a_value_holds(
    value: str, bench: Bench, contracts: dict[str, Contract]
) -> None:
    """DuckLake would keep few rows as text in its catalog, and cannot read a list with a brace in it from there."""
    bench.put_orders(KEY, *[GOOD.replace("489434", str(500_000 + n)) for n in range(30)], GOOD.replace("1.50", value))
    bench.ingest(contracts["orders"])
    assert bench.sql("SELECT reasons[1].rule, reasons[1].value FROM ops.dead_letters") == [("type", value)]


def test_a_document_of_many_keys_takes_memory_once(
    make_contract: MakeContract, read_files: Any, memory: duckdb.DuckDBPyConnection
) -> None:
    """To extract each unknown key from the document copied the document for each: a gigabyte for 150 kB."""
    contract = make_contract({"a": {}}, formats=["jsonl"], evolution="discard")
    document = {"a": "1", **{f"key number {i}": i for i in range(10_000)}}
    memory.execute("SET memory_limit = '300MB'")
    try:
        found: Extracted = read_files(contract, {"f.jsonl": json.dumps(document).encode()})
    finally:
        memory.execute("RESET memory_limit")
    assert json.loads(found.rows[0]["extra"]) == {k: v for k, v in document.items() if k != "a"}


@pytest.mark.parametrize(
    ("line", "twice"),
    [
        ('{"a":"1","a":"2"}', True),
        ('{"a":null,"a":"2"}', True),
        ('{"a":"1","a":null}', True),
        ('{"a":"1","x":1,"x":2}', True),
        ('{"a":"1","\\u0061":"2"}', True),
        ('{"a":"1","b":null,"c":null}', False),
        ('{"a":"1","A":"2"}', False),
        ('{"a":"1","x":{"y":1,"y":2}}', False),
        ('{"b":{"a":1},"a":"1"}', False),
    ],
)
@pytest.mark.parametrize("name", ["a", "$.a"])
def test_a_key_that_stands_twice_is_malformed(
    line: str, twice: bool, name: str, make_contract: MakeContract, read_files: Any
) -> None:
    """It says two things, and which one is believed differs from reader to reader."""
    contract = make_contract({"a": {"physicalName": name}, "b": {}, "c": {}}, formats=["jsonl"])
    found: Extracted = read_files(contract, {"f.jsonl": line.encode()})
    (row,) = found.rows
    expected = ("malformed", "a key stands twice in an object") if twice else (None, None)
    assert (row["fault"], row["fault_detail"]) == expected


@pytest.mark.parametrize(
    ("before", "after", "twice"),
    [
        ('"op":"c"', '"op":"c","op":"d"', True),
        ('"lsn":1', '"lsn":1,"lsn":2', True),
        ('"id":"1"', '"id":"1","id":"2"', True),
        ('"id":"1"', '"id":"1","name":{"x":1,"x":1}', False),
        ("", "", False),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_key_that_stands_twice_in_an_event_is_malformed(
    before: str, after: str, twice: bool, wrapped: bool, make_contract: MakeContract, read_files: Any
) -> None:
    contract = make_contract({"id": {"primaryKey": True}, "name": {}}, formats=["jsonl"], feed=FEED)
    event = '{"before":null,"after":{"id":"1"},"source":{"lsn":1,"ts_ms":1767225600000},"op":"c"}'.replace(
        before, after, 1
    )
    line = f'{{"schema":{{}},"payload":{event}}}' if wrapped else event
    found: Extracted = read_files(contract, {"f.jsonl": line.encode()})
    assert [r["fault"] for r in found.rows] == ["malformed" if twice else None]


def look(tmp_path: Path, name: str, data: bytes, **options: Any) -> Inspected:
    (tmp_path / name).write_bytes(data)
    file = LandingFile(name, len(data), 0, "k", (), "jsonl", name.endswith(".gz"))
    return inspect(file, tmp_path, tmp_path / "tmp", **options)


def test_of_an_endless_line_the_beginning_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "LONGEST_LINE_BYTES", 1_000)
    monkeypatch.setattr(preflight, "KEPT_BYTES", 5_000)
    monkeypatch.setattr(preflight, "_BLOCK", 500)
    for size, kept, more in ((1_001, 1_001, ""), (3_000_000, 5_000, ", and the first 5,000 are kept here")):
        found = look(tmp_path, "f.jsonl.gz", gzip.compress(b"a\n" + b"x" * size + b"\nb\n"))
        (bad,) = found.bad_lines or ()
        assert (found.lines, bad.line, base64.b64decode(bad.raw_base64)) == (3, 2, b"x" * kept)
        assert bad.detail == f"{size:,} bytes; at most 1,000 are read{more}"


def test_what_unpacks_to_more_than_it_may_is_read_no_further(
    tmp_path: Path, bench: Bench, make_bench: MakeBench, contracts: dict[str, Contract]
) -> None:
    found = look(tmp_path, "f.jsonl.gz", gzip.compress(b"\0" * 20_000_000), most_bytes=5_000_000)
    assert (found.problem, found.readable) == ("too_large", None)
    assert 5_000_000 < found.unpacked_bytes < 7_000_000
    small = make_bench("small", file_bytes=2_000)
    small.put(f"{FOLDER}/big.csv.gz", ORDERS_HEADER + "\n" + (GOOD + "\n") * 40)
    small.put_orders(KEY, *[GOOD.replace("489434", str(500_000 + n)) for n in range(25)])
    (problem,) = small.ingest(contracts["orders"]).problems
    assert (problem.file, problem.rule, problem.rows) == (f"{FOLDER}/big.csv.gz", "too_large", 1)
    assert "Ask for it in parts, or raise SLUICE_FILE_BYTES" in problem.detail
    assert small.ledger("orders") == {KEY: (26, 25, 1, 0)}
    # With the setting raised it is another batch, and read.
    larger = Bench(small.settings.home, file_bytes=10_000)
    assert larger.ingest(contracts["orders"]).problems == ()
    assert larger.ledger("orders") == {KEY: (65, 26, 0, 39)}
    larger.close()


def test_a_file_in_another_encoding_as_a_whole_is_set_aside_as_one(
    bench: Bench, contracts: dict[str, Contract], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "MOST_BAD_LINES", 3)
    bench.put_orders(KEY, *[GOOD.replace("489434", str(500_000 + n)) for n in range(200)])
    bench.put(f"{FOLDER}/three.csv", ORDERS_HEADER.encode() + b"\n" + b"\xff\n\xfe\n\xff\xff\n")
    bench.put(f"{FOLDER}/four.csv", ORDERS_HEADER.encode() + b"\n" + b"\xff\n\xfe\n\xff\xff\n\xfe\xfe\n")
    (problem,) = bench.ingest(contracts["orders"]).problems
    assert (problem.file, problem.rule, problem.rows) == (f"{FOLDER}/four.csv", "encoding", 4)
    assert problem.detail.startswith("More than 3 of its lines are no text (line 2: not utf-8: ")
    assert bench.ledger("orders") == {KEY: (207, 200, 7, 0)}


def test_a_batch_that_does_not_fit_into_memory_holds_up_no_other(
    make_bench: MakeBench, make_contract: MakeContract
) -> None:
    contract = make_contract({"a": {}}, formats=["jsonl"])
    bench = make_bench("little", memory_limit="150MB", threads=1)
    bench.put("things/date=2026-01-01/a.jsonl", '{"a":"1"}\n')
    bench.put("things/date=2026-01-02/a.jsonl", ('{"a":"2","x":[' + "1," * 800_000 + "1]}\n") * 8)
    bench.put("things/date=2026-01-03/a.jsonl", '{"a":"3"}\n')
    with pytest.raises(MemoryLimitError) as caught:
        bench.ingest(contract)
    message = str(caught.value)
    assert message.startswith("things 2026-01-02: DuckDB's memory does not suffice: ")
    assert "Raise SLUICE_MEMORY_LIMIT" in message and message.endswith("The other partitions were ingested.")
    assert bench.ledger("things") == {"2026-01-01": (1, 1, 0, 0), "2026-01-03": (1, 1, 0, 0)}
    assert list(bench.settings.temp_path.iterdir()) == []
    with_room = Bench(bench.settings.home, memory_limit="4GB")
    with_room.ingest(contract)
    assert with_room.ledger("things")["2026-01-02"] == (8, 1, 0, 7)
    with_room.close()
