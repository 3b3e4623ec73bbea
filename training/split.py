"""Splits of transactions by time, with the gap that label delay forces.

    fit ............|  gap  | validation |  gap  | test |
                    known here: labels of `fit`          up to the training cut

A model trained on day D knows only labels that had arrived by then, so it is judged on rows
that start `delay` after its last training row, as it will be used. All times are UTC event
times in microseconds; intervals are half open.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from training.metrics import Ints

DAY_US = 86_400_000_000


class SplitError(ValueError):
    """The history is too short to train, validate and test with the label delay between."""


@dataclass(frozen=True, slots=True)
class Span:
    """Event times [start, end), microseconds since 1970 UTC."""

    start: int
    end: int

    def mask(self, event_us: Ints) -> NDArray[np.bool_]:
        return (event_us >= self.start) & (event_us < self.end)

    @property
    def days(self) -> float:
        return (self.end - self.start) / DAY_US

    def text(self) -> dict[str, str]:
        return {name: iso(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Split:
    """Where a model is fitted, tuned (early stopping, calibration, thresholds) and judged."""

    fit: Span
    validation: Span
    test: Span

    @property
    def refit(self) -> Span:
        """Everything known when the test period starts: the final model's training rows."""
        return Span(self.fit.start, self.validation.end)

    @property
    def gap_days(self) -> float:
        """Days between the final model's last training row and the first it is judged on."""
        return (self.test.start - self.validation.end) / DAY_US

    def text(self) -> dict[str, dict[str, str]]:
        return {"fit": self.fit.text(), "validation": self.validation.text(), "test": self.test.text()}


def iso(microseconds: int) -> str:
    """RFC 3339 text of microseconds since 1970 UTC."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat().replace("+00:00", "Z")


#: Smallest share of the history to fit on; below it, gaps give way as `split_by_time` says.
FIT_SHARE = 0.4
SHORTEST_DAYS = 3.0


def split_by_time(
    start: int,
    end: int,
    *,
    delay_days: float,
    validation_days: float = 7,
    test_days: float = 7,
    stretch: float = 1.0,
) -> Split:
    """Lay the five periods over mature history [start, end), microseconds.

    Validation takes at most 15% and test at most 20% of the history, both times
    `stretch`. If the gaps would leave
    less than 40% to fit on, the one before validation goes first (validation only stops the
    trees and sets the thresholds), then the one before the test shrinks; `Split.gap_days` says
    what is left of it. Raises `SplitError` below three days.
    """
    history = (end - start) / DAY_US
    if history < SHORTEST_DAYS:
        raise SplitError(
            f"{history:.1f} days of mature transactions are too few to fit, validate and test on; "
            "bring a longer history, or lower TOLLGATE_LABEL_MATURITY_DAYS"
        )
    validation = min(validation_days, 0.15 * history * stretch)
    test = min(test_days, 0.20 * history * stretch)
    spare = history * (1 - FIT_SHARE) - validation - test
    before_test = max(min(delay_days, spare), 0.0)
    before_validation = delay_days if spare >= 2 * delay_days else 0.0
    test_start = end - int(test * DAY_US)
    validation_end = test_start - int(before_test * DAY_US)
    validation_start = validation_end - int(validation * DAY_US)
    return Split(
        fit=Span(start, validation_start - int(before_validation * DAY_US)),
        validation=Span(validation_start, validation_end),
        test=Span(test_start, end),
    )


@dataclass(frozen=True, slots=True)
class Fold:
    """One prequential step: train on `train`, wait out the label delay, score `test`."""

    train: Span
    test: Span


def prequential(
    start: int, end: int, *, folds: int, delay_days: float, test_days: float, train_days: float | None = None
) -> list[Fold]:
    """Folds that walk forward through [start, end), oldest first (Dawid 1984).

    Test periods are adjacent and end at `end`; each trains on the `train_days` (all history
    when None) that end `delay_days` before its test period. Raises `SplitError` if the first
    fold would have nothing to train on.
    """
    step, gap = int(test_days * DAY_US), int(delay_days * DAY_US)
    planned = []
    for number in range(folds, 0, -1):
        test = Span(end - number * step, end - (number - 1) * step)
        train_end = test.start - gap
        train_start = start if train_days is None else max(start, train_end - int(train_days * DAY_US))
        if train_end <= train_start:
            raise SplitError(f"{folds} folds of {test_days:g} days leave nothing to train on; ask for fewer")
        planned.append(Fold(Span(train_start, train_end), test))
    return planned
