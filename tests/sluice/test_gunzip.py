"""Gunzip: all members in bounded blocks, like Python's own, and what DuckDB cannot read is noticed."""

from __future__ import annotations

import gzip
import io
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.gunzip import Gunzip


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def unpacked(data: bytes, size: int = 1000) -> tuple[bytes, bool]:
    blocks = Gunzip(io.BytesIO(data).read, size)
    found = list(blocks)
    assert all(0 < len(block) <= size for block in found)
    return b"".join(found), blocks.unusual


@settings(deadline=None)
@given(
    members=st.lists(st.binary(max_size=300), min_size=1, max_size=4), zeros=st.integers(0, 9), size=st.integers(1, 40)
)
def test_members_and_padding_are_read_like_python_reads_them(members: list[bytes], zeros: int, size: int) -> None:
    data = b"".join(map(packed, members)) + b"\0" * zeros
    assert unpacked(data, size) == (gzip.decompress(data), len(members) > 1 or zeros > 0)


def test_a_block_is_no_longer_than_it_may_be() -> None:
    data = packed(b"\0" * 5_000_000)
    assert unpacked(data, 10_000) == (b"\0" * 5_000_000, False)
    assert unpacked(b"") == (b"", False)


@settings(deadline=None)
@given(data=st.binary(min_size=1, max_size=200), at=st.data())
def test_a_file_cut_off_is_no_whole_one(data: bytes, at: st.DataObject) -> None:
    whole = packed(data)
    cut = at.draw(st.integers(4, len(whole) - 1))
    with pytest.raises(EOFError, match="ended before the end-of-stream marker"):
        unpacked(whole[:cut], 7)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"a", gzip.BadGzipFile),
        (b"a,b\n1,2\n", gzip.BadGzipFile),
        (packed(b"a") + b"x", gzip.BadGzipFile),
        (packed(b"a") + b"\0\0x", gzip.BadGzipFile),
        (packed(b"a")[:-8] + b"\1\2\3\4" + packed(b"a")[-4:], zlib.error),
        (packed(b"a")[:-4] + b"\2\0\0\0", zlib.error),
        (b"\x1f\x8b\x07" + packed(b"a")[3:], zlib.error),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_what_is_no_gzip_or_damaged_is_an_error(data: bytes, error: type[Exception], size: int) -> None:
    with pytest.raises(error):
        unpacked(data, size)
