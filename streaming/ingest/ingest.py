"""From the log's bytes to updates: parse, validate, dedupe, observe, group by shard.

Everything here is a pure function of the log and of the snapshot resumed from, so that a
replay after a crash repeats it: the same events accepted, with the same ingest sequence.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from fraud.contract.event import EventTimes, encode_event, parse_event
from fraud.contract.transaction import (
    FUTURE_TOLERANCE_MS,
    ContractError,
    Transaction,
    encode_transaction,
)
from fraud.state.observation import Observation, observe_measured, transaction_key
from stores.declared import NOTHING, Declared
from stores.event_log import partition_of
from stores.keys import Seal
from streaming import metrics
from streaming.ingest.control import PREFIX as CONTROL_PREFIX
from streaming.ingest.control import REWRITE_PREFIX, SPENT_PREFIX, read_rewrite, read_seed, read_spent
from streaming.ingest.dead_letters import DeadLetter, dead_letter
from streaming.ingest.framing import better_reason, json_inside
from streaming.ingest.recent_ids import IdSegments, RecentIds, SegmentSnapshot
from streaming.log.batch import Batch
from streaming.states.shard_batch import SHARDS, ShardBatch, shard_of
from streaming.states.tracks import tracks_of

#: An event this far behind its partition's clock counts as late (milliseconds of event time).
LATE_MS: Final = 1_000


class Arrivals(NamedTuple):
    """Accepted events in arrival order, with what the lake records beside them.

    `minor` are amounts in minor units, `payloads` the bytes in the log; `stated_ms`, `lateness_ms` and
    `decisions` are as in `fraud.contract.event`.
    """

    seen: list[Observation]
    minor: list[int]
    sequences: list[int]
    known_us: list[int]
    payloads: list[bytes]
    stated_ms: list[int | None]
    lateness_ms: list[int]
    decisions: list[str | None]

    @classmethod
    def none(cls) -> Arrivals:
        return cls([], [], [], [], [], [], [], [])

    def add(
        self, seen: Observation, minor: int, sequence: int, known_us: int, payload: bytes,
        times: EventTimes | None,
    ) -> None:  # fmt: skip
        self.seen.append(seen)
        self.minor.append(minor)
        self.sequences.append(sequence)
        self.known_us.append(known_us)
        self.payloads.append(payload)
        self.stated_ms.append(None if times is None else times.stated_ms)
        self.lateness_ms.append(0 if times is None else times.lateness_ms)
        self.decisions.append(None if times is None else times.decision)


def _canonical(transaction: Transaction, times: EventTimes | None) -> bytes:
    """An event whose text stood in the log in another form, as it is kept."""
    plain = encode_transaction(transaction)
    return plain if times is None else encode_event(transaction, plain, times)


def _times(appended_ms: list[int], latest_ms: int) -> list[int]:
    """Times at which the log took events; a time from far ahead is none."""
    return [appended if appended <= latest_ms else 0 for appended in appended_ms]


class Ingested(NamedTuple):
    """What one batch of the log became."""

    updates: list[ShardBatch]
    arrivals: Arrivals
    letters: list[DeadLetter]
    #: Events of other partitions' customers: the customer, and the event as it stood here.
    strays: list[tuple[str, bytes]]


class IngestSnapshot(NamedTuple):
    """What ingestion must remember of a partition beside its position."""

    known_us: int
    sequence: int
    recent_ids: tuple[SegmentSnapshot, ...]


class Ingest:
    """Ingestion of one partition.

    The event-time clock is the newest event time accepted so far, and a microsecond more for each event
    that is no newer: so it says when an event was known whose producer does not. `ingest_seq` grows strictly
    within a partition and sorts by append time across partitions: milliseconds of the append
    (of the clock, where the log has no times), 13 bits to tell them apart, 8 bits of partition.
    Control records are taken that `control` verifies; without it none is. Of a log with `partitions` that
    others produce to, only events are taken whose customer is at home in this one.
    """

    def __init__(
        self, partition: int, limit: int, horizon_ms: int, resume: IngestSnapshot | None = None,
        segments: IdSegments | None = None, control: Seal | None = None, declared: Declared = NOTHING,
        *, partitions: int | None = None,
    ) -> None:  # fmt: skip
        self._partitions = partitions
        self._control = control
        known_us, sequence, recent = resume or IngestSnapshot(0, 0, ())
        self._declared = declared
        self._observers = declared.observers
        self._tracks = tracks_of(declared)
        self._partition = partition
        self._label = str(partition)
        self._known_us = known_us
        self._sequence = sequence
        self._recent = RecentIds(limit, horizon_ms, recent, segments)

    def snapshot(self) -> IngestSnapshot:
        return IngestSnapshot(self._known_us, self._sequence, self._recent.snapshot())

    def take(self, batch: Batch, more: bool = False) -> Ingested:
        """Ingest `batch`; nothing in it raises, what cannot be used becomes a dead letter.

        `more` tells the shards that the log held more than was read.
        """
        now_ms = time.time_ns() // 1_000_000
        groups: dict[int, ShardBatch] = {}
        letters: list[DeadLetter] = []
        arrivals = Arrivals.none()
        clock_us, sequence, add_id = self._known_us, self._sequence, self._recent.add
        if max(batch.appended_ms, default=0) > now_ms + FUTURE_TOLERANCE_MS:  # producers can write these, too
            batch = batch._replace(appended_ms=_times(batch.appended_ms, now_ms + FUTURE_TOLERANCE_MS))
        oldest = batch.appended_ms[0] if batch.appended_ms else 0
        late = duplicates = tombstones = 0
        homes, strays = self._partitions, []
        for payload, position, appended in zip(*batch, strict=True):
            try:
                transaction, event_ms, minor, altered, times = parse_event(payload, now_ms=now_ms)
                seen = observe_measured(transaction, event_ms, minor)
            except ContractError as refusal:
                if not payload:
                    tombstones += 1
                    continue
                try:
                    if payload.startswith(CONTROL_PREFIX):
                        self._seed(payload, now_ms, groups, oldest)
                        continue
                    if payload.startswith(REWRITE_PREFIX):
                        self._rewrite(payload, groups, oldest, more)
                        continue
                    if payload.startswith(SPENT_PREFIX):
                        self._change(payload, groups, oldest, more)
                        continue
                    inner = json_inside(payload)
                    if inner is None:
                        raise better_reason(payload, refusal)
                    transaction, event_ms, minor, _, times = parse_event(inner, now_ms=now_ms)
                    seen, altered = observe_measured(transaction, event_ms, minor), True
                except ContractError as said:
                    letters.append(dead_letter(self._partition, position, said, payload))
                    continue
            except Exception as unforeseen:  # noqa: BLE001  # no record may stop those behind it
                error = ContractError("(record)", f"could not be taken: {type(unforeseen).__name__}")
                letters.append(dead_letter(self._partition, position, error, payload))
                continue
            if homes is not None and partition_of(transaction.customer_id, homes) != self._partition:
                strays.append((transaction.customer_id, payload))
                continue
            if not add_id(seen.transaction_key, event_ms):
                duplicates += 1
                continue
            late += event_ms < clock_us // 1000 - LATE_MS
            clock_us = max(event_ms * 1000, clock_us + 1)
            sequence = max(sequence + 1, (appended or clock_us // 1000) << 13)
            known_us = clock_us if times is None else times.known_us
            if altered:
                payload = _canonical(transaction, times)
            arrivals.add(seen, minor, sequence << 8 | self._partition, known_us, payload, times)
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
                decision = None if times is None else times.decision
                self._observe_declared(transaction, decision, seen, groups, oldest, more)
        self._known_us, self._sequence = clock_us, sequence
        self._count(len(arrivals.sequences), duplicates, late, len(letters))
        if tombstones:
            metrics.TOMBSTONES.labels(self._label).inc(tombstones)
        return Ingested(list(groups.values()), arrivals, letters, strays)

    def _observe_declared(
        self,
        transaction: Transaction,
        decision: str | None,
        seen: Observation,
        groups: dict[int, ShardBatch],
        oldest: int,
        more: bool,
    ) -> None:
        """Tell the shards of declared views what `transaction` adds to them."""
        values = self._declared.event_values(transaction, seen.amount, decision)
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
        return Ingested(batches, Arrivals.none(), [], [])

    def _seed(self, payload: bytes, now_ms: int, groups: dict[int, ShardBatch], appended: int) -> None:
        """Route a seed to its shard; raise `ContractError` where it may not be used."""
        if self._control is None:
            raise ContractError("(seed)", "is not taken here")
        place, key, state = read_seed(self._control, payload, now_ms, self._tracks)
        shard = place * SHARDS + shard_of(key)
        groups.setdefault(shard, ShardBatch(shard, [], [], [], appended, self._partition)).seeds.append(
            (key, state)
        )

    def _rewrite(self, payload: bytes, groups: dict[int, ShardBatch], appended: int, more: bool) -> None:
        """Ask every shard to write its states once more; raise `ContractError` where that may not be."""
        if self._control is None:
            raise ContractError("(rewrite)", "is not taken here")
        read_rewrite(self._control, payload)
        for shard in range(len(self._tracks) * SHARDS):
            group = groups.get(shard)
            if group is None:
                groups[shard] = group = ShardBatch(shard, [], [], [], appended, self._partition, more=more)
            group.rewrite = True

    def _change(self, payload: bytes, groups: dict[int, ShardBatch], appended: int, more: bool) -> None:
        """Tell a payment's entities what of it counts as spent; raise `ContractError` where it may not be."""
        if self._control is None:
            raise ContractError("(spent)", "is not taken here")
        spent, seen = read_spent(self._control, payload)
        if not self._recent.add(transaction_key(f"outcome {spent.outcome}"), spent.known_ms):
            metrics.DUPLICATES.labels(self._label).inc()
            return
        metrics.CHANGES.labels(self._label).inc()
        for place, value in enumerate(spent.ids):
            if value is not None:
                shard = place * SHARDS + shard_of(value)
                group = groups.get(shard)
                if group is None:
                    groups[shard] = group = ShardBatch(
                        shard, [], [], [], appended, self._partition, more=more
                    )
                group.values.append(value)
                group.seen.append(seen)

    def _count(self, accepted: int, duplicates: int, late: int, letters: int) -> None:
        label = self._label
        metrics.EVENTS.labels(label).inc(accepted)
        metrics.DUPLICATES.labels(label).inc(duplicates)
        metrics.LATE.labels(label).inc(late)
        metrics.DEAD_LETTERS.labels(label).inc(letters)
        metrics.CLOCK.labels(label).set(self._known_us / 1e6)
