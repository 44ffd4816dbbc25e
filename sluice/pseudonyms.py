"""Keyed hashes: what stands for a personal value (pseudonym), and by what an erased person is recognised.

HMAC-SHA256 (RFC 2104) as SQL over a connection's variables, so that it is computed set-based and the key stands in no
SQL text, log or manifest. Which columns are hashed belongs to the contracts and to the dbt macro `personal`.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

import duckdb

# The block of SHA-256, and what RFC 2104 pads the key with.
_BLOCK, _INNER, _OUTER = 64, 0x36, 0x5C

# The variables of a connection. dbt_project/macros/privacy.sql names those of the first.
PSEUDONYM = "sluice_pseudonym"
ERASURE = "sluice_erasure"


@dataclass(frozen=True)
class Key:
    """A secret key. Its `id` tells it from others and may be shown; of the key it says nothing."""

    secret: bytes

    def __repr__(self) -> str:
        return f"Key({self.id})"

    @property
    def id(self) -> str:
        """12 hex digits; empty for no key."""
        if not self.secret:
            return ""
        return hmac.new(self.secret, b"sluice: which key is this", hashlib.sha256).hexdigest()[:12]

    def digest(self, value: str) -> str:
        """The keyed hash of a text: 64 hex digits, as `digest_sql` gives them."""
        return hmac.new(self.secret, value.encode(), hashlib.sha256).hexdigest()

    def put(self, con: duckdb.DuckDBPyConnection, name: str) -> None:
        """Set the connection's variables `<name>_id`, `<name>_inner` and `<name>_outer`; null without a key."""
        block = hashlib.sha256(self.secret).digest() if len(self.secret) > _BLOCK else self.secret
        block = block.ljust(_BLOCK, b"\0")
        values: dict[str, object] = {
            "id": self.id or None,
            "inner": bytes(b ^ _INNER for b in block) if self.secret else None,
            "outer": bytes(b ^ _OUTER for b in block) if self.secret else None,
        }
        for part, value in values.items():
            # Bound: an error would show the text of the statement.
            con.execute(f"SET VARIABLE {name}_{part} = ?", [value])


def digest_sql(expression: str, name: str) -> str:
    """SQL of the keyed hash of a text, by the variables `Key.put` has set: 64 hex digits; null of null."""
    inner, outer = (f"CAST(getvariable('{name}_{part}') AS BLOB)" for part in ("inner", "outer"))
    return f"sha256({outer} || unhex(sha256({inner} || encode({expression}))))"
