"""States of version 2, read as if this version had packed them.

They are in Redis, in snapshots and bases of the flow, in the velocity log and in seeds until
they are written again, which the flow does whenever their entity is touched. So programs can be
brought up to date while old states are in use: readers first, since old ones read no new state.

A version 2 state has 11 header words whatever the entity, table sizes in bytes (16 bits each),
and 24 bytes in a table's entry: 8 of the key's hash, the last use and the one before as 64-bit
words.
"""

from __future__ import annotations

import struct
from typing import Final

from fraud.features.entities import ENTITIES, Entity
from fraud.state import buckets as bucket_list
from fraud.state.buckets import BUCKET_BYTES, MAX_BUCKETS
from fraud.state.last_seen import ENTRY_BYTES, KEY_BYTES, NEVER, entry
from fraud.state.layout import (
    HEADER_WORDS,
    MOST_EVENT_WORDS,
    OLD_VERSION,
    PLACE_OF,
    STRIDE_BITS,
    TABLE_LIMITS,
    StateError,
    kind_word,
)

_MARK: Final = bytes([OLD_VERSION])
_HEADER: Final = struct.Struct("<11q")
_ENTRY: Final = struct.Struct("<8sqq")


def upgraded(entity: Entity, data: bytes) -> bytes:
    """A version 2 state in this version's bytes; any other bytes as they are.

    Uses that this version would have forgotten by then are left out. Raises StateError for damaged bytes of
    version 2, as far as their structure shows it.
    """
    if data[:1] != _MARK:
        return data
    name, place = entity.name, PLACE_OF[entity.name]
    if len(data) < _HEADER.size or len(data) % 8:
        raise StateError(f"{len(data)} bytes are no packed {name} state")
    kind, sizes, version, newest, first, seeded, base, *located = _HEADER.unpack_from(data)
    if kind >> 8 & 0xFF != place:
        raise StateError(f"the bytes pack another entity's state, not a {name}'s")
    events, buckets, loose = kind >> 16 & 0xFFFF, kind >> 32 & 0xFFFF, kind >> 48
    events_end = _HEADER.size + 16 * events
    at = buckets_end = events_end + BUCKET_BYTES * buckets
    sound = 2 * events <= MOST_EVENT_WORDS and 0 <= loose <= buckets <= MAX_BUCKETS
    tables = []
    entered = newest >> STRIDE_BITS << STRIDE_BITS
    for index, (most_bytes, retention) in enumerate(TABLE_LIMITS[place]):
        size = sizes >> 16 * index & 0xFFFF
        sound &= not size % _ENTRY.size and size // _ENTRY.size <= most_bytes // ENTRY_BYTES
        tables.append((data[at : at + size], entered - retention))
        at += size
    if not sound or at != len(data) or sizes >> 16 * len(tables) or newest != _newest(data[:events_end]):
        raise StateError(f"the {name} state is damaged: its parts do not fit together")
    packed = [_table(table, oldest) for table, oldest in tables]
    header = (kind_word(place, events, buckets, loose, packed), version, first, seeded, *located)
    words = HEADER_WORDS[place]
    return b"".join(
        (
            struct.pack(f"<{words}q", *header[:words]),
            data[_HEADER.size : events_end],
            bucket_list.pack_base(base) if buckets else b"",
            data[events_end:buckets_end],
            *packed,
        )
    )


def readable(place: int, data: bytes) -> bytes | None:
    """`upgraded` for the entity at `place` in `ENTITIES`; None instead of an error."""
    try:
        return upgraded(ENTITIES[place], data)
    except StateError:
        return None


def _newest(data: bytes) -> int:
    """Time of the last event in bytes that end with the events."""
    return struct.unpack_from("<q", data, len(data) - 16)[0] if len(data) > _HEADER.size else NEVER


def _table(table: bytes, oldest: int) -> bytes:
    return b"".join(
        [
            entry(key[-KEY_BYTES:], last, before)
            for key, last, before in _ENTRY.iter_unpack(table)
            if last >= oldest
        ]
    )
