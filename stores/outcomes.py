"""What became of payments: the kinds of outcome, and what of a payment counts as spent.

What is spent follows from the set of outcomes that are known, in whatever order they came:

* declined, or reversed as a whole: nothing;
* captured: what was captured, less what was refunded;
* else: what was authorised and added to it, less what was reversed and refunded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

from msgspec import Struct

Kind = Literal["declined", "reversed", "refunded", "captured", "incremental", "disputed", "dispute_won"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
#: Kinds that may be of a part: without an amount they are of the whole.
PARTIAL: Final = frozenset({"reversed", "refunded", "captured", "disputed", "dispute_won"})
OUTCOMES: Final = "outcomes"


class Effect(Struct, frozen=True):
    """What one outcome does to its payment: minor units, None for the whole."""

    kind: str
    amount_minor: int | None = None


def spent_minor(authorised: int, effects: Iterable[Effect]) -> int:
    """What of a payment of `authorised` minor units counts as spent, whatever the order of `effects`."""
    added = returned = captured = refunded = 0
    any_captured = whole_refunded = False
    for effect in effects:
        amount = effect.amount_minor
        if effect.kind == "declined" or (effect.kind == "reversed" and amount is None):
            return 0
        if effect.kind == "incremental":
            added += amount or 0
        elif effect.kind == "reversed":
            returned += amount or 0
        elif effect.kind == "captured":
            any_captured = True
            captured += authorised if amount is None else amount
        elif effect.kind == "refunded":
            whole_refunded |= amount is None
            refunded += amount or 0
    if whole_refunded:
        return 0
    taken = captured if any_captured else authorised + added - returned
    return max(0, taken - refunded)
