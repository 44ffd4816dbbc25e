"""Cases as their files hold them: read, and checked for what every case needs.

What a case's words mean belongs to `plan`, whether its expectations are met to `verdicts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.errors import ConfigurationError

_REQUIRED = ("case", "mode", "key", "tracked", "batches")
_EXPECTATIONS = ("expected", "expected_any_of", "expected_after", "expected_counts", "expect_error_in_batch")
_COMPARES = ("any_of", "current_flags", "counts_of_key")


@dataclass
class Case:
    """A case as it was read.

    Attributes:
        name: of the case.
        where: file and line.
        raw: the JSON object.
    """

    name: str
    where: str
    raw: dict[str, Any]

    def refuse(self, what: str) -> ConfigurationError:
        """The error of a case that cannot be used."""
        return ConfigurationError(f"{self.where}: case {self.name}: {what}")


def read_cases(paths: Iterable[Path]) -> list[Case]:
    """Read cases from files, and from the .jsonl files of folders.

    Raises:
        ConfigurationError: a path is missing or holds no case, a line is no JSON or lacks fields.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ConfigurationError(f"{path}: no such file or folder. Give .jsonl files or folders of them.")
        found = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
        if not found:
            raise ConfigurationError(f"{path}: the folder holds no .jsonl file.")
        files += found
    cases = [case for file in dict.fromkeys(files) for case in _read_file(file)]
    if not cases:
        raise ConfigurationError(f"{', '.join(str(f) for f in files)}: no case in there.")
    return cases


def _read_file(file: Path) -> list[Case]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: cannot be read: {error}. Give a .jsonl file in UTF-8.") from error
    cases = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        try:
            raw = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigurationError(f"{where}: not JSON: {error}. Each line is one JSON object.") from error
        cases.append(_checked(where, raw))
    return cases


def _checked(where: str, raw: Any) -> Case:
    """A case, if it has what a case needs."""
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{where}: a case is a JSON object, not {type(raw).__name__}.")
    missing = [name for name in _REQUIRED if name not in raw]
    if missing:
        raise ConfigurationError(f"{where}: the case lacks {', '.join(missing)}.")
    case = Case(str(raw["case"]), where, raw)
    if raw["mode"] not in ("cdc", "snapshot"):
        raise case.refuse(f"mode is {raw['mode']!r}; it may be cdc or snapshot.")
    batches = raw["batches"]
    if not isinstance(batches, list) or not all(
        isinstance(batch, list) and all(isinstance(row, dict) for row in batch) for batch in batches
    ):
        raise case.refuse("batches is no list of lists of rows (JSON objects).")
    if not raw["key"] or not isinstance(raw["key"], list | str) or not isinstance(raw["tracked"], list):
        raise case.refuse("key and tracked are lists of column names.")
    if raw["mode"] == "snapshot" and len(raw.get("batch_times") or []) < len(batches):
        raise case.refuse(f"batch_times has to tell the time of each of the {len(batches)} batches.")
    if raw.get("compare") is not None and raw["compare"] not in _COMPARES:
        raise case.refuse(f"compare is {raw['compare']!r}; it may be {', '.join(_COMPARES)} or absent.")
    if not any(raw.get(name) is not None for name in _EXPECTATIONS):
        raise case.refuse(f"nothing is expected of it: give one of {', '.join(_EXPECTATIONS)}.")
    return case
