"""Reading what a contract says of when a source is fetched or pulled by itself: a cron line, and whether it is on.

What a schedule has besides is read where the source is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sluice.errors import ContractError

# Minute, hour, day of the month, month, day of the week: least and greatest number.
_CRON = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_CRON_FIELD = re.compile(r"(\*|\d+(-\d+)?)(/\d+)?(,(\*|\d+(-\d+)?)(/\d+)?)*")


def read_when(given: Mapping[str, Any], where: str, fail: Callable[[str], ContractError]) -> tuple[str, bool]:
    """The cron line (UTC) of a schedule, and whether it is on from the start.

    Raises:
        ContractError: by `fail`; there is no such line, or `active` is neither true nor false.
    """
    cron, active = given.get("cron"), given.get("active", True)
    if not isinstance(cron, str) or not _is_cron(cron):
        raise fail(f"{where}.cron {cron!r} is no cron line (UTC) such as '30 6 * * *'.")
    if not isinstance(active, bool):
        raise fail(f"{where}.active must be true or false.")
    return cron.strip(), active


def _is_cron(text: str) -> bool:
    """Whether Dagster takes it: one that it does not would take all definitions down."""
    fields = text.split()
    return len(fields) == len(_CRON) and all(
        _CRON_FIELD.fullmatch(field)
        and all(least <= int(n) <= most for n in re.findall(r"(?<![/\d])\d+", field))
        and all(int(n) > 0 for n in re.findall(r"/(\d+)", field))
        and all(int(a) <= int(b) for a, b in re.findall(r"(\d+)-(\d+)", field))
        for field, (least, most) in zip(fields, _CRON, strict=True)
    )
