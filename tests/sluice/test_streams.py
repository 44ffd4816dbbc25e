"""Messages of a topic into bronze: each exactly once, whoever reads at the same time and whenever a reader dies."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from sluice.books import books, warnings
from sluice.contracts import Contract
from sluice.dead_letters import Choice
from sluice.errors import ContractError, EventLogError, OffsetLostError, StreamHeldError
from sluice.eventlog import EventLog, Message, open_log
from sluice.rebuild import rebuild
from sluice.replay import replay
from sluice.settings import PROJECT
from sluice.stream_positions import broken_ranges, lag, seek, source_watermark
from sluice.streams import StreamResult, read_stream, read_until
from tests.conftest import Bench, MakeContract

TOPIC = "shop.things"
COLUMNS: dict[str, dict[str, Any]] = {
    "id": {"required": True, "primaryKey": True},
    "n": {"physicalType": "INTEGER"},
    "at": {"physicalType": "TIMESTAMP"},
}
# 2026-01-01 00:00 UTC, in milliseconds.
MIDNIGHT = 1_767_225_600_000


class Things:
    """A topic, the source that reads it, and short ways to fill and read both."""

    def __init__(self, bench: Bench, contract: Contract, partitions: int = 1) -> None:
        self.bench, self.contract = bench, contract
        self.log: EventLog = open_log(bench.settings)
        self.log.create(TOPIC, partitions)

    def send(self, *values: Any, key: str | None = None, minute: int = 0, partition: int | None = None) -> None:
        """Append values: bytes as they are, None as a tombstone, anything else as JSON."""
        messages = [
            Message(
                value if value is None or isinstance(value, bytes) else json.dumps(value).encode(),
                key=None if key is None else key.encode(),
                timestamp_ms=MIDNIGHT + minute * 60_000,
                headers=(("trace", b"1"),),
            )
            for value in values
        ]
        self.log.append(TOPIC, messages, partition=partition)

    def read(self, **options: Any) -> StreamResult:
        """Read what waits, in one transaction."""
        return read_stream(self.bench.lake, self.contract, self.log, **options)

    def ids(self) -> list[str]:
        """Of the rows in bronze, sorted."""
        return [row[0] for row in self.bench.sql("SELECT id FROM bronze.things ORDER BY ALL")]

    def positions(self) -> list[tuple[Any, ...]]:
        return self.bench.sql(
            "SELECT partition, start_offset, stop_offset, records FROM ops.stream_positions ORDER BY ALL"
        )

    def check(self) -> None:
        """The books balance, no offset is skipped or taken twice, and each row stands once."""
        assert [b.balanced for b in books(self.bench.lake, ["things"])] == [True]
        with self.bench.lake.reading() as con:
            assert broken_ranges(con, self.contract) == []
        assert self.bench.sql("SELECT _file, _line FROM bronze.things GROUP BY ALL HAVING count(*) > 1") == []


@pytest.fixture
def make_things(bench: Bench, make_contract: MakeContract) -> Callable[..., Things]:
    def make(partitions: int = 1, *, columns: dict[str, Any] = COLUMNS, **options: Any) -> Things:
        stream = {"topic": TOPIC} | options.pop("stream", {})
        return Things(bench, make_contract(columns, stream=stream, **options), partitions)

    return make


def test_messages_are_rows_with_their_place_key_time_and_headers(make_things: Callable[..., Things]) -> None:
    things = make_things()
    things.send({"id": "a", "n": 1}, key="k", minute=90)
    things.send({"id": "b", "n": 2}, minute=24 * 60)
    result = things.read(run_id="run-1")
    assert [(b.partition_key, b.rows_read, b.rows_accepted) for b in result.batches] == [
        (f"stream:shop.things/0@{0:020d}", 2, 2)
    ]
    headers = '[{"name":"trace","value":"1"}]'
    assert things.bench.sql(
        "SELECT date, id, n, _partition_key, _file, _line, _message_key, _message_ts, _headers FROM bronze.things "
        "ORDER BY _line"
    ) == [
        (
            datetime(2026, 1, 1).date(),
            "a",
            1,
            f"stream:shop.things/0@{0:020d}",
            "stream:shop.things/0",
            0,
            "k",
            datetime(2026, 1, 1, 1, 30),
            headers,
        ),
        (
            datetime(2026, 1, 2).date(),
            "b",
            2,
            f"stream:shop.things/0@{0:020d}",
            "stream:shop.things/0",
            1,
            None,
            datetime(2026, 1, 2),
            headers,
        ),
    ]
    assert things.positions() == [(0, 0, 2, 2)]
    assert things.bench.sql("SELECT run_id, contract_version FROM ops.ledger") == [("run-1", "1.0.0")]
    assert things.read().batches == ()
    things.check()


def test_what_is_no_record_is_set_aside_with_its_place_and_the_stream_goes_on(
    make_things: Callable[..., Things],
) -> None:
    things = make_things()
    things.send({"id": "a"}, b"\xff\xfe", b"{", None, b"x\x00y", {"n": 1}, {"id": "b", "n": "x"}, [1], b"", key="k")
    things.send({"id": "c"})
    result = things.read()
    assert (result.total("rows_read"), result.total("rows_accepted"), result.total("rows_dead_lettered")) == (10, 2, 8)
    assert things.bench.letters("things") == [
        ("stream:shop.things/0", 1, 1, ["encoding"]),
        ("stream:shop.things/0", 2, 1, ["malformed"]),
        ("stream:shop.things/0", 3, 1, ["tombstone"]),
        ("stream:shop.things/0", 4, 1, ["encoding"]),
        ("stream:shop.things/0", 5, 1, ["required"]),
        ("stream:shop.things/0", 6, 1, ["type"]),
        ("stream:shop.things/0", 7, 1, ["malformed"]),
        ("stream:shop.things/0", 8, 1, ["malformed"]),
    ]
    assert things.bench.sql(
        "SELECT line, raw, raw_encoding, message_key, headers IS NOT NULL, message_ts FROM ops.dead_letters "
        "WHERE line IN (1, 3, 6) ORDER BY line"
    ) == [
        (1, "//4=", "base64", "k", True, datetime(2026, 1, 1)),
        (3, None, None, "k", True, datetime(2026, 1, 1)),
        (6, '{"id": "b", "n": "x"}', "utf-8", "k", True, datetime(2026, 1, 1)),
    ]
    assert things.ids() == ["a", "c"]
    things.check()


def test_a_message_delivered_twice_is_an_exact_duplicate_in_a_batch(make_things: Callable[..., Things]) -> None:
    things = make_things()
    things.send({"id": "a"}, {"id": "a"}, {"id": "b"})
    assert things.read().total("rows_duplicate") == 1
    assert things.ids() == ["a", "b"]
    things.check()


def test_a_letter_is_mended_and_joins_its_batch(make_things: Callable[..., Things]) -> None:
    things = make_things()
    things.send({"id": "a", "n": "12,5"}, key="k", minute=5)
    things.read()
    [(letter,)] = things.bench.sql("SELECT dead_letter_id FROM ops.dead_letters")
    done = replay(things.bench.lake, things.contract, Choice(), corrections={letter: '{"id": "a", "n": 12}'}, by="me")
    assert (done.accepted, done.failed) == (1, 0)
    things.bench.close()
    assert things.bench.sql("SELECT id, n, date::VARCHAR, _file, _line, _message_key FROM bronze.things") == [
        ("a", 12, "2026-01-01", "stream:shop.things/0", 0, "k")
    ]
    things.check()


def test_a_tombstone_cannot_be_replayed_but_discarded(make_things: Callable[..., Things]) -> None:
    things = make_things()
    things.send(None, key="k")
    things.read()
    assert replay(things.bench.lake, things.contract, Choice()).undecodable == 1
    assert things.bench.letters("things") == [("stream:shop.things/0", 0, 1, ["tombstone"])]


FEED = {"envelope": "debezium", "sequence": "source.lsn", "validFrom": "source.ts_ms"}


def change(op: str, key: str, lsn: int) -> dict[str, Any]:
    """A change event as Debezium writes it."""
    state = {"id": key, "n": lsn, "at": None}
    return {
        "op": op,
        "before": state if op == "d" else None,
        "after": None if op == "d" else state,
        "source": {"lsn": lsn, "ts_ms": MIDNIGHT + lsn},
    }


def test_the_tombstone_of_a_delete_says_it_again(make_things: Callable[..., Things]) -> None:
    things = make_things(feed=FEED, formats=("jsonl",))
    things.send(change("c", "1", 10), change("d", "1", 11), None, change("d", "2", 12), key="1")
    first = things.read()
    assert (first.total("rows_accepted"), first.total("rows_duplicate")) == (3, 1)
    # Its delete was read by the batch before; the next has none before it.
    things.send(None, None, key="2")
    then = things.read()
    assert (then.total("rows_duplicate"), then.total("rows_dead_lettered")) == (1, 1)
    assert things.bench.letters("things") == [("stream:shop.things/0", 5, 1, ["tombstone"])]
    things.check()


def test_a_batch_of_mostly_bad_rows_holds_the_stream_and_force_lets_it_go_on(
    make_things: Callable[..., Things],
) -> None:
    things = make_things(share=0.05)
    things.send(*({"id": str(i)} for i in range(2000)))
    things.read()
    things.send(*({"id": str(i), "n": "x"} for i in range(2000, 2200)), {"id": "good"})
    with pytest.raises(StreamHeldError, match=r"things stands still before shop\.things/0@0+2000: 200 of 201 rows"):
        things.read()
    assert things.positions() == [(0, 0, 2000, 2000)]
    assert things.bench.letters("things") == []
    result = things.read(force=True)
    assert (result.total("rows_accepted"), result.total("rows_dead_lettered")) == (1, 200)
    assert "good" in things.ids()
    things.check()


def test_a_few_bad_rows_of_a_small_batch_hold_nothing(make_things: Callable[..., Things]) -> None:
    things = make_things(share=0.05)
    things.send({"id": "a"}, {"id": "b", "n": "x"})
    assert things.read().total("rows_dead_lettered") == 1
    # Nor does a batch in order pay for one that was let go on.
    things.send(*({"id": f"x{i}", "n": "x"} for i in range(1500)))
    things.read(force=True)
    things.send({"id": "c"})
    assert things.read().total("rows_accepted") == 1


def test_a_frozen_contract_holds_a_stream_with_new_columns(make_things: Callable[..., Things]) -> None:
    things = make_things(evolution="freeze")
    things.send({"id": "a", "colour": "red"}, {"id": "b"})
    with pytest.raises(StreamHeldError, match="colour"):
        things.read()
    result = things.read(force=True)
    assert things.ids() == ["b"]
    assert result.total("rows_dead_lettered") == 1
    things.check()


def test_new_columns_come_into_bronze(make_things: Callable[..., Things]) -> None:
    things = make_things()
    things.send({"id": "a"}, {"id": "b", "Colour": "red"})
    assert [d.column for d in things.read().drift] == ["Colour"]
    assert things.bench.sql("SELECT id, colour FROM bronze.things ORDER BY id") == [("a", None), ("b", "red")]


def test_late_events_are_taken_and_told_of(make_things: Callable[..., Things]) -> None:
    things = make_things(stream={"eventTime": "at", "allowedLateness": "30min"})
    things.send({"id": "a", "at": "2026-01-01 12:00:00"}, minute=720)
    assert things.read().watermark is None
    things.send(
        {"id": "b", "at": "2026-01-01 11:29:59"}, {"id": "c", "at": "2026-01-01 11:30:00"}, {"id": "d"}, minute=721
    )
    result = things.read()
    assert (result.late, result.watermark) == (1, datetime(2026, 1, 1, 11, 30))
    assert things.ids() == ["a", "b", "c", "d"]
    [told] = warnings(things.bench.lake, "things")
    assert (told.rule, told.column, told.rows, told.sample) == ("late", "at", 1, "stream:shop.things/0, offset 1")


def test_late_events_can_be_set_aside_and_come_in_by_replay(make_things: Callable[..., Things]) -> None:
    things = make_things(stream={"eventTime": "at", "allowedLateness": "30min", "late": "quarantine"})
    things.send({"id": "a", "at": "2026-01-01 12:00:00"}, minute=720)
    things.read()
    things.send({"id": "b", "at": "2026-01-01 09:00:00"}, minute=721)
    result = things.read()
    assert (result.late, result.total("rows_dead_lettered")) == (1, 1)
    assert things.bench.letters("things") == [("stream:shop.things/0", 1, 1, ["late"])]
    assert replay(things.bench.lake, things.contract, Choice()).accepted == 1
    things.bench.close()
    assert things.ids() == ["a", "b"]
    things.check()


def test_a_clock_that_runs_ahead_makes_nobody_late(make_things: Callable[..., Things]) -> None:
    things = make_things(stream={"eventTime": "at", "late": "quarantine"})
    things.send({"id": "a", "at": "2099-01-01 00:00:00"}, minute=10)
    things.read()
    things.send({"id": "b", "at": "2026-01-01 00:11:00"}, minute=11)
    assert things.read().late == 0
    with things.bench.lake.reading() as con:
        assert source_watermark(con, things.contract) == datetime(2026, 1, 1, 0, 10)


def test_a_partition_that_is_read_later_is_not_late(make_things: Callable[..., Things]) -> None:
    things = make_things(2, stream={"eventTime": "at", "late": "quarantine"})
    things.send({"id": "a", "at": "2026-01-01 12:00:00"}, minute=720, partition=0)
    things.send({"id": "b", "at": "2026-01-01 09:00:00"}, {"id": "c", "at": "2026-01-01 09:01:00"}, partition=1)
    # A row at a time: partition 1 has something waiting for long.
    while things.read(most_rows=1).batches:
        pass
    assert things.ids() == ["a", "b", "c"]
    assert things.bench.letters("things") == []


def test_unread_messages_that_are_gone_are_told_of(make_things: Callable[..., Things], monkeypatch: Any) -> None:
    from sluice.eventlog import embedded

    monkeypatch.setattr(embedded, "SEGMENT_BYTES", 1)
    things = make_things()
    things.send({"id": "a"})
    things.read()
    for name in ("b", "c"):
        things.send({"id": name})
    things.log.drop_before(TOPIC, 0, 2)  # type: ignore[attr-defined]
    with pytest.raises(OffsetLostError, match=r"1 offsets of shop\.things partition 0, from 1 on, are gone"):
        things.read()
    [waiting] = seek(things.bench.lake, things.contract, things.log, "unread")
    assert (waiting.next_offset, waiting.end) == (2, 3)
    things.read()
    assert things.ids() == ["a", "c"]
    things.check()


def test_a_topic_made_anew_is_told_of_and_read_after_a_seek(make_things: Callable[..., Things]) -> None:
    things = make_things()
    things.send({"id": "a"}, {"id": "b"})
    things.read()
    shutil.rmtree(things.bench.settings.topics_path / TOPIC)
    things.log.create(TOPIC, 1)
    things.send({"id": "c"})
    with pytest.raises(OffsetLostError, match="the topic was made anew"):
        things.read()
    seek(things.bench.lake, things.contract, things.log, "unread")
    [batch] = things.read().batches
    assert batch.partition_key == f"stream:shop.things/0~1@{0:020d}"
    assert things.ids() == ["a", "b", "c"]
    things.check()


def test_seeking_a_time_reads_from_there_on(make_things: Callable[..., Things]) -> None:
    things = make_things()
    things.send({"id": "a"}, minute=1)
    things.send({"id": "b"}, minute=2)
    seek(things.bench.lake, things.contract, things.log, datetime(2026, 1, 1, 0, 2, tzinfo=UTC), force=True)
    things.read()
    assert things.ids() == ["b"]
    seek(things.bench.lake, things.contract, things.log, "latest")
    things.send({"id": "c"}, minute=3)
    things.read()
    assert things.ids() == ["b", "c"]


def test_a_seek_neither_doubles_nor_passes_over_messages_unless_it_is_told_to(
    make_things: Callable[..., Things],
) -> None:
    things = make_things(2)
    things.send({"id": "a"}, {"id": "b"}, {"id": "c"}, partition=0)
    things.send({"id": "d"}, partition=1)
    things.read()
    things.send({"id": "e"}, {"id": "f"}, partition=1)
    before = things.positions()
    for place, words in (
        ("earliest", "4 offsets would be read a second time; nothing was moved"),
        ("latest", "2 that wait would be passed over; nothing was moved"),
        (datetime(2025, 1, 1), "4 offsets would be read a second time; nothing was moved"),
    ):
        with pytest.raises(EventLogError, match=words):
            seek(things.bench.lake, things.contract, things.log, place)
    assert things.positions() == before
    # Who has passed over what waited, and thinks better of it.
    assert [w.records for w in seek(things.bench.lake, things.contract, things.log, "latest", force=True)] == [0, 0]
    assert [w.records for w in seek(things.bench.lake, things.contract, things.log, "unread")] == [0, 2]
    things.read()
    assert things.ids() == list("abcdef")
    things.check()


def test_who_comes_back_to_a_topic_reads_on_behind_what_was_read_of_it(make_things: Callable[..., Things]) -> None:
    things = make_things()
    home = things.bench.settings.topics_path
    things.send({"id": "a"}, {"id": "b"})
    things.read()
    # Another event log with a topic of that name, as when SLUICE_KAFKA is set for a while.
    (home / TOPIC).rename(home.parent / "first")
    things.log.create(TOPIC, 1)
    things.send({"id": "x"})
    with pytest.raises(OffsetLostError, match="SLUICE_KAFKA names another event log"):
        things.read()
    with pytest.raises(EventLogError, match="is not the one that things was read from"):
        rebuild(things.bench.lake, things.contract, things.log, datetime(2025, 1, 1))
    seek(things.bench.lake, things.contract, things.log, "unread")
    things.read()
    things.log.close()
    shutil.rmtree(home / TOPIC)
    (home.parent / "first").rename(home / TOPIC)
    things.send({"id": "c"})
    with pytest.raises(OffsetLostError, match="--to unread"):
        things.read()
    with pytest.raises(EventLogError, match="2 offsets would be read a second time"):
        seek(things.bench.lake, things.contract, things.log, "earliest")
    seek(things.bench.lake, things.contract, things.log, "unread")
    things.read()
    assert things.ids() == ["a", "b", "c", "x"]
    things.check()


def test_a_topic_made_anew_with_fewer_partitions_is_another_and_nobody_is_late_for_the_former(
    make_things: Callable[..., Things],
) -> None:
    things = make_things(2, stream={"eventTime": "at", "allowedLateness": "1h", "late": "quarantine"})
    for hour in ("10", "12"):
        things.send({"id": hour, "at": f"2026-01-01 {hour}:00:00"}, partition=1, minute=24 * 60)
        things.read()
    shutil.rmtree(things.bench.settings.topics_path / TOPIC)
    things.log.create(TOPIC, 1)
    things.send({"id": "old", "at": "2025-12-31 10:00:00"}, minute=24 * 60)
    with pytest.raises(OffsetLostError, match="the topic was made anew"):
        things.read()
    seek(things.bench.lake, things.contract, things.log, "unread")
    assert things.read().total("rows_accepted") == 1
    assert things.ids() == ["10", "12", "old"]
    things.check()


@pytest.mark.parametrize("moment", ["0001-01-01 00:00:00", "0044-03-15 (BC) 00:00:00", "1000-01-01 00:00:00"])
def test_an_event_of_long_ago_stops_nobody(make_things: Callable[..., Things], moment: str) -> None:
    things = make_things(stream={"eventTime": "at", "allowedLateness": "1h"})
    things.send({"id": "a", "at": moment}, minute=60)
    things.read()
    things.send({"id": "b", "at": "2026-01-01 00:30:00"}, minute=60)
    things.read()
    things.send({"id": "c", "at": "2026-01-01 00:10:00"}, minute=60)
    # No later than the allowance: what is of long ago is not how far time has come.
    assert things.read().late == 0
    assert set(things.ids()) >= {"b", "c"}
    things.check()


def test_a_source_without_a_stream_says_so(bench: Bench, make_contract: MakeContract) -> None:
    with pytest.raises(ContractError, match=r"has no stream\. Give it the customProperty stream"):
        read_stream(bench.lake, make_contract(COLUMNS), open_log(bench.settings))


def test_files_and_messages_share_a_table(make_things: Callable[..., Things]) -> None:
    things = make_things(formats=("jsonl",))
    things.bench.put("things/date=2026-01-01/a.jsonl", '{"id": "f"}\n')
    things.send({"id": "m"})
    things.bench.ingest(things.contract)
    things.read()
    things.bench.ingest(things.contract, force=True)
    assert things.bench.sql("SELECT id, _file, _message_ts IS NULL FROM bronze.things ORDER BY id") == [
        ("f", "things/date=2026-01-01/a.jsonl", True),
        ("m", "stream:shop.things/0", False),
    ]
    things.check()


def _race(things: Things, readers: int) -> None:
    """Some threads read the topic to its end at once, each by itself."""

    def run() -> None:
        for _ in read_until(things.bench.lake, things.contract, things.log):
            pass

    threads = [threading.Thread(target=run) for _ in range(readers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_several_readers_at_once_read_each_message_once(make_things: Callable[..., Things], monkeypatch: Any) -> None:
    monkeypatch.setattr("sluice.streams.MOST_ROWS", 40)
    things = make_things(3)
    for n in range(300):
        things.log.append(TOPIC, [Message(json.dumps({"id": f"{n:03}"}).encode(), key=b"%d" % n)])
    _race(things, 3)
    assert things.ids() == [f"{n:03}" for n in range(300)]
    things.check()


READER = """
import sys
from sluice.contracts import load_contract
from sluice.eventlog import open_log
from sluice.lake import Lake
from sluice.settings import load_settings
from sluice import streams
from pathlib import Path
streams.MOST_ROWS = 50
settings = load_settings(home=Path(sys.argv[1]), threads=1)
for result in streams.read_until(Lake(settings), load_contract(Path(sys.argv[2])), open_log(settings), seconds=60):
    print(result.batches[0].partition_key, flush=True)
