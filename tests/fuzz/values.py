"""What a text is worth, read naively and strictly: the oracle's own typed reading, written from docs/contracts.md.

It shares no code with the engine. Where the documentation leaves a text open (24:00, the year 0, `yes` for true), the
answer is UNSURE: the row must be in the books, on whichever side.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

GOOD, BAD, UNSURE = "good", "bad", "unsure"


class Any_:
    """Equal to any value: for a value whose text is the reader's choice."""

    def __repr__(self) -> str:
        return "ANY"


ANY = Any_()

_WHOLE = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
_LOCAL = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6})0*)?)?", re.ASCII)
_ZONE = re.compile(r"(Z|[+-]\d\d(?::?\d\d)?)\Z", re.ASCII)


def typed(kind: str, text: str) -> tuple[str, Any]:
    """Whether a text is a value of a type, and the value as DuckDB prints it."""
    if kind == "VARCHAR":
        return GOOD, text
    if kind in _WHOLE:
        return _whole(text, _WHOLE[kind])
    if kind.startswith("DECIMAL"):
        width, scale = map(int, re.findall(r"\d+", kind))
        return _decimal(text, width, scale)
    if kind == "DOUBLE":
        return _double(text)
    if kind == "TIMESTAMP":
        return _timestamp(text)
    if kind == "DATE":
        return _date(text)
    if kind == "BOOLEAN":
        if text in ("true", "false"):
            return GOOD, text
        return (
            (UNSURE, ANY)
            if text.lower() in ("true", "false", "t", "f", "yes", "no", "y", "n", "1", "0")
            else (BAD, None)
        )
    if kind == "UUID":
        if re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
            return GOOD, text.lower()
        return (UNSURE, ANY) if re.fullmatch(r"[{]?[0-9a-fA-F-]+[}]?", text) else (BAD, None)
    raise AssertionError(f"the oracle does not know {kind}")


def _whole(text: str, bits: int) -> tuple[str, Any]:
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        return BAD, None
    sign = -1 if text[0] == "-" else 1
    digits = text.lstrip("+-").lstrip("0") or "0"
    if len(digits) > 40:
        return BAD, None
    number = sign * int(digits)
    return (GOOD, str(number)) if -(2 ** (bits - 1)) <= number < 2 ** (bits - 1) else (BAD, None)


def _decimal(text: str, width: int, scale: int) -> tuple[str, Any]:
    match = re.fullmatch(r"([+-]?)([0-9]*)(?:[.]([0-9]*))?", text)
    if match is None or not (match[2] or match[3]):
        return BAD, None
    places = (match[3] or "").rstrip("0")
    whole = match[2].lstrip("0")
    if len(places) > scale or len(whole) > width - scale:
        return BAD, None
    if match[2] == "" or match[3] == "":  # .5 and 5.
        return UNSURE, ANY
    with localcontext() as context:
        context.prec = 60
        number = Decimal(f"{match[1]}{whole or '0'}.{places or '0'}").quantize(Decimal(1).scaleb(-scale))
    return GOOD, f"{abs(number) if number == 0 else number:f}"


def _double(text: str) -> tuple[str, Any]:
    if not re.fullmatch(r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?", text):
        return BAD, None
    number = float(text)
    if not math.isfinite(number):
        return BAD, None
    return (UNSURE, ANY) if number == 0 and re.search("[1-9]", re.split("[eE]", text)[0]) else (GOOD, number)


def _timestamp(text: str) -> tuple[str, Any]:
    zone = _ZONE.search(text)
    local = text[: zone.start()] if zone and _LOCAL.fullmatch(text[: zone.start()]) else text
    match = _LOCAL.fullmatch(local)
    if match is None or (local == text and zone and not _LOCAL.fullmatch(text)):
        return BAD, None
    year, month, day, hour, minute = (int(match[i]) for i in range(1, 6))
    second, micro = int(match[6] or 0), int((match[7] or "").ljust(6, "0"))
    if year == 0 or hour == 24:
        return UNSURE, ANY
    try:
        moment = datetime(year, month, day, hour, minute, second, micro, UTC)
    except ValueError:
        return BAD, None
    if zone and local != text and zone[1] != "Z":
        hours, minutes = int(zone[1][1:3]), int(zone[1][3:].lstrip(":") or 0)
        if minutes > 59 or hours > 18:
            return BAD, None
        if hours > 14:  # no place on Earth has it
            return UNSURE, ANY
        try:
            moment -= (1 if zone[1][0] == "+" else -1) * timedelta(hours=hours, minutes=minutes)
        except OverflowError:
            return UNSURE, ANY
    shown = moment.replace(tzinfo=None).isoformat(sep=" ")
    return GOOD, shown.rstrip("0") if "." in shown else shown


def _date(text: str) -> tuple[str, Any]:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        return BAD, None
    if text.startswith("0000-") and text[5:7] != "00" and text[8:] != "00":
        return UNSURE, ANY
    try:
        return GOOD, date.fromisoformat(text).isoformat()
    except ValueError:
        return BAD, None


def judge_value(name: str, spec: dict[str, Any], text: Any) -> tuple[str, Any]:
    """Verdict and value of one column of a row by its ODCS properties; `text` is None where there is no value."""
    kind = spec.get("physicalType", "VARCHAR")
    options = spec.get("logicalTypeOptions", {})
    if text is None:
        return (BAD if spec.get("required") else GOOD), None
    if text is ANY:  # a nested JSON value as text: never empty, and no number, date or code
        return (BAD if kind != "VARCHAR" or "pattern" in options or "quality" in spec else UNSURE), ANY
    if text == "" and (spec.get("required") or kind != "VARCHAR"):
        return BAD, None
    verdict, value = typed(kind, text)
    if verdict != GOOD:
        return verdict, value
    if "pattern" in options and not _matches(options["pattern"], text):
        return BAD, value
    if "maxLength" in options and len(text) > options["maxLength"]:
        return BAD, value
    if ("minimum" in options or "maximum" in options) and not (
        options.get("minimum", -math.inf) <= Decimal(value) <= options.get("maximum", math.inf)
    ):
        return BAD, value
    for rule in spec.get("quality", []):
        if text not in rule["arguments"]["validValues"]:
            return BAD, value
    return GOOD, value


def _matches(pattern: str, text: str) -> bool:
    if pattern == r"^[AC]?\d{6}$":
        text = text[1:] if text[:1] in ("A", "C") else text
        return len(text) == 6 and all(c in "0123456789" for c in text)
    assert pattern == r"^\d{5}$", pattern
    return len(text) == 5 and all(c in "0123456789" for c in text)


def milliseconds(text: str) -> tuple[str, Any]:
    """The moment of an event, in milliseconds since 1970."""
    verdict, value = _whole(text, 64)
    if verdict != GOOD:
        return verdict, value
    number = int(value)
    if not -2208988800000 <= number < 4102444800000:  # 1900 to 2100
        return BAD, None
    shown = (datetime(1970, 1, 1) + timedelta(milliseconds=number)).isoformat(sep=" ")
    return GOOD, shown.rstrip("0") if "." in shown else shown
