"""Windows read from packed states: one vectorised pass for any number of rows and entities.

A read at time t sees only what happened before t: the window is ``[t - length, t)``, and a
last use at or after t is replaced by the one before it. So the transaction being scored never
counts itself, and the answer is the same whether or not its own update has arrived.

Counts, sums and sums of squares are added exactly, as integers (squares in two halves of 31
bits), and rounded once: so a row's figures depend neither on the rows beside it nor on the
order of additions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fraud.buckets import SUM_BITS, SUM_MASK
from fraud.entities import ENTITIES, WINDOWS
from fraud.last_seen import NEVER, SPAN_MS
from fraud.state_layout import (
    BUCKETS_MASK,
    BUCKETS_SHIFT,
    DISTINCT_LIMIT,
    EVENTS_MASK,
    EVENTS_SHIFT,
    FIRST,
    HABIT_RETENTION_MS,
    HEADER_WORDS,
    KIND,
    LEAST_BYTES,
    OLD_VERSION,
    PLACE1,
    PLACE2,
    STATE_VERSION,
    TABLE_BITS,
    TABLE_MASK,
    TABLES_SHIFT,
    TIME1,
    TIME2,
    VERSION,
)
from fraud.state_upgrade import readable
from fraud.velocity import VelocityState

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LENGTHS: Final = np.array([window.milliseconds for window in WINDOWS], dtype=np.int64)
_W: Final = len(WINDOWS)
_SLOTS: Final = _W + 1  # the last slot takes what is in no window
TABLE_COUNT: Final = max(len(entity.tracked) for entity in ENTITIES)
_EMPTY: Final = VelocityState(ENTITIES[0]).pack()
_HEADER_WORDS: Final = np.array(HEADER_WORDS, dtype=np.int64)
_HEADER: Final = np.arange(max(HEADER_WORDS))
_LOCATED: Final = _HEADER_WORDS > TIME1
#: So that as many words as the longest header has can be read where the last state begins.
_PADDING: Final = bytes(8 * max(HEADER_WORDS))
_TABLE_SHIFTS: Final = TABLES_SHIFT + TABLE_BITS * np.arange(TABLE_COUNT)
#: Bits of an entry's words that are not the key's hash or the last use; and those of a hash that are.
_KEY_REST: Final = 16
_KEY_HASH: Final = ~0xFFFF
_HALF_BITS: Final = 31
_HALF: Final = (1 << _HALF_BITS) - 1
_HALF_SCALE: Final = float(1 << _HALF_BITS)
#: Sort key of an event: its row in the high bits, less its age, which is kept within a row.
_ROW_BITS: Final = 44
_OLDEST_AGE: Final = 1 << 42
#: Edges of all windows as ages, longest first, then the read itself.
_EDGES: Final = np.array([*LENGTHS[::-1], 0])
#: Novelty looks this far back: counterparties over the longest window, habits over 30 days.
NOVELTY: Final = tuple(
    tuple(
        int(LENGTHS[-1]) if index < len(entity.counterparties) else HABIT_RETENTION_MS
        for index in range(TABLE_COUNT)
    )
    for entity in ENTITIES
)
_NOVELTY: Final = np.array(NOVELTY, dtype=np.int64)


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


def read_windows(
    states: Sequence[bytes | None], places: Ints, at_ms: Ints, requested: Ints, horizon_ms: int
) -> WindowRead:
    """Read every window of `states` at the times `at_ms`.

    `places[row]` is the entity (index in `ENTITIES`), `requested[row, table]` the hash whose
    novelty is asked (0: not asked). A state whose version is more than `horizon_ms` old is
    treated as missing, as Feast's ttl does offline. Bytes that are no state are treated as
    missing too: Feast calls with dummy values when it applies. States of version 2 are read,
    at the price of a second pass.
    """
    rows = len(states)
    blobs = [
        state if state and len(state) >= LEAST_BYTES and not len(state) & 7 else _EMPTY for state in states
    ]
    blobs.append(_PADDING)
    sizes = np.fromiter(map(len, blobs), dtype=np.int64, count=rows) >> 3
    words = np.frombuffer(b"".join(blobs), dtype=np.int64)
    starts = sizes.cumsum() - sizes
    header = words[starts[:, None] + _HEADER]
    kind = header[:, KIND]
    events = kind >> EVENTS_SHIFT & EVENTS_MASK
    buckets = kind >> BUCKETS_SHIFT & BUCKETS_MASK
    tables = kind[:, None] >> _TABLE_SHIFTS & TABLE_MASK
    uses = 2 * tables.sum(axis=1)
    begin = _HEADER_WORDS[places]
    present = (kind & 0xFFFF == STATE_VERSION | places << 8) & (events > 0)
    present &= sizes == begin + 2 * events + 3 * buckets + (buckets > 0) + uses
    present &= header[:, VERSION] >= 1000 * (at_ms - horizon_ms)
    if not present.all():
        old = np.flatnonzero(kind & 0xFF == OLD_VERSION)
        if len(old):
            renewed = list(states)
            for row in old:
                renewed[row] = readable(int(places[row]), blobs[row])
            return read_windows(renewed, places, at_ms, requested, horizon_ms)
        events, buckets, tables = events * present, buckets * present, tables * present[:, None]
        uses *= present

    begin += starts
    count, total, squares, last = _read_events(words, begin, events, at_ms)
    if buckets.any():
        base_at = begin + 2 * events
        _add_buckets(words, base_at + 1, buckets, words[base_at], at_ms, (count, total, squares))
    distinct, seen = _read_tables(words, starts + sizes - uses, tables, at_ms, places, requested)
    first = header[:, FIRST]
    earlier = header[:, TIME1] < at_ms
    located = np.where(earlier, header[:, TIME1], header[:, TIME2])
    known = present & _LOCATED[places] & (located > NEVER) & (located < at_ms)
    return WindowRead(
        present=present,
        count=count,
        total=total,
        squares=squares[0] * _HALF_SCALE + squares[1],
        distinct=distinct,
        seen=seen,
        since_last=np.where(last > NEVER, (at_ms - last) / 1000.0, np.nan),
        since_first=np.where(present & (first < at_ms), (at_ms - first) / 1000.0, np.nan),
        location=np.where(earlier, header[:, PLACE1], header[:, PLACE2]),
        located_ms=np.where(known, located.astype(np.float64), np.nan),
    )


def _ragged(starts: Ints, sizes: Ints, step: int) -> tuple[Ints, Ints]:
    """Run and index of every element of runs at `starts` of `sizes` elements `step` apart."""
    # Methods here and below: numpy's functions of the same names wrap them, and a batch pays per call.
    ends = sizes.cumsum()
    runs = np.arange(len(sizes)).repeat(sizes)
    at = np.arange(0, step * len(runs), step)
    at += (starts - step * (ends - sizes)).repeat(sizes)
    return runs, at


def _read_events(
    words: Ints, starts: Ints, sizes: Ints, at_ms: Ints
) -> tuple[Floats, Floats, tuple[Floats, Floats], Ints]:
    """Counts, sums, squares in halves, and the last event's time, from the exact parts."""
    rows = np.arange(len(sizes))
    row, at = _ragged(starts, sizes, 2)
    times = words[at]
    amounts = words[at + 1] & 0xFFFFFFFF
    ages = np.minimum(np.maximum(at_ms[row] - times, -_OLDEST_AGE), _OLDEST_AGE)
    edges = ((row << _ROW_BITS) - ages).searchsorted((rows << _ROW_BITS)[:, None] - _EDGES)
    ends = edges[:, -1]
    sums = np.zeros((3, len(at) + 1), dtype=np.int64)
    amounts.cumsum(out=sums[0, 1:])
    powers = amounts * amounts
    (powers >> _HALF_BITS).cumsum(out=sums[1, 1:])
    (powers & _HALF).cumsum(out=sums[2, 1:])
    within = (sums[:, ends, None] - sums[:, edges[:, -2::-1]]).astype(np.float64)
    before = ends - 1
    some = before >= sizes.cumsum() - sizes
    last = np.full(len(sizes), NEVER)
    last[some] = times[before[some]]
    return (ends[:, None] - edges[:, -2::-1]).astype(np.float64), within[0], (within[1], within[2]), last


