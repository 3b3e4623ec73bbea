"""The keyed step: one logic per shard holds the velocity states of its entities."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from bytewax.operators import StatefulBatchLogic

from fraud.entities import ENTITIES, VELOCITY_TTL
from fraud.settings import Settings
from fraud.state_layout import READ_VERSIONS, STATE_VERSION, WHAT_IS_READ
from fraud.velocity import VelocityState
from streaming import metrics
from streaming.disk import Disk
from streaming.redis_sink import REWRITE_S, stored_version_reader
from streaming.shard_batch import SHARD_KEYS, SHARDS, ShardBatch, Writes
from streaming.snapshots import SNAPSHOT_VERSION, SnapshotError, check_version
from streaming.state_bases import StateBases

_TTL_MS: Final = int(VELOCITY_TTL.total_seconds()) * 1000
#: Event time between two searches for idle entities.
_SWEEP_MS: Final = 3_600_000
#: States kept unpacked per shard; the others live as packed bytes and are unpacked on touch.
MOST_LIVE: Final = 20_000
#: A base is written at most every so many snapshots (the shards take turns), once this share of
#: the states has changed.
_BASE_EVERY: Final = 10
_BASE_SHARE: Final = 0.25

#: Versions (microseconds, 0 if none) that the online store holds for values of an entity place.
StoredVersions = Callable[[int, list[str]], list[int]]


class ShardLogic(StatefulBatchLogic[ShardBatch, Writes, tuple[Any, ...]]):
    """States of the entity values of one shard.

    `packed` is the truth; `live` are the states unpacked so far, `changed` those that differ from
    the last base, `later` those that changed since the writing of the next base began. An entity
    idle for VELOCITY_TTL of event time (by the shard's clock) is forgotten.

    Writes to the online store are answered later, and a server that crashes may lose its last
    second: a snapshot settles what was sent before, and names the entities written lately (in
    its own interval, the one before, and those of `REWRITE_S`). A run that resumes from it looks
    them up in the store.
    """

    def __init__(
        self,
        partitions: int,
        stored_versions: StoredVersions,
        bases: StateBases,
        settle: Callable[[], None],
        resume: tuple[Any, ...] | None = None,
    ) -> None:
        self._shard = -1
        self._stored_versions = stored_versions
        self._bases = bases
        self._settle = settle
        self._base = 0
        self._since_base = 0
        self._base_under_way: Future[None] | None = None
        self._changed: dict[str, bytes] = {}
        self._later: dict[str, bytes] = {}
        self._fresh: set[str] = set()
        self._unsure: deque[tuple[float, frozenset[str]]] = deque()
        self._replaying = set(range(partitions))
        self._replayed: set[str] = set()
        self._packed: dict[str, bytes] = {}
        self._live: dict[str, VelocityState] = {}
        self._clock = self._swept = 0
        if resume is not None:
            check_version("shard", resume[0])
            if resume[1] not in READ_VERSIONS:
                raise SnapshotError(
                    f"a shard's snapshot holds velocity states of version {resume[1]}, this program reads "
                    f"{WHAT_IS_READ}: start the program that wrote them, or rebuild them by the "
                    "velocity backfill and send them with `python -m streaming.seed`"
                )
            self._name(resume[2])
            self._clock = self._swept = resume[3]
            self._base, self._changed, self._replayed = resume[4], dict(resume[5]), {*resume[6], *resume[7]}
            if self._base:
                self._packed = bases.read(SHARD_KEYS[self._shard], self._base)
            self._packed.update(self._changed)

    @classmethod
    def builder(
        cls, configured: Settings, stopping: threading.Event, disk: Disk, settle: Callable[[], None]
    ) -> Callable[[tuple[Any, ...] | None], ShardLogic]:
        """What Bytewax calls for each shard, with the shard's snapshot if there is one."""
        stored_versions = stored_version_reader(configured, stopping)
        bases = StateBases(configured.home / "stream" / "states", disk)
        return lambda resume: cls(configured.partitions, stored_versions, bases, settle, resume)

    def on_batch(self, values: list[ShardBatch]) -> tuple[list[Writes], bool]:
        if self._shard < 0:
            self._name(values[0].shard)
        place, live = self._place, self._live
        touched: dict[str, VelocityState] = {}
        oldest = 0
        for batch in values:
            if batch.appended_ms and (batch.appended_ms < oldest or not oldest):
                oldest = batch.appended_ms
            for value, packed in batch.seeds:
                state = self._state(value)
                if state.merge(VelocityState.unpack(self._entity, packed)):
                    touched[value] = state
            for value, seen in zip(batch.values, batch.seen, strict=True):
                state = live.get(value) or self._state(value)
                if state.add(seen, place):
                    touched[value] = state
        if self._replaying:
            self._replayed.update(touched)
            self._replaying.difference_update([batch.reached for batch in values])
            if not self._replaying:
                self._catch_up(touched)
        if not touched:
            return [], StatefulBatchLogic.RETAIN
        packed_states = [state.pack() for state in touched.values()]
        changed = dict(zip(touched, packed_states, strict=True))
        self._packed.update(changed)
        self._changed.update(changed)
        if self._base_under_way is not None:
            self._later.update(changed)
        self._fresh.update(changed)
        newest = max([state.newest_ms for state in touched.values()])
        if newest > self._clock:
            self._clock = newest
            if newest - self._swept > _SWEEP_MS:
                self._sweep()
        if len(live) > MOST_LIVE:
            live.clear()
        versions = [state.version for state in touched.values()]
        return [Writes(place, list(touched), versions, packed_states, oldest)], StatefulBatchLogic.RETAIN

    def snapshot(self) -> tuple[Any, ...]:
        self._settle()
        self._renew_base()
        metrics.ENTITIES_HELD.labels(*self._labels).set(len(self._packed))
        now, unsure = time.monotonic(), self._unsure
        unsure.append((now, frozenset(self._fresh)))
        self._fresh.clear()
        while len(unsure) > 2 and unsure[0][0] < now - REWRITE_S:
            unsure.popleft()
        return (
            SNAPSHOT_VERSION,
            STATE_VERSION,
            self._shard,
            self._clock,
            self._base,
            tuple(self._changed.items()),
            tuple(self._replayed),
            tuple(frozenset().union(*[names for _, names in unsure])),
        )

    def _renew_base(self) -> None:
        """Begin the next base if it is time, and continue from it once it is on disk."""
        if self._since_base % _BASE_EVERY == 0:
            metrics.STATE_BYTES.labels(*self._labels).set(sum(map(len, self._packed.values())))
        self._since_base += 1
        if self._base_under_way is not None:
            if not self._base_under_way.done():
                return
            self._base_under_way.result()
            self._base_under_way = None
            self._base += 1
            self._bases.drop(SHARD_KEYS[self._shard], self._base)
            self._changed, self._later = self._later, {}
        if self._since_base >= _BASE_EVERY and len(self._changed) > _BASE_SHARE * len(self._packed):
            self._base_under_way = self._bases.write(SHARD_KEYS[self._shard], self._base + 1, self._packed)
            self._since_base = 0

    def _catch_up(self, touched: dict[str, VelocityState]) -> None:
        """Add to `touched` what the online store holds in another version than we do.

        An older one is from before a crash that cut a write off. A newer one was stored by the
        crashed run, which may have interleaved partitions differently, so that its version of
        the same events is a little higher. All it saw has been replayed by now: our state holds
        at least as much, takes over the stored version and replaces what was stored under it.
        """
        # What has been forgotten as idle meanwhile stays forgotten.
        values = sorted([value for value in self._replayed if value in touched or value in self._packed])
        self._replayed.clear()
        for value, stored in zip(values, self._stored_versions(self._place, values), strict=True):
            state = self._state(value)
            if stored != state.version:
                state.raise_version(stored)
                touched[value] = state

    def _name(self, shard: int) -> None:
        """Become the shard that the first batch or the snapshot names: Bytewax gives no key."""
        self._shard = shard
        self._place = shard // SHARDS
        self._entity = ENTITIES[self._place]
        self._labels = (self._entity.name, str(shard % SHARDS))
        self._since_base = shard % _BASE_EVERY  # so that bases of all shards do not fall together

    def _state(self, value: str) -> VelocityState:
        state = self._live.get(value)
        if state is None:
            packed = self._packed.get(value)
            state = VelocityState.unpack(self._entity, packed) if packed else VelocityState(self._entity)
            self._live[value] = state
        return state

    def _sweep(self) -> None:
        """Forget entities that nothing has touched for VELOCITY_TTL."""
        self._swept = self._clock
        oldest = self._clock - _TTL_MS
        for value, packed in list(self._packed.items()):
            if VelocityState.unpack(self._entity, packed).newest_ms < oldest:
                del self._packed[value]
                self._live.pop(value, None)
