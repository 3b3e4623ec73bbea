"""What a packed state says at a time, in loops that numba compiles.

A state is read at a transaction's time t, or just after the newest event in it if that is no
earlier than t. The window is ``[at - length, at)``: all that arrived before the transaction counts,
also what carries the same millisecond or a later one, so nobody hides from a window by the time
that he states. An event of the transaction itself is passed over: while it is the newest, the state
is read as it was before, and the transaction never counts itself.

Counts, sums and sums of squares are added exactly, as integers (squares in two halves of 31
bits), and rounded once: so a row's figures do not depend on the order of additions.
"""

from __future__ import annotations

from math import nan
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fraud.features.entities import ENTITIES, NOVELTY_MS, WINDOWS
from fraud.state.buckets import SUM_BITS, SUM_MASK
from fraud.state.last_seen import NEVER, SPAN_MS
from fraud.state.layout import (
    BUCKETS_MASK,
    BUCKETS_SHIFT,
    DISTINCT_LIMIT,
    EVENTS_MASK,
    EVENTS_SHIFT,
    FIRST,
    HABIT_LIMIT,
    HEADER_WORDS,
    KIND,
    LATENESS_MS,
    LEAST_BYTES,
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
from machine.compiled import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LENGTHS: Final = tuple(window.milliseconds for window in WINDOWS)
TABLE_COUNT: Final = max(len(entity.tracked) for entity in ENTITIES)
#: Novelty looks this far back.
NOVELTY: Final = tuple(
    NOVELTY_MS[entity.name] + (0,) * (TABLE_COUNT - len(entity.tracked)) for entity in ENTITIES
)
#: Entries from which on a table may have forgotten some.
TABLE_FULL: Final = tuple(
    tuple(
        DISTINCT_LIMIT if index < len(entity.counterparties) else HABIT_LIMIT for index in range(TABLE_COUNT)
    )
    for entity in ENTITIES
)
LOCATED: Final = tuple(entity.located for entity in ENTITIES)
LEAST_WORDS: Final = LEAST_BYTES // 8
#: What `read_state` found.
ABSENT, PRESENT = range(2)

#: Bits of an entry's words that are not the key's hash or the last use; and those of a hash that are.
_KEY_REST: Final = 16
_KEY_HASH: Final = ~0xFFFF
_HALF_BITS: Final = 31
_HALF: Final = (1 << _HALF_BITS) - 1
_HALF_SCALE: Final = float(1 << _HALF_BITS)


class Figures(NamedTuple):
    """Figures of one state. `counts`, `totals` and `squares` are by window, `distinct` by table and window;
    `seen` is by table: 1.0 where the value asked for was used before, else 0.0. In `sums` and `halves`
    they are added up: by slot (the shortest window) count, sum and both halves of the squares."""

    counts: Floats
    totals: Floats
    squares: Floats
    distinct: Floats
    seen: Floats
    sums: Ints
    halves: Floats


@compiled
def new_figures() -> Figures:
    """Room for the figures of one state, and for what they are added up in."""
    windows = len(LENGTHS)
    return Figures(
        np.empty(windows), np.empty(windows), np.empty(windows), np.empty((TABLE_COUNT, windows)),
        np.empty(TABLE_COUNT), np.empty((windows, 4), np.int64), np.empty((windows, 4)),
    )  # fmt: skip


@compiled
def _slot(age: int) -> int:
    """The shortest window that holds what is so many milliseconds old; none beyond the longest."""
    slot = 0
    while slot < len(LENGTHS) and age > LENGTHS[slot]:
        slot += 1
    return slot


@compiled
def read_state(
    words: Ints, start: int, size: int, place: int, at_ms: int, own: int, asked: Ints, horizon_ms: int,
    into: Figures,
) -> tuple[int, int, int, int, int]:  # fmt: skip
    """What the state in `words[start : start + size]`, the entity at `place`'s, says to the transaction of
    `at_ms` whose identity is `own` (0: none), `into` figures; and whether there is one, its last event's
    time and its first event's, its last location and when that was (NEVER: none).

    `asked[table]` is the hash whose novelty is asked (0: not asked). A state whose version is more
    than `horizon_ms` old is missing, and so are bytes that are no state. `into` is zero then.
    """
    into.counts[:] = 0.0
    into.totals[:] = 0.0
    into.squares[:] = 0.0
    into.distinct[:] = 0.0
    into.seen[:] = 0.0
    kind, begin, events, buckets, uses = _parts(words, start, size, place)
    if events == 0 or words[start + VERSION] < 1000 * (at_ms - horizon_ms):
        return ABSENT, NEVER, NEVER, 0, NEVER

    at_ms = _read_at(words, begin, events, at_ms, own)
    last = _add_events(words, begin, events, at_ms, into.sums)
    into.halves[:] = 0.0
    if buckets:
        _add_buckets(words, begin + 2 * events, buckets, at_ms, into.halves)
    _sum_up(into)
    _read_tables(words, start + size - 2 * uses, kind, place, at_ms, asked, into)

    location, located = 0, NEVER
    if LOCATED[place]:
        if words[start + TIME1] < at_ms:
            location, located = words[start + PLACE1], words[start + TIME1]
        else:
            location, located = words[start + PLACE2], words[start + TIME2]
            if located >= at_ms:
                located = NEVER
    first = words[start + FIRST]
    return PRESENT, last, (first if first < at_ms else NEVER), location, located


@compiled
def counted_at(words: Ints, start: int, size: int, place: int, at_ms: int, own: int) -> int:
    """The time at which the transaction of `at_ms`, whose identity is `own`, counts beside what the state
    in `words[start : start + size]` has counted: its own, or that of the newest event if that is later."""
    _, begin, events, _, _ = _parts(words, start, size, place)
    return max(at_ms, _read_at(words, begin, events, at_ms, own) - 1)


@compiled
def _parts(words: Ints, start: int, size: int, place: int) -> tuple[int, int, int, int, int]:
    """The first word of a state of the entity at `place`, where its events begin, how many they are (0: the
    bytes are no such state), how many buckets and how many entries of tables."""
    if size < LEAST_WORDS:
        return 0, start, 0, 0, 0
    kind = words[start + KIND]
    begin = HEADER_WORDS[place]
    events = kind >> EVENTS_SHIFT & EVENTS_MASK
    buckets = kind >> BUCKETS_SHIFT & BUCKETS_MASK
    uses = 0
    for table in range(TABLE_COUNT):
        uses += kind >> TABLES_SHIFT + TABLE_BITS * table & TABLE_MASK
    if (
        kind & 0xFFFF != STATE_VERSION | place << 8
        or size != begin + 2 * events + 3 * buckets + (1 if buckets else 0) + 2 * uses
    ):
        return 0, start, 0, 0, 0
    return kind, start + begin, events, buckets, uses


@compiled
def _read_at(words: Ints, begin: int, events: int, at_ms: int, own: int) -> int:
    """When to read: at `at_ms`, or just after the newest event of another transaction since then.

    What is more than `LATENESS_MS` ahead is of another time, such as that of a replay, and not waited for.
    """
    for event in range(events - 1, -1, -1):
        time = words[begin + 2 * event]
        if time < at_ms:
            break
        mine = own != 0 and (words[begin + 2 * event + 1] ^ own) >> 32 == 0
        if not mine and time - at_ms <= LATENESS_MS:
            return int(time) + 1
    return at_ms


@compiled
def _add_events(words: Ints, begin: int, events: int, at_ms: int, sums: Ints) -> int:
    """Count, sum and squares in halves, by slot; returns the last event's time before `at_ms`."""
    sums[:] = 0
    last = NEVER
    slot = 0
    for event in range(events - 1, -1, -1):  # they are in order of time
        time = words[begin + 2 * event]
        age = at_ms - time
        if age <= 0:
            continue
        if last == NEVER:
            last = time
        while slot < len(LENGTHS) and age > LENGTHS[slot]:
            slot += 1
        if slot == len(LENGTHS):
            break
        amount = words[begin + 2 * event + 1] & 0xFFFFFFFF
        power = amount * amount
        sums[slot, 0] += 1
        sums[slot, 1] += amount
        sums[slot, 2] += power >> _HALF_BITS
        sums[slot, 3] += power & _HALF
    return last


@compiled
def _add_buckets(words: Ints, at: int, buckets: int, at_ms: int, halves: Floats) -> None:
    """Buckets, by slot: half of each where its newest event falls, half where its oldest does."""
    since_base = at_ms - words[at]
    for bucket in range(buckets):
        place = at + 1 + 3 * bucket
        span, load = words[place], words[place + 1]
        squares = words[place + 2 : place + 3].view(np.float64)[0]
        high = np.floor(squares / _HALF_SCALE)
        low = squares - high * _HALF_SCALE
        for age in (since_base - (span >> 32), since_base - (span & 0xFFFFFFFF)):
            slot = _slot(age)
            if age > 0 and slot < len(LENGTHS):
                halves[slot, 0] += (load >> SUM_BITS) * 0.5
                halves[slot, 1] += (load & SUM_MASK) * 0.5
                halves[slot, 2] += high * 0.5
                halves[slot, 3] += low * 0.5


@compiled
def _sum_up(into: Figures) -> None:
    """A window holds what the shorter ones hold, and its own slot."""
    sums, halves = into.sums, into.halves
    for window in range(len(LENGTHS)):
        if window:
            for figure in range(4):
                sums[window, figure] += sums[window - 1, figure]
                halves[window, figure] += halves[window - 1, figure]
        into.counts[window] = sums[window, 0] + halves[window, 0]
        into.totals[window] = sums[window, 1] + halves[window, 1]
        high, low = sums[window, 2] + halves[window, 2], sums[window, 3] + halves[window, 3]
        into.squares[window] = high * _HALF_SCALE + low


@compiled
def _read_tables(words: Ints, at: int, kind: int, place: int, at_ms: int, asked: Ints, into: Figures) -> None:
    """Distinct values per table and window, and whether the value asked for was seen."""
    for table in range(TABLE_COUNT):
        distinct = into.distinct[table]
        for _ in range(kind >> TABLES_SHIFT + TABLE_BITS * table & TABLE_MASK):
            key, use = words[at], words[at + 1]
            at += 2
            last = use >> _KEY_REST
            age = at_ms - last
            if age <= 0:  # the use before the last one (`fraud.state.last_seen`)
                apart = (last - ((key >> 48 & 0xFFFF) | (use & 0xFFFF) << 16)) & SPAN_MS - 1
                age = at_ms - (last - apart if apart else NEVER)
            if age > 0:
                slot = _slot(age)
                if slot < len(LENGTHS):
                    distinct[slot] += 1.0
                if key << _KEY_REST == asked[table] & _KEY_HASH and age <= NOVELTY[place][table]:
                    into.seen[table] = 1.0
        for window in range(len(LENGTHS)):
            if window:
                distinct[window] += distinct[window - 1]
        for window in range(len(LENGTHS)):
            distinct[window] = min(distinct[window], DISTINCT_LIMIT)


@compiled
def used_within(
    words: Ints, start: int, size: int, place: int, table: int, wanted: int, at_ms: int, own: int,
    window: int,
) -> int:  # fmt: skip
    """Whether a table of the state in `words[start : start + size]`, the entity at `place`'s, says to the
    transaction of `at_ms`, whose identity is `own`, that the value with the hash `wanted` was used in the
    window: 1, 0, or -1 if it cannot know (no state, or a table that holds no more).
    """
    kind, begin, events, _, _ = _parts(words, start, size, place)
    if events == 0:
        return -1
    at_ms = _read_at(words, begin, events, at_ms, own)
    uses = 0
    for other in range(table, TABLE_COUNT):
        uses += kind >> TABLES_SHIFT + TABLE_BITS * other & TABLE_MASK
    if 2 * uses > size - LEAST_WORDS:  # whoever writes to Redis may say so, and what lies before is not ours
        return -1
    at = start + size - 2 * uses
    entries = kind >> TABLES_SHIFT + TABLE_BITS * table & TABLE_MASK
    for _ in range(entries):
        key, use = words[at], words[at + 1]
        at += 2
        if key << _KEY_REST == wanted & _KEY_HASH:
            last = use >> _KEY_REST
            age = at_ms - last
            if age <= 0:  # the use before the last one (`fraud.state.last_seen`)
                apart = (last - ((key >> 48 & 0xFFFF) | (use & 0xFFFF) << 16)) & SPAN_MS - 1
                age = at_ms - (last - apart if apart else NEVER)
            return 1 if 0 < age <= window else 0
    return -1 if entries >= TABLE_FULL[place][table] else 0


@compiled
def table_is_full(words: Ints, start: int, place: int, table: int) -> bool:
    """Whether a table of a state holds no more: what it lacks may then have been used all the same."""
    kind = words[start + KIND]
    return bool(kind >> TABLES_SHIFT + TABLE_BITS * table & TABLE_MASK >= TABLE_FULL[place][table])


@compiled
def seconds_since(at_ms: int, time: int) -> float:
    """Seconds from `time` to `at_ms`, 0 for what is no earlier; NaN for never."""
    return max(at_ms - time, 0) / 1000.0 if time > NEVER else nan
