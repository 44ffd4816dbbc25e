"""What only files do to their readers: writers killed, bits flipped, disks full, several processes at once."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pytest

from sluice.errors import EventLogError, EventLogUnavailableError, OffsetLostError
from sluice.eventlog import Bounds, Message, embedded, frames, open_log
from sluice.eventlog.embedded import EmbeddedLog
from sluice.settings import PROJECT, load_settings

ALL = {"max_rows": 10_000_000, "max_bytes": 1 << 40}

# Appends `rounds` times `rows` records, and tells after each how many are there for certain.
WRITER = """
import sys
from pathlib import Path
from sluice.eventlog import Message
from sluice.eventlog.embedded import EmbeddedLog
root, name, rounds, rows = Path(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])
log = EmbeddedLog(root)
for n in range(rounds):
    log.append("t", [Message(b"%s-%d" % (name, i) + b"x" * 200) for i in range(n * rows, (n + 1) * rows)], partition=0)
    print((n + 1) * rows, flush=True)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "topics"


@pytest.fixture
def log(root: Path) -> EmbeddedLog:
    made = EmbeddedLog(root)
    made.create("t", 1)
    return made


def writing(root: Path, name: str, rounds: int, rows: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(root), name, str(rounds), str(rows)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)


def values(log: EmbeddedLog, start: int = 0) -> list[bytes]:
    return [v for s in log.read("t", {0: start}, **ALL) for v in s.records.column("value").to_pylist()]


def names(log: EmbeddedLog, start: int = 0) -> list[str]:
    return [value.rstrip(b"x").decode() for value in values(log, start)]


def segments(root: Path) -> list[Path]:
    return sorted((root / "t" / "0").glob("*.log"))


def test_it_is_what_the_settings_mean_where_they_name_no_kafka(tmp_path: Path) -> None:
    with open_log(load_settings(home=tmp_path)) as opened:
        opened.create("t", 1)
        assert (opened.name, (tmp_path / "topics" / "t" / "0").is_dir()) == ("embedded", True)


def test_a_writer_that_is_killed_loses_nothing_it_was_told_of(log: EmbeddedLog, root: Path) -> None:
    chance = random.Random(5)
    expected: list[str] = []
    for number in range(6):
        writer = writing(root, f"w{number}", 100_000, 2_000)
        assert writer.stdout is not None
        told = int(writer.stdout.readline())
        time.sleep(chance.uniform(0, 0.15))
        writer.kill()
        # What it has told before it died may be in the pipe.
        told = max([told, *map(int, writer.stdout.read().split())])
        writer.wait()
        found = names(log, len(expected))
        assert len(found) >= told and len(found) % 2_000 == 0
        assert found == [f"w{number}-{n}" for n in range(len(found))]
        expected += found
    # From a log that has looked before, and from one that has not.
    assert names(log) == names(EmbeddedLog(root)) == expected


def test_what_a_writer_left_half_is_not_read_and_is_overwritten(log: EmbeddedLog, root: Path) -> None:
    log.append("t", [Message(b"a"), Message(b"b")])
    (path,) = segments(root)
    whole = path.read_bytes()
    log.append("t", [Message(b"torn")])
    both = path.read_bytes()
    for length in {len(whole) + 1, len(whole) + 20, len(whole) + 52, len(both) - 1}:
        path.write_bytes(both[:length])
        for reader in (log, EmbeddedLog(root)):
            assert reader.bounds("t") == {0: Bounds(0, 2)}
            assert values(reader) == [b"a", b"b"]
        EmbeddedLog(root).append("t", [Message(b"next")])
        assert values(log) == values(EmbeddedLog(root)) == [b"a", b"b", b"next"]
        path.write_bytes(whole)


def test_zeros_that_a_power_cut_left_are_overwritten(log: EmbeddedLog, root: Path) -> None:
    log.append("t", [Message(b"a")])
    (path,) = segments(root)
    with path.open("ab") as file:
        file.write(bytes(500))
    assert values(log) == [b"a"]
    EmbeddedLog(root).append("t", [Message(b"b")])
    assert values(EmbeddedLog(root)) == [b"a", b"b"]


def test_every_flipped_bit_is_found_and_named_with_its_offset(log: EmbeddedLog, root: Path) -> None:
    for part in range(3):
        log.append("t", [Message(b"%d-%d" % (part, n)) for n in range(4)])
    (path,) = segments(root)
    sound = path.read_bytes()
    second = sound.index(b"SLG1", 1)
    third = sound.index(b"SLG1", second + 1)
    chance = random.Random(7)
    header = range(second, second + frames._HEADER.size)
    for byte in [*header, *(chance.randrange(header.stop, third) for _ in range(40))]:
        flipped = bytearray(sound)
        flipped[byte] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        reader = EmbeddedLog(root)
        with pytest.raises(EventLogError, match=r"damaged.*(records from offset 4 to 8|where offset 4 is expected)"):
            reader.read("t", {0: 0}, **ALL)
        if byte in header:
            # Nobody may write behind it, and cut off what follows.
            with pytest.raises(EventLogError, match="damaged"):
                reader.append("t", [Message(b"x")])
            assert path.read_bytes() == bytes(flipped)
        else:
            assert len(EmbeddedLog(root).read("t", {0: 8}, **ALL)[0].records) == 4
    path.write_bytes(sound)
    assert len(values(log)) == 12


def test_a_segment_that_is_gone_is_told(log: EmbeddedLog, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "SEGMENT_BYTES", 1)
    for n in range(4):
        log.append("t", [Message(b"%d" % n)] * 5)
    segments(root)[2].unlink()
    for reader in (log, EmbeddedLog(root)):
        with pytest.raises(EventLogError, match=r"offset 10 to 15 \(exclusive\) are missing"):
            reader.read("t", {0: 0}, **ALL)
        with pytest.raises(EventLogError, match=r"offset 12 to 15"):
            reader.read("t", {0: 12}, **ALL)
        assert values(reader, 15) == [b"3"] * 5


