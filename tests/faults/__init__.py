"""Faults: the platform is killed, starved and damaged, and must lose nothing, double nothing, show nothing bad.

A few of them in `make test`; `make test-faults` does it FAULT_KILLS times. What was tried: docs/reliability.md.
"""
