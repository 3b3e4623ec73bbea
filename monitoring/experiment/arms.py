"""Champion against challenger on live, matured decisions: what each arm was worth, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd

from fraud.decision.experiment import Experiment
from monitoring.experiment.sequential import ALPHA, Clusters, Estimate, judge, sample_ratio, saved
from training import metrics
from training.thresholds import CostModel

Floats = np.ndarray[Any, np.dtype[np.float64]]

#: Below this the customers were not split as the deployment says, and no figure means anything.
SPLIT_DOUBT: Final = 0.001
#: Matured frauds that each arm should have before anything is said.
FEWEST_FRAUDS: Final = 30
#: A difference matters from this share of what the champion's decisions cost.
MARGIN_SHARE: Final = 0.25
AMOUNT_BANDS: Final = (0, 5_000, 25_000, math.inf)
_REPLICATES: Final = 200


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant's matured decisions. Money in reference cents per transaction; `insult_rate` is the share
    of genuine transactions that were not approved, `calibration` expected over observed frauds."""

    version: str
    customers: int
    rows: int
    frauds: int
    cost: float
    review_rate: float
    block_rate: float
    insult_rate: float
    caught: float
    average_precision: float
    precision_at_budget: float
    calibration: float


@dataclass(frozen=True, slots=True)
class Compared:
    """An experiment so far. `value` is what the challenger saves per transaction (reference cents), with the
    interval of the stopping rule; `intervals` are ordinary 95% ones of the other figures' differences."""

    verdict: str
    reason: str
    champion: Arm
    challenger: Arm
    value: Estimate
    margin: float
    split_p: float
    strayed: int
    intervals: dict[str, tuple[float, float]]
    slices: list[dict[str, Any]] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        return asdict(self)


def costs_of(rows: pd.DataFrame, cost: CostModel) -> Floats:
    """What each decision cost, reference cents."""
    fraud = rows["is_fraud"].to_numpy(np.float64)
    amount = rows["amount_reference"].to_numpy(np.float64)
    decision = rows["decision"].to_numpy()
    return np.where(
        decision == "BLOCK", cost.block(fraud, amount),
        np.where(decision == "REVIEW", cost.review(fraud, amount), cost.approve(fraud, amount)),
    )  # fmt: skip


def compare(
    rows: pd.DataFrame,
    split: Experiment,
    *,
    cost: CostModel | None = None,
    planned_rows: int,
    alpha: float = ALPHA,
    margin: float | None = None,
    replicates: int = _REPLICATES,
) -> Compared:
    """Compare the arms of matured decisions (`is_fraud` beside the log's columns).

    `planned_rows` is how many matured decisions the experiment was planned for, fixed beforehand: there the
    stopping rule is sharpest. Raises ValueError if an arm has no decision.
    """
    cost = cost or CostModel()
    rows = rows.assign(cost=costs_of(rows, cost))
    arms = {name: rows[rows["variant"] == name] for name in ("champion", "challenger")}
    for name, mine in arms.items():
        if not len(mine):
            raise ValueError(f"the {name} has no matured decision yet")
    keys = rows.groupby(split.key)["variant"].agg(["first", "nunique"])
    expected = np.array([split.variant(str(key)) for key in keys.index], dtype=object)
    strayed = int(((keys["first"].to_numpy() != expected) | (keys["nunique"].to_numpy() > 1)).sum())
    challengers = int((keys["first"] == "challenger").sum())
    split_p = sample_ratio(challengers, len(keys), split.share)
    clusters = {name: _clusters(mine, split.key) for name, mine in arms.items()}
    now = saved(clusters["challenger"], clusters["champion"])
    planned = now.error * math.sqrt(len(rows) / max(planned_rows, 1))
    value = saved(clusters["challenger"], clusters["champion"], planned, alpha)
    champion, challenger = (_arm(arms[name], split, cost) for name in ("champion", "challenger"))
    margin = MARGIN_SHARE * champion.cost if margin is None else margin
    ended = len(rows) >= planned_rows
    verdict, reason = _verdict(value, margin, ended, (split_p, strayed, len(keys)), champion, challenger)
    return Compared(
        verdict, reason, champion, challenger, value, margin, split_p, strayed,
        _intervals(arms, split, replicates), _slices(arms, split.key),
    )  # fmt: skip


def _verdict(
    value: Estimate,
    margin: float,
    ended: bool,
    splitting: tuple[float, int, int],
    champion: Arm,
    challenger: Arm,
) -> tuple[str, str]:
    split_p, strayed, keys = splitting
    if split_p < SPLIT_DOUBT or strayed > 0.001 * keys:
        return "void", (
            f"the split is not what the deployment says (p {split_p:.2g}, {strayed} of {keys} keys in the "
            "wrong arm or in both): find out why before anything else"
        )
    if min(champion.frauds, challenger.frauds) < FEWEST_FRAUDS:
        return "go on", f"fewer than {FEWEST_FRAUDS} matured frauds in an arm"
    found = judge(value, margin, ended=ended)
    span = f"{value.value:+.2f} cents a transaction (at all times {value.low:+.2f} to {value.high:+.2f})"
    return found, {
        "better": f"the challenger is worth more: {span}",
        "worse": f"the challenger is worth less: {span}",
        "equal": f"no difference that matters ({margin:.2f} cents): {span}",
        "undecided": f"the planned end is reached and no difference was found; the champion stays: {span}",
        "go on": f"not decided yet: {span}",
    }[found]


