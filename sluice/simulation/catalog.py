"""Who and what the shop knows: its products, its customers and the countries of its regions.

What belongs here: the cast of the simulation, fixed before its first day. What does not: anything that
happens on a day (`history`, `sales`, `sessions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from random import Random

REGIONS = ("uk", "eu", "row")  # in the order in which ties in time are resolved

# Share of the order lines; about that of a British wholesaler of gifts, whose home market dominates.
REGION_SHARE = {"uk": 0.60, "eu": 0.25, "row": 0.15}

# Names as in the shop's own files, where Ireland is EIRE.
COUNTRIES = {
    "uk": ("United Kingdom",),
    "eu": ("Germany", "France", "EIRE", "Netherlands", "Spain", "Belgium", "Italy", "Sweden"),
    "row": ("USA", "Australia", "Japan", "Canada", "Singapore", "United Arab Emirates"),
}

PRODUCTS = 600  # at scale 1
CUSTOMERS = 900  # at scale 1
FEWEST_PRODUCTS = 24  # below it the rare kinds of product (every 40th) would have no example
FEWEST_CUSTOMERS = 40  # likewise, and every region keeps customers
MOST_PRODUCTS = 50_000  # leaves room among the 90,000 five-digit stock codes
MOST_CUSTOMERS = 80_000  # leaves room among the five-digit customer ids
FIRST_CUSTOMER_ID = 12_346  # where the ids of the well-known public retail data begin

# Fixed remainders instead of draws: even the smallest cast has each kind of member.
NEVER_IN_CDC = (40, 7)  # every 40th member is sold but never appears in the change stream
LATER_IN_CDC = (20, 3)  # every 20th enters the change stream after the first day
WITHOUT_TEXT = (50, 11)  # every 50th has a null in its nullable attribute
ODD_NAME = (12, 5)  # every 12th product has a name that needs quoting or is not ASCII

POSTAGE = "POST"  # charged on invoices, no product of the catalogue
ADJUSTMENT = "B"  # the code of bookkeeping adjustments, likewise no product

_ADJECTIVES = ("RED", "WHITE", "VINTAGE", "HANGING", "RETRO", "SMALL", "LARGE", "WOODEN", "PINK", "IVORY")
_THEMES = ("HEART", "STAR", "ROSE", "POLKADOT", "BIRD", "PARISIENNE", "SPACEBOY", "STRAWBERRY", "SKULL")
_THINGS = ("T-LIGHT HOLDER", "LUNCH BAG", "CAKE TIN", "MUG", "BUNTING", "LANTERN", "CUSHION COVER", "CLOCK")
_ODD_NAMES = (
    'TEA SET "ROSE", 3 PIECES',
    "CAFÉ AU LAIT BOWL, DÉCOR ÉTÉ",
    "茶 TEA CADDY",
    "PARTY POPPER 🎉",
    '10" PLATE',
    "KNIFE, FORK & SPOON",
    "Ünïcödé DOORMAT",
)


@dataclass(frozen=True, slots=True)
class Product:
    """A thing the shop sells.

    Attributes:
        code: the stock code, unique.
        name: the description on order lines.
        description: the description in the change stream; None for a few.
        base_price: the price around which the list price moves, 2 places.
        presence: `known` (in the first snapshot), `later` or `never` in the change stream.

    """

    code: str
    name: str
    description: str | None
    base_price: Decimal
    presence: str


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody with an account.

    Attributes:
        customer_id: five digits, unique.
        region: one of `REGIONS`.
        country: the country on the orders.
        segment: `retail` or `wholesale`.
        email: the address in the change stream; None for a few.
        presence: `known`, `later` or `never` in the change stream.
        visitor_id: the browser or app of the customer in the event stream.

    """

    customer_id: str
    region: str
    country: str
    segment: str
    email: str | None
    presence: str
    visitor_id: str


@dataclass(frozen=True)
class Cast:
    """All products and customers.

    Attributes:
        products: every product, the first being the most bought.
        product_weights: cumulated popularity, one entry a product, for `Random.choices`.
        customers: every customer, by id.
        customers_of: the customers by region; none of them is empty.

    """

    products: list[Product]
    product_weights: list[float]
    customers: list[Customer]
    customers_of: dict[str, list[Customer]]


def make_cast(rng: Random, scale: float) -> Cast:
    """Make the products and customers of a shop.

    Args:
        rng: the source of every draw.
        scale: factor on the numbers of products and customers, which stay within fixed bounds.

    Returns:
        The cast.

    """
    products = _products(rng, min(MOST_PRODUCTS, max(FEWEST_PRODUCTS, round(PRODUCTS * scale))))
    customers = _customers(rng, min(MOST_CUSTOMERS, max(FEWEST_CUSTOMERS, round(CUSTOMERS * scale))))
    # A flat Zipf law: few sell very often, yet every product is sold at some time.
    weights = list(accumulate((rank + 15) ** -0.7 for rank in range(len(products))))
    return Cast(
        products=products,
        product_weights=weights,
        customers=customers,
        customers_of={region: [c for c in customers if c.region == region] for region in REGIONS},
    )


def _is(index: int, pattern: tuple[int, int]) -> bool:
    return index % pattern[0] == pattern[1]


def _presence(index: int) -> str:
    if _is(index, NEVER_IN_CDC):
        return "never"
    return "later" if _is(index, LATER_IN_CDC) else "known"


def _products(rng: Random, count: int) -> list[Product]:
    products = []
    for index, number in enumerate(rng.sample(range(10_000, 100_000), count)):
        # A fifth are variants with a letter, as 85123A: codes are text, not numbers.
        code = f"{number}{rng.choice('ABCDEF') if rng.random() < 0.2 else ''}"
        if _is(index, ODD_NAME):
            name = _ODD_NAMES[index // ODD_NAME[0] % len(_ODD_NAMES)]
        else:
            name = f"{rng.choice(_ADJECTIVES)} {rng.choice(_THEMES)} {rng.choice(_THINGS)}"
        # Prices of 0.29 to about 40, most of them small.
        price = Decimal(round(29 + 350 * rng.expovariate(1.0))).scaleb(-2)
        description = None if _is(index, WITHOUT_TEXT) else name
        products.append(Product(code, name, description, price, _presence(index)))
    return products


def _customers(rng: Random, count: int) -> list[Customer]:
    customers = []
    ids = sorted(rng.sample(range(FIRST_CUSTOMER_ID, 100_000), count))
    for index, number in enumerate(ids):
        # Twenty to a round, dealt by share: no region is left without customers.
        place = (index * 7 + 3) % 20 / 20
        region = "uk" if place < 0.6 else "eu" if place < 0.85 else "row"
        customers.append(
            Customer(
                customer_id=str(number),
                region=region,
                country=rng.choice(COUNTRIES[region]),
                segment="wholesale" if rng.random() < 0.25 else "retail",
                email=None if _is(index, WITHOUT_TEXT) else f"user{number}@example.com",
                presence=_presence(index),
                visitor_id=f"v{rng.getrandbits(48):012x}",
            )
        )
    return customers
