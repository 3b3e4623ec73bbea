"""The flow's sink: batches of newest states, written once and waited for, also while Redis is away."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from bytewax.outputs import DynamicSink, StatelessSinkPartition

from stores.redis_clients import AWAY
from stores.settings import Settings
from streaming import metrics
from streaming.backoff import Backoff
from streaming.online.online_writer import OnlineWriter
from streaming.states.shard_batch import Writes
from streaming.states.tracks import STANDARD, Track

#: Seconds of writes that are written again after an outage: a crashed server syncs once a second.
REWRITE_S: Final = 3.0
_log = logging.getLogger(__name__)


def stored_version_reader(
    configured: Settings, stopping: threading.Event, tracks: Sequence[Track] = STANDARD
) -> Callable[[int, list[str]], list[int]]:
    """`OnlineWriter.versions`, waiting within bounds for a Redis that is away."""
    writer = OnlineWriter(configured.redis.url, configured.feast.project, tracks)

    def read(place: int, values: list[str]) -> list[int]:
        backoff = Backoff(configured.stream.patience_seconds, "the online store")
        while True:
            try:
                return writer.versions(place, values)
            except AWAY:
                metrics.SINK_RETRIES.inc()
                backoff.wait(stopping)

    return read


class OnlineStorePartition(StatelessSinkPartition[tuple[str, Writes]]):
    """Writes batches and waits, within bounds, for a Redis that is away.

    The answers to a batch are waited for before the next one is sent, when the source has nothing to
    read, and at a snapshot if it was sent a while ago: until then the flow works while Redis does.
    """

    def __init__(
        self, configured: Settings, stopping: threading.Event, tracks: Sequence[Track] = STANDARD
    ) -> None:
        self._writer = OnlineWriter(configured.redis.url, configured.feast.project, tracks)
        self._backoff = Backoff(configured.stream.patience_seconds, "the online store")
        self._stopping = stopping
        self._unsettled: list[Writes] = []
        self._sent_at = 0.0
        self._recent: deque[tuple[float, list[Writes]]] = deque()

    def write_batch(self, items: list[tuple[str, Writes]]) -> None:
        self.settle()
        writes = [item[1] for item in items]
        self._unsettled, self._sent_at = writes, time.monotonic()
        try:
            self._writer.send(writes)
        except AWAY as error:
            self._write_again(error)

    def settle(self) -> None:
        """Wait until what was written is visible."""
        if not self._unsettled:
            return
        try:
            written = self._writer.settle()
        except AWAY as error:
            self._write_again(error)
            written = self._writer.settle()
        writes, self._unsettled = self._unsettled, []
        self._remember(writes)
        now_ms = time.time_ns() / 1e6
        sent = 0
        for batch in writes:
            sent += len(batch.values)
            if batch.appended_ms:
                metrics.FRESHNESS.observe(max(0.0, now_ms - batch.appended_ms) / 1000)
        metrics.WRITTEN.inc(written)
        metrics.REFUSED.inc(max(0, sent - written))

    def settle_older(self) -> None:
        """Wait until what was sent before `REWRITE_S` / 2 is visible: a snapshot names what is younger."""
        if time.monotonic() - self._sent_at > REWRITE_S / 2:
            self.settle()

    def close(self) -> None:
        self.settle()
        self._writer.close()

    def _write_again(self, error: Exception) -> None:
        """Wait for the server; write what it has not answered, and what it may have forgotten."""
        _log.warning("the online store is away (%s); the flow waits for it", type(error).__name__)
        recent = [batch for _, writes in self._recent for batch in writes]
        while True:
            metrics.SINK_RETRIES.inc()
            self._writer.disconnect()
            self._backoff.wait(self._stopping)
            try:
                self._writer.write([*recent, *self._unsettled])
                break
            except AWAY:
                continue
        self._backoff.reset()
        _log.warning("the online store is back")

    def _remember(self, writes: list[Writes]) -> None:
        """Keep `writes` for a while: a server that crashes may lose its last second."""
        now = time.monotonic()
        self._recent.append((now, writes))
        while self._recent[0][0] < now - REWRITE_S:
            self._recent.popleft()


class OnlineStoreSink(DynamicSink[tuple[str, Writes]]):
    """One writer per worker, of which a process has one."""

    def __init__(
        self, configured: Settings, stopping: threading.Event, tracks: Sequence[Track] = STANDARD
    ) -> None:
        self._tracks = tracks
        self._configured = configured
        self._stopping = stopping
        self._built: list[OnlineStorePartition] = []

    def build(self, step_id: str, worker_index: int, worker_count: int) -> OnlineStorePartition:
        self._built.append(OnlineStorePartition(self._configured, self._stopping, self._tracks))
        return self._built[-1]

    def settle(self) -> None:
        """Wait until what this process has written is visible."""
        for partition in self._built:
            partition.settle()

    def settle_older(self) -> None:
        """The same for what a snapshot made now may not name as unsure."""
        for partition in self._built:
            partition.settle_older()
