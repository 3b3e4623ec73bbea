"""Replies of Redis as the bytes it sent: cut where each ends by compiled code, decoded when asked for.

A batch's replies are some thousand small values. Making an object of each costs more than Redis
needs to send them, so what decodes features reads the bytes (`bentos.features.row_loops`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import hiredis
import numpy as np
from numpy.typing import NDArray

from machine.compiled import compiled

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Reply = Any

# Words of a scan's state: where it is, the type byte of the value it is in, the number there and its
# sign, bytes left to skip, values that the reply still lacks, bytes scanned, replies that are whole.
_WHERE, _KIND, _NUMBER, _NEGATIVE, _LEFT, _LACKS, _SCANNED, ARRIVED = range(8)
_STATE_WORDS: Final = 8
_START, _IN_NUMBER, _IN_LINE, _IN_BULK = range(4)
BULK, ARRAY = ord("$"), ord("*")
_LINES: Final = tuple(b"+-:")
_CR, _LF, _MINUS, _ZERO = tuple(b"\r\n-0")
#: A length beyond this is none.
_LONGEST: Final = 1 << 40


def new_scan() -> Ints:
    """The state of a scan that has seen nothing."""
    state = np.zeros(_STATE_WORDS, dtype=np.int64)
    state[_LACKS] = 1
    return state


@compiled
def scan(chunk: Bytes, state: Ints, begins: Ints) -> int:
    """Go on with a scan through `chunk`, as far as the replies that `begins` has room for.

    Sets `begins[i]` to the byte where reply i begins, and so the one before it ends. Returns how many
    bytes of the chunk belong to these replies, or -1 if they are no replies of Redis (RESP 2).
    """
    where, kind, number, negative = state[_WHERE], state[_KIND], state[_NUMBER], state[_NEGATIVE]
    left, lacks, arrived = state[_LEFT], state[_LACKS], state[ARRIVED]
    at, size = 0, len(chunk)
    while at < size and arrived < len(begins) - 1:
        if where == _IN_BULK:
            step = min(left, size - at)
            at += step
            left -= step
            if left:
                break
            where = _START
            lacks -= 1
        else:
            byte = chunk[at]
            at += 1
            if where == _IN_LINE:
                if byte != _LF:
                    continue
                where = _START
                lacks -= 1
            elif where == _IN_NUMBER:
                if _ZERO <= byte <= _ZERO + 9 and number < _LONGEST:
                    number = 10 * number + byte - _ZERO
                elif byte == _MINUS:
                    negative = 1
                elif byte == _LF:
                    where = _START
                    if negative:
                        lacks -= 1
                    elif kind == BULK:
                        left = number + 2  # its end of line
                        where = _IN_BULK
                    else:
                        lacks += number - 1
                elif byte != _CR:
                    return -1
            else:
                kind = byte
                if byte in (BULK, ARRAY):
                    where, number, negative = _IN_NUMBER, 0, 0
                elif byte in _LINES:
                    where = _IN_LINE
                else:
                    return -1
                continue
        if where == _START and lacks == 0:
            arrived += 1
            begins[arrived] = state[_SCANNED] + at
            lacks = 1
    state[_WHERE], state[_KIND], state[_NUMBER], state[_NEGATIVE] = where, kind, number, negative
    state[_LEFT], state[_LACKS], state[ARRIVED] = left, lacks, arrived
    state[_SCANNED] += at
    return at


class Replies(Sequence[Reply]):
    """The replies to commands, the first so many: reply i is `data[begins[i] : begins[i + 1]]`.

    As a sequence they are what hiredis makes of them; an error is a `hiredis.ReplyError` among them.
    With `gaps` some have no bytes, for want of an answer; they are None.
    """

    __slots__ = ("begins", "data", "gaps")

    def __init__(self, data: bytes, begins: Ints, *, gaps: bool = False) -> None:
        self.data = data
        self.begins = begins
        self.gaps = gaps

    @classmethod
    def of(cls, raw: Iterable[bytes], *, gaps: bool = False) -> Replies:
        """Replies whose bytes are at hand one by one."""
        parts = list(raw)
        begins = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=begins[1:])
        return cls(b"".join(parts), begins, gaps=gaps)

    def __len__(self) -> int:
        return len(self.begins) - 1

    def raw(self, place: int) -> bytes:
        """The bytes of one reply."""
        return self.data[self.begins[place] : self.begins[place + 1]]

    def objects(self, start: int = 0, stop: int | None = None) -> list[Reply]:
        """Replies `start` to `stop` as Python objects."""
        begins = self.begins
        stop = len(self) if stop is None else min(stop, len(self))
        if stop <= start:
            return []
        reader = hiredis.Reader()
        reader.feed(self.data[begins[start] : begins[stop]])
        if not self.gaps:
            return [reader.gets() for _ in range(start, stop)]
        return [reader.gets() if begins[place] < begins[place + 1] else None for place in range(start, stop)]

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return self.objects()[place]
        place = range(len(self))[place]
        return self.objects(place, place + 1)[0]


NO_REPLIES: Final = Replies(b"", np.zeros(1, dtype=np.int64))
