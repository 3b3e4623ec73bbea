"""Kafka as an event log: partitions assigned by hand and read from the snapshot's offset.

No consumer group is used: the recovery snapshot is the only record of what has been read, so
that offsets and states can never disagree.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from streaming.log.batch import Batch, LogAwayError, LogPositionError

_EMPTY = Batch([], [], [])
_TIMEOUT_S = 5.0
T = TypeVar("T")


class KafkaReader:
    """One partition, read from an offset. Implements `PartitionReader`.

    `LogPositionError` if the topic no longer holds that offset: events have been lost to
    retention, and only the operator can decide to go on.
    """

    def __init__(self, bootstrap: str, topic: str, partition: int, position: str | None, count: int) -> None:
        self._next = int(position) if position is not None else 0
        self._from_start = position is None
        self._at = TopicPartition(topic, partition)
        self._count = count
        self._assigned = False
        self._failure: KafkaError | None = None
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "tollgate-stream",  # required by the client; no group is joined
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": False,
                "fetch.wait.max.ms": 5,
                "fetch.queue.backoff.ms": 5,
                "queued.min.messages": 10_000,
            }
        )

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
        found = _reached(lambda: self._consumer.get_watermark_offsets(self._at, timeout=_TIMEOUT_S))
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
    bootstrap: str, topic: str
) -> tuple[Callable[[list[tuple[int, bytes]]], None], Callable[[], None]]:
    """Functions that append (partition, payload) pairs, all acknowledged, and that close."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 2,
            "delivery.timeout.ms": 30_000,
        }
    )
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: object) -> None:
        if error is not None:
            failures.append(error)

    def append(events: list[tuple[int, bytes]]) -> None:
        for partition, payload in events:
            while True:
                try:
                    producer.produce(topic, payload, partition=partition, on_delivery=delivered)
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
