"""REVIEW and BLOCK thresholds that cost least, under a stated cost model and an alert budget.

Scores at or above `block` are declined, at or above `review` (and below `block`) looked at by
an analyst, the rest approved. Every amount of money is in reference cents.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.metrics import Floats, Ints


@dataclass(frozen=True, slots=True)
class CostModel:
    """What each outcome costs; the defaults are a plausible issuer's, to be replaced by yours.

    `fraud_loss`: share of a fraud's amount that is lost when it is approved. `review_cost`:
    cents per alert an analyst looks at. `review_catch`: share of reviewed frauds stopped.
    `insult_fixed` and `insult_share`: cents, and share of the amount, lost when a genuine
    transaction is declined. `review_insult`: cents lost by delaying a genuine transaction.
    `alerts_per_day`: most reviews a team can do in a day, on average.
    """

    fraud_loss: float = 1.0
    review_cost: float = 300.0
    review_catch: float = 0.95
    insult_fixed: float = 1_500.0
    insult_share: float = 0.05
    review_insult: float = 100.0
    alerts_per_day: float = 100.0

    def approve(self, fraud: Floats, amount: Floats) -> Floats:
        return fraud * amount * self.fraud_loss

    def review(self, fraud: Floats, amount: Floats) -> Floats:
        missed = fraud * amount * self.fraud_loss * (1 - self.review_catch)
        return self.review_cost + missed + (1 - fraud) * self.review_insult

    def block(self, fraud: Floats, amount: Floats) -> Floats:
        return (1 - fraud) * (self.insult_fixed + self.insult_share * amount)


@dataclass(frozen=True)
class Thresholds:
    """The chosen scores, what they cost per day against approving all, and the curve.

    `curve` holds, for each candidate review threshold (with the best block threshold above
    it): threshold, cents a day, and reviews a day.
    """

    review: float
    block: float
    cost_per_day: float
    approve_all_per_day: float
    reviews_per_day: float
    blocks_per_day: float
    curve: list[dict[str, float]]
    model: CostModel

    def report(self) -> dict[str, Any]:
        return asdict(self)


#: Thresholds tried; places in the ranking, dense at its head where alerts are.
CANDIDATES = 400


def choose_thresholds(
    label: NDArray[np.generic],
    probability: Floats,
    amount: Floats,
    day: Ints,
    cost: CostModel | None = None,
    weight: Floats | None = None,
) -> Thresholds:
    """Thresholds of least total cost with at most `alerts_per_day` reviews on average.

    The cost of a pair is a sum over the rows of a ranking, so prefix sums give all pairs at
    once. `day` is the day number of each row; only its distinct values count. `weight` is how
    many transactions each row stands for. Raises `ValueError` without rows.
    """
    cost = cost or CostModel()
    if not len(probability):
        raise ValueError("no rows to choose thresholds on; widen the validation period")
    days = max(len(np.unique(day)), 1)
    order = np.argsort(-probability, kind="stable")
    score, fraud, money = probability[order], label[order].astype(np.float64), amount[order]
    each = np.ones(len(score)) if weight is None else weight[order]
    flagged_rows = np.concatenate(([0.0], np.cumsum(each)))
    outcomes = (cost.approve, cost.review, cost.block)
    approve, review, block = (
        np.concatenate(([0.0], np.cumsum(side(fraud, money) * each))) for side in outcomes
    )
    # A threshold may only fall between two different scores; place n flags the first n rows.
    places = np.concatenate(([0], np.flatnonzero(np.diff(score)) + 1, [len(score)]))
    spread = np.unique(np.geomspace(1, len(places), CANDIDATES).astype(np.int64)) - 1
    at = places[spread]
    # Rows are places of `block`, columns places of `review`; review flags at least as many rows.
    total = (block[at] - review[at])[:, None] + (review[at] + approve[-1] - approve[at])[None, :]
    reviews = (flagged_rows[at][None, :] - flagged_rows[at][:, None]) / days
    feasible = (reviews >= 0) & (reviews <= cost.alerts_per_day)
    total = np.where(feasible, total, np.inf)
    best_block, best_review = np.unravel_index(int(np.argmin(total)), total.shape)
    best = total.argmin(axis=0)
    curve = [
        {
            "review": _between(score, int(n)),
            "block": _between(score, int(at[best[j]])),
            "cost_per_day": float(total[best[j], j] / days),
            "reviews_per_day": float(reviews[best[j], j]),
        }
        for j, n in enumerate(at)
    ]
    flagged, blocked = int(at[best_review]), int(at[best_block])
    return Thresholds(
        review=_between(score, flagged),
        block=_between(score, blocked),
        cost_per_day=float(total[best_block, best_review] / days),
        approve_all_per_day=float(approve[-1] / days),
        reviews_per_day=float(flagged_rows[flagged] - flagged_rows[blocked]) / days,
        blocks_per_day=float(flagged_rows[blocked]) / days,
        curve=curve,
        model=cost,
    )


def _between(score: Floats, place: int) -> float:
    """A threshold that flags exactly the first `place` rows of a falling ranking."""
    if place == 0:
        return float(min(1.0, (score[0] + 1.0) / 2)) if score[0] < 1.0 else float(np.nextafter(1.0, 2.0))
    if place >= len(score):
        return 0.0
    return float((score[place - 1] + score[place]) / 2)
