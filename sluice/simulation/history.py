"""The life of products and customers: the changes of their rows, the versions these make, their delivery.

What belongs here: what happens to rows in the shop's database, what was valid when, and the files of the two
change streams. What does not: sales and visits, which only look up what was valid.

The versions come from the list of changes itself, in the order of the log, before any line of a file is made;
what the delivery does to the lines (late, repeated, shuffled, spoilt) cannot reach them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from sluice.simulation.catalog import COUNTRIES, REGIONS, Cast, Customer, Product
from sluice.simulation.clock import DAY, HOUR, SECOND, instant
from sluice.simulation.dirt import (
    CDC_RATE,
    CUSTOMER_KINDS,
    PRODUCT_KINDS,
    Schedule,
    json_line,
    spoil_change,
)
from sluice.simulation.landing import Line
from sluice.simulation.truth import Version

Row = dict[str, str | None]

KEY_COLUMNS = {"products": "stock_code", "customers": "customer_id"}  # also the order of the two tables
FIRST_LSN = 26_000_000  # a log position of plausible size; only the order matters
CHANGES_PER_DAY = {"products": 0.065, "customers": 0.035}  # per key; about 40 and 30 a day at scale 1
FEWEST_CHANGES = 3  # a day, so that small runs have change files too
WHOLE_SECOND_SHARE = 0.25  # changes on a whole second: only these can coincide with an InvoiceDate
RETURN_SHARE = 0.8  # of deleted keys that come back
LONGEST_GAP = 5 * DAY  # of a deletion, short enough that most gaps end within a month
LATE_SHARE = 0.025  # of changes delivered in the file of a later date
REPEAT_SHARE = 0.02  # of changes twice in the same file
REPEAT_LATER_SHARE = 0.015  # of changes once more in the file of a later date
LATEST_DAYS = 3  # by how many days a change is late at most
SHUFFLE_SHARE = 0.5  # of keys with several changes in a file whose changes are out of order

# What happens to a row, with its share. `instant` is several changes at the same millisecond.
_HAPPENINGS = {"edit": 0.55, "other": 0.12, "same": 0.07, "burst": 0.12, "instant": 0.07, "delete": 0.07}
_INSTANTS = (("edit", "edit"), ("edit", "undo"), ("delete", "insert"), ("edit", "delete"))


@dataclass(frozen=True, slots=True)
class Change:
    """A committed change of a row.

    Attributes:
        table: `products` or `customers`.
        key: the key of the row.
        op: `r` (snapshot), `c`, `u` or `d`.
        before: the row before; None for r and c.
        after: the row after; None for d.
        ts_ms: instant of the commit.
        lsn: position in the log; unique and strictly increasing over both tables.

    """

    table: str
    key: str
    op: str
    before: Row | None
    after: Row | None
    ts_ms: int
    lsn: int

    def envelope(self) -> dict[str, Any]:
        """Return the change as a Debezium envelope."""
        return {
            "before": self.before,
            "after": self.after,
            "op": self.op,
            # The connector sees a commit some 40 to 940 ms later; derived, so that a repetition is identical.
            "ts_ms": self.ts_ms + 40 + self.lsn % 900,
            "source": {
                "connector": "postgresql",
                "db": "shop",
                "schema": "public",
                "table": self.table,
                "lsn": self.lsn,
                "ts_ms": self.ts_ms,
                "snapshot": "true" if self.op == "r" else "false",
            },
        }


class Timeline:
    """The versions of one table, searchable by key and instant."""

    def __init__(self, key_column: str, changes: Iterable[Change]) -> None:
        """Build the versions.

        Args:
            key_column: the column that is the key and hence no attribute.
            changes: the changes of the table in the order of the log.

        """
        by_key: defaultdict[str, list[Change]] = defaultdict(list)
        for change in changes:
            by_key[change.key].append(change)
        self._versions = {key: _versions(key_column, by_key[key]) for key in sorted(by_key)}
        self._begins = {key: [version.valid_from for version in versions] for key, versions in self._versions.items()}

    def all(self) -> list[Version]:
        """Return every version, ordered by key and valid_from."""
        return [version for versions in self._versions.values() for version in versions]

    def at(self, key: str, ms: int) -> Version | None:
        """Return the version valid at an instant, or None before the first one or for an unknown key."""
        begins = self._begins.get(key)
        if begins is None:
            return None
        place = bisect_right(begins, instant(ms))
        return self._versions[key][place - 1] if place else None


@dataclass(frozen=True)
class History:
    """All changes of both tables and what follows from them.

    Attributes:
        changes: every change in the order of the log.
        products: the versions of products.
        customers: the versions of customers.
        sharp: by day index, (stock code, instant) of versions beginning on a whole second.

    """

    changes: list[Change]
    products: Timeline
    customers: Timeline
    sharp: dict[int, list[tuple[str, int]]]


def make_history(rng: Random, cast: Cast, first_ms: int, days: int) -> History:
    """Let the rows of both tables live through the period.

    Args:
        rng: the source of every draw.
        cast: the products and customers.
        first_ms: the first instant of the period, that of the snapshot.
        days: length of the period.

    Returns:
        The history; every change lies within the period.

    """
    last_ms = first_ms + days * DAY
    people = _Customers(rng, cast.customers)
    goods = _Products(rng, cast.products)
    plans: list[tuple[int, int, str, str, str]] = []
    for table, presences in (
        ("products", {product.code: product.presence for product in cast.products}),
        ("customers", {customer.customer_id: customer.presence for customer in cast.customers}),
    ):
        for ms, key, action in _plan(rng, presences, CHANGES_PER_DAY[table], first_ms, days):
            if ms < last_ms:
                # The running number keeps actions of one instant in the order they were planned.
                plans.append((ms, len(plans), table, key, action))
    plans.sort()

    changes: list[Change] = []
    lsn = FIRST_LSN
    rows: dict[tuple[str, str], Row | None] = {}
    former: dict[tuple[str, str], Row | None] = {}
    for ms, _, table, key, action in plans:
        before = rows.get((table, key))
        makers: _Products | _Customers = goods if table == "products" else people
        op, after = _act(action, makers, key, before, former.get((table, key)))
        if op is None:
            continue
        lsn += rng.randrange(16, 400)
        changes.append(Change(table, key, op, None if op in "rc" else before, after, ms, lsn))
        former[table, key] = before if before is not None else former.get((table, key))
        rows[table, key] = after

    products = Timeline("stock_code", (change for change in changes if change.table == "products"))
    customers = Timeline("customer_id", (change for change in changes if change.table == "customers"))
    sharp: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
    for change in changes:
        if change.table == "products" and change.op in "cud" and change.ts_ms % SECOND == 0:
            version = products.at(change.key, change.ts_ms)
            if version is not None and version.valid_from == instant(change.ts_ms):
                sharp[(change.ts_ms - first_ms) // DAY].append((change.key, change.ts_ms))
    return History(changes, products, customers, dict(sharp))


class ChangeFeed:
    """Turns the history of a table into the lines of its daily files."""

    def __init__(self, rng: Random, table: str, changes: list[Change], first_ms: int, days: int) -> None:
        """Decide the file of every change.

        Args:
            rng: the source of every draw.
            table: `products` or `customers`.
            changes: the changes of both tables in the order of the log.
            first_ms: the first instant of the period.
            days: length of the period; no line is delivered after it.

        """
        self._rng = rng
        self._table = table
        self._snapshot: list[Change] = []
        self._files: defaultdict[int, list[Change]] = defaultdict(list)
        kinds = PRODUCT_KINDS if table == "products" else CUSTOMER_KINDS
        self._schedule = Schedule(tuple(kinds), CDC_RATE)
        late: list[tuple[int, Change]] = []
        for change in changes:
            if change.table != table:
                continue
            if change.op == "r":
                self._snapshot.append(change)
                continue
            day = (change.ts_ms - first_ms) // DAY
            if rng.random() < LATE_SHARE and day + 1 < days:
                day = min(days - 1, day + rng.randint(1, LATEST_DAYS))
                late.append((day, change))
            else:
                self._files[day].append(change)
            if rng.random() < REPEAT_SHARE:
                late.append((day, change))
            if rng.random() < REPEAT_LATER_SHARE and day + 1 < days:
                late.append((min(days - 1, day + rng.randint(1, LATEST_DAYS)), change))
        for day, change in late:
            file = self._files[day]
            file.insert(rng.randint(0, len(file)), change)

    def lines(self, day: int) -> list[Line]:
        """Return the lines of the file of a day in order; empty when there was no change.

        Args:
            day: index of the day; days are asked for in order.

        """
        rng = self._rng
        changes = list(self._files[day])
        places: defaultdict[str, list[int]] = defaultdict(list)
        for place, change in enumerate(changes):
            places[change.key].append(place)
        for own in places.values():
            if len(own) > 1 and rng.random() < SHUFFLE_SHARE:
                turned = [changes[place] for place in reversed(own)]
                for place, change in zip(own, turned, strict=True):
                    changes[place] = change
        if day == 0:
            # The snapshot is taken before the stream begins; it heads the first file.
            changes = self._snapshot + changes
        lines = [Line(json_line(change.envelope())) for change in changes]
        models = [change for change in changes if change.after is not None]
        for kind, twice in self._schedule.take(len(lines)) if models else ():
            bad = spoil_change(kind, KEY_COLUMNS[self._table], rng.choice(models).envelope(), rng)
            for _ in range(1 + twice):
                lines.insert(rng.randint(1, len(lines)), bad)
        return lines


class _Products:
    """Makes the rows of the products table."""

    def __init__(self, rng: Random, products: list[Product]) -> None:
        self._rng = rng
        self._products = {product.code: product for product in products}

    def new(self, key: str) -> Row:
        product = self._products[key]
        return {
            "stock_code": key,
            "description": product.description,
            "list_price": f"{product.base_price:.4f}",
        }

    def edit(self, row: Row) -> Row:
        base = self._products[str(row["stock_code"])].base_price
        # A tenth of the prices use all four places, as prices per piece of a pack do.
        places = Decimal("0.0001") if self._rng.random() < 0.1 else Decimal("0.01")
        price = (base * Decimal(self._rng.randint(700, 1400)).scaleb(-3)).quantize(places)
        if f"{price:.4f}" == row["list_price"]:
            price += Decimal("0.01")
        return row | {"list_price": f"{price:.4f}"}

    def other(self, row: Row) -> Row:
        name = self._products[str(row["stock_code"])].name
        edition = f"{name}, ÉDITION Nº {self._rng.randint(2, 9)}"
        choices: list[str | None] = [None, name, f"{name} (NEW)", edition]
        return row | {"description": self._rng.choice([c for c in choices if c != row["description"]])}


class _Customers:
    """Makes the rows of the customers table."""

    def __init__(self, rng: Random, customers: list[Customer]) -> None:
        self._rng = rng
        self._customers = {customer.customer_id: customer for customer in customers}

    def new(self, key: str) -> Row:
        customer = self._customers[key]
        return {
            "customer_id": key,
            "country": customer.country,
            "segment": customer.segment,
            "email": customer.email,
        }

    def edit(self, row: Row) -> Row:
        if self._rng.random() < 0.5:
            return row | {"segment": "retail" if row["segment"] == "wholesale" else "wholesale"}
        # One address in eight is erased: a change from a value to null and back.
        erased = row["email"] is not None and self._rng.random() < 0.125
        number = self._rng.randint(10_000, 99_999)
        return row | {"email": None if erased else f"user{number}@example.com"}

    def other(self, row: Row) -> Row:
        countries = [name for region in REGIONS for name in COUNTRIES[region] if name != row["country"]]
        return row | {"country": self._rng.choice(countries)}


def _plan(
    rng: Random, presences: dict[str, str], rate: float, first_ms: int, days: int
) -> Iterable[tuple[int, str, str]]:
    """Yield (instant, key, action); an action that its row does not allow is dropped when it is due."""
    for key, presence in presences.items():
        if presence == "known":
            yield first_ms, key, "snapshot"
        elif presence == "later":
            # Not in the first hours: there must be time to sell it before.
            yield first_ms + rng.randrange(days * DAY // 5, days * DAY * 9 // 10), key, "insert"
    keys = [key for key, presence in presences.items() if presence != "never"]
    for day in range(days):
        begin = first_ms + day * DAY
        for _ in range(max(FEWEST_CHANGES, round(rate * len(presences)))):
            key = rng.choice(keys)
            ms = begin + rng.randrange(1, DAY)
            if rng.random() < WHOLE_SECOND_SHARE:
                ms -= ms % SECOND
            happening = rng.choices(tuple(_HAPPENINGS), tuple(_HAPPENINGS.values()))[0]
            if happening == "burst":
                for _ in range(rng.randint(2, 4)):
                    yield ms, key, rng.choice(("edit", "other"))
                    ms = min(ms + rng.randrange(1, 3 * HOUR), begin + DAY - 1)
            elif happening == "instant":
                for action in rng.choice(_INSTANTS):
                    yield ms, key, action
            else:
                yield ms, key, happening
                if happening == "delete" and rng.random() < RETURN_SHARE:
                    back = rng.choice(("insert", "insert_edited"))
                    yield ms + rng.randrange(HOUR, LONGEST_GAP), key, back


def _act(
    action: str, makers: _Products | _Customers, key: str, before: Row | None, former: Row | None
) -> tuple[str | None, Row | None]:
    """Return (op, row after); op is None when the row does not allow the action."""
    if action in ("snapshot", "insert", "insert_edited"):
        if before is not None:
            return None, None
        row = dict(former) if former is not None else makers.new(key)
        if action == "insert_edited":
            row = makers.edit(row)
        return ("r" if action == "snapshot" else "c"), row
    if before is None:
        return None, None
    if action == "delete":
        return "d", None
    alter: dict[str, Callable[[Row], Row]] = {
        "edit": makers.edit,
        "other": makers.other,
        "same": dict,
        "undo": lambda row: dict(former) if former is not None else dict(row),
    }
    return "u", alter[action](before)


def _versions(key_column: str, changes: list[Change]) -> list[Version]:
    """Return the versions of one key from its changes in the order of the log."""
    states: list[tuple[int, Row, bool]] = []
    last: Row = {}
    for change in changes:
        if change.after is not None:
            last = {name: value for name, value in change.after.items() if name != key_column}
        state = (change.ts_ms, last, change.after is None)
        if states and states[-1][0] == change.ts_ms:
            # An interval from an instant to itself would be empty: only the last state of an instant counts.
            states[-1] = state
        else:
            states.append(state)
    # Equal neighbours are joined after that: a change undone at the same instant leaves no trace.
    kept: list[tuple[int, Row, bool]] = []
    for state in states:
        if not kept or kept[-1][1:] != state[1:]:
            kept.append(state)
    ends = [instant(state[0]) for state in kept[1:]]
    return [
        Version(
            key=changes[0].key,
            valid_from=instant(ms),
            valid_to=ends[index] if index < len(ends) else None,
            attributes=dict(attributes),
            is_deleted=deleted,
        )
        for index, (ms, attributes, deleted) in enumerate(kept)
    ]
