"""Faults: the platform is killed, starved and damaged, and must lose nothing, double nothing, show nothing bad.

A few of them in `make test`; `make test-faults` does them all, FAULT_KILLS kills among them. What was tried, and what
came of it: docs/reliability.md.
"""

import os

import pytest

# How many processes are killed. Unset in `make test`: two, and of the other faults those that take seconds.
KILLS = int(os.environ.get("FAULT_KILLS", "2"))
SEED = int(os.environ.get("FAULT_SEED", "20261121"))

# Of the streams' test (test_streams.py); `make test-streams` sets a hundred thousand, a million and two dozen.
STREAM_CHANGES = int(os.environ.get("STREAM_CHANGES", "2000"))
STREAM_EVENTS = int(os.environ.get("STREAM_EVENTS", "20000"))
STREAM_KILLS = int(os.environ.get("STREAM_KILLS", "6"))

deep = pytest.mark.skipif("FAULT_KILLS" not in os.environ, reason="takes long: make test-faults")
