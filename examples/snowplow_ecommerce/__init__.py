"""E-commerce events of a tracker: products, carts, checkouts, transactions and sessions as its makers expect them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from examples.running import Example, Expectation, deliver_by_day

_LEFT_OUT = (
    # Personal, and not taken beyond bronze.
    "ecommerce_user_email",
    "checkout_billing_",
    "checkout_proof_of_payment",
    "checkout_shipping_",
    # Ids once more, and a hash of which is not said of what.
    "event_id2",
    "session_id2",
    "product_event_id",
)


def deliver(data: Path, landing: Path) -> None:
    """Deliver the events day by day, each in the folder of the day it was received."""
    source = data / "source" / "snowplow_ecommerce_events.parquet"
    deliver_by_day(source, landing / "ecommerce_events", "collector_tstamp")


def _expected(table: str, file: str, *key: str) -> Expectation:
    return Expectation(table, f"snowplow_ecommerce_{file}_expected.parquet", key, {}, {})


EXAMPLE = Example(
    name="snowplow_ecommerce",
    start=date(2022, 10, 25),
    deliver=deliver,
    left_out=_LEFT_OUT,
    expected=(
        _expected("fct_product_interactions", "product_interactions", "event_id", "product_id"),
        _expected("fct_cart_interactions", "cart_interactions", "event_id"),
        _expected("fct_checkout_interactions", "checkout_interactions", "event_id"),
        _expected("fct_transactions", "transaction_interactions", "event_id"),
        _expected("fct_sessions", "sessions", "domain_sessionid"),
    ),
)
