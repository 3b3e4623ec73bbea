"""Validation that walks forward: settings and the number of trees are chosen over several weeks.

    fit ......|delay|held|            the oldest fold
    fit ...........|delay|held|
    fit ................|delay|held|  the newest, which also calibrates and sets thresholds

Each held-out week is scored by trees that had waited out the label delay, as in service. One
week alone holds few frauds, and the best number of trees on it follows its noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm
import numpy as np
from numpy.typing import NDArray

from training.metrics import NoFraudError
from training.missing import with_masked
from training.model import Sample, fit, thin_genuine
from training.plan import Plan
from training.rows import Rows
from training.split import Fold, Split, SplitError, prequential

#: Early stopping on a handful of held-out frauds follows noise: never stop before these trees.
FEWEST_TREES: Final = 20
FEWEST_TREES_ON_NOISE: Final = 60
NOISE_FRAUDS: Final = 40
#: A fold that trains on less than this share of what the newest trains on says little about it.
SHORTEST_SHARE: Final = 0.5


@dataclass(frozen=True)
class Grown:
    """What the folds say: the number of trees, their mean average precision with it, and the
    newest fold's trees (possibly a few more than that number)."""

    trees: int
    average_precision: float
    newest: lightgbm.Booster


def folds_of(split: Split, plan: Plan) -> list[Fold]:
    """Up to `plan.folds` folds, oldest first; the last one is `split`'s own fit and validation."""
    newest = Fold(split.fit, split.validation)
    gap = (split.validation.start - split.fit.end) / 86_400_000_000
    for number in range(plan.folds, 1, -1):
        try:
            folds = prequential(
                split.fit.start, split.validation.end,
                folds=number, delay_days=gap, test_days=split.validation.days,
            )  # fmt: skip
        except SplitError:
            continue
        if folds[0].train.days >= SHORTEST_SHARE * split.fit.days:
            return [*folds[:-1], newest]
    return [newest]


def sample_of(rows: Rows, mask: NDArray[np.bool_], drop: NDArray[np.bool_], plan: Plan) -> Sample:
    """The rows of `mask` to fit on: genuine ones thinned to the plan's limit, useless columns
    blanked, and copies that lack views behind them (`training.missing`)."""
    chosen = np.flatnonzero(mask)
    weight = None if rows.weight is None else rows.weight[chosen]
    keep, stands_for = thin_genuine(rows.label[chosen], plan.most_rows, weight=weight, seed=plan.seed)
    chosen = chosen[keep]
    features = rows.features[chosen]
    features[:, drop] = 0.0  # a constant: no tree can split on it
    sample = Sample(features, rows.label[chosen], stands_for)
    return with_masked(sample, rows.names, plan.missing, drop, seed=plan.seed) if plan.missing else sample


def grow(
    rows: Rows,
    folds: Sequence[Fold],
    settings: Mapping[str, Any],
    plan: Plan,
    drop: NDArray[np.bool_],
    *,
    monotone: tuple[int, ...] | None,
    threads: int,
) -> Grown:
    """Fit on every fold of the mature `rows` and stop where the mean over them is best.

    Folds without a fraud on either side are passed over; `NoFraudError` if that leaves none.
    """
    curves: list[list[float]] = []
    held_frauds: list[int] = []
    booster: lightgbm.Booster | None = None
    for fold in folds:
        early, held = (rows.mature & span.mask(rows.event_us) for span in (fold.train, fold.test))
        if not rows.label[early].any() or not rows.label[held].any():
            continue
        weight = None if rows.weight is None else rows.weight[held]
        booster, curve = fit(
            sample_of(rows, early, drop, plan), rows.names, settings, rounds=plan.rounds,
            validation=Sample(rows.features[held], rows.label[held], weight), patience=plan.patience,
            monotone=monotone, seed=plan.seed, threads=threads,
        )  # fmt: skip
        curves.append(curve)
        held_frauds.append(int(rows.label[held].sum()))
    if booster is None:
        raise NoFraudError("needs at least one fraud to fit on and one to validate with")
    shared = min(len(curve) for curve in curves)
    mean = np.mean([curve[:shared] for curve in curves], axis=0)
    fewest = FEWEST_TREES_ON_NOISE if np.mean(held_frauds) < NOISE_FRAUDS else FEWEST_TREES
    trees = max(int(np.argmax(mean)) + 1, min(fewest, shared))
    return Grown(trees, float(mean[trees - 1]), booster)
