"""Train a model on a training set: `python -m training.train --dataset DIR --out DIR [--save]`.

    fit and stop early -> calibrate and choose thresholds on validation -> refit on everything
    known at the test period's start -> judge on the test period -> refuse or keep

The folder given by `--out` receives the candidate; `training.save` registers it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fraud.settings import settings
from training import metrics
from training.calibration import fit_calibration
from training.constraints import directions
from training.model import DEFAULTS, Model, Sample, fit, text_of, thin_genuine
from training.refusal import AUC_CEILING, RefusedError, refuse
from training.rows import Rows, TrainingSetError, read_manifest, read_rows
from training.search import search
from training.split import DAY_US, Split, SplitError, iso, split_by_time
from training.thresholds import CostModel, Thresholds, choose_thresholds


@dataclass(frozen=True)
class Plan:
    """How to train. Days are event time; `most_rows` caps the rows a fit sees (genuine rows are
    thinned and weighted); `search_seconds` 0 uses the defaults as they are."""

    delay_days: float
    validation_days: float = 7
    test_days: float = 7
    rounds: int = 400
    patience: int = 40
    most_rows: int | None = 400_000
    search_seconds: float = 0
    constrained: bool = True
    auc_ceiling: float = AUC_CEILING
    alerts_per_day: int = 100
    cost: CostModel = field(default_factory=CostModel)
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 7
    threads: int = 2


@dataclass(frozen=True)
class Trained:
    """A model with what it was judged by. `metrics` are of `split.test`, which it never saw."""

    model: Model
    split: Split
    plan: Plan
    settings: dict[str, Any]
    trees: int
    metrics: dict[str, float]
    validation_metrics: dict[str, float]
    thresholds: Thresholds
    trials: list[dict[str, Any]]
    data: dict[str, Any]
    cut: str
    seconds: float


def train(
    rows: Rows,
    plan: Plan,
    *,
    data: dict[str, Any] | None = None,
    progress: Callable[[str], None] = print,
) -> Trained:
    """Train on the mature rows and judge on the last of them.

    Raises `SplitError` (too short a history), `RefusedError` (diverged or leaking) or
    `NoFraudError` (a period without fraud).
    """
    started = time.perf_counter()
    cut = (data or {}).get("cut") or iso(int(rows.event_us[-1]))
    rows = rows.take(rows.mature)
    split = split_by_time(
        int(rows.event_us[0]) // DAY_US * DAY_US,
        int(rows.event_us[-1]) + 1,
        delay_days=plan.delay_days,
        validation_days=plan.validation_days,
        test_days=plan.test_days,
    )
    spans = (split.fit, split.validation, split.test)
    early, held, late = (rows.take(span.mask(rows.event_us)) for span in spans)
    progress(f"train: {len(early):,} rows to fit, {len(held):,} to validate, {len(late):,} to test")
    monotone = directions(rows.names) if plan.constrained else None
    sample = thin_genuine(early.features, early.label, plan.most_rows, seed=plan.seed)
    validation = Sample(held.features, held.label)
    chosen: dict[str, Any] = dict(plan.settings)
    trials: list[dict[str, Any]] = []
    if plan.search_seconds > 0:
        found = search(
            sample, validation, rows.names, seconds=plan.search_seconds, rounds=plan.rounds,
            monotone=monotone, seed=plan.seed, threads=plan.threads, progress=progress,
        )  # fmt: skip
        chosen, trials = {**found.settings, **chosen}, found.trials
    booster, trees = fit(
        sample, rows.names, chosen, rounds=plan.rounds, validation=validation, patience=plan.patience,
        monotone=monotone, seed=plan.seed, threads=plan.threads,
    )  # fmt: skip
    first = Model(text_of(booster, trees), rows.names)
    raw = first.raw(held.features, threads=plan.threads)
    calibrated = replace(first, calibration=fit_calibration(held.label, raw))
    held_score = calibrated.score(held.features, threads=plan.threads)
    thresholds = choose_thresholds(held.label, held_score, held.amount, held.day, plan.cost)
    progress(f"train: {trees} trees; refit on everything known at the test period's start")
    everything = rows.take(split.refit.mask(rows.event_us))
    sample = thin_genuine(everything.features, everything.label, plan.most_rows, seed=plan.seed)
    booster, _ = fit(
        sample, rows.names, chosen, rounds=trees, monotone=monotone, seed=plan.seed, threads=plan.threads
    )
    model = replace(calibrated, text=text_of(booster, trees))
    figures = judge(model, late, alerts_per_day=plan.alerts_per_day, threads=plan.threads)
    refuse(figures, late, auc_ceiling=plan.auc_ceiling)
    progress(
        f"train: in the test period average precision {figures['average_precision']:.3f}, "
        f"AUC {figures['auc']:.3f}"
    )
    return Trained(
        model=model,
        split=split,
        plan=plan,
        settings={**DEFAULTS, **chosen},
        trees=trees,
        metrics=figures,
        validation_metrics=metrics.summary(held.label, held_score, held.amount),
        thresholds=thresholds,
        trials=trials,
        data=data or {},
        cut=str(cut),
        seconds=time.perf_counter() - started,
    )


def judge(model: Model, rows: Rows, *, alerts_per_day: int = 100, threads: int = 2) -> dict[str, float]:
    """`metrics.summary` of the model on `rows`, and CP@k with k alerts a day."""
    score = model.score(rows.features, threads=threads)
    figures = metrics.summary(rows.label, score, rows.amount)
    figures[f"cp_{alerts_per_day}"], _ = metrics.card_precision(
        rows.day, rows.customer, rows.label, score, alerts_per_day
    )
    return figures


def write_candidate(trained: Trained, folder: Path) -> None:
    """Write model.txt and candidate.json (everything else in `Trained`) to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.txt").write_text(trained.model.text, encoding="utf-8")
    report = {
        "features": list(trained.model.names),
        "digest": trained.model.digest,
        "calibration": trained.model.calibration,
        "thresholds": trained.thresholds.report(),
        "settings": trained.settings,
        "plan": asdict(trained.plan),
        "split": trained.split.text(),
        "trees": trained.trees,
        "metrics": trained.metrics,
        "validation_metrics": trained.validation_metrics,
        "trials": trained.trials,
        "data": trained.data,
        "cut": trained.cut,
        "seconds": trained.seconds,
    }
    (folder / "candidate.json").write_text(json.dumps(report, indent=1, sort_keys=True), encoding="utf-8")


