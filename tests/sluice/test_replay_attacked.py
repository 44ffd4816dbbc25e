"""Dead letters attacked: races, decisions across deliveries, clashing corrections, payloads that steer readers."""

from __future__ import annotations

import base64
import csv
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sluice.books import books, warnings
from sluice.contracts import Contract
from sluice.dead_letters import (
    POISON_ATTEMPTS,
    Choice,
    applied,
    corrections_of,
    counts,
    discard,
    export,
    groups,
    ids_by_source,
    letters,
    resolved,
)
from sluice.errors import DeadLetterError
from sluice.inventory import take_inventory
from sluice.replay import Replayed, reapply, replay
from tests.conftest import Bench, MakeContract

DAY = "date=2026-01-01"
KEY = "2026-01-01"
FILE = f"things/{DAY}/a.csv"


@pytest.fixture(scope="module")
def counted(make_contract: MakeContract) -> Contract:
    """A text and a number."""
    return make_contract({"name": {"required": True}, "n": {"physicalType": "INTEGER"}})


def values(bench: Bench) -> list[tuple[Any, ...]]:
    """File, line and values of the rows in bronze."""
    return bench.sql("SELECT _file, _line, n, name FROM bronze.things ORDER BY ALL")


def letter_of(bench: Bench, raw: str, status: str = "open") -> str:
    """The id of the one letter of this text."""
    (found,) = [x for x in letters(bench.lake, Choice(status=status), 1_000) if x.raw == raw]
    return found.dead_letter_id


def balanced(bench: Bench) -> None:
    """The books balance and agree with the tables."""
    (found,) = books(bench.lake, ["things"])
    assert found.balanced, found


def at_once(*works: Callable[[], object]) -> list[Exception]:
    """Run them all in threads of their own; returns what they raised."""
    errors: list[Exception] = []
    gate = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        gate.wait()
        try:
            work()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_a_replay_beside_an_ingest_of_its_partition(bench: Bench, counted: Contract) -> None:
    bad = "".join(f"x{i},b{i}\n" for i in range(10))
    for day in ("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"):
        file = f"things/date={day}/a.csv"
        bench.put(file, f"n,name\n100,a\n{bad}")
        bench.ingest(counted)
        chosen = Choice(partition=day)
        supplied = {x.dead_letter_id: f"{i},c" for i, x in enumerate(letters(bench.lake, chosen))}
        bench.put(file, f"n,name\n100,a\n101,new\n{bad}")
        wrong = at_once(
            lambda: bench.ingest(counted),
            lambda which=chosen, given=supplied: replay(bench.lake, counted, which, corrections=given),
        )
        # A replay that came too late says so: its letters are of a batch that is no more.
        assert all(isinstance(error, DeadLetterError) and "no open dead letter" in str(error) for error in wrong)
        balanced(bench)
        # One that came first is not undone by the batch that follows.
        left = 10 if wrong else 0
        assert bench.ledger("things")[day] == (12, 12 - left, left, 0)


def test_two_replays_of_one_row_at_once_bring_it_once(bench: Bench, counted: Contract) -> None:
    bench.put(FILE, "n,name\n1,a\nx,b\ny,b\n")
    bench.ingest(counted)
    first, second = letter_of(bench, "x,b"), letter_of(bench, "y,b")
    wrong = at_once(
        *(
            lambda id_=id_: replay(bench.lake, counted, Choice(ids=(id_,)), corrections={id_: "2,b"})
            for id_ in (first, second)
        )
    )
    assert wrong == []
    assert [row[2:] for row in values(bench)] == [(1, "a"), (2, "b")]
    assert bench.ledger("things") == {KEY: (3, 2, 0, 1)}
    balanced(bench)


def test_a_discard_beside_a_replay_is_one_or_the_other(bench: Bench, counted: Contract) -> None:
    bench.put(FILE, "n,name\n1,a\nx,b\n")
    bench.ingest(counted)
    letter = letter_of(bench, "x,b")
    wrong = at_once(
        lambda: replay(bench.lake, counted, Choice(), corrections={letter: "2,b"}),
        lambda: discard(bench.lake, Choice(ids=(letter,)), by="ann", why="a test"),
    )
    assert all(isinstance(error, DeadLetterError) for error in wrong)
    (done,) = letters(bench.lake, Choice(status=""))
    assert (done.status, len(values(bench))) in (("replayed", 2), ("discarded", 1))
    balanced(bench)


