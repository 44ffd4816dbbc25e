"""The event log: topics of partitions of records, each at its offset, read by range.

Belongs here: what a log is (`protocol`), and its two implementations, the embedded one (`embedded`, the default: files
under the home folder, no service) and Kafka (`kafka`). Which offsets a source has read is the lake's to know, and what
a record is worth the contract's: `sluice.streams`.
"""

from __future__ import annotations

from sluice.eventlog.opening import open_log
from sluice.eventlog.protocol import RECORDS, Bounds, EventLog, Message, Slice, records

__all__ = ["RECORDS", "Bounds", "EventLog", "Message", "Slice", "open_log", "records"]
