"""The model: LightGBM trees kept as text, their feature order and their calibration."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import lightgbm
import numpy as np
from numpy.typing import NDArray

from training.calibration import Calibration, apply_calibration
from training.metrics import Floats

#: Settings that did not diverge where faster or looser ones did (Brier far above the base
#: rate's): a small step, enough curvature in every leaf, strong L2. Half of the columns per
#: tree keeps one strong risk feature from hiding the rest.
DEFAULTS: Final[dict[str, Any]] = {
    "objective": "binary",
    "metric": "average_precision",
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "min_sum_hessian_in_leaf": 10.0,
    "lambda_l2": 10.0,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "max_bin": 255,
}
#: With fewer frauds to learn from, `for_few_frauds` loosens the defaults.
ENOUGH_FRAUDS: Final = 400
#: What makes a run repeat: fixed seeds, one histogram layout, deterministic sums.
REPEATABLE: Final[dict[str, Any]] = {"deterministic": True, "force_row_wise": True, "verbose": -1}


@dataclass(frozen=True)
class Model:
    """Trees as LightGBM text, the ordered features they read, and the calibration.

    `raw` is the trees' own probability, `score` the calibrated one that decides.
    """

    text: str
    names: tuple[str, ...]
    calibration: Calibration | None = None

    @cached_property
    def booster(self) -> lightgbm.Booster:
        return lightgbm.Booster(model_str=self.text)

    @property
    def digest(self) -> str:
        """SHA-256 of the text, hexadecimal: what the service checks before it loads a model."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def raw(self, features: NDArray[np.float64], *, threads: int = 2) -> Floats:
        """Uncalibrated probability of each row of (rows, features) float64."""
        return np.asarray(self.booster.predict(features, num_threads=threads), dtype=np.float64)

    def score(self, features: NDArray[np.float64], *, threads: int = 2) -> Floats:
        """Calibrated probability of fraud of each row."""
        return apply_calibration(self.calibration, self.raw(features, threads=threads))

    def contributions(self, features: NDArray[np.float64], *, threads: int = 2) -> Floats:
        """SHAP values in log-odds, (rows, features + 1), the last the expected value
        (TreeSHAP: Lundberg et al. 2020, as LightGBM computes it)."""
        return np.asarray(self.booster.predict(features, pred_contrib=True, num_threads=threads))


@dataclass(frozen=True)
class Sample:
    """Rows to fit on, with weights that undo any thinning of genuine rows."""

    features: NDArray[np.float64]
    label: NDArray[np.int8]
    weight: Floats | None = None


def thin_genuine(
    label: NDArray[np.int8], most_rows: int | None, *, weight: Floats | None = None, seed: int
) -> tuple[NDArray[np.bool_], Floats | None]:
    """Keep every fraud and as many genuine rows as fit in `most_rows`, weighted up to stand for
    all of them: the class imbalance costs time, not calibration. Returns which rows to keep
    and the weights of those; `weight` is how many transactions each row stood for before."""
    frauds = int(label.sum())
    if most_rows is None or len(label) <= most_rows or frauds >= most_rows:
        return np.ones(len(label), dtype=bool), weight
    keep = np.random.default_rng(seed).random(len(label)) < (most_rows - frauds) / (len(label) - frauds)
    keep |= label > 0
    kept = int(keep.sum()) - frauds
    stands_for = np.where(label[keep] > 0, 1.0, (len(label) - frauds) / max(kept, 1))
    if weight is not None:
        stands_for = stands_for * weight[keep]
    return keep, stands_for


def fit(
    sample: Sample,
    names: tuple[str, ...],
    settings: Mapping[str, Any],
    *,
    rounds: int,
    validation: Sample | None = None,
    patience: int = 50,
    monotone: tuple[int, ...] | None = None,
    seed: int = 7,
    threads: int = 2,
) -> tuple[lightgbm.Booster, list[float]]:
    """Grow trees; with `validation`, until its average precision has not risen for `patience`
    rounds. Returns the booster and the average precision after each tree (empty without)."""
    parameters = {**DEFAULTS, **settings, **REPEATABLE, "seed": seed, "num_threads": threads}
    if monotone is not None and any(monotone):
        parameters["monotone_constraints"] = list(monotone)
        parameters["monotone_constraints_method"] = "intermediate"
    layout = {"verbose": -1, "max_bin": parameters["max_bin"], "feature_pre_filter": False}
    train = lightgbm.Dataset(
        sample.features, sample.label, weight=sample.weight, feature_name=list(names), params=layout
    )
    if validation is None:
        return lightgbm.train(parameters, train, rounds), []
    held = train.create_valid(validation.features, validation.label, validation.weight, params=layout)
    followed: dict[str, dict[str, list[float]]] = {}
    callbacks: list[Callable[..., Any]] = [
        lightgbm.early_stopping(patience, first_metric_only=True, verbose=False),
        lightgbm.record_evaluation(followed),
    ]
    # Kept as it is: otherwise the trees after its own best number would be cut off, and the number
    # that several folds agree on may be larger.
    booster = lightgbm.train(
        parameters, train, rounds, valid_sets=[held], valid_names=["held"], callbacks=callbacks,
        keep_training_booster=True,
    )  # fmt: skip
    return booster, followed["held"]["average_precision"]


def for_few_frauds(label: NDArray[np.int8]) -> dict[str, float]:
    """Settings for sets so small that `DEFAULTS` would let no leaf form; empty for others.

    A leaf's hessian is at most about the frauds in it, so the floor and the L2 penalty follow
    the number of frauds.
    """
    frauds = int(label.sum())
    if frauds >= ENOUGH_FRAUDS:
        return {}
    scale = max(frauds / ENOUGH_FRAUDS, 0.02)
    return {
        "min_sum_hessian_in_leaf": DEFAULTS["min_sum_hessian_in_leaf"] * scale,
        "lambda_l2": max(DEFAULTS["lambda_l2"] * scale, 1.0),
    }


def text_of(booster: lightgbm.Booster, rounds: int) -> str:
    """The first `rounds` trees as LightGBM's native text."""
    return str(booster.model_to_string(num_iteration=rounds))
