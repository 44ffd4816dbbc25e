"""Change data capture: what happens in a PostgreSQL database, written into topics of the event log as it is committed.

Belongs here: what a capture is (`configuration`), what is asked of the database itself (`database`), Debezium, which
reads the database's log (`engine`), which events go where and which are there already (`writer`), how far a capture has
come (`progress`), whether its slot still holds what it needs (`slots`), the three things people do with one
(`running`), what waits for it (`behind`), and running one in a process of its own (`apart`). What an event is worth is
the contract's to say, and what becomes of it the lake's: nothing here reads a contract or opens the lake.
"""

from __future__ import annotations

from sluice.capture.apart import run_apart
from sluice.capture.behind import Backlog, backlog
from sluice.capture.configuration import Capture, load_capture, load_captures
from sluice.capture.running import Captured, Status, local_status, resnapshot, run, status

__all__ = [
    "Backlog",
    "Capture",
    "Captured",
    "Status",
    "backlog",
    "load_capture",
    "load_captures",
    "local_status",
    "resnapshot",
    "run",
    "run_apart",
    "status",
]
