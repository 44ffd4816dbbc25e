"""Publication: which snapshot of the lake readers see, and who may move it there.

Publishing moves a number to the snapshot of the newest build that passed its gates (`sluice.audits`); readers pin
themselves to that number. No data is copied, only the catalog (`sluice.readers`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from sluice.audits import fingerprint, newest_audit
from sluice.connections import scrub
from sluice.errors import LakeUnavailableError, PublicationError
from sluice.lake import LAKE, Lake, newest_copy
from sluice.live import refresh_live_views
from sluice.ops_tables import now_utc
from sluice.readers import refresh_readers
from sluice.settings import Settings, load_settings

_log = logging.getLogger(__name__)

# Publications, and since when readers saw each. Numbers say in which order they came, whatever the clock said: one
# noted earlier than its predecessor (the clock was set back) began after it; and a time that still lies ahead was noted
# by a clock that was wrong, and says nothing.
_SINCE = (
    "(SELECT *, max(published_at) FILTER (published_at <= $now) OVER (ORDER BY publication_id) AS since "
    "FROM ops.publications)"
)


@dataclass(frozen=True)
class Publication:
    """What readers see from some moment on."""

    publication_id: int
    snapshot_id: int
    run_id: str
    reason: str
    published_at: datetime
    pinned: bool | None = None
    decided_by: str | None = None

    def facts(self) -> dict[str, str | int | bool]:
        """What is told of it in the UI; `by` and `why` of what people decided."""
        told = {"by": self.decided_by, "why": self.reason}
        return {
            "snapshot": self.snapshot_id,
            "publication": self.publication_id,
            "pinned": bool(self.pinned),
            "since": f"{self.published_at:%Y-%m-%d %H:%M:%S} UTC",
            **{name: text for name, text in told.items() if text},
        }


def publish_as_is(lake: Lake, *, reason: str, by: str = "") -> Publication:
    """Move readers to the lake's present snapshot, pinned ones too, and hold them there if they were held.

    For changes of how tables are stored, not of what they hold, and for those that nobody may be held back from. `by`
    says who decided it.

    Raises:
        PublicationError: the newest audit failed, or there is none, or something was loaded since.
    """

    def work(con: duckdb.DuckDBPyConnection) -> Publication:
        audit, current = newest_audit(con, only_passed=False), _current(con)
        if audit is None or not audit.passed:
            raise PublicationError("The newest build did not pass its gates. Readers stay where they are.")
        if fingerprint(con, "") != fingerprint(con, "", audit.snapshot_id):
            raise PublicationError(
                "Something was loaded since the newest build. Readers stay where they are. Build again."
            )
        _take_turn(con)
        pinned = bool(current and current.pinned)
        return _insert(con, lake.current_snapshot(con), audit.run_id, reason, pinned=pinned, by=by)

    return _shown(lake, lake.write(work, "publish"))


def publish(lake: Lake, *, run_id: str, reason: str = "") -> tuple[Publication, bool]:
    """Move readers to the snapshot of the newest audit, if it passed.

    They stay where they are while they are pinned, and if they have been taken back from that very snapshot.

    Returns:
        The publication in force, and whether it is new (false: readers stay where they are).

    Raises:
        PublicationError: there is no audit yet, or the newest one failed; readers stay where they were.
    """

    def work(con: duckdb.DuckDBPyConnection) -> tuple[Publication, bool]:
        audit = newest_audit(con, only_passed=False)
        current = _current(con)
        stay = f"Readers stay at snapshot {current.snapshot_id}." if current else "Nothing is published yet."
        if audit is None:
            raise PublicationError(
                f"The warehouse has never been built whole. {stay} Materialize silver and gold first."
            )
        if not audit.passed:
            raise PublicationError(
                f"The newest build (snapshot {audit.snapshot_id}) failed {audit.checks_failed} of its gates: "
                f"{', '.join(audit.failed[:5])}. {stay} Mend the data or the gate and build again."
            )
        if current is not None and (current.pinned or audit.snapshot_id <= _newest_ever(con)):
            return current, False
        _take_turn(con)
        return _insert(con, audit.snapshot_id, run_id, reason), True

    publication, moved = lake.write(work, "publish")
    return _shown(lake, publication), moved


def roll_back(
    lake: Lake, publication_id: int | None = None, *, by: str, why: str, pinned: bool | None = None
) -> Publication:
    """Move readers back to what an earlier publication showed: a number moves, no data.

    What they are taken back from is not published again; the next build that passes moves them on, unless they are
    pinned.

    Args:
        lake: whose readers.
        publication_id: of an earlier publication; the one before the present one when None.
        by: who does it, kept with the publication.
        why: likewise.
        pinned: hold readers there (true) or not (false); as before when None.

    Raises:
        PublicationError: there is no such publication, or what it showed is no longer kept.
    """
    return _move_readers(lake, publication_id, by=by, why=why, pinned=pinned, stay=False)


def pin(lake: Lake, publication_id: int | None = None, *, by: str, why: str) -> Publication:
    """Hold readers at a publication, the present one when None: builds go on, and move nobody until `unpin`.

    Raises:
        PublicationError: as `roll_back`.
    """
    return _move_readers(lake, publication_id, by=by, why=why, pinned=True, stay=publication_id is None)


def _move_readers(
    lake: Lake, publication_id: int | None, *, by: str, why: str, pinned: bool | None, stay: bool
) -> Publication:
    """The body of `roll_back` and `pin`; `stay` at the present publication."""
    _prepare(lake, by, why)

    def work(con: duckdb.DuckDBPyConnection) -> Publication:
        current = _current(con)
        if current is None:
            raise PublicationError(_nothing_published(lake, None))
        _take_turn(con)
        number = current.publication_id if stay else publication_id
        row = con.execute(
            # As text: what somebody typed may be no number that DuckDB holds.
            "SELECT * FROM ops.publications WHERE CASE WHEN $id IS NULL THEN snapshot_id < $snapshot "
            "ELSE publication_id::VARCHAR = $id END ORDER BY publication_id DESC LIMIT 1",
            {"id": None if number is None else str(number), "snapshot": current.snapshot_id},
        ).fetchone()
        if row is None:
            said = "before the present one" if publication_id is None else f"number {publication_id}"
            raise PublicationError(f"There is no publication {said}. See `sluice publish list`.")
        wanted = Publication(*row)
        if not _holds(con, wanted.snapshot_id):
            raise PublicationError(
                f"What publication {wanted.publication_id} showed (snapshot {wanted.snapshot_id}) is no longer kept: "
                f"{_why_gone(lake)}"
            )
        hold = bool(current.pinned) if pinned is None else pinned
        verb = "pinned" if hold else "rolled back"
        reason = f"{verb} to publication {wanted.publication_id}: {why}"
        return _insert(con, wanted.snapshot_id, wanted.run_id, reason, pinned=hold, by=by)

    return _shown(lake, lake.write(work, "roll back"))


def unpin(lake: Lake, *, by: str, why: str) -> Publication:
    """Let the next build that passes move readers again; they stay where they are until then.

    Raises:
        PublicationError: they are not pinned.
    """
    _prepare(lake, by, why)

    def work(con: duckdb.DuckDBPyConnection) -> Publication:
        current = _current(con)
        if current is None or not current.pinned:
            raise PublicationError("Readers are not pinned. See `sluice publish list`.")
        _take_turn(con)
        return _insert(con, current.snapshot_id, current.run_id, f"unpinned: {why}", by=by)

    return _shown(lake, lake.write(work, "unpin"))


def _shown(lake: Lake, publication: Publication) -> Publication:
    """The publication, now that readers have been given a catalog that knows of it.

    Also when it is no new one: a process killed between the two has given them none.
    """
    problems = refresh_live_views(lake, publication.snapshot_id)
    for view, why in problems.items():
        _log.warning("There is no gold.%s of snapshot %s: %s", view, publication.snapshot_id, why)
    refresh_readers(lake.settings)
    return publication


def publications(lake: Lake, limit: int = 20) -> list[tuple[Publication, bool]]:
    """The newest publications, and whether what each showed is still kept; newest first."""
    with lake.reading() as con:
        rows = con.execute(
            "SELECT p, EXISTS (SELECT 1 FROM ducklake_snapshots($lake) AS s WHERE s.snapshot_id = p.snapshot_id) "
            "FROM ops.publications AS p ORDER BY publication_id DESC LIMIT $limit",
            {"lake": LAKE, "limit": limit},
        ).fetchall()
    return [(Publication(**row), kept) for row, kept in rows]


def _prepare(lake: Lake, by: str, why: str) -> None:
    """What moving readers by hand needs: a name, a reason, something published, and columns for them.

    Raises:
        PublicationError: something of it is missing.
        LakeUnavailableError: there is no lake.
    """
    if not by.strip() or not why.strip():
        raise PublicationError("Who moves readers, and why, is kept with the publication: name both.")
    if current_publication(lake) is None:
        raise PublicationError(_nothing_published(lake, None))
    # A lake made by an earlier version lacks columns.
    lake.create()


# As what movers of readers take turns, among the sources in `ops.turns`: no contract can be called so.
_TURN = "(publication)"


def _take_turn(con: duckdb.DuckDBPyConnection) -> None:
    """Conflict with whoever else moves readers at the same time: a build must not run over a pin.

    With a SQLite catalog any commit in between is a conflict already; with PostgreSQL both inserts would be taken.
    """
    row = con.execute("UPDATE ops.turns SET n = n + 1 WHERE source = ?", [_TURN]).fetchone()
    if not row or not row[0]:
        con.execute("INSERT INTO ops.turns VALUES (?, 0)", [_TURN])


def _newest_ever(con: duckdb.DuckDBPyConnection) -> int:
    """The newest snapshot readers have ever seen."""
    row = con.execute("SELECT coalesce(max(snapshot_id), -1) FROM ops.publications").fetchone()
    assert row is not None, "an aggregate has a row"
    return int(row[0])


def _insert(
    con: duckdb.DuckDBPyConnection, snapshot: int, run_id: str, reason: str, *, pinned: bool = False, by: str = ""
) -> Publication:
    row = con.execute("SELECT coalesce(max(publication_id), 0) + 1 FROM ops.publications").fetchone()
    assert row is not None, "an aggregate has a row"
    new = Publication(row[0], snapshot, run_id, reason, now_utc(), pinned, by)
    con.execute(
        "INSERT INTO ops.publications (publication_id, snapshot_id, run_id, reason, published_at, pinned, decided_by) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [new.publication_id, new.snapshot_id, new.run_id, new.reason, new.published_at, new.pinned, new.decided_by],
    )
    return new


def _current(con: duckdb.DuckDBPyConnection) -> Publication | None:
    row = con.execute("SELECT * FROM ops.publications ORDER BY publication_id DESC LIMIT 1").fetchone()
    return Publication(*row) if row else None


def current_publication(lake: Lake, copy: Path | None = None) -> Publication | None:
    """What readers see now, by a copy of the catalog if one is given; None before the first publication."""
    with lake.connect(read_only=True, copy=copy) as con:
        return _current(con)


def kept_snapshots(con: duckdb.DuckDBPyConnection, since: datetime) -> list[int]:
    """Snapshots that maintenance must keep.

    The published one, those that were published at or after `since` (readers may still be pinned to them), and the
    newest passed audit, which may yet be published.
    """
    audit, current = newest_audit(con, only_passed=True), _current(con)
    rows = con.execute(
        # Readers were pinned to a publication until the next one came; a moment nobody knows may have been of late.
        "SELECT snapshot_id FROM (SELECT snapshot_id, coalesce(lead(since) OVER (ORDER BY publication_id), $now) "
        f"AS until FROM {_SINCE}) WHERE until >= $since",
        {"since": _utc(since), "now": now_utc()},
    ).fetchall()
    kept = {row[0] for row in rows}
    if audit:
        kept.add(audit.snapshot_id)
    if current:
        kept.add(current.snapshot_id)
    return sorted(kept)


def expire(lake: Lake, con: duckdb.DuckDBPyConnection, choose: Callable[[duckdb.DuckDBPyConnection], list[int]]) -> int:
    """Expire the snapshots `choose` names, in a transaction in which nobody moves readers to one of them.

    Whoever chose first and expired then could take away what readers have just been taken back to.

    Args:
        lake: of the snapshots.
        con: of this lake, that may write.
        choose: is called within; it must be repeatable, and leave out what is published (`kept_snapshots`).

    Returns:
        How many.

    Raises:
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    if not choose(con):
        return 0

    def work(c: duckdb.DuckDBPyConnection) -> int:
        _take_turn(c)
        chosen = choose(c)
        if chosen:
            c.execute(f"CALL ducklake_expire_snapshots('{LAKE}', versions => {chosen!r})")
        return len(chosen)

    return lake.transaction(con, work, "expire snapshots")


