"""The dbt sources, made from the contracts: a source is described once, and dbt reads the description from here.

Writes one YAML file, `models/sources/contracts.yml` in the dbt project, which is generated and not kept in version
control. Models are plain dbt and know nothing of this.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from sluice.bronze import meta_columns
from sluice.contracts import Column, Contract
from sluice.records import OPERATION, SEQUENCE, SOURCE_TS, further_sequence

RELATIVE_PATH = Path("models/sources/contracts.yml")

_HEADER = "# Generated from contracts/ by `sluice sync`. Do not edit: change the contract.\n"

_META_DESCRIPTIONS = {
    "_batch_id": "Batch that brought the row; key of ops.ledger.",
    "_partition_key": "Partition of the batch: the day, and the static dimension's value where the source has one.",
    "_file": "Landing file the row came from, relative to the landing folder; or stream:<topic>/<partition>.",
    "_line": "Line or row number in that file, from 1; of a message its offset.",
    "_extra": "JSON of the values whose columns the contract does not know, else null.",
    "_ingested_at": "When the batch was written, UTC.",
    "_message_key": "Key of the message that brought the row, where it came by a stream.",
    "_message_ts": "Time the event log has of the message, UTC, where the row came by a stream.",
    "_headers": "JSON list of the message's headers, where it had some.",
}


def sources_yaml(contracts: Iterable[Contract]) -> str:
    """The YAML text: one source `bronze`, one table per contract, with descriptions, types and tests."""
    document = {
        "version": 2,
        "sources": [
            {
                "name": "bronze",
                "schema": "bronze",
                "description": "Accepted rows of every source, with the batch, file and line they came from.",
                "tables": [_table(c) for c in sorted(contracts, key=lambda c: c.name)],
            }
        ],
    }
    return _HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def write_sources(contracts: Iterable[Contract], dbt_project: Path) -> bool:
    """Write the file if it is not as it should be; true when it was written."""
    path = dbt_project / RELATIVE_PATH
    text = sources_yaml(contracts)
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".yml.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return True


def _table(contract: Contract) -> dict[str, Any]:
    columns = [
        _column(
            name,
            "DATE" if name == "date" else "VARCHAR",
            f"From the path: {contract.landing.path}."
            + (" Of a message: the day of its time." if contract.stream and name == "date" else ""),
            _accepted(contract.landing.partitions.get(name, ())),
        )
        for name in contract.landing.tokens
    ]
    if contract.change_feed:
        columns += [
            _column(
                OPERATION,
                "VARCHAR",
                "c create, u update, d delete, r read in a snapshot"
                + (", t truncate." if contract.change_feed.truncates else "."),
                ["not_null", *_accepted(contract.change_feed.operations)],
            ),
            _column(
                SEQUENCE, "BIGINT", f"Position in the source's log ({contract.change_feed.sequence}).", ["not_null"]
            ),
            _column(
                SOURCE_TS,
                "TIMESTAMP",
                f"When it happened in the source, UTC ({contract.change_feed.valid_from}).",
                ["not_null"],
            ),
        ]
        columns += [
            _column(further_sequence(number), "BIGINT", f"Order of the changes, part {number} ({path}).", [])
            for number, path in enumerate(contract.change_feed.further, 2)
        ]
    columns += [_contract_column(c, contract) for c in contract.columns]
    columns += [
        # The engine writes these; a test of them would test the engine, at run time and every time.
        _column(name, kind, _META_DESCRIPTIONS[name], [])
        for name, kind in meta_columns(contract)
    ]
    described = " ".join(
        filter(None, [contract.description, f"Grain: {contract.granularity}" if contract.granularity else ""])
    )
    return {
        "name": contract.name,
        "description": described,
        "config": {"meta": {"dagster": {"asset_key": ["bronze", contract.name]}, "contract_version": contract.version}},
        "columns": columns,
    }


def _contract_column(column: Column, contract: Contract) -> dict[str, Any]:
    tests: list[Any] = []
    if column.primary_key and contract.change_feed and contract.change_feed.truncates:
        tests.append({"not_null": {"config": {"where": f"{OPERATION} <> 't'"}}})
    elif column.primary_key or (column.required and not contract.change_feed):
        tests.append("not_null")
    tests += _accepted(column.enum)
    made = _column(column.name, column.type, column.description, tests)
    meta = {"classification": column.classification, "privacy": column.privacy, "subject": column.subject}
    meta = {key: value for key, value in meta.items() if value}
    if meta:
        made["config"] = {"meta": meta}
    return made


def _column(name: str, kind: str, description: str, tests: list[Any]) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "description": description, "data_type": kind.lower()}
    if tests:
        column["data_tests"] = tests
    return column


def _accepted(values: Iterable[str]) -> list[dict[str, Any]]:
    listed = list(values)
    return [{"accepted_values": {"arguments": {"values": listed}}}] if listed else []
