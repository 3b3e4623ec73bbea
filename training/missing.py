"""Models under an outage: rows masked as production loses views, calibration and thresholds by pattern.

A model that was never without a view in training answers an outage by chance: it stops nearly everybody, or
nobody. So copies of training rows lose views (`stores.patterns`) at the rates of the decision log, and at
least at `DEFAULT_RATES`; and after fitting, each pattern gets thresholds of its own, on validation rows
masked by it, that stop at most `MOST_STOPPED` times as many as undisturbed ones.

Calibration: one map for all patterns, or one each, whichever has the lower log loss on validation rows it
was not fitted on (cross-fitted over halves by customer). Both are measured and kept with the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stores.patterns import Pattern, masked, views
from training.calibration import Calibration, apply_calibration, fit_calibration
from training.metrics import Floats
from training.model import Model, Sample
from training.rows import Rows
from training.thresholds import CostModel, Limits, within

#: Share of rows that lose views where no log says otherwise, by kind of pattern; shared evenly among the
#: patterns of a kind. A timed-out read loses everything or a shard's entities, a late job one view or an
#: engine. What the log says counts where it says more.
DEFAULT_RATES: Final[Mapping[str, float]] = {
    "view": 0.03, "entity": 0.02, "engine": 0.02, "everything": 0.03,
}  # fmt: skip
#: Most that may be stopped (reviewed or blocked), as a multiple of the undisturbed share of the same rows.
MOST_STOPPED: Final[Mapping[str, float]] = {"view": 2.0, "entity": 2.0, "engine": 3.0, "everything": 3.0}
#: Of the most, so that another week's rows stay below it too.
ROOM: Final = 0.7
#: Masked copies of a training row, each with as much of its weight as its pattern is frequent.
COPIES: Final = 1


def rates(patterns: Sequence[Pattern], logged: Mapping[str, float] | None = None) -> dict[str, float]:
    """Share of rows by pattern: the log's (`logged`, by name), and at least the stated default."""
    by_kind = {kind: sum(pattern.kind == kind for pattern in patterns) for kind in DEFAULT_RATES}
    found = logged or {}
    return {
        pattern.name: max(DEFAULT_RATES[pattern.kind] / by_kind[pattern.kind], found.get(pattern.name, 0.0))
        for pattern in patterns
    }


def with_masked(
    sample: Sample,
    names: Sequence[str],
    shares: Mapping[str, float],
    drop: NDArray[np.bool_],
    *,
    seed: int,
    copies: int = COPIES,
) -> Sample:
    """`sample` and masked copies of its rows behind it, weighted to the shares of their patterns.

    Every row is copied `copies` times, each under a pattern drawn evenly; a row and its copies together
    weigh what the row weighed. Columns in `drop` stay constant, so that no tree splits on them.
    """
    of = views()
    patterns = [pattern for pattern in of.patterns() if pattern.name in shares]
    rows = len(sample.label)
    each = np.ones(rows) if sample.weight is None else sample.weight
    share = np.array([shares[pattern.name] for pattern in patterns])
    random = np.random.default_rng(seed)
    features, weights = [sample.features], [each * (1.0 - share.sum())]
    for _ in range(copies):
        drawn = random.integers(0, len(patterns), rows)
        copy = sample.features.copy()
        for place, pattern in enumerate(patterns):
            mine = drawn == place
            copy[mine] = masked(copy[mine], names, pattern, of)
        copy[:, drop] = 0.0
        features.append(copy)
        weights.append(each * share[drawn] * (len(patterns) / copies))
    return Sample(np.concatenate(features), np.tile(sample.label, 1 + copies), np.concatenate(weights))


