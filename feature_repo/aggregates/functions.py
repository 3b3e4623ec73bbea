"""The functions of batch views, by name: generic ones here, others in `feature_repo.aggregates.plugins`.

A function takes the frame of a block of keys and the figure that is declared, and gives a (keys, cuts) matrix
of floats, NaN where there is no value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from feature_repo.aggregates.frame import Floats, Frame, cuts_of
from feature_repo.aggregates.grid import NOTHING, Ints, deviation, distinct, largest
from feature_repo.aggregates.plugins import frauds, peers, place
from fraud.declared.figures import Figure

Function = Callable[[Frame, Figure], Floats]

_BITS: Final = np.int64(0x7FFFFFFFFFFFFFFF)


def _count(frame: Frame, figure: Figure) -> Floats:
    return frame.count(cuts_of(figure.window_ms)).astype(np.float64)


def _count_if(frame: Frame, figure: Figure) -> Floats:
    return frame.holding(figure.column, cuts_of(figure.window_ms)).astype(np.float64)


def _sum(frame: Frame, figure: Figure) -> Floats:
    total: Floats = frame.sums(figure.column, cuts_of(figure.window_ms))[0].astype(np.float64)
    return total


def _mean(frame: Frame, figure: Figure) -> Floats:
    span = cuts_of(figure.window_ms)
    count, total = frame.present(figure.column, span), frame.sums(figure.column, span)[0]
    return np.where(count > 0, total / count, np.nan)


def _std(frame: Frame, figure: Figure) -> Floats:
    span = cuts_of(figure.window_ms)
    count = frame.present(figure.column, span)
    total, squares, high = frame.sums(figure.column, span)
    if high is not None:
        return deviation(count, total, squares, high)
    mean = total / count
    return np.where(count > 0, np.sqrt(np.maximum(squares / count - mean * mean, 0.0)), np.nan)


def _max(frame: Frame, figure: Figure) -> Floats:
    return _extreme(frame, figure, 1)


def _min(frame: Frame, figure: Figure) -> Floats:
    return -_extreme(frame, figure, -1)


def _extreme(frame: Frame, figure: Figure, sign: int) -> Floats:
    low, high = frame.visible(cuts_of(figure.window_ms))
    row, values = frame.moves.row, frame.whole(figure.column)
    given = frame.moves.numbers[figure.column]
    if given.dtype.kind == "f":
        there = ~np.isnan(given)
        row, low, high, values = row[there], low[there], high[there], values[there]
    if values.dtype.kind == "i":
        best = largest(row, low, high, sign * values.astype(np.int64), frame.shape)
        return np.where(best == NOTHING, np.nan, best)
    best = largest(row, low, high, _ordered(sign * values.astype(np.float64)), frame.shape)
    return np.where(best == NOTHING, np.nan, _number(best))


def _ordered(values: Floats) -> Ints:
    """Integers in the order of the floats."""
    bits = np.ascontiguousarray(values + 0.0).view(np.int64)
    ordered: Ints = bits ^ ((bits >> 63) & _BITS)
    return ordered


def _number(ordered: Ints) -> Floats:
    """The floats of `_ordered`."""
    number: Floats = (ordered ^ ((ordered >> 63) & _BITS)).view(np.float64)
    return number


def _count_distinct(frame: Frame, figure: Figure) -> Floats:
    low, high = frame.visible(cuts_of(figure.window_ms))
    order = frame.sorted_values(figure.column)
    values = frame.moves.values[figure.column]
    return distinct(frame.moves.row[order], values[order], low[order], high[order], frame.shape).astype(
        np.float64
    )


GENERIC: Final[dict[str, Function]] = {
    "count": _count, "count_if": _count_if, "sum": _sum, "mean": _mean, "std": _std, "min": _min, "max": _max,
    "count_distinct": _count_distinct,
}  # fmt: skip
#: Every function of batch views.
FUNCTIONS: Final[dict[str, Function]] = GENERIC | frauds.FUNCTIONS | place.FUNCTIONS | peers.FUNCTIONS
