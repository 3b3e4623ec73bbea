"""Velocity state: what one entity's recent transactions leave behind, in one small value.

A state holds the newest events exactly, older ones in buckets of bounded error
(`fraud.state.buckets`), and the last use of every counterparty, device and country. No window is
stored: windows are computed when the state is read (`fraud.state.windows`), so they decay with no
new event.

Guarantees, for reads at or after the newest event:

* up to `EXACT_EVENTS` events inside the longest window: every count and sum is exact;
* beyond: counts and sums of every window are within `ERROR` (2 %) of the truth, as long as
  `MAX_BUCKETS` buckets are enough for that (else the bound grows by quarters until they are);
* distinct counterparties are exact up to `DISTINCT_LIMIT`, and reported as that above it;
* an event of the exact part is never counted twice (same transaction id and event time).
"""

from __future__ import annotations

import sys
from array import array
from typing import Final

from fraud.features.entities import ENTITIES, Entity
from fraud.state import buckets as bucket_list
from fraud.state import last_seen
from fraud.state.buckets import BUCKET_BYTES, ERROR, FARTHEST_MS, MAX_BUCKETS
from fraud.state.last_seen import BEFORE_END, ENTRY_BYTES, KEY_BYTES, LAST_AT, NEVER, TIME_BYTES
from fraud.state.layout import (
    BUCKETS_MASK,
    DISTINCT_LIMIT,
    EXACT_EVENTS,
    FIRST,
    FOLDED_EVENTS,
    KEPT_EVENTS,
    KIND,
    LOOSE_SHIFT,
    MOST_EVENT_WORDS,
    PLACE1,
    PLACE2,
    PLACE_OF,
    RETENTION_MS,
    SEEDED,
    STATE_VERSION,
    STRIDE_BITS,
    TABLE_LIMITS,
    TIME1,
    TIME2,
    TTL_MS,
    VERSION,
    StateError,
    empty_header,
    kind_word,
    split,
)
from fraud.state.observation import Observation

__all__ = [
    "DISTINCT_LIMIT",
    "ERROR",
    "EXACT_EVENTS",
    "MAX_BUCKETS",
    "STATE_VERSION",
    "VERSION",
    "StateError",
    "VelocityState",
]  # fmt: skip

_LOCATED: Final = tuple(entity.located for entity in ENTITIES)

if sys.byteorder != "little":  # arrays are packed as they lie in memory
    raise ImportError("velocity states need a little-endian machine")


