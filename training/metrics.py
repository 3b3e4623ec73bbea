"""What a fraud score is worth: ranking, calibration, money and alerts, in vectorised numpy.

Every ranking figure is read off one `Ranking`: the rows sorted once by score, ties kept
together, with the true and false positives counted down the list. Row weights make the same
code serve the bootstrap. `label` is 1 for fraud throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class NoFraudError(ValueError):
    """The rows hold no fraud, or nothing else, so a ranking figure has no meaning."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Counts at each distinct score, from the highest down.

    `threshold[i]` flags every row whose score is at least that; `true_positives[i]` and
    `false_positives[i]` are the (weighted) rows so flagged.
    """

    threshold: Floats
    true_positives: Floats
    false_positives: Floats

    @property
    def frauds(self) -> float:
        return float(self.true_positives[-1])

    @property
    def genuine(self) -> float:
        return float(self.false_positives[-1])

    @property
    def recall(self) -> Floats:
        return np.asarray(self.true_positives / self.frauds)

    @property
    def precision(self) -> Floats:
        flagged = self.true_positives + self.false_positives
        return np.divide(self.true_positives, flagged, out=np.ones_like(flagged), where=flagged > 0)

    @property
    def false_positive_rate(self) -> Floats:
        return np.asarray(self.false_positives / self.genuine)


def rank(label: NDArray[np.generic], score: Floats, weight: Floats | None = None) -> Ranking:
    """Sort the rows by falling score and count down; raise `NoFraudError` if a class is empty."""
    order = np.argsort(-score, kind="stable")
    sorted_weight = None if weight is None else weight[order]
    return count_down(score[order], label[order].astype(np.float64), sorted_weight)


def count_down(score: Floats, label: Floats, weight: Floats | None = None) -> Ranking:
    """`rank` for rows already in falling order of score."""
    last_of_tie = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    positive = label if weight is None else label * weight
    negative = 1.0 - label if weight is None else (1.0 - label) * weight
    true_positives = np.cumsum(positive)[last_of_tie] if len(score) else np.zeros(0)
    false_positives = np.cumsum(negative)[last_of_tie] if len(score) else np.zeros(0)
    if not len(score) or true_positives[-1] <= 0 or false_positives[-1] <= 0:
        raise NoFraudError("needs at least one fraud and one genuine transaction")
    return Ranking(score[last_of_tie], true_positives, false_positives)


def auc(ranking: Ranking) -> float:
    """Area under the ROC curve: the chance that a fraud outranks a genuine row, ties half."""
    recall = np.concatenate(([0.0], ranking.recall))
    rate = np.concatenate(([0.0], ranking.false_positive_rate))
    return float(np.sum(np.diff(rate) * (recall[1:] + recall[:-1]) / 2))


def average_precision(ranking: Ranking) -> float:
    """Mean precision over the frauds found, without interpolation (as scikit-learn defines it)."""
    gained = np.diff(ranking.recall, prepend=0.0)
    return float(np.sum(gained * ranking.precision))


def precision_at_recall(ranking: Ranking, recall: float = 0.70) -> float:
    """Precision at the highest threshold that finds at least this share of the frauds."""
    return float(ranking.precision[np.searchsorted(ranking.recall, recall - 1e-12)])


def recall_at_fpr(ranking: Ranking, rate: float = 0.02) -> float:
    """Share of the frauds found by the lowest threshold that flags at most `rate` of genuine rows."""
    place = int(np.searchsorted(ranking.false_positive_rate, rate + 1e-12, side="right")) - 1
    return float(ranking.recall[place]) if place >= 0 else 0.0


def threshold_at_fpr(ranking: Ranking, rate: float) -> float:
    """Lowest threshold that flags at most `rate` of the genuine rows (above 1 if none does)."""
    place = int(np.searchsorted(ranking.false_positive_rate, rate + 1e-12, side="right")) - 1
    return float(ranking.threshold[place]) if place >= 0 else 1.0 + 1e-9


def brier(label: NDArray[np.generic], probability: Floats, weight: Floats | None = None) -> float:
    """Mean squared error of a probability (Brier, 1950)."""
    return float(np.average((probability - label.astype(np.float64)) ** 2, weights=weight))


def brier_base_rate(label: NDArray[np.generic], weight: Floats | None = None) -> float:
    """Brier score of always predicting the base rate p: p(1 - p). A model must stay below."""
    rate = float(np.average(label.astype(np.float64), weights=weight))
    return rate * (1.0 - rate)


def value_recall(label: NDArray[np.generic], score: Floats, amount: Floats, threshold: float) -> float:
    """Share of the defrauded money that lies at or above `threshold`; NaN without fraud."""
    lost = amount * label.astype(np.float64)
    total = float(lost.sum())
    return float(lost[score >= threshold].sum()) / total if total > 0 else float("nan")


def prevented_loss(label: NDArray[np.generic], score: Floats, amount: Floats, threshold: float) -> float:
    """Defrauded money at or above `threshold`, in the units of `amount`."""
    return float((amount * label.astype(np.float64))[score >= threshold].sum())


def card_precision(
    day: Ints, customer: NDArray[np.generic], label: NDArray[np.generic], score: Floats, k: int = 100
) -> tuple[float, list[float]]:
    """CP@k: of the k customers a team can look at each day, the share that was defrauded that day.

    A customer's score is that day's highest; customers found are blocked, so they leave the
    later days. Returns the mean over days and each day's figure. Protocol: Le Borgne, Siblini,
    Lebichot and Bontempi, "Reproducible Machine Learning for Credit Card Fraud Detection", 4.
    """
    _, code = np.unique(customer, return_inverse=True)
    found = np.zeros(int(code.max()) + 1 if len(code) else 0, dtype=bool)
    daily: list[float] = []
    for today in np.unique(day):
        rows = np.flatnonzero((day == today) & ~found[code])
        top = np.full(len(found), -np.inf)
        np.maximum.at(top, code[rows], score[rows])
        defrauded = np.zeros(len(found), dtype=bool)
        defrauded[code[rows[label[rows].astype(bool)]]] = True
        seen = np.flatnonzero(np.isfinite(top))
        alerts = seen[np.argsort(-top[seen], kind="stable")[:k]]
        caught = alerts[defrauded[alerts]]
        found[caught] = True
        daily.append(len(caught) / k)
    return (float(np.mean(daily)) if daily else float("nan")), daily


def reliability(
    label: NDArray[np.generic], probability: Floats, weight: Floats | None = None, *, bins: int = 12
) -> list[dict[str, float]]:
    """Predicted against observed fraud rate in bins that hold like shares of both classes.

    Fraud is rare, so equal-width bins leave one bin with everything and the rest empty. The
    edges are quantiles of the score among rows weighted so that both classes count alike.
    """
    positive = label.astype(np.float64)
    stands_for = np.ones(len(positive)) if weight is None else weight
    frauds, genuine = positive.sum(), (1 - positive).sum()
    if frauds == 0 or genuine == 0:
        raise NoFraudError("needs at least one fraud and one genuine transaction")
    order = np.argsort(probability, kind="stable")
    mass = np.where(positive[order] > 0, 0.5 / frauds, 0.5 / genuine).cumsum()
    edges = np.unique(probability[order][np.searchsorted(mass, np.linspace(0, 1, bins + 1)[1:-1])])
    place = np.searchsorted(edges, probability, side="right")
    rows = np.bincount(place, stands_for, len(edges) + 1)
    predicted = np.bincount(place, probability * stands_for, len(edges) + 1)
    observed = np.bincount(place, positive * stands_for, len(edges) + 1)
    return [
        {"rows": float(n), "predicted": float(p / n), "observed": float(o / n)}
        for n, p, o in zip(rows, predicted, observed, strict=True)
        if n
    ]


def gain(ranking: Ranking, points: int = 200) -> tuple[Floats, Floats]:
    """The gain curve: share of rows flagged, and share of frauds found by flagging them."""
    flagged = (ranking.true_positives + ranking.false_positives) / (ranking.frauds + ranking.genuine)
    # The head of the ranking is where a team works: points even in the logarithm as well.
    even = np.linspace(0, len(flagged) - 1, points)
    at = np.unique(np.concatenate((even, np.geomspace(1, len(flagged), points) - 1)).astype(np.int64))
    return np.concatenate(([0.0], flagged[at])), np.concatenate(([0.0], ranking.recall[at]))


def summary(
    label: NDArray[np.generic], probability: Floats, amount: Floats, weight: Floats | None = None
) -> dict[str, float]:
    """The figures every model is judged by, on one set of rows; money in the units of `amount`.

    `weight` is how many transactions each row stands for; frauds always stand for themselves.
    """
    ranking = rank(label, probability, weight)
    threshold = threshold_at_fpr(ranking, 0.02)
    return {
        "rows": float(len(probability)),
        "transactions": ranking.frauds + ranking.genuine,
        "frauds": ranking.frauds,
        "auc": auc(ranking),
        "average_precision": average_precision(ranking),
        "precision_at_recall_70": precision_at_recall(ranking, 0.70),
        "recall_at_fpr_2": recall_at_fpr(ranking, 0.02),
        "value_recall_at_fpr_2": value_recall(label, probability, amount, threshold),
        "prevented_loss_at_fpr_2": prevented_loss(label, probability, amount, threshold),
        "brier": brier(label, probability, weight),
        "brier_base_rate": brier_base_rate(label, weight),
        "avg_prediction": float(np.average(probability, weights=weight)),
        "base_rate": ranking.frauds / (ranking.frauds + ranking.genuine),
    }