def _clusters(rows: pd.DataFrame, key: str) -> Clusters:
    code, names = pd.factorize(rows[key])
    fraud = rows["is_fraud"].to_numpy(np.float64) * rows["amount_reference"].to_numpy(np.float64)
    return Clusters(
        np.bincount(code, rows["cost"].to_numpy(np.float64), len(names)).astype(np.float64),
        np.bincount(code, fraud, len(names)).astype(np.float64),
        np.bincount(code, minlength=len(names)).astype(np.float64),
    )


def _arm(rows: pd.DataFrame, split: Experiment, cost: CostModel) -> Arm:
    label, decision = rows["is_fraud"].to_numpy(np.float64), rows["decision"].to_numpy()
    genuine, stopped = label == 0, decision != "APPROVE"
    versions = rows["model_version"].dropna()
    figures = _figures(rows, split, cost)
    return Arm(
        version=str(versions.mode().iloc[0]) if len(versions) else "",
        customers=int(rows[split.key].nunique()),
        rows=len(rows),
        frauds=int(label.sum()),
        cost=float(rows["cost"].mean()),
        review_rate=float((decision == "REVIEW").mean()),
        block_rate=float((decision == "BLOCK").mean()),
        insult_rate=float(stopped[genuine].mean()) if genuine.any() else math.nan,
        caught=float(stopped[~genuine].mean()) if (~genuine).any() else math.nan,
        **figures,
    )


def _figures(rows: pd.DataFrame, split: Experiment, cost: CostModel) -> dict[str, float]:
    scored = rows[rows["score"].notna()]
    label = scored["is_fraud"].to_numpy(np.int8)
    score = scored["score"].to_numpy(np.float64)
    if not len(scored) or not label.any():
        return dict.fromkeys(("average_precision", "precision_at_budget", "calibration"), math.nan)
    day = scored["event_timestamp"].dt.tz_localize(None).to_numpy().astype("datetime64[D]").astype(np.int64)
    mine = split.share if rows["variant"].iloc[0] == "challenger" else 1 - split.share
    budget = max(1, round(cost.alerts_per_day * mine))
    precision, _ = metrics.card_precision(day, scored["customer_id"].to_numpy(), label, score, budget)
    return {
        "average_precision": metrics.average_precision(metrics.rank(label, score)),
        "precision_at_budget": float(precision),
        "calibration": float(score.sum() / label.sum()),
    }


def _intervals(
    arms: dict[str, pd.DataFrame], split: Experiment, replicates: int
) -> dict[str, tuple[float, float]]:
    """Ordinary 95% intervals of challenger less champion, by drawing whole customers of each arm."""
    random = np.random.default_rng(7)
    figures: dict[str, Callable[[Floats, Floats, Floats, Floats], float]] = {
        "average_precision": lambda label, score, stopped, weight: metrics.average_precision(
            metrics.rank(label, score, weight)
        ),
        "insult_rate": lambda label, score, stopped, weight: _mean(stopped, weight * (label == 0)),
        "caught": lambda label, score, stopped, weight: _mean(stopped, weight * (label > 0)),
        "calibration": lambda label, score, stopped, weight: float(
            (score * weight).sum() / max((label * weight).sum(), 1e-9)
        ),
    }
    drawn: dict[str, list[float]] = {name: [] for name in figures}
    prepared = [_prepared(arms[name], split.key) for name in ("challenger", "champion")]
    for _ in range(replicates):
        sides = []
        for code, size, label, score, stopped in prepared:
            weight = np.bincount(random.integers(0, size, size), minlength=size)[code].astype(np.float64)
            sides.append((label, score, stopped, weight))
        if not all((label * weight).any() for label, _, _, weight in sides):
            continue
        for name, figure in figures.items():
            drawn[name].append(figure(*sides[0]) - figure(*sides[1]))
    return {
        name: (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))
        for name, values in drawn.items()
        if values
    }


def _prepared(rows: pd.DataFrame, key: str) -> tuple[Any, int, Any, Any, Any]:
    scored = rows[rows["score"].notna()]
    code, names = pd.factorize(scored[key])
    return (
        code, len(names), scored["is_fraud"].to_numpy(np.float64), scored["score"].to_numpy(np.float64),
        (scored["decision"] != "APPROVE").to_numpy(np.float64),
    )  # fmt: skip


def _mean(values: Floats, weight: Floats) -> float:
    return float((values * weight).sum() / max(weight.sum(), 1e-9))


def _slices(arms: dict[str, pd.DataFrame], key: str) -> list[dict[str, Any]]:
    """What the challenger saves by channel and amount, with ordinary 95% intervals: where to look, not what
    to decide by."""
    found = []
    for kind in ("channel", "amount"):
        values = {name: _values(kind, rows) for name, rows in arms.items()}
        for value in sorted(set(values["champion"]) & set(values["challenger"])):
            parts = {name: _clusters(rows[values[name] == value], key) for name, rows in arms.items()}
            one = saved(parts["challenger"], parts["champion"])
            found.append(
                {
                    "slice": f"{kind} {value}",
                    "rows": [int(parts[name].rows.sum()) for name in ("champion", "challenger")],
                    "saved": one.value,
                    "interval": [one.value - 1.96 * one.error, one.value + 1.96 * one.error],
                }
            )
    return found


def _values(kind: str, rows: pd.DataFrame) -> pd.Series[str]:
    if kind == "channel":
        return rows["channel"].astype(str)
    bands = [f"{low / 100:g} to {high / 100:g}" for low, high in pairwise(AMOUNT_BANDS)]
    place = np.searchsorted(
        np.array(AMOUNT_BANDS[1:]), rows["amount_reference"].to_numpy(np.float64), "right"
    )
    return pd.Series(np.array(bands, dtype=object)[np.minimum(place, len(bands) - 1)], index=rows.index)
