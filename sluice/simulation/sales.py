"""What the shop sells day by day: invoices, cancellations and adjustments, their files and their totals.

What belongs here: order lines, how they are put into files, and the facts that follow from them. What does
not: how a line is spoilt (`dirt`) and the visits that led to an invoice (`sessions`).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from random import Random

from sluice.simulation.catalog import (
    ADJUSTMENT,
    COUNTRIES,
    POSTAGE,
    REGION_SHARE,
    REGIONS,
    Cast,
    Customer,
    Product,
)
from sluice.simulation.clock import DAY, HOUR, SECOND, invoice_time
from sluice.simulation.dirt import ORDER_KINDS, RATE, Schedule, csv_field, spoil_order
from sluice.simulation.history import History
from sluice.simulation.landing import Landing, Line

LINES_PER_DAY = 1_500  # over all regions at scale 1, on a day of average trade
WEEK = (1.1, 1.15, 1.1, 1.2, 1.0, 0.6, 0.85)  # trade from Monday to Sunday; the mean is 1
FIRST_INVOICE = 100_001  # the smallest numbers of six digits
LAST_INVOICE = 999_999  # the contract allows six digits
INVOICES_PER_LINE = 0.15  # a generous estimate, checked before the first file is written
INVOICES_PER_DAY = 8  # and the invoices each day has at any scale
ANONYMOUS_SHARE = 0.2  # of invoices without a Customer ID
RETURN_SHARE = 0.02  # of lines, each cancelled on an invoice of its own
SHARP_SALES = 2  # a day: sales at the very instant at which a version of their product begins
EMPTY_DESCRIPTION_SHARE = 0.003  # of lines; the column is optional
GIFT_SHARE = 0.002  # of lines at price 0, which the contract allows
DUPLICATE_SHARE = 0.003  # of lines repeated in the same file
REMEMBERED = 400  # sales of a region that can still be cancelled
LATE_INVOICE_SHARE = 0.05  # of the invoices of a partition that has a late file

HEADER = ("Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID", "Country")
WITH_CHANNEL = (*HEADER, "Channel")
WITHOUT_DESCRIPTION = tuple(column for column in HEADER if column != "Description")
REORDERED = (
    "Country",
    "Invoice",
    "InvoiceDate",
    "StockCode",
    "Quantity",
    "Price",
    "Description",
    "Customer ID",
)

# (day index, region) -> header of the one file that deviates. A shorter run has them on its last day.
ODD_HEADERS = (
    (4, "uk", WITH_CHANNEL),
    (9, "eu", WITHOUT_DESCRIPTION),
    (14, "row", REORDERED),
)


@dataclass(frozen=True, slots=True)
class Item:
    """One line of an invoice: a product, a quantity that is not 0 and a unit price of at most 4 places."""

    product: Product
    quantity: int
    price: Decimal


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice, cancellation or adjustment.

    Attributes:
        number: as in the file, with its prefix A or C if any.
        ms: its instant, on a whole second.
        region: one of `REGIONS`.
        country: the country on its lines.
        customer: who bought; None when unknown.
        items: at least one.

    """

    number: str
    ms: int
    region: str
    country: str
    customer: Customer | None
    items: tuple[Item, ...]


def check_size(days: int, scale: float) -> None:
    """Refuse a period that would need more invoices than there are six-digit numbers.

    Args:
        days: length of the period.
        scale: factor on the number of lines.

    Raises:
        ValueError: the period is too large.

    """
    needed = days * (LINES_PER_DAY * scale * INVOICES_PER_LINE + INVOICES_PER_DAY)
    if needed > LAST_INVOICE - FIRST_INVOICE:
        raise ValueError(f"{days} days at scale {scale:g} need more than the six-digit invoice numbers there are")


class Facts:
    """Sums over accepted order lines."""

    def __init__(self, history: History) -> None:
        """Begin at zero.

        Args:
            history: what was valid when.

        """
        self._history = history
        self._counts: dict[str, int] = dict.fromkeys(
            (
                "order_lines",
                "returns_lines",
                "unknown_customer_lines",
                "inferred_product_lines",
                "inferred_customer_lines",
            ),
            0,
        )
        self._revenue: defaultdict[str, Decimal] = defaultdict(Decimal)
        self._returns = Decimal()
        self._list_value = Decimal()

    def add(self, day: date, invoice: Invoice) -> None:
        """Count the lines of an invoice of a day."""
        counts = self._counts
        size = len(invoice.items)
        counts["order_lines"] += size
        value = sum((item.quantity * item.price for item in invoice.items), Decimal())
        self._revenue[f"{day.isoformat()}|{invoice.region}"] += value
        if invoice.number.startswith("C"):
            counts["returns_lines"] += size
            self._returns += value
        if invoice.customer is None:
            counts["unknown_customer_lines"] += size
        elif self._history.customers.at(invoice.customer.customer_id, invoice.ms) is None:
            counts["inferred_customer_lines"] += size
        for item in invoice.items:
            version = self._history.products.at(item.product.code, invoice.ms)
            if version is None:
                counts["inferred_product_lines"] += 1
            else:
                self._list_value += item.quantity * Decimal(str(version.attributes["list_price"]))

    def totals(self) -> dict[str, str | int]:
        """Return the totals; money as text with 4 places, which is exact."""
        revenue = sum(self._revenue.values(), Decimal())
        return {
            **self._counts,
            "revenue": f"{revenue:.4f}",
            "returns_revenue": f"{self._returns:.4f}",
            "list_value_as_of_sale": f"{self._list_value:.4f}",
        }

    def revenue_by_day_region(self) -> dict[str, str]:
        """Return the revenue by `YYYY-MM-DD|region`, text with 4 places."""
        return {key: f"{value:.4f}" for key, value in sorted(self._revenue.items())}