@dataclass(frozen=True)
class Chosen:
    """What serving needs to know of each pattern, and how the two ways to calibrate compared."""

    limits: tuple[Limits, ...]
    log_loss_shared: float
    log_loss_each: float

    @property
    def calibrated_each(self) -> bool:
        return self.log_loss_each < self.log_loss_shared

    def placed(self, model: Model, held: Rows, *, threads: int = 2) -> Chosen:
        """The same shares of the validation rows as trees that were grown again score them."""
        named = {pattern.name: pattern for pattern in views().patterns()}
        limits = []
        for each in self.limits:
            pattern = named[each.name]
            mine = affected(held, pattern)
            raw = model.raw(masked(held.features[mine], held.names, pattern), threads=threads)
            weight = None if held.weight is None else held.weight[mine]
            limits.append(each.placed(apply_calibration(each.calibration, raw), weight))
        return replace(self, limits=tuple(limits))

    def report(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "calibration": "each pattern its own" if self.calibrated_each else "one for all patterns",
            "log_loss_shared": self.log_loss_shared,
            "log_loss_each": self.log_loss_each,
        }


def choose(model: Model, held: Rows, review: float, cost: CostModel, *, threads: int = 2) -> Chosen:
    """Calibration and thresholds of every pattern on validation rows that `model` was not fitted on.

    `review` is the undisturbed threshold. A pattern's thresholds are put where it finds as many frauds as
    undisturbed, or as many as the most that may be stopped allows; within that, blocking costs least.
    """
    of = views()
    undisturbed = model.score(held.features, threads=threads)
    each_raw = {
        pattern: model.raw(masked(held.features, held.names, pattern, of), threads=threads)
        for pattern in of.patterns()
        if of.unknown(pattern.views).intersection(held.names)
    }
    losses = np.array([_losses(model.calibration, held, raw) for raw in each_raw.values()])
    shared, own = losses.mean(axis=0) if len(losses) else (0.0, 0.0)
    limits = []
    for pattern, raw in each_raw.items():
        mine = affected(held, pattern)
        calibration = fit_calibration(
            held.label[mine], raw[mine], None if held.weight is None else held.weight[mine]
        )
        if own >= shared or calibration is None:
            calibration = model.calibration
        limits.append(
            within(
                pattern.name, held.label[mine], held.amount[mine], (undisturbed[mine], review),
                apply_calibration(calibration, raw[mine]), cost, most=MOST_STOPPED[pattern.kind] * ROOM,
                calibration=calibration, weight=None if held.weight is None else held.weight[mine],
            )
        )  # fmt: skip
    return Chosen(tuple(limits), float(shared), float(own))


def affected(rows: Rows, pattern: Pattern) -> NDArray[np.bool_]:
    """The rows that name an entity of the pattern's views, as the service would take them for lost."""
    whose = views().key
    named = np.zeros(len(rows), dtype=bool)
    for key in {whose[view] for view in pattern.views}:
        values = rows.described.get(key)
        named |= np.ones(len(rows), dtype=bool) if values is None else np.asarray(values != "")
    return named if named.any() else np.ones(len(rows), dtype=bool)


def _losses(shared: Calibration | None, rows: Rows, raw: Floats) -> tuple[float, float]:
    """Log loss of masked rows under the shared calibration, and under their own, fitted on the other half
    of the customers."""
    half = np.unique(rows.customer, return_inverse=True)[1] % 2 == 0
    own = np.empty(len(raw))
    for mine in (half, ~half):
        other = None if rows.weight is None else rows.weight[~mine]
        fitted = fit_calibration(rows.label[~mine], raw[~mine], other)
        own[mine] = apply_calibration(fitted or shared, raw[mine])
    return tuple(log_loss(rows.label, p, rows.weight) for p in (apply_calibration(shared, raw), own))  # type: ignore[return-value]


def log_loss(label: NDArray[np.generic], probability: Floats, weight: Floats | None = None) -> float:
    """Mean negative log-likelihood (nats), probabilities kept 1e-9 from certainty."""
    clipped = np.clip(probability, 1e-9, 1 - 1e-9)
    fraud = label.astype(np.float64)
    return float(-np.average(fraud * np.log(clipped) + (1 - fraud) * np.log(1 - clipped), weights=weight))
