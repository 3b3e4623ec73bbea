"""What a rule is, and the breaker that keeps one bad rule from declining everybody.

Expressions are compiled and evaluated elsewhere (`bentos.rules.ruleset`); this is the vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

Action = Literal["block", "review", "approve", "adjust"]
ACTIONS: Final[tuple[str, ...]] = get_args(Action)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: when `when` holds, take `action` and give `reason` (a code analysts know).

    `adjust` is added to the score by an adjust rule, and is 0 for the others.
    """

    name: str
    when: str
    action: Action
    reason: str
    adjust: float = 0.0
    line: int = 0

    def softened(self) -> Rule:
        """The same rule, asking for a review where it would block."""
        return Rule(self.name, self.when, "review", self.reason, 0.0, self.line)


class DeclineBreaker:
    """Demotes a block rule to review while it would decline more than its share.

    Per rule it keeps the share of recent decisions that it blocked, as an exponentially
    weighted mean over about `horizon` decisions (counted, not timed, so that a replay behaves
    as the day did). It opens above `limit` once `minimum` decisions were seen, and closes
    again below half of it. Within a horizon a card that the rule blocked counts once, however often it
    comes back: a rule is bad when it declines many, and one card's burst must not switch its rule off.
    """

    def __init__(self, *, limit: float = 0.2, horizon: int = 1000, minimum: int = 200) -> None:
        if not 0 < limit <= 1 or horizon < 1 or minimum < 1:
            raise ValueError("limit should lie in (0, 1], horizon and minimum be at least 1")
        self.limit = limit
        self.minimum = minimum
        self._horizon = horizon
        self._keep = 1.0 - 1.0 / horizon
        self._decided = 0
        #: The decision at which a rule's block of a card counted, oldest first, none older than the horizon.
        self._counted: dict[tuple[str, str], int] = {}
        self._seen = 0
        self._share: dict[str, float] = {}
        self._open: set[str] = set()

    @property
    def open_rules(self) -> frozenset[str]:
        """Names of the rules that are demoted now."""
        return frozenset(self._open)

    def is_open(self, name: str) -> bool:
        return name in self._open

    def record_cards(self, decided: Iterable[tuple[str, Collection[str]]]) -> None:
        """Account for decisions, each a card and the names of the rules that asked to block it.

        One whose every block was counted for its card already is passed over: it dilutes no share either.
        """
        counts, blocks = 0, Counter[str]()
        for card, names in decided:
            self._decided += 1
            while self._counted and next(iter(self._counted.values())) <= self._decided - self._horizon:
                del self._counted[next(iter(self._counted))]
            fresh = [name for name in names if (name, card) not in self._counted]
            if names and not fresh:
                continue
            counts += 1
            blocks.update(fresh)
            self._counted.update({(name, card): self._decided for name in fresh})
        if counts:
            self.record(counts, blocks)

    def record(self, decisions: int, blocks: dict[str, int]) -> None:
        """Account for `decisions` more decisions, of which each rule in `blocks` blocked so many.

        Blocks are counted as the rule asked for them, also while it is demoted.
        """
        self._seen += decisions
        keep = self._keep**decisions
        for name in self._share.keys() | blocks.keys():
            share = self._share.get(name, 0.0) * keep + blocks.get(name, 0) / decisions * (1.0 - keep)
            self._share[name] = share
            # Early on the mean has not filled up: compare with what it could have reached.
            filled = 1.0 - self._keep**self._seen
            if self._seen >= self.minimum and share > self.limit * filled:
                self._open.add(name)
            elif share < self.limit * filled / 2:
                self._open.discard(name)