class Sales:
    """Makes the invoices of each day and writes the order files; days must be asked for in order."""

    def __init__(self, rng: Random, cast: Cast, history: History, *, scale: float, days: int) -> None:
        """Prepare the first day.

        Args:
            rng: the source of every draw.
            cast: the products and customers.
            history: the list prices from which sale prices derive.
            scale: factor on the number of lines.
            days: length of the period; no file arrives after it.

        """
        self._rng = rng
        self._cast = cast
        self._history = history
        self._scale = scale
        self._days = days
        self._next_number = FIRST_INVOICE
        self._codes = {product.code: product for product in cast.products}
        self._recent: dict[str, deque[tuple[Invoice, Item]]] = {region: deque(maxlen=REMEMBERED) for region in REGIONS}
        self._schedule = Schedule(tuple(ORDER_KINDS), RATE)

    def invoices(self, index: int, day: date, begin: int) -> list[Invoice]:
        """Return the invoices of a day, ordered by time and number.

        Args:
            index: index of the day.
            day: its date.
            begin: its first instant.

        """
        rng = self._rng
        drafts: list[Invoice] = []
        for region in REGIONS:
            wanted = self._scale * LINES_PER_DAY * REGION_SHARE[region] * WEEK[day.weekday()]
            missing = max(1, round(wanted * (1 - RETURN_SHARE)))
            while missing > 0:
                draft = self._draft(begin, region, missing)
                missing -= len(draft.items)
                drafts.append(draft)
        for code, ms in self._history.sharp.get(index, [])[:SHARP_SALES]:
            drafts.append(self._invoice("", ms, "uk", [self._codes[code]]))
        drafts.extend(self._returns(begin, drafts))
        # One adjustment early in any run, then about one in ten days.
        if index == min(2, self._days - 1) or rng.random() < 0.1:
            drafts.append(self._adjustment(begin))
        # Numbers are given in the order of time, over all regions, as one till would.
        drafts.sort(key=lambda draft: draft.ms)
        invoices = [self._numbered(draft) for draft in drafts]
        for invoice in invoices:
            if invoice.number.isdigit():
                self._recent[invoice.region].extend((invoice, item) for item in invoice.items)
        return invoices

    def deliver(self, landing: Landing, index: int, day: date, invoices: Sequence[Invoice]) -> None:
        """Write the order files of a day.

        Args:
            landing: where they go.
            index: index of the day.
            day: its date.
            invoices: all invoices of the day.

        Raises:
            OSError: a file cannot be written.

        """
        for place, region in enumerate(REGIONS):
            own = [invoice for invoice in invoices if invoice.region == region]
            folder = f"orders/region={region}/date={day.isoformat()}"
            partition = f"{day.isoformat()}|{region}"
            # Fixed patterns in day and region: both forms of file and line end occur in any run of a week.
            packed = "" if (index + place) % 4 == 3 else ".gz"
            line_end = "\r\n" if (2 * index + place) % 9 == 4 else "\n"
            header: Sequence[str] = HEADER
            for odd_day, odd_region, odd_header in ODD_HEADERS:
                if (min(odd_day, self._days - 1), odd_region) == (index, region):
                    header = odd_header
            delay = 1 + (index + place) % 3
            late: list[Invoice] = []
            if (3 * index + place) % 7 == 2 and index + delay < self._days and len(own) > 1:
                late = self._rng.sample(own, max(1, round(LATE_INVOICE_SHARE * len(own))))
            numbers = {invoice.number for invoice in late}
            prompt = [invoice for invoice in own if invoice.number not in numbers]
            landing.deliver(
                "orders",
                partition,
                f"{folder}/orders.csv{packed}",
                self._lines(prompt, header),
                day=index,
                header=",".join(header),
                line_end=line_end,
            )
            if late:
                landing.deliver(
                    "orders",
                    partition,
                    f"{folder}/orders-late.csv",
                    self._lines(sorted(late, key=lambda invoice: invoice.ms), HEADER),
                    day=index + delay,
                    header=",".join(HEADER),
                )

    def _lines(self, invoices: Sequence[Invoice], header: Sequence[str]) -> list[Line]:
        rng = self._rng
        rows = [self._row(invoice, item) for invoice in invoices for item in invoice.items]
        lines = [Line(",".join(csv_field(row[column]) for column in header)) for row in rows]
        repeated = [line for line in lines if rng.random() < DUPLICATE_SHARE]
        for kind, twice in self._schedule.take(len(rows)):
            bad = spoil_order(kind, rng.choice(rows) | {"Invoice": str(self._number())}, header, rng)
            for _ in range(1 + twice):
                lines.insert(rng.randint(0, len(lines)), bad)
        for line in repeated:
            lines.insert(rng.randint(0, len(lines)), line)
        return lines

    def _row(self, invoice: Invoice, item: Item) -> dict[str, str]:
        rng = self._rng
        # One price in ten is written with all four places: the same number, another text.
        price = f"{item.price:.4f}" if rng.random() < 0.1 else str(item.price)
        return {
            "Invoice": invoice.number,
            "StockCode": item.product.code,
            "Description": "" if rng.random() < EMPTY_DESCRIPTION_SHARE else item.product.name,
            "Quantity": str(item.quantity),
            "InvoiceDate": invoice_time(invoice.ms),
            "Price": price,
            "Customer ID": "" if invoice.customer is None else invoice.customer.customer_id,
            "Country": invoice.country,
            "Channel": rng.choice(("web", "app", "store", "phone")),
        }

    def _draft(self, begin: int, region: str, most: int) -> Invoice:
        rng = self._rng
        # Many small baskets, some of a whole page: 12 lines in the mean.
        low, high = rng.choices(((1, 4), (5, 18), (19, 40)), (0.35, 0.45, 0.2))[0]
        size = min(most, rng.randint(low, high))
        drawn = rng.choices(self._cast.products, cum_weights=self._cast.product_weights, k=size)
        # A product once per invoice: two equal lines would be a duplicate by accident.
        products = list({product.code: product for product in drawn}.values())
        if size >= 5 and rng.random() < 0.1:
            products[-1] = Product(POSTAGE, "POSTAGE", None, Decimal("18.00"), "never")
        # Offices send orders from 6 to 21 h UTC, most of them around noon.
        ms = begin + int(rng.triangular(6 * HOUR, 21 * HOUR, 12.5 * HOUR))
        return self._invoice("", ms - ms % SECOND, region, products)

    def _invoice(self, prefix: str, ms: int, region: str, products: Sequence[Product]) -> Invoice:
        rng = self._rng
        customer: Customer | None = None
        country = rng.choice(COUNTRIES[region])
        if rng.random() >= ANONYMOUS_SHARE:
            customer = rng.choice(self._cast.customers_of[region])
            country = customer.country
        wholesale = customer is not None and customer.segment == "wholesale"
        items = tuple(Item(product, self._quantity(wholesale), self._price(product, ms)) for product in products)
        return Invoice(prefix, ms, region, country, customer, items)

    def _quantity(self, wholesale: bool) -> int:
        # Wholesale buys whole packs of six, retail a dozen at most.
        return 6 * self._rng.randint(1, 24) if wholesale else self._rng.randint(1, 12)

    def _price(self, product: Product, ms: int) -> Decimal:
        rng = self._rng
        if rng.random() < GIFT_SHARE:
            return Decimal("0")
        version = self._history.products.at(product.code, ms)
        price = product.base_price if version is None else Decimal(str(version.attributes["list_price"]))
        discount = rng.choice((100, 100, 100, 95, 90))
        # A discounted price keeps four places now and then; more would break the contract.
        places = Decimal("0.0001") if rng.random() < 0.05 else Decimal("0.01")
        return (price * discount / 100).quantize(places)

    def _returns(self, begin: int, drafts: Sequence[Invoice]) -> list[Invoice]:
        rng = self._rng
        returns = []
        for region in REGIONS:
            today = [(draft, item) for draft in drafts if draft.region == region for item in draft.items]
            pool = [*self._recent[region], *today]
            for _ in range(round(len(today) * RETURN_SHARE + rng.random() - 0.5)):
                sale, item = rng.choice(pool)
                # After the sale, and still on this day.
                earliest = max(begin + 6 * HOUR, sale.ms)
                ms = rng.randrange(earliest, max(earliest + SECOND, begin + DAY))
                back = Item(item.product, -rng.randint(1, item.quantity), item.price)
                returns.append(Invoice("C", ms - ms % SECOND, region, sale.country, sale.customer, (back,)))
        return returns

    def _adjustment(self, begin: int) -> Invoice:
        product = Product(ADJUSTMENT, "Adjust bad debt", None, Decimal(), "never")
        price = Decimal(self._rng.randrange(100_000, 1_000_000)).scaleb(-2)
        return Invoice("A", begin + 20 * HOUR, "uk", "United Kingdom", None, (Item(product, 1, price),))

    def _numbered(self, draft: Invoice) -> Invoice:
        number = f"{draft.number}{self._number()}"
        return Invoice(number, draft.ms, draft.region, draft.country, draft.customer, draft.items)

    def _number(self) -> int:
        number = self._next_number
        if number > LAST_INVOICE:
            raise RuntimeError("the estimate of invoices was too low: six-digit numbers ran out")
        self._next_number += 1
        return number
