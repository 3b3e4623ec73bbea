"""Recent payments laid over the states that were read, before windows are computed.

The same state class that the stream runs takes in what it has not counted yet, so a row is what it
would be had the stream been faster. An event that a state holds already, by its transaction's
identity, is not counted twice. States stay unpacked as long as their card goes on: in a burst each
payment adds one event.

    state in Redis    . . .  a b c |                       what the stream has counted
    list of the card         b c d e |x                    what came before x, in one order for all workers
    x is decided on   . . .  a b c d e
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from bentos.base.work import Work
from bentos.features.online_features import OnlineRows
from bentos.features.recent_events import CARD, OVERLAID, Before, Entry, RecentEvents, entries_of
from fraud.features.entities import ENTITIES
from fraud.state.layout import LATENESS_MS
from fraud.state.observation import read_records, record_key
from fraud.state.velocity import StateError, VelocityState
from fraud.state.window_loops import counted_at
from fraud.state.windows import joined

#: Entities whose states stay unpacked.
_MOST: Final = 512
_TIME_BYTES: Final = 8


class _Live:
    """A state with recent events in it: `base` is what was read, `counted` the identities of all events
    that it holds exactly, `added` those that were laid over it and when they were known. `own` and
    `shared` are the entries that were looked at so far, the last of which was known at `clock`."""

    __slots__ = ("added", "base", "clock", "counted", "oldest_ms", "own", "shared", "state")

    def __init__(self, place: int, base: bytes | None) -> None:
        entity = ENTITIES[place]
        self.base = base
        try:
            self.state = VelocityState.unpack(entity, base) if base else VelocityState(entity)
        except StateError:  # as if there were none, like everywhere
            self.state = VelocityState(entity)
        events = self.state.events
        self.counted = {word >> 32 for word in events[1::2]}
        #: What is as old as the exact part, where that is full, was counted before.
        self.oldest_ms = events[0] if self.state.buckets else -1
        self.added: dict[int, int] = {}
        self.own = self.shared = b""
        self.clock = 0

    def goes_on(self, base: bytes | None, shared: bytes, own: bytes) -> bool:
        """Whether there is no more to do than to add what these entries have more."""
        return base == self.base and shared.startswith(self.shared) and own.startswith(self.own)


class Overlay:
    """Lays what is `recent` over states. One event loop owns it."""

    def __init__(self, recent: RecentEvents) -> None:
        self._recent = recent
        self._live: dict[tuple[int, str], _Live] = {}

    def put(self, batch: Sequence[Work], online: OnlineRows, before: dict[int, Before]) -> None:
        """Change the rows of `online` that others came `before`; these works know whom they were told of."""
        rows = len(batch)
        states = [state for column in online.states for state in column]
        for row in sorted(before):
            work, (shared, own) = batch[row], before[row]
            told: dict[int, int] = {}
            counts_ms, known_us = work.event_ms, online.known_us[row]
            for index, place in enumerate(OVERLAID):
                at = place * rows + row
                alone = own[index] if shared is None or place != CARD else b""
                live = self._over(work, place, states[at], shared or b"", alone)
                known_us = max(known_us, live.clock + 1)
                if live.added:
                    states[at] = live.state.pack()
                    told |= live.added
                counts_ms = max(counts_ms, _counted_at(states[at], place, work))
            if told:
                work.overlaid = tuple(sorted(told.values()))
                known_us = max(known_us, work.overlaid[-1] + 1)
            online.known_us[row] = known_us
            if counts_ms > work.event_ms:
                work.lateness_ms += counts_ms - work.event_ms
                work.event_ms = counts_ms
                self._recent.moved(work)
        online.words, online.ends = joined(states)

    def _over(self, work: Work, place: int, base: bytes | None, shared: bytes, own: bytes) -> _Live:
        """The state with all payments before `work` in it, each once: this worker's `own`, and those of the
        card's list in the order that all workers see."""
        entity, mine = ENTITIES[place], work.identity >> 32
        value = getattr(work.transaction, entity.key)
        live = self._live.get((place, value))
        if live is None or mine in live.added or not live.goes_on(base, shared, own):
            live = _Live(place, base)
        where, key = record_key(entity.name, value)
        again = False  # it was asked for before, and must not count itself
        for entry in entries_of(own[len(live.own) :]):
            again |= entry.identity == mine
            self._add(live, place, entry, entry.known_us, mine)
        for entry in entries_of(shared[len(live.shared) :]):
            again |= entry.identity == mine
            live.clock = max(entry.known_us, live.clock + 1)
            if entry.record[where] == key:
                self._add(live, place, entry, live.clock, mine)
        live.own, live.shared = own, shared
        if len(self._live) >= _MOST:
            self._live.clear()
        if again:
            self._live.pop((place, value), None)
        else:
            self._live[place, value] = live
        return live

    def _add(self, live: _Live, place: int, entry: Entry, known_us: int, mine: int) -> None:
        """Count a payment unless it was, no earlier than what its entity did before: as it was decided."""
        if entry.identity == mine or entry.identity in live.counted:
            return
        record, newest = entry.record, live.state.newest_ms
        noted = int.from_bytes(record[:_TIME_BYTES], "little")
        event_ms = self._recent.moved_ms.get(entry.identity, noted)
        if event_ms < newest <= event_ms + LATENESS_MS:
            event_ms = newest
        if event_ms <= live.oldest_ms:
            return
        if event_ms != noted:
            record = event_ms.to_bytes(_TIME_BYTES, "little") + record[_TIME_BYTES:]
        (seen,) = read_records(place, record)
        live.state.add(seen, place)
        live.counted.add(entry.identity)
        live.added[entry.identity] = known_us


def _counted_at(state: bytes | None, place: int, work: Work) -> int:
    """When `work` counts beside what the state holds."""
    if not state:
        return work.event_ms
    words = np.frombuffer(state, dtype=np.int64)
    return counted_at(words, 0, len(words), place, work.event_ms, work.identity)
