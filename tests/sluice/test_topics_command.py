"""`sluice topics`: what a person sees of the event log, and fills it with by hand."""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

import pytest

from sluice.cli import main
from sluice.eventlog import Message, embedded
from sluice.eventlog.embedded import EmbeddedLog
from sluice.lake import Lake
from sluice.settings import load_settings
from sluice.streams import read_stream
from tests.conftest import MakeContract
from tests.kafka import Broker


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))


@pytest.fixture
def log(tmp_path: Path) -> EmbeddedLog:
    return EmbeddedLog(tmp_path / "topics")


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        code = main(["topics", *arguments])
        printed = self._capsys.readouterr()
        return code, printed.out + printed.err


@pytest.fixture
def topics(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_made_filled_listed_and_shown(topics: Said, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    assert topics("list") == (0, "No topic yet in embedded.\n")
    assert topics("create", "orders", "--partitions", "2") == (0, "orders made, 2 partitions (embedded)\n")
    assert topics("create", "orders", "--partitions", "9") == (0, "orders is there already, 2 partitions (embedded)\n")
    give(monkeypatch, b'{"id": 7, "what": "a"}\n\n  {"id": 7,  "what": "\xc3\xa4"}\r\n{"id": 7}')
    assert topics("append", "orders", "--key", "id") == (0, "3 records appended to orders (embedded)\n")
    assert topics("list") == (0, "orders  2 partitions, 3 offsets\n")
    (place,) = (n for n, b in log.bounds("orders").items() if b.end)
    (read,) = log.read("orders", {place: 0}, max_rows=9, max_bytes=999)
    # The very bytes of each line.
    assert read.records.column("value").to_pylist() == [
        b'{"id": 7, "what": "a"}',
        '{"id": 7,  "what": "ä"}'.encode(),
        b'{"id": 7}',
    ]
    assert read.records.column("key").to_pylist() == [b"7"] * 3
    code, text = topics("show", "orders")
    assert (code, text.splitlines()) == (
        0,
        [
            f"partition 0: offsets 0 to {0 if place else 3} (exclusive)",
            f"partition 1: offsets 0 to {3 if place else 0} (exclusive)",
        ],
    )
    lines = topics("show", "orders", "--partition", str(place), "--offset", "1", "--limit", "1")[1].splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"{place}:1  20") and lines[1].endswith('UTC  7  {"id": 7,  "what": "ä"}')


def test_a_topic_has_the_partitions_of_the_contracts_that_read_it(
    topics: Said, make_contract: MakeContract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, topic, partitions in (("few", "shared", 2), ("many", "shared", 5), ("other", "apart", 7)):
        made = make_contract({"id": {}}, name=name, stream={"topic": topic, "partitions": partitions})
        shutil.copy(made.path, tmp_path / f"{name}.odcs.yaml")
    monkeypatch.setenv("SLUICE_CONTRACTS", str(tmp_path))
    assert topics("create", "shared") == (0, "shared made as the contract many says, 5 partitions (embedded)\n")
    assert topics("create", "shared") == (0, "shared is there already, 5 partitions (embedded)\n")
    assert topics("create", "apart", "--partitions", "1") == (0, "apart made, 1 partition (embedded)\n")
    assert topics("create", "unread")[1] == (
        "unread made with the default, for no contract reads it, 3 partitions (embedded)\n"
    )


def test_lines_that_are_no_objects_are_appended_and_told_of(
    topics: Said, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.create("t", 1)
    give(monkeypatch, b'[1]\n\xef\xbb\xbf{"a": 1}\n')
    assert topics("append", "t") == (
        0,
        "2 records appended to t (embedded)\n1 of them is no JSON object: a contract will set it aside\n",
    )
    give(monkeypatch, b'{"a": 1}\n')
    assert topics("append", "t") == (0, "1 record appended to t (embedded)\n")
    give(monkeypatch, b'1\n"a"\n')
    assert topics("append", "t")[1].endswith("2 of them are no JSON objects: a contract will set them aside\n")
    assert log.bounds("t")[0].end == 5


def test_what_a_record_holds_does_not_steer_the_terminal(topics: Said, log: EmbeddedLog) -> None:
    log.create("t", 1)
    log.append(
        "t",
        [
            Message(b"\x1b[31mred\r\n\x00", b"\xff\xfe", 1_700_000_000_123, (("h\x07", b"\x1b"), ("n", b""))),
            Message(None, None, -5),
            Message(b"x" * 5_000, b"", 2**62),
        ],
    )
    code, text = topics("show", "t", "--limit", "3")
    assert code == 0
    assert text.splitlines() == [
        "partition 0: offsets 0 to 3 (exclusive)",
        r"0:0  2023-11-14 22:13:20.123 UTC  \xff\xfe  \x1b[31mred\r\n\x00",
        r"    h\x07: \x1b",
        r"    n: ",
        "0:1  1969-12-31 23:59:59.995 UTC  (null)  (null)",
        f"0:2  {2**62} ms    {'x' * 1_999}…",
    ]


def test_records_shown_are_as_many_as_were_asked_for(topics: Said, log: EmbeddedLog) -> None:
    log.create("t", 3)
    for number in range(3):
        log.append("t", [Message(b"%d" % n) for n in range(10)], partition=number)
    for limit, offset in ((1, 0), (2, 0), (7, 4), (30, 9), (20, 10)):
        lines = topics("show", "t", "--offset", str(offset), "--limit", str(limit))[1].splitlines()[3:]
        assert len(lines) == min(limit, 3 * (10 - offset))
        assert len({line.split()[0] for line in lines}) == len(lines)


@pytest.mark.parametrize(
    ("data", "key", "told"),
    [
        (b'{"a": 1}\n{"a": \n', None, "Line 2 is no JSON"),
        (b'{"a": "\xff"}\n', None, "Line 1 is no JSON"),
        (b'{"a": 1}\n{"b": 1}\n', "a", "Line 2 has no field 'a'"),
        (b"[1]\n", "a", "Line 1 has no field 'a'"),
        (b'{"a": "\\ud800"}\n', "a", "Line 1: its 'a' is no text"),
        (b"[" * 100_000, None, "Line 1 is no JSON"),
    ],
)
def test_a_line_that_cannot_be_meant_appends_nothing(
    topics: Said, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch, data: bytes, key: str | None, told: str
) -> None:
    log.create("t", 1)
    give(monkeypatch, data)
    code, text = topics("append", "t", *(["--key", key] if key else []))
    assert code == 1
    assert told in text and "Nothing was appended" in text
    assert log.bounds("t")[0].end == 0


def test_keys_are_text_or_json_and_none_where_they_are_null(
    topics: Said, log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.create("t", 1)
    give(monkeypatch, '{"k": "ä b"}\n{"k": 1.50}\n{"k": null}\n{"k": [1, "ü"]}\n{"k": true}'.encode())
    assert topics("append", "t", "--key", "k")[0] == 0
    (read,) = log.read("t", {0: 0}, max_rows=9, max_bytes=999)
    assert read.records.column("key").to_pylist() == ["ä b".encode(), b"1.5", None, '[1,"ü"]'.encode(), b"true"]


@pytest.mark.parametrize("command", [("show", "absent"), ("append", "absent"), ("show", "t", "--partition", "4")])
def test_what_is_not_there_is_one_message(topics: Said, log: EmbeddedLog, command: tuple[str, ...]) -> None:
    log.create("t", 1)
    code, text = topics(*command)
    assert code == 1
    assert (text.startswith("sluice: ") and "no partition 4" in text) or "sluice topics create absent" in text
    with pytest.raises(SystemExit):
        topics("show", "t", "--offset", "-1")
    with pytest.raises(SystemExit):
        topics("create", "u", "--partitions", "0")


def test_the_same_on_kafka(topics: Said, kafka: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_KAFKA", kafka.brokers)
    assert topics("create", "command", "--partitions", "1") == (0, f"command made, 1 partition ({kafka.brokers})\n")
    give(monkeypatch, b'{"id": "x"}\n')
    assert topics("append", "command", "--key", "id")[0] == 0
    assert "command  1 partition, 1 offset\n" in topics("list")[1]
    assert topics("show", "command", "--offset", "0")[1].rstrip().endswith('x  {"id": "x"}')
    monkeypatch.setenv("SLUICE_KAFKA", "nonsense")
    assert topics("list")[0] == 1


def test_old_records_go_once_they_are_read(
    topics: Said,
    log: EmbeddedLog,
    tmp_path: Path,
    make_contract: MakeContract,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedded, "SEGMENT_BYTES", 1)
    contract = make_contract({"id": {}}, stream={"topic": "things"})
    monkeypatch.setenv("SLUICE_CONTRACTS", str(contract.path.parent))
    log.create("things", 2)
    day = 24 * 60 * 60 * 1000
    for number in range(4):
        log.append(
            "things", [Message(b'{"id": "%d"}' % number, timestamp_ms=1_767_225_600_000 + number * day)], partition=0
        )
    # Nobody has read anything yet.
    assert topics("trim", "things", "--before", "2026-01-03") == (
        0,
        "partition 0: let go of 0 files, offsets 0 to 4 (exclusive) are left; "
        "older ones stay that things has yet to read\n"
        "partition 1: let go of 0 files, offsets 0 to 0 (exclusive) are left\n",
    )
    lake = Lake(load_settings(home=tmp_path))
    read_stream(lake, contract, log, most_rows=1)
    assert topics("trim", "things", "--before", "2026-01-03")[1].startswith(
        "partition 0: let go of 1 file, offsets 1 to 4 (exclusive) are left; older ones stay"
    )
    read_stream(lake, contract, log)
    assert topics("trim", "things", "--before", "2026-01-03")[1].startswith(
        "partition 0: let go of 1 file, offsets 2 to 4 (exclusive) are left\n"
    )
    # The newest stays, whatever its time.
    assert topics("trim", "things", "--before", "2027-01-01")[1].startswith(
        "partition 0: let go of 1 file, offsets 3 to 4 (exclusive) are left\n"
    )
    assert topics("trim", "things", "--before", "2027-01-01")[1].startswith(
        "partition 0: let go of 0 files, offsets 3 to 4 (exclusive) are left; only whole files go that hold nothing "
        "newer: files are of 0 MB, and the newest stays\n"
    )
    log.append("things", [Message(b'{"id": "9"}')], partition=0)
    read_stream(lake, contract, log)
    with lake.reading() as con:
        assert con.execute("SELECT id FROM bronze.things ORDER BY ALL").fetchall() == [(c,) for c in "01239"]
    code, said = topics("trim", "elsewhere", "--before", "2026-01-03")
    assert code == 1 and "elsewhere" in said


def test_a_kafka_lets_go_by_itself(topics: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_KAFKA", "localhost:1")
    code, said = topics("trim", "things", "--before", "2026-01-03")
    assert code == 1 and "retention.ms" in said
