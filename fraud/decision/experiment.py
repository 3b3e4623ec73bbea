"""Which model decides a transaction: champion or challenger, by a stable hash of a chosen key."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal

Variant = Literal["champion", "challenger"]
KEYS: Final = ("customer_id", "card_id", "transaction_id")


@dataclass(frozen=True, slots=True)
class Experiment:
    """A split of traffic. `share` of the keys see the challenger, always the same ones.

    `name` salts the hash, so that two experiments split independently of each other.
    """

    name: str = "default"
    share: float = 0.1
    key: str = "customer_id"

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share should lie between 0 and 1, not {self.share}")
        if self.key not in KEYS:
            raise ValueError(f"key should be one of {', '.join(KEYS)}, not {self.key!r}")

    def variant(self, value: str) -> Variant:
        """The variant that the key `value` belongs to."""
        digest = blake2b(value.encode(), digest_size=8, key=self.name.encode()[:64]).digest()
        return "challenger" if int.from_bytes(digest, "little") < self.share * 2.0**64 else "champion"
