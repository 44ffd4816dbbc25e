"""What visitors do on the web site and in the app: sessions, their events and the event files.

What belongs here: bursts of events, among them those that lead to invoices, and their delivery by hour. What
does not: how a line is spoilt (`dirt`) and the invoices themselves (`sales`).

Within a session two events are less than 30 minutes apart; two sessions of a visitor are further apart than
that. A purchase is one event for each line of the invoice it led to, within the second of its InvoiceDate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from random import Random
from typing import Any
from uuid import UUID

from sluice.simulation.catalog import Cast, Customer
from sluice.simulation.clock import DAY, HOUR, MINUTE, SECOND, iso_milliseconds
from sluice.simulation.dirt import EVENT_KINDS, RATE, Schedule, json_line, spoil_event
from sluice.simulation.landing import Landing, Line
from sluice.simulation.sales import WEEK, Invoice

EVENTS_PER_DAY = 3_000  # at scale 1, on a day of average trade
FEWEST_EVENTS = 20  # a day, so that small runs have whole sessions
SESSION_BREAK = 30 * MINUTE  # the usual definition of a session
APART = SESSION_BREAK + MINUTE  # sessions of a visitor keep this distance; no gap is a borderline case
LONGEST_PAUSE = 25 * MINUTE  # within a session, likewise away from the border
PAUSE_SHARE = 0.06  # of gaps that are long pauses
LONGEST_BASKET = 8  # lines of an invoice that a visitor may have put together on the site
BOUGHT_ONLINE_SHARE = 0.7  # of such invoices
BOUGHT_EVENTS_SHARE = 0.3  # of a day's events at most, otherwise the funnel would hardly narrow
KNOWN_SHARE = 0.35  # of mere visits by customers
BACK_TODAY_SHARE = 0.1  # of anonymous visits by somebody who was there already today
RETURNING_SHARE = 0.2  # of anonymous visits by somebody who was there on an earlier day
LATE_SHARE = 0.01  # of events in the folder of a later hour
NEXT_DAY_SHARE = 0.003  # of events in the folder of the next day
DUPLICATE_SHARE = 0.005  # of lines repeated within the date
REDELIVERED_SHARE = 0.002  # of events once more in the folder of a later date
LONGEST_DELAY_HOURS = 5  # of an event in a later hour

# Visits by hour of the day, UTC: quiet nights, a peak in the evening.
_HOURS = (2, 1, 1, 1, 1, 2, 3, 5, 6, 7, 8, 8, 9, 8, 8, 8, 8, 9, 10, 11, 11, 9, 6, 4)

Step = tuple[str, str | None, int | None]


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A line in an hour's folder, the millisecond within that hour at which it came, and its event."""

    hour: int
    came: int
    event: dict[str, Any]
    text: str


