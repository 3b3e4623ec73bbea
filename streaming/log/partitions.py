"""How many partitions the event log has: in Kafka the broker knows, and they may become more."""

from __future__ import annotations

import logging
import threading
from typing import Final

from stores.settings import Settings
from streaming import metrics
from streaming.backoff import Backoff
from streaming.log.batch import LogAwayError, PartitionReader

_EVERY_S: Final = 30.0
_log = logging.getLogger(__name__)


def with_partitions(configured: Settings, stopping: threading.Event, topic: str | None = None) -> Settings:
    """`configured`, with as many partitions as Kafka's broker has of `topic` (default: transactions).

    Waits for a broker that is away. All that the topic has are read, whatever TOLLGATE_PARTITIONS says.
    """
    if configured.event_log.kind != "kafka":
        return configured
    from streaming.log.kafka_source import partitions_of

    topic = topic or configured.event_log.topic
    backoff = Backoff(configured.stream.patience_seconds, "the event log")
    while True:
        try:
            found = partitions_of(configured.kafka, topic)
            break
        except LogAwayError as error:
            if not backoff.waiting:
                _log.warning("the event log is away (%s); the flow waits for it", error)
            backoff.wait(stopping)
    if found != configured.event_log.partitions:
        _log.warning(
            "topic %s has %s partitions and TOLLGATE_PARTITIONS says %s: all are read; set it to %s, so that "
            "whoever asks the setting agrees", topic, found, configured.event_log.partitions, found,
        )  # fmt: skip
    return configured.changed(partitions=found)


class PartitionWatch:
    """Notices that the topic got more partitions while the flow runs: they are read after its next start."""

    def __init__(self, configured: Settings, reader: PartitionReader) -> None:
        self._expected = configured.event_log.partitions
        self._topic = configured.event_log.topic
        self._ask = getattr(reader, "partitions", None)
        self._at = 0.0

    def look(self, now: float) -> None:
        """Look, if it is time; raises `LogAwayError`."""
        if self._ask is None or now - self._at < _EVERY_S:
            return
        self._at = now
        unread = self._ask() - self._expected
        metrics.UNREAD_PARTITIONS.set(max(0, unread))
        if unread > 0:
            _log.error(
                "topic %s has %s partitions more since the start: start the flow again", self._topic, unread
            )
