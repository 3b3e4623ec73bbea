"""Ranking figures against brute force and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from training import metrics
from training.bootstrap import difference_interval, intervals


def _data(seed: int, rows: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    label = (random.random(rows) < 0.2).astype(np.int8)
    label[:2] = (0, 1)
    score = np.round(random.random(rows) * 0.6 + label * random.random(rows) * 0.4, 6)
    return label, np.floor(score * levels) / levels


@given(seed=st.integers(0, 10_000), rows=st.integers(2, 200), levels=st.sampled_from([2, 7, 1000]))
@settings(max_examples=60, deadline=None)
def test_auc_and_average_precision_equal_scikit_learn_with_and_without_ties(
    seed: int, rows: int, levels: int
) -> None:
    label, score = _data(seed, rows, levels)
    ranking = metrics.rank(label, score)
    assert metrics.auc(ranking) == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert metrics.average_precision(ranking) == pytest.approx(
        average_precision_score(label, score), abs=1e-12
    )
    assert metrics.brier(label, score) == pytest.approx(brier_score_loss(label, score), abs=1e-12)


@given(seed=st.integers(0, 10_000), rows=st.integers(2, 80), levels=st.sampled_from([3, 50]))
@settings(max_examples=60, deadline=None)
def test_operating_points_equal_a_search_over_every_threshold(seed: int, rows: int, levels: int) -> None:
    label, score = _data(seed, rows, levels)
    points = []
    for threshold in sorted(set(score), reverse=True):
        flagged = score >= threshold
        found = (flagged & (label == 1)).sum()
        points.append(
            (found / flagged.sum(), found / label.sum(), (flagged & (label == 0)).sum() / (label == 0).sum())
        )
    ranking = metrics.rank(label, score)
    expected = next(precision for precision, recall, _ in points if recall >= 0.7)
    assert metrics.precision_at_recall(ranking, 0.7) == pytest.approx(expected)
    allowed = [recall for _, recall, rate in points if rate <= 0.3]
    assert metrics.recall_at_fpr(ranking, 0.3) == pytest.approx(max(allowed, default=0.0))
    threshold = metrics.threshold_at_fpr(ranking, 0.3)
    assert ((score >= threshold) & (label == 0)).sum() <= 0.3 * (label == 0).sum()


def test_a_weight_of_two_counts_like_the_row_twice() -> None:
    label, score = _data(3, 60, 20)
    weight = np.random.default_rng(4).integers(1, 4, 60)
    repeated = metrics.rank(np.repeat(label, weight), np.repeat(score, weight))
    weighted = metrics.rank(label, score, weight.astype(float))
    assert metrics.auc(weighted) == pytest.approx(metrics.auc(repeated))
    assert metrics.average_precision(weighted) == pytest.approx(metrics.average_precision(repeated))


def test_a_single_class_has_no_ranking() -> None:
    with pytest.raises(metrics.NoFraudError):
        metrics.rank(np.zeros(5, np.int8), np.linspace(0, 1, 5))


def test_card_precision_follows_the_handbook_day_by_day() -> None:
    random = np.random.default_rng(5)
    rows = 3_000
    day, customer = random.integers(0, 7, rows), random.integers(0, 200, rows).astype(str).astype(object)
    label = (random.random(rows) < 0.05).astype(np.int8)
    score = random.random(rows) + label * 0.3
    found: set[str] = set()
    expected = []
    for today in range(7):
        best: dict[str, float] = {}
        fraud: set[str] = set()
        for place in np.flatnonzero(day == today):
            name = customer[place]
            if name in found:
                continue
            best[name] = max(best.get(name, -1.0), score[place])
            if label[place]:
                fraud.add(name)
        top = sorted(best, key=lambda name: -best[name])[:20]
        caught = [name for name in top if name in fraud]
        found.update(caught)
        expected.append(len(caught) / 20)
    mean, daily = metrics.card_precision(day, customer, label, score, 20)
    assert daily == pytest.approx(expected)
    assert mean == pytest.approx(np.mean(expected))


def test_value_recall_counts_money_not_transactions() -> None:
    label, score = np.array([1, 1, 0]), np.array([0.9, 0.1, 0.5])
    amount = np.array([100.0, 300.0, 1000.0])
    assert metrics.value_recall(label, score, amount, 0.5) == pytest.approx(0.25)
    assert metrics.prevented_loss(label, score, amount, 0.5) == 100.0


def test_the_base_rate_brier_is_that_of_a_constant_answer() -> None:
    label = np.array([1, 0, 0, 0, 0])
    assert metrics.brier_base_rate(label) == pytest.approx(metrics.brier(label, np.full(5, 0.2)))


def test_reliability_bins_hold_every_row_once_and_average_to_the_base_rate() -> None:
    label, score = _data(9, 4_000, 1000)
    bins = metrics.reliability(label, score)
    assert sum(entry["rows"] for entry in bins) == 4_000
    assert sum(entry["rows"] * entry["observed"] for entry in bins) == pytest.approx(label.sum())
    assert len(bins) > 5


def test_the_gain_curve_starts_at_nothing_and_ends_at_everything() -> None:
    rows, frauds = metrics.gain(metrics.rank(*_data(2, 500, 1000)))
    assert (rows[0], frauds[0], rows[-1], frauds[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert np.all(np.diff(rows) >= 0) and np.all(np.diff(frauds) >= 0)


def test_intervals_hold_the_figure_and_are_wider_when_customers_repeat() -> None:
    label, score = _data(11, 2_000, 1000)
    alone = intervals(label, score, {"auc": metrics.auc}, rounds=100)["auc"]
    assert alone[0] < metrics.auc(metrics.rank(label, score)) < alone[1]
    repeated, copies = np.repeat(label, 4), np.repeat(score, 4)
    apart = intervals(repeated, copies, {"auc": metrics.auc}, rounds=100)["auc"]
    together = intervals(
        repeated, copies, {"auc": metrics.auc}, groups=np.repeat(np.arange(2_000), 4), rounds=100
    )["auc"]
    assert together[1] - together[0] > 1.5 * (apart[1] - apart[0])


def test_the_difference_of_a_score_to_itself_is_nothing() -> None:
    label, score = _data(12, 500, 1000)
    assert difference_interval(label, score, score, metrics.auc, rounds=20) == (0.0, 0.0)