def publication_at(lake: Lake, moment: datetime, copy: Path | None = None) -> Publication | None:
    """What readers saw at a moment; None if nothing had been published by then.

    Args:
        lake: whose publications are asked.
        moment: without a zone, of UTC.
        copy: of the catalog, to be asked instead of the lake's own.
    """
    with lake.connect(read_only=True, copy=copy) as con:
        row = con.execute(
            f"SELECT * EXCLUDE (since) FROM {_SINCE} WHERE since <= $moment ORDER BY publication_id DESC LIMIT 1",
            {"moment": _utc(moment), "now": now_utc()},
        ).fetchone()
    return Publication(*row) if row else None


def connect(
    settings: Settings | None = None, *, as_of: datetime | None = None, live: bool = False
) -> duckdb.DuckDBPyConnection:
    """A read-only DuckDB connection pinned to the published snapshot, the lake attached as `lake`, schema gold in use.

    Every table is seen as of one instant, at which all gates had passed; loads going on meanwhile are not seen. Connect
    again to see a later publication.

    With `live` nothing is pinned, and each query sees the lake as it is: for the views `gold.live_*`, which join to
    what is published the rows of bronze that have come since. Those have passed their batch's gates, not those of gold.

    Args:
        settings: of the lake; those of the environment when left out.
        as_of: see what readers saw at this moment (without a zone, of UTC) instead of what they see now. Maintenance
            keeps it for SLUICE_BELIEF_DAYS days after something newer was published.
        live: see what has streamed in since, too. Takes an account that may write beside an SQLite catalog.

    Raises:
        PublicationError: `as_of` and `live` were both asked for, nothing had been published by then, or what had been
            is no longer kept.
        LakeUnavailableError: there is no lake, or its catalog cannot be reached.
        TypeError: `as_of` is no datetime.
    """
    if not isinstance(as_of, datetime | None):
        raise TypeError(f"as_of is a datetime, such as datetime(2026, 1, 5, 12), and no {type(as_of).__name__}.")
    lake = Lake(settings or load_settings())
    if live:
        if as_of is not None:
            raise PublicationError("What is live is of now: ask for it without a moment.")
        if current_publication(lake) is None:
            raise PublicationError(_nothing_published(lake, None))
        return _for_callers(lake.connect(read_only=True))
    copy = newest_copy(lake.settings)
    publication = current_publication(lake, copy) if as_of is None else publication_at(lake, as_of, copy)
    if publication is None:
        raise PublicationError(_nothing_published(lake, as_of))
    if as_of is not None and not _is_kept(lake, publication.snapshot_id, copy):
        raise PublicationError(
            f"What readers saw at {_utc(as_of)} UTC (publication {publication.publication_id}, snapshot "
            f"{publication.snapshot_id}) is no longer kept: {_why_gone(lake)}"
        )
    try:
        con = lake.connect(read_only=True, snapshot=publication.snapshot_id, copy=copy)
    except duckdb.Error as error:
        raise LakeUnavailableError(
            f"Snapshot {publication.snapshot_id} is published but cannot be attached: {scrub(str(error))}"
        ) from error
    return _for_callers(con)


