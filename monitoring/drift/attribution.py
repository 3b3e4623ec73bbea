"""Attribution drift: does the model lean on other inputs than it did on its reference?

Each input's share of the model's reasons is its mean absolute SHAP value (LightGBM's
`pred_contrib`, TreeSHAP of Lundberg and Lee, 2017) over all inputs' sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from monitoring.drift.measures import sample

Floats = np.ndarray[Any, np.dtype[np.float64]]
#: SHAP costs milliseconds a row; shares of this many rows are steady to a percent or two.
ROWS: Final = 600


@dataclass(frozen=True, slots=True)
class AttributionDrift:
    """How far the shares moved in total (0 to 1), and each input's share then and now, by change."""

    moved: float
    shares: list[tuple[str, float, float]]


def attribution_drift(
    model: Path, names: Sequence[str], reference: pd.DataFrame, current: pd.DataFrame
) -> AttributionDrift:
    """Compare the shares of reasons of the model in `model` (LightGBM text) on both sides.

    `names` are the model's inputs in order. `moved` is the total variation distance of the shares.
    """
    import lightgbm

    booster = lightgbm.Booster(model_file=str(model))
    then, now = (_shares(booster, sample(frame, ROWS)[list(names)]) for frame in (reference, current))
    order = np.argsort(-np.abs(now - then))
    shares = [(names[place], float(then[place]), float(now[place])) for place in order]
    return AttributionDrift(float(np.abs(now - then).sum() / 2), shares)


def _shares(booster: Any, frame: pd.DataFrame) -> Floats:
    reasons = booster.predict(frame.to_numpy(np.float64), pred_contrib=True, num_threads=1)
    weights: Floats = np.abs(np.asarray(reasons)[:, :-1]).mean(axis=0)
    total = weights.sum()
    return weights / total if total else weights
