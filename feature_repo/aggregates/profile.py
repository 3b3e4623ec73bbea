"""One shard of one batch view: its transactions and fraud reports in, rows at every cut out.

Runs in Spark's Python workers on Arrow tables; pure numpy, no Spark, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_repo.aggregates.frame import Floats, Frame, Request, Rows, cuts_of
from feature_repo.aggregates.functions import FUNCTIONS
from feature_repo.aggregates.grid import Ints
from fraud.declared.figures import BatchView

#: Keys times cuts computed at once: bounds a worker's memory at a few hundred MB.
CELLS: Final = 1_000_000
#: Functions of a number, of anything with an identity and of a condition: what they look at is carried to the
#: workers. (All others have no column, or one of everybody's.)
OF_NUMBERS: Final = frozenset({"sum", "mean", "std", "min", "max"})
OF_VALUES: Final = frozenset({"count_distinct"})
OF_CONDITIONS: Final = frozenset({"count_if"})
#: Functions that look at what became of transactions, at where they were, and at everybody's.
OF_REPORTS: Final = frozenset(
    {"fraud_count", "fraud_rate", "fraud_risk", "days_genuine_minus_fraud", "days_since_first_fraud"}
)
OF_PLACES: Final = frozenset({"usual_latitude", "usual_longitude"})
OF_CATEGORIES: Final = frozenset({"category_share", "category_mean", "category_std"})
OF_PEERS: Final = OF_CATEGORIES | {"share"}
_RATES: Final = frozenset({"fraud_rate", "fraud_risk"})


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of an event that a view looks at, in the order in which rows carry them."""

    numbers: tuple[str, ...]
    values: tuple[str, ...]
    flags: tuple[str, ...]


def columns_of(view: BatchView) -> Columns:
    """What rows of `view` carry; `amount` is carried in any case."""

    def used(functions: frozenset[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys([each.column for each in view.figures if each.function in functions]))

    numbers = tuple([name for name in used(OF_NUMBERS) if name != "amount"])
    return Columns(numbers, used(OF_VALUES), used(OF_CONDITIONS))


def asks(view: BatchView, functions: frozenset[str]) -> bool:
    """Whether one of the view's figures is one of these functions."""
    return any(each.function in functions for each in view.figures)


def profiles(
    view: BatchView, table: pa.Table, request: Request
) -> Iterator[tuple[pa.Array, NDArray[np.bool_], dict[str, Floats]]]:
    """For blocks of keys in order: the keys, who has a row at which cut, and every feature.

    The mask and each feature are (keys, cuts). A key has a row at a cut if anything of it lies
    in any window of that cut. Features without a value are NaN.
    """
    keys, rows = _columns(view, table)
    step = max(1, CELLS // request.grid.size)
    order = np.argsort(rows.row, kind="stable")
    edges = np.searchsorted(rows.row[order], np.arange(0, len(keys) + step, step))
    for place, (low, high) in enumerate(pairwise(edges)):
        names = keys.slice(place * step, step)
        if len(names):
            block = rows.take(order[low:high]).moved(place * step)
            yield names, *_block(view, Frame(block, len(names), request))


def _columns(view: BatchView, table: pa.Table) -> tuple[pa.Array, Rows]:
    """The shard's keys in order, and its rows without repeats of a transaction."""
    key = table.column("key").combine_chunks().cast(pa.string())
    keys = pc.unique(key).sort()
    used = columns_of(view)
    numbers: dict[str, Ints | Floats] = {"amount": _ints(table.column("amount"))}
    for place, name in enumerate(used.numbers):
        found = table.column(f"number{place}").cast(pa.float64()).fill_null(float("nan"))
        numbers[name] = found.to_numpy()
    rows = Rows(
        row=_ints(pc.index_in(key, keys)),
        bucket=_ints(table.column("bucket")),
        seen=_ints(table.column("seen")),
        tx=_ints(table.column("tx")),
        known=_ints(table.column("known")),
        until=_ints(table.column("until")),
        numbers=numbers,
        values={name: _ints(table.column(f"value{place}")) for place, name in enumerate(used.values)},
        flags={
            name: table.column(f"flag{place}").fill_null(False).to_numpy()
            for place, name in enumerate(used.flags)
        },
        direction=tuple([_ints(table.column(name)) for name in "xyz"]) if asks(view, OF_PLACES) else (),
        category=table.column("category").combine_chunks() if asks(view, OF_CATEGORIES) else None,
    )
    # A transaction delivered twice counts once, from when it was first known.
    order = np.lexsort((rows.until, rows.known, rows.seen, rows.tx))
    tx, known = rows.tx[order], rows.known[order]
    fresh = np.ones(order.size, dtype=bool)
    fresh[1:] = (tx[1:] != tx[:-1]) | (known[1:] != known[:-1])
    return keys, rows.take(order[fresh])


def _ints(column: pa.Array | pa.ChunkedArray) -> Ints:
    """A numeric column as int64, nulls as 0."""
    values: Ints = (
        column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        if isinstance(column, pa.Array)
        else column.cast(pa.int64()).fill_null(0).to_numpy()
    )
    return values


def _block(view: BatchView, frame: Frame) -> tuple[NDArray[np.bool_], dict[str, Floats]]:
    active = np.zeros(frame.shape, dtype=bool)
    features: dict[str, Floats] = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for figure in view.figures:
            span = cuts_of(figure.window_ms)
            features[figure.name] = FUNCTIONS[figure.function](frame, figure)
            active |= frame.count(span) > 0
            if figure.function == "fraud_count":
                active |= frame.frauds(span) > 0
            elif figure.function in _RATES:
                active |= frame.mature(span) > 0
    return active, features
