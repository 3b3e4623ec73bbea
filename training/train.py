"""Train a model on a training set and save it: `python -m training.train --dataset DIR`.

fit and stop early over prequential folds -> calibrate and choose thresholds on the newest
-> refit on everything known at the test period's start -> judge on the test period
-> refuse, or save with evidence
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fraud.features.profiles import USUAL_PLACE
from stores.patterns import views
from stores.settings import settings
from training import metrics
from training.calibration import fit_calibration
from training.columns import left_out
from training.constraints import directions
from training.ensemble import SECOND, Earned, Member, judge_ensemble, merged
from training.folds import Grown, folds_of, grow, sample_of
from training.missing import choose, rates
from training.missing_log import logged_rates
from training.model import DEFAULTS, Model, fit, for_few_frauds, text_of
from training.plan import Plan, Trained
from training.refusal import AUC_CEILING, RefusedError, dropped, refuse
from training.rows import Rows, TrainingSetError, read_manifest, read_rows
from training.search import search
from training.split import DAY_US, Split, SplitError, iso, split_by_time
from training.thresholds import CostModel, choose_thresholds

#: Below this many rows a second thread costs more than it brings.
ROWS_A_THREAD = 40_000
#: Frauds that validation and test should each hold.
FEWEST_FRAUDS = 10


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
    split = plan_split(rows, plan)
    threads = plan.threads or max(1, min(os.cpu_count() or 1, len(rows) // ROWS_A_THREAD))
    early = rows.mature & split.fit.mask(rows.event_us)
    held, late = (
        rows.take(rows.mature & span.mask(rows.event_us)) for span in (split.validation, split.test)
    )
    progress(
        f"train: {early.sum():,} rows to fit, {len(held):,} to validate, {len(late):,} to test "
        f"after a gap of {split.gap_days:.1f} days"
    )
    drop = left_out(rows.features, early) | np.isin(rows.names, USUAL_PLACE) | dropped(rows.names, plan.drop)
    monotone = directions(rows.names) if plan.constrained else None
    folds = folds_of(split, plan)

    def grown(settings: dict[str, Any]) -> Grown:
        return grow(rows, folds, settings, plan, drop, monotone=monotone, threads=threads)

    chosen: dict[str, Any] = {**for_few_frauds(rows.label[early]), **plan.settings}
    trials: list[dict[str, Any]] = []
    if plan.search_seconds > 0:
        found = search(grown, seconds=plan.search_seconds, seed=plan.seed, progress=progress)
        chosen, trials = {**found.settings, **plan.settings}, found.trials
    first, members, earned = _learners(grown, chosen, held, plan, threads)
    if earned:
        progress(
            f"train: second learner {'kept' if earned.kept else 'not worth its latency'}: {earned.report()}"
        )
    trees = sum(member.trees for member in members)
    raw = first.raw(held.features, threads=threads)
    calibrated = replace(first, calibration=fit_calibration(held.label, raw, held.weight))
    held_score = calibrated.score(held.features, threads=threads)
    thresholds = choose_thresholds(held.label, held_score, held.amount, held.day, plan.cost, held.weight)
    chosen_by_pattern = choose(calibrated, held, thresholds.review, plan.cost, threads=threads)

    def again(mask: NDArray[np.bool_]) -> Model:
        sample = sample_of(rows, rows.mature & mask, drop, plan)
        texts: dict[str, float] = {}
        for member in members:
            booster, _ = fit(
                sample, rows.names, member.settings, rounds=member.trees, monotone=monotone,
                seed=plan.seed, threads=threads,
            )  # fmt: skip
            texts[text_of(booster, member.trees)] = member.weight
        return replace(calibrated, text=merged(texts) if len(texts) > 1 else next(iter(texts)))

    progress(
        f"train: {trees} trees by {len(folds)} validation period{'s' if len(folds) > 1 else ''}; "
        "refit on everything known at the test period's start"
    )
    model = again(split.refit.mask(rows.event_us))
    figures = judge(model, late, alerts_per_day=plan.alerts_per_day, threads=threads)
    leak = refuse(figures, late, auc_ceiling=plan.auc_ceiling, on_leak=plan.on_leak, without=plan.drop)
    if leak is not None:
        progress(f"train: {leak.words}; marked, as --on-leak asks")
    if plan.final == "everything":
        progress("train: judged; grow the same trees on every mature row")
        model = again(np.ones(len(rows), dtype=bool))
    return Trained(
        model=model,
        split=split,
        plan=plan,
        settings={**DEFAULTS, **chosen},
        trees=trees,
        metrics=figures,
        validation_metrics=metrics.summary(held.label, held_score, held.amount, held.weight),
        thresholds=thresholds,
        patterns=chosen_by_pattern.placed(model, held, threads=threads),
        trials=trials,
        ensemble=earned.report() if earned else None,
        leak=leak,
        data=data or {},
        left_out=tuple(name for name, out in zip(rows.names, drop, strict=True) if out),
        cut=str((data or {}).get("as_of") or iso(int(rows.event_us[-1]))),
        seconds=time.perf_counter() - started,
    )


def _learners(
    grown: Callable[[dict[str, Any]], Grown], chosen: dict[str, Any], held: Rows, plan: Plan, threads: int
) -> tuple[Model, list[Member], Earned | None]:
    """The newest fold's model and how to grow it again; with what an ensemble earned, if asked for."""
    best = grown(chosen)
    first = Model(text_of(best.newest, best.trees), held.names)
    alone = Member(chosen, best.trees, 1.0)
    if not plan.ensemble:
        return first, [alone], None
    settings = {**chosen, **SECOND}
    other = grown(settings)
    second = Model(text_of(other.newest, other.trees), held.names)
    votes = [model.raw(held.features, threads=threads) for model in (first, second)]
    earned = judge_ensemble(held.label, votes, groups=held.customer, weight=held.weight)
    if not earned.kept:
        return first, [alone], earned
    mine, theirs = earned.weights
    both = replace(first, text=merged({first.text: mine, second.text: theirs}))
    return both, [replace(alone, weight=mine), Member(settings, other.trees, theirs)], earned


