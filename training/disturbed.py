"""What a model does to the same rows under every pattern of missing views: the card's section, the gate's
figures and `make bench-missing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.patterns import UNDISTURBED, Pattern, masked, views
from training import metrics
from training.calibration import apply_calibration
from training.metrics import Floats
from training.missing import affected
from training.model import Model
from training.rows import Rows
from training.thresholds import CostModel


@dataclass(frozen=True)
class Decided:
    """Rows under one pattern: calibrated scores, and what was decided by the pattern's thresholds."""

    score: Floats
    review: NDArray[np.bool_]
    block: NDArray[np.bool_]


def decided(model: Model, manifest: Mapping[str, Any], rows: Rows, pattern: Pattern | None) -> Decided:
    """What the service would decide on `rows` (by the model alone) that lack the views of `pattern`.

    Rows that name none of the pattern's entities are as they were, and so are their thresholds.
    """
    whole = model.score(rows.features)
    review = np.full(len(rows), manifest["thresholds"]["review"])
    block = np.full(len(rows), manifest["thresholds"]["block"])
    if pattern is not None:
        mine = affected(rows, pattern)
        raw = model.raw(masked(rows.features[mine], rows.names, pattern))
        known = next(
            (each for each in manifest.get("patterns", []) if each["name"] == pattern.name), manifest
        )
        whole[mine] = apply_calibration(known["calibration"], raw)
        review[mine], block[mine] = known["thresholds"]["review"], known["thresholds"]["block"]
    blocked = whole >= block
    return Decided(whole, (whole >= review) & ~blocked, blocked)


def by_pattern(
    model: Model, manifest: Mapping[str, Any], rows: Rows, cost: CostModel | None = None
) -> list[dict[str, Any]]:
    """Figures of `rows` undisturbed (first) and under each pattern: transactions, decision mix, average
    precision, calibration, recall, and reference cents a day by the cost model."""
    of = views()
    patterns = [each for each in of.patterns() if of.unknown(each.views).intersection(rows.names)]
    return [
        _figures(decided(model, manifest, rows, pattern), rows, pattern, cost or CostModel())
        for pattern in [None, *patterns]
    ]


def _figures(found: Decided, rows: Rows, pattern: Pattern | None, cost: CostModel) -> dict[str, Any]:
    weight = np.ones(len(rows)) if rows.weight is None else rows.weight
    fraud = rows.label.astype(np.float64)
    spent = np.where(
        found.block, cost.block(fraud, rows.amount),
        np.where(found.review, cost.review(fraud, rows.amount), cost.approve(fraud, rows.amount)),
    )  # fmt: skip
    days = max(len(np.unique(rows.day)), 1)
    stopped = found.review | found.block
    return {
        "name": UNDISTURBED if pattern is None else pattern.name,
        "kind": UNDISTURBED if pattern is None else pattern.kind,
        "rows": len(rows),
        "review_rate": float(np.average(found.review, weights=weight)),
        "block_rate": float(np.average(found.block, weights=weight)),
        "reviews_per_day": float((found.review * weight).sum() / days),
        "ap": metrics.average_precision(metrics.rank(rows.label, found.score, rows.weight)),
        "brier": metrics.brier(rows.label, found.score, rows.weight),
        "base_brier": metrics.brier_base_rate(rows.label, rows.weight),
        "mean_score": float(np.average(found.score, weights=weight)),
        "recall": float(stopped[rows.label > 0].mean()) if rows.label.any() else None,
        "cost_per_day": float((spent * weight).sum() / days),
    }
