"""Real data of others through Sluice: contracts and models of their own, and what must come of them."""
