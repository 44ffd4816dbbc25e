"""Cases of history in a neutral format, run through the real materialization (`python -m sluice.scd_cases PATH...`).

A case is a JSON object on a line of a .jsonl file: batches of changes or extracts, and the history that must come of
them. The format is that of the shared cases (their README), extended by an optional `config` (options of the
materialization that win over what the dialect says) and `types` (SQL types by column).

`cases` reads them, `plan` translates a dialect into options, `verdicts` runs and judges. The rules of history are the
macros', how dbt is run is `sluice.scd_harness`.
"""
