"""Calibration: right on average, ranking untouched, the service's formula."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from training.calibration import apply_calibration, fit_calibration, fit_isotonic, fit_platt
from training.metrics import brier


def _raw(rows: int = 20_000, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Raw scores that overstate: the true probability is the raw score's square."""
    random = np.random.default_rng(seed)
    raw = random.beta(0.5, 4, rows)
    return (random.random(rows) < raw**2).astype(np.int8), raw


@pytest.mark.parametrize("fit", [fit_isotonic, fit_platt])
def test_calibration_lowers_brier_and_meets_the_base_rate(fit: Any) -> None:
    label, raw = _raw()
    calibration = fit(label, raw)
    fresh_label, fresh = _raw(seed=3)
    probability = apply_calibration(calibration, fresh)
    assert brier(fresh_label, probability) < brier(fresh_label, fresh)
    assert probability.mean() == pytest.approx(fresh_label.mean(), rel=0.2)


@pytest.mark.parametrize("fit", [fit_isotonic, fit_platt])
def test_calibration_changes_no_ranking_and_is_never_certain(fit: Any) -> None:
    label, raw = _raw()
    scores = np.sort(np.random.default_rng(1).random(5_000))
    probability = apply_calibration(json.loads(json.dumps(fit(label, raw))), scores)
    assert np.all(np.diff(probability) > 0)
    assert probability.min() > 0 and probability.max() < 1


def test_few_frauds_get_two_parameters_and_a_single_class_none() -> None:
    label, raw = _raw(rows=800)
    few = fit_calibration(label, raw)
    assert few is not None and few["kind"] == "platt"
    assert fit_calibration(np.zeros(10, np.int8), np.linspace(0, 1, 10)) is None
    assert np.array_equal(apply_calibration(None, raw), raw)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="calibration should be"):
        apply_calibration({"kind": "magic"}, np.zeros(1))