class Sessions:
    """Makes the events of each day and writes the event files; days must be asked for in order."""

    def __init__(self, rng: Random, cast: Cast, *, scale: float, days: int, first_ms: int) -> None:
        """Prepare the first day.

        Args:
            rng: the source of every draw.
            cast: the products and customers.
            scale: factor on the number of events.
            days: length of the period; no event happens and no file arrives after it.
            first_ms: the first instant of the period.

        """
        self._rng = rng
        self._cast = cast
        self._scale = scale
        self._days = days
        self._first_ms = first_ms
        self._events = 0
        self._purchases = 0
        self._pending: defaultdict[int, list[_Delivery]] = defaultdict(list)
        # Sessions of today and yesterday by visitor; older ones cannot be near a new one.
        self._busy: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self._strangers: list[str] = []
        self._schedule = Schedule(tuple(EVENT_KINDS), RATE)

    def totals(self) -> dict[str, str | int]:
        """Return the numbers of distinct events and of distinct purchase events so far."""
        return {"events": self._events, "purchases": self._purchases}

    def deliver(self, landing: Landing, index: int, day: date, invoices: Sequence[Invoice]) -> None:
        """Make the events of a day and write the files that arrive on it.

        Args:
            landing: where they go.
            index: index of the day.
            day: its date.
            invoices: the invoices of the day.

        Raises:
            OSError: a file cannot be written.

        """
        self._happen(index, day, invoices)
        folder = f"events/date={day.isoformat()}"
        seen: set[str] = set()
        for hour, lines in sorted(self._hours(index, self._pending.pop(index, [])).items()):
            landing.deliver(
                "events",
                day.isoformat(),
                f"{folder}/hour={hour:02d}/events.jsonl.gz",
                lines,
                day=index,
                seen=seen,
            )

    def _happen(self, index: int, day: date, invoices: Sequence[Invoice]) -> None:
        rng = self._rng
        begin = self._first_ms + index * DAY
        self._forget(begin - DAY)
        budget = max(FEWEST_EVENTS, round(EVENTS_PER_DAY * self._scale * WEEK[day.weekday()]))
        made = 0
        for invoice in invoices:
            small = invoice.number.isdigit() and len(invoice.items) <= LONGEST_BASKET
            if small and made < budget * BOUGHT_EVENTS_SHARE and rng.random() < BOUGHT_ONLINE_SHARE:
                made += self._purchase(begin, invoice)
        today: list[str] = []
        while made < budget:
            made += self._visit(begin, today)
        # A few strangers may come back on a later day.
        self._strangers = (self._strangers + today)[-2_000:]

    def _purchase(self, begin: int, invoice: Invoice) -> int:
        rng = self._rng
        steps: list[Step] = [("page_view", None, None)]
        for item in invoice.items:
            code = item.product.code
            if rng.random() < 0.3:
                steps.append(("view", self._product(), None))
            steps.append(("view", code, None))
            if rng.random() < 0.15:
                steps.append(("page_view", None, None))
            steps.append(("add_to_cart", code, item.quantity))
            if rng.random() < 0.08:
                other = self._product()
                steps += [("add_to_cart", other, 1), ("remove_from_cart", other, 1)]
        steps.append(("checkout", None, None))
        offsets = self._offsets(len(steps))
        # The first purchase lies within the second of the invoice, the others within the same second.
        first = offsets[-1] + rng.randrange(15 * SECOND, 200 * SECOND)
        start = invoice.ms + rng.randrange(400) - first
        for place, item in enumerate(invoice.items):
            steps.append(("purchase", item.product.code, item.quantity))
            offsets.append(first + 20 * place)
        customer = invoice.customer
        visitor = self._new_visitor() if customer is None else customer.visitor_id
        if start < begin or not self._free(visitor, start, start + offsets[-1]):
            return 0  # this one was ordered by telephone
        login = rng.randrange(len(steps) - len(invoice.items))
        return self._record(visitor, customer, login, start, offsets, steps, invoice.number)

    def _visit(self, begin: int, today: list[str]) -> int:
        rng = self._rng
        count = min(40, 1 + int(rng.expovariate(1 / 7)))  # 8 events in the mean, the longest still one visit
        steps = self._browse(count)
        offsets = self._offsets(len(steps))
        hour = rng.choices(range(24), _HOURS)[0]
        start = begin + hour * HOUR + rng.randrange(HOUR)
        customer: Customer | None = None
        if rng.random() < KNOWN_SHARE:
            customer = rng.choice(self._cast.customers)
            visitor = customer.visitor_id
        elif today and rng.random() < BACK_TODAY_SHARE:
            visitor = rng.choice(today)
        elif self._strangers and rng.random() < RETURNING_SHARE:
            visitor = rng.choice(self._strangers)
        else:
            visitor = self._new_visitor()
        if not self._free(visitor, start, start + offsets[-1]):
            customer, visitor = None, self._new_visitor()
        if customer is None:
            today.append(visitor)
        # Most customers are recognised at once, others log in on the way or not at all.
        login = 0 if rng.random() < 0.4 else rng.randrange(len(steps) + 1)
        return self._record(visitor, customer, login, start, offsets, steps, None)

    def _browse(self, count: int) -> list[Step]:
        rng = self._rng
        steps: list[Step] = [("page_view", None, None)]
        viewed: str | None = None
        cart: list[tuple[str, int]] = []
        while len(steps) < count:
            draw = rng.random()
            if draw < 0.72 and (draw >= 0.25 or viewed is None):
                viewed = self._product()
                steps.append(("view", viewed, None))
            elif 0.72 <= draw < 0.88 and viewed is not None:
                cart.append((viewed, rng.randint(1, 12)))
                steps.append(("add_to_cart", *cart[-1]))
            elif 0.88 <= draw < 0.93 and cart:
                steps.append(("remove_from_cart", *cart.pop(rng.randrange(len(cart)))))
            elif draw >= 0.93 and cart:
                steps.append(("checkout", None, None))
            else:
                steps.append(("page_view", None, None))
        return steps

    def _record(
        self,
        visitor: str,
        customer: Customer | None,
        login: int,
        start: int,
        offsets: Sequence[int],
        steps: Sequence[Step],
        invoice: str | None,
    ) -> int:
        """Keep the events of a session for delivery and return their number."""
        rng = self._rng
        self._busy[visitor].append((start, start + offsets[-1]))
        channel = "app" if rng.random() < 0.3 else "web"
        made = 0
        for place, (offset, (kind, code, quantity)) in enumerate(zip(offsets, steps, strict=True)):
            ms = start + offset
            day = (ms - self._first_ms) // DAY
            if day >= self._days:
                break  # a visit over the last midnight; what follows is not part of the period
            event = {
                "event_id": self._id(),
                "event_type": kind,
                "event_ts": iso_milliseconds(ms),
                "visitor_id": visitor,
                "customer_id": None if customer is None or place < login else customer.customer_id,
                "stock_code": code,
                "quantity": quantity,
                "invoice": invoice if kind == "purchase" else None,
                "channel": channel,
            }
            hour, came = ms // HOUR % 24, ms % HOUR
            text = json_line(event)
            draw = rng.random()
            if draw < LATE_SHARE:
                hour, came = min(23, hour + rng.randint(1, LONGEST_DELAY_HOURS)), rng.randrange(HOUR)
            elif draw < LATE_SHARE + NEXT_DAY_SHARE and day + 1 < self._days:
                day, hour, came = day + 1, rng.randrange(6), rng.randrange(HOUR)
            self._pending[day].append(_Delivery(hour, came, event, text))
            made += 1
            self._purchases += kind == "purchase"
        self._events += made
        return made

    def _hours(self, index: int, deliveries: list[_Delivery]) -> dict[int, list[Line]]:
        """Return the lines of each hour of a date, with repetitions and spoilt lines."""
        rng = self._rng
        # In the order in which a collector would append them: late events lie among the others.
        deliveries.sort(key=lambda delivery: (delivery.hour, delivery.came))
        hours: defaultdict[int, list[Line]] = defaultdict(list)
        for delivery in deliveries:
            hours[delivery.hour].append(Line(delivery.text))
        repeats: list[tuple[int, Line]] = []
        clashes: list[tuple[int, Line]] = []
        for kind, twice in self._schedule.take(len(deliveries)):
            model = rng.choice(deliveries)
            bad = spoil_event(kind, model.event, self._id, rng)
            if kind == "id_reused":
                clashes.append((self._not_before(model.hour, deliveries), bad))
            else:
                repeats.extend([(model.hour, bad)] * (1 + twice))
        for delivery in deliveries:
            draw = rng.random()
            if draw < DUPLICATE_SHARE:
                # Half of the repetitions stay in the file, the others come in any later one of the date.
                same_file = draw < DUPLICATE_SHARE / 2
                hour = delivery.hour if same_file else self._not_before(delivery.hour, deliveries)
                repeats.append((hour, Line(delivery.text)))
            elif draw < DUPLICATE_SHARE + REDELIVERED_SHARE and index + 1 < self._days:
                later = min(self._days - 1, index + rng.randint(1, 2))
                hour, came = rng.randrange(24), rng.randrange(HOUR)
                self._pending[later].append(_Delivery(hour, came, delivery.event, delivery.text))
        for hour, line in repeats:
            hours[hour].insert(rng.randint(0, len(hours[hour])), line)
        for hour, line in clashes:
            # At the end of a file not before that of the good event: the good one comes first.
            hours[hour].append(line)
        return hours

    def _not_before(self, hour: int, deliveries: Iterable[_Delivery]) -> int:
        """Return an hour of the date with a file, not before the one given."""
        return self._rng.choice(sorted({other.hour for other in deliveries if other.hour >= hour}))

    def _offsets(self, count: int) -> list[int]:
        rng = self._rng
        offsets = [0]
        while len(offsets) < count:
            pause = rng.random() < PAUSE_SHARE
            gap = rng.randrange(3 * MINUTE, LONGEST_PAUSE) if pause else rng.randrange(4 * SECOND, 90 * SECOND)
            offsets.append(offsets[-1] + gap)
        return offsets

    def _free(self, visitor: str, start: int, end: int) -> bool:
        return all(start > until + APART or end < since - APART for since, until in self._busy.get(visitor, ()))

    def _forget(self, before: int) -> None:
        kept = {visitor: [span for span in spans if span[1] >= before] for visitor, spans in self._busy.items()}
        self._busy = defaultdict(list, {visitor: spans for visitor, spans in kept.items() if spans})

    def _product(self) -> str:
        return self._rng.choices(self._cast.products, cum_weights=self._cast.product_weights)[0].code

    def _new_visitor(self) -> str:
        return f"v{self._rng.getrandbits(48):012x}"

    def _id(self) -> str:
        return str(UUID(int=self._rng.getrandbits(128), version=4))
