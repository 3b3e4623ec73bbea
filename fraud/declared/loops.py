"""Declared aggregates read from packed states: one interpreter over a table of operations.

Nothing is compiled for a declaration: the loops below read `Layout.operations`. A read at time t sees what
happened before t, as standard windows do (`fraud.state.window_loops`).
"""

from __future__ import annotations

from math import nan, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fraud.declared.layout import (
    COUNT,
    COUNT_IF,
    COUNT_MASKS,
    COUNTS,
    DISTANCE,
    DISTINCT_OF,
    EVENTS_BITS,
    FIRST,
    FIXED_WORDS,
    KIND,
    LAST,
    MAX,
    MEAN,
    MIN,
    MOST_ENTRIES,
    NEW,
    SINCE,
    SINCE_FIRST,
    SINCE_LAST,
    SPEED,
    STAIR_WORDS,
    STD,
    SUM,
    VERSION,
    ZSCORE,
)
from fraud.declared.sketch_loops import distinct_within, sketch_words
from fraud.state.last_seen import NEVER, SPAN_MS
from fraud.state.places import great_circle_km
from machine.compiled import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_KEY_REST: Final = 16
_KEY_HASH: Final = ~0xFFFF


@compiled
def read_states(
    words: Ints, ends: Ints, shape: Ints, operations: Ints, at_ms: Ints, horizon_ms: int, hashes: Ints,
    asked: Floats, matrix: Floats,
) -> None:  # fmt: skip
    """Every aggregate of every row into `matrix`: (rows, operations).

    Row r's state is `words[ends[r] : ends[r + 1]]`, read at `at_ms[r]`; `hashes` (by table) and `asked`
    (by value) are what the transaction itself has in these columns (0 and NaN: nothing).
    A state that is missing, of another layout or whose version is more than `horizon_ms` old gives NaN, and
    so does a window that reaches back before the time from which the state knows every event.
    """
    reals = words.view(np.float64)
    for row in range(len(at_ms)):
        start, size = ends[row], ends[row + 1] - ends[row]
        out = matrix[row]
        out[:] = nan
        if size < shape[0] or words[start + KIND] != shape[8]:
            continue
        if words[start + VERSION] < 1000 * (at_ms[row] - horizon_ms):
            continue
        _read_state(words, reals, start, size, shape, operations, at_ms[row], hashes[row], asked[row], out)


