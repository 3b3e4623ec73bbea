"""Velocity state: what one entity's recent transactions leave behind, in one small value.

A state holds the newest events exactly, older ones in buckets whose counts and sums are small
beside everything newer (the idea of exponential histograms: Datar, Gionis, Indyk, Motwani,
"Maintaining Stream Statistics over Sliding Windows", SIAM J. Computing 31(6), 2002; the merge
rule on the measure itself follows smooth histograms, Braverman and Ostrovsky, FOCS 2007), and
the last use of every counterparty, device and country. No window is stored: windows are
computed when the state is read (`fraud.windows`), so they decay with no new event.

Guarantees, for reads at or after the newest event:

* up to `EXACT_EVENTS` events inside the longest window: every count and sum is exact;
* beyond: counts and sums of every window are within `ERROR` (2 %) of the truth, as long as no
  more than `MAX_BUCKETS` buckets are needed (else the bound doubles, and doubles again);
* distinct counterparties are exact up to `DISTINCT_LIMIT`, and never reported above it;
* an event of the exact part is never counted twice (same transaction id and event time).

Packed layout, little-endian 64-bit words: header, events (time; id and amount), buckets (ages
of newest and oldest; count; sum; sum of squares), last-seen tables (hash, last, one before).
"""

from __future__ import annotations

from array import array
from typing import Final

from fraud.entities import ENTITIES, WINDOWS, Entity
from fraud.observation import Observation

STATE_VERSION: Final = 1
ERROR: Final = 0.02
EXACT_EVENTS: Final = 64
_FOLD: Final = 16
MAX_BUCKETS: Final = 360
DISTINCT_LIMIT: Final = 48
HABIT_LIMIT: Final = 16

#: Events stay this long behind the newest: the longest window and two hours of lateness.
RETENTION_MS: Final = WINDOWS[-1].milliseconds + 2 * 3_600_000
HABIT_RETENTION_MS: Final = 30 * 86_400_000

_NEVER: Final = -(1 << 60)
_SATURATED: Final = (1 << 63) - 1

# Header words.
KIND, TABLES, VERSION, NEWEST, FIRST, SEEDED, BASE, TIME1, PLACE1, TIME2, PLACE2 = range(11)
HEADER_WORDS: Final = 11
_PLACE_OF: Final = {entity.name: place for place, entity in enumerate(ENTITIES)}
_TABLE_LIMITS: Final = tuple(
    tuple([DISTINCT_LIMIT] * len(entity.counterparties) + [HABIT_LIMIT] * len(entity.habits))
    for entity in ENTITIES
)
_TABLE_RETENTION: Final = tuple(
    tuple([RETENTION_MS] * len(entity.counterparties) + [HABIT_RETENTION_MS] * len(entity.habits))
    for entity in ENTITIES
)


class StateError(ValueError):
    """Packed bytes that are no state this version can read."""


