"""Windows read from packed states: one vectorised pass for any number of rows and entities.

A read at time t sees only what happened before t: the window is ``[t - length, t)``, and a
last use at or after t is replaced by the one before it. So the transaction being scored never
counts itself, and the answer is the same whether or not its own update has arrived.

Counts, sums and sums of squares add up in 64-bit floats from integers below 2**53 and in
the order of the packed state, so a row's figures do not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fraud.entities import ENTITIES, WINDOWS
from fraud.velocity import (
    BASE,
    DISTINCT_LIMIT,
    FIRST,
    HABIT_RETENTION_MS,
    HEADER_WORDS,
    KIND,
    NEWEST,
    PLACE1,
    PLACE2,
    STATE_VERSION,
    TABLES,
    TIME1,
    TIME2,
    VERSION,
    VelocityState,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LENGTHS: Final = np.array([window.milliseconds for window in WINDOWS], dtype=np.int64)
_W: Final = len(WINDOWS)
_TABLES: Final = max(len(entity.tracked) for entity in ENTITIES)
_NEVER: Final = -(1 << 60)
_EMPTY: Final = VelocityState(ENTITIES[0]).pack()
_SLOTS: Final = _W + 1  # the last slot takes what is in no window
#: Novelty looks this far back: counterparties over the longest window, habits over 30 days.
_NOVELTY: Final = np.array(
    [
        [
            int(LENGTHS[-1]) if index < len(entity.counterparties) else HABIT_RETENTION_MS
            for index in range(_TABLES)
        ]
        for entity in ENTITIES
    ],
    dtype=np.int64,
)


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


def _ragged(starts: Ints, sizes: Ints) -> tuple[Ints, Ints]:
    """Row and index of every element of runs that begin at `starts` with `sizes` elements."""
    rows = np.repeat(np.arange(len(sizes)), sizes)
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    return rows, np.arange(total) + np.repeat(starts - ends + sizes, sizes)


def _slots(ages: Ints) -> Ints:
    """The shortest window that holds an event this many milliseconds old, or the last slot."""
    slots = np.searchsorted(LENGTHS, ages, side="left")
    slots[ages <= 0] = _W
    return slots


def _tally(flat: Ints, weights: Floats | None, rows: int) -> Floats:
    """Per row and window the sum over slots up to that window's."""
    counted = np.bincount(flat, weights=weights, minlength=rows * _SLOTS)
    return np.cumsum(counted.reshape(rows, _SLOTS)[:, :_W], axis=1, dtype=np.float64)


