"""Publication: readers see one passed build as a whole, and nothing that happens after it until the next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

import sluice
from sluice import publication
from sluice.audits import Audit, is_built, latest_audit, record_audit
from sluice.errors import LakeUnavailableError, PublicationError
from sluice.maintenance import maintain
from sluice.publication import (
    Publication,
    connect,
    current_publication,
    kept_snapshots,
    pin,
    publication_at,
    publications,
    publish,
    publish_as_is,
    roll_back,
    unpin,
)
from sluice.readers import refresh_readers
from sluice.settings import load_settings
from tests.conftest import Bench


@pytest.fixture
def warehouse(bench: Bench) -> Bench:
    """A lake with one gold table of one row."""
    bench.lake.create()
    bench.lake.write(lambda con: con.execute("CREATE TABLE gold.sales AS SELECT 1 AS n"), "build")
    return bench


def add(bench: Bench, number: int) -> None:
    bench.lake.write(lambda con: con.execute("INSERT INTO gold.sales VALUES (?)", [number]), "a load")


def seen(bench: Bench) -> list[int]:
    with connect(bench.settings) as con:
        return [n for (n,) in con.execute("SELECT n FROM sales ORDER BY n").fetchall()]


def test_what_is_published_joins_to_tables_of_the_caller(warehouse: Bench) -> None:
    record_audit(warehouse.lake, run_id="b", checks_passed=1, failed=[])
    publish(warehouse.lake, run_id="p")
    add(warehouse, 8)
    wanted = pa.table({"n": [1, 8, 9]})
    with connect(warehouse.settings) as con:
        assert con.execute("SELECT w.n FROM sales JOIN wanted AS w USING (n)").fetchall() == [(1,)], wanted


def test_nothing_can_be_seen_before_it_is_published(warehouse: Bench) -> None:
    assert current_publication(warehouse.lake) is None
    with pytest.raises(PublicationError, match="Nothing has been published yet"):
        connect(warehouse.settings)
    with pytest.raises(PublicationError, match=r"never been built whole\. Nothing is published yet\. Materialize"):
        publish(warehouse.lake, run_id="r")
    assert latest_audit(warehouse.lake) is None


def test_there_is_no_lake(bench: Bench) -> None:
    with pytest.raises(LakeUnavailableError, match="There is no lake"):
        connect(bench.settings)


def test_publishing_moves_readers_once(warehouse: Bench) -> None:
    audit = record_audit(warehouse.lake, run_id="build-1", checks_passed=7, failed=[])
    assert (audit.passed, audit.checks_passed, audit.checks_failed, audit.failed) == (True, 7, 0, ())
    assert latest_audit(warehouse.lake) == audit
    first, new = publish(warehouse.lake, run_id="p1", reason="nightly")
    assert new and (first.publication_id, first.snapshot_id) == (1, audit.snapshot_id)
    assert (first.run_id, first.reason) == ("p1", "nightly")
    assert current_publication(warehouse.lake) == first
    again, new = publish(warehouse.lake, run_id="p2")
    assert (again, new) == (first, False)
    assert warehouse.sql("SELECT publication_id, run_id FROM ops.publications") == [(1, "p1")]
    add(warehouse, 2)
    record_audit(warehouse.lake, run_id="build-2", checks_passed=7, failed=[])
    assert seen(warehouse) == [1]
    second, new = publish(warehouse.lake, run_id="p3")
    assert new and second.publication_id == 2 and second.snapshot_id > first.snapshot_id
    assert seen(warehouse) == [1, 2]


def test_a_failed_build_leaves_readers_where_they_are(warehouse: Bench) -> None:
    record_audit(warehouse.lake, run_id="b1", checks_passed=1, failed=[])
    published, _ = publish(warehouse.lake, run_id="p1")
    add(warehouse, -1)
    audit = record_audit(warehouse.lake, run_id="b2", checks_passed=5, failed=["never_negative", "unique"])
    assert (audit.passed, audit.checks_failed) == (False, 2)
    with pytest.raises(PublicationError) as caught:
        publish(warehouse.lake, run_id="p2")
    assert f"snapshot {audit.snapshot_id}) failed 2 of its gates: never_negative, unique" in str(caught.value)
    assert f"Readers stay at snapshot {published.snapshot_id}. Mend the data" in str(caught.value)
    assert seen(warehouse) == [1]
    assert current_publication(warehouse.lake) == published
    warehouse.lake.write(lambda con: con.execute("DELETE FROM gold.sales WHERE n < 0"), "mended")
    record_audit(warehouse.lake, run_id="b3", checks_passed=7, failed=[])
    assert publish(warehouse.lake, run_id="p3")[1]
    assert seen(warehouse) == [1]


def test_a_first_build_that_fails_publishes_nothing(warehouse: Bench) -> None:
    record_audit(warehouse.lake, run_id="b1", checks_passed=0, failed=["x"])
    with pytest.raises(PublicationError, match=r"failed 1 of its gates: x\. Nothing is published yet"):
        publish(warehouse.lake, run_id="p")


def test_a_reader_keeps_its_instant_while_the_writer_goes_on(warehouse: Bench) -> None:
    record_audit(warehouse.lake, run_id="b1", checks_passed=1, failed=[])
    publish(warehouse.lake, run_id="p1")
    with sluice.connect(warehouse.settings) as reader:
        assert reader.execute("SELECT list(n) FROM sales").fetchall() == [([1],)]
        add(warehouse, 2)
        warehouse.lake.write(lambda con: con.execute("CREATE TABLE gold.later AS SELECT 1 AS n"), "another table")
        record_audit(warehouse.lake, run_id="b2", checks_passed=1, failed=[])
        publish(warehouse.lake, run_id="p2")
        assert reader.execute("SELECT list(n) FROM sales").fetchall() == [([1],)]
        with pytest.raises(duckdb.CatalogException):
            reader.execute("FROM later")
        for statement in ("INSERT INTO sales VALUES (9)", "DROP TABLE sales", "CREATE TABLE mine AS SELECT 1 AS n"):
            with pytest.raises(duckdb.Error, match="read-only"):
                reader.execute(statement)
    assert seen(warehouse) == [1, 2]


def test_the_reader_script_pins_any_duckdb(warehouse: Bench) -> None:
    record_audit(warehouse.lake, run_id="b1", checks_passed=1, failed=[])
    publish(warehouse.lake, run_id="p1")
    path = warehouse.settings.home / "published.sql"

    def read() -> list[tuple[int]]:
        with duckdb.connect() as con:
            for statement in path.read_text().splitlines():
                con.execute(statement)
            return con.execute("SELECT n FROM sales ORDER BY n").fetchall()

    assert read() == [(1,)]
    add(warehouse, 2)
    record_audit(warehouse.lake, run_id="b2", checks_passed=1, failed=[])
    assert read() == [(1,)]
    publish(warehouse.lake, run_id="p2")
    assert read() == [(1,), (2,)]


@pytest.mark.parametrize(
    ("catalog", "attach"),
    [
        (
            "postgres:host=db user=u password='s3cret it' dbname=x",
            "ducklake:postgres:host=db user=u  dbname=x",
        ),
        ("postgres:postgresql://u:s3cret@db/x", "ducklake:postgres:postgresql://u@db/x"),
    ],
)
def test_the_reader_script_holds_no_password(catalog: str, attach: str, tmp_path: Path) -> None:
    text = refresh_readers(load_settings(home=tmp_path, catalog=catalog)).read_text()
    assert "s3cret" not in text and "***" not in text
    assert f"ATTACH '{attach}' AS head" in text


LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def test_what_maintenance_must_keep(warehouse: Bench) -> None:
    with warehouse.lake.reading() as con:
        assert kept_snapshots(con, LONG_AGO) == []
    audits = []
    for number in range(3):
        add(warehouse, number)
        audits.append(record_audit(warehouse.lake, run_id=f"b{number}", checks_passed=1, failed=[]).snapshot_id)
        if number < 2:
            publish(warehouse.lake, run_id="p")
    add(warehouse, 9)
    record_audit(warehouse.lake, run_id="b9", checks_passed=1, failed=["x"])
    with warehouse.lake.reading() as con:
        assert kept_snapshots(con, LONG_AGO) == audits
        # Of publications that ended before the moment given, only the one in force.
        assert kept_snapshots(con, datetime.now(UTC) + timedelta(seconds=1)) == audits[1:]


@pytest.fixture
def told(warehouse: Bench) -> Bench:
    """Three publications of one, two and three rows."""
    for number in (1, 2, 3):
        if number > 1:
            add(warehouse, number)
        record_audit(warehouse.lake, run_id=f"b{number}", checks_passed=1, failed=[])
        publish(warehouse.lake, run_id=f"p{number}")
    return warehouse


def published_at(bench: Bench) -> list[datetime]:
    return [at for (at,) in bench.sql("SELECT published_at FROM ops.publications ORDER BY publication_id")]


def seen_at(bench: Bench, moment: datetime) -> list[int]:
    with connect(bench.settings, as_of=moment) as con:
        return [n for (n,) in con.execute("SELECT n FROM sales ORDER BY n").fetchall()]


def test_what_readers_saw_at_a_moment(told: Bench) -> None:
    first, second, third = published_at(told)
    instant = timedelta(microseconds=1)
    assert seen_at(told, first) == [1]
    assert seen_at(told, second - instant) == [1]
    assert seen_at(told, second) == [1, 2]
    assert seen_at(told, third) == [1, 2, 3] == seen(told)
    # With a zone, or of UTC without one.
    abroad = (second - instant).replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=9)))
    assert seen_at(told, abroad) == [1]
    assert publication_at(told.lake, first - instant) is None
    with pytest.raises(PublicationError, match=f"by {first - instant} UTC; the first publication is of {first} UTC"):
        connect(told.settings, as_of=first - instant)


def note_times(bench: Bench, *days: int) -> list[datetime]:
    """Have the publications, in their order, noted at noon of so many days from now."""
    noon = datetime.now(UTC).replace(tzinfo=None, hour=12, minute=0, second=0, microsecond=0)
    times = [noon + timedelta(days=day) for day in days]
    for number, at in enumerate(times, start=1):
        bench.lake.write(
            lambda con, n=number, at=at: con.execute(
                "UPDATE ops.publications SET published_at = ? WHERE publication_id = ?", [at, n]
            ),
            "another clock",
        )
    refresh_readers(bench.settings)
    bench.close()
    return times


def test_what_readers_saw_when_the_clock_was_set_back(told: Bench) -> None:
    day = timedelta(days=1)
    first, second, third = note_times(told, -5, -8, -2)
    # The second came after the first, whatever it says; how long the first was in force, nobody knows.
    assert publication_at(told.lake, second) is None
    assert publication_at(told.lake, first - day) is None
    assert [seen_at(told, at) for at in (first, third - day, third)] == [[1, 2], [1, 2], [1, 2, 3]]
    assert seen(told) == [1, 2, 3]
    with told.lake.reading() as con:
        snapshots = [s for (s,) in con.execute("SELECT snapshot_id FROM ops.publications ORDER BY 1").fetchall()]
        assert kept_snapshots(con, datetime.now(UTC) - 6 * day) == snapshots
        assert kept_snapshots(con, datetime.now(UTC) - 4 * day) == snapshots[1:]


def test_what_readers_saw_when_the_clock_was_ahead_for_a_while(told: Bench) -> None:
    first, second, third = note_times(told, -5, 3000, -2)
    assert [seen_at(told, at) for at in (first, third, second)] == [[1, 2], [1, 2, 3], [1, 2, 3]]
    assert publication_at(told.lake, first - timedelta(days=1)) is None
    assert seen(told) == [1, 2, 3]
    maintain(told.lake, keep_days=0, belief_days=4, orphan_age_hours=0)
    assert [seen_at(told, at) for at in (third - timedelta(days=1), third)] == [[1, 2], [1, 2, 3]]


def test_what_was_seen_is_kept_for_as_long_as_the_setting_says(told: Bench) -> None:
    first, second, third = published_at(told)
    maintain(told.lake, keep_days=0, belief_days=1, orphan_age_hours=0)
    assert [seen_at(told, at) for at in (first, second, third)] == [[1], [1, 2], [1, 2, 3]]
    maintain(told.lake, keep_days=0, belief_days=0, orphan_age_hours=0)
    for gone in (first, second):
        with pytest.raises(PublicationError, match=r"is no longer kept: SLUICE_BELIEF_DAYS is 90"):
            connect(told.settings, as_of=gone)
    with pytest.raises(TypeError, match=r"as_of is a datetime, such as .*, and no str"):
        connect(told.settings, as_of="2026-01-05")  # type: ignore[arg-type]
    assert seen_at(told, third) == [1, 2, 3]


def test_a_build_is_known_by_its_code_and_its_batches(warehouse: Bench) -> None:
    assert not is_built(warehouse.lake, "sql-1")
    record_audit(warehouse.lake, run_id="b1", checks_passed=1, failed=[], code="sql-1")
    assert is_built(warehouse.lake, "sql-1")
    assert not is_built(warehouse.lake, "sql-2")
    books = "INSERT INTO ops.ledger (batch_id, rows_accepted) VALUES ('new', 2)"
    warehouse.lake.write(lambda con: con.execute(books), "a batch")
    assert not is_built(warehouse.lake, "sql-1")
    record_audit(warehouse.lake, run_id="b2", checks_passed=1, failed=[], code="sql-1")
    assert is_built(warehouse.lake, "sql-1")
    # A replayed dead letter is a row more in a batch that was there.
    warehouse.lake.write(lambda con: con.execute("UPDATE ops.ledger SET rows_accepted = 3"), "a replay")
    assert not is_built(warehouse.lake, "sql-1")
    record_audit(warehouse.lake, run_id="b3", checks_passed=1, failed=["x"], code="sql-1")
    assert not is_built(warehouse.lake, "sql-1")


def build(bench: Bench, number: int) -> int:
    """A load, built and passed; returns its snapshot."""
    add(bench, number)
    return record_audit(bench.lake, run_id=f"build {number}", checks_passed=1, failed=[]).snapshot_id


def test_readers_are_taken_back_and_stay_there_until_something_newer_passes(warehouse: Bench) -> None:
    first = build(warehouse, 2)
    publish(warehouse.lake, run_id="p")
    with pytest.raises(PublicationError, match="no publication before the present one"):
        roll_back(warehouse.lake, by="ann", why="?")
    build(warehouse, 3)
    publish(warehouse.lake, run_id="p")
    snapshots = warehouse.snapshots()
    back = roll_back(warehouse.lake, by="ann", why="prices are in pence")
    assert warehouse.snapshots() == snapshots + 1
    assert (back.publication_id, back.snapshot_id, back.pinned) == (3, first, False)
    assert (back.reason, back.decided_by) == ("rolled back to publication 1: prices are in pence", "ann")
    assert seen(warehouse) == [1, 2]
    # The build they were taken back from does not come back by itself.
    assert publish(warehouse.lake, run_id="again") == (back, False)
    assert seen(warehouse) == [1, 2]
    build(warehouse, 4)
    assert publish(warehouse.lake, run_id="p")[1]
    assert seen(warehouse) == [1, 2, 3, 4]
    # Any number, and forward again.
    roll_back(warehouse.lake, 1, by="ann", why="again")
    assert seen(warehouse) == [1, 2]
    roll_back(warehouse.lake, 2, by="ann", why="not so bad")
    assert seen(warehouse) == [1, 2, 3]
    for wrong in (99, 0, -1):
        with pytest.raises(PublicationError, match=f"no publication number {wrong}"):
            roll_back(warehouse.lake, wrong, by="ann", why="?")
    for nobody in ({"by": " ", "why": "x"}, {"by": "ann", "why": ""}):
        with pytest.raises(PublicationError, match="name both"):
            roll_back(warehouse.lake, 1, **nobody)


def test_pinned_readers_stay_whatever_is_built(warehouse: Bench) -> None:
    build(warehouse, 2)
    publish(warehouse.lake, run_id="p")
    held = pin(warehouse.lake, by="ann", why="quarter's end")
    assert held.pinned
    build(warehouse, 3)
    assert publish(warehouse.lake, run_id="p") == (held, False)
    assert seen(warehouse) == [1, 2]
    # Readers may be moved by hand, and stay held.
    assert roll_back(warehouse.lake, 1, by="ann", why="still").pinned
    freed = unpin(warehouse.lake, by="bob", why="done")
    assert (freed.pinned, freed.snapshot_id, freed.decided_by) == (False, held.snapshot_id, "bob")
    assert seen(warehouse) == [1, 2]
    with pytest.raises(PublicationError, match="not pinned"):
        unpin(warehouse.lake, by="bob", why="again")
    assert publish(warehouse.lake, run_id="p")[1]
    assert seen(warehouse) == [1, 2, 3]
    told = [(each.publication_id, bool(each.pinned), kept) for each, kept in publications(warehouse.lake)]
    assert told == [(5, False, True), (4, False, True), (3, True, True), (2, True, True), (1, False, True)]


def test_what_is_no_longer_kept_cannot_be_gone_back_to(warehouse: Bench) -> None:
    for number in (2, 3):
        build(warehouse, number)
        publish(warehouse.lake, run_id="p")
    maintain(warehouse.lake, keep_days=0, belief_days=0, orphan_age_hours=0)
    assert [kept for _, kept in publications(warehouse.lake)] == [True, False]
    with pytest.raises(PublicationError, match="is no longer kept: SLUICE_BELIEF_DAYS"):
        roll_back(warehouse.lake, by="ann", why="?")
    assert seen(warehouse) == [1, 2, 3]


def test_a_lake_of_an_earlier_version_can_be_rolled_back(warehouse: Bench) -> None:
    for number in (2, 3):
        build(warehouse, number)
        publish(warehouse.lake, run_id="p")
    for name in ("pinned", "decided_by"):
        warehouse.lake.write(lambda con, n=name: con.execute(f"ALTER TABLE ops.publications DROP COLUMN {n}"), "once")
    assert current_publication(warehouse.lake) is not None
    roll_back(warehouse.lake, by="ann", why="prices")
    assert seen(warehouse) == [1, 2]


def test_a_build_does_not_run_over_a_pin(warehouse: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    build(warehouse, 2)
    publish(warehouse.lake, run_id="p")
    build(warehouse, 3)
    look = publication.newest_audit
    held: list[Publication] = []

    def look_and_be_overtaken(con: duckdb.DuckDBPyConnection, *, only_passed: bool) -> Audit | None:
        """The transaction of `publish` has begun when somebody else pins the readers."""
        found = look(con, only_passed=only_passed)
        if not held:
            held.append(pin(warehouse.lake, by="ann", why="now"))
        return found

    monkeypatch.setattr(publication, "newest_audit", look_and_be_overtaken)
    assert publish(warehouse.lake, run_id="p") == (held[0], False)
    assert seen(warehouse) == [1, 2]
    assert [each.publication_id for each, _ in publications(warehouse.lake)] == [2, 1]


def test_what_was_loaded_since_the_build_is_not_published_as_it_is(warehouse: Bench) -> None:
    """For an erasure, which moves readers to files that were written anew."""
    record_audit(warehouse.lake, run_id="b", checks_passed=1, failed=[])
    publish(warehouse.lake, run_id="p")
    add(warehouse, 2)
    as_is = publish_as_is(warehouse.lake, reason="tables only", by="ann")
    assert (as_is.reason, as_is.decided_by) == ("tables only", "ann")
    warehouse.lake.write(
        lambda con: con.execute("INSERT INTO ops.ledger BY NAME SELECT 'b1' AS batch_id, 1 AS rows_accepted"), "a load"
    )
    with pytest.raises(PublicationError, match="Something was loaded since"):
        publish_as_is(warehouse.lake, reason="tables only")
