"""Ports for servers that a test starts, on 127.0.0.1."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# Below those the kernel gives to whoever asks for any, outgoing connections among them: one of these was taken in the
# second between its choice and the server's start, and nginx did not come up. And above those of known services.
_LOWEST, _HIGHEST = 20_000, 32_000
_TRIES = 1_000


def free_ports(count: int) -> list[int]:
    """So many different ports at which nobody listens; drawn, for several processes look for some at once.

    Raises:
        OSError: there are none.
    """
    found: list[int] = []
    with ExitStack() as held:
        for _ in range(_TRIES):
            if len(found) == count:
                return found
            probe = held.enter_context(socket.socket())
            port = random.SystemRandom().randrange(_LOWEST, _HIGHEST)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    raise OSError(f"no {count} ports of {_LOWEST} to {_HIGHEST} are free")


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
