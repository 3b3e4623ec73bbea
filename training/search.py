"""Hyper-parameter search within a time budget (Optuna's TPE; Bergstra et al. 2011)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna

from training.folds import Grown


@dataclass(frozen=True)
class Found:
    """The best settings, what they scored, and every trial (settings, average precision, trees)."""

    settings: dict[str, Any]
    average_precision: float
    trials: list[dict[str, Any]]


def search(
    grown: Callable[[dict[str, Any]], Grown],
    *,
    seconds: float,
    seed: int = 7,
    progress: Callable[[str], None] = print,
) -> Found:
    """Try settings for `seconds` (at least one trial, the defaults first) and keep the best.

    `grown` fits one choice of settings on the validation folds. A trial under way when the
    budget ends is finished, so the wall time can exceed it by one trial; the result depends on
    the machine's speed through the number of trials only.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({
        "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 20, "min_sum_hessian_in_leaf": 10.0,
        "lambda_l2": 10.0, "feature_fraction": 0.5, "bagging_fraction": 0.8, "path_smooth": 1.0,
    })  # fmt: skip
    trials: list[dict[str, Any]] = []
    started = time.perf_counter()

    def objective(trial: optuna.Trial) -> float:
        settings = {
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.1, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 15, 95, log=True),
            "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 10, 200, log=True),
            "min_sum_hessian_in_leaf": trial.suggest_float("min_sum_hessian_in_leaf", 5.0, 50.0, log=True),
            "lambda_l2": trial.suggest_float("lambda_l2", 5.0, 100.0, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.25, 0.9),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
            "path_smooth": trial.suggest_float("path_smooth", 0.01, 30.0, log=True),
        }
        fold = grown(settings)
        trials.append(
            {"settings": settings, "average_precision": fold.average_precision, "trees": fold.trees}
        )
        progress(
            f"search: trial {len(trials)}, average precision {fold.average_precision:.4f} "
            f"with {fold.trees} trees"
        )
        return fold.average_precision

    study.optimize(objective, timeout=seconds, n_trials=None if seconds > 0 else 1)
    best = max(trials, key=lambda trial: float(trial["average_precision"]))
    progress(f"search: {len(trials)} trials in {time.perf_counter() - started:.0f} s")
    return Found(dict(best["settings"]), float(best["average_precision"]), trials)