def test_a_letter_whose_batch_was_superseded_is_nothing_to_replay(bench: Bench, counted: Contract) -> None:
    bench.put(FILE, "n,name\n1,a\nx,b\n")
    bench.ingest(counted)
    old = letter_of(bench, "x,b")
    bench.put(FILE, "n,name\n1,a\n2,b\n")
    bench.ingest(counted)
    with pytest.raises(DeadLetterError, match="no open dead letter"):
        replay(bench.lake, counted, Choice(), corrections={old: "3,b"})
    assert replay(bench.lake, counted, Choice(ids=(old,))) == Replayed("things")
    assert [row[2] for row in values(bench)] == [1, 2]
    assert counts(bench.lake) == {"superseded": 1}
    balanced(bench)


def test_letters_of_equal_corrections_that_fail_are_both_kept(bench: Bench, make_contract: MakeContract) -> None:
    keyed = make_contract({"n": {"physicalType": "INTEGER", "unique": True}, "name": {}})
    bench.put(FILE, "n,name\n1,a\nx,b\ny,c\nz,d\nw,e\n")
    bench.ingest(keyed)
    supplied = {letter_of(bench, "x,b"): "?,b", letter_of(bench, "y,c"): "?,b"}
    supplied |= {letter_of(bench, "z,d"): "1,other", letter_of(bench, "w,e"): "1,other"}
    done = replay(bench.lake, keyed, Choice(), corrections=supplied, by="ann")
    assert (done.accepted, done.duplicate, done.failed) == (0, 0, 4)
    left = letters(bench.lake, Choice())
    assert [(x.raw, x.corrected, x.decided_by, [r["rule"] for r in x.reasons]) for x in left] == [
        ("x,b", "?,b", "ann", ["type"]),
        ("y,c", "?,b", "ann", ["type"]),
        ("z,d", "1,other", "ann", ["unique"]),
        ("w,e", "1,other", "ann", ["unique"]),
    ]
    balanced(bench)
    # What was supplied last is what is tried again.
    bench.put(FILE, "n,name\n2,a\nx,b\ny,c\nz,d\nw,e\n")
    bench.ingest(keyed)
    assert [row[1:] for row in values(bench)] == [(2, 2, "a"), (5, 1, "other")]
    assert bench.ledger("things") == {KEY: (5, 2, 2, 1)}
    balanced(bench)


def test_only_the_same_failure_makes_poison(bench: Bench, counted: Contract) -> None:
    bench.put(FILE, "n,name\n1,a\nx,b\n")
    bench.ingest(counted)
    letter = letter_of(bench, "x,b")
    for payload in ("2,", "y,b", "3,", "z,b"):
        assert replay(bench.lake, counted, Choice(), corrections={letter: payload}).failed == 1
    (left,) = letters(bench.lake, Choice())
    assert (left.attempts, left.same_failures) == (5, 1)
    assert replay(bench.lake, counted, Choice()).failed == 1
    assert replay(bench.lake, counted, Choice()).failed == 1
    assert replay(bench.lake, counted, Choice()) == Replayed("things", poison=1)
    assert letters(bench.lake, Choice())[0].same_failures == POISON_ATTEMPTS


def test_a_failed_correction_is_tried_as_often_as_its_row(bench: Bench, counted: Contract) -> None:
    bench.put(FILE, "n,name\n1,a\nx,b\n")
    bench.ingest(counted)
    assert replay(bench.lake, counted, Choice(), corrections={letter_of(bench, "x,b"): "y,b"}).failed == 1
    for late in range(POISON_ATTEMPTS):
        bench.put(f"things/{DAY}/late-{late}.csv", f"n,name\n{10 + late},late\n")
        bench.ingest(counted)
        (letter,) = letters(bench.lake, Choice())
        assert (letter.corrected, letter.attempts, letter.same_failures) == ("y,b", 2, 2)
        assert [(r["rule"], r["value"]) for r in letter.reasons] == [("type", "y")]
    bench.ingest(counted, again=True)
    (letter,) = letters(bench.lake, Choice())
    assert (letter.corrected, letter.attempts, letter.same_failures) == ("y,b", 3, 3)
    balanced(bench)


def test_a_file_that_fails_too_often_is_left_alone(bench: Bench, make_contract: MakeContract) -> None:
    wants = make_contract({"n": {"physicalType": "INTEGER", "required": True}})
    bench.put(FILE, "m\n1\n")
    for _ in range(POISON_ATTEMPTS):
        bench.ingest(wants, again=True)
    assert replay(bench.lake, wants, Choice()) == Replayed("things", poison=1)
    (letter,) = letters(bench.lake, Choice())
    assert replay(bench.lake, wants, Choice(ids=(letter.dead_letter_id,))) == Replayed("things", partitions=(KEY,))


