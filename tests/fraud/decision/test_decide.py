"""From a score and rules to one decision: at, under and over each bound."""

from __future__ import annotations

from itertools import permutations

import pytest

from fraud.contract.answer import Decision
from fraud.decision.decide import Thresholds, decide
from fraud.decision.rules import Rule

BOUNDS = Thresholds(review=0.5, block=0.8)
BLOCK, APPROVE, REVIEW = (
    Rule(name=action, when="true", action=action, reason="seen") for action in ("block", "approve", "review")
)


def adjusting(by: float) -> Rule:
    return Rule(name=f"by {by}", when="true", action="adjust", reason="seen", adjust=by)


@pytest.mark.parametrize(
    ("score", "decision"),
    [
        (0.0, "APPROVE"),
        (0.4999, "APPROVE"),
        (0.5, "REVIEW"),
        (0.7999, "REVIEW"),
        (0.8, "BLOCK"),
        (1.0, "BLOCK"),
    ],
)
def test_the_score_decides_and_a_bound_belongs_to_what_is_above_it(score: float, decision: Decision) -> None:
    assert decide(score, BOUNDS, []) == decision


@pytest.mark.parametrize("review", [0.0, 0.5, 0.8])
def test_thresholds_may_meet_each_other_and_nothing(review: float) -> None:
    assert Thresholds(review, 0.8).review == review


@pytest.mark.parametrize(("review", "block"), [(-0.001, 0.8), (0.81, 0.8)])
def test_thresholds_out_of_order_are_refused_with_both(review: float, block: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^thresholds should be 0 <= review <= block, not {review} and {block}$"
    ):
        Thresholds(review, block)


def test_a_review_rule_lifts_an_approval_only_and_no_other_rule_does() -> None:
    assert decide(0.1, BOUNDS, [REVIEW]) == "REVIEW"
    assert decide(0.9, BOUNDS, [REVIEW]) == "BLOCK"
    assert decide(0.1, BOUNDS, [adjusting(0.1)]) == "APPROVE"


def test_adjustments_are_added_up_before_the_bounds_are_asked() -> None:
    assert decide(0.4, BOUNDS, [adjusting(0.25), adjusting(0.25)]) == "BLOCK"
    assert decide(0.9, BOUNDS, [adjusting(-0.25), adjusting(-0.25)]) == "APPROVE"


def test_the_strongest_rule_decides_in_whatever_order_they_fired() -> None:
    for order in permutations([BLOCK, APPROVE, REVIEW, adjusting(0.5)]):
        assert decide(0.1, BOUNDS, order) == "BLOCK"
    for order in permutations([APPROVE, REVIEW, adjusting(0.9)]):
        assert decide(0.1, BOUNDS, order) == "APPROVE"


def test_without_a_score_or_bounds_people_look_unless_a_rule_decides() -> None:
    assert (
        decide(None, None, []) == decide(None, BOUNDS, [adjusting(0.5)]) == decide(0.1, None, []) == "REVIEW"
    )
    assert decide(None, None, [APPROVE]) == "APPROVE"
    assert decide(None, None, [BLOCK]) == "BLOCK"
