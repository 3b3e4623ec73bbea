"""Whether the experiment report comes to the right verdict: `results/bench/experiments.json`.

Simulated experiments of four weeks, looked at every day as a model owner would: 20 with a challenger that
catches more fraud, 20 with one that is the champion's equal, 20 with one that catches less. Customers differ
in how much they buy and spend, frauds come in bursts on one customer, amounts have long tails.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from typing import Any, Final

import numpy as np
import pandas as pd

from fraud.decision.experiment import Experiment
from monitoring.experiment.arms import MARGIN_SHARE, costs_of
from monitoring.experiment.sequential import Clusters, judge, saved
from stores.settings import settings
from training.thresholds import CostModel

DAYS: Final = 28
FIRST_LOOK: Final = 5
CUSTOMERS: Final = 12_000
A_DAY: Final = 0.6
#: How far apart the scores of frauds and genuine transactions are, in standard deviations.
SEPARATION: Final = {"champion": 2.2, "better": 3.2, "equal": 2.2, "worse": 1.4}
#: Of an equal challenger no difference may be claimed: it is called equal, or undecided at the planned end.
RIGHT: Final = {"better": ("better",), "equal": ("equal", "undecided"), "worse": ("worse",)}
RUNS: Final = 20


def decisions(kind: str, seed: int, *, share: float = 0.5, customers: int = CUSTOMERS) -> pd.DataFrame:
    """A log of matured decisions whose challenger is of a known kind."""
    random = np.random.default_rng(seed)
    split = Experiment(f"run-{seed}", share)
    rate = random.gamma(2.0, A_DAY / 2.0, customers)
    many = random.poisson(rate * DAYS)
    customer = np.repeat(np.arange(customers), many)
    fraud = np.zeros(len(customer), dtype=np.int8)
    for victim in np.flatnonzero((many > 0) & (random.random(customers) < 0.05)):
        places = np.flatnonzero(customer == victim)
        first = random.integers(0, len(places))
        fraud[places[first : first + 1 + random.poisson(1.0)]] = 1
    spend = random.normal(8.3, 0.4, customers)[customer]
    amount = np.exp(spend + random.normal(0, 0.8, len(customer)) + 1.2 * fraud).round()
    names = np.array([f"c{number:06d}" for number in range(customers)])
    variant = np.array([split.variant(name) for name in names], dtype=object)[customer]
    apart = np.where(variant == "challenger", SEPARATION[kind], SEPARATION["champion"])
    place = random.normal(0, 1, len(customer)) + apart * fraud
    # The log-odds of two normal classes, so that scores are calibrated.
    base = np.log(fraud.mean() / (1 - fraud.mean()))
    score = 1 / (1 + np.exp(-(base + apart * place - apart**2 / 2)))
    limits = {arm: np.quantile(score[variant == arm], [0.985, 0.997]) for arm in ("champion", "challenger")}
    review, block = (
        np.where(variant == "challenger", limits["challenger"][n], limits["champion"][n]) for n in (0, 1)
    )
    decision = np.where(score >= block, "BLOCK", np.where(score >= review, "REVIEW", "APPROVE"))
    start = np.datetime64("2026-03-01T00:00:00", "ns").astype(np.int64)
    when = start + (random.random(len(customer)) * DAYS * 86_400e9).astype(np.int64)
    return pd.DataFrame(
        {
            "customer_id": names[customer], "variant": variant, "is_fraud": fraud, "amount_reference": amount,
            "decision": decision, "score": score, "channel": random.choice(["pos", "ecom"], len(customer)),
            "model_version": np.where(variant == "challenger", "two", "one"),
            "event_timestamp": pd.to_datetime(when, utc=True),
        }
    ).sort_values("event_timestamp", ignore_index=True)  # fmt: skip


def verdict(kind: str, seed: int) -> tuple[str, int]:
    """The verdict at which daily looks stop, and on which day.

    Looks are those of the report (`monitoring.experiment.arms`), by the same estimate, margin and rule.
    """
    rows = decisions(kind, seed)
    day = (rows["event_timestamp"] - rows["event_timestamp"].min()).dt.days.to_numpy()
    cost = costs_of(rows, CostModel())
    attempted = rows["is_fraud"].to_numpy(np.float64) * rows["amount_reference"].to_numpy(np.float64)
    code, names = pd.factorize(rows["customer_id"])
    challenger = rows["variant"].to_numpy() == "challenger"
    for look in range(FIRST_LOOK, DAYS + 1):
        sums = {}
        for name, mine in (("challenger", challenger), ("champion", ~challenger)):
            here = mine & (day < look)
            rows_of = np.bincount(code[here], minlength=len(names)).astype(np.float64)
            sums[name] = Clusters(
                np.bincount(code[here], cost[here], len(names)).astype(np.float64)[rows_of > 0],
                np.bincount(code[here], attempted[here], len(names)).astype(np.float64)[rows_of > 0],
                rows_of[rows_of > 0],
            )
        now = saved(sums["challenger"], sums["champion"])
        champion = sums["champion"]
        found = judge(
            saved(sums["challenger"], champion, now.error * (look / DAYS) ** 0.5),
            MARGIN_SHARE * float(champion.cost.sum() / champion.rows.sum()),
            ended=look == DAYS,
        )
        if found != "go on":
            return found, look
    raise AssertionError("the last look ends it")


def main(argv: list[str] | None = None) -> int:
    """Run the simulations and write what came out; 1 if a kind was right in fewer than 19 of 20."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiments", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    options = parser.parse_args(argv)
    report: dict[str, Any] = {}
    for kind, right in RIGHT.items():
        found = [verdict(kind, 1_000 + seed) for seed in range(options.runs)]
        said = Counter(name for name, _ in found)
        report[kind] = {
            "runs": options.runs, "right": sum(said[name] for name in right), "verdicts": dict(said),
            "median_day": float(np.median([day for _, day in found])),
        }  # fmt: skip
        print(f"experiments: {kind}: {report[kind]}", flush=True)
    out = settings().results / "bench" / "experiments.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    least = 0.95 * options.runs
    return 0 if all(each["right"] >= least for each in report.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