def plan_split(rows: Rows, plan: Plan) -> Split:
    """The split of the mature rows' history; `SplitError` if there is too little of it.

    In a short history the held-out periods stretch until each holds a few frauds.
    """
    known = rows.event_us[rows.mature]
    if not len(known):
        raise SplitError("no row's label is mature yet; train at a later cut or on a longer history")
    frauds = rows.event_us[rows.mature & (rows.label > 0)]
    for stretch in (1.0, 1.25, 1.5, 1.7):
        split = split_by_time(
            int(known[0]) // DAY_US * DAY_US,
            int(known[-1]) + 1,
            delay_days=plan.delay_days,
            validation_days=plan.validation_days,
            test_days=plan.test_days,
            stretch=stretch,
        )
        if min(int(span.mask(frauds).sum()) for span in (split.validation, split.test)) >= FEWEST_FRAUDS:
            break
    return split


def judge(model: Model, rows: Rows, *, alerts_per_day: int = 100, threads: int = 2) -> dict[str, float]:
    """`metrics.summary` of the model on `rows`, and CP@k with k alerts a day."""
    score = model.score(rows.features, threads=threads)
    figures = metrics.summary(rows.label, score, rows.amount, rows.weight)
    figures[f"cp_{alerts_per_day}"], _ = metrics.card_precision(
        rows.day, rows.customer, rows.label, score, alerts_per_day
    )
    return figures


