"""The decline breaker against its own definition, in numbers that can be checked in the head.

A horizon of 2 halves what was known at each decision: shares are sums of 1/2, 1/4, 1/8 ...
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from fraud.decision.rules import ACTIONS, DeclineBreaker, Rule


def test_a_softened_rule_reviews_and_is_otherwise_the_same() -> None:
    hard = Rule("night_cash", "amount > 5", "block", "NIGHT_CASH", 0.5, 17)
    assert hard.softened() == Rule("night_cash", "amount > 5", "review", "NIGHT_CASH", 0.0, 17)


def test_a_rule_adjusts_nothing_and_stands_on_no_line_unless_told() -> None:
    assert ACTIONS == ("block", "review", "approve", "adjust")
    assert (Rule("a", "true", "block", "A").adjust, Rule("a", "true", "block", "A").line) == (0.0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"limit": -0.1},
        {"limit": 1.01},
        {"horizon": 0},
        {"horizon": -3},
        {"minimum": 0},
        {"minimum": -1},
    ],
)
def test_a_breaker_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"^limit should lie in \(0, 1\], horizon and minimum be at least 1$"
    ):
        DeclineBreaker(**wrong)


def test_the_bounds_of_what_a_breaker_can_be_belong_to_it() -> None:
    breaker = DeclineBreaker(limit=1, horizon=1, minimum=1)
    breaker.record(1, {"a": 1})
    assert not breaker.is_open("a")  # all is not more than all
    assert DeclineBreaker(limit=0.001).limit == 0.001


def halving(limit: float, minimum: int = 1) -> DeclineBreaker:
    return DeclineBreaker(limit=limit, horizon=2, minimum=minimum)


def test_it_opens_above_its_limit_and_not_at_it() -> None:
    #  two decisions, one blocked: share 1/2 of what two can reach (3/4)
    at, above = halving(0.5), halving(0.499)
    at.record(2, {"a": 1})
    above.record(2, {"a": 1})
    assert at.open_rules == frozenset()
    assert above.open_rules == {"a"} and above.is_open("a") and not above.is_open("b")


def test_it_closes_below_half_of_its_limit_and_not_at_it() -> None:
    #  decisions   blocked   share   could be   half the limit of that
    #  1           yes       1/2     1/2        1/6     opens
    #  2           no        1/4     3/4        1/4     stays
    #  3           no        1/8     7/8        7/24    closes
    assert Fraction(2, 3) * Fraction(3, 4) / 2 == Fraction(1, 4)
    breaker, open_after = halving(2 / 3), []
    for blocks in ({"a": 1}, {}, {}):
        breaker.record(1, blocks)
        open_after.append(breaker.is_open("a"))
    assert open_after == [True, True, False]


def test_a_rule_that_blocks_for_the_first_time_blocked_nothing_before() -> None:
    #  share 1/2 of the 3/4 that two decisions can reach: 2/3
    below, above = halving(0.67), halving(0.66)
    for breaker in (below, above):
        breaker.record(1, {})
        breaker.record(1, {"a": 1})
    assert not below.is_open("a") and above.is_open("a")


def test_what_was_blocked_fades_with_every_decision_that_is_not() -> None:
    #  blocked, not, blocked: 1/8 + 1/2 of 7/8 is 5/7; one call of two decisions fades as two calls of one
    for limit, opens in ((0.71, True), (0.72, False)):
        breaker = halving(limit, minimum=3)
        for blocks in ({"a": 1}, {}, {"a": 1}):
            breaker.record(1, blocks)
        assert breaker.is_open("a") is opens
    #  blocked, then two not: 1/8 of 7/8 is 1/7
    for limit, opens in ((0.142, True), (0.143, False)):
        breaker = halving(limit, minimum=3)
        breaker.record(1, {"a": 1})
        breaker.record(2, {})
        assert breaker.is_open("a") is opens


def test_each_rule_is_judged_by_itself() -> None:
    breaker = halving(0.5)
    breaker.record(4, {"often": 4, "seldom": 1})
    assert breaker.open_rules == {"often"}
    breaker.record(4, {"seldom": 4})
    assert breaker.open_rules == {"seldom"}


def test_it_waits_for_as_many_decisions_as_it_was_told() -> None:
    for seen, opens in ((199, False), (200, True)):
        breaker = DeclineBreaker()
        for _ in range(seen):
            breaker.record(1, {"a": 1})
        assert breaker.is_open("a") is opens


def test_it_demotes_above_one_block_in_five_unless_told_otherwise() -> None:
    for blocks, opens in ((199, False), (201, True)):
        breaker = DeclineBreaker()
        breaker.record(1_000, {"a": blocks})
        assert breaker.is_open("a") is opens


def test_it_remembers_about_a_thousand_decisions_unless_told_otherwise() -> None:
    #  After 1,000 blocks the share is 1 - 0.999^1000 = 0.632, and m decisions later 0.632 x 0.999^m; it closes
    #  under a tenth of 1 - 0.999^(1000 + m): at m = 1899.9, by logarithms.
    for later, opens in ((1_899, True), (1_900, False)):
        breaker = DeclineBreaker()
        breaker.record(1_000, {"a": 1_000})
        breaker.record(later, {})
        assert breaker.is_open("a") is opens


def test_a_demoted_rule_is_counted_as_it_asked() -> None:
    breaker = halving(0.4)
    for _ in range(20):
        breaker.record(1, {"a": 1})
        assert breaker.is_open("a")
