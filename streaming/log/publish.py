"""Publishing to the event log, for producers, replay, seeds and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, Self

from fraud.contract.transaction import Transaction, encode_transaction
from stores.event_log import partition_of
from stores.settings import Settings
from streaming.log.batch import Record

_FLUSH_AT = 500


Append = Callable[[Sequence[Record]], None]


class EventLogWriter(Protocol):
    """Appends to the partitions of one topic, buffered until `flush`."""

    def publish(self, transaction: Transaction) -> None:
        """Append a transaction to its customer's partition."""

    def publish_raw(self, partition: int, payload: bytes, key: str | None = None) -> None:
        """Append bytes as they are; a `key` decides the partition in Kafka."""

    def flush(self) -> None:
        """Wait until everything published is in the log.

        Raises `LogAwayError` or what redis-py raises; then some of it is in the log, some is not,
        and nothing is buffered any more.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class _Writer:
    """Buffering shared by all logs; `append` blocks."""

    def __init__(self, partitions: int, append: Append, close: Callable[[], None]) -> None:
        self._partitions = partitions
        self._append = append
        self._close = close
        self._buffer: list[Record] = []

    def publish(self, transaction: Transaction) -> None:
        customer = transaction.customer_id
        self.publish_raw(partition_of(customer, self._partitions), encode_transaction(transaction), customer)

    def publish_raw(self, partition: int, payload: bytes, key: str | None = None) -> None:
        self._buffer.append((partition, payload, key))
        if len(self._buffer) >= _FLUSH_AT:
            self.flush()

    def flush(self) -> None:
        events, self._buffer = self._buffer, []
        if events:
            self._append(events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.flush()
        self._close()


def open_writer(configured: Settings, topic: str | None = None) -> EventLogWriter:
    """A writer to `topic` (default: transactions) of the configured event log."""
    topic = topic or configured.event_log.topic
    if configured.event_log.kind == "kafka":
        from streaming.log.kafka_source import kafka_appender

        return _Writer(configured.event_log.partitions, *kafka_appender(configured.kafka, topic))
    if configured.event_log.kind == "jsonl":
        from streaming.log.jsonl_source import jsonl_appender

        return _Writer(configured.event_log.partitions, *jsonl_appender(configured.home / "events", topic))
    from streaming.log.redis_source import redis_appender

    return _Writer(configured.event_log.partitions, *redis_appender(configured.event_log_redis, topic))


def publish_all(configured: Settings, transactions: Iterable[Transaction]) -> int:
    """Publish `transactions` in order; return how many."""
    count = 0
    with open_writer(configured) as writer:
        for count, transaction in enumerate(transactions, 1):  # noqa: B007
            writer.publish(transaction)
    return count
