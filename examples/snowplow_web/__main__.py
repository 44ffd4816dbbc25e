"""`python -m examples.snowplow_web`."""

from examples.running import main
from examples.snowplow_web import EXAMPLE

raise SystemExit(main(EXAMPLE))
