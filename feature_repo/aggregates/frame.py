"""One block of keys as functions of batch views see it: transactions, fraud reports, and when each counts.

Pure numpy. Every matrix is (keys, cuts of the grid); what several figures need is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_repo.aggregates.grid import CUTS_PER_DAY, HALF, LOW, Grid, Ints, running, summed
from fraud.features.entities import CUT_INTERVAL

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_CUT_MS = int(CUT_INTERVAL.total_seconds() * 1000)
#: In place of the cut that knows a report, of an outcome: what counted as spent before it, and after it.
TAKEN: Final = -1
LEFT: Final = -2
#: Numbers below it have squares that sums of integers hold.
_WHOLE = 2.0**31


@dataclass(frozen=True, slots=True)
class Peers:
    """Figures of all transactions and of each merchant category over one window, by cut of the grid."""

    count: Ints
    category: dict[str, tuple[Ints, Ints, Ints, Ints]]


@dataclass(frozen=True, slots=True)
class Request:
    """What to compute: the cuts, how late labels ripen (in cuts) and who the peers are, by window in cuts."""

    grid: Grid
    maturity: int
    peers: Mapping[int, Peers] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns of a shard: transactions, the fraud reports on them (`known`, `until`), what outcomes changed.

    `bucket` is the event's bucket, `seen` the first cut that knows the transaction, `known`
    the first that knows the report and `until` the first that knows the next word on it. By column of the
    event, `numbers` are integers, or floats with NaN for absent, `values` hashes with 0 for absent, and
    `flags` conditions.
    """

    row: Ints
    bucket: Ints
    seen: Ints
    tx: Ints
    known: Ints
    until: Ints
    numbers: dict[str, Ints | Floats]
    values: dict[str, Ints]
    flags: dict[str, Flags]
    direction: tuple[Ints, ...] = ()
    category: pa.Array | None = None

    def take(self, index: Any) -> Rows:
        """The rows at `index`, integers or a mask."""
        places = np.flatnonzero(index) if index.dtype == bool else index
        return Rows(
            self.row[places], self.bucket[places], self.seen[places], self.tx[places], self.known[places],
            self.until[places],
            {name: each[places] for name, each in self.numbers.items()},
            {name: each[places] for name, each in self.values.items()},
            {name: each[places] for name, each in self.flags.items()},
            tuple([one[places] for one in self.direction]),
            None if self.category is None else self.category.take(pa.array(places)),
        )  # fmt: skip

    def moved(self, keys: int) -> Rows:
        """The same with its keys counted from `keys` on."""
        return replace(self, row=self.row - keys)


def cuts_of(window_ms: int) -> int:
    """A window's length in cuts."""
    return window_ms // _CUT_MS


