"""From the log's bytes to updates: parse, validate, dedupe, observe, group by shard.

Everything here is a pure function of the log and of the snapshot resumed from, so that a
replay after a crash repeats it: the same events accepted, with the same ingest sequence.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from fraud.contract.transaction import ContractError, Transaction, encode_transaction, parse_measured
from fraud.state.observation import Observation, observe_measured
from stores.declared import NOTHING, Declared
from stores.keys import Seal
from streaming import metrics
from streaming.ingest.control import PREFIX as CONTROL_PREFIX
from streaming.ingest.control import read_seed
from streaming.ingest.dead_letters import DeadLetter, dead_letter
from streaming.ingest.recent_ids import IdSegments, RecentIds, SegmentSnapshot
from streaming.log.batch import Batch
from streaming.states.shard_batch import SHARDS, ShardBatch, shard_of
from streaming.states.tracks import tracks_of

#: An event this far behind its partition's clock counts as late (milliseconds of event time).
LATE_MS: Final = 1_000


class Arrivals(NamedTuple):
    """Accepted events in arrival order, with what the lake records beside them.

    `minor` are amounts in minor units, `payloads` the bytes in the log.
    """

    seen: list[Observation]
    minor: list[int]
    sequences: list[int]
    known_us: list[int]
    payloads: list[bytes]

    @classmethod
    def none(cls) -> Arrivals:
        return cls([], [], [], [], [])


class Ingested(NamedTuple):
    """What one batch of the log became."""

    updates: list[ShardBatch]
    arrivals: Arrivals
    letters: list[DeadLetter]


class IngestSnapshot(NamedTuple):
    """What ingestion must remember of a partition beside its position."""

    clock_ms: int
    sequence: int
    recent_ids: tuple[SegmentSnapshot, ...]


class Ingest:
    """Ingestion of one partition.

    The event-time clock is the newest event time accepted so far. `ingest_seq` grows strictly
    within a partition and sorts by append time across partitions: milliseconds of the append
    (of the clock, where the log has no times), 13 bits to tell them apart, 8 bits of partition.
    Control records are taken that `control` verifies; without it none is.
    """

    def __init__(
        self, partition: int, limit: int, horizon_ms: int, resume: IngestSnapshot | None = None,
        segments: IdSegments | None = None, control: Seal | None = None, declared: Declared = NOTHING,
    ) -> None:  # fmt: skip
        self._control = control
        clock, sequence, recent = resume or IngestSnapshot(0, 0, ())
        self._declared = declared
        self._observers = declared.observers
        self._tracks = tracks_of(declared)
        self._partition = partition
        self._label = str(partition)
        self._clock = clock
        self._sequence = sequence
        self._recent = RecentIds(limit, horizon_ms, recent, segments)

    def snapshot(self) -> IngestSnapshot:
        return IngestSnapshot(self._clock, self._sequence, self._recent.snapshot())

    def take(self, batch: Batch, more: bool = False) -> Ingested:
        """Ingest `batch`; nothing in it raises, what cannot be used becomes a dead letter.

        `more` tells the shards that the log held more than was read.
        """
        now_ms = time.time_ns() // 1_000_000
        groups: dict[int, ShardBatch] = {}
        letters: list[DeadLetter] = []
        arrivals = Arrivals.none()
        clock, sequence, add_id = self._clock, self._sequence, self._recent.add
        oldest = batch.appended_ms[0] if batch.appended_ms else 0
        late = duplicates = 0
        for payload, position, appended in zip(*batch, strict=True):
            try:
                transaction, event_ms, minor, altered = parse_measured(payload, now_ms=now_ms)
            except ContractError as refusal:
                error = refusal
                if payload.startswith(CONTROL_PREFIX):
                    try:
                        self._seed(payload, now_ms, groups, oldest)
                        continue
                    except ContractError as of_seed:
                        error = of_seed
                letters.append(dead_letter(self._partition, position, error, payload))
                continue
            seen = observe_measured(transaction, event_ms, minor)
            if not add_id(seen.transaction_key, event_ms):
                duplicates += 1
                continue
            if event_ms > clock:
                clock = event_ms
            elif event_ms < clock - LATE_MS:
                late += 1
            sequence = max(sequence + 1, (appended or clock) << 13)
            arrivals.seen.append(seen)
            arrivals.minor.append(minor)
            arrivals.sequences.append(sequence << 8 | self._partition)
            arrivals.known_us.append(clock * 1000 + 1)
            arrivals.payloads.append(encode_transaction(transaction) if altered else payload)
            for place, value in enumerate(seen.ids):
                if value is not None:
                    shard = place * SHARDS + shard_of(value)
                    group = groups.get(shard)
                    if group is None:
                        groups[shard] = ShardBatch(
                            shard, [value], [seen], [], oldest, self._partition, more=more
                        )
                    else:
                        group.values.append(value)
                        group.seen.append(seen)
            if self._observers:
                self._observe_declared(transaction, seen, groups, oldest, more)
        self._clock, self._sequence = clock, sequence
        self._count(len(arrivals.sequences), duplicates, late, len(letters))
        return Ingested(list(groups.values()), arrivals, letters)

    def _observe_declared(
        self,
        transaction: Transaction,
        seen: Observation,
        groups: dict[int, ShardBatch],
        oldest: int,
        more: bool,
    ) -> None:
        """Tell the shards of declared views what `transaction` adds to them."""
        values = self._declared.event_values(transaction, seen.amount)
        for observer in self._observers:
            key = observer.key(values)
            if key is not None:
                shard = observer.place * SHARDS + shard_of(key)
                group = groups.get(shard)
                if group is None:
                    groups[shard] = group = ShardBatch(shard, [], [], [], oldest, self._partition, more=more)
                group.values.append(key)
                group.seen.append(observer.seen(seen.event_ms, seen.transaction_key, values))

    def replayed(self, more: bool) -> Ingested:
        """Tell every shard that this partition has come to where its log ended at the start; `more` as in
        `take`."""
        return self._to_every_shard(replayed=True, more=more)

    def caught_up(self) -> Ingested:
        """Tell every shard that this partition's backlog has ended."""
        return self._to_every_shard(replayed=False, more=False)

    def _to_every_shard(self, *, replayed: bool, more: bool) -> Ingested:
        batches = [
            ShardBatch(shard, [], [], [], 0, self._partition, replayed, more)
            for shard in range(len(self._tracks) * SHARDS)
        ]
        return Ingested(batches, Arrivals.none(), [])

    def _seed(self, payload: bytes, now_ms: int, groups: dict[int, ShardBatch], appended: int) -> None:
        """Route a seed to its shard; raise `ContractError` where it may not be used."""
        if self._control is None:
            raise ContractError("(seed)", "is not taken here")
        place, key, state = read_seed(self._control, payload, now_ms, self._tracks)
        shard = place * SHARDS + shard_of(key)
        groups.setdefault(shard, ShardBatch(shard, [], [], [], appended, self._partition)).seeds.append(
            (key, state)
        )

    def _count(self, accepted: int, duplicates: int, late: int, letters: int) -> None:
        label = self._label
        metrics.EVENTS.labels(label).inc(accepted)
        metrics.DUPLICATES.labels(label).inc(duplicates)
        metrics.LATE.labels(label).inc(late)
        metrics.DEAD_LETTERS.labels(label).inc(letters)
        metrics.CLOCK.labels(label).set(self._clock / 1000)