class VelocityState:
    """One entity's mergeable velocity state. Times are event times in UTC milliseconds."""

    __slots__ = ("buckets", "events", "header", "loose", "newest_ms", "place", "tables")

    def __init__(self, entity: Entity) -> None:
        self.place: int = PLACE_OF[entity.name]
        self.header = empty_header(self.place)
        #: Event time of the newest event, or a time long past if there is none.
        self.newest_ms: int = NEVER
        self.events = array("q")
        self.buckets = bytearray()
        #: Buckets at the end that no merge has looked at yet.
        self.loose = 0
        self.tables: tuple[bytearray, ...] = tuple([bytearray() for _ in entity.tracked])

    @property
    def version(self) -> int:
        """Known-at of the newest update, microseconds UTC: strictly increasing per entity."""
        return self.header[VERSION]

    def raise_version(self, version: int) -> None:
        """Make the version at least `version`, such as one that another writer has stored."""
        self.header[VERSION] = max(version, self.header[VERSION])

    def add(self, seen: Observation, place: int) -> bool:
        """Add one transaction; False if the exact part already holds it (nothing changes).

        `place` is this entity's index in `ENTITIES`. Late events go where they belong; one
        that is older than the retention changes only the version and the first-seen time.
        """
        time = seen.event_ms
        newest = self.newest_ms
        if time <= newest:
            return self._add_late(seen, place)
        if (time ^ newest) >> STRIDE_BITS:
            self._forget(time)
        self.newest_ms = time
        header = self.header
        known = time * 1000 + 1
        version = header[VERSION]
        header[VERSION] = known if known > version else version + 1
        events = self.events
        if events:
            if events[0] <= time - RETENTION_MS:
                self._prune(time - RETENTION_MS)
        elif header[FIRST] == NEVER or time < header[FIRST]:
            header[FIRST] = time
        events.append(time)
        events.append(seen.word)
        if len(events) > MOST_EVENT_WORDS:
            self._fold()
        # Uses in order of time: what is used now is used last, and goes to the table's end.
        time_bytes = seen.record[:TIME_BYTES]
        for index, key in enumerate(seen.keys[place]):
            if key:
                table = self.tables[index]
                at = table.rfind(key)
                if at < 0:
                    self._append(index, key, time, time_bytes)
                elif at % ENTRY_BYTES:  # the same bytes by chance, across two values
                    self._insert(index, key, time)
                else:
                    before = table[at + LAST_AT : at + BEFORE_END]
                    if at + ENTRY_BYTES == len(table):
                        table[at + KEY_BYTES :] = before + time_bytes
                    else:
                        del table[at : at + ENTRY_BYTES]
                        table += key + before + time_bytes
        location = seen.location
        if location is not None and _LOCATED[place]:
            header[TIME2] = header[TIME1]
            header[PLACE2] = header[PLACE1]
            header[TIME1] = time
            header[PLACE1] = location
        return True

    def _forget(self, time: int) -> None:
        """Forget what a state whose newest event is at `time` no longer knows."""
        if self.events and self.newest_ms < time - TTL_MS:
            self._expire(time)
        for table, (_, retention) in zip(self.tables, TABLE_LIMITS[self.place], strict=True):
            last_seen.forget(table, time - retention)

    def _expire(self, time: int) -> None:
        """Start anew at `time`: for a read there the state was past its ttl, as if it never was.

        So an entity that the stream or Redis forgot meanwhile has the same state as one that
        was kept, or rebuilt from its whole history.
        """
        header = self.header
        header[FIRST] = time
        if _LOCATED[self.place]:
            header[TIME1] = header[TIME2] = NEVER
            header[PLACE1] = header[PLACE2] = 0
        del self.events[:]
        self.buckets.clear()
        self.loose = 0
        for table in self.tables:
            table.clear()

    def _append(self, index: int, key: bytes, time: int, time_bytes: bytes) -> None:
        """Add a key that the table does not hold, used by the newest event."""
        most_bytes, retention = TABLE_LIMITS[self.place][index]
        last_seen.append(self.tables[index], key, time_bytes, time - retention, most_bytes)

    def _add_late(self, seen: Observation, place: int) -> bool:
        """Add an event that is no newer than the newest."""
        header, events = self.header, self.events
        time = seen.event_ms
        if time == NEVER:
            return self._change(seen, place)
        newest = self.newest_ms
        if time < newest - TTL_MS:  # of a time that the state has forgotten
            header[VERSION] += 1
            return True
        if time > newest - RETENTION_MS:
            end = len(events)
            while end and events[end - 2] > time:
                end -= 2
            at = end
            while at and events[at - 2] == time:
                at -= 2
                if events[at + 1] >> 32 == seen.word >> 32:
                    return False
            if end == 0 and self.buckets:
                self._add_loose([(time, seen.amount)])
            else:
                events[end:end] = array("q", (time, seen.word))
                if len(events) > MOST_EVENT_WORDS:
                    self._fold()
        header[VERSION] += 1
        if time < header[FIRST]:
            header[FIRST] = time
        for index, key in enumerate(seen.keys[place]):
            if key:
                self._insert(index, key, time)
        if seen.location is not None and _LOCATED[place]:
            self._locate(time, seen.location)
        return True

    def _change(self, seen: Observation, place: int) -> bool:
        """Let another part of a payment count as spent (`change_of`); whether that changes anything.

        Its event counts as before: what was declined was tried. Exact as long as the event is in the exact
        part, and then as often as it is told; of a bucket the difference is taken.
        """
        time, events = seen.location, self.events
        if time is None or time <= self.newest_ms - RETENTION_MS:
            return False
        for at in range(len(events) - 2, -1, -2):
            if events[at] < time:
                break
            if events[at] == time and events[at + 1] >> 32 == seen.word >> 32:
                if events[at + 1] == seen.word:
                    return False
                events[at + 1] = seen.word
                self.header[VERSION] += 1
                return True
        keys = seen.keys[place]
        before = int.from_bytes(keys[0], "little") if keys else 0
        if not bucket_list.change(self.buckets, time, before, seen.amount):
            return False
        self.header[VERSION] += 1
        return True

    def _insert(self, index: int, key: bytes, *uses: int) -> None:
        """Note that `key` was used at these times, wherever they belong."""
        most_bytes, retention = TABLE_LIMITS[self.place][index]
        oldest = self.newest_ms - retention
        last_seen.insert(self.tables[index], key, uses, oldest, most_bytes)

    def _locate(self, time: int, location: int) -> None:
        """Note a location; of two at the same time the larger number counts, in any order."""
        header = self.header
        if time == header[TIME1]:
            header[PLACE1] = max(location, header[PLACE1])
        elif time > header[TIME1]:
            header[TIME2], header[PLACE2] = header[TIME1], header[PLACE1]
            header[TIME1], header[PLACE1] = time, location
        elif time == header[TIME2]:
            header[PLACE2] = max(location, header[PLACE2])
        elif time > header[TIME2]:
            header[TIME2], header[PLACE2] = time, location

    def _prune(self, oldest: int) -> None:
        """Drop events and leading buckets that ended at `oldest` or before, but the last event."""
        events, buckets = self.events, self.buckets
        most = len(events) - 2
        cut = 0
        while cut < most and events[cut] <= oldest:
            cut += 2
        if cut:
            del events[:cut]
        if buckets:
            bucket_list.forget(buckets, oldest)
            self.loose = min(self.loose, len(buckets) // BUCKET_BYTES)

    def _fold(self) -> None:
        """Move the oldest events of the exact part to the buckets."""
        events = self.events
        moved = len(events) - 2 * KEPT_EVENTS
        folded = [(events[at], events[at + 1] & 0xFFFFFFFF) for at in range(0, moved, 2)]
        del events[:moved]
        self._add_loose(folded)

    def _add_loose(self, events: list[tuple[int, int]]) -> None:
        """Append events as buckets of one; merge once these are a quarter of all buckets."""
        buckets = self.buckets
        base = bucket_list.base_of(buckets) if buckets else events[0][0]
        self.loose += len(events)
        count = len(buckets) // BUCKET_BYTES + len(events)
        if (
            4 * self.loose <= count <= MAX_BUCKETS
            and events[0][0] >= base
            and events[-1][0] - base <= FARTHEST_MS
        ):
            for time, amount in events:
                buckets += bucket_list.pack_single(base, time, amount)
        else:
            everything = bucket_list.unpack(buckets)
            everything += [bucket_list.single(time, amount) for time, amount in events]
            self._compress(everything)

    def _compress(self, everything: list[bucket_list.Bucket]) -> None:
        events, newest = self.events, self.newest_ms
        oldest = newest - RETENTION_MS
        # A read at the newest event's time leaves that event out, so it makes no room.
        newer = [events[at + 1] & 0xFFFFFFFF for at in range(0, len(events), 2) if events[at] != newest]
        kept = [bucket for bucket in everything if bucket[0] > oldest]
        self.buckets = bucket_list.pack(bucket_list.compress(kept, len(newer), sum(newer)))
        self.loose = 0

    def pack(self) -> bytes:
        """The state as bytes: equal states give equal bytes."""
        header, events, buckets, tables = self.header, self.events, self.buckets, self.tables
        count = len(buckets) // BUCKET_BYTES
        header[KIND] = kind_word(self.place, len(events) >> 1, count, self.loose, tables)
        return b"".join((header, events, buckets, *tables))

    @classmethod
    def unpack(cls, entity: Entity, data: bytes) -> VelocityState:
        """The state that `data` packs; StateError if it is none that this version can read."""
        state = cls(entity)
        state.header, state.events, state.buckets, state.tables = split(entity, data)
        state.loose = state.header[KIND] >> LOOSE_SHIFT & BUCKETS_MASK
        if state.events:
            state.newest_ms = state.events[-2]
        return state

    def merge(self, other: VelocityState) -> bool:
        """Take in another state of the same entity, such as history that a backfill rebuilt.

        The two may share events of their exact parts, which are counted once; no event may be
        in a bucket of one and anywhere in the other. Merging the same `other` again changes
        nothing and returns False.
        """
        header, theirs = self.header, other.header
        if theirs[VERSION] <= header[SEEDED]:
            return False
        header[SEEDED] = theirs[VERSION]
        if NEVER < other.newest_ms < header[FIRST] - TTL_MS:
            header[VERSION] += 1
            return True
        if NEVER < self.newest_ms < theirs[FIRST] - TTL_MS:
            self._expire(theirs[FIRST])
        self.newest_ms = max(self.newest_ms, other.newest_ms)
        if header[FIRST] == NEVER or NEVER < theirs[FIRST] < header[FIRST]:
            header[FIRST] = theirs[FIRST]
        header[VERSION] = (
            theirs[VERSION] if header[VERSION] == 0 else max(header[VERSION], theirs[VERSION]) + 1
        )
        self._merge_events(other)
        self._forget(self.newest_ms)
        for index, table in enumerate(other.tables):
            for key, last, before in last_seen.entries(table):
                self._insert(index, key, last, before)
        if _LOCATED[self.place]:
            for time, location in ((TIME2, PLACE2), (TIME1, PLACE1)):
                if theirs[time] != NEVER:
                    self._locate(theirs[time], theirs[location])
        return True

    def _merge_events(self, other: VelocityState) -> None:
        pairs = {}
        for events in (other.events, self.events):
            for at in range(0, len(events), 2):
                pairs[events[at], events[at + 1] >> 32] = events[at + 1]
        everything = bucket_list.unpack(self.buckets)
        everything += bucket_list.unpack(other.buckets)
        # Exact events are newer than any bucket, and at most so many.
        border = max([bucket[0] for bucket in everything], default=NEVER)
        oldest = self.newest_ms - RETENTION_MS
        ordered = [(time, word) for (time, _), word in sorted(pairs.items(), key=lambda pair: pair[0][0])]
        # As in `_prune`, the last event before the newest stays: a read at the newest looks for it.
        last = max([time for time, _ in ordered if time < self.newest_ms], default=oldest)
        oldest = min(oldest, last - 1)
        exact = [(time, word) for time, word in ordered if time >= border and time > oldest]
        if len(exact) > KEPT_EVENTS + FOLDED_EVENTS:
            exact = exact[-KEPT_EVENTS:]
        for time, word in ordered[: len(ordered) - len(exact)]:
            everything.append(bucket_list.single(time, word & 0xFFFFFFFF))
        self.events = array("q", [number for event in exact for number in event])
        self._compress(everything)
