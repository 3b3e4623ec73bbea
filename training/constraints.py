"""Directions that the domain demands: more of this never makes a transaction less suspect.

Only where no honest reading goes the other way. A high amount is not in the table (small
amounts test stolen cards), nor are day-long counts (busy customers are not suspects).
"""

from __future__ import annotations

import re
from typing import Final

#: (pattern of feature names, direction): +1 means that the score never falls as it rises.
DIRECTIONS: Final[tuple[tuple[re.Pattern[str], int], ...]] = (
    # The newest confirmed fraud at the same counterparty. Not the longer windows: many frauds in
    # 30 days with none of late is a case that was closed, and a constraint there costs a tenth
    # of average precision.
    (re.compile(r"^(merchant|terminal|device|ip)_fraud_(rate|count)_1d$"), 1),
    # Bursts: the same card or customer again and again within minutes.
    (re.compile(r"^(customer|card)_txn_count_(1m|5m)$"), 1),
    # Many cards or customers behind one device or address.
    (re.compile(r"^(device|ip)_distinct_(cards|customers)_.*$"), 1),
    # Faster than anyone travels.
    (re.compile(r"^(customer|card)_.*speed.*$"), 1),
)


def direction(name: str) -> int:
    """+1, -1 or 0 for one feature name."""
    return next((sign for pattern, sign in DIRECTIONS if pattern.match(name)), 0)


def directions(names: tuple[str, ...]) -> tuple[int, ...]:
    """`direction` of each name, in order."""
    return tuple(direction(name) for name in names)
