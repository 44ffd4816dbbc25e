"""A contract held against the Open Data Contract Standard: a key it does not know is an error, not an ignored typo."""

from __future__ import annotations

import difflib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
from open_data_contract_standard.model import OpenDataContractStandard

from sluice.errors import ContractError


def check_against_standard(path: Path, raw: dict[str, Any]) -> None:
    """Refuse what the JSON schema of the standard refuses, with the nearest known key for a typo.

    Raises:
        ContractError: it is refused; the message names the place.
    """
    validator = jsonschema.Draft201909Validator(_standard())
    # Deepest first: the branches of a oneOf report a parent's failure besides the one that names the typo.
    errors = sorted(_leaves(validator.iter_errors(raw)), key=lambda e: -len(e.absolute_path))
    if not errors:
        return
    error = errors[0]
    where = ".".join(str(part) for part in error.absolute_path) or "the top level"
    # A column by its name: nobody counts to its index.
    named = ""
    item: Any = raw
    for part in error.absolute_path:
        item = item[part]
        named = f" ({item['name']})" if isinstance(item, dict) and "name" in item else named
    said, hint = error.message, ""
    unexpected = re.findall(r"'(\w+)'(?=.*\b(?:was|were) unexpected)", error.message)
    if unexpected:
        said = f"{', '.join(repr(key) for key in unexpected)} is not known there"
        close = difflib.get_close_matches(unexpected[0], _known_keys(validator.schema), n=1)
        if close and close[0] != unexpected[0]:
            hint = f" Did you mean {close[0]!r}?"
        else:
            hint = f" {unexpected[0]!r} does not belong there: move or remove it."
    raise ContractError(f"{path}: at {where}{named}: {said}.{hint}")


@cache
def _standard() -> dict[str, Any]:
    """The JSON schema of the standard, as the package ships it."""
    schema: dict[str, Any] = json.loads(OpenDataContractStandard.json_schema())  # type: ignore[no-untyped-call]
    return schema


def _leaves(errors: Any) -> list[jsonschema.ValidationError]:
    """Flatten the tree of errors that combined schemas (oneOf, anyOf, allOf) report."""
    found: list[jsonschema.ValidationError] = []
    for error in errors:
        found.extend(_leaves(error.context) if error.context else [error])
    return found


def _known_keys(schema: Any) -> set[str]:
    """Every property name the standard's schema defines anywhere."""
    keys: set[str] = set()
    if isinstance(schema, dict):
        keys |= set(schema.get("properties", {}) if isinstance(schema.get("properties"), dict) else {})
        for value in schema.values():
            keys |= _known_keys(value)
    elif isinstance(schema, list):
        for value in schema:
            keys |= _known_keys(value)
    return keys
