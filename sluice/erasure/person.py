"""Who is meant: an id, what contracts call it, the person's values, and how a text is searched for either.

Pure but for reading the values from bronze. Nothing here is ever written down or logged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property

import duckdb

from sluice.contracts import Column, Contract
from sluice.erasure.spelling import Finder, bytes_of, spoken
from sluice.lake import LAKE
from sluice.sql import quoted

# Shorter values (a title, a letter for the gender) stand in too many texts to tell a person by.
SHORTEST_VALUE = 4

# A number however it is written, with blanks around it. No longer exponents: no id has one.
_NUMBER = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?\s*")

# Holds every whole number of the types there are, and tells 15036.5 from 15036.
SQL_NUMBER = "DECIMAL(38, 9)"


@dataclass(frozen=True)
class Person:
    """One person. `values` are what personal columns hold of them and of nobody else."""

    subject: str
    id: str = field(repr=False)
    values: tuple[str, ...] = field(default=(), repr=False)

    @cached_property
    def tokens(self) -> Finder:
        """Finds the id and the values."""
        return Finder((self.id, *self.values))

    @cached_property
    def value_tokens(self) -> Finder | None:
        """Finds the values alone; None if there are none."""
        return Finder(self.values) if self.values else None

    @cached_property
    def number(self) -> Decimal | None:
        """The id as a number, if it is one."""
        return _number(self.id)

    @cached_property
    def number_pattern(self) -> str:
        """A regular expression that finds every way to write the number, and more: 15036 in 015036.0 and in 1.5036e4.

        For Python's and DuckDB's. Empty, which finds everything, of 0 and of what is no number.
        """
        return r"\.?".join(f"{self.number or 0:f}".replace(".", "").strip("-0"))

    def is_named(self, column: Column, text: str | None) -> bool:
        """Whether a value of a column that names people is this person's id.

        Texts must be equal; of a numeric column it is the number that counts, also where the text does not fit the
        type exactly and has become a dead letter ( 15036, 15036.0).
        """
        if text is None or text == self.id:
            return text is not None
        return is_number(column) and self.number is not None and _number(text) == self.number

    def is_named_sql(self, column: Column, expression: str) -> str:
        """The same as SQL that is never null, of any expression; the id is bound as `$id`."""
        text = f"CAST({expression} AS VARCHAR)"
        exact = f"{text} IS NOT DISTINCT FROM $id"
        if not is_number(column) or self.number is None:
            return f"({exact})"
        number = f"TRY_CAST(trim({text}) AS {SQL_NUMBER}) = TRY_CAST($id AS {SQL_NUMBER})"
        return f"({exact} OR coalesce({number}, false))"

    def is_in(self, text: str) -> bool:
        """Whether a text holds the id or a value as a token."""
        return self.tokens.is_in(bytes_of(text))

    def is_in_by_value(self, text: str) -> bool:
        """Whether a text holds a value as a token."""
        return self.value_tokens is not None and self.value_tokens.is_in(bytes_of(text))

    def mask_values(self, data: bytes) -> bytes:
        """The same bytes with every token of the values blanked, as long as before, and with the same line ends."""
        return data if self.value_tokens is None else self.value_tokens.blanked(data)


def is_number(column: Column) -> bool:
    """Whether a column holds numbers, which may be written in several ways."""
    return is_numeric(column.type)


def is_numeric(kind: str) -> bool:
    """Whether an SQL type is one of numbers."""
    return kind.endswith("INT") or kind in ("INTEGER", "DOUBLE", "FLOAT") or kind.startswith("DECIMAL")


def _number(text: str) -> Decimal | None:
    return Decimal(text.strip()) if _NUMBER.fullmatch(text) else None


@dataclass(frozen=True)
class Place:
    """A source whose rows name this kind of person."""

    contract: Contract
    ids: tuple[Column, ...]
    personal: tuple[Column, ...]

    @property
    def about(self) -> bool:
        """Whether its rows are about the person and go; otherwise they count something, and stay without the person."""
        return any(c.primary_key for c in self.ids)

    @property
    def numeric(self) -> bool:
        """Whether a column that names people is a number, which may be written in several ways."""
        return any(is_number(c) for c in self.ids)

    @property
    def table(self) -> str:
        """The bronze table, quoted."""
        return f"bronze.{quoted(self.contract.name)}"

    def is_theirs(self) -> str:
        """SQL of whether a row of bronze names the person `$id`."""
        return " OR ".join(f"CAST({quoted(c.name)} AS VARCHAR) = $id" for c in self.ids)


def places(contracts: Iterable[Contract], subject: str) -> list[Place]:
    """The sources that name this kind of person."""
    found = []
    for contract in contracts:
        ids = tuple(c for c in contract.columns if c.subject == subject)
        if ids:
            found.append(Place(contract, ids, tuple(c for c in contract.columns if c.personal and c not in ids)))
    return found


def values_of(
    con: duckdb.DuckDBPyConnection, where: Iterable[Place], person_id: str, snapshot: int | None
) -> tuple[tuple[str, ...], int]:
    """What personal columns hold of a person, now and at a snapshot (where it is still kept).

    Returns:
        The values that nobody else has, and how many are left out because somebody has them too or for being short.
    """
    kept = {row[0] for row in con.execute("SELECT snapshot_id FROM ducklake_snapshots(?)", [LAKE]).fetchall()}
    own: set[str] = set()
    shared: set[str] = set()
    columns: list[tuple[str, str, Place]] = []
    for place in where:
        if not table_exists(con, place.contract.name):
            continue
        for column in place.personal:
            value = f"CAST({quoted(column.name)} AS VARCHAR)"
            sources = [place.table]
            if snapshot in kept:
                sources.append(f"(SELECT * FROM {place.table} AT (VERSION => {int(snapshot or 0)}))")
            for source in sources:
                columns.append((value, source, place))
                rows = con.execute(
                    f"WITH own AS (SELECT DISTINCT {value} AS v FROM {source} AS t WHERE ({place.is_theirs()}) "
                    f"AND {value} IS NOT NULL) SELECT v, EXISTS (SELECT 1 FROM {source} AS t WHERE {value} = v "
                    f"AND ({place.is_theirs()}) IS NOT TRUE) FROM own",
                    {"id": person_id},
                ).fetchall()
                own |= {v for v, _ in rows}
                shared |= {v for v, others in rows if others or len(v) < SHORTEST_VALUE}
    # Where they are looked for, backslashes and doubled quotes are of no account: somebody else may have what is left.
    said = {v: spoken(v) for v in own - shared}
    written = [s for v, s in said.items() if s != v]
    of_others = {
        row[0]
        for value, source, place in (columns if written else ())
        for row in con.execute(
            f"SELECT DISTINCT {value} FROM {source} AS t WHERE {value} IN (SELECT unnest($said)) "
            f"AND ({place.is_theirs()}) IS NOT TRUE",
            {"id": person_id, "said": written},
        ).fetchall()
    }
    shared |= {v for v, s in said.items() if s != v and (len(s) < SHORTEST_VALUE or s in of_others)}
    # The id itself may stand in a personal column.
    return tuple(sorted(own - shared - {person_id})), len(shared - {person_id})


def table_exists(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether a source has a bronze table yet."""
    return bool(
        con.execute(
            # Not of duckdb_tables(), which counts rows: three times as long.
            "SELECT 1 FROM duckdb_columns() "
            "WHERE database_name = ? AND schema_name = 'bronze' AND table_name = ? LIMIT 1",
            [LAKE, name],
        ).fetchone()
    )
