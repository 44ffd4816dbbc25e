"""The simulated shop's visitors on one more day, as messages of a topic instead of files.

Belongs here: in what order the events come, and the key and time of each message. What visitors do, and how a line is
spoilt, is that of the files (`sessions`, `dirt`).
"""

from __future__ import annotations

import gzip
import json
from datetime import date, datetime, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from sluice.eventlog import Message
from sluice.simulation.catalog import make_cast
from sluice.simulation.clock import midnight
from sluice.simulation.history import make_history
from sluice.simulation.landing import Landing
from sluice.simulation.sales import Sales
from sluice.simulation.sessions import Sessions


def live_events(seed: int, scale: float, day: date) -> list[Message]:
    """The events of a day by the hour in which they come; some are late, repeated or spoilt, as in the files.

    A message's key is the visitor, so that what one does stays in order; its time is the event's. Of a line that cannot
    be taken apart, it has no key and the time of its hour.

    Args:
        seed: of the shop whose visitors they are.
        scale: factor on their number, about 3,000 at 1.
        day: UTC.
    """
    first_ms = midnight(day)
    # The cast is the shop's own; what it does is drawn anew, else the first day would happen again.
    cast = make_cast(Random(f"{seed}/cast"), scale)
    history = make_history(Random(f"{seed}/live/{day}/history"), cast, first_ms, 1)
    sales = Sales(Random(f"{seed}/live/{day}/sales"), cast, history, scale=scale, days=1)
    sessions = Sessions(Random(f"{seed}/live/{day}/sessions"), cast, scale=scale, days=1, first_ms=first_ms)
    with TemporaryDirectory() as folder:
        with Landing(Path(folder) / "landing") as landing:
            sessions.deliver(landing, 0, day, sales.invoices(0, day, first_ms))
        messages = []
        for _, name in sorted(landing.arrivals()):
            hour = int(Path(name).parent.name.removeprefix("hour="))
            for line in gzip.decompress((Path(folder) / "landing" / name).read_bytes()).splitlines():
                messages.append(_message(line, datetime(day.year, day.month, day.day) + timedelta(hours=hour)))
    return messages


def _message(line: bytes, hour: datetime) -> Message:
    try:
        event = json.loads(line)
        visitor, at = str(event["visitor_id"]), datetime.fromisoformat(event["event_ts"])
    except (ValueError, KeyError, TypeError):
        visitor, at = None, hour
    moment = round((at.replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds() * 1000)
    return Message(line, None if visitor is None else visitor.encode(), moment)
