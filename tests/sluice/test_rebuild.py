"""Rows of a topic made again from the log: the same where nothing changed, today's where something did, at once."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sluice import rebuild as module
from sluice.books import books
from sluice.commands.replay import told
from sluice.contracts import Contract
from sluice.dead_letters import Choice, discard
from sluice.errors import RebuildHeldError, StreamHeldError
from sluice.rebuild import rebuild
from sluice.replay import replay
from sluice.shadows import sweep, turn_of
from sluice.stream_positions import broken_ranges, seek
from sluice.swap import Rebuilt
from sluice.verification import set_aside, verify
from tests.conftest import Bench, MakeContract
from tests.sluice.test_streams import COLUMNS, TOPIC, Things

MIDNIGHT = datetime(2026, 1, 1)


@pytest.fixture
def things(bench: Bench, make_contract: MakeContract) -> Things:
    """A topic of two partitions with a dozen messages, two of them bad, read in several batches."""
    made = Things(bench, make_contract(COLUMNS, stream={"topic": TOPIC}), 2)
    for n in range(12):
        bad = {"n": "x"} if n in (4, 9) else {"n": n}
        made.send({"id": f"{n:02}", **bad}, minute=n, partition=n % 2)
        if n % 3 == 2:
            made.read()
    return made


def again(things: Things, contract: Contract | None = None, since: datetime = MIDNIGHT, **options: Any) -> Rebuilt:
    done = rebuild(things.bench.lake, contract or things.contract, things.log, since, **options)
    things.bench.close()
    return done


def rows(things: Things) -> list[tuple[Any, ...]]:
    return things.bench.sql("SELECT id, n, _file, _line, _message_ts FROM bronze.things ORDER BY id")


def left(things: Things) -> list[str]:
    """What of a shadow is still there: its table, and ops tables with rows of it."""
    tables = things.bench.sql(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' AND table_name LIKE '%rebuilt%'"
    )
    found = [name for (name,) in tables]
    for name in ("ledger", "dead_letters", "warnings", "stream_positions", "schema_drift", "turns"):
        if things.bench.sql(f"SELECT 1 FROM ops.{name} WHERE source LIKE '%rebuilt%'"):
            found.append(name)
    return found


def test_made_again_is_the_same(things: Things) -> None:
    before, letters = rows(things), things.bench.letters("things")
    done = again(things)
    assert (done.before, done.after, done.gone, done.new, done.changed, done.dead_letters) == (10, 10, 0, 0, 0, 2)
    assert done.swapped
    assert rows(things) == before
    assert things.bench.letters("things") == letters
    assert left(things) == []
    things.check()
    # And reading goes on where it was.
    things.send({"id": "12"}, minute=12)
    things.read()
    assert [row[0] for row in rows(things)][-1] == "12"
    things.check()


def test_a_mended_contract_takes_in_what_was_set_aside(things: Things, make_contract: MakeContract) -> None:
    text = {**COLUMNS, "n": {"physicalType": "VARCHAR"}}
    with pytest.raises(Exception, match="n is VARCHAR in the contract but INTEGER"):
        again(things, make_contract(text, stream={"topic": TOPIC}))
    looser = {**COLUMNS, "m": {"physicalType": "VARCHAR", "physicalName": "n"}}
    del looser["n"]
    contract = make_contract(looser, stream={"topic": TOPIC}, version="2.0.0")
    done = again(things, contract)
    assert (done.before, done.after, done.new, done.changed, done.dead_letters) == (10, 12, 2, 10, 0)
    assert things.bench.sql("SELECT id, m FROM bronze.things WHERE id IN ('03', '04', '09') ORDER BY id") == [
        ("03", "3"),
        ("04", "x"),
        ("09", "x"),
    ]
    assert things.bench.letters("things") == []
    assert len(things.bench.letters("things", "superseded")) == 2
    assert things.bench.sql("SELECT DISTINCT contract_version FROM ops.ledger WHERE superseded_by IS NULL") == [
        ("2.0.0",)
    ]
    things.check()


def test_rows_of_a_lost_data_file_are_made_again(things: Things) -> None:
    before = rows(things)
    data = Path(things.bench.settings.lake_data_path)
    files = sorted(data.rglob("bronze/things/**/*.parquet"), key=lambda path: path.name)
    # The second batch's: messages of minutes 3 to 5.
    files[1].unlink()
    done = set_aside(things.bench.lake, verify(things.bench.lake))
    assert len(done.files) == 1 and len(rows(things)) < len(before)
    assert (done.partitions, list(done.topics)) == ({}, [TOPIC])
    assert datetime(2026, 1, 1, 0, 3) <= done.topics[TOPIC] <= datetime(2026, 1, 1, 0, 5)
    things.bench.close()
    assert again(things, since=done.topics[TOPIC]).new == done.files[0].rows
    assert rows(things) == before
    things.check()


def test_comparing_changes_nothing(things: Things, make_contract: MakeContract) -> None:
    before = rows(things)
    ledger = things.bench.ledger("things")
    stricter = {**COLUMNS, "id": {**COLUMNS["id"], "logicalTypeOptions": {"pattern": "^0"}}}
    done = again(things, make_contract(stricter, stream={"topic": TOPIC}, version="2.0.0"), compare_only=True)
    assert (done.before, done.after, done.gone, done.dead_letters, done.swapped) == (10, 8, 2, 4, False)
    assert rows(things) == before
    assert things.bench.ledger("things") == ledger
    assert left(things) == []


def test_only_what_came_since_is_made_again(things: Things) -> None:
    done = again(things, since=datetime(2026, 1, 1, 0, 10))
    # The batches that hold the first messages since then, whole.
    assert [(r.partition, r.start, r.stop) for r in done.ranges] == [(0, 5, 6), (1, 4, 6)]
    assert done.before == 2
    things.check()
    assert again(things, since=datetime(2027, 1, 1)).ranges == ()


def test_decisions_about_letters_hold(things: Things) -> None:
    ids = dict(things.bench.sql("SELECT line, dead_letter_id FROM ops.dead_letters"))
    lines = sorted(ids)
    replay(things.bench.lake, things.contract, Choice(), corrections={ids[lines[0]]: '{"id": "04", "n": 4}'}, by="me")
    discard(things.bench.lake, Choice(ids=(ids[lines[1]],)), by="me", why="a test")
    things.bench.close()
    before = rows(things)
    assert [row[0] for row in before] == [f"{n:02}" for n in range(12) if n != 9]
    again(things)
    assert rows(things) == before
    assert things.bench.letters("things") == []
    assert [letter[1] for letter in things.bench.letters("things", "discarded")] == [lines[1]]
    things.check()


def test_a_letter_that_fails_again_has_failed_once_more(things: Things, make_contract: MakeContract) -> None:
    failed = "SELECT DISTINCT attempts, same_failures FROM ops.dead_letters WHERE status = 'open'"
    for times in (2, 3):
        again(things)
        assert things.bench.sql(failed) == [(times, times)]
    assert replay(things.bench.lake, things.contract, Choice()).poison == 2
    things.bench.close()
    # For another reason it begins anew.
    stricter = {**COLUMNS, "id": {**COLUMNS["id"], "logicalTypeOptions": {"pattern": "^1"}}}
    again(things, make_contract(stricter, stream={"topic": TOPIC}, version="2.0.0"), force=True)
    assert things.bench.sql(f"{failed} AND len(reasons) = 2") == [(4, 1)]
    things.check()


def test_a_refusal_leaves_everything_as_it_is(things: Things) -> None:
    before = rows(things)
    frozen = dataclasses.replace(things.contract, schema_evolution="freeze")
    things.send({"id": "12", "new": 1}, minute=12)
    things.read()
    before = rows(things)
    with pytest.raises(StreamHeldError):
        again(things, frozen)
    things.bench.close()
    assert rows(things) == before
    assert left(things) == []
    things.check()


def test_the_stream_goes_on_meanwhile(things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module._read
    rounds = []

    def read(*given: Any) -> None:
        real(*given)
        if not rounds:
            # Between the last reading and the swap.
            things.send({"id": "12"}, minute=12, partition=0)
            things.read()
        rounds.append(1)

    monkeypatch.setattr(module, "_read", read)
    done = again(things)
    assert len(rounds) == 2
    assert done.after == 11
    assert [row[0] for row in rows(things)][-1] == "12"
    things.check()


def test_a_rebuild_that_died_leaves_nothing_for_the_next(things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if the process had been killed: not even the end is cleared.
    monkeypatch.setattr(module, "swap", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(module, "end", lambda *given: None)
    with pytest.raises(KeyboardInterrupt):
        again(things)
    things.bench.close()
    [table, *books_of_it] = left(things)
    assert table.startswith("things__rebuilt_") and books_of_it
    assert [b.balanced for b in books(things.bench.lake, ["things"])] == [True]
    monkeypatch.undo()
    assert again(things).swapped
    assert left(things) == []
    things.check()


def test_pinned_readers_see_one_state(things: Things) -> None:
    with things.bench.lake.connect(read_only=True) as con:
        snapshot = things.bench.lake.current_snapshot(con)
    again(things)
    with things.bench.lake.reading(snapshot) as con:
        assert con.execute("SELECT count(*) FROM bronze.things").fetchall() == [(10,)]
        with things.bench.lake.reading() as now:
            assert broken_ranges(now, things.contract) == []


def test_two_replays_of_a_source_do_not_meet(things: Things) -> None:
    before = rows(things)
    with (
        turn_of(things.bench.settings, "things"),
        pytest.raises(RebuildHeldError, match="Rows of things are being made again by another replay"),
    ):
        again(things)
    assert left(things) == []

    # From another machine the lock is not seen: the second takes the first's rows away, and the first says so.
    def other(_: str) -> None:
        things.bench.lake.write(lambda con: sweep(con, "things"), "as another replay begins")

    with pytest.raises(RebuildHeldError, match="taken away by another replay"):
        again(things, tell=other)
    things.bench.close()
    assert rows(things) == before
    assert again(things).swapped
    assert rows(things) == before


def test_columns_that_are_taken_in_by_now_come_in(things: Things) -> None:
    discarding = dataclasses.replace(things.contract, schema_evolution="discard")
    things.contract, evolving = discarding, things.contract
    things.send({"id": "12", "color": "red"}, minute=12, partition=0)
    things.read()
    things.contract = evolving
    assert again(things, compare_only=True).changed == 1
    done = again(things)
    assert (done.before, done.after, done.new, done.changed) == (11, 11, 0, 1)
    assert things.bench.sql("SELECT id FROM bronze.things WHERE color = 'red'") == [("12",)]
    drift = "SELECT \"column\", action, bronze_column FROM ops.schema_drift WHERE kind = 'unexpected'"
    assert things.bench.sql(drift) == [("color", "evolved", "color")]
    # And the next message's is found there.
    things.send({"id": "13", "color": "blue"}, minute=13, partition=0)
    things.read()
    assert things.bench.sql("SELECT id FROM bronze.things WHERE color = 'blue'") == [("13",)]
    assert again(things).changed == 0
    things.check()


def test_columns_that_both_have_taken_in_meanwhile_stay_apart(things: Things, monkeypatch: pytest.MonkeyPatch) -> None:
    things.contract, evolving = dataclasses.replace(things.contract, schema_evolution="discard"), things.contract
    things.send({"id": "12", "color": "red"}, minute=12, partition=0)
    things.read()
    things.contract = evolving
    real = module._read
    rounds = []

    def read(*given: Any) -> None:
        real(*given)
        if not rounds:
            # The stream takes in another column that wants the same name.
            things.send({"id": "13", "Color": "blue"}, minute=13, partition=0)
            things.read()
        rounds.append(1)

    monkeypatch.setattr(module, "_read", read)
    assert again(things).swapped
    assert things.bench.sql("SELECT id, color, color_2 FROM bronze.things WHERE id > '11' ORDER BY id") == [
        ("12", None, "red"),
        ("13", "blue", None),
    ]
    drift = "SELECT \"column\", bronze_column FROM ops.schema_drift WHERE kind = 'unexpected' ORDER BY 1"
    assert things.bench.sql(drift) == [("Color", "color"), ("color", "color_2")]
    things.check()


def test_letters_that_were_taken_in_stay_in(bench: Bench, make_contract: MakeContract) -> None:
    late = {"eventTime": "at", "allowedLateness": "30min", "late": "quarantine"}
    things = Things(bench, make_contract(COLUMNS, stream={"topic": TOPIC} | late))
    things.send({"id": "a", "at": "2026-01-01 10:00:00"}, minute=600)
    things.read()
    things.send({"id": "b", "at": "2026-01-01 08:00:00"}, {"id": "c", "at": "2026-01-01 09:00:00"}, minute=601)
    things.read()
    [first, _] = [row[0] for row in bench.sql("SELECT dead_letter_id FROM ops.dead_letters ORDER BY line")]
    assert replay(bench.lake, things.contract, Choice(ids=(first,)), by="me").accepted == 1
    bench.close()
    before = rows(things)
    assert [row[0] for row in before] == ["a", "b"]
    for _ in range(2):
        done = again(things, since=datetime(2026, 1, 1, 10, 1))
        assert (done.before, done.after, done.gone, done.changed, done.dead_letters) == (1, 1, 0, 0, 1)
        assert rows(things) == before
        assert [letter[1] for letter in bench.letters("things")] == [2]
        assert bench.sql("SELECT decided_by FROM ops.dead_letters WHERE status = 'replayed'") == [("me",)]
        things.check()


def test_what_was_read_before_a_seek_is_told_of(things: Things) -> None:
    seek(things.bench.lake, things.contract, things.log, "unread")
    things.bench.close()
    # Nothing has come since.
    done = again(things)
    assert (done.ranges, done.earlier, done.swapped) == ((), 10, False)
    assert told(done) == (
        "things: nothing has been read since then at today's positions\n10 more rows since then were read before a "
        "position was moved (sluice stream seek): they are not made again, and stay as they are"
    )
    things.send({"id": "12"}, minute=12, partition=0)
    things.read()
    # Of the other partition nothing has.
    done = again(things)
    assert [(r.partition, r.start, r.stop) for r in done.ranges] == [(0, 6, 7)]
    assert (done.before, done.after, done.earlier, done.swapped) == (1, 1, 10, True)
    # The two letters of before the seek are not of these offsets.
    assert done.dead_letters == 0
    assert "swapped\n10 more rows since then" in told(done)
    assert again(things, since=datetime(2026, 1, 1, 0, 10)).earlier == 2
    assert len(rows(things)) == 11
    things.check()
