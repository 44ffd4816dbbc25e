"""Copies an SQLite database as of one instant: `python sqlite_copy.py SOURCE TARGET`; `sluice.sqlite_catalog` runs it.

Belongs here: only what needs no more than the standard library, so that it is there in a moment. What its errors mean
to people is said by who runs it.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from contextlib import closing

# Exit codes, with SQLite's own words on stderr.
NO_ROOM = 3
FAILED = 4

# A full disk, or a quota or limit that is reached: only the copy is written.
_WRITING = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_FSYNC)


def main() -> int:
    """Make the copy; 0, or one of the codes above."""
    # Ctrl-C comes to who runs this, too, and that ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    source_path, target_path = sys.argv[1:]
    try:
        # All pages in one step, under one read transaction: with WAL nobody waits for it, nor it for anybody.
        with closing(sqlite3.connect(source_path)) as source, closing(sqlite3.connect(target_path)) as copy:
            source.backup(copy)
            # One file, without a log beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        sys.stderr.write(f"{error}\n")
        return NO_ROOM if error.sqlite_errorcode in _WRITING else FAILED
    return 0


def _end_with_parent() -> None:
    # Nothing is ever sent: this returns when nobody has the other end any more.
    os.read(0, 1)
    os._exit(FAILED)


if __name__ == "__main__":
    sys.exit(main())
