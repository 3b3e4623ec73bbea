"""What a client asks after cannot fail the service, and one card's burst does not disarm the rule that stops it."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from bentos.api.explain import explain_decision
from bentos.base.caller import Caller
from bentos.base.problem import Problem
from bentos.scoring.engine import Engine
from fraud.decision.rules import DeclineBreaker

M10 = pytest.mark.finding(
    "M10", "medium", "1,000 payments of one card switched the block rule off, for every client of the worker"
)


@M10
def test_a_burst_of_one_card_demotes_nothing() -> None:
    breaker = DeclineBreaker()
    #  eight pass, as in card testing, and all behind them meet the rule
    breaker.record_cards(("one-card", ["testing"] if place >= 8 else []) for place in range(20_000))
    assert breaker.open_rules == frozenset()


@M10
def test_a_rule_that_declines_card_after_card_is_demoted_whatever_one_card_does_beside() -> None:
    breaker = DeclineBreaker()
    for place in range(250):
        breaker.record_cards([(f"card-{place}", ["bad"])] + [("one-card", ["testing"])] * 20)
    assert breaker.open_rules == {"bad"}


@M10
def test_what_is_remembered_of_cards_is_bounded_by_the_horizon() -> None:
    breaker = DeclineBreaker(horizon=50)
    breaker.record_cards((f"card-{place}", ["bad", "worse"]) for place in range(10_000))
    assert len(breaker._counted) <= 100


@pytest.mark.finding(
    "L11", "low", "an id with a zero byte made an explanation fail with 500, once for each request"
)
@pytest.mark.parametrize("asked", [b"%00", b"a%00b", b"%0a", b"%7f", b"%e2%80%ae", b"%20"])
def test_an_id_that_no_transaction_has_is_refused_before_anything_is_looked_up(asked: bytes) -> None:
    with pytest.raises(Problem) as refused:
        asyncio.run(
            explain_decision(cast("Engine", None), Caller("shop", ids="shop"), b"transaction_id=" + asked)
        )
    assert (refused.value.status, refused.value.field) == (422, "transaction_id")