def read_windows(
    states: Sequence[bytes | None], places: Ints, at_ms: Ints, requested: Ints, horizon_ms: int
) -> WindowRead:
    """Read every window of `states` at the times `at_ms`.

    `places[row]` is the entity (index in `ENTITIES`), `requested[row, table]` the hash whose
    novelty is asked (0: not asked). A state whose version is more than `horizon_ms` old is
    treated as missing, as Feast's ttl does offline. Bytes that are no state of this
    version are treated as missing too: Feast calls with dummy values when it applies.
    """
    rows = len(states)
    blobs = [state if state and len(state) >= 8 * HEADER_WORDS and not len(state) % 8 else _EMPTY for state in states]
    sizes = np.fromiter(map(len, blobs), dtype=np.int64, count=rows) >> 3
    words = np.frombuffer(b"".join(blobs), dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    header = words[starts[:, None] + np.arange(HEADER_WORDS)]
    kind = header[:, KIND]
    events = kind >> 16 & 0xFFFF
    buckets = kind >> 32 & 0xFFFF
    tables = np.stack([header[:, TABLES] >> 16 * index & 0xFFFF for index in range(_TABLES)], axis=1) // 24
    uses = tables.sum(axis=1)
    sound = (kind & 0xFF == STATE_VERSION) & (kind >> 8 & 0xFF == places)
    sound &= sizes == HEADER_WORDS + 2 * events + 3 * buckets + 3 * uses
    newest, first = header[:, NEWEST], header[:, FIRST]
    present = sound & (newest > _NEVER) & (header[:, VERSION] >= 1000 * (at_ms - horizon_ms))
    events, buckets, uses = events * present, buckets * present, uses * present

    row, at = _ragged(starts + HEADER_WORDS, events)
    at += np.arange(len(at)) - np.repeat(np.cumsum(events) - events, events)  # two words an event
    times = words[at]
    amounts = (words[at + 1] & 0xFFFFFFFF).astype(np.float64)
    ages = at_ms[row] - times
    flat = row * _SLOTS + _slots(ages)
    count = _tally(flat, None, rows)
    total = _tally(flat, amounts, rows)
    squares = _tally(flat, amounts * amounts, rows)
    before = np.full(rows, _NEVER, dtype=np.int64)
    past = ages > 0
    before[row[past]] = times[past]  # events are in time order: the last assignment is the newest
    if buckets.any():
        count, total, squares = _add_buckets(
            words, starts + HEADER_WORDS + 2 * events, buckets, header[:, BASE], at_ms, (count, total, squares)
        )
    distinct, seen = _read_tables(
        words, starts + sizes - 3 * uses, tables * present[:, None], at_ms, places, requested
    )
    last = np.where(newest < at_ms, newest, before)
    known = present & (last > _NEVER)
    earlier = header[:, TIME1] < at_ms
    located = np.where(earlier, header[:, TIME1], np.where(header[:, TIME2] < at_ms, header[:, TIME2], _NEVER))
    return WindowRead(
        present=present,
        count=count,
        total=total,
        squares=squares,
        distinct=distinct,
        seen=seen,
        since_last=np.where(known, (at_ms - last) / 1000.0, np.nan),
        since_first=np.where(present & (first < at_ms), (at_ms - first) / 1000.0, np.nan),
        location=np.where(earlier, header[:, PLACE1], header[:, PLACE2]),
        located_ms=np.where(present & (located > _NEVER), located.astype(np.float64), np.nan),
    )


def _add_buckets(
    words: Ints, starts: Ints, sizes: Ints, bases: Ints, at_ms: Ints, sums: tuple[Floats, Floats, Floats]
) -> tuple[Floats, Floats, Floats]:
    """Add buckets: half where their newest event falls, half where their oldest does."""
    rows = len(sizes)
    row, at = _ragged(starts, sizes)
    at = np.repeat(starts, sizes) + 3 * (at - np.repeat(starts, sizes))
    span = words[at]
    base = bases[row] - at_ms[row]
    flat = np.concatenate(
        [row * _SLOTS + _slots(-(base + (span >> 32))), row * _SLOTS + _slots(-(base + (span & 0xFFFFFFFF)))]
    )
    halves = []
    load = words[at + 1]
    values = (load >> 44, load & (1 << 44) - 1, words.view(np.float64)[at + 2])
    for amounts, exact in zip(values, sums, strict=True):
        value = amounts * 0.5
        halves.append(exact + _tally(flat, np.concatenate([value, value]), rows))
    return halves[0], halves[1], halves[2]


def _read_tables(
    words: Ints, starts: Ints, tables: Ints, at_ms: Ints, places: Ints, requested: Ints
) -> tuple[Floats, Floats]:
    """Distinct values per table and window, and whether the requested value was seen."""
    rows = len(tables)
    uses = tables.sum(axis=1)
    row, at = _ragged(starts, uses)
    within = at - starts[row]
    at = starts[row] + 3 * within
    table = np.zeros(len(at), dtype=np.int64)
    edges = np.cumsum(tables, axis=1)
    for index in range(_TABLES - 1):
        table += within >= edges[row, index]
    now = at_ms[row]
    last = words[at + 1]
    last = np.where(last < now, last, words[at + 2])
    ages = np.where(last < now, now - last, 0)
    flat = (row * _TABLES + table) * _SLOTS + _slots(ages)
    distinct = np.minimum(_tally(flat, None, rows * _TABLES).reshape(rows, _TABLES, _W), DISTINCT_LIMIT)
    match = (words[at] == requested[row, table]) & (ages > 0) & (ages <= _NOVELTY[places[row], table])
    seen = np.zeros((rows, _TABLES))
    seen[row[match], table[match]] = 1.0
    return distinct, seen
