"""How many random logs the tests of history draw, and the lake they are built in.

`SCD_EXAMPLES=1000` draws as many over all models together, anew each time; without it a fixed hundred, always the
same, so that `make test` says the same of the same code. `SCD_SHRINK=1` makes what fails smaller, which takes minutes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from sluice.scd_harness import Harness
from tests.scd.logs import MODELS

USUAL_EXAMPLES = 100
EXAMPLES = int(os.environ.get("SCD_EXAMPLES", USUAL_EXAMPLES))

# Histories of a model. Where keys are apart, four fifths of them are lived through together, a build for so many at a
# time, which costs hardly more than one for a single history. The rest is alone, for a build takes a shorter way only
# where none of the keys at hand asks for a longer.
HISTORIES = -(-EXAMPLES // len(MODELS))
TOGETHER = 4
AT_ONCE = HISTORIES * 4 // (5 * TOGETHER)

settings.register_profile(
    "scd",
    max_examples=HISTORIES,
    derandomize=EXAMPLES <= USUAL_EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    # An example costs a second: shrinking one to its bones takes minutes, well spent only when somebody asks for it.
    phases=[Phase.explicit, Phase.generate, *([Phase.shrink] if os.environ.get("SCD_SHRINK") else [])],
)

settings.register_profile("scd_alone", settings.get_profile("scd"), max_examples=HISTORIES - AT_ONCE * TOGETHER)
# Hypothesis begins with the simplest of all, which is no history at all.
settings.register_profile("scd_together", settings.get_profile("scd"), max_examples=AT_ONCE + 1)

# Three models and four builds an example: a twentieth of the examples takes as long.
settings.register_profile("heal", settings.get_profile("scd"), max_examples=EXAMPLES // 20)


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """A lake and a dbt project with all models of `tests.scd.logs`, parsed once."""
    with Harness(tmp_path_factory.mktemp("scd")) as made:
        made.define(MODELS.values())
        yield made


@pytest.fixture
def drawn(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    """The lake for random logs: a thousand of them have one of their own for each test.

    An example makes some ten snapshots, and every build reads the catalog: in one of 3,800 snapshots an example took
    10 s (beside other work), in a new one 1.3 s.
    """
    if EXAMPLES <= USUAL_EXAMPLES:
        yield request.getfixturevalue("harness")
        return
    with Harness(tmp_path) as made:
        made.define(MODELS.values())
        yield made