def test_a_correction_outlives_deliveries_without_its_row(bench: Bench, make_contract: MakeContract) -> None:
    counted = make_contract({"name": {}, "n": {"physicalType": "INTEGER"}}, duplicates="batch")
    bench.put(FILE, "n,name\n1,a\nx,b\ny,c\n")
    bench.ingest(counted)
    replay(bench.lake, counted, Choice(rule="none"), corrections={letter_of(bench, "x,b"): "2,b"}, by="ann")
    discard(bench.lake, Choice(ids=(letter_of(bench, "y,c"),)), by="bob", why="a test order")
    # The file comes mended, then as it was, then its rows in another file of the day.
    bench.put(FILE, "n,name\n1,a\n3,b\n")
    bench.ingest(counted)
    assert [row[2:] for row in values(bench)] == [(1, "a"), (3, "b")]
    assert counts(bench.lake) == {"replayed": 1, "discarded": 1}
    balanced(bench)
    bench.put(FILE, "n,name\n1,a\nx,b\ny,c\n")
    bench.ingest(counted)
    assert [row[2:] for row in values(bench)] == [(1, "a"), (2, "b")]
    balanced(bench)
    bench.put(f"things/{DAY}/0.csv", "n,name\nx,b\ny,c\n")
    bench.ingest(counted)
    assert values(bench) == [(f"things/{DAY}/0.csv", 2, 2, "b"), (FILE, 2, 1, "a")]
    assert bench.ledger("things") == {KEY: (5, 2, 1, 2)}
    (kept,) = letters(bench.lake, Choice(status="replayed"))
    assert (kept.raw, kept.corrected, kept.decided_by, kept.attempts) == ("x,b", "2,b", "ann", 2)
    (given_up,) = letters(bench.lake, Choice(status="discarded"))
    assert (given_up.raw, given_up.decided_by, given_up.decided_why) == ("y,c", "bob", "a test order")
    balanced(bench)


def test_a_correction_is_for_its_text_below_its_header(bench: Bench, counted: Contract) -> None:
    bench.put(FILE, "n,name\n1,a\nx,b\n")
    bench.ingest(counted)
    replay(bench.lake, counted, Choice(), corrections={letter_of(bench, "x,b"): "2,b"})
    bench.put(FILE, "name,n\na,1\nx,b\n")
    bench.ingest(counted)
    assert [row[2:] for row in values(bench)] == [(1, "a")]
    (left,) = letters(bench.lake, Choice())
    assert (left.raw, left.header, left.corrected) == ("x,b", "name,n", None)
    balanced(bench)


@pytest.mark.parametrize("duplicates", ["file", "batch"])
def test_bytes_are_not_the_text_that_they_are_written_as(
    duplicates: str, bench: Bench, make_contract: MakeContract
) -> None:
    both = make_contract({"n": {"physicalType": "INTEGER"}, "name": {}}, duplicates=duplicates)
    bench.put(FILE, b"n,name\nx,\xff\n" + base64.b64encode(b"x,\xff") + b"\n1,a\n")
    bench.ingest(both)
    first, second = (x.dead_letter_id for x in letters(bench.lake, Choice()))
    assert replay(bench.lake, both, Choice(ids=(first,)), corrections={first: "2,b"}).accepted == 1
    before = values(bench)
    bench.ingest(both, again=True)
    assert values(bench) == before
    assert bench.ledger("things") == {KEY: (3, 2, 1, 0)}
    (left,) = letters(bench.lake, Choice())
    assert (left.dead_letter_id, left.corrected, left.attempts) == (second, None, 2)
    # Whoever gives the text up, gives up no bytes.
    discard(bench.lake, Choice(ids=(second,)), by="ann", why="no row")
    bench.put(FILE, b"n,name\n" + base64.b64encode(b"x,\xff") + b"\nx,\xff\n3,c\n")
    bench.ingest(both)
    assert counts(bench.lake)["discarded"] == 1
    assert [row[1:] for row in values(bench)] == [(3, 2, "b"), (4, 3, "c")]
    balanced(bench)


def test_where_files_have_rows_of_their_own_so_have_corrections(bench: Bench, make_contract: MakeContract) -> None:
    own = make_contract({"name": {}, "n": {"physicalType": "INTEGER"}}, duplicates="file")
    bench.put(FILE, "n,name\n1,a\nx,b\n")
    bench.put(f"things/{DAY}/b.csv", "n,name\nx,b\n")
    bench.ingest(own)
    first, second = letters(bench.lake, Choice())
    replay(bench.lake, own, Choice(ids=(first.dead_letter_id,)), corrections={first.dead_letter_id: "2,b"})
    bench.ingest(own, again=True)
    assert [(row[0], row[2]) for row in values(bench)] == [(FILE, 1), (FILE, 2)]
    assert replay(bench.lake, own, Choice(), corrections={second.dead_letter_id: "2,b"}).accepted == 1
    balanced(bench)


