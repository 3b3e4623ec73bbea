"""Transactions while they are made: integer codes in numpy columns, one block per behaviour."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

POS, ECOM, ATM, MOTO, TRANSFER = range(5)
NONE: Final = -1

#: Names of `Rows.kind`, by code; 0 is genuine.
KINDS: Final = (
    "genuine", "card_testing", "account_takeover", "compromised_terminal", "high_amount",
    "impossible_travel", "merchant_ring", "stealthy", "mule_transfer",
)  # fmt: skip
GENUINE, CARD_TESTING, TAKEOVER, TERMINAL, HIGH_AMOUNT, TRAVEL, RING, STEALTHY, MULE = range(9)

_TYPES: Final = {
    "event_ms": np.int64, "customer": np.int64, "card": np.int64, "merchant": np.int64,
    "terminal": np.int64, "device": np.int64, "ip": np.int64, "cents": np.float64,
    "channel": np.int8, "country": np.int16, "latitude": np.float64, "longitude": np.float64,
    "kind": np.int8, "episode": np.int64,
}  # fmt: skip
_ABSENT: Final = {
    "terminal": NONE, "device": NONE, "ip": NONE, "latitude": np.nan, "longitude": np.nan,
    "kind": GENUINE, "episode": NONE,
}  # fmt: skip


def as_ints(values: Array) -> Ints:
    """`values` as 64-bit integers; what a type checker cannot see through indexing."""
    return np.asarray(values, dtype=np.int64)


@dataclass(slots=True)
class Rows:
    """A block of transactions in no particular order.

    `event_ms` is milliseconds since 1970 UTC; `cents` the amount in reference cents before
    conversion to the merchant's currency; the rest are codes into the world's tables, -1 for
    an absent optional field and NaN for an absent coordinate. `episode` numbers the attack that
    a fraud belongs to.
    """

    event_ms: Ints
    customer: Ints
    card: Ints
    merchant: Ints
    terminal: Ints
    device: Ints
    ip: Ints
    cents: Floats
    channel: Array
    country: Array
    latitude: Floats
    longitude: Floats
    kind: Array
    episode: Ints

    def __len__(self) -> int:
        return len(self.event_ms)

    def take(self, index: Array) -> Rows:
        """The rows at `index` (positions or a mask), copied."""
        return Rows(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


def block(count: int, **columns: Any) -> Rows:
    """A block of `count` rows; scalars are repeated and optional columns may be left out."""
    values = _ABSENT | columns
    return Rows(
        **{
            name: np.array(np.broadcast_to(np.asarray(values[name]), (count,)), dtype=kind)
            for name, kind in _TYPES.items()
        }
    )


def concatenate(blocks: list[Rows]) -> Rows:
    """All rows of `blocks`, in their order."""
    return Rows(**{name: np.concatenate([getattr(rows, name) for rows in blocks]) for name in _TYPES})
