"""Bad input by the ten thousand: files spoilt at random but repeatably, ingested for real, held against a naive reader.

`python -m tests.fuzz --help` runs it; `sources` says what is delivered, `mutators` how it is spoilt, `oracle` what must
come of it, `round` delivers and checks some hundred files in a process of its own, `campaign` runs many rounds.
"""
