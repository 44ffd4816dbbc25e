"""Rows of a topic made again from the log: the same where nothing changed, today's where something did, at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sluice import rebuild as module
from sluice.books import books
from sluice.contracts import Contract
from sluice.dead_letters import Choice, discard
from sluice.errors import StreamHeldError
from sluice.rebuild import Rebuilt, rebuild
from sluice.replay import replay
from sluice.stream_positions import broken_ranges
from sluice.verification import set_aside, verify
from tests.conftest import Bench
from tests.sluice.test_streams import COLUMNS, TOPIC, Things

MIDNIGHT = datetime(2026, 1, 1)


@pytest.fixture
def things(bench: Bench, make_contract: Callable[..., Contract]) -> Things:
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
        "SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' AND table_name LIKE '%rebuilt'"
    )
    found = [name for (name,) in tables]
    for name in ("ledger", "dead_letters", "warnings", "stream_positions", "schema_drift", "turns"):
        if things.bench.sql(f"SELECT 1 FROM ops.{name} WHERE source LIKE '%rebuilt'"):
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


def test_a_mended_contract_takes_in_what_was_set_aside(things: Things, make_contract: Callable[..., Contract]) -> None:
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


def test_comparing_changes_nothing(things: Things, make_contract: Callable[..., Contract]) -> None:
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
    monkeypatch.setattr(module, "_swap", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    real = module._clear
    monkeypatch.setattr(module, "_clear", lambda *given: None)
    with pytest.raises(KeyboardInterrupt):
        again(things)
    things.bench.close()
    assert "things__rebuilt" in left(things)
    assert [b.balanced for b in books(things.bench.lake, ["things"])] == [True]
    monkeypatch.undo()
    assert module._clear is real
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