@compiled
def _read_state(
    words: Ints, reals: Floats, start: int, size: int, shape: Ints, operations: Ints, at: int, hashes: Ints,
    asked: Floats, out: Floats,
) -> None:  # fmt: skip
    header, event_words, bucket_words, flags, _, stairs, tables, highs = shape[:8]
    counts = words[start + COUNTS]
    events = counts & COUNT_MASKS[0]
    buckets = counts >> EVENTS_BITS & COUNT_MASKS[1]
    first_event = start + header
    first_bucket = first_event + events * event_words
    parts = first_bucket + buckets * bucket_words
    lengths = np.zeros(stairs + 2 * tables, dtype=np.int64)
    begins = np.zeros(stairs + 2 * tables, dtype=np.int64)
    end = parts
    for part in range(stairs + 2 * tables):
        lengths[part] = words[start + FIXED_WORDS + part // 8] >> 8 * (part % 8) & 0xFF
        begins[part] = end
        if part < stairs:
            end += lengths[part] * STAIR_WORDS
        elif part < stairs + tables:
            end += lengths[part] * 2
        elif end < start + size:
            end += sketch_words(words, end, lengths[part])
    if end != start + size:
        return
    for number in range(len(operations)):
        code, window, column, nth = operations[number]
        if at - window < words[start + SINCE]:
            continue
        if code == COUNT:
            out[number] = _count(words, reals, first_event, events, event_words, first_bucket, buckets,
                                 bucket_words, at, window, -1)  # fmt: skip
        elif code == COUNT_IF:
            out[number] = _count(words, reals, first_event, events, event_words, first_bucket, buckets,
                                 bucket_words, at, window, column)  # fmt: skip
        elif code in (SUM, MEAN, STD, ZSCORE):
            known, total, squares = _moments(
                words, reals, first_event, events, event_words, first_bucket, buckets, bucket_words,
                at, window, column, flags,
            )  # fmt: skip
            if code == SUM:
                out[number] = total
            elif known > 0:
                mean = total / known
                variance = squares / known - mean * mean
                deviation = sqrt(variance) if variance > 0 else 0.0
                if code == MEAN:
                    out[number] = mean
                elif code == STD:
                    out[number] = deviation
                elif deviation > 0:
                    out[number] = (asked[column] - mean) / deviation
        elif code in (MAX, MIN):
            out[number] = _extreme(
                words, reals, first_event, events, event_words, nth, begins[column], lengths[column], at,
                window, 1.0 if column < highs else -1.0,
            )  # fmt: skip
        elif code == LAST:
            out[number] = _last(words, reals, first_event, events, event_words, at, window, column, nth)
        elif code == DISTINCT_OF:
            part = stairs + column
            out[number] = _uses(words, begins[part], lengths[part], at, window, 0)
            sketch, groups = begins[part + tables], lengths[part + tables]
            if groups and words[sketch + groups] >= at - window:  # the table had no room for some of them
                about = distinct_within(words, begins[part], lengths[part], sketch, groups, at, window)
                out[number] = max(out[number], np.rint(about))
        elif code == NEW:
            part = stairs + column
            if hashes[column] != 0:
                found = _uses(words, begins[part], lengths[part], at, window, hashes[column])
                if found > 0:
                    out[number] = 0.0
                elif not _is_full(words, begins[part], lengths[part], at, window):
                    out[number] = 1.0
        elif code == SINCE_LAST:
            last = NEVER
            for event in range(events - 1, -1, -1):
                time = words[first_event + event * event_words]
                if time < at:
                    last = time
                    break
            if last != NEVER and at - last <= window:
                out[number] = (at - last) / 1000.0
        elif code in (DISTANCE, SPEED):
            away, apart = _away(
                words, reals, first_event, events, event_words, at, window, column, nth, asked
            )  # fmt: skip
            out[number] = away if code == DISTANCE else away / (apart / 3_600_000.0)
        elif code == SINCE_FIRST:
            first = words[start + FIRST]
            if NEVER < first < at:
                out[number] = min(at - first, window) / 1000.0


@compiled
def _count(
    words: Ints, reals: Floats, first: int, events: int, event_words: int, first_bucket: int, buckets: int,
    bucket_words: int, at: int, window: int, flag: int,
) -> float:  # fmt: skip
    """Events of the window, or those with a flag; a bucket counts half at its newest, half at its oldest."""
    found = 0.0
    for event in range(events - 1, -1, -1):
        place = first + event * event_words
        age = at - words[place]
        if age > window:
            break
        if age > 0 and (flag < 0 or words[place + 1] >> flag & 1):
            found += 1.0
    for bucket in range(buckets - 1, -1, -1):
        place = first_bucket + bucket * bucket_words
        if at - words[place + 1] > window:  # they are in order of their newest
            break
        share = _share(words[place], words[place + 1], at, window)
        if share > 0:
            found += share * reals[place + 2 + (0 if flag < 0 else 1 + flag)]
    return found


@compiled
def _share(oldest: int, newest: int, at: int, window: int) -> float:
    share = 0.0
    if 0 < at - newest <= window:
        share += 0.5
    if 0 < at - oldest <= window:
        share += 0.5
    return share


@compiled
def _moments(
    words: Ints, reals: Floats, first: int, events: int, event_words: int, first_bucket: int, buckets: int,
    bucket_words: int, at: int, window: int, column: int, flags: int,
) -> tuple[float, float, float]:  # fmt: skip
    """How many values of a column the window has, their sum and their sum of squares."""
    known = total = squares = 0.0
    for event in range(events - 1, -1, -1):
        place = first + event * event_words
        age = at - words[place]
        if age > window:
            break
        value = reals[place + 2 + column]
        if age > 0 and value == value:
            known += 1.0
            total += value
            squares += value * value
    for bucket in range(buckets - 1, -1, -1):
        place = first_bucket + bucket * bucket_words
        if at - words[place + 1] > window:  # they are in order of their newest
            break
        share = _share(words[place], words[place + 1], at, window)
        if share > 0:
            load = place + 3 + flags + 3 * column
            known += share * reals[load]
            total += share * reals[load + 1]
            squares += share * reals[load + 2]
    return known, total, squares


@compiled
def _extreme(
    words: Ints, reals: Floats, first: int, events: int, event_words: int, column: int, begin: int,
    steps: int, at: int, window: int, sign: float,
) -> float:  # fmt: skip
    """The largest (`sign` 1) or smallest (-1) value of the window: among the exact events, and the first step
    that is still inside (steps are ordered by time, the most extreme first)."""
    best = nan
    for event in range(events - 1, -1, -1):
        place = first + event * event_words
        age = at - words[place]
        if age > window:
            break
        value = reals[place + 2 + column]
        if age > 0 and value == value and not sign * best >= sign * value:
            best = value
    for step in range(steps):
        place = begin + step * STAIR_WORDS
        age = at - words[place]
        if age <= 0:
            break
        if age <= window:
            value = reals[place + 1]
            return float(best if sign * best >= sign * value else value)
    return float(best)


@compiled
def _last(
    words: Ints, reals: Floats, first: int, events: int, event_words: int, at: int, window: int, column: int,
    nth: int,
) -> float:  # fmt: skip
    for event in range(events - 1, -1, -1):
        place = first + event * event_words
        age = at - words[place]
        if age > window:
            break
        value = reals[place + 2 + column]
        if age > 0 and value == value:
            nth -= 1
            if nth == 0:
                return float(value)
    return nan


@compiled
def _away(
    words: Ints, reals: Floats, first: int, events: int, event_words: int, at: int, window: int,
    latitude: int, longitude: int, asked: Floats,
) -> tuple[float, int]:  # fmt: skip
    """How far the transaction is from the newest event of the window that says where it was (kilometres, NaN
    for none), and how long ago that was (milliseconds)."""
    for event in range(events - 1, -1, -1):
        place = first + event * event_words
        age = at - words[place]
        if age > window:
            break
        north, east = reals[place + 2 + latitude], reals[place + 2 + longitude]
        if age > 0 and north == north and east == east:
            return great_circle_km(north, east, asked[latitude], asked[longitude]), age
    return nan, 1


@compiled
def _uses(words: Ints, begin: int, entries: int, at: int, window: int, wanted: int) -> float:
    """Different values used in the window, or, with a hash `wanted`, whether that one was (1.0)."""
    found = 0.0
    for entry in range(entries):
        key, use = words[begin + 2 * entry], words[begin + 2 * entry + 1]
        if wanted != 0 and key << _KEY_REST != wanted & _KEY_HASH:
            continue
        last = use >> _KEY_REST
        age = at - last
        if age <= 0:  # the use before the last one
            apart = (last - ((key >> 48 & 0xFFFF) | (use & 0xFFFF) << 16)) & SPAN_MS - 1
            age = at - (last - apart) if apart else 0
        if 0 < age <= window:
            found += 1.0
    return found


@compiled
def _is_full(words: Ints, begin: int, entries: int, at: int, window: int) -> bool:
    """Whether a table may have dropped values that were used in the window: all that it holds were."""
    return bool(entries >= MOST_ENTRIES and at - (words[begin + 1] >> _KEY_REST) <= window)


@compiled
def merged_buckets(packed: Ints, flags: int, moments: int, newer: Floats, slack: float) -> Ints:
    """Neighbours of `packed` buckets (oldest first) merged while each stays small beside all that is newer.

    `newer` is what every reader counts before any bucket: count, flags, and count and sum of each moment.
    The idea of exponential and smooth histograms, as in `fraud.state.buckets`, for any number of measures.
    """
    count = len(packed)
    width = packed.shape[1]
    out = np.empty_like(packed)
    reals, results = packed.view(np.float64), out.view(np.float64)
    ahead = newer.copy()
    measures = len(newer)
    load = np.zeros(measures)
    kept = count
    border = 1 << 62
    for bucket in range(count - 1, -1, -1):
        row = reals[bucket]
        load[0] = row[2]
        for flag in range(flags):
            load[1 + flag] = row[3 + flag]
        for value in range(moments):
            load[1 + flags + 2 * value] = row[3 + flags + 3 * value]
            load[2 + flags + 2 * value] = abs(row[4 + flags + 3 * value])
        joins = kept < count
        if joins:
            same = packed[bucket, 0] == packed[bucket, 1] == out[kept, 0] == out[kept, 1]
            if not same:
                joins = out[kept, 1] <= border
                for measure in range(measures):
                    held = 0.0
                    if measure == 0:
                        held = results[kept, 2]
                    elif measure <= flags:
                        held = results[kept, 2 + measure]
                    else:
                        value, part = (measure - 1 - flags) // 2, (measure - 1 - flags) % 2
                        held = abs(results[kept, 3 + flags + 3 * value + part])
                    if held + load[measure] > slack * ahead[measure]:
                        joins = False
                        break
        if joins:
            if packed[bucket, 0] < out[kept, 0]:
                out[kept, 0] = packed[bucket, 0]
            if packed[bucket, 1] > out[kept, 1]:
                out[kept, 1] = packed[bucket, 1]
            for column in range(2, width):
                results[kept, column] += row[column]
            continue
        if kept < count:
            ahead[0] += results[kept, 2]
            for flag in range(flags):
                ahead[1 + flag] += results[kept, 3 + flag]
            for value in range(moments):
                ahead[1 + flags + 2 * value] += results[kept, 3 + flags + 3 * value]
                ahead[2 + flags + 2 * value] += abs(results[kept, 4 + flags + 3 * value])
            border = min(border, out[kept, 0])
        kept -= 1
        out[kept] = packed[bucket]
    return out[kept:].copy()
