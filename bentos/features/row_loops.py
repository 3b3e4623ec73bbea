"""Feature rows from Redis's replies, in one loop that numba compiles.

Values are Feast's own bytes: a velocity state is bytes (tag, length, bytes), a timestamp is two
varints, a profile value is a double (tag byte and eight bytes) or another number; but of a profile the
copy is read that has all numbers side by side, if it is of the profile's timestamp. Freshness is judged
by each view's timestamp against when the transaction was known; a state's is its version, which is what
whoever writes it gives Feast as the view's.
"""

from __future__ import annotations

from math import nan
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bentos.wire.replies import ARRAY, BULK, Bytes, Ints
from fraud.state.last_seen import NEVER
from fraud.state.layout import LATENESS_MS, LEAST_BYTES, STATE_VERSION, VERSION
from machine.compiled import compiled

Floats = NDArray[np.float64]

#: How a view's values may be used; an index in `fraud.contract.answer`'s words for it.
FRESH, MISSING, STALE, TIMEOUT, AGAIN = range(5)
#: A state that is newer than a transaction by more is of another time, such as that of a replay.
_MOST_AHEAD: Final = 1000 * LATENESS_MS
#: No such value: nothing is stored, or what is stored cannot be read.
_NONE: Final = -1
_ZERO, _MINUS = ord("0"), ord("-")
# Tags of Feast's numbers (`feast.types.Value`): field number << 3 | wire type.
_DOUBLE, _FLOAT, _BYTES = 5 << 3 | 1, 6 << 3 | 5, 1 << 3 | 2
_INTEGERS: Final = (3 << 3, 4 << 3, 7 << 3)
_SECONDS, _NANOS = 1 << 3, 2 << 3


@compiled
def _number(data: Bytes, at: int) -> tuple[int, int]:
    """A length of RESP that begins at `at` (-1: none), and where its line ends."""
    negative = data[at] == _MINUS
    number = 0
    while data[at] != 0x0D:
        number = 10 * number + data[at] - _ZERO
        at += 1
    return (-1 if negative else number), at + 2


