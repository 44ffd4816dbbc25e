"""A simulated shop: a landing area whose right answers are known before anything reads it.

What belongs here: the generator of the files (`generate`) and of the numbers a correct platform must arrive
at (`Truth`). What does not: anything that reads, loads or checks a landing area; the generator shares no code
with the platform, otherwise both could be wrong in the same way.
"""

from sluice.simulation.shop import generate
from sluice.simulation.truth import LedgerTruth, Truth, Version

__all__ = ["LedgerTruth", "Truth", "Version", "generate"]
