"""Topics in a backup: what a restored home had not read yet is read on from where it was, each message once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sluice.backup import back_up, copying, restore, verify
from sluice.books import books
from sluice.contracts import Contract
from sluice.eventlog import Message, embedded
from sluice.eventlog.embedded import EmbeddedLog
from sluice.settings import load_settings
from sluice.streams import read_stream
from tests.conftest import Bench, MakeContract

TOPIC = "shop.things"


@pytest.fixture
def contract(make_contract: MakeContract) -> Contract:
    return make_contract({"id": {"required": True, "primaryKey": True}}, stream={"topic": TOPIC})


@pytest.fixture
def log(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> EmbeddedLog:
    """The home's log, each append a segment of its own."""
    monkeypatch.setattr(embedded, "SEGMENT_BYTES", 1)
    return EmbeddedLog(bench.settings.topics_path)


def send(log: EmbeddedLog, *ids: str, partition: int = 0) -> None:
    for each in ids:
        log.append(TOPIC, [Message(json.dumps({"id": each}).encode(), key=each.encode())], partition=partition)


def held(log: EmbeddedLog) -> dict[int, list[str]]:
    """The ids in each partition, in their order."""
    return {
        number: [json.loads(v)["id"] for t in log.tables(TOPIC, number) for v in t.column("value").to_pylist()]
        for number in log.bounds(TOPIC)
    }


def restored(backup: Path, home: Path) -> Bench:
    restore(backup, home, load_settings(home=home))
    return Bench(home)


def test_a_restored_home_reads_on_where_it_was(
    bench: Bench, log: EmbeddedLog, contract: Contract, tmp_path: Path
) -> None:
    log.create(TOPIC, 3)
    send(log, "a", "b")
    send(log, "c", partition=1)
    read_stream(bench.lake, contract, log)
    send(log, "d", "e", partition=1)
    done = back_up(bench.settings, tmp_path / "backup")
    assert verify(tmp_path / "backup") == done
    again = restored(tmp_path / "backup", tmp_path / "restored")
    topics = EmbeddedLog(again.settings.topics_path)
    # Partitions without records too: by their number keys are spread.
    assert held(topics) == {0: ["a", "b"], 1: ["c", "d", "e"], 2: []}
    assert topics.topic_id(TOPIC) == log.topic_id(TOPIC)
    send(topics, "f", partition=2)
    result = read_stream(again.lake, contract, topics)
    assert [(b.rows_read, b.rows_accepted) for b in result.batches] == [(2, 2), (1, 1)]
    assert [row[0] for row in again.sql("SELECT id FROM bronze.things ORDER BY ALL")] == list("abcdef")
    assert [(b.balanced, b.rows_read) for b in books(again.lake, ["things"])] == [(True, 6)]
    again.close()


def test_what_happens_to_a_topic_meanwhile_is_not_in_the_copy(
    bench: Bench, log: EmbeddedLog, contract: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.create(TOPIC, 1)
    send(log, "a", "b", "c")
    read_stream(bench.lake, contract, log)
    log.append(TOPIC, [Message(b'{"id": "%d"}' % n) for n in range(100)], partition=0)
    copy = copying._written

    def shorter(table: pa.Table) -> tuple[pa.Table, int]:
        values = pa.array([b'{"id": "x"}'] * table.num_rows, pa.binary())
        return table.set_column(table.schema.get_field_index("value"), "value", values), table.num_rows

    def appended_and_rewritten(file: Any, target: Path, most: int | None = None) -> tuple[int, str]:
        # Of the newest file, which is copied first.
        if target.name == f"{3:020d}.log":
            send(log, "later")
            log.rewrite(TOPIC, 0, shorter)
        return copy(file, target, most)

    monkeypatch.setattr(copying, "_written", appended_and_rewritten)
    back_up(bench.settings, tmp_path / "backup")
    again = restored(tmp_path / "backup", tmp_path / "restored")
    # Of each file what it was when it was opened, and none that came after: an erasure is run again after restoring.
    assert held(EmbeddedLog(again.settings.topics_path)) == {0: ["x", "x", "x", *map(str, range(100))]}
    again.close()


def test_records_that_are_let_go_of_meanwhile_leave_no_gap(
    bench: Bench, log: EmbeddedLog, contract: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.create(TOPIC, 1)
    send(log, *"abcde")
    read_stream(bench.lake, contract, log)
    copy = copying._written

    def let_go(file: Any, target: Path, most: int | None = None) -> tuple[int, str]:
        if target.name == f"{4:020d}.log":
            log.drop_before(TOPIC, 0, 2)
        return copy(file, target, most)

    monkeypatch.setattr(copying, "_written", let_go)
    back_up(bench.settings, tmp_path / "backup")
    again = restored(tmp_path / "backup", tmp_path / "restored")
    assert held(EmbeddedLog(again.settings.topics_path)) == {0: ["c", "d", "e"]}
    again.close()


def test_a_backup_taken_up_again_holds_the_topics_of_then(
    bench: Bench, log: EmbeddedLog, contract: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.create(TOPIC, 1)
    send(log, *"abc")
    read_stream(bench.lake, contract, log)
    copy = copying._written

    def stopped(file: Any, target: Path, most: int | None = None) -> tuple[int, str]:
        if target.name == f"{0:020d}.log":
            raise KeyboardInterrupt
        return copy(file, target, most)

    with monkeypatch.context() as patch:
        patch.setattr(copying, "_written", stopped)
        with pytest.raises(KeyboardInterrupt):
            back_up(bench.settings, tmp_path / "backup")
    log.drop_before(TOPIC, 0, 2)
    send(log, "d")
    done = back_up(bench.settings, tmp_path / "backup")
    assert verify(tmp_path / "backup") == done
    again = restored(tmp_path / "backup", tmp_path / "restored")
    assert held(EmbeddedLog(again.settings.topics_path)) == {0: ["c", "d"]}
    again.close()
