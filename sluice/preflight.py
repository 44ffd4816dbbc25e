"""Reading a file's bytes once before SQL does: fingerprint, number of lines, and whether SQL can read it as it is.

DuckDB reads lines fast but fails a whole scan on one bad byte. Here each file is hashed, unpacked and checked; a file
with such lines is rewritten beside, each offending line replaced by an empty one and handed over with its reason, so
that one bad line never costs more than itself. The count of lines made here is the control total SQL must meet.
What a line means does not belong here.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from sluice.errors import LandingError
from sluice.gunzip import Gunzip
from sluice.landing import LandingFile

# Read size: below the longest line, so that only lines running over a block's edge need measuring.
_BLOCK = 1024 * 1024

# DuckDB's default max_line_size is 2,000,000 bytes; longer lines make its scan fail.
LONGEST_LINE_BYTES = 1_900_000

# Of a longer line a dead letter keeps the beginning: it must fit into memory several times over.
KEPT_BYTES = 16 * 1024 * 1024

# A file with more lines that are no text than this is in another encoding as a whole, and set aside as such: each costs
# Python 15 microseconds, and no file may hold up the others for hours.
MOST_BAD_LINES = 200_000

# ASCII unit separator: the delimiter given to DuckDB's reader so that a line is one column. A line that holds it is
# set aside, for DuckDB would cut it there.
UNIT_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class BadLine:
    """A line no text reader can take: where, why, and its bytes in base64; where these are cut, SHA-256 of them all."""

    line: int
    rule: str
    detail: str
    raw_base64: str
    digest: str | None = None


@dataclass(frozen=True)
class BadLines:
    """The lines of a file that no text reader can take, kept in a file beside: there may be more than fit into memory.

    `count` of them, the `first` one here.
    """

    path: Path
    count: int
    first: BadLine

    def __iter__(self) -> Iterator[BadLine]:
        with self.path.open(encoding="ascii") as lines:
            for line in lines:
                yield BadLine(*json.loads(line))


@dataclass(frozen=True)
class Inspected:
    """A landing file with what its bytes said.

    `readable` is the path SQL reads (the file itself, or the copy made without its bad lines); None when the file
    cannot be read at all, and `problem` says why.
    """

    file: LandingFile
    sha256: str
    lines: int
    unpacked_bytes: int
    readable: Path | None
    problem: str | None = None
    bad_lines: BadLines | None = None


def inspect_all(
    files: list[LandingFile],
    landing: Path,
    temp: Path,
    encoding_of: Callable[[LandingFile], str],
    threads: int,
    most_bytes: int = sys.maxsize,
) -> list[Inspected]:
    """Inspect many files, in order. Hashing, unpacking and decoding release the interpreter, so threads help.

    Raises:
        LandingError: a file is no longer what the listing saw: it was being delivered while it was read.
    """

    def one(file: LandingFile) -> Inspected:
        done = inspect(file, landing, temp, encoding_of(file), most_bytes)
        _unchanged(landing / file.path, file)
        return done

    with ThreadPoolExecutor(max(threads, 1), thread_name_prefix="preflight") as pool:
        return list(pool.map(one, files))


def _unchanged(path: Path, file: LandingFile) -> None:
    try:
        now = path.stat()
        same = (now.st_size, now.st_mtime_ns) == (file.size, file.mtime_ns)
    except FileNotFoundError:
        same = False
    if not same:
        raise LandingError(
            f"{path} changed while it was being read. Nothing of it was committed. Run the partition again when its "
            "delivery is complete; deliver under a name ending in .tmp and rename, and this cannot happen."
        )


def inspect(
    file: LandingFile, landing: Path, temp: Path, encoding: str = "utf-8", most_bytes: int = sys.maxsize
) -> Inspected:
    """Read a file's bytes once; where it needs it, write a clean copy below `temp`.

    What unpacks to more than `most_bytes` is read no further: a megabyte of gzip may hold a gigabyte.
    """
    path = landing / file.path
    try:
        if file.format == "parquet":
            return _inspect_parquet(file, path)
        facts = _Facts()
        with path.open("rb") as raw:
            hashing = _HashingReader(raw)
            blocks = _blocks(hashing.read, file.gzipped)
            for block in blocks:
                facts.add(block)
                if facts.bytes > most_bytes:
                    return Inspected(file, hashing.hexdigest(), facts.lines, facts.bytes, None, "too_large")
            facts.end()
            sha256 = hashing.hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        return _unreadable(file, path, error)
    done = Inspected(file, sha256, facts.lines, facts.bytes, path)
    if facts.head in (b"", codecs.BOM_UTF8):
        return replace(done, readable=None, problem="empty_file")
    if facts.clean and _is_utf8(encoding) and not (isinstance(blocks, Gunzip) and blocks.unusual):
        return done
    copy, bad = _rewrite(path, file, temp / f"{sha256}-{abs(hash(file.path)):x}.txt", encoding)
    if bad and bad.count > MOST_BAD_LINES:
        copy.unlink()
        return replace(done, readable=None, problem="encoding", bad_lines=bad)
    return replace(done, readable=copy, bad_lines=bad)


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def _unreadable(file: LandingFile, path: Path, error: Exception) -> Inspected:
    """Still fingerprint the bytes, so that an unreadable file is recognised when it comes again."""
    try:
        with path.open("rb") as raw:
            sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
    except OSError:
        sha256 = hashlib.sha256(f"{file.path}:{file.size}:{file.mtime_ns}".encode()).hexdigest()
    what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Inspected(file, sha256, 0, 0, None, f"{type(error).__name__}: {what}")


def _inspect_parquet(file: LandingFile, path: Path) -> Inspected:
    with path.open("rb") as raw:
        sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
        if file.size == 0:
            return Inspected(file, sha256, 0, 0, None, "empty_file")
        raw.seek(0)
        head = raw.read(4)
        raw.seek(max(file.size - 4, 0))
        tail = raw.read(4)
    if head != b"PAR1" or tail != b"PAR1":
        return Inspected(file, sha256, 0, file.size, None, "not a complete Parquet file (its magic bytes are missing)")
    return Inspected(file, sha256, 0, file.size, path)


class _HashingReader:
    """Passes bytes through and keeps their SHA-256."""

    def __init__(self, source: io.BufferedReader) -> None:
        self._source, self._hash = source, hashlib.sha256()

    def read(self, size: int) -> bytes:
        block = self._source.read(size)
        self._hash.update(block)
        return block

    def hexdigest(self) -> str:
        """Of all bytes, those behind the last gzip member included."""
        while self.read(_BLOCK):
            continue
        return self._hash.hexdigest()


def _blocks(read: Callable[[int], bytes], gzipped: bool) -> Gunzip | Iterator[bytes]:
    return Gunzip(read, _BLOCK) if gzipped else iter(lambda: read(_BLOCK), b"")


class _Facts:
    """What one pass over unpacked bytes finds out."""

    def __init__(self) -> None:
        self.bytes = 0
        self.head = b""  # the first bytes: all of them where there are fewer than 4
        self.lines = 0
        self.clean = True
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._unfinished = 0  # bytes since the last line end
        self._after_return = False
        self._feeds = self._returns = self._pairs = 0

    def add(self, block: bytes) -> None:
        self.bytes += len(block)
        self.head = (self.head + block[:4])[:4]
        feeds = block.count(b"\n")
        # Counting costs ten times what looking does (0.4 ms a MB), and pairs three times that again: only where there
        # can be any.
        returns = block.count(b"\r") if b"\r" in block else 0
        pairs = block.count(b"\r\n") if returns else 0
        if self._after_return and block.startswith(b"\n"):
            pairs += 1  # the two bytes of one line end fell into two blocks
        self.lines += feeds + returns - pairs
        self._pairs += pairs
        self._returns += returns
        self._feeds += feeds
        self._after_return = block.endswith(b"\r")
        first, last = (block.find(b"\n"), block.rfind(b"\n")) if feeds else (-1, -1)
        if returns:
            first = min(i for i in (first, block.find(b"\r")) if i >= 0)
            last = max(last, block.rfind(b"\r"))
        if self._unfinished + (first if first >= 0 else len(block)) > LONGEST_LINE_BYTES:
            self.clean = False
        self._unfinished = len(block) - last - 1 if last >= 0 else self._unfinished + len(block)
        if self.clean:
            if UNIT_SEPARATOR.encode() in block:
                self.clean = False
            # ASCII needs no decoding, unless the block before it ended within a character.
            if self._decoder.getstate()[0] or not block.isascii():
                try:
                    self._decoder.decode(block)
                except UnicodeDecodeError:
                    self.clean = False

    def end(self) -> None:
        if self._unfinished:
            self.lines += 1
        if self._returns and not self._returns == self._pairs == self._feeds:
            # DuckDB miscounts blank lines where kinds of line end mix.
            self.clean = False
        if self.clean:
            try:
                self._decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                self.clean = False


def _rewrite(path: Path, file: LandingFile, copy: Path, encoding: str) -> tuple[Path, BadLines | None]:
    """Write the file as UTF-8 without the lines that cannot be text; return the copy and those lines."""
    kept = copy.with_suffix(".bad")
    count, first = 0, None
    copy.parent.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as raw, copy.open("wb") as out, kept.open("w", encoding="ascii") as beside:
        for number, (line, size, digest) in enumerate(_lines(_blocks(raw.read, file.gzipped)), start=1):
            rule = detail = ""
            text = b""
            if size > LONGEST_LINE_BYTES:
                rule, detail = "too_long", f"{size:,} bytes; at most {LONGEST_LINE_BYTES:,} are read"
                if size > len(line):
                    detail += f", and the first {len(line):,} are kept here"
            else:
                try:
                    text = line.decode(encoding).encode("utf-8")
                except UnicodeDecodeError as error:
                    rule, detail = "encoding", f"not {encoding}: {error.reason} at byte {error.start + 1}"
                if len(text) > LONGEST_LINE_BYTES:  # UTF-8 takes more bytes than latin-1
                    rule, detail = "too_long", f"{len(text):,} bytes; at most {LONGEST_LINE_BYTES:,} are read"
                elif UNIT_SEPARATOR.encode() in text:
                    rule, detail = "encoding", "holds the control character U+001F"
            if rule:
                bad = BadLine(number, rule, detail, base64.b64encode(line).decode("ascii"), digest)
                count, first = count + 1, first or bad
                beside.write(json.dumps(astuple(bad)) + "\n")
                if count > MOST_BAD_LINES:
                    break
            else:
                out.write(text)
            out.write(b"\n")
    return copy, BadLines(kept, count, first) if first else None


def _lines(blocks: Iterable[bytes]) -> Iterator[tuple[bytes, int, str | None]]:
    """Lines without their ends, `KEPT_BYTES` of each at most, and their sizes; one ends at LF, CR LF or a lone CR.

    With what is not whole comes the SHA-256 of the whole: two lines may be alike in what is kept of them.
    """
    pending: list[bytes] = []
    kept = size = 0
    carried = b""
    seen = hashlib.sha256()

    def whole(last: bytes) -> tuple[bytes, int, str | None]:
        line = b"".join([*pending, last[: KEPT_BYTES - kept]])
        if size + len(last) == len(line):
            return line, len(line), None
        seen.update(last)
        return line, size + len(last), seen.hexdigest()

    for block in blocks:
        block = carried + block
        carried = b""
        if block.endswith(b"\r"):  # the LF may open the next block
            block, carried = block[:-1], b"\r"
        for piece in block.splitlines(keepends=True):
            body = piece.rstrip(b"\r\n")
            if len(body) < len(piece):
                yield whole(body)
                if size:
                    seen = hashlib.sha256()
                pending, kept, size = [], 0, 0
            else:
                size += len(piece)
                seen.update(piece)
                if kept < KEPT_BYTES:
                    pending.append(piece[: KEPT_BYTES - kept])
                    kept += len(pending[-1])
    if carried or pending:
        yield whole(b"")
