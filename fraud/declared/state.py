"""The state of one entity in a declared stream view: what its recent events leave behind, mergeable.

As `fraud.state.velocity` does for the standard windows, it keeps the newest events exactly and older ones
in buckets of bounded error; maxima and minima of what was folded stand in stairs, the last uses of
different values in tables. Windows are computed when the state is read (`fraud.declared.loops`).

Guarantees, for reads at or after the newest event:

* `count`, `count_if`, `sum`, `mean`, `std`: exact up to `EXACT` events inside the longest window; beyond,
  counts and sums of values that are not negative are within `ERROR` of the truth, as long as `MOST_BUCKETS`
  buckets are enough for that (else the bound grows by quarters until they are);
* `last`: exact; `max` and `min`: exact up to `STEPS` steps, then too extreme by `STEP` at most, which grows
  by quarters where values fall so far that more steps would be needed;
* `count_distinct`: exact up to `DISTINCT`, then within `DISTINCT_MEDIAN` of the truth for half of all
  entities and within `DISTINCT_ERROR` for 999 of 1,000, up to a million different values and more;
* `new`: exact; null, and never a guess, where the value is not among the last `DISTINCT` ones of the window;
* a window that reaches back before SINCE is null.
"""

from __future__ import annotations

from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fraud.declared.layout import (
    ERROR,
    FIRST,
    FOLDED,
    KEPT,
    MOST_BUCKETS,
    MOST_ENTRIES,
    MOST_STEPS,
    SEEDED,
    SINCE,
    STEPS,
    VERSION,
    Layout,
)
from fraud.declared.loops import merged_buckets
from fraud.declared.packed import packed, unpack_into
from fraud.declared.seen import DeclaredSeen
from fraud.declared.sketch import Sketch
from fraud.declared.stairs import Step, fewer_steps, put
from fraud.state import last_seen
from fraud.state.last_seen import BEFORE_END, ENTRY_BYTES, KEY_BYTES, LAST_AT, NEVER, TIME_BYTES
from fraud.state.layout import STRIDE_BITS

_MOST_SLACK: Final = 1e6
_MOST_TABLE: Final = MOST_ENTRIES * ENTRY_BYTES
_ONE_MORE: Final = _MOST_TABLE + ENTRY_BYTES
Words = NDArray[np.int64]


