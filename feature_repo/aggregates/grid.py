"""Cuts as integers: cut number n is `n * CUT_INTERVAL` after 1970 UTC, bucket n the time up to cut n + 1.

Because every window edge falls on a cut, a transaction is inside a window for a run of
consecutive cuts, and a late one joins at the first cut that knows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fraud.features.entities import CUT_INTERVAL

Ints = NDArray[np.int64]

INTERVAL_US: Final = CUT_INTERVAL // timedelta(microseconds=1)
CUTS_PER_DAY: Final = timedelta(days=1) // CUT_INTERVAL
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def cut_number(cut: datetime) -> int:
    """The number of a cut; ValueError if `cut` has no offset or is not on the grid."""
    if cut.tzinfo is None:
        raise ValueError(f"cut {cut.isoformat()} needs an offset, such as 2026-03-01T06:00:00Z")
    number, rest = divmod(cut - _EPOCH, CUT_INTERVAL)
    if rest:
        raise ValueError(
            f"cut {cut.isoformat()} is not on the grid: cuts are every {CUT_INTERVAL} from 00:00 UTC"
        )
    return number


def cut_time(number: int) -> datetime:
    """The UTC time of cut `number`."""
    return _EPOCH + number * CUT_INTERVAL


def cuts_between(start: datetime, end: datetime) -> list[datetime]:
    """Every cut in ``[start, end)``."""
    first = -((_EPOCH - start) // CUT_INTERVAL)
    last = -((_EPOCH - end) // CUT_INTERVAL)
    return [cut_time(number) for number in range(first, last)]


@dataclass(frozen=True, slots=True)
class Grid:
    """A run of consecutive cuts, `first` to `last` inclusive."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def visible(self, start: Ints, end: Ints) -> tuple[Ints, Ints]:
        """Columns ``[low, high)`` of the grid that fall in cuts ``start`` to ``end`` inclusive."""
        low = np.clip(start - self.first, 0, self.size)
        high = np.clip(end + 1 - self.first, 0, self.size)
        return low, np.maximum(high, low)


def running(rows: Ints, low: Ints, high: Ints, values: Ints | int, shape: tuple[int, int]) -> Ints:
    """A (rows, cuts) matrix of the sum of `values` whose ``[low, high)`` covers each cut.

    Each value is added where it appears and taken away where it leaves, then summed along the
    cuts: linear in values and cells however long the windows are. Integers wrap at 64 bits.
    """
    height, width = shape
    change = np.zeros(height * (width + 1), dtype=np.int64)
    np.add.at(change, rows * (width + 1) + low, values)
    np.subtract.at(change, rows * (width + 1) + high, values)
    matrix: Ints = np.cumsum(change.reshape(height, width + 1), axis=1)[:, :width]
    return matrix


#: Cells that `summed` adds at once: bounds its memory at about 100 MB.
_CELLS: Final = 4_000_000


def summed(
    rows: Ints, low: Ints, high: Ints, values: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """As `running`, of floats: each cell adds its values in their order, so that no sum depends on the grid.

    Adding and taking away again would leave rounding behind. Linear in values times the cuts that hold them.
    """
    matrix = np.zeros(shape[0] * shape[1])
    wide = np.maximum(high - low, 0)
    ends = np.cumsum(wide)
    begin = 0
    while begin < rows.size:
        before = int(ends[begin - 1]) if begin else 0
        end = max(int(np.searchsorted(ends, before + _CELLS, side="right")), begin + 1)
        width = wide[begin:end]
        inside = np.arange(int(width.sum())) - np.repeat(ends[begin:end] - width - before, width)
        cells = np.repeat(rows[begin:end] * shape[1] + low[begin:end], width) + inside
        np.add.at(matrix, cells, np.repeat(values[begin:end], width))
        begin = end
    return matrix.reshape(shape)


def distinct(rows: Ints, values: Ints, low: Ints, high: Ints, shape: tuple[int, int]) -> Ints:
    """A (rows, cuts) matrix of how many distinct `values` cover each cut.

    The arguments come sorted by row, value and `low`. Overlapping runs of one value are cut
    to what the earlier ones leave uncovered, so each value adds at most 1 anywhere.
    """
    if not rows.size:
        return np.zeros(shape, dtype=np.int64)
    fresh = np.empty(rows.size, dtype=bool)
    fresh[0] = True
    fresh[1:] = (rows[1:] != rows[:-1]) | (values[1:] != values[:-1])
    group = np.cumsum(fresh) * (shape[1] + 1)  # offsets keep one group's ends below the next's
    covered = np.maximum.accumulate(high + group) - group
    start = low.copy()
    start[1:] = np.where(fresh[1:], low[1:], np.maximum(low[1:], covered[:-1]))
    keep = start < high
    return running(rows[keep], start[keep], high[keep], 1, shape)


#: Where no value covers a cell of `largest`.
NOTHING: Final = int(np.iinfo(np.int64).min)


def largest(rows: Ints, low: Ints, high: Ints, values: Ints, shape: tuple[int, int]) -> Ints:
    """A (rows, cuts) matrix of the largest of `values` whose ``[low, high)`` covers each cut.

    Cells that none covers hold `NOTHING`. Each run is covered by two overlapping blocks of a
    power of two, and blocks are halved down to cells (a sparse table, Bender and Farach-Colton
    2000, filled backwards): linear in values, and in cells times the logarithm of the cuts.
    """
    best = np.full(shape, NOTHING, dtype=np.int64)
    power = np.frexp(high - low)[1] - 1  # of two, the largest that fits; -1 for an empty run
    for level in range(int(power.max(initial=-1)), -1, -1):
        here = np.flatnonzero(power == level)
        np.maximum.at(best, (rows[here], low[here]), values[here])
        np.maximum.at(best, (rows[here], high[here] - (1 << level)), values[here])
        if level:
            half = 1 << level - 1
            best[:, half:] = np.maximum(best[:, half:], best[:, :-half])
    return best


#: Squares are summed in two halves, ``x^2 & LOW`` and ``x^2 >> HALF``, which cannot overflow.
HALF: Final = 31
LOW: Final = (1 << HALF) - 1


def deviation(count: Ints, total: Ints, squares_low: Ints, squares_high: Ints) -> NDArray[np.float64]:
    """Population standard deviation from integer sums; NaN where `count` is 0.

    ``n * sum(x^2) - sum(x)^2`` is exact in wrapping 64-bit integers whenever the result itself
    fits; where it may not, it is taken in floats.
    """
    squares = squares_high * 2.0**HALF + squares_low
    rough = count * squares - total.astype(np.float64) ** 2
    exact = (count * ((squares_high << HALF) + squares_low) - total * total).astype(np.float64)
    variance = np.where(rough < 2.0**61, exact, rough)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviations: NDArray[np.float64] = np.where(
            count > 0, np.sqrt(np.maximum(variance, 0.0)) / count, np.nan
        )
    return deviations
