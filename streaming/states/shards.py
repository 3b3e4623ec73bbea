"""The keyed step: one logic per shard holds the velocity states of its entities."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from itertools import compress
from typing import Any, Final, cast

from bytewax.operators import StatefulBatchLogic

from fraud.state.layout import STATE_VERSION, VERSION
from stores.settings import Settings
from streaming import metrics
from streaming.online.redis_sink import REWRITE_S, stored_version_reader
from streaming.states.disk import Disk
from streaming.states.guard import Guard
from streaming.states.held_states import MOST_HELD, HeldStates
from streaming.states.redo_files import Piece, PieceRef, RedoFiles
from streaming.states.shard_batch import SHARDS, ShardBatch, Writes
from streaming.states.snapshots import SNAPSHOT_VERSION, SnapshotError, check_version
from streaming.states.state_bases import StateBases
from streaming.states.tracks import STANDARD, State, Track

_log = logging.getLogger(__name__)

#: Event time between two searches for idle entities.
_SWEEP_MS: Final = 3_600_000
#: The clock is moved by no more event time at once.
_LARGEST_STEP_MS: Final = 86_400_000
#: States kept unpacked per shard; the others live as packed bytes and are unpacked on touch.
MOST_LIVE: Final = 20_000
#: A base is written at most every so many snapshots (the shards take turns), once there have been
#: this many updates for each state: one takes about a seventh of a state's bytes.
_BASE_EVERY: Final = 2
_BASE_SHARE: Final = 0.5

#: Snapshots whose pieces are kept: a crash resumes from a recent one.
_KEPT_SNAPSHOTS: Final = 4

#: Updates that are packed at once for `redo`, at least.
_PIECE: Final = 32

#: Versions (microseconds, 0 if none) that the online store holds for values of an entity place.
StoredVersions = Callable[[int, list[str]], list[int]]
#: Values with the packed states that they were given.
Given = tuple[tuple[str, bytes], ...]
#: Something that happened to the states: updates (`ShardBatch.pack`), or what was given in their place.
Redo = Piece | Given
#: The same in a snapshot.
RedoSnapshot = bytes | PieceRef | Given


class ShardLogic(StatefulBatchLogic[ShardBatch, Writes, tuple[Any, ...]]):
    """States of the entity values of one shard.

    `packed` is the truth, `live` are the states unpacked so far. A snapshot names the last base and
    what happened since, `redo`, mostly by the file that it lies in: a state's updates are much smaller
    than the state. `recent` are the updates that are not packed yet, `held` the states of a backlog that
    are not written yet (of the updates behind them a snapshot knows, as of all others). An entity idle
    for VELOCITY_TTL of event time (by the shard's clock) is forgotten.

    Writes to the online store are answered later, and a server that crashes may lose its last
    second: a snapshot settles what was sent a while ago, and names what was written lately (in its own
    interval, the one before, and those of `REWRITE_S`), answered or not. A run that resumes from it
    looks these entities up in the store.
    """

    def __init__(
        self,
        partitions: int,
        stored_versions: StoredVersions,
        bases: StateBases,
        files: RedoFiles,
        settle: Callable[[], None],
        resume: tuple[Any, ...] | None = None,
        tracks: Sequence[Track] = STANDARD,
        guard: Guard | None = None,
    ) -> None:
        self._shard = -1
        self._guard = guard or Guard()
        self._tracks = tracks
        self._retired = resume
        self._stored_versions = stored_versions
        self._bases = bases
        self._files = files
        self._settle = settle
        self._base = 0
        self._base_digest = b""
        self._since_base = 0
        self._base_under_way: Future[bytes] | None = None
        self._redo: list[Redo] = []
        self._in_base = 0  # entries of `redo` that the base under way makes superfluous
        self._updates = 0
        self._recent_values: list[str] = []
        self._recent_seen: list[Any] = []
        self._fresh: list[Redo] = []
        self._unsure: deque[tuple[float, list[Redo]]] = deque()
        #: Of the last snapshots, the base that the oldest piece in each was made after.
        self._oldest: deque[int] = deque(maxlen=_KEPT_SNAPSHOTS)
        self._replaying = set(range(partitions))
        #: Partitions whose log holds more than has been read.
        self._behind: set[int] = set()
        self._replayed: set[str] = set()
        self._packed: dict[str, bytes] = {}
        self._live: dict[str, State] = {}
        self._held = HeldStates()
        self._clock = self._swept = 0
        if resume is not None:
            check_version("shard", resume[0])
            if not self._resume_as(resume[2], resume[1]):
                return
            self._clock = self._swept = resume[3]
            if resume[4]:
                self._base, self._base_digest = resume[4]
                self._packed = bases.read(self._shard_name, self._base, self._base_digest)
            self._redo = [self._again(entry) for entry in resume[5]]
            self._replayed = set(resume[6]).union(*[self._values(entry) for entry in resume[7]])

    def _resume_as(self, name: str, version: int) -> bool:
        """Become the shard `name` of a snapshot whose states have `version`; whether they can be continued.

        A declared view whose layout has changed starts anew and warms up; one that is declared no longer gets
        no updates. Standard states of another version are refused: nothing else would tell.
        """
        view, _, number = name.rpartition(":")
        for place, track in enumerate(self._tracks):
            if track.name == view:
                self._name(place * SHARDS + int(number))
                if version == track.version:
                    return True
                if not track.standard:
                    _log.warning("%s has another layout than its states, which start anew", view)
                    return False
                raise SnapshotError(
                    f"a shard's snapshot holds velocity states of version {version}, this program reads "
                    f"version {STATE_VERSION}: start the program that wrote them, or move the stream/ folder "
                    "of TOLLGATE_HOME away, rebuild the states by the velocity backfill and send them with "
                    "`python -m streaming.states.seed`"
                )
        _log.warning("%s is declared no longer, its states are dropped", view)
        return False

    @classmethod
    def builder(
        cls,
        configured: Settings,
        stopping: threading.Event,
        disk: Disk,
        settle: Callable[[], None],
        tracks: Sequence[Track] = STANDARD,
    ) -> Callable[[tuple[Any, ...] | None], ShardLogic]:
        """What Bytewax calls for each shard, with the shard's snapshot if there is one."""
        stored_versions = stored_version_reader(configured, stopping, tracks)
        bases = StateBases(configured.home / "stream" / "states", disk)
        files = RedoFiles(configured.home / "stream" / "redo", disk)
        guard = Guard(configured.home / "stream" / "aside")
        return lambda resume: cls(
            configured.event_log.partitions, stored_versions, bases, files, settle, resume, tracks, guard
        )

    def on_batch(self, values: list[ShardBatch]) -> tuple[list[Writes], bool]:
        if self._shard < 0:
            self._name(values[0].shard)
        place, live, held = self._place, self._live, self._held
        track, guard = self._track, self._guard
        held.begin(len(self._fresh))
        touched = held.states
        only_updates = True
        for batch in values:
            (self._behind.add if batch.more else self._behind.discard)(batch.source)
            held.note(batch.appended_ms)
            for value, packed in batch.seeds:
                live[value], merged = guard.merge(track, self._state(value), value, packed)
                if value in touched or merged:
                    touched[value] = live[value]
                only_updates = only_updates and not merged
            states = [live.get(value) or self._state(value) for value in batch.values]
            added = guard.add(track, states, batch.values, batch.seen, place)
            if False in added:
                touched.update(compress(zip(batch.values, states, strict=True), added))
            else:
                touched.update(zip(batch.values, states, strict=True))
        if any(batch.rewrite for batch in values):
            touched.update({value: self._state(value) for value in self._packed})
        if self._replaying:
            self._replayed.update(touched)
            self._replaying.difference_update([batch.source for batch in values if batch.replayed])
            if not self._replaying:
                self._catch_up(touched)
                only_updates = False
        if not touched:
            return [], StatefulBatchLogic.RETAIN
        if only_updates:
            for batch in values:
                if batch.packed and len(batch.values) >= _PIECE:
                    self._close_recent()
                    self._add_piece(batch.packed, len(batch.values))
                else:
                    self._recent_values.extend(batch.values)
                    self._recent_seen.extend(batch.seen)
            if len(self._recent_values) >= _PIECE:  # so that a snapshot has little left to pack
                self._close_recent()
            if self._waits_for_more(values) and held.may_stay() and len(live) <= MOST_LIVE:
                return [], StatefulBatchLogic.RETAIN
            changed = self._pack_held()
        else:
            self._close_recent()
            changed = self._pack_held()
            self._remember(tuple(changed.items()), len(changed))
        return self._release(changed)

    def _waits_for_more(self, values: list[ShardBatch]) -> bool:
        """Whether some partition has a backlog, and none of these events is of one that has none."""
        return bool(self._behind) and all(batch.more for batch in values if batch.values)

    def notify_at(self) -> datetime | None:
        """When what is held has to go, should the log's other events not come."""
        return datetime.now(UTC) + MOST_HELD if self._held else None

    def on_notify(self) -> tuple[list[Writes], bool]:
        return self._release(self._pack_held())

    def on_eof(self) -> tuple[list[Writes], bool]:
        return self._release(self._pack_held())

    def _pack_held(self) -> dict[str, bytes]:
        """Pack the states that are held; they still are to be written."""
        changed = self._guard.pack(self._track, self._held.states)
        if len(changed) < len(self._held.states):
            for value in self._held.states.keys() - changed.keys():
                self._live.pop(value, None)
                del self._held.states[value]
        self._packed.update(changed)
        return changed

    def _release(self, changed: dict[str, bytes]) -> tuple[list[Writes], bool]:
        """What is held, just packed, to be written now."""
        if not changed:
            return [], StatefulBatchLogic.RETAIN
        states = self._held.take().values()
        versions = [state.header[VERSION] for state in states]
        newest = max([state.newest_ms for state in states])
        if newest > self._clock:  # one event of another year does not make it later by years
            self._clock = min(newest, self._clock + _LARGEST_STEP_MS) if self._clock else newest
            if self._clock - self._swept > _SWEEP_MS:
                self._sweep()
        if len(self._live) > MOST_LIVE:
            self._live.clear()
        writes = Writes(self._shard, list(changed), versions, list(changed.values()), self._held.appended_ms)
        return [writes], StatefulBatchLogic.RETAIN

    def snapshot(self) -> tuple[Any, ...]:
        if self._shard < 0 and self._retired is not None:
            return self._retired
        self._settle()
        self._close_recent()
        self._renew_base()
        metrics.ENTITIES_HELD.labels(*self._labels).set(len(self._packed))
        now, unsure = time.monotonic(), self._unsure
        unsure.append((now, self._fresh))
        # What is held will be written in the next interval, or a later one: these name it too.
        self._fresh = self._fresh[self._held.first :] if self._held else []
        self._held.first = 0
        while len(unsure) > 2 and unsure[0][0] < now - REWRITE_S:
            unsure.popleft()
        lately = list({id(entry): entry for _, entries in unsure for entry in entries}.values())
        generations = [entry.generation for entry in (*self._redo, *lately) if isinstance(entry, Piece)]
        self._oldest.append(min(generations, default=self._base))
        return (
            SNAPSHOT_VERSION,
            self._track.version,
            self._shard_name,
            self._clock,
            (self._base, self._base_digest) if self._base else (),
            _snapshots(self._redo),
            tuple(self._replayed),
            _snapshots(lately),
        )

    def _renew_base(self) -> None:
        """Begin the next base if it is time, and continue from it once it is on disk."""
        if self._since_base % _BASE_EVERY == 0:
            metrics.STATE_BYTES.labels(*self._labels).set(sum(map(len, self._packed.values())))
        self._since_base += 1
        if self._base_under_way is not None:
            if not self._base_under_way.done():
                return
            self._base_digest = self._base_under_way.result()
            self._base_under_way = None
            self._base += 1
            self._bases.drop(self._shard_name, self._base)
            self._files.drop(self._shard_name, min(self._oldest, default=0))
            del self._redo[: self._in_base]
        if self._since_base >= _BASE_EVERY and self._updates > _BASE_SHARE * len(self._packed):
            self._pack_held()
            self._base_under_way = self._bases.write(self._shard_name, self._base + 1, self._packed)
            self._in_base, self._updates, self._since_base = len(self._redo), 0, 0

    def _close_recent(self) -> None:
        """Move the updates that are not packed yet to `redo`, as one piece."""
        values, seen = self._recent_values, self._recent_seen
        if values:
            self._add_piece(ShardBatch(self._shard, values, seen, [], 0).pack(), len(values))
            self._recent_values, self._recent_seen = [], []

    def _add_piece(self, data: bytes, updates: int) -> None:
        self._remember(self._files.add(self._shard_name, self._base, data), updates)

    def _remember(self, entry: Redo, updates: int) -> None:
        self._redo.append(entry)
        self._fresh.append(entry)
        self._updates += updates

    def _again(self, entry: RedoSnapshot) -> Redo:
        """Do what `entry` of a snapshot tells to `packed`; return it for the next snapshot."""
        given = _given(entry)
        if given is not None:
            self._updates += len(given)
            self._packed.update(given)
            for value, _ in given:
                self._live.pop(value, None)
            return given
        batch = self._batch(entry)
        self._updates += len(batch.values)
        touched: dict[str, State] = {}
        for value in batch.values:
            touched[value] = self._state(value)
        states = [touched[value] for value in batch.values]
        self._guard.add(self._track, states, batch.values, batch.seen, self._place)
        self._packed.update(self._guard.pack(self._track, touched))
        return Piece(self._base, entry) if isinstance(entry, bytes) else Piece.on_disk(cast(PieceRef, entry))

    def _values(self, entry: RedoSnapshot) -> list[str]:
        """The values that `entry` of a snapshot is about."""
        given = _given(entry)
        return self._batch(entry).values if given is None else [value for value, _ in given]

    def _batch(self, entry: RedoSnapshot) -> ShardBatch:
        if not isinstance(entry, bytes):
            entry = self._files.read(self._shard_name, cast(PieceRef, entry))
        return ShardBatch.unpack(entry)

    def _catch_up(self, touched: dict[str, State]) -> None:
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
        self._track = self._tracks[self._place]
        self._shard_name = self._track.shard_name(shard % SHARDS)
        self._labels = (self._track.name, str(shard % SHARDS))
        self._since_base = shard % _BASE_EVERY  # so that bases of all shards do not fall together

    def _state(self, value: str) -> State:
        state = self._live.get(value)
        if state is None:
            packed = self._packed.get(value)
            state = self._guard.unpack(self._track, value, packed) if packed else self._track.new()
            self._live[value] = state
        return state

    def _sweep(self) -> None:
        """Forget entities that nothing has touched for VELOCITY_TTL."""
        self._swept = self._clock
        oldest = self._clock - self._track.ttl_ms
        for value, packed in list(self._packed.items()):
            if self._track.unpack(packed).newest_ms < oldest:
                del self._packed[value]
                self._live.pop(value, None)


def _snapshots(entries: list[Redo]) -> tuple[RedoSnapshot, ...]:
    return tuple([entry.snapshot() if isinstance(entry, Piece) else entry for entry in entries])


def _given(entry: RedoSnapshot) -> Given | None:
    """`entry` if it is values with states: where a piece lies begins with a file's name."""
    return entry if isinstance(entry, tuple) and isinstance(entry[0], tuple) else None