def test_a_refusal_given_up_is_no_verdict_on_another_delivery(bench: Bench, make_contract: MakeContract) -> None:
    strict = make_contract({"n": {"physicalType": "INTEGER"}}, share=0.1)
    bench.put(FILE, "n\n1\nx\n")
    bench.ingest(strict)
    assert discard(bench.lake, Choice(source="things"), by="ann", why="a test") == 2
    bench.ingest(strict, again=True)
    assert letters(bench.lake, Choice()) == []
    bench.put(FILE, "n\n2\nx\n")
    bench.ingest(strict)
    # The bad row is the one given up; the good one was never looked at.
    assert [x.error_class for x in letters(bench.lake, Choice())] == ["batch"]
    balanced(bench)


def test_bronze_is_never_without_its_corrections(bench: Bench, counted: Contract) -> None:
    bench.put(FILE, "n,name\n1,a\nx,b\n")
    bench.ingest(counted)
    replay(bench.lake, counted, Choice(), corrections={letter_of(bench, "x,b"): "2,b"})
    before = bench.snapshots()
    bench.ingest(counted, again=True)
    assert bench.snapshots() == before + 1
    assert [row[2] for row in values(bench)] == [1, 2]


def test_a_load_that_starts_over_applies_its_corrections_once(
    bench: Bench, counted: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put(FILE, "n,name\n1,a\nx,b\ny,c\n")
    bench.ingest(counted)
    replay(bench.lake, counted, Choice(rule="none"), corrections={letter_of(bench, "x,b"): "2,b"})
    calls = []

    def in_the_way(*given: Any) -> Any:
        told = reapply(*given)
        calls.append(told)
        if len(calls) == 1:
            raise duckdb.TransactionException("Transaction conflict - somebody was faster")
        return told

    monkeypatch.setattr("sluice.ingest.reapply", in_the_way)
    bench.put(FILE, "n,name\n3,d\n1,a\nx,b\ny,c\n")
    (told,) = bench.ingest(counted).batches
    assert len(calls) == 2
    assert (told.rows_accepted, told.rows_dead_lettered) == (3, 1)
    assert [row[1:3] for row in values(bench)] == [(2, 3), (3, 1), (4, 2)]
    balanced(bench)


def test_what_a_replay_brings_is_one_row_in_the_change_feed(bench: Bench, counted: Contract) -> None:
    """What heals silver and gold reads."""
    bench.put(FILE, "n,name\n1,a\nx,b\ny,c\n")
    bench.ingest(counted)
    ((before,),) = bench.sql("SELECT max(snapshot_id) FROM ducklake_snapshots('lake')")
    replay(bench.lake, counted, Choice(ids=(letter_of(bench, "x,b"),)), corrections={letter_of(bench, "x,b"): "2,b"})
    feed = "SELECT change_type, n, name FROM ducklake_table_changes('lake', 'bronze', 'things', ?, ?)"
    assert bench.sql(feed, [before + 1, before + 1]) == [("insert", 2, "b")]


def test_files_that_belong_nowhere_are_not_replayed(bench: Bench, counted: Contract) -> None:
    bench.put("things/date=nonsense/a.csv", "n,name\n1,a\n")
    take_inventory(bench.lake, [counted])
    assert replay(bench.lake, counted, Choice()) == Replayed("things", unroutable=1)
    (letter,) = letters(bench.lake, Choice())
    assert (letter.attempts, letter.last_failed_at) == (1, letter.first_failed_at)


def test_ids_mean_one_letter_each(bench: Bench, counted: Contract) -> None:
    bench.put(FILE, "n,name\n1,a\nx,b\ny,c\n")
    bench.ingest(counted)
    first, second = (x.dead_letter_id for x in letters(bench.lake, Choice()))
    bench.lake.write(
        lambda con: con.execute(
            "UPDATE ops.dead_letters SET dead_letter_id = 'abcdef' || dead_letter_id[7:] WHERE line IS NOT NULL"
        ),
        "two ids that begin alike",
    )
    second_short = "abcdef" + second[6:20]
    for act in (
        lambda: discard(bench.lake, Choice(ids=("abcdef",)), by="ann", why="x"),
        lambda: resolved(bench.lake, Choice(ids=("abcdef",))),
        lambda: ids_by_source(bench.lake, Choice(ids=("abcdef",)), {"abcdef": "2,b"}),
    ):
        with pytest.raises(DeadLetterError, match="several"):
            act()
    with pytest.raises(DeadLetterError, match="no open dead letter"):
        discard(bench.lake, Choice(ids=("abcdef" + first[6:], "0" * 32)), by="ann", why="x")
    with pytest.raises(DeadLetterError, match=f"'abcdef{second[6:]}' is corrected twice, once under"):
        ids_by_source(bench.lake, Choice(), {second_short: "2,b", "abcdef" + second[6:]: "3,c"})
    with pytest.raises(DeadLetterError, match="too short"):
        ids_by_source(bench.lake, Choice(ids=("abcdef" + second[6:],)), {"a": "2,b"})
    assert counts(bench.lake) == {"open": 2}
    # Both at once may be looked at.
    assert len(letters(bench.lake, Choice(ids=("abcdef",)))) == 2


def test_of_a_letter_that_is_open_no_more_it_is_told_why(bench: Bench, counted: Contract) -> None:
    bench.put(FILE, "n,name\n1,a\nx,b\ny,c\nz,d\n")
    bench.ingest(counted)
    first, second, third = (x.dead_letter_id for x in letters(bench.lake, Choice()))
    discard(bench.lake, Choice(ids=(first,)), by="bob", why="a test order")
    replay(bench.lake, counted, Choice(), corrections={second: "2,c"}, by="ann")
    bench.put(FILE, "n,name\n1,a\nx,b\n3,c\n")
    bench.ingest(counted)
    told = {
        first: "superseded by a later delivery of its partition.",
        second: "replayed by ann (replayed).",
        third: "superseded by a later delivery of its partition.",
        letter_of(bench, "x,b", "discarded"): "discarded by bob (a test order).",
    }
    for letter, words in told.items():
        for act in (
            lambda ids: resolved(bench.lake, Choice(ids=ids)),
            lambda ids: ids_by_source(bench.lake, Choice(source="none"), dict.fromkeys(ids, "2,b")),
            lambda ids: replay(bench.lake, counted, Choice(source="none"), corrections=dict.fromkeys(ids, "2,b")),
        ):
            with pytest.raises(DeadLetterError) as error:
                act((letter,))
            assert f"no open dead letter any more: it was {words}" in str(error.value)
    with pytest.raises(DeadLetterError, match=r"is no open dead letter\. See"):
        resolved(bench.lake, Choice(ids=("0" * 32,)))


def test_a_lake_of_an_earlier_version_is_looked_at_without_writing(bench: Bench, counted: Contract) -> None:
    bench.put(FILE, "n,name\n1,a\nx,b\n")
    bench.ingest(counted)
    for name in ("attempts", "same_failures", "last_failed_at", "corrected", "decided_at"):
        bench.lake.write(lambda con, n=name: con.execute(f"ALTER TABLE ops.dead_letters DROP COLUMN {n}"), "once")
    before = bench.snapshots()
    assert [(g.rule, g.poison) for g in groups(bench.lake, Choice())] == [("type", 0)]
    (letter,) = letters(bench.lake, Choice())
    assert (letter.raw, letter.attempts) == ("x,b", None)
    assert bench.snapshots() == before
    assert discard(bench.lake, Choice(ids=(letter.dead_letter_id,)), by="ann", why="x") == 1


# Texts a spreadsheet would run, and some that look as if they had been guarded already.
FORMULAS = ["=1+1,b", "+1,=cmd|' /C calc'!A0", "-x,b", "@SUM(A1),b", "'=x,b", "''-x,b", "'x,b", "\tx,b"]


def test_a_spreadsheet_meets_no_formula_and_gives_back_what_it_was_given(
    bench: Bench, counted: Contract, tmp_path: Path
) -> None:
    bench.put(FILE, "n,name\n1,a\n" + "".join(f"{text}\n" for text in FORMULAS))
    bench.ingest(counted)
    assert [x.raw for x in letters(bench.lake, Choice())] == [text for text in FORMULAS if text[0] != "+"]
    out = tmp_path / "letters [1].csv"
    export(bench.lake, Choice(), out)
    with out.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert not [cell for row in table for cell in row.values() if cell[:1] in tuple("=+-@\t\r\n") and cell]
    # What is copied from `raw` to `corrected` comes back as it was; what is typed in comes as it is.
    for row in table:
        row["corrected"] = row["raw"]
    table[-1]["corrected"] = "-7,typed"
    with out.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(table[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(table)
    raws = {x.dead_letter_id: x.raw for x in letters(bench.lake, Choice())}
    typed = table[-1]["dead_letter_id"]
    given_back = corrections_of(out)
    assert given_back == {**raws, typed: "-7,typed"}
    # A correction that failed is kept, and goes out and comes back once more.
    assert replay(bench.lake, counted, Choice(), corrections=given_back).accepted == 1
    for ending in ("csv", "jsonl", "parquet"):
        export(bench.lake, Choice(), tmp_path / f"again.{ending}")
        assert corrections_of(tmp_path / f"again.{ending}") == {k: v for k, v in raws.items() if k != typed}


def test_corrections_are_read_as_they_stand(tmp_path: Path) -> None:
    lines = [
        '{"dead_letter_id": "a1", "corrected": "2026-01-01 10:00:00.50"}',
        '{"dead_letter_id": "a2", "corrected": null}',
    ]
    lines.append('{"dead_letter_id": "a3", "corrected": "{\\"n\\": 1}", "reasons": [1, "x"]}')
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(lines) + "\n")
    assert corrections_of(path) == {"a1": "2026-01-01 10:00:00.50", "a3": '{"n": 1}'}
    long = "x" * 1_800_000
    csv_path = tmp_path / "c.csv"
    csv_path.write_text(f'dead_letter_id,raw,header,corrected\na1,"{long}","{long}","{long}"\na2,"a;b;c\n;",h,\n')
    assert corrections_of(csv_path) == {"a1": long}
    csv_path.write_text("dead_letter_id,corrected\na1,x\na1,y\n")
    with pytest.raises(DeadLetterError, match="corrects 'a1' twice"):
        corrections_of(csv_path)
    csv_path.write_text("dead_letter_id,corrected\n,x\n")
    with pytest.raises(DeadLetterError, match="corrects no letter"):
        corrections_of(csv_path)
    csv_path.write_text("id,corrected\na1,x\n")
    with pytest.raises(
        DeadLetterError, match=r"as corrections: it lacks a column\. It needs the columns dead_letter_id"
    ):
        corrections_of(csv_path)
    with pytest.raises(DeadLetterError, match="cannot be read as corrections"):
        corrections_of(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "c.csv",
            "dead_letter_id,corrected\na1,Müller\n".encode("latin-1"),
            "is no text in UTF-8: .* Save it as UTF-8",
        ),
        ("c.jsonl", '{"dead_letter_id": "a1", "corrected": "ü"}\n'.encode("latin-1"), "is no text in UTF-8"),
        ("c.csv", "dead_letter_id,corrected\na1,x\n".encode("utf-16"), "is no text in UTF-8"),
        ("c.csv", b"dead_letter_id,corrected\na1," + b"x" * 17_000_000 + b"\n", "line of more than 16,000,000 bytes"),
        ("c.jsonl", b'[{"dead_letter_id": "a1", "corrected": "x"}]\n', "is a JSON array. Write JSON lines"),
        ("c.jsonl", b'\xef\xbb\xbf{"dead_letter_id": "a1", "corrected": "x"}\n', "Save it as UTF-8 without one"),
        ("c.jsonl", b'\n[\n{"dead_letter_id": "a1",\n"corrected": "x"}]\n', "is a JSON array. Write JSON lines"),
    ],
)
def test_of_a_file_that_holds_no_corrections_it_is_told_why(
    name: str, content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DeadLetterError, match=told):
        corrections_of(tmp_path / name)


