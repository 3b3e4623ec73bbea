"""REVIEW and BLOCK thresholds that cost least, under a stated cost model and an alert budget.

Scores at or above `block` are declined, at or above `review` (and below `block`) looked at by
an analyst, the rest approved. Every amount of money is in reference cents.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
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


@dataclass(frozen=True)
class Limits:
    """Calibration and thresholds of rows that lack the views of one pattern (`stores.patterns`).

    The shares are of the rows they were chosen on: stopped undisturbed; stopped, blocked and frauds found
    under the pattern.
    """

    name: str
    review: float
    block: float
    calibration: dict[str, Any] | None
    undisturbed_share: float
    stopped_share: float
    blocked_share: float
    recall: float

    def placed(self, score: Floats, weight: Floats | None = None) -> Limits:
        """The same shares of the rows with these scores: thresholds for trees that were grown again.

        Without their views rows crowd at few scores, and grown again those lie elsewhere: a threshold that
        was kept would stop a crowd, or let one go.
        """
        order = np.argsort(-score, kind="stable")
        ranked = score[order]
        mass = np.ones(len(score)) if weight is None else weight[order]
        places = np.concatenate(([0], np.flatnonzero(np.diff(ranked)) + 1, [len(ranked)]))
        flagged = np.concatenate(([0.0], np.cumsum(mass)))[places] / mass.sum()
        review, block = (
            _between(ranked, int(places[int(np.searchsorted(flagged, share + 1e-12, side="right")) - 1]))
            for share in (self.stopped_share, self.blocked_share)
        )
        return replace(self, review=review, block=block)

    def report(self) -> dict[str, Any]:
        """As the manifest holds it."""
        report = asdict(self)
        return {"thresholds": {name: report.pop(name) for name in ("review", "block")}, **report}


def within(
    name: str,
    label: NDArray[np.generic],
    amount: Floats,
    before: tuple[Floats, float],
    after: Floats,
    cost: CostModel,
    *,
    most: float,
    calibration: dict[str, Any] | None,
    weight: Floats | None = None,
) -> Limits:
    """Thresholds that find as many frauds as before, and stop at most `most` times as many rows.

    `before` are the undisturbed scores and REVIEW threshold, `after` the scores under the pattern. Among the
    rows that are stopped, the riskiest are blocked as far as that costs less than reviewing them.
    """
    each = np.ones(len(after)) if weight is None else weight
    stopped_before = before[0] >= before[1]
    share = float(each[stopped_before].sum() / each.sum())
    order = np.argsort(-after, kind="stable")
    score, fraud, money, mass = after[order], label[order].astype(np.float64), amount[order], each[order]
    places = np.concatenate(([0], np.flatnonzero(np.diff(score)) + 1, [len(score)]))
    flagged = np.concatenate(([0.0], np.cumsum(mass)))[places] / mass.sum()
    found = np.concatenate(([0.0], np.cumsum(fraud)))[places]
    allowed = int(np.searchsorted(flagged, most * share, side="right")) - 1
    enough = int(np.searchsorted(found, float(label[stopped_before].sum()), side="left"))
    at = min(allowed, enough)
    gain = np.cumsum((cost.review(fraud, money) - cost.block(fraud, money)) * mass)
    savings = np.concatenate(([0.0], gain))[places[: at + 1]]
    blocked = int(np.argmax(savings))
    review, block = _between(score, int(places[at])), _between(score, int(places[blocked]))
    return Limits(
        name, review, block, calibration, share, float(flagged[at]), float(flagged[blocked]),
        float(found[at] / max(fraud.sum(), 1.0)),
    )  # fmt: skip


def _between(score: Floats, place: int) -> float:
    """A threshold that flags exactly the first `place` rows of a falling ranking."""
    if place == 0:
        return float(min(1.0, (score[0] + 1.0) / 2)) if score[0] < 1.0 else float(np.nextafter(1.0, 2.0))
    if place >= len(score):
        return 0.0
    return float((score[place - 1] + score[place]) / 2)