def data_facts(folder: Path) -> dict[str, Any]:
    """What the manifest of a training set says about its making, without the feature list."""
    manifest = read_manifest(folder)
    return {name: value for name, value in manifest.items() if name != "features"}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.train", description="Train and judge a model.")
    parser.add_argument("--dataset", type=Path, required=True, help="folder written by training.dataset")
    parser.add_argument("--out", type=Path, help="folder for the candidate (default: in <home>/candidates)")
    parser.add_argument("--save", action="store_true", help="register in the model store, write the evidence")
    parser.add_argument("--champion", action="store_true", help="with --save: champion, if there is none yet")
    parser.add_argument("--search-seconds", type=float, default=0, help="budget of the parameter search")
    parser.add_argument("--delay-days", type=float, help="label delay (default: the set's label maturity)")
    parser.add_argument("--validation-days", type=float, default=7)
    parser.add_argument("--test-days", type=float, default=7)
    parser.add_argument("--rounds", type=int, default=400, help="most trees")
    parser.add_argument(
        "--most-rows", type=int, default=400_000, help="rows a fit sees; genuine ones are thinned"
    )
    parser.add_argument("--auc-ceiling", type=float, default=AUC_CEILING, help="above this AUC: leaking")
    parser.add_argument("--alerts-per-day", type=int, default=100)
    parser.add_argument("--unconstrained", action="store_true", help="no monotone constraints")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command; returns 1 with the reason when a model is refused or cannot be trained."""
    options = arguments().parse_args(argv)
    try:
        rows = read_rows(options.dataset)
        facts = data_facts(options.dataset)
        delay = options.delay_days
        if delay is None:
            delay = float(facts.get("label_maturity_days", settings().label_maturity_days))
        plan = Plan(
            delay_days=delay, validation_days=options.validation_days, test_days=options.test_days,
            rounds=options.rounds, most_rows=options.most_rows, search_seconds=options.search_seconds,
            constrained=not options.unconstrained, auc_ceiling=options.auc_ceiling,
            alerts_per_day=options.alerts_per_day, cost=CostModel(alerts_per_day=options.alerts_per_day),
            seed=options.seed, threads=options.threads,
        )  # fmt: skip
        trained = train(rows, plan, data=facts)
    except (TrainingSetError, SplitError, RefusedError, metrics.NoFraudError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    folder = options.out or settings().home / "candidates" / trained.model.digest[:12]
    write_candidate(trained, folder)
    print(f"train: candidate in {folder} ({trained.seconds:.0f} s)")
    if options.save:
        from training.evidence import write_evidence
        from training.promote import first_champion
        from training.save import save

        version = save(trained, rows)
        print(f"train: saved tollgate_fraud:{version}")
        print(f"train: evidence in {write_evidence(version, rows)}")
        if options.champion and first_champion(version):
            print(f"train: {version} is champion")
    return 0


if __name__ == "__main__":
    sys.exit(main())
