"""`python -m examples.snowplow_ecommerce`."""

from examples.running import main
from examples.snowplow_ecommerce import EXAMPLE

raise SystemExit(main(EXAMPLE))
