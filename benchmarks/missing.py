"""What an outage does to decisions, and how strangers fare: `results/bench/missing.json`.

    python -m benchmarks.missing [--set DIR]

On a synthetic world with newcomers, whose features all went through the platform's Feast views, a model is
trained as the platform trains, and another that never misses a view (`before`). Both are judged on the test
period undisturbed and with the views of each pattern masked. `before` decides by its one pair of thresholds,
as every model did. Strangers are genuine first transactions of customers that nobody has seen.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lakes import CommandError
from benchmarks.quality_set import newcomers_set
from stores.patterns import EVERYTHING
from stores.settings import settings
from training.disturbed import by_pattern, decided
from training.metrics import NoFraudError
from training.missing import MOST_STOPPED
from training.plan import Plan, Trained
from training.refusal import RefusedError
from training.rows import Rows, TrainingSetError, read_rows
from training.slices import first_transactions
from training.split import SplitError
from training.train import train

DELAY_DAYS = 7
#: At least so much of the average precision of a model that never misses a view.
LEAST_AP = 0.99
#: Genuine first transactions may be reviewed so many times as often as those of known customers.
MOST_STRANGERS = 3.0


def limits(trained: Trained) -> dict[str, Any]:
    """The part of a manifest that decides."""
    return {
        "thresholds": {"review": trained.thresholds.review, "block": trained.thresholds.block},
        "calibration": trained.model.calibration,
        "patterns": [each.report() for each in trained.patterns.limits],
    }


def strangers(trained: Trained, rows: Rows) -> dict[str, Any]:
    """Genuine transactions that are a customer's first, beside those of known customers, undisturbed."""
    found = decided(trained.model, limits(trained), rows, None)
    genuine, first = rows.label == 0, first_transactions(rows)
    stopped = found.review | found.block
    return {
        "genuine_first_transactions": int((genuine & first).sum()),
        "review_rate": float(found.review[genuine & first].mean()),
        "stopped_rate": float(stopped[genuine & first].mean()),
        "known_review_rate": float(found.review[genuine & ~first].mean()),
        "known_stopped_rate": float(stopped[genuine & ~first].mean()),
    }


def thinned(rows: Rows, share: float, seed: int) -> Rows:
    """All frauds and a share of the genuine rows, weighted up to stand for all of them."""
    keep = (rows.label > 0) | (np.random.default_rng(seed).random(len(rows)) < share)
    kept = rows.take(keep)
    return replace(kept, weight=np.where(kept.label > 0, 1.0, 1 / share))


def measure(rows: Rows, plan: Plan) -> dict[str, Any]:
    """Everything in results/bench/missing.json."""
    began = time.perf_counter()
    model = train(rows, plan)
    took = time.perf_counter() - began
    before = train(rows, replace(plan, missing={}))
    late = rows.take(rows.mature & model.split.test.mask(rows.event_us))
    alone = limits(before) | {"patterns": []}
    patterns, were = by_pattern(model.model, limits(model), late), by_pattern(before.model, alone, late)
    unaware = by_pattern(before.model, limits(before), late)
    return {
        "patterns": patterns,
        "strangers": strangers(model, late),
        "ap_before": were[0]["ap"],
        "ap_kept": patterns[0]["ap"] / were[0]["ap"],
        "calibration": model.patterns.report(),
        "seconds_to_train": round(took, 1),
        "before": {"patterns": were, "strangers": strangers(before, late)},
        "never_missing_but_thresholds_by_pattern": {"patterns": unaware},
    }


def misses(report: dict[str, Any]) -> list[str]:
    """What the figures fall short of."""
    first, *rest = report["patterns"]
    usual = first["review_rate"] + first["block_rate"]
    found = []
    for each in rest:
        stopped = each["review_rate"] + each["block_rate"]
        if stopped > MOST_STOPPED[each["kind"]] * usual:
            found.append(f"without {each['name']} {stopped / usual:.2f} times as many are stopped")
    if report["ap_kept"] < LEAST_AP:
        found.append(f"undisturbed average precision is {report['ap_kept']:.4f} of before")
    new = report["strangers"]
    if new["review_rate"] > MOST_STRANGERS * new["known_review_rate"]:
        found.append("strangers are reviewed too often")
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure, write and print; 1 if a figure falls short."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.missing", description=__doc__)
    parser.add_argument("--set", type=Path, help="a training set with newcomers (default: built once)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--thin", type=float, default=1.0, help="share of genuine rows, for a quick look")
    parser.add_argument("--rounds", type=int, default=Plan.rounds, help="most trees")
    parser.add_argument("--folds", type=int, default=Plan.folds)
    parser.add_argument("--most-rows", type=int, default=400_000)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args(argv)
    try:
        rows = read_rows(options.set or newcomers_set()[0])
        plan = Plan(
            delay_days=DELAY_DAYS, test_days=14, seed=options.seed, rounds=options.rounds,
            folds=options.folds, most_rows=options.most_rows, threads=options.threads,
        )  # fmt: skip
        report = measure(thinned(rows, options.thin, options.seed) if options.thin < 1 else rows, plan)
        report["how"] = {"thin": options.thin, "rounds": plan.rounds, "folds": plan.folds, "rows": len(rows)}
    except (CommandError, TrainingSetError, SplitError, RefusedError, NoFraudError) as error:
        print(f"missing: {error}", file=sys.stderr)
        return 1
    out = settings().results / "bench" / "missing.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    for name in ("before", None):
        print("never missed a view:" if name else "missing as in production:")
        for each in (report[name] if name else report)["patterns"]:
            if each["kind"] != "view" or each["name"] == EVERYTHING:
                print(
                    f"  {each['name']:<12} review {each['review_rate']:7.2%} "
                    f"block {each['block_rate']:6.2%} "
                    f"AP {each['ap']:.3f}  Brier {each['brier']:.5f} ({each['base_brier']:.5f})  "
                    f"recall {each['recall']:.2f}"
                )
    print(f"strangers: {report['strangers']}; average precision kept {report['ap_kept']:.4f}")
    short = misses(report)
    print("\n".join(short) or f"missing: {out}")
    return 1 if short else 0


if __name__ == "__main__":
    np.seterr(over="ignore")
    sys.exit(main())
