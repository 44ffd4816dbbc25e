"""Logs and Dagster's own storage without the person: blanked in place, as long as before.

Nothing here is read by a pipeline. In a text that is no record a number alone says little: a process or a count of rows
may have the digits of an id. It is blanked all the same, but for a bare number that is a value of JSON, which no id is
here.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from sluice.erasure.person import Person
from sluice.erasure.purge import wipe_sqlite
from sluice.erasure.spelling import Bytes, blanked
from sluice.settings import Settings

SQLITE = b"SQLite format 3\0"
PARQUET = b"PAR1"
GZIP = b"\x1f\x8b"

_log = logging.getLogger(__name__)

# Before a bare number that is a value of JSON: an unescaped quote ends the key.
_KEY = re.compile(rb'(?<!\\)"\s*:\s*$')
_AFTER = re.compile(rb"\s*[,}]")


def configuration(settings: Settings) -> list[Path]:
    """What people have written to set Sluice up. An id may be a number, and stand there for another."""
    return [settings.home / "settings.env", settings.home / "dagster" / "dagster.yaml"]


def tokens(person: Person, text: Bytes) -> Iterator[tuple[int, int]]:
    """Where the person stands in a log: every token, but for bare numbers of JSON."""
    for start, end in person.tokens.spans(text):
        bare = text[start:end].isdigit() and _KEY.search(text, max(0, start - 8), start)
        if not (bare and _AFTER.match(text, end)):
            yield start, end


def files_of(folders: Iterable[Path], *without: Path) -> list[Path]:
    """All files below the folders, but for those below `without`.

    A folder that cannot be listed stands for itself: of what is in it nobody can say anything. So does a link that
    leads out of the folders, for whatever is there may be anybody's.
    """
    folders = list(folders)
    inside = [folder.resolve() for folder in folders]
    found = set()

    def told(error: OSError) -> None:
        # One that is not there, or not any more, holds nothing.
        if not isinstance(error, FileNotFoundError):
            found.add(Path(error.filename))

    for folder in folders:
        for root, below, names in os.walk(folder, onerror=told):
            here = Path(root)
            below[:] = [name for name in below if here / name not in without]
            for path in (here / name for name in [*below, *names]):
                try:
                    if path.is_symlink():
                        there = path.resolve()
                        if there.exists() and not any(there.is_relative_to(folder) for folder in inside):
                            found.add(path)
                    elif path not in without and path.is_file():
                        found.add(path)
                except PermissionError:
                    # Its folder tells the names in it, and no more.
                    found.add(here)
    return sorted(found)


def clean_logs(paths: Iterable[Path], person: Person) -> int:
    """Blank the person in text files and SQLite databases; returns in how many files they were.

    What cannot be cleaned, because it may not be written or is damaged, is left to the search, which names it.

    Raises:
        ErasureError: somebody holds a database.
    """
    changed = 0
    for path in paths:
        try:
            if path.is_symlink():
                continue
            head = path.open("rb").read(16)
            if head.startswith(SQLITE):
                changed += clean_sqlite(path, person)
            elif not head.startswith((PARQUET, GZIP)):
                changed += _clean_text(path, person)
        except (OSError, sqlite3.Error) as error:
            # Also a log that was rotated away, or files of a run that has ended.
            _log.info("%s was not cleaned: %s", path, type(error).__name__)
    return changed


def _clean_text(path: Path, person: Person) -> bool:
    data = path.read_bytes()
    out = blanked(data, tokens(person, data))
    if out == data:
        return False
    with path.open("r+b") as file:
        # In place: whoever writes the log goes on in the same file. Not beyond what was read: it may have grown.
        file.write(out)
    return True


def clean_sqlite(path: Path, person: Person) -> bool:
    """Blank the person in every text of a database, and wipe what was there."""
    con = sqlite3.connect(path, timeout=30)
    found = False
    try:
        con.text_factory = bytes
        for table, columns in sqlite_columns(con):
            for column in columns:
                rows = con.execute(
                    f'SELECT rowid, "{column}" FROM "{table}" WHERE typeof("{column}") = \'text\''
                ).fetchall()
                for rowid, text in rows:
                    out = blanked(text, tokens(person, text))
                    if out != text:
                        con.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', [out.decode(), rowid])
                        found = True
        con.commit()
    finally:
        con.close()
    if found:
        wipe_sqlite(path)
    return found


def sqlite_columns(con: sqlite3.Connection) -> list[tuple[str, list[str]]]:
    """Tables that have a rowid, and their columns."""
    rows = con.execute(
        "SELECT t.name, c.name FROM pragma_table_list AS t, pragma_table_info(t.name) AS c "
        "WHERE t.schema = 'main' AND t.type = 'table' AND NOT t.wr AND t.name NOT LIKE 'sqlite_%' "
        "ORDER BY t.name, c.cid"
    ).fetchall()
    found: dict[str, list[str]] = {}
    for table, column in rows:
        found.setdefault(_text(table), []).append(_text(column))
    return list(found.items())


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
