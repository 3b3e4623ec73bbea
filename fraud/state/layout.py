"""How a packed velocity state is laid out, what it remembers and for how long.

A state is four byte runs that are kept as they are packed, so that packing only joins them:
header words, events (time; transaction's high hash bits and amount), buckets (`fraud.state.buckets`),
and one table per counterparty and habit (`fraud.state.last_seen`). All are little-endian and 8-byte
aligned. What only some states need costs the others nothing: locations stand in the header of
located entities, and the base of buckets before the first of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

from fraud.features.entities import ENTITIES, HABITS_REMEMBERED_MS, REMEMBERED_MS, VELOCITY_TTL, Entity
from fraud.state import buckets as bucket_list
from fraud.state.buckets import MAX_BUCKETS
from fraud.state.last_seen import ENTRY_BYTES, NEVER, SPAN_MS

STATE_VERSION: Final = 3
EXACT_EVENTS: Final = 64
#: Eight more are kept: a read for the transaction of the newest event leaves that one out.
KEPT_EVENTS: Final = EXACT_EVENTS + 8
FOLDED_EVENTS: Final = 16
MOST_EVENT_WORDS: Final = 2 * (KEPT_EVENTS + FOLDED_EVENTS)
DISTINCT_LIMIT: Final = 48
HABIT_LIMIT: Final = 16
_SPARE: Final = 2  # as above, for tables

#: How much later than its time an event may arrive and still be counted exactly.
LATENESS_MS: Final = 2 * 3_600_000
#: Events stay this long behind the newest: what windows may be, and that lateness.
RETENTION_MS: Final = REMEMBERED_MS + LATENESS_MS
HABIT_RETENTION_MS: Final = HABITS_REMEMBERED_MS
#: A state whose newest event is older than this is missing to readers, and starts anew.
TTL_MS: Final = int(VELOCITY_TTL.total_seconds() * 1000)

# Header words; only located entities have the last four.
KIND, VERSION, FIRST, SEEDED, TIME1, PLACE1, TIME2, PLACE2 = range(8)
#: Words of the header, per entity.
HEADER_WORDS: Final = tuple(8 if entity.located else 4 for entity in ENTITIES)
LEAST_BYTES: Final = 8 * min(HEADER_WORDS)
_ALL_WORDS: Final = (0, 0, NEVER, 0, NEVER, 0, NEVER, 0)
# Word KIND: the version in 8 bits, the entity's place in 8, how many events in 8, buckets in 9, of
# these loose in 9, and entries of each table in 7.
EVENTS_SHIFT, BUCKETS_SHIFT, LOOSE_SHIFT, TABLES_SHIFT = 16, 24, 33, 42
EVENTS_MASK, BUCKETS_MASK, TABLE_BITS, TABLE_MASK = 0xFF, 0x1FF, 7, 0x7F
_FIRST_BITS: Final = tuple([STATE_VERSION | place << 8 for place in range(len(ENTITIES))])
#: A table's length in bytes goes here, so that its number of entries lands in its bits.
_LENGTHS_SHIFT: Final = TABLES_SHIFT - (ENTRY_BYTES.bit_length() - 1)
PLACE_OF: Final = {entity.name: place for place, entity in enumerate(ENTITIES)}
#: Per entity and table: most bytes, and how long a use is remembered.
TABLE_LIMITS: Final = tuple(
    tuple(
        [(ENTRY_BYTES * (DISTINCT_LIMIT + _SPARE), RETENTION_MS)] * len(entity.counterparties)
        + [(ENTRY_BYTES * (HABIT_LIMIT + _SPARE), HABIT_RETENTION_MS)] * len(entity.habits)
    )
    for entity in ENTITIES
)
#: Whenever event time passes a multiple of 1 << this many milliseconds (12 days), an entity past
#: its ttl starts anew, and uses past their retention are forgotten: so none is `SPAN_MS` old.
STRIDE_BITS: Final = 30

assert 1 << STRIDE_BITS < TTL_MS
assert (1 << STRIDE_BITS) + max(RETENTION_MS, HABIT_RETENTION_MS) < SPAN_MS


class StateError(ValueError):
    """Packed bytes that are no state this version can read."""


def empty_header(place: int) -> array[int]:
    """The header of a state that has seen nothing."""
    return array("q", _ALL_WORDS[: HEADER_WORDS[place]])


def kind_word(place: int, events: int, buckets: int, loose: int, tables: Iterable[bytes | bytearray]) -> int:
    """The header's first word, from how many events, buckets and loose ones there are, and the tables."""
    kind = _FIRST_BITS[place] | events << EVENTS_SHIFT
    if buckets:
        kind |= buckets << BUCKETS_SHIFT | loose << LOOSE_SHIFT
    shift = _LENGTHS_SHIFT
    for table in tables:
        kind |= len(table) << shift
        shift += TABLE_BITS
    return kind


def split(entity: Entity, data: bytes) -> tuple[array[int], array[int], bytearray, tuple[bytearray, ...]]:
    """Header, events, buckets and tables of a packed state.

    Raises StateError for the bytes of another version or entity, and for damaged ones as far
    as their structure shows it.
    """
    name = entity.name
    place = PLACE_OF[name]
    begin = 8 * HEADER_WORDS[place]
    if len(data) < begin or len(data) % 8:
        raise StateError(f"{len(data)} bytes are no packed {name} state")
    if data[0] != STATE_VERSION:
        raise StateError(
            f"the {name} state was packed by version {data[0]}, this program reads version {STATE_VERSION}: "
            "rebuild it with the velocity backfill"
        )
    if data[1] != place:
        raise StateError(f"the bytes pack another entity's state, not a {name}'s")
    header = array("q", data[:begin])
    kind = header[KIND]
    limits = TABLE_LIMITS[place]
    sizes = [
        (kind >> TABLES_SHIFT + TABLE_BITS * index & TABLE_MASK) * ENTRY_BYTES for index in range(len(limits))
    ]
    count = kind >> BUCKETS_SHIFT & BUCKETS_MASK
    bucket_bytes = bucket_list.packed_size(count)
    at = begin + (kind >> EVENTS_SHIFT & EVENTS_MASK) * 16
    if len(data) != at + bucket_bytes + sum(sizes):
        raise StateError(f"the {name} state is cut short or has extra bytes")
    events = array("q", data[begin:at])
    buckets = bytearray(data[at : at + bucket_bytes])
    at += bucket_bytes
    tables = []
    sound = not kind >> TABLES_SHIFT + TABLE_BITS * len(sizes)
    for size, (most_bytes, _) in zip(sizes, limits, strict=True):
        sound &= size <= most_bytes
        tables.append(bytearray(data[at : at + size]))
        at += size
    times = events[::2].tolist()
    sound &= len(events) <= MOST_EVENT_WORDS and bool(times or not buckets)
    sound &= kind >> LOOSE_SHIFT & BUCKETS_MASK <= count <= MAX_BUCKETS
    if not sound or sorted(times) != times:
        raise StateError(f"the {name} state is damaged: its parts do not fit together")
    return header, events, buckets, tuple(tables)
