"""Confidence intervals of ranking figures by the bootstrap over whole customers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from training.metrics import Floats, NoFraudError, Ranking, count_down

Interval = tuple[float, float]


def intervals(
    label: NDArray[np.generic],
    score: Floats,
    figures: Mapping[str, Callable[[Ranking], float]],
    *,
    groups: NDArray[np.generic] | None = None,
    weight: Floats | None = None,
    rounds: int = 200,
    level: float = 0.95,
    seed: int = 7,
) -> dict[str, Interval]:
    """Percentile intervals of each figure (Efron and Tibshirani 1993, chapter 13).

    With `groups` (the customer of each row) whole customers are drawn, since the transactions
    of one compromised card are not independent. The rows are sorted once: a draw only changes
    their weights. Draws without a fraud are left out.
    """
    order = np.argsort(-score, kind="stable")
    sorted_score, sorted_label = score[order], label[order].astype(np.float64)
    code = np.arange(len(score)) if groups is None else np.unique(groups, return_inverse=True)[1][order]
    size = int(code.max()) + 1 if len(code) else 0
    stands_for = np.ones(len(score)) if weight is None else weight[order]
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in figures}
    for _ in range(rounds):
        times = np.bincount(random.integers(0, size, size), minlength=size)[code] * stands_for
        try:
            ranking = count_down(sorted_score, sorted_label, times)
        except NoFraudError:
            continue
        for name, figure in figures.items():
            drawn[name].append(figure(ranking))
    tail = (1 - level) / 2
    return {
        name: (float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail)))
        for name, values in drawn.items()
        if values
    }


def difference_interval(
    label: NDArray[np.generic],
    score: Floats,
    other: Floats,
    figure: Callable[[Ranking], float],
    *,
    groups: NDArray[np.generic] | None = None,
    weight: Floats | None = None,
    rounds: int = 200,
    level: float = 0.95,
    seed: int = 7,
) -> Interval:
    """Interval of figure(score) - figure(other) on the same draws, for champion and challenger."""
    code = np.arange(len(score)) if groups is None else np.unique(groups, return_inverse=True)[1]
    size = int(code.max()) + 1
    random = np.random.default_rng(seed)
    stands_for = np.ones(len(score)) if weight is None else weight
    sides = []
    for values in (score, other):
        order = np.argsort(-values, kind="stable")
        sides.append((values[order], label[order].astype(np.float64), code[order], stands_for[order]))
    drawn = []
    for _ in range(rounds):
        times = np.bincount(random.integers(0, size, size), minlength=size)
        try:
            first, second = (figure(count_down(s, y, times[c] * w)) for s, y, c, w in sides)
        except NoFraudError:
            continue
        drawn.append(first - second)
    if not drawn:
        return (float("nan"), float("nan"))
    tail = (1 - level) / 2
    return float(np.quantile(drawn, tail)), float(np.quantile(drawn, 1 - tail))
