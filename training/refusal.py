"""Reasons to refuse a trained model: it diverged, or it knows what it cannot know."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from training.metrics import NoFraudError, auc, rank
from training.rows import Rows

#: No honest model of card fraud ranks this well while labels arrive days late; where the
#: data's own ceiling is known to be lower, pass it (`--auc-ceiling`).
AUC_CEILING = 0.995


#: With fewer frauds than this a Brier score within a tenth of the base rate's is noise.
CLEAR_FRAUDS = 50


class RefusedError(ValueError):
    """A model that must not be saved; the text says what was measured and where to look."""


class DivergedError(RefusedError):
    """Its probabilities are worse than always answering the base rate."""


class LeakError(RefusedError):
    """It ranks better than the label delay allows: some feature knows the label."""


def refuse(figures: Mapping[str, float], rows: Rows, *, auc_ceiling: float = AUC_CEILING) -> None:
    """Raise `DivergedError` or `LeakError` if the held-out `figures` say so.

    `figures` come from `metrics.summary` on `rows`, which the model has not seen.
    """
    if diverged(figures):
        raise DivergedError(
            f"diverged: Brier {figures['brier']:.6f} is not below the base rate's "
            f"{figures['brier_base_rate']:.6f}; "
            "lower the learning rate, or raise min_sum_hessian_in_leaf and lambda_l2"
        )
    if figures["auc"] > auc_ceiling:
        name, alone = strongest_feature(rows)
        raise LeakError(
            f"leaking: AUC {figures['auc']:.4f} is above {auc_ceiling:g}, more than this label delay allows; "
            f"the strongest single feature is {name} (AUC {alone:.4f}): see when its source was known"
        )


def diverged(figures: Mapping[str, float]) -> bool:
    """Whether Brier is not below p(1 - p); with few frauds, not even near it."""
    tolerance = 1.1 if figures["frauds"] < CLEAR_FRAUDS else 1.0
    return figures["brier"] >= figures["brier_base_rate"] * tolerance


def strongest_feature(rows: Rows, *, most_rows: int = 50_000) -> tuple[str, float]:
    """The feature that ranks best alone (either way up, missing as lowest), and its AUC."""
    step = max(len(rows) // most_rows, 1)
    best, strongest = "", 0.5
    for place, name in enumerate(rows.names):
        values = np.nan_to_num(rows.features[::step, place], nan=-np.inf, neginf=-1e300, posinf=1e300)
        values = np.where(np.isneginf(values), -1e301, values)
        try:
            alone = auc(rank(rows.label[::step], values))
        except NoFraudError:
            return best, strongest
        if max(alone, 1 - alone) > strongest:
            best, strongest = name, max(alone, 1 - alone)
    return best, strongest