"""


def test_a_killed_reader_leaves_no_gap_and_nothing_twice(make_things: Callable[..., Things]) -> None:
    things = make_things(2)
    seed = int(os.environ.get("STREAM_SEED", random.randrange(10**6)))
    chance = random.Random(seed)
    sent = 0
    for _ in range(4):
        new = [{"id": f"{sent + n:05}"} for n in range(chance.randrange(200, 600))]
        sent += len(new)
        things.log.append(TOPIC, [Message(json.dumps(v).encode(), key=v["id"].encode()) for v in new])
        reader = subprocess.Popen(
            [sys.executable, "-c", READER, str(things.bench.settings.home), str(things.contract.path)],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
        )
        assert reader.stdout is not None
        # It has begun to write; then it dies at some moment of what follows.
        reader.stdout.readline()
        time.sleep(chance.random() * 0.4)
        reader.send_signal(signal.SIGKILL)
        reader.wait()
        reader.stdout.close()
        things.bench.close()
        things.check()
    for _ in read_until(things.bench.lake, things.contract, things.log):
        pass
    things.bench.close()
    assert things.ids() == [f"{n:05}" for n in range(sent)], f"STREAM_SEED={seed}"
    things.check()


def test_reading_goes_on_for_as_long_as_it_is_asked_to(make_things: Callable[..., Things]) -> None:
    things = make_things()
    things.send({"id": "a"})
    seen: list[int] = []
    for result in read_until(things.bench.lake, things.contract, things.log, seconds=30, stop=lambda: sum(seen) >= 2):
        seen.append(result.total("rows_accepted"))
        if len(seen) == 1:
            things.send({"id": "b"})
    assert seen == [1, 1]


def test_a_run_is_bounded(make_things: Callable[..., Things], monkeypatch: Any) -> None:
    monkeypatch.setattr("sluice.streams.MOST_ROWS", 10)
    things = make_things()
    things.send(*({"id": str(n)} for n in range(55)))
    assert len(list(read_until(things.bench.lake, things.contract, things.log, most_batches=3))) == 3
    with things.bench.lake.reading() as con:
        assert [(w.next_offset, w.records) for w in lag(con, things.contract, things.log)] == [(30, 25)]
