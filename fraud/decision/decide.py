"""From a score and the rules that fired to one decision: pure, the same online and in backtests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fraud.contract.answer import Decision
from fraud.decision.rules import Rule

#: What is decided when neither a model nor a rule can tell good from bad.
CONSERVATIVE_DEFAULT: Final[Decision] = "REVIEW"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Scores from which a transaction is reviewed and blocked; they come with the model."""

    review: float
    block: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.review <= self.block:
            raise ValueError(f"thresholds should be 0 <= review <= block, not {self.review} and {self.block}")


def decide(score: float | None, thresholds: Thresholds | None, hits: Sequence[Rule]) -> Decision:
    """The decision on a transaction with `score` (None: no model could score) and rules `hits`.

    Score adjustments are added first. Then, strongest first: a block rule blocks; an approve
    rule approves whatever the score; otherwise the score decides, and a review rule lifts
    APPROVE to REVIEW. Without a score and without a deciding rule the answer is
    `CONSERVATIVE_DEFAULT`.
    """
    adjusted = score
    review = False
    approve = False
    for rule in hits:
        if rule.action == "block":
            return "BLOCK"
        if rule.action == "approve":
            approve = True
        elif rule.action == "review":
            review = True
        elif adjusted is not None:
            adjusted += rule.adjust
    if approve:
        return "APPROVE"
    if adjusted is None or thresholds is None:
        return CONSERVATIVE_DEFAULT
    if adjusted >= thresholds.block:
        return "BLOCK"
    if review or adjusted >= thresholds.review:
        return "REVIEW"
    return "APPROVE"