def _slots(ages: Ints) -> Ints:
    """The shortest window that holds an event this many milliseconds old, or the last slot."""
    slots = LENGTHS.searchsorted(ages)
    slots[ages <= 0] = _W
    return slots


def _tally(flat: Ints, weights: Floats | None, rows: int) -> Floats:
    """Per row and window the sum over slots up to that window's."""
    counted = np.bincount(flat, weights=weights, minlength=rows * _SLOTS)
    return counted.reshape(rows, _SLOTS)[:, :_W].cumsum(axis=1, dtype=np.float64)


def bucket_sums(packed: memoryview, at_ms: int) -> tuple[list[int], list[int], list[int]]:
    """Twice the counts, sums and sums of squares that one state's buckets add to each window."""
    sums = tuple(np.zeros((1, _W)) for _ in range(4))
    counts, totals, high, low = sums
    words = np.frombuffer(packed, dtype=np.int64)
    size, at = np.array([len(words) // 3]), np.array([at_ms])
    _add_buckets(words, np.ones(1, dtype=np.int64), size, words[:1], at, (counts, totals, (high, low)))
    with np.errstate(invalid="ignore", over="ignore"):
        twice = [(2 * values[0]).astype(np.int64).tolist() for values in sums]
    squares = [(first << _HALF_BITS) + second for first, second in zip(twice[2], twice[3], strict=True)]
    return twice[0], twice[1], squares


def _add_buckets(
    words: Ints, starts: Ints, sizes: Ints, bases: Ints, at_ms: Ints,
    sums: tuple[Floats, Floats, tuple[Floats, Floats]],
) -> None:  # fmt: skip
    """Add buckets: half where their newest event falls, half where their oldest does."""
    rows = len(sizes)
    row, at = _ragged(starts, sizes, 3)
    span = words[at]
    age = (at_ms - bases)[row]
    flat = np.concatenate([_slots(age - (span >> 32)), _slots(age - (span & 0xFFFFFFFF))])
    flat += np.concatenate([row, row]) * _SLOTS
    load, squares = words[at + 1], words.view(np.float64)[at + 2]
    with np.errstate(invalid="ignore", over="ignore"):  # damaged bytes may hold any double
        high = np.floor(squares / _HALF_SCALE)
        values = (load >> SUM_BITS, load & SUM_MASK, high, squares - high * _HALF_SCALE)
        for value, exact in zip(values, (sums[0], sums[1], *sums[2]), strict=True):
            half = value * 0.5
            exact += _tally(flat, np.concatenate([half, half]), rows)


def _read_tables(
    words: Ints, starts: Ints, tables: Ints, at_ms: Ints, places: Ints, requested: Ints
) -> tuple[Floats, Floats]:
    """Distinct values per table and window, and whether the requested value was seen."""
    rows = len(tables)
    begins = tables.cumsum(axis=1)
    begins -= tables
    table, at = _ragged((starts[:, None] + 2 * begins).ravel(), tables.ravel(), 2)
    now = at_ms.repeat(TABLE_COUNT)[table]
    keys = words[at]
    at += 1
    uses = words[at]
    ages = now - (uses >> _KEY_REST)
    unseen = ages <= 0
    if unseen.any():
        ages[unseen] = now[unseen] - _before(keys[unseen], uses[unseen])
    distinct = _tally(table * _SLOTS + _slots(ages), None, rows * TABLE_COUNT)
    keys <<= _KEY_REST
    match = keys == (requested & _KEY_HASH).ravel()[table]
    match &= (ages > 0) & (ages <= _NOVELTY[places].ravel()[table])
    seen = np.zeros(rows * TABLE_COUNT)
    seen[table[match]] = 1.0
    distinct = np.minimum(distinct, DISTINCT_LIMIT).reshape(rows, TABLE_COUNT, _W)
    return distinct, seen.reshape(rows, TABLE_COUNT)


def _before(keys: Ints, uses: Ints) -> Ints:
    """The use before the last one, of entries in two words (`fraud.last_seen`)."""
    last = uses >> _KEY_REST
    apart = (last - ((keys >> 48 & 0xFFFF) | (uses & 0xFFFF) << 16)) & SPAN_MS - 1
    return np.where(apart > 0, last - apart, NEVER)
