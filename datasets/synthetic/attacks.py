"""Every pattern of fraud and its share; and the frauds that leave no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from datasets.synthetic import rows as r
from datasets.synthetic.attacks_at_terminals import compromised_terminal, impossible_travel
from datasets.synthetic.attacks_online import account_takeover, card_testing, high_amount, merchant_ring
from datasets.synthetic.places import CATEGORIES
from datasets.synthetic.rows import Ints, Rows
from datasets.synthetic.scene import Scene

Pattern = Callable[[Scene, int], Rows]

#: Each pattern and its share of the frauds that leave a trace.
VISIBLE: Final[tuple[tuple[Pattern, float], ...]] = (
    (card_testing, 0.24),
    (account_takeover, 0.24),
    (compromised_terminal, 0.17),
    (high_amount, 0.07),
    (impossible_travel, 0.14),
    (merchant_ring, 0.14),
)


def stealthy(scene: Scene, wanted: int) -> Ints:
    """Positions of the honest purchases that were not: `wanted` rows to call fraud.

    Nothing in the row, its past or its future tells them from the customer's own: they are the
    customer's own. Only the context leans: thieves prefer online shops and what sells on.
    """
    rows, world = scene.genuine, scene.world
    risk = np.array([kind.risk for kind in CATEGORIES])[world.category[rows.merchant]]
    weight = np.where(rows.channel == r.ECOM, 9.0, 1.0) * risk**2
    weight[(rows.cents <= 0) | (rows.event_ms < scene.start_ms)] = 0
    wanted = min(wanted, int(np.count_nonzero(weight)))
    return np.sort(scene.rng.choice(len(rows), wanted, replace=False, p=weight / weight.sum()))
