"""The flow's source: partitions of the event log, read and ingested in one place.

Ingestion lives in the source partition, so that one snapshot holds the log position and all
that was derived up to it, and so that an event crosses processes only after it is grouped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from machine.timers import wake_on_time
from stores.declared import declared
from stores.keys import Keys, open_keys
from stores.settings import Settings
from streaming import metrics
from streaming.backoff import Backoff
from streaming.ingest.arrival_log import ArrivalLog
from streaming.ingest.dead_letters import LetterBox, letters_folder
from streaming.ingest.ingest import Ingest, Ingested, IngestSnapshot
from streaming.ingest.letter_topic import letter_topic
from streaming.ingest.recent_ids import IdSegments
from streaming.log.batch import Batch, LogAwayError, PartitionReader
from streaming.log.partitions import PartitionWatch
from streaming.log.publish import EventLogWriter, open_writer
from streaming.log.redis_source import RedisStreamReader
from streaming.states.disk import Disk
from streaming.states.snapshots import SNAPSHOT_VERSION, check_version

#: Time to the next read of an empty partition, and once it has been empty for `_QUIET_S`.
_IDLE: Final = timedelta(milliseconds=2)
_IDLE_LONG: Final = timedelta(milliseconds=10)
_QUIET_S: Final = 1.0
_LAG_EVERY_S: Final = 1.0
#: What a snapshot may take, in which the disk's thread rests.
_SNAPSHOT_S: Final = 0.05
_log = logging.getLogger(__name__)

OpenReader = Callable[[int, str | None], PartitionReader]


def reader_opener(configured: Settings) -> OpenReader:
    """How to open a partition of the configured event log at a position (None: its start)."""
    if configured.event_log.kind == "kafka":
        from streaming.log.kafka_source import KafkaReader

        return lambda partition, position: KafkaReader(
            configured.kafka,
            configured.event_log.topic,
            partition,
            position,
            configured.stream.batch,
        )
    if configured.event_log.kind == "jsonl":
        from streaming.log.jsonl_source import JsonlReader

        return lambda partition, position: JsonlReader(
            configured.home / "events",
            configured.event_log.topic,
            partition,
            position,
            configured.stream.batch,
        )
    return lambda partition, position: RedisStreamReader(
        configured.event_log_redis, configured.event_log.topic, partition, position, configured.stream.batch
    )


def _homes(configured: Settings) -> int | None:
    """Among how many partitions customers are at home, where others than the platform produce."""
    return configured.event_log.partitions if configured.event_log.kind == "kafka" else None


class IngestPartition(StatefulSourcePartition[Ingested, tuple[Any, ...]]):
    """One partition: reads, ingests, and flushes its arrival log and dead letters by snapshot."""

    def __init__(
        self, configured: Settings, keys: Keys, open_reader: OpenReader, partition: int,
        resume: tuple[Any, ...] | None, stopping: threading.Event, disk: Disk, when_empty: Callable[[], None],
        *, drain: bool, keep_log: bool = True,
    ) -> None:  # fmt: skip
        position, ingested, unwritten, strays = None, None, (), ()
        if resume is not None:
            check_version("source", resume[0])
            position, ingested, unwritten, strays = resume[1], IngestSnapshot(*resume[2]), *resume[3:]
        self._disk = disk
        self._most = configured.stream.batch
        self._reader = open_reader(partition, position)
        _log.info("partition %s is read from %s", partition, position or "its start")
        self._ingest = Ingest(
            partition, configured.stream.dedupe_ids, int(configured.stream.dedupe_hours * 3_600_000),
            ingested, IdSegments(configured.home / "stream" / "ids" / f"{partition:03d}", disk),
            keys.seal("control"), declared(configured), partitions=_homes(configured),
        )  # fmt: skip
        self._strays: list[tuple[str, bytes]] = list(strays)
        self._homeward: EventLogWriter | None = None
        self._configured = configured
        self._watch = PartitionWatch(configured, self._reader) if partition == 0 else None
        self._arrivals = ArrivalLog(configured.lake, partition, disk, unwritten) if keep_log else None
        self._letters = LetterBox(letters_folder(configured) / f"{partition:03d}", letter_topic(configured))
        self._stopping = stopping
        self._when_empty = when_empty
        self._drain = drain
        self._label = str(partition)
        self._backoff = Backoff(configured.stream.patience_seconds, "the event log")
        self._awake: datetime | None = None
        self._keys = keys
        self._lag_at = self._read_at = 0.0
        self._newest_ms = time.time_ns() // 1_000_000  # nothing read yet: it counts from the start
        self._tail: str | None = None
        self._replaying = True
        self._behind = False
        self._releasable: list[str] | None = [] if configured.stream.trim else None

    def next_batch(self) -> list[Ingested]:
        if self._stopping.is_set():
            self._finish()
        try:
            if self._tail is None:
                self._tail = self._reader.end()
            self._send_home()
            self._observe_lag()  # before reading: nothing may fail between a read and its use
            batch = self._reader.read()
        except LogAwayError:
            metrics.READ_RETRIES.inc()
            if not self._backoff.waiting:
                _log.warning("the event log is away; partition %s waits for it", self._label)
            self._awake = _now() + timedelta(seconds=self._backoff.next_delay())
            return []
        self._backoff.reset()
        more = len(batch.payloads) >= self._most
        taken = [self._taken(batch, more)] if batch.payloads else []
        if self._behind and not more:
            taken.append(self._ingest.caught_up())
        self._behind = more
        if self._replaying and self._reader.reached(self._tail):
            self._replaying = False
            taken.append(self._ingest.replayed(more))
        if not taken:
            self._when_empty()
            if self._drain and not self._replaying:
                self._finish()
            idle = time.monotonic() - self._read_at > _QUIET_S
            self._awake = _now() + (_IDLE_LONG if idle else _IDLE)
            return []
        self._read_at = time.monotonic()
        self._awake = None
        return taken

    def next_awake(self) -> datetime | None:
        return self._awake

    def snapshot(self) -> tuple[Any, ...]:
        self._disk.rest(_SNAPSHOT_S)  # events wait for a snapshot, and nobody for the files
        unwritten = self._arrivals.roll() if self._arrivals is not None else ()
        self._letters.flush()
        position = self._reader.position()
        self._release(position)
        self._reader.tell(position)
        return (SNAPSHOT_VERSION, position, tuple(self._ingest.snapshot()), unwritten, tuple(self._strays))

    def close(self) -> None:
        self._reader.close()
        self._letters.close()

    def _send_home(self) -> None:
        """Send events of other partitions' customers to theirs, which count them once."""
        if not self._strays:
            return
        if self._homeward is None:
            self._homeward = open_writer(self._configured)
        for customer, payload in self._strays:
            self._homeward.publish_raw(0, payload, customer)
        self._homeward.flush()
        metrics.MISPLACED.labels(self._label).inc(len(self._strays))
        self._strays.clear()

    def _taken(self, batch: Batch, more: bool) -> Ingested:
        ingested = self._ingest.take(batch, more)
        if self._arrivals is not None:
            self._arrivals.add(ingested.arrivals)
        self._letters.add(ingested.letters)
        self._strays.extend(ingested.strays)
        self._newest_ms = batch.appended_ms[-1]
        return ingested

    def _finish(self) -> None:
        with suppress(LogAwayError):  # they stand behind the last snapshot: the next run reads them again
            self._send_home()
        if self._arrivals is not None:
            self._arrivals.flush()
        self._letters.flush()
        raise StopIteration

    def _release(self, position: str) -> None:
        """Trim behind the snapshot before the last: Bytewax has surely stored that one."""
        if self._releasable is None:
            return
        self._releasable.append(position)
        if len(self._releasable) > 4:
            try:
                self._reader.release(self._releasable.pop(0))
            except LogAwayError:
                _log.info("trimming waits: the event log is away")

    def _observe_lag(self) -> None:
        now = time.monotonic()
        if now - self._lag_at >= _LAG_EVERY_S:
            self._lag_at = now
            lag = self._reader.lag()
            behind = time.time() - self._newest_ms / 1000 if lag and self._newest_ms else 0.0
            metrics.LAG.labels(self._label).set(lag)
            metrics.LAG_SECONDS.labels(self._label).set(max(0.0, behind))
            if self._watch is not None:
                self._watch.look(now)
            self._keys.refresh()
            metrics.KEYS_REFUSED.set(self._keys.error is not None)


