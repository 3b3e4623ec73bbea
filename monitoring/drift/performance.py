"""How well the scores of matured transactions ranked and priced fraud, with honest intervals.

A transaction is *matured* when its label can be trusted: `label_maturity_days` after its event
an unreported one counts as genuine. Only matured rows belong here. Intervals come from a
bootstrap over customers, because transactions of one customer are not independent
(Field and Welsh, Bootstrapping clustered data, JRSS B 2007).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from training import metrics

Floats = np.ndarray[Any, np.dtype[np.float64]]
Statistic = Callable[[pd.DataFrame, Floats], float]

#: Fewer matured frauds than this say nothing about ranking.
FEWEST_FRAUDS: Final = 20
REPLICATES: Final = 200
#: Customers that can be looked at in a day, for CP@k.
ALERTS_A_DAY: Final = 100
#: Frauds below this (reference cents) are probes of a stolen card: they come in bursts of any size,
#: and would drown what the frauds that cost money look like.
SMALLEST_FRAUD: Final = 2_000
#: With this many earlier weeks the limits come from how much a statistic wanders by itself.
FEWEST_WEEKS: Final = 4
#: Chance that a statistic of a quiet week lies beyond its limit, if weeks were normal.
FALSE_ALARM: Final = 0.001
#: How far a statistic may move from its baseline before it matters, as a ratio.
MATTERS: Final[dict[str, float]] = {
    "average_precision": 0.85,  # falls below this share of the baseline
    "calibration": 1.3,  # expected over observed frauds, or its inverse
    "fraud_amount": 1.25,  # mean log amount of frauds moved by this factor
    "fraud_rate": 1.6,
    "caught": 0.85,
}
TITLES: Final[dict[str, str]] = {
    "average_precision": "average precision",
    "calibration": "expected over observed frauds",
    "fraud_amount": "typical amount of a fraud, probes left out",
    "fraud_rate": "share of frauds",
    "caught": "share of frauds sent to review or blocked",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its 95% bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PerformanceSignal:
    """One statistic of matured transactions against its baseline."""

    name: str
    current: Estimate
    baseline: float
    beyond: bool

    @property
    def title(self) -> str:
        return TITLES[self.name]


@dataclass(frozen=True, slots=True)
class Performance:
    """Matured transactions in one period: how many, and the statistics that could be taken."""

    rows: int
    frauds: int
    statistics: dict[str, Estimate]
    card_precision: float | None = None


def average_precision(labels: Floats, scores: Floats, weights: Floats) -> float:
    """Area under the precision-recall curve as a step function, as training judges a model by it.

    NaN without a fraud.
    """
    try:
        return metrics.average_precision(metrics.rank(labels, scores, weights))
    except metrics.NoFraudError:
        return 1.0 if (labels * weights).any() else float("nan")


def _average_precision(rows: pd.DataFrame, weights: Floats) -> float:
    return average_precision(
        rows["is_fraud"].to_numpy(np.float64), rows["score"].to_numpy(np.float64), weights
    )


def _calibration(rows: pd.DataFrame, weights: Floats) -> float:
    observed = float(np.sum(rows["is_fraud"].to_numpy(np.float64) * weights))
    return float(np.sum(rows["score"].to_numpy(np.float64) * weights)) / max(observed, 1e-9)


def _fraud_rate(rows: pd.DataFrame, weights: Floats) -> float:
    return float(np.average(rows["is_fraud"].to_numpy(np.float64), weights=weights))


def _fraud_amount(rows: pd.DataFrame, weights: Floats) -> float:
    amount = rows["amount_reference"].to_numpy(np.float64)
    fraud = rows["is_fraud"].to_numpy(np.float64) * weights * (amount >= SMALLEST_FRAUD)
    return float(np.exp(np.sum(np.log(np.maximum(amount, 1.0)) * fraud) / max(float(np.sum(fraud)), 1e-9)))


def _caught(rows: pd.DataFrame, weights: Floats) -> float:
    fraud = rows["is_fraud"].to_numpy(np.float64) * weights
    acted = (rows["decision"] != "APPROVE").to_numpy(np.float64)
    return float(np.sum(acted * fraud)) / max(float(np.sum(fraud)), 1e-9)


_STATISTICS: Final[tuple[tuple[str, Statistic, tuple[str, ...]], ...]] = (
    ("average_precision", _average_precision, ("score",)),
    ("calibration", _calibration, ("score",)),
    ("fraud_amount", _fraud_amount, ("amount_reference",)),
    ("fraud_rate", _fraud_rate, ()),
    ("caught", _caught, ("decision",)),
)


def performance(matured: pd.DataFrame, *, replicates: int = REPLICATES) -> Performance:
    """The statistics of matured rows: `is_fraud`, and any of score, decision, amount_reference.

    Rows without a score are left out. With a `customer_id` column the bootstrap draws customers,
    else rows. With fewer than `FEWEST_FRAUDS` frauds only the share of frauds is estimated.
    """
    rows = matured[matured["score"].notna()] if "score" in matured else matured
    if "score" in rows:
        rows = rows.sort_values(
            "score", ascending=False, kind="stable"
        )  # so that every replicate sorts in one pass
    frauds = int(rows["is_fraud"].sum())
    if not len(rows):
        return Performance(0, 0, {})
    groups = pd.factorize(rows["customer_id"])[0] if "customer_id" in rows else np.arange(len(rows))
    generator = np.random.default_rng(7)
    size = int(groups.max()) + 1
    draws = [generator.poisson(1.0, size).astype(np.float64)[groups] for _ in range(replicates)]
    unit = np.ones(len(rows))
    statistics: dict[str, Estimate] = {}
    for name, statistic, needed in _STATISTICS:
        if not set(needed) <= set(rows.columns) or (frauds < FEWEST_FRAUDS and name != "fraud_rate"):
            continue
        repeats = np.array([statistic(rows, draw) for draw in draws if draw.any()])
        low, high = np.nanquantile(repeats, [0.025, 0.975])
        statistics[name] = Estimate(statistic(rows, unit), float(low), float(high))
    return Performance(len(rows), frauds, statistics, card_precision(rows))


def card_precision(rows: pd.DataFrame, alerts: int = ALERTS_A_DAY) -> float | None:
    """Of the `alerts` customers with the highest scores of each day, the share that had a fraud on
    it, averaged over days (CP@k, as training judges a model by it); None without customers."""
    if not {"customer_id", "event_timestamp", "score"} <= set(rows.columns) or not len(rows):
        return None
    days = pd.to_datetime(rows["event_timestamp"], utc=True).dt.floor("D")
    day, customers = (np.asarray(pd.factorize(column)[0], np.int64) for column in (days, rows["customer_id"]))
    label, score = rows["is_fraud"].to_numpy(np.int8), rows["score"].to_numpy(np.float64)
    return metrics.card_precision(day, customers, label, score, alerts)[0]


Baseline = Mapping[str, float | Sequence[float]]


def compare(current: Performance, baseline: Baseline) -> list[PerformanceSignal]:
    """Each statistic of `current` against `baseline`; beyond means moved, surely and enough.

    A baseline is one value, or the values of earlier weeks. Surely: the whole 95% interval lies
    on the far side of it and, with `FEWEST_WEEKS` earlier weeks, the value lies outside the
    interval that predicts a further week from them (Student's t on logarithms). Enough: by more
    than `MATTERS`.
    """
    signals = []
    for name, estimate in current.statistics.items():
        past = np.atleast_1d(np.asarray(baseline.get(name, ()), dtype=np.float64))
        past = past[np.isfinite(past) & (past > 0)]
        if not len(past):
            continue
        base, limit = float(np.exp(np.mean(np.log(past)))), MATTERS[name]
        surely = estimate.high < base or (limit > 1 and estimate.low > base)
        ratio = estimate.value / base
        enough = ratio < limit if limit < 1 else not 1 / limit <= ratio <= limit
        unusual = len(past) < FEWEST_WEEKS or abs(np.log(max(ratio, 1e-9))) > wander(past)
        signals.append(PerformanceSignal(name, estimate, base, bool(surely and enough and unusual)))
    return signals


def wander(past: Floats) -> float:
    """How far from their geometric mean the next week may lie, as a logarithm."""
    from scipy.stats import t

    weeks = len(past)
    spread = float(np.std(np.log(past), ddof=1)) * float(np.sqrt(1 + 1 / weeks))
    return float(t.ppf(1 - FALSE_ALARM / 2, weeks - 1)) * spread


@dataclass(frozen=True, slots=True)
class Money:
    """Matured fraud that met a review or a block, and that passed, in the reference currency; and
    the share of genuine transactions that were not approved."""

    met: float
    passed: float
    insulted: float

    def text(self) -> str:
        """For people."""
        return (
            f"of {self.met + self.passed:,.0f} in matured fraud, {self.met:,.0f} met a review or a block "
            f"and {self.passed:,.0f} passed; {self.insulted:.2%} of genuine transactions were not approved"
        )


def money_of(matured: pd.DataFrame) -> Money | None:
    """What matured decisions were worth, or None if they lack decisions, amounts or frauds."""
    if (
        not {"is_fraud", "decision", "amount_reference"} <= set(matured.columns)
        or not matured["is_fraud"].any()
    ):
        return None
    fraud = matured["is_fraud"].to_numpy() == 1
    acted = (matured["decision"] != "APPROVE").to_numpy()
    amount = matured["amount_reference"].to_numpy(np.float64) / 100
    genuine = ~fraud
    insulted = float(acted[genuine].mean()) if genuine.any() else 0.0
    return Money(float(amount[fraud & acted].sum()), float(amount[fraud & ~acted].sum()), insulted)
