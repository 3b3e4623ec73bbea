"""Thresholds: the cheapest pair there is, within the alert budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.thresholds import CostModel, choose_thresholds


def _cost(
    label: np.ndarray, score: np.ndarray, amount: np.ndarray, review: float, block: float, cost: CostModel
) -> float:
    fraud = label.astype(float)
    each = np.where(
        score >= block,
        cost.block(fraud, amount),
        np.where(score >= review, cost.review(fraud, amount), cost.approve(fraud, amount)),
    )
    return float(each.sum())


@given(seed=st.integers(0, 5_000), budget=st.sampled_from([1.0, 3.0, 1e9]))
@settings(max_examples=40, deadline=None)
def test_no_other_pair_within_the_budget_costs_less(seed: int, budget: float) -> None:
    random = np.random.default_rng(seed)
    label = (random.random(60) < 0.25).astype(np.int8)
    score = np.round(random.random(60) * 0.5 + label * random.random(60) * 0.5, 2)
    amount = random.integers(100, 30_000, 60).astype(float)
    day = np.repeat(np.arange(3), 20)
    cost = CostModel(alerts_per_day=budget)
    chosen = choose_thresholds(label, score, amount, day, cost)
    assert chosen.review <= chosen.block
    reviews = ((score >= chosen.review) & (score < chosen.block)).sum() / 3
    assert reviews <= budget and reviews == pytest.approx(chosen.reviews_per_day)
    ours = _cost(label, score, amount, chosen.review, chosen.block, cost)
    assert ours / 3 == pytest.approx(chosen.cost_per_day)
    candidates = [*sorted(set(score)), 2.0]
    for block in candidates:
        for review in (value for value in candidates if value <= block):
            if ((score >= review) & (score < block)).sum() / 3 <= budget:
                assert ours <= _cost(label, score, amount, review, block, cost) + 1e-6


def test_a_dearer_insult_blocks_less() -> None:
    random = np.random.default_rng(1)
    label = (random.random(5_000) < 0.05).astype(np.int8)
    score = np.clip(random.beta(1, 8, 5_000) + label * random.random(5_000) * 0.6, 0, 1)
    amount, day = random.integers(100, 30_000, 5_000).astype(float), np.repeat(np.arange(5), 1_000)
    cheap = choose_thresholds(label, score, amount, day, CostModel(insult_fixed=100))
    dear = choose_thresholds(label, score, amount, day, CostModel(insult_fixed=20_000))
    assert dear.blocks_per_day < cheap.blocks_per_day


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        choose_thresholds(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
