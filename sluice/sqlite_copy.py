"""Copies an SQLite database as of one instant: `python sqlite_copy.py SOURCE TARGET`; `sluice.sqlite_catalog` runs it.

Belongs here: only what needs no more than the standard library, so that it is there in a moment. What its errors mean
to people is said by who runs it.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing

# Exit codes, with SQLite's own words on stderr.
FULL = 3
FAILED = 4


def main() -> int:
    """Make the copy; 0, or one of the codes above."""
    source_path, target_path = sys.argv[1:]
    try:
        # All pages in one step, under one read transaction: with WAL nobody waits for it, nor it for anybody.
        with closing(sqlite3.connect(source_path)) as source, closing(sqlite3.connect(target_path)) as copy:
            source.backup(copy)
            # One file, without a log beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        sys.stderr.write(f"{error}\n")
        return FULL if error.sqlite_errorcode == sqlite3.SQLITE_FULL else FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
