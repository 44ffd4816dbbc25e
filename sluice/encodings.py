"""Values that come as something else than their text: counts of time since 1970, decimals as bytes in base 64.

SQL text only, set-based. What a contract may name so is in `ENCODINGS`. What an event's own schema says belongs to
`sluice.records.envelopes`, the cast of a text to a column's type to `sluice.rules`.
"""

from __future__ import annotations

import re

# Formats a contract may name, and the type a column of it must have.
ENCODINGS = {
    "epoch_days": "DATE",
    "epoch_seconds": "TIMESTAMP",
    "epoch_millis": "TIMESTAMP",
    "epoch_micros": "TIMESTAMP",
    "epoch_nanos": "TIMESTAMP",
    "decimal_base64": "DECIMAL",
}

_SCALED = re.compile(r"decimal_base64:(-?\d{1,3})")

# Scales a decimal in bytes may have: those of Oracle's NUMBER and what a DECIMAL holds lie within.
LEAST_SCALE, MOST_SCALE = -84, 127

# The years 1 to 9999, as dates are written.
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_DAY = 86_400
_BIGINT = 2**63 - 1

# Hours a time of day may count to either side: MySQL's TIME ends at 838.
_MOST_HOURS = 1_000


def encoding(fmt: str | None) -> str | None:
    """The one of `ENCODINGS` that a format names, its scale aside; None if it names none."""
    if not isinstance(fmt, str):
        return None
    match = _SCALED.fullmatch(fmt)
    if match:
        return "decimal_base64" if LEAST_SCALE <= int(match.group(1)) <= MOST_SCALE else None
    return fmt if fmt in ENCODINGS else None


def decoded(text: str, fmt: str) -> str:
    """SQL of the value that `text` is in a format of `ENCODINGS`, null where it is none.

    It is a DATE, a TIMESTAMP or, of a decimal, its digits as VARCHAR.
    """
    if fmt == "epoch_days":
        return date_of_days(text)
    if fmt.startswith("epoch_"):
        return instant(text, {"seconds": 1, "millis": 10**3, "micros": 10**6, "nanos": 10**9}[fmt[len("epoch_") :]])
    match = _SCALED.fullmatch(fmt)
    return decimal_text(text, match.group(1)) if match else scaled_decimal_text(text)


def date_of_days(text: str) -> str:
    """SQL of the DATE so many days after 1970-01-01."""
    days = _whole(text)
    return f"CASE WHEN {days} BETWEEN {_FIRST_DAY} AND {_LAST_DAY} THEN DATE '1970-01-01' + ({days})::INTEGER END"


def instant(text: str, per_second: int) -> str:
    """SQL of the TIMESTAMP so many parts of a second after 1970; null where it lies between two microseconds."""
    count = _whole(text)
    low, high = _FIRST_DAY * _DAY * per_second, (_LAST_DAY + 1) * _DAY * per_second - 1
    within = f"{count} BETWEEN {max(low, -_BIGINT)} AND {min(high, _BIGINT)}"
    if per_second > 10**6:
        finer = per_second // 10**6
        return f"CASE WHEN {within} AND {count} % {finer} = 0 THEN make_timestamp({count} // {finer}) END"
    return f"CASE WHEN {within} THEN make_timestamp({count} * {10**6 // per_second}) END"


def time_text(text: str, per_second: int) -> str:
    """SQL of a time of day as HH:MM:SS with its fraction, signed and past 24 hours where it is."""
    most = _MOST_HOURS * 3_600 * per_second
    digits = len(str(per_second)) - 1
    seconds = f"(abs(n) // {per_second})"
    fraction = f"rtrim(rtrim('.' || lpad((abs(n) % {per_second})::VARCHAR, {digits}, '0'), '0'), '.')"
    written = (
        f"CASE WHEN n BETWEEN {-most} AND {most} THEN CASE WHEN n < 0 THEN '-' ELSE '' END || "
        f"format('{{:02d}}:{{:02d}}:{{:02d}}', {seconds} // 3600, {seconds} // 60 % 60, {seconds} % 60) || {fraction} "
        "END"
    )
    return once(_whole(text), "n", written)


def decimal_text(text: str, scale: str) -> str:
    """SQL of the digits of a decimal whose unscaled value is two's complement, big-endian, in base 64.

    Null where it is no base 64 or holds more than 16 bytes, which is more than any DECIMAL. `scale` is SQL, too.
    """
    digits = "lpad(ltrim(u::VARCHAR, '-'), greatest(s + 1, length(ltrim(u::VARCHAR, '-')))::INTEGER, '0')"
    written = (
        f"CASE WHEN s NOT BETWEEN {LEAST_SCALE} AND {MOST_SCALE} THEN NULL WHEN u = 0 AND s <= 0 THEN '0' "
        "WHEN s <= 0 THEN u::VARCHAR || repeat('0', -s) "
        f"ELSE CASE WHEN u < 0 THEN '-' ELSE '' END || left({digits}, -s) || '.' || right({digits}, s) END"
    )
    return once(_unscaled(text), "u", once(f"({scale})::INTEGER", "s", written))


def scaled_decimal_text(text: str) -> str:
    """SQL of the digits of a decimal that brings its scale: an object of `scale` and `value`, the latter as above."""
    scale = "TRY_CAST(json_extract_string(o, '$.scale') AS INTEGER)"
    checked = f"CASE WHEN json_valid({text}) THEN {text} END"
    return once(checked, "o", decimal_text("json_extract_string(o, '$.value')", scale))


def bits_text(text: str) -> str:
    """SQL of the whole number, unsigned, whose bytes come little-endian in base 64; null past 8 bytes."""
    swapped = "array_to_string(list_reverse(regexp_extract_all(h, '..')), '')"
    return once(
        f"hex(TRY(from_base64({text})))",
        "h",
        f"CASE WHEN length(h) BETWEEN 2 AND 16 THEN ('0x' || {swapped})::UBIGINT::VARCHAR END",
    )


def _unscaled(text: str) -> str:
    half = "('0x' || substr(p, {}, 16))::UBIGINT::HUGEINT"
    high, low = half.format(1), half.format(17)
    # The upper half carries the sign: 2 to the power of 64 less where its first bit is set.
    value = f"({high} - CASE WHEN p >= '8' THEN {2**64}::HUGEINT ELSE 0 END) * {2**64}::HUGEINT + {low}"
    filled = "CASE WHEN length(h) BETWEEN 2 AND 32 THEN lpad(h, 32, CASE WHEN h >= '8' THEN 'F' ELSE '0' END) END"
    return once(f"hex(TRY(from_base64({text})))", "h", once(filled, "p", f"CASE WHEN p IS NOT NULL THEN {value} END"))


def _whole(text: str) -> str:
    return f"CASE WHEN regexp_full_match({text}, '[+-]?[0-9]+') THEN TRY_CAST({text} AS BIGINT) END"


def once(expression: str, name: str, body: str) -> str:
    """SQL of `body` over an expression that is evaluated once and called `name` in it."""
    return f"list_transform([{expression}], lambda {name}: {body})[1]"
