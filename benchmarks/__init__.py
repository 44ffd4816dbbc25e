"""Measurements, each against a peer in the same run, and each one command away.

Belongs here: what is timed, and the peers. What does not: tests (nothing here fails for being slow) and anything the
platform itself needs.
"""
