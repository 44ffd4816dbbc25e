"""Preflight: its line count is the one SQL must meet, and no line is changed, lost or able to stop the others."""

from __future__ import annotations

import base64
import codecs
import gzip
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sluice.errors import LandingError
from sluice.landing import LandingFile
from sluice.preflight import LONGEST_LINE_BYTES, Inspected, inspect, inspect_all

Look = Callable[..., Inspected]


def gzipped(data: bytes) -> bytes:
    """The same bytes at any time: they name tests, and two workers must find the same ones."""
    return gzip.compress(data, mtime=0)


def landing_file(name: str, data: bytes) -> LandingFile:
    stem = name.removesuffix(".gz")
    kind = "parquet" if stem.endswith("parquet") else "jsonl"
    return LandingFile(name, len(data), 0, "k", (), kind, name.endswith(".gz"))


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Inspects bytes as a landing file."""

    def inspect_bytes(data: bytes, name: str = "f.jsonl", encoding: str = "utf-8") -> Inspected:
        (tmp_path / name).write_bytes(data)
        return inspect(landing_file(name, data), tmp_path, tmp_path / "tmp", encoding)

    return inspect_bytes


def sql_lines(con: duckdb.DuckDBPyConnection, path: Path | None) -> list[str | None]:
    """The lines as the records module reads them."""
    rows = con.execute(
        "SELECT line FROM read_csv(?, auto_detect = false, header = false, delim = '\x1f', quote = '', escape = '', "
        "comment = '', strict_mode = false, columns = {'line': 'VARCHAR'}, hive_partitioning = false)",
        [str(path)],
    ).fetchall()
    return [line for (line,) in rows]


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\r\nb", ["a", "b"]),
        (b"a\rb\rc", ["a", "b", "c"]),
        (b"a\nb\r\nc\rd", ["a", "b", "c", "d"]),
        (b"a\n\rb\n", ["a", None, "b"]),
        (b"a\n\n\nb\n\n", ["a", None, None, "b", None]),
        (b"\r\n\r\na\r\n", [None, None, "a"]),
        (b"\n", [None]),
        (b"\xef\xbb\xbfa\nb\n", ["a", "b"]),
        (b"a\tb, \"c' \n", ["a\tb, \"c' "]),
        (b" a \n", [" a "]),
        ("é茶🎉\u2028\x85\n".encode(), ["é茶🎉\u2028\x85"]),
        (b"a\0b\n", ["a\0b"]),
    ],
)
def test_lines_are_counted_as_sql_reads_them(
    data: bytes, texts: list[str | None], look: Look, memory: duckdb.DuckDBPyConnection
) -> None:
    for name in ("f.jsonl", "f.jsonl.gz"):
        found = look(gzipped(data) if name.endswith(".gz") else data, name)
        assert (found.lines, found.bad_lines, found.problem) == (len(texts), None, None)
        assert sql_lines(memory, found.readable) == texts


def test_a_clean_file_is_read_where_it_is(look: Look, tmp_path: Path) -> None:
    data = b'{"a": 1}\n'
    found = look(data)
    assert found.readable == tmp_path / "f.jsonl"
    assert (found.sha256, found.unpacked_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    packed = gzipped(data)
    found = look(packed, "f.jsonl.gz")
    assert found.readable == tmp_path / "f.jsonl.gz"
    assert (found.sha256, found.unpacked_bytes) == (hashlib.sha256(packed).hexdigest(), len(data))
    assert not (tmp_path / "tmp").exists()


@pytest.mark.parametrize(
    ("bad", "rule", "detail"),
    [
        (b"caf\xe9", "encoding", "not utf-8: unexpected end of data at byte 4"),
        (b"\xff\xfe", "encoding", "not utf-8: invalid start byte at byte 1"),
        (b"a\x1fb", "encoding", "holds the control character U+001F"),
        (
            b"x" * (LONGEST_LINE_BYTES + 1),
            "too_long",
            "1,900,001 bytes; at most 1,900,000 are read",
        ),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_a_bad_line_costs_only_itself(
    bad: bytes, rule: str, detail: str, last: bool, look: Look, memory: duckdb.DuckDBPyConnection
) -> None:
    data = b"first\n" + bad if last else b"first\n" + bad + b"\nthird\n"
    found = look(data)
    (line,) = found.bad_lines or ()
    assert (line.line, line.rule, line.detail) == (2, rule, detail)
    assert base64.b64decode(line.raw_base64) == bad
    assert found.lines == (2 if last else 3)
    assert sql_lines(memory, found.readable) == (["first", None] if last else ["first", None, "third"])


def test_the_longest_line_is_still_read(look: Look, memory: duckdb.DuckDBPyConnection) -> None:
    found = look(b"a\n" + b"x" * LONGEST_LINE_BYTES + b"\nb\n")
    assert found.bad_lines is None
    assert [len(line or "") for line in sql_lines(memory, found.readable)] == [1, LONGEST_LINE_BYTES, 1]


@pytest.mark.parametrize("data", [b"", gzipped(b"")])
def test_an_empty_file_is_told(data: bytes, look: Look) -> None:
    found = look(data, "f.jsonl.gz" if data else "f.jsonl")
    assert (found.problem, found.readable, found.lines) == ("empty_file", None, 0)


def test_broken_gzip_files_are_told_and_still_known_by_their_bytes(look: Look) -> None:
    whole = gzipped(b"a\nb\n" * 1000)
    flipped = whole[:20] + bytes([whole[20] ^ 255]) + whole[21:]
    for data, words in (
        (whole[:-9], "ended before the end-of-stream marker"),
        (b"a\nb\n", "BadGzipFile: Not a gzipped file"),
        (whole + b"garbage", "BadGzipFile: Not a gzipped file"),
        (flipped, ""),
    ):
        found = look(data, "f.jsonl.gz")
        assert found.problem is not None and words in found.problem
        assert (found.readable, found.lines) == (None, 0)
        assert found.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "data",
    [
        gzipped(b"a\nb") + gzipped(b"c\nd\n"),
        gzipped(b"a\nbc\nd\n") + gzipped(b""),
        gzipped(b"a\nbc\nd\n") + b"\0" * 13,
        gzipped(b"a\nbc\nd\n") + b"\0",
    ],
)
def test_several_members_and_padding_are_read_whole(data: bytes, look: Look, memory: duckdb.DuckDBPyConnection) -> None:
    found = look(data, "f.jsonl.gz")
    assert found.lines == 3
    assert sql_lines(memory, found.readable) == ["a", "bc", "d"]


def test_another_encoding_is_turned_into_utf_8(look: Look, memory: duckdb.DuckDBPyConnection) -> None:
    found = look("café\nnaïve\n".encode("latin-1"), encoding="latin-1")
    assert (found.lines, found.bad_lines) == (2, None)
    assert sql_lines(memory, found.readable) == ["café", "naïve"]
    # In UTF-8 the line takes twice the bytes, more than SQL reads.
    long = look(b"\xe9" * 1_000_000 + b"\nshort\n", encoding="latin-1")
    assert [(b.line, b.rule) for b in long.bad_lines or ()] == [(1, "too_long")]
    assert sql_lines(memory, long.readable) == [None, "short"]
    undefined = look(b"a\x81b\nok\n", encoding="cp1252")
    assert [(b.line, b.rule) for b in undefined.bad_lines or ()] == [(1, "encoding")]
    assert sql_lines(memory, undefined.readable) == [None, "ok"]


def test_a_file_that_is_gone_or_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    for name, words in (("gone.jsonl", "FileNotFoundError"), ("folder.jsonl", "IsADirectoryError")):
        found = inspect(landing_file(name, b""), tmp_path, tmp_path / "tmp")
        assert found.problem is not None and words in found.problem
        assert len(found.sha256) == 64 and found.readable is None


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "empty_file"),
        (b"PAR1", None),
        (b"PAR1....", "not a complete Parquet file (its magic bytes are missing)"),
        (b"not parquet at all", "not a complete Parquet file (its magic bytes are missing)"),
    ],
)
def test_parquet_is_looked_at_from_both_ends(data: bytes, problem: str | None, look: Look) -> None:
    assert look(data, "f.parquet").problem == problem


def test_many_files_come_back_in_order(tmp_path: Path) -> None:
    files = []
    for number in range(20):
        data = b"x\n" * number + b"end"
        (tmp_path / f"{number}.jsonl").write_bytes(data)
        mtime = (tmp_path / f"{number}.jsonl").stat().st_mtime_ns
        files.append(replace(landing_file(f"{number}.jsonl", data), mtime_ns=mtime))
    found = inspect_all(files, tmp_path, tmp_path / "tmp", lambda f: "utf-8", threads=4)
    assert [(i.file.path, i.lines) for i in found] == [(f"{n}.jsonl", n + 1) for n in range(20)]


def test_a_file_that_changes_while_it_is_read_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_bytes(b"x\n")
    listed = replace(landing_file("f.jsonl", b"x\n"), mtime_ns=(tmp_path / "f.jsonl").stat().st_mtime_ns)
    (tmp_path / "f.jsonl").write_bytes(b"x\ny\n")
    with pytest.raises(LandingError, match="changed while it was being read"):
        inspect_all([listed], tmp_path, tmp_path / "tmp", lambda f: "utf-8", threads=1)


# Bytes in which line ends, control characters and broken UTF-8 are common.
PIECES = st.sampled_from(
    [
        b"\n",
        b"\r",
        b"\r\n",
        b"",
        b"a",
        b"b,c",
        b'"',
        b"\x1f",
        b"\0",
        b"\xff",
        b"\xc3",
        "é".encode(),
        b"\xef\xbb\xbf",
        b" ",
    ]
)
BYTES = st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=25).map(b"".join))


@settings(max_examples=250, deadline=None)
@given(data=BYTES, packed=st.booleans())
@example(data=b"\xef\xbb\xbf", packed=False)
@example(data=b"\xef\xbb\xbf\n", packed=False)
@example(data=b"\xff\n\xef\xbb\xbfa\n", packed=False)
@example(data=b"\xef\xbb\xbf\xef\xbb\xbfa\n\xff", packed=False)
def test_any_bytes_keep_their_lines(
    data: bytes, packed: bool, memory: duckdb.DuckDBPyConnection, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    name = "f.jsonl.gz" if packed else "f.jsonl"
    stored = gzipped(data) if packed else data
    (folder / name).write_bytes(stored)
    found = inspect(landing_file(name, stored), folder, folder / "tmp")
    expected = data.splitlines()  # of bytes: at LF, CR LF and CR alone
    assert found.lines == len(expected)
    if data in (b"", codecs.BOM_UTF8):
        assert found.problem == "empty_file"
        return
    bad = {b.line: base64.b64decode(b.raw_base64) for b in found.bad_lines or ()}
    read = sql_lines(memory, found.readable)
    assert len(read) == found.lines
    for number, (raw, line) in enumerate(zip(expected, read, strict=True), 1):
        if number in bad:
            assert line is None and bad[number] == raw
            with pytest.raises(UnicodeDecodeError):
                raw.replace(b"\x1f", b"\xff").decode()
        else:
            text = raw.decode()
            # A byte order mark at the very start belongs to the encoding, not to the text.
            assert line == ((text.removeprefix("\ufeff") if number == 1 else text) or None)