def test_records_over_lines_are_corrected_as_such(bench: Bench, make_contract: MakeContract) -> None:
    over = make_contract({"name": {}, "n": {"physicalType": "INTEGER"}}, csv={"multiline": True})
    bench.put(FILE, 'n,name\n1,a\nx,"b\nc"\ny,d\n')
    bench.ingest(over)
    first, second = (x.dead_letter_id for x in letters(bench.lake, Choice()))
    for payload in ("2,b\n3,c", '2,"b\nc"\n3,d', "2,b\n"):
        with pytest.raises(DeadLetterError, match="one line of text"):
            replay(bench.lake, over, Choice(), corrections={first: payload})
    with pytest.raises(DeadLetterError, match="one line of text"):
        replay(bench.lake, over, Choice(), corrections={second: "2,\udcff"})
    assert replay(bench.lake, over, Choice(ids=(first,)), corrections={first: '2,"b\nc"'}).accepted == 1
    assert [row[1:] for row in values(bench)] == [(2, 1, "a"), (3, 2, "b\nc")]
    balanced(bench)


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_a_correction_has_the_line_ends_its_row_would_have(end: str, bench: Bench, make_contract: MakeContract) -> None:
    over = make_contract({"name": {}, "n": {"physicalType": "INTEGER"}}, csv={"multiline": True})
    bench.put(FILE, f'n,name{end}2,"b{end}c"{end}x,"b{end}c"{end}y,d{end}')
    bench.ingest(over)
    first, second = (x.dead_letter_id for x in letters(bench.lake, Choice()))
    with pytest.raises(DeadLetterError, match="one line of text"):
        replay(bench.lake, over, Choice(), corrections={second: f"3,d{end}"})
    supplied = {first: f'2,"b{end}c"', second: f'3,"d{end}{end}e"'}
    assert applied(bench.lake, supplied) == set()
    done = replay(bench.lake, over, Choice(), corrections=supplied)
    assert (done.accepted, done.duplicate) == (1, 1)
    assert [row[2:] for row in values(bench)] == [(2, "b\nc"), (3, "d\n\ne")]
    # The file of corrections comes again as it was.
    assert applied(bench.lake, supplied) == {first, second}
    assert [x.corrected for x in letters(bench.lake, Choice(status="replayed"))] == ['2,"b\nc"', '3,"d\n\ne"']
    balanced(bench)