@compiled
def _varint(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A varint as 64 bits with a sign, and where it ends; `end` + 1 if it is cut short."""
    number, shift = 0, 0
    while at < end and shift < 64:
        byte = int(data[at])
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7
    return 0, end + 1


@compiled
def _profile_value(data: Bytes, at: int, size: int) -> float:
    """A stored number of any of Feast's types; NaN for null, and for what is none.

    Its bytes are read as a number where they stand, which need be no multiple of eight: x86 and ARM allow it.
    """
    if size < 2:
        return nan
    tag = data[at]
    if tag == _DOUBLE:
        return float(data[at + 1 : at + 9].view(np.float64)[0]) if size == 9 else nan
    if tag == _FLOAT:
        return float(data[at + 1 : at + 5].view(np.float32)[0]) if size == 5 else nan
    if tag in _INTEGERS:
        number, end = _varint(data, at + 1, at + size)
        return float(number) if end == at + size else nan
    return nan


@compiled
def _microseconds(data: Bytes, at: int, size: int) -> int:
    """A stored timestamp in microseconds since 1970 UTC; NEVER if there is none to read."""
    if size < 0:
        return NEVER
    moment, end = 0, at + size
    while at < end:
        tag = data[at]
        number, at = _varint(data, at + 1, end)
        if at > end or tag not in (_SECONDS, _NANOS):
            return NEVER
        moment += number * 1_000_000 if tag == _SECONDS else number // 1000
    return moment


@compiled
def _state(data: Bytes, at: int, size: int) -> tuple[int, int]:
    """Where the bytes in a stored state begin and how many they are (-1: it holds none)."""
    if size < 1 or data[at] != _BYTES:
        return at, _NONE
    length, begin = _varint(data, at + 1, at + size)
    return begin, (length if begin + length == at + size else _NONE)


@compiled
def _moment(data: Bytes, at: int, size: int) -> int:
    """A state's version, which is its timestamp in microseconds since 1970 UTC; NEVER if the bytes are no
    state that can be read."""
    if size < LEAST_BYTES or size & 7:
        return NEVER
    if data[at] != STATE_VERSION:
        return NEVER
    at += 8 * VERSION
    return int(data[at : at + 8].view(np.int64)[0])


@compiled
def _copy(source: Bytes, target: Bytes) -> None:
    """As an assignment of slices, forty times as fast."""
    for place in range(len(source)):
        target[place] = source[place]


@compiled
def _element(data: Bytes, at: int) -> tuple[int, int, int]:
    """Where the bytes of a reply's element at `at` begin, how many they are (-1: none), and where the next
    element begins."""
    if data[at] == BULK:
        size, start = _number(data, at + 1)
        return start, size, (start + size + 2 if size >= 0 else start)
    start = at
    while data[at] != 0x0A:
        at += 1
    return start, _NONE, at + 1


class Layout(NamedTuple):
    """How a batch's rows are laid out. A profile has `widths[place]` values; each entity has two views, its
    profile and its state: `ttl_us` is by view, and view v has the column `columns[v]` of codes and moments.
    `chosen` are the columns of profiles that request-time features read."""

    widths: Ints
    ttl_us: Ints
    columns: Ints
    chosen: Ints


class Rows(NamedTuple):
    """Room for a batch's rows, as `OnlineRows` has them. `known_us` is when each transaction was known."""

    profiles: Floats
    inputs: Floats
    words: Ints
    ends: Ints
    codes: Bytes
    moments: Ints
    known_us: Ints


@compiled
def _judge(moment: int, known_us: int, ttl_us: int) -> int:
    if moment == NEVER:
        return MISSING
    return STALE if known_us - moment > ttl_us else FRESH


@compiled
def fill_rows(data: Bytes, begins: Ints, first: int, named: Bytes, layout: Layout, into: Rows) -> int:
    """Decode a batch into its rows; returns how many reads got no reply, or none that can be used.

    Replies from `first` on are by row, and in it by place of each entity that is `named[row, place]`. One
    holds the profile's values side by side (`stores.redis_layout.encode_row`), the profile's timestamp, the
    state. A profile's values go side by side into its row, NaN where null, and those of the columns
    `chosen` into `inputs` as well. The state of entity p in row r goes to `words[ends[i] : ends[i + 1]]`
    with i = p * rows + r: nothing if there is none to use. A view without a moment has NEVER. A profile
    whose values side by side are not those of its timestamp has the code AGAIN. Where a state is newer
    than the transaction was known, it was known just then: hosts' clocks differ.
    """
    rows, widths, columns = len(named), layout.widths, layout.columns
    words, ends, codes, moments, known = into.words, into.ends, into.codes, into.moments, into.known_us
    which = np.empty(named.shape, np.int64)
    for row in range(rows):
        for place in range(len(widths)):
            which[row, place] = first if named[row, place] else -1
            first += named[row, place]
    unanswered = 0
    column = 0
    end = 0
    room = words.view(np.uint8)
    for place in range(len(widths)):
        width = widths[place]
        profile, state = columns[2 * place], columns[2 * place + 1]
        for row in range(rows):
            ends[place * rows + row] = end
            values = into.profiles[row, column : column + width]
            values[:] = nan
            moments[row, profile] = moments[row, state] = NEVER
            reply = which[row, place]
            if reply < 0:
                codes[row, profile] = codes[row, state] = MISSING
                continue
            at, fields = _fields(data, begins, reply)
            if fields != 3:
                unanswered += 1
                codes[row, profile] = codes[row, state] = TIMEOUT
                continue
            numbers, size, at = _element(data, at)
            start, length, at = _element(data, at)
            moment = moments[row, profile] = _microseconds(data, start, length)
            code = _judge(moment, known[row], layout.ttl_us[2 * place])
            if code == FRESH:
                if size == 8 + 8 * width and data[numbers : numbers + 8].view(np.int64)[0] == moment:
                    _copy(data[numbers + 8 : numbers + size], values.view(np.uint8))
                else:
                    code = AGAIN
            codes[row, profile] = code
            start, length, at = _element(data, at)
            start, length = _state(data, start, length)
            moment = moments[row, state] = _moment(data, start, length)
            if known[row] < moment <= known[row] + _MOST_AHEAD:
                known[row] = moment
            code = codes[row, state] = _judge(moment, known[row], layout.ttl_us[2 * place + 1])
            if code == FRESH:
                _copy(data[start : start + length], room[8 * end : 8 * end + length])
                end += length >> 3
        column += width
    ends[len(widths) * rows] = end
    for row in range(rows):
        for number in range(len(layout.chosen)):
            into.inputs[row, number] = into.profiles[row, layout.chosen[number]]
    return unanswered


@compiled
def _fields(data: Bytes, begins: Ints, reply: int) -> tuple[int, int]:
    """Where the elements of a reply begin and how many they are; 0 if it is none, or no list."""
    if reply >= len(begins) - 1 or begins[reply] == begins[reply + 1] or data[begins[reply]] != ARRAY:
        return 0, 0
    fields, at = _number(data, begins[reply] + 1)
    return at, fields


@compiled
def fill_profile(data: Bytes, begins: Ints, reply: int, values: Floats) -> tuple[bool, int]:
    """Decode one profile that was read value by value, and its timestamp behind them; returns whether
    there is a reply, and the timestamp (NEVER: none)."""
    at, fields = _fields(data, begins, reply)
    if fields != len(values) + 1:
        return False, NEVER
    for place in range(len(values)):
        start, size, at = _element(data, at)
        values[place] = _profile_value(data, start, size)
    start, size, at = _element(data, at)
    return True, _microseconds(data, start, size)