class DeclaredState:
    """One entity's state. Times are event times in UTC milliseconds."""

    __slots__ = (
        "buckets",
        "events",
        "header",
        "layout",
        "loose",
        "newest_ms",
        "sketches",
        "stairs",
        "tables",
    )

    def __init__(self, layout: Layout, since_ms: int | None = None) -> None:
        self.layout = layout
        self.header = array("q", layout.blank)
        #: From this event time on, every event is known (0: all there ever were).
        if since_ms is not None:
            self.header[SINCE] = since_ms
        self.newest_ms: int = NEVER
        self.events = bytearray()
        self.buckets = bytearray()
        self.loose = 0
        #: Per maximum and minimum (negated): newest time, extreme, least extreme of the group.
        self.stairs: list[list[Step]] = [[] for _ in range(len(layout.highs) + len(layout.lows))]
        self.tables: tuple[bytearray, ...] = tuple([bytearray() for _ in layout.tables])
        #: Per table, what it had no room for; None where nobody counts that, or nothing was dropped yet.
        self.sketches: list[Sketch | None] = [None for _ in layout.tables]

    @property
    def version(self) -> int:
        """Known-at of the newest update, microseconds UTC: strictly increasing per entity."""
        return self.header[VERSION]

    def raise_version(self, version: int) -> None:
        """Make the version at least `version`, such as one that another writer has stored."""
        self.header[VERSION] = max(version, self.header[VERSION])

    def add(self, seen: DeclaredSeen, place: int = 0) -> bool:
        """Add one event; False if the exact part already holds it (nothing changes)."""
        time, newest, layout = seen.event_ms, self.newest_ms, self.layout
        if time <= newest:
            return self._add_late(seen)
        if (time ^ newest) >> STRIDE_BITS:
            self._forget(time)
        self.newest_ms = time
        header = self.header
        known = time * 1000 + 1
        header[VERSION] = known if known > header[VERSION] else header[VERSION] + 1
        width = 8 * layout.event_words
        if self.events:
            self._prune(time - layout.retention_ms)
        elif header[FIRST] == NEVER or time < header[FIRST]:
            header[FIRST] = time
        record = seen.record
        self.events += record[:width]
        if len(self.events) > (KEPT + FOLDED) * width:
            self._fold()
        at = width
        for index, table in enumerate(self.tables):
            key = record[at : at + KEY_BYTES]
            at += KEY_BYTES
            if any(key):
                self._use(index, table, key, time, record[:TIME_BYTES])
        return True

    def _use(self, index: int, table: bytearray, key: bytes, time: int, time_bytes: bytes) -> None:
        """Note that `key` was used by the newest event."""
        at = table.rfind(key)
        if at < 0:
            oldest = time - self.layout.table_retention_ms[index]
            last_seen.append(table, key, time_bytes, oldest, _ONE_MORE)
            if len(table) > _MOST_TABLE:
                self._drop(index)
        elif at % ENTRY_BYTES:  # the same bytes by chance, across two values
            self._insert(index, key, time)
        else:
            before = table[at + LAST_AT : at + BEFORE_END]
            del table[at : at + ENTRY_BYTES]
            table += key + before + time_bytes

    def _insert(self, index: int, key: bytes, *uses: int) -> None:
        oldest = self.newest_ms - self.layout.table_retention_ms[index]
        table = self.tables[index]
        last_seen.insert(table, key, uses, oldest, _ONE_MORE)
        if len(table) > _MOST_TABLE:
            self._drop(index)

    def _drop(self, index: int) -> None:
        """Move the value that was used longest ago from a full table to its sketch, if it has one."""
        table = self.tables[index]
        if self.layout.sketched[index]:
            sketch = self.sketches[index]
            if sketch is None:
                sketch = self.sketches[index] = Sketch()
            ((key, last, _),) = last_seen.entries(table[:ENTRY_BYTES])
            sketch.add(key, last, self.newest_ms - self.layout.table_retention_ms[index])
        del table[:ENTRY_BYTES]

    def _forget(self, time: int) -> None:
        """Forget what a state whose newest event is at `time` no longer knows."""
        if self.events and self.newest_ms < time - self.layout.ttl_ms:
            header = self.header
            header[FIRST] = time
            del self.events[:]
            self.buckets.clear()
            self.loose = 0
            for steps in self.stairs:
                steps.clear()
            for table in self.tables:
                table.clear()
            self.sketches = [None for _ in self.tables]
        for table, retention in zip(self.tables, self.layout.table_retention_ms, strict=True):
            last_seen.forget(table, time - retention)

    def _add_late(self, seen: DeclaredSeen) -> bool:
        """Add an event that is no newer than the newest."""
        header, events, layout = self.header, self.events, self.layout
        time, newest, width = seen.event_ms, self.newest_ms, 8 * layout.event_words
        if time < newest - layout.ttl_ms:
            header[VERSION] += 1
            return True
        record = seen.record
        if time > newest - layout.retention_ms:
            end = len(events)
            while end and _time(events, end - width) > time:
                end -= width
            at = end
            while at and _time(events, at - width) == time:
                at -= width
                if events[at + 12 : at + 16] == record[12:16]:
                    return False
            if end == 0 and self._has_folded:
                self._add_loose(bytearray(record[:width]))
            else:
                events[end:end] = record[:width]
                if len(events) > (KEPT + FOLDED) * width:
                    self._fold()
        header[VERSION] += 1
        if time < header[FIRST]:
            header[FIRST] = time
        at = width
        for index in range(len(self.tables)):
            key = record[at : at + KEY_BYTES]
            at += KEY_BYTES
            if any(key):
                self._insert(index, key, time)
        return True

    @property
    def _has_folded(self) -> bool:
        """Whether events have left the exact part: an older one then goes where they went."""
        if self.layout.bucketed:
            return bool(self.buckets) or any(self.stairs)
        return any(self.stairs) or len(self.events) >= KEPT * 8 * self.layout.event_words

    def _prune(self, oldest: int) -> None:
        """Drop events, leading buckets and steps that ended at `oldest` or before, but the last event."""
        width, size = 8 * self.layout.event_words, 8 * self.layout.bucket_words
        events, buckets = self.events, self.buckets
        most, cut = len(events) - width, 0
        while cut < most and _time(events, cut) <= oldest:
            cut += width
        if cut:
            del events[:cut]
        cut = 0
        while cut < len(buckets) and _time(buckets, cut + 8) <= oldest:
            cut += size
        if cut:
            del buckets[:cut]
            self.loose = min(self.loose, len(buckets) // size)
        for index, sketch in enumerate(self.sketches):
            if (
                sketch is not None
                and sketch.times[-1] < self.newest_ms - self.layout.table_retention_ms[index]
            ):
                self.sketches[index] = None
        for steps, retention in zip(self.stairs, self.layout.stair_retention_ms, strict=True):
            border = oldest + self.layout.retention_ms - retention
            while steps and steps[0][0] <= border:
                del steps[0]

    def _fold(self) -> None:
        """Move the oldest events of the exact part to the buckets and stairs."""
        moved = len(self.events) - KEPT * 8 * self.layout.event_words
        folded = self.events[:moved]
        del self.events[:moved]
        self._add_loose(folded)

    def _add_loose(self, folded: bytearray) -> None:
        """Append events as buckets of one; merge once these are a quarter of all buckets."""
        layout = self.layout
        events = np.frombuffer(bytes(folded), dtype=np.int64).reshape(-1, layout.event_words)
        self._climb(events)
        if not layout.bucketed:
            return
        loose = self._singles(events)
        self.loose += len(loose)
        size = 8 * layout.bucket_words
        in_order = not self.buckets or int(loose[0, 0]) >= _time(self.buckets, len(self.buckets) - size)
        self.buckets += loose.tobytes()
        if (
            4 * self.loose > len(self.buckets) // size
            or len(self.buckets) > MOST_BUCKETS * size
            or not in_order
        ):
            self._compress()

    def _singles(self, events: Words) -> Words:
        """Every one of `events` as a bucket of its own."""
        layout = self.layout
        loose = np.zeros((len(events), layout.bucket_words), dtype=np.int64)
        reals = loose.view(np.float64)
        loose[:, 0] = loose[:, 1] = events[:, 0]
        reals[:, 2] = 1.0
        for flag in range(len(layout.flags)):
            reals[:, 3 + flag] = events[:, 1] >> flag & 1
        values = events[:, 2:].view(np.float64)
        for moment in range(layout.moments):
            at = 3 + len(layout.flags) + 3 * moment
            column = values[:, moment]
            known = column == column
            reals[:, at] = known
            reals[:, at + 1] = np.where(known, column, 0.0)
            reals[:, at + 2] = np.where(known, column * column, 0.0)
        return loose

    def _climb(self, events: Words) -> None:
        """Put the values of folded events on the stairs of their columns."""
        layout = self.layout
        values = events[:, 2:].view(np.float64)
        for number, steps in enumerate(self.stairs):
            high = number < len(layout.highs)
            name = layout.highs[number] if high else layout.lows[number - len(layout.highs)]
            column = values[:, layout.values.index(name)]
            for time, value in zip(events[:, 0].tolist(), column.tolist(), strict=True):
                if value == value:
                    put(steps, time, value if high else -value)
            if len(steps) > MOST_STEPS:
                steps[:] = fewer_steps(steps)

    def _compress(self) -> None:
        layout = self.layout
        buckets = np.frombuffer(bytes(self.buckets), dtype=np.int64).reshape(-1, layout.bucket_words)
        buckets = buckets[buckets[:, 1] > self.newest_ms - layout.retention_ms]
        buckets = np.ascontiguousarray(buckets[np.lexsort((buckets[:, 0], buckets[:, 1]))])
        events = np.frombuffer(bytes(self.events), dtype=np.int64).reshape(-1, layout.event_words)
        # A read at the newest event's time leaves that event out, so it makes no room.
        singles = self._singles(events[events[:, 0] != self.newest_ms]).view(np.float64)
        newer = np.zeros(1 + len(layout.flags) + 2 * layout.moments)
        newer[: 1 + len(layout.flags)] = singles[:, 2 : 3 + len(layout.flags)].sum(axis=0)
        for moment in range(layout.moments):
            at, to = 3 + len(layout.flags) + 3 * moment, 1 + len(layout.flags) + 2 * moment
            newer[to] = singles[:, at].sum()
            newer[to + 1] = np.abs(singles[:, at + 1]).sum()
        slack = 2 * ERROR
        merged = merged_buckets(buckets, len(layout.flags), layout.moments, newer, slack)
        while len(merged) > MOST_BUCKETS and slack < _MOST_SLACK:
            slack *= 1.25
            merged = merged_buckets(buckets, len(layout.flags), layout.moments, newer, slack)
        self.buckets = bytearray(merged[-MOST_BUCKETS:].tobytes())
        self.loose = 0

    def pack(self) -> bytes:
        """The state as bytes: equal states give equal bytes."""
        return packed(self)

    @classmethod
    def unpack(cls, layout: Layout, data: bytes) -> DeclaredState:
        """The state that `data` packs; StateError for another layout's, and for damaged bytes."""
        state = cls(layout)
        unpack_into(state, data)
        if state.events:
            state.newest_ms = _time(state.events, len(state.events) - 8 * layout.event_words)
        return state

    def merge(self, other: DeclaredState) -> bool:
        """Take in another state of the same entity, such as history that a backfill rebuilt.

        The two may share events of their exact parts, which are counted once; no event may be in a bucket of
        one and anywhere in the other. Merging the same `other` again changes nothing and returns False.
        """
        header, theirs, layout = self.header, other.header, self.layout
        if theirs[VERSION] <= header[SEEDED]:
            return False
        header[SEEDED] = theirs[VERSION]
        header[SINCE] = min(header[SINCE], theirs[SINCE])
        header[VERSION] = (
            theirs[VERSION] if header[VERSION] == 0 else max(header[VERSION], theirs[VERSION]) + 1
        )
        if header[FIRST] == NEVER or NEVER < theirs[FIRST] < header[FIRST]:
            header[FIRST] = theirs[FIRST]
        self.newest_ms = max(self.newest_ms, other.newest_ms)
        self._merge_events(other)
        for index, table in enumerate(other.tables):
            for key, last, before in last_seen.entries(table):
                self._insert(index, key, last, before)
            theirs_sketch = other.sketches[index]
            if theirs_sketch is not None:
                sketch = self.sketches[index] or Sketch()
                sketch.merge(theirs_sketch, self.newest_ms - layout.table_retention_ms[index])
                self.sketches[index] = sketch or None
        for steps, more in zip(self.stairs, other.stairs, strict=True):
            for time, high, _ in more:
                put(steps, time, high)
            if len(steps) > STEPS:
                steps[:] = fewer_steps(steps)
        self._prune(self.newest_ms - layout.retention_ms)
        return True

    def _merge_events(self, other: DeclaredState) -> None:
        layout = self.layout
        width = 8 * layout.event_words
        found = {}
        for events in (other.events, self.events):
            for at in range(0, len(events), width):
                found[_time(events, at), bytes(events[at + 12 : at + 16])] = bytes(events[at : at + width])
        self.buckets += other.buckets
        newest = np.frombuffer(bytes(self.buckets), dtype=np.int64).reshape(-1, layout.bucket_words)[:, 1]
        border = int(newest.max()) if len(newest) else NEVER
        ordered = [found[key] for key in sorted(found, key=lambda key: key[0])]
        exact = [event for event in ordered if _time(event, 0) >= border][-KEPT:]
        self.events = bytearray(b"".join(exact))
        older = b"".join(ordered[: len(ordered) - len(exact)])
        if older:
            moved = np.frombuffer(older, dtype=np.int64).reshape(-1, layout.event_words)
            self._climb(moved)
            if layout.bucketed:
                self.buckets += self._singles(moved).tobytes()
        if self.buckets:
            self._compress()


def _time(data: bytes | bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little", signed=True)
