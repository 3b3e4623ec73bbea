"""Kafka as an event log: partitions assigned by hand and read from the snapshot's offset.

No consumer group is joined: the recovery snapshot is the only record of what has been read, so that offsets
and states can never disagree. What a snapshot holds is committed under the group's name all the same, for
Kafka's own tools to show the lag. Records of aborted transactions are never read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from stores.kafka import client_config, opened
from stores.setting_groups import KafkaSettings
from streaming.log.batch import Batch, LogAwayError, LogPositionError, Record

_EMPTY = Batch([], [], [])
_TIMEOUT_S = 5.0
T = TypeVar("T")
_log = logging.getLogger(__name__)


def partitions_of(configured: KafkaSettings, topic: str) -> int:
    """How many partitions the broker has of `topic`; `LogAwayError` while it does not answer.

    `LogPositionError` where there is no such topic: it is made by whoever knows how large it has to be.
    """
    asking = opened(Consumer, client_config(configured, group_id=configured.group))
    try:
        found = _reached(lambda: asking.list_topics(topic, timeout=_TIMEOUT_S)).topics.get(topic)
    finally:
        asking.close()
    if found is None or not found.partitions:
        raise LogPositionError(f"the broker has no topic {topic}: create it, then start again")
    return len(found.partitions)


class KafkaReader:
    """One partition, read from an offset. Implements `PartitionReader`.

    `LogPositionError` if the topic no longer holds that offset: events have been lost to
    retention, and only the operator can decide to go on.
    """

    def __init__(
        self, configured: KafkaSettings, topic: str, partition: int, position: str | None, count: int
    ) -> None:
        self._next = int(position) if position is not None else 0
        self._from_start = position is None
        self._at = TopicPartition(topic, partition)
        self._count = count
        self._assigned = False
        self._failure: KafkaError | None = None
        own = {
            "group_id": configured.group, "enable_auto_commit": False, "auto_offset_reset": "error",
            # Behind an aborted transaction nothing but the end of the partition tells how far reading is.
            "enable_partition_eof": True, "isolation_level": "read_committed", "fetch_wait_max_ms": 5,
            "fetch_queue_backoff_ms": 5, "queued_min_messages": 10_000,
        }  # fmt: skip
        self._consumer: Any = opened(Consumer, client_config(configured, **own))

    def read(self) -> Batch:
        if not self._assigned:
            self._assign()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            self._fail(failure)
        messages = _reached(lambda: self._consumer.consume(self._count, timeout=0))
        if not messages:
            if 0 <= self._fetched_end() < self._next:
                raise self._lost(f"ends at offset {self._fetched_end()}")
            return _EMPTY
        payloads: list[bytes] = []
        positions: list[str] = []
        times: list[int] = []
        for message in messages:
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    self._next = max(self._next, message.offset() or 0)
                else:
                    self._failure = error  # after what came with it has been used
                continue
            offset = message.offset()
            if offset is None:
                continue
            kind, moment = message.timestamp()
            payloads.append(message.value() or b"")
            positions.append(str(offset))
            times.append(moment if kind != TIMESTAMP_NOT_AVAILABLE else 0)
            self._next = offset + 1
        return Batch(payloads, positions, times)

    def position(self) -> str:
        return str(self._next)

    def end(self) -> str:
        if not self._assigned:
            self._assign()
        deadline = time.monotonic() + _TIMEOUT_S
        while self._fetched_end() < 0:  # until the first fetch has been answered
            if time.monotonic() > deadline:
                raise LogAwayError("the broker does not answer")
            time.sleep(0.01)
        return str(max(self._fetched_end(), self._watermarks()[1]))

    def reached(self, position: str) -> bool:
        return self._next >= int(position)

    def lag(self) -> float:
        """Events between the newest in the log and the newest read."""
        return float(max(0, self._fetched_end() - self._next))

    def release(self, position: str) -> None:
        """Nothing: the topic's retention decides how long events are kept."""

    def tell(self, position: str) -> None:
        """Commit `position` under the group's name; that it could not be is no failure."""
        at = TopicPartition(self._at.topic, self._at.partition, int(position))
        try:
            self._consumer.commit(offsets=[at], asynchronous=True)
        except KafkaException as error:
            _log.debug("the position is not committed: %s", error)

    def partitions(self) -> int:
        """How many partitions the topic has now."""
        found = _reached(lambda: self._consumer.list_topics(self._at.topic, timeout=_TIMEOUT_S))
        return len(found.topics[self._at.topic].partitions)

    def close(self) -> None:
        self._consumer.close()

    def _assign(self) -> None:
        oldest, _ = self._watermarks()
        if self._from_start:
            self._next = oldest
        if self._next < oldest:
            raise self._lost(f"starts at offset {oldest}")
        self._consumer.assign([TopicPartition(self._at.topic, self._at.partition, self._next)])
        self._assigned = True

    def _fetched_end(self) -> int:
        """The log's end as fetch responses tell it, negative before the first one.

        Some brokers answer the question for the newest offset with the start of its batch.
        """
        found = self._consumer.get_watermark_offsets(self._at, cached=True)
        return found[1] if found is not None else -1

    def _watermarks(self) -> tuple[int, int]:
        found: tuple[int, int] | None = _reached(
            lambda: self._consumer.get_watermark_offsets(self._at, timeout=_TIMEOUT_S)
        )
        if found is None:
            raise LogAwayError("the broker does not answer")
        return found

    def _lost(self, found: str) -> LogPositionError:
        return LogPositionError(
            f"partition {self._at.partition} of topic {self._at.topic} {found}, the snapshot continues at "
            f"{self._next}: events were lost to retention or the topic was made anew; move the stream/ "
            "folder of TOLLGATE_HOME away to start over, and seed the states"
        )

    def _fail(self, error: KafkaError) -> None:
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise self._lost(error.str())
        if error.fatal():
            raise KafkaException(error)
        raise LogAwayError(error.str())


def _reached(call: Callable[[], T]) -> T:
    """`call()`, with what Kafka's client raises while brokers are away as `LogAwayError`."""
    try:
        return call()
    except KafkaException as error:
        cause = error.args[0]
        if isinstance(cause, KafkaError) and not cause.fatal():
            raise LogAwayError(cause.str()) from None
        raise


def kafka_appender(
    configured: KafkaSettings, topic: str
) -> tuple[Callable[[Sequence[Record]], None], Callable[[], None]]:
    """Functions that append records, all acknowledged when they return, and that close.

    A key decides the partition as Kafka's own producers have it, by however many the broker has.
    """
    producer: Any = opened(
        Producer,
        client_config(
            configured, enable_idempotence=True, linger_ms=2, delivery_timeout_ms=30_000,
            partitioner="murmur2_random",
        ),
    )  # fmt: skip
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: object) -> None:
        if error is not None:
            failures.append(error)

    def append(events: Sequence[Record]) -> None:
        for partition, payload, key in events:
            place = {"partition": partition} if key is None else {"key": key.encode()}
            while True:
                try:
                    producer.produce(topic, payload, on_delivery=delivered, **place)
                    break
                except BufferError:  # the client's queue is full: let it send
                    producer.poll(0.1)
        producer.flush()
        if failures:
            first = failures[0]
            failures.clear()
            if first.fatal():
                raise KafkaException(first)
            raise LogAwayError(first.str())

    return append, lambda: None
