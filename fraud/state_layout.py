"""How a packed velocity state is laid out, what it remembers and for how long.

A state is four byte runs that are kept as they are packed, so that packing only joins them:
header words, events (time; transaction's high hash bits and amount), buckets, and one table
per counterparty and habit (hash, last use, the one before), least recently used first. All are
little-endian and 8-byte aligned.
"""

from __future__ import annotations

from array import array
from typing import Final

from fraud.buckets import BUCKET_BYTES, MAX_BUCKETS
from fraud.entities import ENTITIES, VELOCITY_TTL, WINDOWS, Entity
from fraud.last_seen import ENTRY_BYTES, NEVER

STATE_VERSION: Final = 2
EXACT_EVENTS: Final = 64
#: Eight more are kept, since a read at the newest event's time leaves it and its ties out.
KEPT_EVENTS: Final = EXACT_EVENTS + 8
FOLDED_EVENTS: Final = 16
MOST_EVENT_WORDS: Final = 2 * (KEPT_EVENTS + FOLDED_EVENTS)
DISTINCT_LIMIT: Final = 48
HABIT_LIMIT: Final = 16
_SPARE: Final = 2  # as above, for tables

#: Events stay this long behind the newest: the longest window and two hours of lateness.
RETENTION_MS: Final = WINDOWS[-1].milliseconds + 2 * 3_600_000
HABIT_RETENTION_MS: Final = 30 * 86_400_000
#: A state whose newest event is older than this is missing to readers, and starts anew.
TTL_MS: Final = int(VELOCITY_TTL.total_seconds() * 1000)

# Header words.
KIND, TABLES, VERSION, NEWEST, FIRST, SEEDED, BASE, TIME1, PLACE1, TIME2, PLACE2 = range(11)
HEADER_WORDS: Final = 11
PLACE_OF: Final = {entity.name: place for place, entity in enumerate(ENTITIES)}
#: Per entity and table: most bytes, and how long a use is remembered.
TABLE_LIMITS: Final = tuple(
    tuple(
        [(ENTRY_BYTES * (DISTINCT_LIMIT + _SPARE), RETENTION_MS)] * len(entity.counterparties)
        + [(ENTRY_BYTES * (HABIT_LIMIT + _SPARE), HABIT_RETENTION_MS)] * len(entity.habits)
    )
    for entity in ENTITIES
)


class StateError(ValueError):
    """Packed bytes that are no state this version can read."""


def split(entity: Entity, data: bytes) -> tuple[array[int], array[int], bytearray, tuple[bytearray, ...]]:
    """Header, events, buckets and tables of a packed state.

    Raises StateError for the bytes of another version or entity, and for damaged ones as far
    as their structure shows it.
    """
    name = entity.name
    place = PLACE_OF[name]
    if len(data) < 8 * HEADER_WORDS or len(data) % 8:
        raise StateError(f"{len(data)} bytes are no packed {name} state")
    header = array("q", data[: 8 * HEADER_WORDS])
    kind, table_sizes = header[KIND], header[TABLES]
    if kind & 0xFF != STATE_VERSION:
        raise StateError(
            f"the {name} state was packed by version {kind & 0xFF}, this program reads version "
            f"{STATE_VERSION}: rebuild it with the velocity backfill"
        )
    if kind >> 8 & 0xFF != place:
        raise StateError(f"the bytes pack another entity's state, not a {name}'s")
    limits = TABLE_LIMITS[place]
    sizes = [table_sizes >> 16 * index & 0xFFFF for index in range(len(limits))]
    bucket_bytes = (kind >> 32 & 0xFFFF) * BUCKET_BYTES
    at = 8 * HEADER_WORDS + (kind >> 16 & 0xFFFF) * 16
    if len(data) != at + bucket_bytes + sum(sizes):
        raise StateError(f"the {name} state is cut short or has extra bytes")
    events = array("q", data[8 * HEADER_WORDS : at])
    buckets = bytearray(data[at : at + bucket_bytes])
    at += bucket_bytes
    tables = []
    sound = not table_sizes >> 16 * len(sizes)
    for size, (most_bytes, _) in zip(sizes, limits, strict=True):
        sound &= size <= most_bytes and not size % ENTRY_BYTES
        tables.append(bytearray(data[at : at + size]))
        at += size
    times = events[::2].tolist()
    sound &= (times[-1] if times else NEVER) == header[NEWEST]
    sound &= len(events) <= MOST_EVENT_WORDS and bool(times or not buckets)
    sound &= 0 <= (kind >> 48) * BUCKET_BYTES <= bucket_bytes <= MAX_BUCKETS * BUCKET_BYTES
    if not sound or sorted(times) != times:
        raise StateError(f"the {name} state is damaged: its parts do not fit together")
    return header, events, buckets, tuple(tables)
