"""All of an erasure, in an order in which it can be cut short anywhere and run again.

First the person is entered into the list, so that from then on no load brings them in. Every step after that finds
nothing to do where it has been done before. What was personal is read from the snapshot before the first try for as
long as that is kept, so that a second try knows what to look for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from sluice.audits import latest_audit
from sluice.contracts import Contract
from sluice.erasure import bounds, landing, leftovers, purge, register, topics
from sluice.erasure.person import Person, Place, is_number, places, table_exists, values_of
from sluice.erasure.rows import Emptied, erase_rows
from sluice.erasure.search import Findings, in_parquet, search
from sluice.errors import ErasureError, PublicationError
from sluice.lake import Lake
from sluice.publication import current_publication, publish_as_is
from sluice.readers import refresh_readers
from sluice.shadows import sweep
from sluice.writers import alone

# A load that comes between the build and the publication is built, too; one after the other cannot always come.
_BUILDS = 3


@dataclass(frozen=True)
class Erased:
    """What an erasure did, and what the search after it found.

    `messages` of the embedded event log were rewritten. `delivered` are landing files that were delivered anew each
    time they were about to be rewritten.
    """

    rows: Emptied
    landing_files: int
    messages: int
    delivered: tuple[str, ...]
    logs: int
    snapshots: int
    files: int
    values_shared: int
    again: bool
    findings: Findings


def find(
    lake: Lake, contracts: Sequence[Contract], subject: str, person_id: str, logs: Sequence[Path] = ()
) -> Findings:
    """Look for a person everywhere, and change nothing."""
    where = _places(contracts, subject)
    _check(person_id)
    with lake.reading() as con:
        _in_bronze(con, where, person_id)
        values, _ = values_of(con, where, person_id, None)
    return search(lake, contracts, where, Person(subject, person_id, values), _logs(logs))


def erase(
    lake: Lake,
    contracts: Sequence[Contract],
    subject: str,
    person_id: str,
    *,
    rebuild: Callable[[], None],
    by: str = "",
    logs: Sequence[Path] = (),
    from_logs: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Erased:
    """Erase a person, and look for them afterwards.

    Args:
        lake: where they are.
        contracts: all there are.
        subject: what kind of person, as the contracts call it.
        person_id: their id, as the sources write it.
        rebuild: builds, tests and audits silver and gold.
        by: who asked for it; kept with the entry in the list.
        logs: folders outside the home folder with logs, which are cleaned and searched, too.
        from_logs: erase also an id that stands nowhere but in logs, where another number may have its digits.
        tell: is told each step.

    Raises:
        ErasureError: no contract names such people; the person was never erased and is nowhere, or in logs only
            without `from_logs`; the build failed; or somebody holds the catalog.
        LandingError, EventLogUnavailableError: a source's folder, or the topics, cannot be listed; nothing was changed.
        LakeUnavailableError, StorageFullError: as `Lake`.
    """
    where = _places(contracts, subject)
    _check(person_id)
    # To be told now, and not in the midst of it.
    landing.routed(lake.settings, contracts)
    topics.topic_names(lake.settings)
    lake.create()
    with lake.reading() as con:
        present = register.register_key(lake.settings)
        # Before one is made where the list has a key already, which is only not here: it would be taken for that.
        register.check_key(con, present.id)
        known = _in_bronze(con, where, person_id) or register.listed(con, subject, present.digest(person_id))
    if not known:
        tell("looking for the person, who is not in bronze")
        findings = search(lake, contracts, where, Person(subject, person_id), _logs(logs))
        if not findings.found:
            told = (
                f"There is no {subject} of this id: not in bronze, dead letters, landing files or logs, nor among the "
                "erased. Nothing was changed. Give the id as the source writes it."
            )
            if findings.unsearched:
                told += (
                    f" {_some(findings.unsearched)} could not be searched: mend or remove such files and run the same "
                    "command again."
                )
            raise ErasureError(told)
        if findings.only_mentioned and not from_logs:
            raise ErasureError(
                f"No row, dead letter, message or landing file names a {subject} of this id. It stands in "
                f"{_some(findings.mentions)}, where it may be any other number. Nothing was changed. Give the id as "
                "the source writes it; if it is right, erase it from there with --from-logs."
            )
    key = register.register_key(lake.settings, create=True)
    digest = key.digest(person_id)
    with lake.reading() as con:
        now = lake.current_snapshot(con)

    def begin(con: duckdb.DuckDBPyConnection) -> tuple[int, bool]:
        # What is being read again was read before they were on the list; what is begun from here on is without them.
        sweep(con)
        return register.note(con, subject, digest, key.id, now, by)

    before, again = lake.write(begin, f"erasure of a {subject}: begun")
    with lake.reading() as con:
        values, shared = values_of(con, where, person_id, before)
    person = Person(subject, person_id, values)

    def reached(state: str, **counts: int) -> None:
        lake.write(
            lambda con: register.reach(con, subject, digest, state, **counts), f"erasure of a {subject}: {state}"
        )

    tell("landing files")
    cleaned = landing.clean(lake, contracts, where, person)
    tell("topics")
    messages = topics.clean(lake.settings, topics.topics_of(contracts, where), person)
    tell("bronze and dead letters")

    def work(con: duckdb.DuckDBPyConnection) -> Emptied:
        done = erase_rows(con, where, person)
        counts = {"rows_removed": done.rows_removed, "rows_emptied": done.rows_emptied}
        register.reach(con, subject, digest, "bronze", **counts, letters_emptied=done.letters_emptied)
        return done

    rows = lake.write(work, f"erasure of a {subject}: bronze and dead letters")
    tell("silver, gold and their gates")
    _build(lake, rebuild, by)
    tell("logs")
    blanked = leftovers.clean_logs(_unread(lake, logs), person)
    tell("old snapshots and their files")
    reached("built")
    expired, removed = purge.forget_the_past(lake)
    bounds.widen(lake, person)
    if not lake.settings.uses_postgres:
        with alone(lake.settings):
            purge.wipe_sqlite(lake.settings.catalog_path)
        # Former copies name files that are gone, and may hold values of the person.
        refresh_readers(lake.settings, only=True)
    tell("the search")
    findings = search(lake, contracts, where, person, _logs(logs))
    findings = _without_orphans(lake, contracts, where, person, logs, findings)
    if findings.nowhere and not cleaned.delivered:
        reached("done")
    return Erased(rows, cleaned.files, messages, cleaned.delivered, blanked, expired, removed, shared, again, findings)


def _places(contracts: Iterable[Contract], subject: str) -> list[Place]:
    contracts = list(contracts)
    where = places(contracts, subject)
    if not where:
        known = sorted({s for c in contracts for s in c.subjects})
        raise ErasureError(
            f"No contract has a column that names a {subject}. "
            + (f"They name: {', '.join(known)}." if known else "Give such columns the customProperty `subject`.")
        )
    return where


def _some(names: Iterable[str]) -> str:
    first, *rest = sorted(names)
    return f"{first} and {len(rest)} more" if rest else first


def _check(person_id: str) -> None:
    if not person_id.strip():
        raise ErasureError("The id is empty. Give that of one person.")
    try:
        person_id.encode()
    except UnicodeEncodeError:
        raise ErasureError("The id is no UTF-8. Give it as the source writes it, in UTF-8.") from None


def _in_bronze(con: duckdb.DuckDBPyConnection, where: Iterable[Place], person_id: str) -> bool:
    """Whether a row of bronze names the person.

    Raises:
        ErasureError: none does, but one would if the id were written as bronze has it.
    """
    there = [place for place in where if table_exists(con, place.contract.name)]

    def named(text: str) -> bool:
        given = {"id": text}
        return any(
            con.execute(f"SELECT 1 FROM {p.table} WHERE {p.is_theirs()} LIMIT 1", given).fetchone() for p in there
        )

    if named(person_id):
        return True
    others = {person_id.strip()}
    for kind in {column.type for place in there for column in place.ids if is_number(column)}:
        row = con.execute(f"SELECT CAST(TRY_CAST(trim(?) AS {kind}) AS VARCHAR)", [person_id]).fetchone()
        others |= {row[0]} if row and row[0] else set()
    for text in sorted(others - {person_id}):
        if named(text):
            # Without the id: what this prints may be kept.
            raise ErasureError(
                "Bronze has nobody of exactly this id, but somebody of it in another form (without blanks, a plus or "
                "zeros in front). Nothing was changed. Give the id as bronze has it."
            )
    return False


def _build(lake: Lake, rebuild: Callable[[], None], by: str) -> None:
    """Build, and publish what was built, pinned readers as well: what they see is about to go.

    Raises:
        ErasureError: a gate failed.
    """
    with lake.reading() as con:
        built = con.execute(
            "SELECT 1 FROM duckdb_tables() WHERE database_name = 'lake' AND schema_name = 'gold' LIMIT 1"
        ).fetchone()
    if not built:
        purge.compact(lake)
        return
    for _ in range(_BUILDS):
        before = _ledger(lake)
        rebuild()
        audit = latest_audit(lake)
        if audit is None or not audit.passed:
            failed = ", ".join(audit.failed[:5]) if audit else "there is no audit"
            raise ErasureError(
                f"The build after the erasure did not pass its gates ({failed}). The person is out of bronze, not yet "
                "out of what readers see. Mend it and run the same command again."
            )
        # Written anew, no file holds a row that is only marked as deleted; content does not change by it.
        purge.compact(lake)
        if _ledger(lake) == before:
            break
    if current_publication(lake) is None:
        return
    try:
        publish_as_is(lake, reason="erasure of a person", by=by)
    except PublicationError as error:
        raise ErasureError(
            f"{error} The person is out of bronze, not yet out of what readers see: run the same command again when "
            "fewer files arrive."
        ) from error


def _ledger(lake: Lake) -> object:
    """Changes with every load, whatever the clock says."""
    with lake.reading() as con:
        return con.execute("SELECT count(*), bit_xor(hash(l)) FROM ops.ledger AS l").fetchone()


def _unread(lake: Lake, logs: Sequence[Path]) -> list[Path]:
    """Logs and the like: the home folder without the lake, what is delivered, work under way, and configuration."""
    settings = lake.settings
    own = [settings.home / "lake", settings.landing_path, settings.temp_path, settings.erasure_key_path]
    # A topic's files have checksums: they are rewritten by themselves.
    own += [
        settings.readers_path,
        *settings.logs_of_events,
        settings.home / "published.sql",
        *leftovers.configuration(settings),
    ]
    if "://" not in settings.lake_data_path:
        own.append(Path(settings.lake_data_path))
    return [*leftovers.files_of([settings.home], *own), *_logs(logs)]


def _logs(folders: Iterable[Path]) -> list[Path]:
    """What dbt leaves beside its project: logs and results. The rest is made of the project, not of data."""
    found = leftovers.files_of(folders)
    # Path's own raises where a folder tells the names in it, and no more.
    return [p for p in found if p.suffix == ".log" or p.name == "run_results.json" or os.path.isdir(p)]  # noqa: PTH112


def _without_orphans(
    lake: Lake,
    contracts: Sequence[Contract],
    where: Sequence[Place],
    person: Person,
    logs: Sequence[Path],
    findings: Findings,
) -> Findings:
    """Where the person is found in data files of transactions that were cut short, remove those and look once more."""
    if findings.nowhere or "://" in lake.settings.lake_data_path:
        return findings
    with lake.connect() as con:
        names = [Path(name) for name in purge.orphans(con)]
    if not names:
        return findings
    theirs = [path for path in names if path.exists() and in_parquet(lake, contracts, where, person, path)]
    for path in theirs:
        path.unlink()
    return search(lake, contracts, where, person, _logs(logs)) if theirs else findings
