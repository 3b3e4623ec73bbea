"""Copies of dead letters in a Kafka topic, for whoever watches topics and not files.

The files are the record: a copy that the broker does not take is counted, and sent no second time.
"""

from __future__ import annotations

from typing import Any

from stores.kafka import client_config, opened
from stores.settings import Settings
from streaming import metrics

_CLOSING_S = 5.0


class LetterTopic:
    """Sends letters without waiting, keyed by where they stood: topic, partition and position."""

    def __init__(self, configured: Settings, topic: str) -> None:
        from confluent_kafka import Producer

        self._of = configured.event_log.topic
        self._topic = topic
        self._producer: Any = opened(
            Producer, client_config(configured.kafka, enable_idempotence=True, linger_ms=100)
        )

    def send(self, place: str, letter: bytes) -> None:
        from confluent_kafka import KafkaException

        try:
            self._producer.produce(
                self._topic, letter, key=f"{self._of}-{place}".encode(), on_delivery=self._delivered
            )
        except (BufferError, KafkaException):
            metrics.LETTERS_UNSENT.inc()
        self._producer.poll(0)

    def _delivered(self, error: object, _message: object) -> None:
        if error is not None:
            metrics.LETTERS_UNSENT.inc()

    def close(self) -> None:
        """Wait a few seconds for what is under way."""
        self._producer.flush(_CLOSING_S)


def letter_topic(configured: Settings) -> LetterTopic | None:
    """The topic that the settings name, if they do."""
    topic = configured.kafka.letters_topic
    return None if topic is None else LetterTopic(configured, topic)
