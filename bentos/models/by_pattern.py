"""Which calibration and thresholds count for a transaction, by the views that arrived for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Final

from fraud.contract.transaction import Transaction
from stores.models import Limits
from stores.patterns import smallest, views

#: Combinations of statuses that are kept, of all that there could be.
_MOST_CASES: Final = 4096


class ByPattern:
    """Looks up a model's limits. What arrived is a handful of cases, so a lookup is that of a tuple."""

    def __init__(self, undisturbed: Limits, patterns: Mapping[str, Limits]) -> None:
        self.undisturbed = undisturbed
        self._views = views()
        fields = [
            key for key in dict.fromkeys(self._views.key.values()) if key in Transaction.__struct_fields__
        ]
        self._named = attrgetter(*fields)
        self._patterns = [each for each in self._views.patterns() if each.name in patterns]
        self._limits = patterns
        self._cases: dict[tuple[object, ...], Limits] = {}

    def of(self, status: Mapping[str, str], transaction: Transaction) -> Limits:
        """The limits of the smallest pattern that covers what was lost; the undisturbed ones where nothing
        was, or where the model knows no such pattern."""
        if not self._patterns:
            return self.undisturbed
        case = (*status.items(), *[value is not None for value in self._named(transaction)])
        found = self._cases.get(case)
        if found is None:
            if len(self._cases) == _MOST_CASES:
                self._cases.clear()
            found = self._cases[case] = self._look_up(status, _naming(transaction))
        return found

    def _look_up(self, status: Mapping[str, str], named: Callable[[str], bool]) -> Limits:
        pattern = smallest(self._patterns, self._views.lost(status, named))
        return self.undisturbed if pattern is None else self._limits[pattern.name]


def _naming(transaction: Transaction) -> Callable[[str], bool]:
    return lambda key: getattr(transaction, key, None) is not None
