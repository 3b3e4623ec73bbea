"""Windows read from packed states, any number of rows and entities in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import nan

import numpy as np
from numpy.typing import NDArray

from fraud.state.last_seen import NEVER
from fraud.state.layout import LEAST_BYTES
from fraud.state.window_loops import (
    LENGTHS,
    PRESENT,
    TABLE_COUNT,
    Floats,
    Ints,
    new_figures,
    read_state,
    seconds_since,
)
from machine.compiled import compiled


@dataclass(frozen=True, slots=True)
class WindowRead:
    """What states say at the time of each row. Rows are states, columns windows.

    `count`, `total` and `squares` are (rows, windows); `distinct` and `seen` have a table
    axis: `distinct[row, table, window]`, `seen[row, table]` is 1.0 where the row's requested
    value was used before, else 0.0. `since_last` and `since_first` are seconds, `location`
    packed micro-degrees with `located_ms` its time (NaN where unknown). Rows of a missing or
    unreadable state are `present` False and otherwise zero or NaN.
    """

    present: NDArray[np.bool_]
    count: Floats
    total: Floats
    squares: Floats
    distinct: Floats
    seen: Floats
    since_last: Floats
    since_first: Floats
    location: Ints
    located_ms: Floats


def joined(states: Sequence[bytes | None]) -> tuple[Ints, Ints]:
    """The states' words one behind the other, and where each begins, and the last one ends.

    What cannot be a state has no words: nothing, what is too short, what is no whole number of words.
    """
    blobs = [state if state and len(state) >= LEAST_BYTES and not len(state) & 7 else b"" for state in states]
    ends = np.zeros(len(blobs) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, blobs), dtype=np.int64, count=len(blobs)), out=ends[1:])
    ends >>= 3
    # Bytes that may be written: loops are compiled for each kind of array, and those of a request are.
    return np.frombuffer(bytearray().join(blobs), dtype=np.int64), ends


def split(words: Ints, ends: Ints) -> list[bytes | None]:
    """The states that `joined` joined, None for those without words."""
    data, at = words.tobytes(), (8 * ends).tolist()
    return [data[begin:end] or None for begin, end in pairwise(at)]


def read_windows(
    states: Sequence[bytes | None], places: Ints, at_ms: Ints, requested: Ints, horizon_ms: int,
    own: Ints | None = None,
) -> WindowRead:  # fmt: skip
    """Read every window of `states` for transactions of the times `at_ms`, whose identities are `own`.

    `places[row]` is the entity (index in `ENTITIES`), `requested[row, table]` the hash whose
    novelty is asked (0: not asked). A state whose version is more than `horizon_ms` old is
    treated as missing, as Feast's ttl does offline. Bytes that are no state are treated as
    missing too: Feast calls with dummy values when it applies.
    """
    rows, windows = len(states), len(LENGTHS)
    read = WindowRead(
        present=np.zeros(rows, dtype=np.bool_),
        count=np.empty((rows, windows)),
        total=np.empty((rows, windows)),
        squares=np.empty((rows, windows)),
        distinct=np.empty((rows, TABLE_COUNT, windows)),
        seen=np.empty((rows, TABLE_COUNT)),
        since_last=np.empty(rows),
        since_first=np.empty(rows),
        location=np.empty(rows, dtype=np.int64),
        located_ms=np.empty(rows),
    )
    _read_all(
        *joined(states), places, at_ms, np.zeros_like(at_ms) if own is None else own, requested, horizon_ms,
        read.present, read.count, read.total, read.squares, read.distinct, read.seen, read.since_last,
        read.since_first, read.location, read.located_ms,
    )  # fmt: skip
    return read


@compiled
def _read_all(
    words: Ints, ends: Ints, places: Ints, at_ms: Ints, own: Ints, requested: Ints, horizon_ms: int,
    present: NDArray[np.bool_], count: Floats, total: Floats, squares: Floats, distinct: Floats,
    seen: Floats, since_last: Floats, since_first: Floats, location: Ints, located_ms: Floats,
) -> None:  # fmt: skip
    figures = new_figures()
    for row in range(len(places)):
        at = at_ms[row]
        found, last, first, where, located = read_state(
            words, ends[row], ends[row + 1] - ends[row], places[row], at, own[row], requested[row],
            horizon_ms, figures,
        )  # fmt: skip
        present[row] = found == PRESENT
        count[row] = figures.counts
        total[row] = figures.totals
        squares[row] = figures.squares
        distinct[row] = figures.distinct
        seen[row] = figures.seen
        since_last[row] = seconds_since(at, last)
        since_first[row] = seconds_since(at, first)
        location[row] = where
        located_ms[row] = located if located != NEVER else nan
