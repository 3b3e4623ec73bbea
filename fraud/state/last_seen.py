"""Tables of last uses: who dealt with an entity, and when last, in packed form.

An entry is 16 bytes, little-endian: 6 of the key's hash, the low 4 of the time of the use before
the last one, and 6 of the last use's time (milliseconds, good until the year 6429). Both uses
have the same low 4 bytes if there is none before. So a use moves bytes and computes nothing: the
last use becomes the one before, whose high bytes follow from it, as it lies less than `SPAN_MS`
earlier. One that would lie farther back is none: `fraud.state.velocity` forgets entries in time.

Entries are ordered by last use, so that the front is what to forget first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

#: A time long before any event.
NEVER: Final = -(1 << 60)
ENTRY_BYTES: Final = 16
KEY_BYTES: Final = 6
TIME_BYTES: Final = 6
#: An entry's last use begins here, and what is kept of it as the use before ends there.
LAST_AT: Final = KEY_BYTES + 4
BEFORE_END: Final = LAST_AT + 4
#: The last use and the one before it are less than this apart: 49 days.
SPAN_MS: Final = 1 << 32
_LOW: Final = SPAN_MS - 1
#: Key, low half of the use before, low and high half of the last; a time out of range wraps.
_ENTRY: Final = struct.Struct("<6sIIh")
_PACK: Final = struct.Struct("<6sIIH").pack
#: A last use behind two other bytes, from the second word of an entry.
_LAST: Final = struct.Struct("<q").unpack_from


def entry(key: bytes, last: int, before: int) -> bytes:
    """An entry; `before` is earlier than `last`, and never if it is `SPAN_MS` earlier or more."""
    low = last & _LOW
    return _PACK(key, before & _LOW if last - before < SPAN_MS else low, low, last >> 32 & 0xFFFF)


def entries(table: bytes | bytearray) -> Iterator[tuple[bytes, int, int]]:
    """Key, last use and the one before (or NEVER), of every entry."""
    for key, before, low, high in _ENTRY.iter_unpack(table):
        last = high << 32 | low
        apart = low - before & _LOW
        yield key, last, last - apart if apart else NEVER


def append(table: bytearray, key: bytes, time_bytes: bytes, oldest: int, most_bytes: int) -> None:
    """Add a key that the table does not hold, used later than any other in it.

    `time_bytes` are the 6 bytes of that use. Entries last used before `oldest` are forgotten, and
    the first one beyond `most_bytes`.
    """
    forget(table, oldest)
    table += key + time_bytes[:4] + time_bytes
    if len(table) > most_bytes:
        del table[:ENTRY_BYTES]


def forget(table: bytearray, oldest: int) -> None:
    """Drop the entries last used before `oldest`."""
    while table and _LAST(table, 8)[0] >> 16 < oldest:
        del table[:ENTRY_BYTES]


def insert(table: bytearray, key: bytes, uses: tuple[int, ...], oldest: int, most_bytes: int) -> None:
    """Note `uses` of a key, wherever these times belong, and forget as `append` does.

    Of keys last used at the same time one that the table held already, for an earlier use, stays first.
    """
    at = table.find(key)
    while at % ENTRY_BYTES and at > 0:  # the same bytes by chance, across two values
        at = table.find(key, at + 1)
    if at < 0:
        last, before = sorted({*uses, NEVER})[:-3:-1]
        place = len(table)
        while place and _LAST(table, place - 8)[0] >> 16 > last:
            place -= ENTRY_BYTES
        table[place:place] = entry(key, last, before)
    else:
        end = at + ENTRY_BYTES
        ((_, was, earlier),) = entries(table[at:end])
        last, before = sorted({*uses, was, earlier, NEVER})[:-3:-1]
        place = end
        if last != was:
            place = len(table)
            while place > end and _LAST(table, place - 8)[0] >> 16 >= last:
                place -= ENTRY_BYTES
        table[at:place] = table[end:place] + entry(key, last, before)
    forget(table, oldest)
    if len(table) > most_bytes:
        del table[:-most_bytes]
