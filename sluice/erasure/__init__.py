"""Erasing a person: out of bronze, dead letters, landing files, every later layer, old snapshots and logs; the proof.

Rooms, in the order in which they are used: `person` (who is meant, and how a text is searched), `register` (the list
of the erased, which ingest keeps to), `lines` and `landing` (files as delivered), `rows` (bronze and dead letters),
`purge` (old snapshots and the catalog), `leftovers` (logs and Dagster's own storage), `search` (the proof), `run`.
What is written of rows that arrive later belongs to `sluice.booking`.
"""