def test_a_load_that_must_be_tried_again_is_whole_although_a_correction_follows_it(
    bench: Bench, counted: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The corrections are taken in the load's own transaction; when that loses to another, all of it is done again."""
    bench.put(FILE, "n,name\n1,a\n2,b\nx,c\n")
    bench.ingest(counted)
    replay(bench.lake, counted, Choice(), corrections={letter_of(bench, "x,c"): "3,c"})
    bench.put(FILE, "n,name\n1,a\n2,b\nx,c\n4,d\n5,e\n")
    attempts = []

    def crossed(con: duckdb.DuckDBPyConnection, contract: Contract, outcomes: Any) -> Any:
        done = reapply(con, contract, outcomes)
        attempts.append(done)
        if len(attempts) == 1:
            bench.lake.write(
                lambda other: other.execute("UPDATE ops.turns SET n = n + 1 WHERE source = 'things'"), "another"
            )
        return done

    monkeypatch.setattr("sluice.ingest.reapply", crossed)
    result = bench.ingest(counted)
    assert len(attempts) == 2
    assert [(b.rows_read, b.rows_accepted, b.rows_dead_lettered) for b in result.batches] == [(5, 5, 0)]
    assert [n for *_, n, _ in values(bench)] == [1, 2, 3, 4, 5]
    balanced(bench)


def test_corrections_of_another_source_take_nothing_else_with_them(bench: Bench, make_contract: MakeContract) -> None:
    columns: dict[str, dict[str, Any]] = {"n": {"physicalType": "INTEGER"}}
    ours, theirs = make_contract(columns, name="ours"), make_contract(columns, name="theirs")
    for contract in (ours, theirs):
        bench.put(f"{contract.name}/{DAY}/a.csv", "n\nx\ny\n")
        bench.ingest(contract)
    wrong = next(x for x in letters(bench.lake, Choice(source="theirs")) if x.raw == "x").dead_letter_id
    done = replay(bench.lake, theirs, Choice(source="ours"), corrections={wrong: "1"})
    assert (done.accepted, done.failed) == (1, 0)
    assert bench.sql("SELECT raw, attempts FROM ops.dead_letters WHERE status = 'open' ORDER BY source, raw") == [
        ("x", 1), ("y", 1), ("y", 1)
    ]  # fmt: skip


def test_who_gave_up_a_file_for_one_reason_hears_of_the_next(bench: Bench, make_contract: MakeContract) -> None:
    columns: dict[str, dict[str, Any]] = {"n": {"physicalType": "INTEGER"}, "name": {}}
    bench.put(FILE, "n,name\n1,a\nx,b\n")
    bench.ingest(make_contract(columns, share=0.0))
    (whole,) = [x for x in letters(bench.lake, Choice()) if x.line is None]
    discard(bench.lake, Choice(ids=(whole.dead_letter_id,)), by="me", why="known")
    stricter = make_contract({**columns, "zip": {"required": True}}, share=0.0, version="2.0.0")
    bench.ingest(stricter)
    assert [(x.rows, x.reasons[0]["rule"]) for x in letters(bench.lake, Choice())] == [(2, "missing_column")]


def test_a_row_is_a_duplicate_also_of_one_from_before_a_column_was_declared(
    bench: Bench, make_contract: MakeContract
) -> None:
    columns: dict[str, dict[str, Any]] = {"n": {"physicalType": "INTEGER"}, "name": {}}
    bench.put(FILE, "n,name,more,other\n1,a,x,y\n1x,a,x,y\n1x,a,x,z\n")
    bench.ingest(make_contract(columns))
    declared = make_contract({**columns, "more": {}}, version="1.1.0")
    corrections = {letter_of(bench, "1x,a,x,y"): "1,a,x,y", letter_of(bench, "1x,a,x,z"): "1,a,x,z"}
    done = replay(bench.lake, declared, Choice(), corrections=corrections)
    assert (done.accepted, done.duplicate) == (1, 1)
    assert bench.sql("SELECT n, name, more, other FROM bronze.things ORDER BY ALL") == [
        (1, "a", "x", "y"), (1, "a", "x", "z")
    ]  # fmt: skip
    balanced(bench)


@pytest.mark.parametrize("damaged", [b"", b"\xff\xfe\x00", b"name,name\n1,a\n"])
def test_a_damaged_delivery_does_not_throw_accepted_rows_away(bench: Bench, counted: Contract, damaged: bytes) -> None:
    bench.put(FILE, "n,name\n1,a\n2,b\n")
    bench.put(f"things/{DAY}/b.csv", "n,name\n" + "".join(f"{n},c\n" for n in range(100)))
    bench.ingest(counted)
    before = values(bench)
    bench.put(FILE, damaged)
    (batch,) = bench.ingest(counted).batches
    assert batch.status == "refused" and "has 2 accepted rows, which would go with it" in batch.reason
    assert values(bench) == before
    balanced(bench)
    # Somebody gives them up.
    (batch,) = bench.ingest(counted, force=True).batches
    assert batch.status == "accepted" and len(values(bench)) == 100
    balanced(bench)


def test_books_that_are_wrong_both_ways_do_not_balance(bench: Bench, counted: Contract) -> None:
    for day in ("2026-01-01", "2026-01-02"):
        bench.put(f"things/date={day}/a.csv", "n,name\n1,a\n2,b\n")
    bench.ingest(counted)
    balanced(bench)
    bench.lake.write(
        lambda con: con.execute(
            "UPDATE bronze.things SET _batch_id = (SELECT max(_batch_id) FROM bronze.things) "
            "WHERE _batch_id = (SELECT min(_batch_id) FROM bronze.things) AND n = 1"
        ),
        "sabotage",
    )
    (found,) = books(bench.lake, ["things"])
    assert (found.rows_accepted, found.rows_in_bronze, found.astray, found.balanced) == (4, 4, 2, False)


def test_what_a_replay_brings_is_told_of_as_if_the_file_had_said_so(bench: Bench, make_contract: MakeContract) -> None:
    """Rules that only warn, also where the file is read again with its corrections."""
    small = {"type": "custom", "engine": "sluice", "name": "small", "implementation": "n < 3", "severity": "warn"}
    even = {"type": "custom", "engine": "sluice", "name": "even", "implementation": "n % 2 = 0", "severity": "warn"}
    contract = make_contract({"name": {}, "n": {"physicalType": "INTEGER", "quality": [small, even]}})
    file = f"things/{DAY}/a.csv"
    bench.put(file, "name,n\na,4\nb,x\nc,y\nd,z\ne,v\n")
    bench.ingest(contract)
    letters_ = [letter_of(bench, raw) for raw in ("b,x", "c,y", "d,z", "e,v")]

    def told() -> list[tuple[Any, ...]]:
        bench.close()
        return [(w.rule, w.column, w.batches, w.rows, w.detail, w.sample) for w in warnings(bench.lake)]

    assert [row[3] for row in told()] == [1]
    # One passes both rules, one breaks the one told of before, one both; one fails again.
    given = ("b,2", "c,6", "d,5", "e,w")
    replay(bench.lake, contract, Choice(ids=("zzzzzz",)), corrections=dict(zip(letters_, given, strict=True)), by="me")
    now = told()
    assert [(rule, rows) for rule, _, _, rows, *_ in now] == [("even", 1), ("small", 3)]
    # Nothing is told twice.
    replay(bench.lake, contract, Choice())
    assert told() == now
    bench.ingest(contract, force=True)
    assert told() == now
    balanced(bench)
    bench.put(file, "name,n\na,4\nb,2\nc,6\nd,5\ne,w\n")
    bench.ingest(contract)
    assert told() == now


@pytest.mark.parametrize(("duplicates", "unique"), [("batch", False), ("file", False), ("batch", True)])
def test_it_does_not_matter_which_letters_are_taken_together(
    make_bench: Callable[[str], Bench], make_contract: MakeContract, duplicates: str, unique: bool
) -> None:
    """Equal values in different texts, in one file and in two, among them values that must be unique and wrong ones."""

    def contract_of(largest: int, version: str) -> Contract:
        number = {"physicalType": "INTEGER", "logicalTypeOptions": {"maximum": largest}, "unique": unique}
        return make_contract({"name": {}, "n": number}, duplicates=duplicates, version=version)

    narrow, wide = contract_of(5, "1.0.0"), contract_of(50, "1.1.0")
    found = []
    for how in ("together", "one by one"):
        bench = make_bench(how)
        bench.put(f"things/{DAY}/a.csv", 'name,n\nA,1\nB,7\n"B",7\nC,7\n"C",7\nD,99\n"D",99\n')
        bench.put(f"things/{DAY}/b.csv", 'name,n\n"B","7"\n')
        bench.ingest(narrow)
        ids = [letter.dead_letter_id for letter in letters(bench.lake, Choice(), 100)]
        assert len(ids) == 7
        for given in [ids] if how == "together" else [[i] for i in ids]:
            replay(bench.lake, wide, Choice(ids=tuple(given)))
        bench.close()
        balanced(bench)
        found.append((bench.ledger("things"), values(bench)))
    assert found[0] == found[1]
    plain = [(name, n) for _, _, n, name in found[0][1]]
    if unique:
        # Who of B and C has the 7 is for the first of them to say.
        assert plain == [("A", 1), ("B", 7)]
    else:
        assert plain == [("A", 1), ("B", 7), ("C", 7)] + [("B", 7)] * (duplicates == "file")
