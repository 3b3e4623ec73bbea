"""Where the effects of a decision go: answers to the online Redis, events to the event log.

Events enter Redis Streams exactly once per transaction id (`bentos.outbox`). Kafka and JSONL have
no such script: an event may stand there twice after a crash, and readers drop the second by its
transaction id.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from bentos.outbox import Effect, Outbox
from bentos.redis_connection import parse_url
from bentos.spool import SpoolFull
from fraud.event_log import stream_name
from fraud.settings import Settings

#: Events that wait in memory for a Kafka or a disk that is away, before transactions are refused.
_HELD: Final = 50_000


class Sink(Protocol):
    """Takes effects without waiting; keeps what it cannot deliver, up to a bound."""

    @property
    def spooled(self) -> int: ...
    @property
    def accepting(self) -> bool: ...
    async def start(self) -> None: ...
    def send(self, effects: Sequence[Effect]) -> bool: ...
    async def tick(self) -> None: ...
    async def close(self) -> None: ...


def open_sinks(chosen: Settings) -> list[Sink]:
    """The sinks that the settings name; the first one remembers answers."""
    streams = [stream_name(chosen.topic, place).encode() for place in range(chosen.partitions)]
    one = chosen.event_log == "redis" and chosen.event_log_redis == chosen.redis_url
    if one and not parse_url(chosen.redis_url).seeds:  # in a cluster a script cannot write to both
        return [Outbox(chosen.redis_url, chosen.home, streams)]
    answers = Outbox(chosen.redis_url, chosen.home, name="answers")
    if chosen.event_log == "redis":
        return [answers, Outbox(chosen.event_log_redis, chosen.home, streams, name="events")]
    if chosen.event_log == "kafka":
        return [answers, KafkaSink(chosen.kafka_bootstrap, chosen.topic)]
    return [answers, JsonlSink(chosen.home / "events", chosen.topic, chosen.partitions)]


class JsonlSink:
    """One file per partition, a line an event, written before the answer leaves."""

    def __init__(self, folder: Path, topic: str, partitions: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = [
            os.open(
                folder / f"{topic}-{place}.jsonl",
                os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC,
                0o600,
            )
            for place in range(partitions)
        ]
        self._held: deque[Effect] = deque()

    @property
    def spooled(self) -> int:
        return len(self._held)

    @property
    def accepting(self) -> bool:
        return len(self._held) < _HELD

    async def start(self) -> None:
        return None

    def send(self, effects: Sequence[Effect]) -> bool:
        if len(self._held) + len(effects) > _HELD:
            raise SpoolFull("the event log's disk refuses and memory is full")
        self._held.extend(effects)
        return self._flush()

    def _flush(self) -> bool:
        while self._held:
            effect = self._held[0]
            line = effect.event + b"\n"
            file = self._files[effect.partition]
            try:
                done = os.write(file, line)
                if done < len(line):  # a full disk took half a line: take it back
                    os.ftruncate(file, os.fstat(file).st_size - done)
                    return False
            except OSError:
                return False
            self._held.popleft()
        return True

    async def tick(self) -> None:
        self._flush()

    async def close(self) -> None:
        self._flush()
        for file in self._files:
            os.close(file)


class KafkaSink:
    """An idempotent producer; events it could not deliver are produced again, in order."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        from confluent_kafka import Producer

        self._topic = topic
        self._producer: Any = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 2,
                "message.timeout.ms": 30_000,
                "queue.buffering.max.messages": _HELD,
                "log_level": 2,
            }
        )
        self._held: deque[Effect] = deque()

    @property
    def spooled(self) -> int:
        return len(self._held)

    @property
    def accepting(self) -> bool:
        return len(self._held) < _HELD

    async def start(self) -> None:
        return None

    def send(self, effects: Sequence[Effect]) -> bool:
        if len(self._held) + len(effects) > _HELD:
            raise SpoolFull("Kafka is away and memory is full")
        self._held.extend(effects)
        return self._produce()

    def _produce(self) -> bool:
        while self._held:
            effect = self._held[0]
            try:
                self._producer.produce(
                    self._topic, effect.event, partition=effect.partition, on_delivery=self._delivered(effect)
                )
            except BufferError:
                return False
            self._held.popleft()
        self._producer.poll(0)
        return True

    def _delivered(self, effect: Effect) -> Any:
        def done(error: object, _: object) -> None:
            if error is not None:
                self._held.append(effect)

        return done

    async def tick(self) -> None:
        self._producer.poll(0)
        self._produce()

    async def close(self) -> None:
        """Wait up to five seconds for what is under way."""
        self._produce()
        self._producer.flush(5.0)