class VelocityState:
    """One entity's mergeable velocity state. Times are event times in UTC milliseconds."""

    __slots__ = ("_bucket_bytes", "buckets", "events", "header", "place", "tables")

    def __init__(self, entity: Entity) -> None:
        self.place: int = _PLACE_OF[entity.name]
        self.header = array("q", (0, 0, 0, _NEVER, _NEVER, 0, 0, _NEVER, 0, _NEVER, 0))
        self.events = array("q")
        self.buckets: list[list[int]] = []
        self.tables: list[array[int]] = [array("q") for _ in entity.tracked]
        self._bucket_bytes = b""

    @property
    def version(self) -> int:
        """Known-at of the newest update, microseconds UTC: strictly increasing per entity."""
        return self.header[VERSION]

    @property
    def newest_ms(self) -> int:
        """Event time of the newest event, or a time long past if there is none."""
        return self.header[NEWEST]

    def add(self, seen: Observation, place: int) -> bool:
        """Add one transaction; False if the exact part already holds it (nothing changes).

        `place` is this entity's index in `ENTITIES`. Late events go where they belong; one
        that is older than the retention changes only the version and the first-seen time.
        """
        header = self.header
        events = self.events
        time = seen.event_ms
        newest = header[NEWEST]
        word = ((seen.transaction_key & 0xFFFFFFFF) << 32 | seen.amount) - (
            (1 << 64) if seen.transaction_key & 0x80000000 else 0
        )
        if time > newest:
            header[NEWEST] = time
            events.append(time)
            events.append(word)
            oldest = time - RETENTION_MS
            if events[0] <= oldest:
                self._prune(oldest)
            if len(events) > 2 * (EXACT_EVENTS + _FOLD):
                self._fold()
        elif not self._add_late(time, word, newest):
            return False
        version = header[VERSION]
        known = time * 1000
        header[VERSION] = known + 1 if known > version else version + 1
        if time < header[FIRST] or header[FIRST] == _NEVER:
            header[FIRST] = time
        tables = self.tables
        for index, key in enumerate(seen.tracked[place]):
            if key:
                table = tables[index]
                if key in table:
                    at = table.index(key) + 1
                    last = table[at]
                    if time > last:
                        table[at] = time
                        table[at + 1] = last
                    elif last > time > table[at + 1]:
                        table[at + 1] = time
                else:
                    self._remember(index, key, time)
        if seen.location is not None and ENTITIES[place].located:
            self._locate(time, seen.location)
        return True

    def _add_late(self, time: int, word: int, newest: int) -> bool:
        events = self.events
        if time <= newest - RETENTION_MS:
            return True
        end = len(events)
        while end and events[end - 2] > time:
            end -= 2
        at = end
        while at and events[at - 2] == time:
            at -= 2
            if events[at + 1] >> 32 == word >> 32:
                return False
        if at == 0 and self.buckets and (not events or time < events[0]):
            self._add_to_buckets(time, word & 0xFFFFFFFF)
        else:
            events[end:end] = array("q", (time, word))
            if len(events) > 2 * (EXACT_EVENTS + _FOLD):
                self._fold()
        return True

    def _prune(self, oldest: int) -> None:
        events = self.events
        cut = 0
        while cut < len(events) and events[cut] <= oldest:
            cut += 2
        del events[:cut]
        buckets = self.buckets
        if buckets and buckets[0][0] <= oldest:
            self.buckets = [bucket for bucket in buckets if bucket[0] > oldest]
            self._pack_buckets()
        for index, table in enumerate(self.tables):
            retention = _TABLE_RETENTION[self.place][index]
            if table and min(table[1::3]) <= self.header[NEWEST] - retention:
                self._forget(index, self.header[NEWEST] - retention)

    def _forget(self, index: int, oldest: int) -> None:
        table = self.tables[index]
        kept = array("q")
        for at in range(0, len(table), 3):
            if table[at + 1] > oldest:
                kept.extend(table[at : at + 3])
        self.tables[index] = kept

    def _remember(self, index: int, key: int, time: int) -> None:
        """A first sight of `key`: forget what is too old, then the longest unseen, if full."""
        retention = _TABLE_RETENTION[self.place][index]
        if time <= self.header[NEWEST] - retention:
            return
        limit = 3 * _TABLE_LIMITS[self.place][index]
        table = self.tables[index]
        if len(table) >= limit:
            self._forget(index, self.header[NEWEST] - retention)
            table = self.tables[index]
            if len(table) >= limit:
                times = table[1::3]
                stalest = min(times)
                if time <= stalest:
                    return
                at = 3 * times.index(stalest)
                del table[at : at + 3]
        table.extend((key, time, _NEVER))

    def _locate(self, time: int, location: int) -> None:
        header = self.header
        if time > header[TIME1]:
            header[TIME2], header[PLACE2] = header[TIME1], header[PLACE1]
            header[TIME1], header[PLACE1] = time, location
        elif header[TIME1] > time > header[TIME2]:
            header[TIME2], header[PLACE2] = time, location

    def _fold(self) -> None:
        """Move the oldest events of the exact part into buckets of one, then merge buckets."""
        events = self.events
        moved = max(0, len(events) - 2 * EXACT_EVENTS)
        oldest = self.header[NEWEST] - RETENTION_MS
        buckets = [bucket for bucket in self.buckets if bucket[0] > oldest]
        buckets.extend([_bucket(events[at], events[at + 1] & 0xFFFFFFFF) for at in range(0, moved, 2)])
        buckets.sort()
        del events[:moved]
        self.buckets = buckets
        self._compress()

    def _add_to_buckets(self, time: int, amount: int) -> None:
        self.buckets.append(_bucket(time, amount))
        self.buckets.sort()
        if len(self.buckets) > MAX_BUCKETS:
            self._compress()
        else:
            self._pack_buckets()

    def _compress(self) -> None:
        """Merge neighbours that stay small beside everything newer, from newest to oldest.

        A window's edge cuts at most the buckets that straddle it, each counted half; with a
        merged bucket of at most 2 * ERROR of what is newer, the half is at most ERROR of it.
        """
        slack = 2 * ERROR
        while True:
            newer_count = len(self.events) // 2
            newer_sum = sum([word & 0xFFFFFFFF for word in self.events[1::2]])
            merged: list[list[int]] = []
            buckets = self.buckets
            index = len(buckets) - 1
            while index >= 0:
                newest, oldest, count, total, squares = buckets[index]
                count_room, sum_room = slack * newer_count, slack * newer_sum
                index -= 1
                while index >= 0:
                    older = buckets[index]
                    if count + older[2] > count_room or total + older[3] > sum_room:
                        break
                    if older[1] < oldest:
                        oldest = older[1]
                    count += older[2]
                    total += older[3]
                    squares += older[4]
                    index -= 1
                merged.append([newest, oldest, count, total, min(squares, _SATURATED)])
                newer_count += count
                newer_sum += total
            merged.reverse()
            self.buckets = merged
            if len(merged) <= MAX_BUCKETS:
                break
            slack *= 2
        self._pack_buckets()

    def _pack_buckets(self) -> None:
        buckets = self.buckets
        if not buckets:
            self._bucket_bytes = b""
            return
        base = self.header[BASE] = min([bucket[1] for bucket in buckets])
        words = array("q")
        for newest, oldest, count, total, squares in buckets:
            words.extend(((newest - base) << 32 | (oldest - base), count, total, squares))
        self._bucket_bytes = words.tobytes()

    def pack(self) -> bytes:
        """The state as bytes: equal states give equal bytes."""
        header = self.header
        header[KIND] = STATE_VERSION | self.place << 8 | len(self.events) << 15 | len(self.buckets) << 32
        sizes = 0
        parts = [b"", self.events.tobytes(), self._bucket_bytes]
        for index, table in enumerate(self.tables):
            sizes |= len(table) // 3 << 16 * index
            parts.append(table.tobytes())
        header[TABLES] = sizes
        parts[0] = header.tobytes()
        return b"".join(parts)

    @classmethod
    def unpack(cls, entity: Entity, data: bytes) -> VelocityState:
        """The state that `data` packs; StateError if it is none, or another version's."""
        place = _PLACE_OF[entity.name]
        if len(data) < 8 * HEADER_WORDS or len(data) % 8:
            raise StateError(f"{len(data)} bytes are no packed {entity.name} state")
        words = array("q", data)
        kind = words[KIND]
        if kind & 0xFF != STATE_VERSION:
            raise StateError(
                f"the {entity.name} state was packed by version {kind & 0xFF}, this program reads "
                f"version {STATE_VERSION}: rebuild it with the velocity backfill"
            )
        if kind >> 8 & 0x7F != place:
            raise StateError(f"the bytes pack another entity's state, not a {entity.name}'s")
        state = cls(entity)
        event_words, bucket_count = (kind >> 16 & 0xFFFF) * 2, kind >> 32 & 0xFFFF
        sizes = [words[TABLES] >> 16 * index & 0xFFFF for index in range(len(state.tables))]
        if len(words) != HEADER_WORDS + event_words + 4 * bucket_count + 3 * sum(sizes):
            raise StateError(f"the {entity.name} state is cut short or has extra bytes")
        state.header = words[:HEADER_WORDS]
        at = HEADER_WORDS + event_words
        state.events = words[HEADER_WORDS:at]
        base = words[BASE]
        for start in range(at, at + 4 * bucket_count, 4):
            ages, count, total, squares = words[start : start + 4]
            state.buckets.append([base + (ages >> 32), base + (ages & 0xFFFFFFFF), count, total, squares])
        state._bucket_bytes = words[at : at + 4 * bucket_count].tobytes()
        at += 4 * bucket_count
        for index, size in enumerate(sizes):
            state.tables[index] = words[at : at + 3 * size]
            at += 3 * size
        return state

    def merge(self, other: VelocityState) -> bool:
        """Take in another state of the same entity, such as history that a backfill rebuilt.

        The two may share events of their exact parts, which are counted once; buckets must
        not overlap. Merging the same `other` again changes nothing and returns False.
        """
        header, theirs = self.header, other.header
        if theirs[VERSION] <= header[SEEDED]:
            return False
        header[SEEDED] = theirs[VERSION]
        header[NEWEST] = max(header[NEWEST], theirs[NEWEST])
        if header[FIRST] == _NEVER or _NEVER < theirs[FIRST] < header[FIRST]:
            header[FIRST] = theirs[FIRST]
        header[VERSION] = theirs[VERSION] if header[VERSION] == 0 else max(header[VERSION], theirs[VERSION]) + 1
        pairs = {}
        for events in (other.events, self.events):
            for at in range(0, len(events), 2):
                pairs[events[at], events[at + 1] >> 32] = events[at + 1]
        ours = array("q")
        for (time, _), word in sorted(pairs.items(), key=lambda pair: pair[0][0]):
            ours.extend((time, word))
        self.events = ours
        self.buckets = sorted([list(bucket) for bucket in self.buckets + other.buckets])
        for index, table in enumerate(other.tables):
            for at in range(0, len(table), 3):
                self._merge_use(index, *table[at : at + 3])
        for time, place in ((TIME2, PLACE2), (TIME1, PLACE1)):
            if theirs[time] != _NEVER:
                self._locate(theirs[time], theirs[place])
        self._prune(header[NEWEST] - RETENTION_MS)
        if len(self.events) > 2 * (EXACT_EVENTS + _FOLD) or len(self.buckets) > MAX_BUCKETS:
            self._fold()
        self._pack_buckets()
        return True

    def _merge_use(self, index: int, key: int, last: int, before: int) -> None:
        table = self.tables[index]
        if key not in table:
            self._remember(index, key, last)
            table = self.tables[index]
            if key not in table:
                return
        at = table.index(key) + 1
        times = sorted({last, before, table[at], table[at + 1]}, reverse=True)
        table[at], table[at + 1] = times[0], times[1] if len(times) > 1 else _NEVER


def _bucket(time: int, amount: int) -> list[int]:
    return [time, time, 1, amount, amount * amount]


def describe(data: bytes) -> dict[str, object]:
    """A packed state in readable form, for a person at a shell."""
    if len(data) < 8 * HEADER_WORDS:
        raise StateError(f"{len(data)} bytes are no packed state")
    place = array("q", data[:8])[0] >> 8 & 0x7F
    if place >= len(ENTITIES):
        raise StateError("the bytes name an entity that does not exist")
    entity = ENTITIES[place]
    state = VelocityState.unpack(entity, data)
    return {
        "entity": entity.name,
        "version_us": state.version,
        "newest_ms": state.newest_ms,
        "first_ms": state.header[FIRST],
        "bytes": len(data),
        "events": [
            {"event_ms": state.events[at], "amount_reference": state.events[at + 1] & 0xFFFFFFFF}
            for at in range(0, len(state.events), 2)
        ],
        "buckets": [
            dict(zip(("newest_ms", "oldest_ms", "count", "sum", "squares"), bucket, strict=True))
            for bucket in state.buckets
        ],
        "last_seen": {
            name: len(state.tables[index]) // 3 for index, name in enumerate(entity.tracked)
        },
    }