def write_candidate(trained: Trained, folder: Path) -> None:
    """Write model.txt and candidate.json (everything else in `Trained`) to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.txt").write_text(trained.model.text, encoding="utf-8")
    plain = {
        name: getattr(trained, name)
        for name in ("settings", "trees", "metrics", "validation_metrics", "trials", "ensemble", "data",
            "left_out", "cut", "seconds",)
    }  # fmt: skip
    report = {
        **plain,
        "features": trained.model.names,
        "digest": trained.model.digest,
        "calibration": trained.model.calibration,
        "thresholds": trained.thresholds.report(),
        "patterns": [limits.report() for limits in trained.patterns.limits],
        "missing": trained.patterns.report(),
        "leak": trained.leak.report() if trained.leak else None,
        "plan": asdict(trained.plan),
        "split": trained.split.text(),
    }
    (folder / "candidate.json").write_text(json.dumps(report, indent=1, sort_keys=True), encoding="utf-8")


def data_facts(folder: Path) -> dict[str, Any]:
    """What the manifest of a training set says about its making, without its long lists."""
    long = ("features", "files")
    return {name: value for name, value in read_manifest(folder).items() if name not in long}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.train", description="Train, judge and save a model."
    )
    parser.add_argument("--dataset", type=Path, required=True, help="folder written by training.dataset")
    parser.add_argument("--out", type=Path, help="write the candidate here too (model.txt, candidate.json)")
    parser.add_argument("--no-save", action="store_true", help="keep it out of the model store; no evidence")
    parser.add_argument("--champion", action="store_true", help="make it champion, if there is none yet")
    parser.add_argument("--track", action="store_true", help="keep the run in MLflow too (extra: tracking)")
    parser.add_argument("--search-seconds", type=float, default=0, help="budget of the parameter search")
    parser.add_argument("--delay-days", type=float, help="label delay (default: the set's label maturity)")
    parser.add_argument("--validation-days", type=float, default=7)
    parser.add_argument("--test-days", type=float, default=7)
    parser.add_argument("--folds", type=int, default=Plan.folds, help="validation periods that choose")
    parser.add_argument("--final", choices=("judged", "everything"), default="judged",
                        help="keep the judged trees, or grow the same again on every mature row")  # fmt: skip
    parser.add_argument(
        "--ensemble", action="store_true", help="add a second learner if it earns its latency"
    )
    parser.add_argument("--rounds", type=int, default=400, help="most trees")
    parser.add_argument(
        "--most-rows", type=int, default=400_000, help="rows a fit sees; genuine ones are thinned"
    )
    parser.add_argument("--auc-ceiling", type=float, default=AUC_CEILING, help="above this AUC: leaking")
    parser.add_argument("--on-leak", choices=("refuse", "mark"), default="refuse",
                        help="a model above it: refuse it, or go on, marked in card and summary")  # fmt: skip
    parser.add_argument(
        "--drop", default="", metavar="NAMES", help="features, by commas, that no tree may read"
    )
    parser.add_argument("--alerts-per-day", type=int, default=100)
    parser.add_argument("--unconstrained", action="store_true", help="no monotone constraints")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0: by rows and processors")
    return parser


def main(argv: list[str] | None = None) -> int:
    """The command; returns 1 with the reason when a model is refused or cannot be trained."""
    options = arguments().parse_args(argv)
    try:
        rows = read_rows(options.dataset)
        facts = data_facts(options.dataset)
        delay = options.delay_days
        if delay is None:
            delay = float(facts.get("label_maturity_days", settings().history.label_maturity_days))
        plan = Plan(
            delay_days=delay, validation_days=options.validation_days, test_days=options.test_days,
            folds=options.folds, rounds=options.rounds, most_rows=options.most_rows,
            search_seconds=options.search_seconds,
            constrained=not options.unconstrained, auc_ceiling=options.auc_ceiling,
            alerts_per_day=options.alerts_per_day, cost=CostModel(alerts_per_day=options.alerts_per_day),
            drop=tuple(filter(None, options.drop.split(","))), on_leak=options.on_leak,
            final=options.final, ensemble=options.ensemble, seed=options.seed, threads=options.threads,
            missing=rates(views().patterns(), logged_rates(settings().home)),
        )  # fmt: skip
        trained = train(rows, plan, data=facts)
    except (TrainingSetError, SplitError, RefusedError, metrics.NoFraudError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    if options.out:
        write_candidate(trained, options.out)
        print(f"train: candidate in {options.out}")
    if not options.no_save:
        from training.evidence import write_evidence
        from training.promote import PromotionError, first_champion
        from training.save import save
        from training.tracking import TrackingError, track

        version = save(trained, rows)
        print(f"train: evidence in {write_evidence(version, rows)}")
        if options.track:
            try:
                print(f"train: MLflow run {track(version)}")
            except TrackingError as error:
                print(f"train: not tracked: {error}", file=sys.stderr)
        print(f"train: saved tollgate_fraud:{version}")
        try:
            if options.champion and first_champion(version):
                print(f"train: {version} is champion")
        except PromotionError as error:
            print(f"train: {version} is not made champion: {error}", file=sys.stderr)
            return 1
    figures = trained.metrics
    print(
        f"train: {trained.trees} trees in {trained.seconds:.0f} s; in the test period "
        f"AUC {figures['auc']:.3f}, average precision {figures['average_precision']:.3f}, "
        f"Brier {figures['brier']:.5f} (base rate {figures['brier_base_rate']:.5f})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
