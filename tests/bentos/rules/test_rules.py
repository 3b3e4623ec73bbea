"""Rules from a file, decisions, the decline breaker and the experiment's split."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import cel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.rules.rule_room import RuleRoom
from bentos.rules.ruleset import DEFAULT_RULES, RuleError, RuleSet, load_rules
from fraud.decision.decide import Thresholds, decide
from fraud.decision.experiment import Experiment
from fraud.decision.rules import DeclineBreaker, Rule
from fraud.features.feature_list import VECTOR
from tests.bentos.running import transaction

LIMITS = Thresholds(0.5, 0.9)


def rule(action: Any, adjust: float = 0.0) -> Rule:
    return Rule("some_rule", "true", action, "REASON", adjust)


def vector(**values: float) -> np.ndarray:
    row = np.full(len(VECTOR), np.nan)
    for name, value in values.items():
        row[VECTOR.index(name)] = value
    return row


def names(ruleset: RuleSet, row: np.ndarray, **changes: Any) -> list[str]:
    scored = transaction(**changes)
    return [rule.name for rule in ruleset.hits(scored, scored.amount_reference, row, 0.2)]


@pytest.mark.parametrize(
    ("score", "hits", "expected"),
    [
        (0.1, [], "APPROVE"),
        (0.5, [], "REVIEW"),
        (0.9, [], "BLOCK"),
        (0.1, ["review"], "REVIEW"),
        (0.1, ["block"], "BLOCK"),
        (0.95, ["approve"], "APPROVE"),
        (0.95, ["approve", "block"], "BLOCK"),
        (0.95, ["review"], "BLOCK"),
        (None, [], "REVIEW"),
        (None, ["block"], "BLOCK"),
        (None, ["approve"], "APPROVE"),
    ],
)
def test_the_strongest_rule_wins_and_otherwise_the_score(
    score: float | None, hits: list[str], expected: str
) -> None:
    assert decide(score, LIMITS, [rule(action) for action in hits]) == expected


def test_adjustments_add_up_before_the_thresholds() -> None:
    assert decide(0.3, LIMITS, [rule("adjust", 0.1), rule("adjust", 0.15)]) == "REVIEW"
    assert decide(0.95, LIMITS, [rule("adjust", -0.6)]) == "APPROVE"


def test_the_shipped_rules_load_and_hold() -> None:
    ruleset = load_rules(DEFAULT_RULES)
    burst = vector(card_txn_count_5m=9.0, card_amount_mean_1h=120.0)
    assert names(ruleset, burst) == ["card_testing"]
    assert names(ruleset, vector()) == []
    assert names(ruleset, vector(), amount="3000.00") == ["unseen_customer_spends_high"]


def test_every_problem_of_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "rules:\n"
        "  - name: unknown_feature\n    when: customer_shoe_size > 4.0\n    action: block\n    reason: SHOE\n"
        "  - name: broken\n    when: amount >\n    action: review\n    reason: BROKEN\n"
        "  - name: no_reason\n    when: amount > 1.0\n    action: review\n"
        "  - name: wrong_action\n    when: amount > 1.0\n    action: explode\n    reason: BOOM\n"
        "  - name: not_a_condition\n    when: amount\n    action: block\n    reason: NUMBER\n"
        '  - name: wrong_type\n    when: amount > "x"\n    action: block\n    reason: TEXT\n'
    )
    with pytest.raises(RuleError) as caught:
        load_rules(path)
    text = "\n".join(caught.value.problems)
    for line, word in ((2, "customer_shoe_size"), (6, "broken"), (10, "reason is missing"), (13, "action"),
                       (17, "true or false"), (21, "overload")):  # fmt: skip
        assert any(
            problem.startswith(f"line {line}:") and word in problem for problem in caught.value.problems
        ), text


def test_a_broken_file_leaves_the_rules_before_in_force(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("rules:\n  - {name: ab, when: amount > 1.0, action: review, reason: AB}\n")
    room = RuleRoom(path)
    room.refresh()
    version = room.current.version
    path.write_text("rules: [")
    os.utime(path, ns=(1, 1))
    room.refresh()
    assert room.current.version == version
    assert room.error is not None
    assert "line 1" in room.error
    path.write_text("rules: []\n")
    room.refresh()
    assert room.error is None
    assert room.current.rules == ()


def test_a_missing_value_keeps_a_rule_from_firing_unless_it_asks_for_null(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(
        "rules:\n"
        "  - {name: below, when: customer_txn_count_1h < 5.0, action: review, reason: AB}\n"
        "  - {name: no_device, when: device_id == null, action: review, reason: AB}\n"
    )
    ruleset = load_rules(path)
    assert names(ruleset, vector()) == []
    assert names(ruleset, vector(customer_txn_count_1h=1.0), device_id=None) == ["below", "no_device"]
    assert ruleset.errors == 0


_NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, 1.0, 2.0, 5.5, -1.0]))
_PART = st.one_of(
    st.builds(
        lambda name, op, number: f"{name} {op} {number}",
        st.sampled_from(["txn_amount", "customer_txn_count_1h", "amount"]),
        st.sampled_from([">", ">=", "<", "<=", "==", "!="]),
        st.sampled_from(["1.0", "2.0", "5.5", "-1.0"]),
    ),
    st.just('channel == "pos"'),
    st.just('(txn_amount > 1.0 || channel == "ecom")'),
    st.just("customer_txn_count_1h != null"),
)


@given(
    parts=st.lists(_PART, min_size=1, max_size=4),
    joins=st.lists(st.sampled_from(["&&", "||"]), min_size=3),
    first=_NUMBERS,
    second=_NUMBERS,
)
def test_the_shortcuts_never_change_what_cel_says(
    parts: list[str], joins: list[str], first: float | None, second: float | None
) -> None:
    when = parts[0] + "".join(f" {join} {part}" for join, part in zip(joins, parts[1:], strict=False))
    ruleset = RuleSet([Rule("tried", when, "review", "TRIED", line=1)], "v")
    values = {
        name: value
        for name, value in (("txn_amount", first), ("customer_txn_count_1h", second))
        if value is not None
    }
    scored = transaction()
    context = {"txn_amount": first, "customer_txn_count_1h": second, "amount": float(scored.amount_reference),
               "channel": scored.channel}  # fmt: skip
    program = cel.compile(when)
    missing = "null" not in when and any(context[name] is None for name in program.variables())
    try:
        expected = not missing and program.execute(context) is True
    except TypeError:
        expected = False
    assert bool(ruleset.hits(scored, scored.amount_reference, vector(**values), 0.1)) == expected


#   200 decisions, of which a rule blocks every second: it is demoted; then it blocks none: it returns
def test_a_rule_that_declines_everybody_is_demoted_until_it_stops() -> None:
    breaker = DeclineBreaker(limit=0.2, horizon=500, minimum=200)
    for _ in range(19):
        breaker.record(10, Counter(bad=5, fine=1))
    assert not breaker.open_rules
    breaker.record(10, Counter(bad=5, fine=1))
    assert breaker.open_rules == {"bad"}
    assert rule("block").softened().action == "review"
    for _ in range(200):
        breaker.record(10, {})
    assert not breaker.open_rules


def test_a_split_is_sticky_and_close_to_its_share() -> None:
    experiment = Experiment("spring", 0.1)
    variants = [experiment.variant(f"customer-{n}") for n in range(20_000)]
    assert variants == [experiment.variant(f"customer-{n}") for n in range(20_000)]
    assert 0.09 < variants.count("challenger") / len(variants) < 0.11
    other = Experiment("summer", 0.1)
    both = sum(a == "challenger" == other.variant(f"customer-{n}") for n, a in enumerate(variants))
    assert both / len(variants) < 0.02
    assert {Experiment(share=0.0).variant(str(n)) for n in range(500)} == {"champion"}
    assert {Experiment(share=1.0).variant(str(n)) for n in range(500)} == {"challenger"}
    with pytest.raises(ValueError, match="key should be one of"):
        Experiment(key="amount")
