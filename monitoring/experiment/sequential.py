"""A stopping rule that may be looked at every day: intervals that hold at all times at once.

An ordinary 95% interval that is looked at daily excludes the truth on some day far more often than once in
20. A *confidence sequence* does so at most once in 20 over all days together: the normal-mixture boundary
(Robbins 1970), in the asymptotic form of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform
central limit theory and asymptotic confidence sequences" (Annals of Statistics 2024), with the inverse of
the estimate's variance as its clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "equal", "undecided", "go on"]

#: Chance, over all looks together, that an interval is wrong.
ALPHA: Final = 0.05


@dataclass(frozen=True, slots=True)
class Estimate:
    """A difference, its standard error, and the interval that holds at all times."""

    value: float
    error: float
    low: float
    high: float


def half_width(error: float, planned_error: float, alpha: float = ALPHA) -> float:
    """Half the width of the sequence where the standard error is `error`.

    It is tightest about where the standard error is `planned_error`, which must be chosen beforehand.
    """
    if not (error > 0 and planned_error > 0):
        return math.inf
    grown = (planned_error / error) ** 2 * (2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha)))
    return error * math.sqrt((1 + 1 / grown) * (math.log(grown + 1) + 2 * math.log(1 / alpha)))


@dataclass(frozen=True, slots=True)
class Clusters:
    """One arm by customer: what its decisions cost, the fraud that was attempted, and how many there were.

    Rows of a customer are not independent, so customers are what varies (the delta method; Deng, Knoblich
    and Lu 2018, "Applying the delta method in metric analytics").
    """

    cost: Floats
    attempted: Floats
    rows: Floats

    def centred(self) -> tuple[Floats, Floats]:
        """Each customer's cost and attempted fraud beyond what its rows would have at the arm's means."""
        return tuple(
            total - total.sum() / self.rows.sum() * self.rows for total in (self.cost, self.attempted)
        )


def saved(challenger: Clusters, champion: Clusters, planned_error: float | None = None,
          alpha: float = ALPHA) -> Estimate:  # fmt: skip
    """What the challenger saves a row, with the interval that holds at all times.

    Most of what differs between the arms is which customers were attacked, and for how much. No decision
    changes that, so it is taken out by regression on the attempted fraud (CUPED: Deng, Xu, Kohavi and Walker
    2013, with a covariate of the same time that the split cannot have moved). Without a `planned_error` the
    interval is tightest now.
    """
    arms = (challenger, champion)
    if any(len(arm.cost) < 2 or arm.rows.sum() == 0 for arm in arms):
        return Estimate(math.nan, math.inf, -math.inf, math.inf)
    centred = [arm.centred() for arm in arms]
    weights = [1 / arm.rows.sum() ** 2 for arm in arms]
    moves = sum(w * float(x @ x) for w, (_, x) in zip(weights, centred, strict=True))
    together = sum(w * float(y @ x) for w, (y, x) in zip(weights, centred, strict=True))
    slope = together / moves if moves > 0 else 0.0
    level = sum(arm.attempted.sum() for arm in arms) / sum(arm.rows.sum() for arm in arms)
    means, variance = [], 0.0
    for arm, (y, x) in zip(arms, centred, strict=True):
        rows = arm.rows.sum()
        means.append(arm.cost.sum() / rows - slope * (arm.attempted.sum() / rows - level))
        rest = y - slope * x
        variance += len(y) / (len(y) - 1) * float(rest @ rest) / rows**2
    error = math.sqrt(variance)
    half = half_width(error, planned_error or error, alpha)
    value = float(means[1] - means[0])
    return Estimate(value, error, value - half, value + half)


def judge(found: Estimate, margin: float, *, ended: bool = False) -> Verdict:
    """What the interval says about a difference that matters from `margin` on.

    Better or worse as soon as it excludes 0; equal once it lies within the margin. Otherwise go on, and at
    the planned end undecided: no difference was found, and the champion stays.
    """
    if found.low > 0:
        return "better"
    if found.high < 0:
        return "worse"
    if -margin < found.low and found.high < margin:
        return "equal"
    return "undecided" if ended else "go on"


def sample_ratio(challengers: int, customers: int, share: float) -> float:
    """p-value that a split of `customers` at `share` gave so many challengers or fewer likely ones (a
    two-sided normal test; Fabijan et al. 2019, "Diagnosing sample ratio mismatch")."""
    if not customers or not 0 < share < 1:
        return 1.0
    spread = math.sqrt(customers * share * (1 - share))
    return math.erfc(abs(challengers - customers * share) / spread / math.sqrt(2))
