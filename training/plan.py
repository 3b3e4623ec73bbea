"""What a training run is asked to do, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from stores.patterns import views
from training.missing import Chosen, rates
from training.model import Model
from training.refusal import AUC_CEILING, Leak, OnLeak
from training.split import Split
from training.thresholds import CostModel, Thresholds


@dataclass(frozen=True)
class Plan:
    """How to train. Days are event time; `most_rows` caps the rows a fit sees (genuine rows are
    thinned and weighted); `search_seconds` 0 uses the defaults as they are. `folds` is how many
    validation periods, one after the other, choose settings and the number of trees.

    `final` says which trees are kept: those that were judged, or their like grown again on every
    mature row, the test period included, so that the figures are of an older sibling.
    `missing` is the share of rows that lose views in training, by pattern; empty for none.
    `drop` names features that no tree may read; `on_leak` says what becomes of a model that ranks better than
    the label delay allows: refused, or marked.
    `threads` 0 chooses by the number of rows and processors.
    """

    delay_days: float
    validation_days: float = 7
    test_days: float = 7
    folds: int = 3
    rounds: int = 400
    patience: int = 40
    most_rows: int | None = 400_000
    search_seconds: float = 0
    constrained: bool = True
    auc_ceiling: float = AUC_CEILING
    alerts_per_day: int = 100
    cost: CostModel = field(default_factory=CostModel)
    settings: dict[str, Any] = field(default_factory=dict)
    final: Literal["judged", "everything"] = "judged"
    ensemble: bool = False
    missing: dict[str, float] = field(default_factory=lambda: rates(views().patterns()))
    drop: tuple[str, ...] = ()
    on_leak: OnLeak = "refuse"
    seed: int = 7
    threads: int = 0


@dataclass(frozen=True)
class Trained:
    """A model with what it was judged by: `metrics` are of `split.test`, which the judged trees
    never saw. `patterns` is what counts for rows that lack views. `left_out` are inputs that no tree
    reads: constant, repeating another, or where somebody lives; `ensemble` is what a second learner
    earned, if one was tried; `leak` is what a marked model was suspected for."""

    model: Model
    split: Split
    plan: Plan
    settings: dict[str, Any]
    trees: int
    metrics: dict[str, float]
    validation_metrics: dict[str, float]
    thresholds: Thresholds
    patterns: Chosen
    trials: list[dict[str, Any]]
    data: dict[str, Any]
    left_out: tuple[str, ...]
    cut: str
    seconds: float
    ensemble: dict[str, Any] | None = None
    leak: Leak | None = None
