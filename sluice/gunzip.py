"""Unpacking gzip a block at a time, and noticing what DuckDB's reader of it cannot take.

Only the packing is looked at here; what is packed belongs to `sluice.preflight`.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator

# The beginning of a member, as far as it is looked at: magic number, method, flags (RFC 1952).
_MAGIC = b"\x1f\x8b"
_HEAD = 4

# Optional parts of a header that DuckDB takes: more fields (4), the file's name (8). One file with a comment or a
# checksum of the header, and its scan of all files fails.
_PLAIN_FLAGS = 4 | 8

_AUTOMATIC_HEADER = 31  # zlib's word for: a gzip header is there, check its trailer


class Gunzip:
    """The unpacked blocks of a gzip file: all its members, zeros behind them allowed.

    `unusual` is known when all blocks have been taken: whether the file has several members, padding, or a header that
    DuckDB does not read.
    """

    def __init__(self, read: Callable[[int], bytes], size: int) -> None:
        self._read, self._size = read, size
        self.unusual = False

    def __iter__(self) -> Iterator[bytes]:
        """At most `size` bytes at a time, however small they were packed.

        Raises:
            BadGzipFile: what should be a member is none.
            EOFError: the file ends within a member.
            zlib.error: a member is damaged.
        """
        packed = self._read(self._size)
        members = 0
        while True:
            if members:
                packed = self._behind(packed)
            while packed and len(packed) < _HEAD and (more := self._read(self._size)):
                packed += more
            if not packed:
                return
            if not packed.startswith(_MAGIC):
                raise gzip.BadGzipFile(f"Not a gzipped file ({packed[:2]!r})")
            members += 1
            self.unusual = self.unusual or members > 1 or bool(packed[3:4] and packed[3] & ~_PLAIN_FLAGS)
            decoder = zlib.decompressobj(_AUTOMATIC_HEADER)
            while not decoder.eof:
                block = decoder.decompress(packed, self._size)
                if block:
                    yield block
                packed = decoder.unconsumed_tail
                if not packed and not decoder.eof:
                    packed = self._read(self._size)
                    if not packed and not block:
                        raise EOFError("Compressed file ended before the end-of-stream marker was reached")
            packed = decoder.unused_data

    def _behind(self, packed: bytes) -> bytes:
        """What follows a member, less the zeros that pad it."""
        packed = packed or self._read(self._size)
        while packed.startswith(b"\0"):
            self.unusual = True
            packed = packed.lstrip(b"\0") or self._read(self._size)
        return packed
