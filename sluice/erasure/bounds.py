"""Smallest and largest values of columns, as the catalog keeps them for whole tables, without the person.

DuckLake never narrows them: a value stays there after its row is deleted, its file rewritten and every snapshot with
it expired, for as long as no smaller or larger one comes. What it keeps for each file goes with the file.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation

from sluice.erasure.person import Person
from sluice.lake import CATALOG, Lake

# Above every other text in UTF-8.
_HIGHEST = "\U0010ffff"

_INTEGER = re.compile(r"(u?)int([0-9]+)")


def widen(lake: Lake, person: Person) -> int:
    """Widen the bounds that name the person, until they do not; returns how many.

    Of dead letters every bound of a text: a line of a person may start with anything of theirs.

    Widened and not emptied: bounds need only hold all values, so wider ones are always right, and those of each file
    still prune. A null means that the column has no value yet: tried with DuckDB 1.5, the next value that came became
    both bounds, and a query for any of the others found nothing.
    """
    with lake.connect() as con:
        rows = con.execute(
            "SELECT s.table_id, s.column_id, t.table_name, c.column_type, s.min_value, s.max_value "
            f"FROM {CATALOG}.ducklake_table_column_stats AS s JOIN {CATALOG}.ducklake_table AS t USING (table_id) "
            f"JOIN {CATALOG}.ducklake_column AS c USING (table_id, column_id) "
            "WHERE t.end_snapshot IS NULL AND c.end_snapshot IS NULL"
        ).fetchall()
        changed = []
        for table, column, name, kind, least, greatest in rows:
            theirs = name == "dead_letters" and kind == "varchar"
            low = _wider(person, kind, least, -1, theirs)
            high = _wider(person, kind, greatest, 1, theirs)
            if (low, high) != (least, greatest):
                changed.append((low, high, table, column, least, greatest))
        if changed:
            lake.change_catalog(
                con,
                lambda catalog: con.executemany(
                    f"UPDATE {catalog}.ducklake_table_column_stats SET min_value = ?, max_value = ? "
                    # Only where nobody has moved them since: theirs would not hold what has come.
                    "WHERE table_id = ? AND column_id = ? AND min_value IS NOT DISTINCT FROM ? "
                    "AND max_value IS NOT DISTINCT FROM ?",
                    changed,
                ),
            )
    return len(changed)


def _wider(person: Person, kind: str, value: str | None, side: int, theirs: bool) -> str | None:
    """A bound that does not name the person; below `value` if `side` is -1, above it if 1."""
    if value is None:
        return None
    if kind == "varchar":
        data = value.encode("utf-8", "surrogateescape")
        found = next(person.tokens.spans(data), None)
        if found is None and not theirs:
            return value
        # What stands before the person is below, and that with the highest character above.
        kept = "" if found is None or theirs else data[: found[0]].decode("utf-8", "ignore")
        return kept + _HIGHEST if side > 0 else kept
    if value not in (person.id, *person.values):
        return value
    return _beside(kind, value, side)


def _beside(kind: str, value: str, side: int) -> str:
    """A value of a type that is no text below or above another; the same where there is none."""
    integer = _INTEGER.fullmatch(kind)
    if integer:
        bits = int(integer.group(2)) - (not integer.group(1))
        least = 0 if integer.group(1) else -(2**bits)
        return str(min(max(int(value) + side, least), 2**bits - 1))
    if kind == "uuid":
        return re.sub("[0-9a-fA-F]", "f" if side > 0 else "0", value)
    try:
        if kind.startswith(("decimal", "float")):
            return str(Decimal(value) + side)
        if kind == "date":
            return str(date.fromisoformat(value) + timedelta(days=side))
        if kind.startswith("timestamp"):
            return str(datetime.fromisoformat(value) + timedelta(days=side))
    except (ValueError, OverflowError, InvalidOperation):
        pass
    return value
