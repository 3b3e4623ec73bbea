"""Tables of last uses: who dealt with an entity, and when last, in packed form.

An entry is 24 bytes: the key's hash, its last use and the one before, as little-endian 64-bit
words. Entries are ordered by last use, so that the front is what to forget first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

#: A time long before any event.
NEVER: Final = -(1 << 60)
ENTRY_BYTES: Final = 24
_ENTRY: Final = struct.Struct("<8sqq")
_LAST: Final = struct.Struct("<q").unpack_from
_NEVER_BYTES: Final = NEVER.to_bytes(8, "little", signed=True)


def entries(table: bytes | bytearray) -> Iterator[tuple[bytes, int, int]]:
    """Key, last use and the one before, of every entry."""
    return _ENTRY.iter_unpack(table)


def append(table: bytearray, key: bytes, time_bytes: bytes, oldest: int, most_bytes: int) -> None:
    """Add a key that the table does not hold, used later than any other in it.

    Entries last used at `oldest` or before are forgotten, and the first one beyond `most_bytes`.
    """
    while table and _LAST(table, 8)[0] <= oldest:
        del table[:ENTRY_BYTES]
    table += key + time_bytes + _NEVER_BYTES
    if len(table) > most_bytes:
        del table[:ENTRY_BYTES]


def insert(table: bytearray, key: bytes, uses: tuple[int, ...], oldest: int, most_bytes: int) -> None:
    """Note `uses` of a key, wherever these times belong, and forget as `append` does."""
    known = {entry[0]: entry[1:] for entry in entries(table)}
    times = sorted({*uses, NEVER, *known.get(key, ())})
    known[key] = (times[-1], times[-2] if len(times) > 1 else NEVER)
    kept = [(used, name) for name, used in known.items() if used[0] > oldest]
    kept.sort(key=lambda entry: entry[0][0])
    table[:] = b"".join([_ENTRY.pack(name, *used) for used, name in kept])[-most_bytes:]
