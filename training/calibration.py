"""Calibration of raw model scores into probabilities, exported as plain numbers.

Both maps rise strictly, so they change no ranking. The service applies the same two formulas
(`stores.models`) from the model's manifest; nothing but numbers crosses over.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.models import read_calibration
from training.metrics import Floats

Calibration = dict[str, Any]
_EPSILON = 1e-9
#: Below this many frauds isotonic steps follow noise, and two parameters do better.
ISOTONIC_FRAUDS = 200
#: Knots kept of an isotonic fit: plenty for a smooth curve, small in the manifest.
MOST_KNOTS = 256


def apply_calibration(calibration: Calibration | None, raw: Floats) -> Floats:
    """Probabilities of raw scores: identity for None, else the map described in the manifest."""
    calibrate = read_calibration(calibration)
    return raw if calibrate is None else calibrate(raw)


def fit_calibration(
    label: NDArray[np.generic], raw: Floats, weight: Floats | None = None
) -> Calibration | None:
    """The calibration for held-out raw scores: isotonic, or Platt when frauds are few.

    `weight` is how many transactions each row stands for.
    None when there is nothing to learn from (a single class).
    """
    frauds = int(label.astype(np.int64).sum())
    if frauds == 0 or frauds == len(label):
        return None
    if frauds >= ISOTONIC_FRAUDS:
        return fit_isotonic(label, raw, weight)
    return fit_platt(label, raw, weight)


def fit_isotonic(label: NDArray[np.generic], raw: Floats, stands_for: Floats | None = None) -> Calibration:
    """Centred isotonic regression (Oron and Flournoy 2017): pool adjacent violators, then one
    knot at each pool's mean score, joined by straight lines, so ties are not created."""
    order = np.argsort(raw, kind="stable")
    x, start = np.unique(raw[order], return_index=True)
    each = np.ones(len(raw)) if stands_for is None else stands_for[order]
    weight = np.add.reduceat(each, start)
    rate = np.add.reduceat(label[order].astype(np.float64) * each, start) / weight
    pools: list[list[float]] = []  # rate, weight, weighted score
    for value, mass, at in zip(rate.tolist(), weight.tolist(), x.tolist(), strict=True):
        pools.append([value, mass, at * mass])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            after = pools.pop()
            before = pools[-1]
            total = before[1] + after[1]
            before[0] = (before[0] * before[1] + after[0] * after[1]) / total
            before[1], before[2] = total, before[2] + after[2]
    knots = np.array([[pool[2] / pool[1], pool[0]] for pool in pools])
    if len(knots) > MOST_KNOTS:
        knots = knots[np.unique(np.linspace(0, len(knots) - 1, MOST_KNOTS).round().astype(np.int64))]
    # The ends: half a fraud's worth of doubt, so that no score is ever certain.
    low = min(knots[0, 1], 0.5 / pools[0][1]) * 0.5
    high = max(knots[-1, 1] - 0.5 / pools[-1][1], (knots[-2, 1] if len(knots) > 1 else 0.0) + _EPSILON)
    middle = [(a, b) for a, b in knots.tolist() if 0 < a < 1]
    xs = [0.0, *(a for a, _ in middle), 1.0]
    ys = [low, *(b for _, b in middle), max(1 - _EPSILON, high)]
    ys[1:-1] = np.clip(ys[1:-1], low, high).tolist()
    return {"kind": "isotonic", "x": xs, "y": _strictly_rising(ys)}


def _strictly_rising(values: list[float]) -> list[float]:
    """`values` with the least nudges that make each larger than the one before."""
    rising = np.asarray(values) + np.arange(len(values)) * 1e-12
    return [float(value) for value in np.maximum.accumulate(rising)]


def fit_platt(
    label: NDArray[np.generic], raw: Floats, stands_for: Floats | None = None, *, steps: int = 50
) -> Calibration:
    """Logistic regression on the log-odds of the raw score, with Platt's smoothed targets
    (Platt 1999; Newton steps after Lin, Lin and Weng 2007). `a` is kept positive."""
    clipped = np.clip(raw, _EPSILON, 1 - _EPSILON)
    margin = np.log(clipped / (1 - clipped))
    positive = label.astype(np.float64)
    each = np.ones(len(raw)) if stands_for is None else stands_for
    frauds, genuine = (positive * each).sum(), ((1 - positive) * each).sum()
    target = np.where(positive > 0, (frauds + 1) / (frauds + 2), 1 / (genuine + 2))
    a, b = 1.0, 0.0
    for _ in range(steps):
        predicted = 1.0 / (1.0 + np.exp(-np.clip(a * margin + b, -50, 50)))
        slope = (predicted - target) * each
        curve = np.maximum(predicted * (1 - predicted), 1e-12) * each
        gradient = np.array([float(slope @ margin), float(slope.sum())])
        cross = float(curve @ margin)
        hessian = np.array([[float(curve @ margin**2) + 1e-6, cross], [cross, float(curve.sum()) + 1e-6]])
        step = np.linalg.solve(hessian, gradient)
        a, b = a - float(step[0]), b - float(step[1])
        if np.abs(step).max() < 1e-9:
            break
    return {"kind": "platt", "a": max(a, 1e-3), "b": b}