class EventLogSource(FixedPartitionedSource[Ingested, tuple[Any, ...]]):
    """All partitions of the configured event log.

    With `drain` each partition ends once it has read all that its log holds; otherwise it ends
    when `stopping` is set. `when_empty` is called when a partition has nothing to read.
    """

    def __init__(
        self, configured: Settings, stopping: threading.Event, disk: Disk,
        when_empty: Callable[[], None] = lambda: None, *, drain: bool = False, keep_log: bool = True,
    ) -> None:  # fmt: skip
        self._configured = configured
        self._disk = disk
        self._open = reader_opener(configured)
        self._stopping = stopping
        self._when_empty = when_empty
        self._drain = drain
        self._keep_log = keep_log
        self._keys = open_keys(configured)

    def list_parts(self) -> list[str]:
        return [f"{partition:03d}" for partition in range(self._configured.event_log.partitions)]

    def build_part(
        self, step_id: str, for_part: str, resume_state: tuple[Any, ...] | None
    ) -> IngestPartition:
        wake_on_time()  # this is the worker's thread
        return IngestPartition(
            self._configured, self._keys, self._open, int(for_part), resume_state, self._stopping, self._disk,
            self._when_empty, drain=self._drain, keep_log=self._keep_log,
        )  # fmt: skip


def _now() -> datetime:
    return datetime.now(UTC)