class Frame:
    """The rows of `height` keys, for the functions of one view."""

    def __init__(self, rows: Rows, height: int, request: Request) -> None:
        self.request = request
        self.grid = request.grid
        self.shape = (height, request.grid.size)
        self.moves, self.reports = rows.take(rows.known == 0), rows.take(rows.known > 0)
        self._changes = [
            (rows.take(rows.known == what), sign)
            for what, sign in ((TAKEN, -1), (LEFT, 1))
            if (rows.known == what).any()
        ]
        self._kept: dict[tuple[Any, ...], Any] = {}

    @cached_property
    def start(self) -> Ints:
        """The first cut that counts each transaction."""
        return np.maximum(self.moves.bucket + 1, self.moves.seen)

    @cached_property
    def ripe(self) -> Ints:
        """The first cut at which each transaction's label has ripened."""
        return np.maximum(self.moves.bucket + 1 + self.request.maturity, self.moves.seen)

    @cached_property
    def told(self) -> Ints:
        """The first cut that knows each report."""
        return np.maximum(self.reports.known, self.reports.seen)

    def once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for the block under `key`."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def visible(self, span: int) -> tuple[Ints, Ints]:
        """Columns ``[low, high)`` of the grid whose windows of `span` cuts hold each transaction."""
        found: tuple[Ints, Ints] = self.once(
            ("visible", span), lambda: self.grid.visible(self.start, self.moves.bucket + span)
        )
        return found

    def count(self, span: int) -> Ints:
        """How many transactions."""
        found: Ints = self.once(
            ("count", span), lambda: running(self.moves.row, *self.visible(span), 1, self.shape)
        )
        return found

    def present(self, column: str, span: int) -> Ints:
        """How many transactions have a number in `column`."""
        values = self.moves.numbers[column]
        if values.dtype.kind == "i":
            return self.count(span)
        there = ~np.isnan(values)
        return self.count(span) if there.all() else self._counted(("present", column, span), there, span)

    def holding(self, column: str, span: int) -> Ints:
        """How many transactions fulfil the condition in `column`."""
        return self._counted(("holding", column, span), self.moves.flags[column], span)

    def _counted(self, key: tuple[Any, ...], chosen: Flags, span: int) -> Ints:
        low, high = self.visible(span)
        found: Ints = self.once(
            key, lambda: running(self.moves.row[chosen], low[chosen], high[chosen], 1, self.shape)
        )
        return found

    def sums(self, column: str, span: int) -> tuple[Any, Any, Any]:
        """Sum and sum of squares (in halves where they are whole) of the numbers in `column`."""
        found: tuple[Any, Any, Any] = self.once(("sums", column, span), lambda: self._sums(column, span))
        return found

    def _sums(self, column: str, span: int) -> tuple[Any, Any, Any]:
        low, high = self.visible(span)
        row, found = self.moves.row, self.whole(column)
        if found.dtype.kind == "i":
            values = found.astype(np.int64, copy=False)
            squares = values * values
            total = running(row, low, high, values, self.shape)
            low_squares = running(row, low, high, squares & LOW, self.shape)
            high_squares = running(row, low, high, squares >> HALF, self.shape)
            for changed, sign in self._changes if column == "amount" else ():
                # Counts stay: what was declined was tried. What is spent is another sum.
                amounts = changed.numbers["amount"].astype(np.int64, copy=False)
                of = amounts * amounts
                begin = np.maximum(changed.bucket + 1, changed.seen)
                seen = self.grid.visible(begin, changed.bucket + span)
                total = total + sign * running(changed.row, *seen, amounts, self.shape)
                low_squares = low_squares + sign * running(changed.row, *seen, of & LOW, self.shape)
                high_squares = high_squares + sign * running(changed.row, *seen, of >> HALF, self.shape)
            return total, low_squares, high_squares
        given = found.astype(np.float64, copy=False)
        there = ~np.isnan(given) & (low < high)
        # In the order of transactions, whatever the grid: the same sum to the last bit in any run.
        order = np.flatnonzero(there)[np.argsort(self.moves.tx[there], kind="stable")]
        row, low, high, numbers = row[order], low[order], high[order], given[order]
        return (
            summed(row, low, high, numbers, self.shape),
            summed(row, low, high, numbers * numbers, self.shape),
            None,
        )

    def whole(self, column: str) -> Ints | Floats:
        """The numbers of `column`: as integers if all are whole (absent ones 0), else as floats."""
        found: Ints | Floats = self.once(("whole", column), lambda: _whole(self.moves.numbers[column]))
        return found

    def sorted_values(self, column: str) -> Ints:
        """Transactions that have a value in `column`, by key, value and first cut."""
        values = self.moves.values[column]

        def make() -> Ints:
            order = np.lexsort((self.start, values, self.moves.row)).astype(np.int64)
            present: Ints = order[values[order] != 0]
            return present

        found: Ints = self.once(("sorted", column), make)
        return found

    def frauds(self, span: int) -> Ints:
        """Reports of fraud that became known within the window."""
        reports = self.reports
        found: Ints = self.once(
            ("frauds", span),
            lambda: running(
                reports.row,
                *self.grid.visible(self.told, np.minimum(reports.known - 1 + span, reports.until - 1)),
                1,
                self.shape,
            ),
        )
        return found

    def mature(self, span: int) -> Ints:
        """Transactions of the window before the label maturity."""
        late = self.request.maturity
        found: Ints = self.once(
            ("mature", span),
            lambda: running(
                self.moves.row,
                *self.grid.visible(self.ripe, self.moves.bucket + late + span),
                1,
                self.shape,
            ),
        )
        return found

    def confirmed(self, span: int) -> Ints:
        """Those of `mature` that are known to be fraud."""
        reports, late = self.reports, self.request.maturity
        ripe = np.maximum(reports.bucket + 1 + late, self.told)
        found: Ints = self.once(
            ("confirmed", span),
            lambda: running(
                reports.row,
                *self.grid.visible(ripe, np.minimum(reports.bucket + late + span, reports.until - 1)),
                1,
                self.shape,
            ),
        )
        return found


def _whole(values: Ints | Floats) -> Ints | Floats:
    if values.dtype.kind == "i":
        return values
    there = values[~np.isnan(values)]
    if not (np.abs(there) < _WHOLE).all() or not (there == np.floor(there)).all():
        return values
    whole: Ints = np.nan_to_num(values, nan=0.0).astype(np.int64)
    return whole


def longest_days(window_ms: int) -> int:
    """Whole days that a window reaches back, rounded up."""
    return -(-cuts_of(window_ms) // CUTS_PER_DAY)