def test_processes_that_append_at_once_lose_nothing_and_a_reader_sees_order(log: EmbeddedLog, root: Path) -> None:
    writers = [writing(root, name, 40, 50) for name in ("a", "b")]
    seen: list[str] = []
    while any(writer.poll() is None for writer in writers):
        seen += names(log, len(seen))
    seen += names(log, len(seen))
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == names(EmbeddedLog(root))
    for name in ("a", "b"):
        assert [s for s in seen if s.startswith(name)] == [f"{name}-{n}" for n in range(2_000)]


def test_what_is_let_go_of(log: EmbeddedLog, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "SEGMENT_BYTES", 1)
    for n in range(5):
        log.append("t", [Message(b"%d" % n)] * 10)
    reader = EmbeddedLog(root)
    assert len(values(reader)) == 50
    assert log.drop_before("t", 0, 9) == 0
    assert log.drop_before("t", 0, 25) == 2
    assert reader.bounds("t") == log.bounds("t") == {0: Bounds(20, 50)}
    with pytest.raises(OffsetLostError, match=r"offset 19 .* holds \[20, 50\)"):
        reader.read("t", {0: 19}, **ALL)
    assert values(reader, 20) == [b"2"] * 10 + [b"3"] * 10 + [b"4"] * 10
    # The newest segment stays, for it knows the next offset.
    assert log.drop_before("t", 0, 1_000) == 2
    assert log.bounds("t") == {0: Bounds(40, 50)}
    log.append("t", [Message(b"next")])
    assert values(log, 50) == [b"next"]


def test_a_topic_made_anew_is_another(log: EmbeddedLog, root: Path) -> None:
    log.append("t", [Message(b"old")] * 3)
    known = log.topic_id("t")
    assert len(values(log)) == 3
    shutil.rmtree(root / "t")
    log.create("t", 1)
    assert log.topic_id("t") != known
    with pytest.raises(OffsetLostError):
        log.read("t", {0: 3}, **ALL)
    log.append("t", [Message(b"new")])
    assert values(log) == [b"new"]


def test_a_full_disk_is_told_and_what_was_there_stays(log: EmbeddedLog, root: Path) -> None:
    log.append("t", [Message(b"a")])
    # The system's own bound on a file's size: the write that passes it fails midway.
    code = (
        "import resource, sys; from pathlib import Path; from sluice.eventlog import Message\n"
        "from sluice.eventlog.embedded import EmbeddedLog\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "import random; r = random.Random(1)\n"
        "log = EmbeddedLog(Path(sys.argv[1]))\n"
        "try: log.append('t', [Message(r.randbytes(300_000))])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "log.append('t', [Message(b'small')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("EventLogUnavailableError Cannot write to")
    assert values(log) == values(EmbeddedLog(root)) == [b"a", b"small"]


def test_folders_that_are_not_to_be_written(root: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(EventLogUnavailableError, match="Check SLUICE_HOME"):
        EmbeddedLog(blocked / "topics").create("t", 1)


def test_frames_and_segments_are_bounded(log: EmbeddedLog, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "FRAME_ROWS", 100)
    monkeypatch.setattr(embedded, "FRAME_BYTES", 2_000)
    monkeypatch.setattr(embedded, "SEGMENT_BYTES", 5_000)
    chance = random.Random(3)
    sent = [chance.randbytes(chance.choice([0, 1, 90, 3_000])) for _ in range(500)]
    log.append("t", [Message(value) for value in sent])
    assert len(segments(root)) > 20
    spans: list[tuple[int, int]] = []
    for path in segments(root):
        assert path.stat().st_size < 5_000 + 2 * 3_000
        with path.open("rb") as file:
            spans += [(f.start, f.end) for f in frames.frames(file)]
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert values(log) == sent
    assert values(log, 333) == sent[333:]


def test_one_by_one_costs_the_same_at_the_end_as_at_the_beginning(
    log: EmbeddedLog, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_HINT_BYTES", 1_000)
    looked: list[int] = []
    plain = frames.frames

    def counting(file: BinaryIO, position: int = 0, start: int | None = None) -> Iterator[frames.Frame]:
        for frame in plain(file, position, start):
            looked.append(frame.start)
            yield frame

    monkeypatch.setattr(embedded, "frames", counting)
    for n in range(200):
        log.append("t", [Message(b"%d" % n)])
        assert values(log, n) == [b"%d" % n]
    # Each when it is first seen, and again those since the last hint by who reads it; a frame is of 500 bytes or so.
    assert len(looked) < 200 * 6
    assert names(EmbeddedLog(root)) == [str(n) for n in range(200)]


def test_a_table_of_records_is_appended_whole(log: EmbeddedLog) -> None:
    log.append("t", [Message(b"%d" % n, b"k", n, (("h", b"v"),)) for n in range(5)])
    (read,) = log.read("t", {0: 0}, **ALL)
    log.create("copy", 1)
    assert log.append_records("copy", 0, read.records.slice(2)) == 0
    assert log.append_records("copy", 0, read.records) == 3
    (copied,) = log.read("copy", {0: 0}, **ALL)
    assert copied.records.column("timestamp_ms").to_pylist() == [2, 3, 4, 0, 1, 2, 3, 4]
    assert copied.records.column("offset").to_pylist() == list(range(8))
    with pytest.raises(EventLogError, match="no table of records"):
        log.append_records("copy", 0, pa.table({"value": [b"x"]}))
    with pytest.raises(EventLogError, match="has no partition 1"):
        log.append_records("copy", 1, read.records)
