from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from monitoring.drift.performance import average_precision, card_precision, compare, money_of, performance

MakeDecisions = Callable[..., pd.DataFrame]


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=80))
def test_average_precision_equals_scikit_learns_with_ties_and_weights(
    rows: list[tuple[bool, int, int]],
) -> None:
    labels, scores, weights = (np.array([row[place] for row in rows], dtype=float) for place in range(3))
    if not (labels * weights).any():
        assert np.isnan(average_precision(labels, scores, weights))
        return
    expected = average_precision_score(labels, scores, sample_weight=weights)
    assert average_precision(labels, scores, weights) == pytest.approx(expected, abs=1e-9)


def test_the_interval_holds_the_value_and_narrows_with_more_rows(make_decisions: MakeDecisions) -> None:
    few, many = (
        performance(make_decisions(rows, seed=1)).statistics["average_precision"] for rows in (3_000, 30_000)
    )
    assert few.low < few.value < few.high
    assert many.high - many.low < few.high - few.low


def test_a_week_like_the_baseline_is_not_beyond_it(make_decisions: MakeDecisions) -> None:
    baseline = {name: e.value for name, e in performance(make_decisions(30_000, seed=1)).statistics.items()}
    assert not any(signal.beyond for signal in compare(performance(make_decisions(20_000, seed=2)), baseline))


def test_scores_that_are_twice_too_high_are_a_matter_of_calibration_alone(
    make_decisions: MakeDecisions,
) -> None:
    baseline = {name: e.value for name, e in performance(make_decisions(30_000, seed=1)).statistics.items()}
    week = make_decisions(20_000, seed=2)
    week["score"] = week["score"] * 2
    assert [s.name for s in compare(performance(week), baseline) if s.beyond] == ["calibration"]


def test_too_few_frauds_say_nothing_about_ranking(make_decisions: MakeDecisions) -> None:
    week = make_decisions(5_000, seed=3)
    week["is_fraud"] = 0
    week.loc[:4, "is_fraud"] = 1
    assert set(performance(week).statistics) == {"fraud_rate"}


def test_card_precision_counts_customers_not_transactions() -> None:
    day = pd.Timestamp("2018-09-03", tz="UTC")
    rows = pd.DataFrame(
        {"event_timestamp": [day] * 4, "customer_id": ["a", "a", "b", "c"], "score": [0.9, 0.8, 0.5, 0.1], "is_fraud": [1, 1, 0, 0]}
    )  # fmt: skip
    assert card_precision(rows, alerts=2) == 0.5


def test_money_is_what_met_a_review_and_what_passed() -> None:
    rows = pd.DataFrame(
        {
            "is_fraud": [1, 1, 0, 0],
            "decision": ["BLOCK", "APPROVE", "REVIEW", "APPROVE"],
            "amount_reference": [10_000, 2_500, 100, 100],
        }
    )
    money = money_of(rows)
    assert money is not None
    assert (money.met, money.passed, money.insulted) == (100.0, 25.0, 0.5)


def test_a_statistic_that_wanders_by_itself_needs_to_move_further(make_decisions: MakeDecisions) -> None:
    week = performance(make_decisions(20_000, seed=2))
    value = week.statistics["calibration"].value
    still = {"calibration": [value / 2 * step for step in (0.98, 1.0, 1.02, 1.0, 0.99, 1.01)]}
    restless = {"calibration": [value / 2 * step for step in (0.5, 1.0, 2.0, 1.4, 0.7, 1.1)]}
    assert [s.beyond for s in compare(week, still)] == [True]
    assert [s.beyond for s in compare(week, restless)] == [False]