def _for_callers(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A connection as people want it: gold's tables by their names alone, and their own DataFrames by theirs."""
    con.execute(f"USE {LAKE}.gold")
    con.execute("SET python_enable_replacements = true")
    return con


def _nothing_published(lake: Lake, as_of: datetime | None) -> str:
    if as_of is not None:
        with lake.reading() as con:
            row = con.execute("SELECT min(published_at) FROM ops.publications").fetchone()
        if row and row[0]:
            return f"Nothing had been published by {_utc(as_of)} UTC; the first publication is of {row[0]} UTC."
    return "Nothing has been published yet. Run `make demo`, or materialize everything in the UI."


def _why_gone(lake: Lake) -> str:
    return f"SLUICE_BELIEF_DAYS is {lake.settings.belief_days}, and an erasure keeps nothing of before."


def _is_kept(lake: Lake, snapshot: int, copy: Path | None) -> bool:
    with lake.connect(read_only=True, copy=copy) as con:
        return _holds(con, snapshot)


def _holds(con: duckdb.DuckDBPyConnection, snapshot: int) -> bool:
    return (
        con.execute("SELECT 1 FROM ducklake_snapshots(?) WHERE snapshot_id = ?", [LAKE, snapshot]).fetchone()
        is not None
    )


def _utc(moment: datetime) -> datetime:
    """As the lake's columns have it: of UTC, without a zone."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
