"""Who is new: customers, cards, merchants and devices that were not there the day before.

A world keeps its size: where one customer leaves another moves in, a card that expires is renewed under
another token, a shop closes and another opens in its place. So there are newcomers every day, and as many at
the end of a long history as at its beginning. Travellers and new telephones are habits of customers
(`datasets.synthetic.genuine`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from datasets.synthetic.genuine import DAY_MS, Addresses
from datasets.synthetic.rows import NONE, Ints, Rows, as_ints
from datasets.synthetic.world import DEVICES_EACH, World

#: Shares that are replaced in a day: customers who leave for others, cards renewed after about three years,
#: and merchants.
CUSTOMERS_A_DAY: Final = 0.004
CARDS_A_DAY: Final = 0.001
MERCHANTS_A_DAY: Final = 0.001
#: No place changes hands twice in a history, however long.
MOST_REPLACED: Final = 0.6
_NEVER: Final = np.iinfo(np.int64).max
#: Codes of successors' devices begin here: behind those of any number of thieves.
_SUCCESSORS: Final = 2**30


@dataclass(frozen=True, slots=True)
class Turnover:
    """When each place of the world changes hands, milliseconds since 1970 UTC; far away if it does not.

    Successors have codes of their own, behind all that the world itself has. What a successor is like
    (home, habits, prices) is what the place before was like: nothing remembers it by its name.
    """

    customer_ms: Ints
    card_ms: Ints
    merchant_ms: Ints
    #: Codes of devices below this one belong to customers.
    own_devices: int
    terminals: int

    def renamed(self, rows: Rows) -> Rows:
        """`rows` with the codes of who was there at the time of each."""
        when = rows.event_ms
        moved_in = when >= self.customer_ms[rows.customer]
        renewed = moved_in | (when >= self.card_ms[rows.card])
        opened = when >= self.merchant_ms[rows.merchant]
        own = (rows.device != NONE) & (rows.device < self.own_devices)
        owner = np.where(own, rows.device // DEVICES_EACH, 0)
        # A family's device goes with the customer who brought it.
        gone = own & (when >= self.customer_ms[owner])
        merchants, cards = len(self.merchant_ms), len(self.card_ms)
        renamed = rows.take(np.arange(len(rows)))
        renamed.customer = rows.customer + moved_in * len(self.customer_ms)
        # A card may be renewed and its holder leave: three tokens for one place.
        renamed.card = rows.card + cards * (renewed + (moved_in & (when >= self.card_ms[rows.card])))
        renamed.merchant = rows.merchant + opened * merchants
        renamed.terminal = np.where(
            (rows.terminal != NONE) & opened, rows.terminal + self.terminals, rows.terminal
        )
        renamed.device = np.where(gone, rows.device + _SUCCESSORS, rows.device)
        return renamed


def turnover(world: World, places: Addresses, start_ms: int, days: int, rng: np.random.Generator) -> Turnover:
    """Moments at random within `days` days from `start_ms`, for as many places as change hands by then."""

    def moments(count: int, a_day: float) -> Ints:
        share = min(a_day * days, MOST_REPLACED)
        when = start_ms + (rng.random(count) * days * DAY_MS).astype(np.int64)
        return as_ints(np.where(rng.random(count) < share, when, _NEVER))

    return Turnover(
        customer_ms=moments(world.customers, CUSTOMERS_A_DAY),
        card_ms=moments(int(world.cards.sum()), CARDS_A_DAY),
        merchant_ms=moments(world.merchants, MERCHANTS_A_DAY),
        own_devices=places.first_public_device,
        terminals=int(world.terminals.sum()),
    )
