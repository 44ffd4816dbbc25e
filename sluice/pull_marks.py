"""How far a source is pulled (`ops.pulls`): a mark for each file, and from which of them the next pull goes on.

A file counts while it is in the landing area, or once it has been read (`ops.positions`). One that is neither, because
the lake was restored without its landing area or somebody removed it, takes its mark with it: the next pull goes on
from the file before. Only marks belong here; asking the database is `sluice.pull`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import duckdb

from sluice.contracts import Contract
from sluice.errors import LandingError
from sluice.lake import Lake


@dataclass(frozen=True)
class Note:
    """How far a source was pulled with one file.

    Attributes:
        number: of the file; 0 before the first.
        mark: the newest cursor up to there, as the source's text; None: nothing yet.
        recent: hashes of the rows that the next pull may give again.
        file: relative to the landing folder; None: there is none that could be lost.
        written: False while the file is on its way, and the mark still that of the one before.
        pulled: what was pulled by which cursor, as `sluice.pull` says it; None: noted by an earlier version.
    """

    number: int
    mark: str | None
    recent: list[str]
    file: str | None
    written: bool
    pulled: str | None


@dataclass(frozen=True)
class State:
    """What the next pull goes on from.

    Attributes:
        note: its mark, and the number of the last file.
        kept: numbers of the notes that stay beside its own.
        wound_back: whether it is not that of the last file.
        told: what people should know of it.
        read: the source's files that are in the books.
    """

    note: Note
    kept: list[int]
    wound_back: bool
    told: tuple[str, ...]
    read: frozenset[str]


def state(lake: Lake, contract: Contract) -> State:
    """Where the next pull of a source goes on.

    Raises:
        LandingError: files that have not been read are gone, and so is the landing folder.
        LakeUnavailableError: as `Lake`.
    """
    with lake.reading() as con:
        notes = [
            Note(*row)
            for row in con.execute(
                "SELECT number, mark, recent, file, written, pulled FROM ops.pulls WHERE source = ? ORDER BY number",
                [contract.name],
            ).fetchall()
        ]
        found = con.execute("SELECT file FROM ops.positions WHERE source = ?", [contract.name]).fetchall()
    read = frozenset(file for (file,) in found)
    if not notes:
        return State(Note(0, None, [], None, True, None), [], False, (), read)

    def known(note: Note) -> bool:
        return note.file is None or note.file in read

    def lost(note: Note) -> bool:
        return note.written and not known(note) and not (lake.settings.landing_path / (note.file or "")).exists()

    told: tuple[str, ...] = ()
    if lost(notes[0]):
        # Noted by a version that kept one mark only, or its rows were given up with `force`.
        told = (
            f"{_gone(notes[0])}; where it began is not noted. If its rows are wanted, wind the mark back with `sluice "
            f"pull {contract.name} --from MARK`.",
        )
        notes[0] = replace(notes[0], file=None)
    # Of files that have been read, all but the last need no mark of their own any more.
    while len(notes) > 1 and notes[0].written and notes[1].written and known(notes[0]) and known(notes[1]):
        notes.pop(0)
    last = notes[-1]
    kept = [note.number for note in notes if note.written]
    first = next((place for place, note in enumerate(notes) if lost(note)), None)
    if first is None:
        return State(last, kept, False, told, read)
    if not lake.settings.landing_path.is_dir():
        raise LandingError(
            f"The landing folder {lake.settings.landing_path} is not there, and {notes[first].file} in it has not been "
            "read. Mount it; or create it, and what has not been read is pulled again."
        )
    before = notes[first - 1]
    since = "from the beginning" if before.mark is None else f"from the mark {before.mark}"
    told = (*told, f"{_gone(notes[first])}: its rows are pulled again, {since}.")
    return State(replace(last, mark=before.mark, recent=before.recent), kept[:first], True, told, read)


def _gone(note: Note) -> str:
    return f"{note.file} has not been read and is not in the landing area"


def save(lake: Lake, contract: Contract, note: Note, kept: list[int], rows: int) -> None:
    """Note how far a source is pulled, and forget the notes of others of its files than those kept.

    Raises:
        LakeUnavailableError, StorageFullError: as `Lake`.
    """

    def write(con: duckdb.DuckDBPyConnection) -> None:
        con.execute(
            "DELETE FROM ops.pulls WHERE source = ? AND (number = ? OR NOT list_contains(?::BIGINT[], number))",
            [contract.name, note.number, kept],
        )
        con.execute(
            "INSERT INTO ops.pulls BY NAME SELECT ? AS source, ? AS number, ? AS mark, ?::VARCHAR[] AS recent, "
            "? AS file, ? AS written, ? AS pulled, ? AS rows, now()::TIMESTAMP AS pulled_at",
            [contract.name, note.number, note.mark, note.recent, note.file, note.written, note.pulled, rows],
        )

    lake.write(write, f"mark of the pull of {contract.name}")
