"""Where the effects of a decision go: answers to the online Redis, events to the event log.

Events enter Redis Streams exactly once per transaction id (`bentos.effects.outbox`). Kafka and JSONL have
no such script: an event may stand there twice after a crash, and readers drop the second by its
transaction id.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from bentos.effects.backlog import Backlog, Effect
from bentos.effects.outbox import Outbox
from stores.event_log import stream_name
from stores.kafka import client_config, opened
from stores.keys import Seal
from stores.setting_groups import KafkaSettings
from stores.settings import Settings
from stores.spool import SpoolFull

#: Events in the memory of a producer, or before a disk that refuses, until transactions are refused.
_HELD: Final = 50_000
#: Seconds after which an event that Kafka has not acknowledged makes others wait on disk.
_OVERDUE: Final = 1.0
#: Seconds between two looks at Kafka's acknowledgements, and for taking back what has none.
_POLL: Final = 0.005
_RECALL: Final = 0.2


def _said(effect: Effect) -> bytes:
    return effect.said


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


def open_sinks(
    chosen: Settings, seal: Seal, unverified: Callable[[str, int], None] = lambda what, number: None
) -> tuple[Outbox, list[Sink]]:
    """The outbox that remembers answers, and all sinks that the settings name, that one first.

    `seal` signs what waits on disk; `unverified` is told of what does not verify there.
    """
    outbox = partial(Outbox, seal=seal, unverified=unverified)
    streams = [
        stream_name(chosen.event_log.topic, place).encode() for place in range(chosen.event_log.partitions)
    ]
    one = chosen.event_log.kind == "redis" and chosen.event_log_redis == chosen.redis.url
    if one and chosen.redis.address.kind != "cluster":  # in a cluster a script cannot write to both
        both = outbox(chosen.redis.url, chosen.home, streams)
        return both, [both]
    answers = outbox(chosen.redis.url, chosen.home, name="answers")
    if chosen.event_log.kind == "redis":
        return answers, [answers, outbox(chosen.event_log_redis, chosen.home, streams, name="events")]
    if chosen.event_log.kind == "kafka":
        kept = chosen.home / "outbox"
        backlog = Backlog(kept / "kafka", seal, unverified)
        sinks: list[Sink] = [answers, KafkaSink(chosen.kafka, chosen.event_log.topic, backlog)]
        if chosen.serve.predictions:
            topic = chosen.event_log.predictions_topic
            backlog = Backlog(kept / "predictions", seal, unverified)
            sinks.append(KafkaSink(chosen.kafka, topic, backlog, of=_said))
        return answers, sinks
    return answers, [
        answers,
        JsonlSink(chosen.home / "events", chosen.event_log.topic, chosen.event_log.partitions),
    ]


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
    """An idempotent producer. What Kafka does not acknowledge waits on disk, and is produced again.

    Once an event is overdue, new ones wait behind it instead of filling the producer's memory. An event's key
    is its customer, by which Kafka's partitioner finds the partition among as many as the broker has.
    """

    def __init__(
        self, configured: KafkaSettings, topic: str, backlog: Backlog,
        *, of: Callable[[Effect], bytes] = lambda effect: effect.event,
    ) -> None:  # fmt: skip
        from confluent_kafka import Producer

        self._topic = topic
        self._of = of
        own = {
            "enable_idempotence": True, "linger_ms": 2, "message_timeout_ms": 10_000,
            "queue_buffering_max_messages": _HELD, "partitioner": "murmur2_random",
        }  # fmt: skip
        self._producer: Any = opened(Producer, client_config(configured, **own) | {"log_level": 2})
        self._backlog = backlog
        self._number = 0
        # In the order of production, with the moment: the first is the oldest.
        self._under_way: dict[int, tuple[float, Effect]] = {}
        self._failed = False
        self._draining: asyncio.Task[None] | None = None

    @property
    def spooled(self) -> int:
        return self._backlog.waiting

    @property
    def accepting(self) -> bool:
        return not self._backlog.full

    async def start(self) -> None:
        self._backlog.adopt()

    @property
    def under_way(self) -> int:
        """Events that were produced and not acknowledged yet."""
        return len(self._under_way)

    @property
    def _overdue(self) -> bool:
        first = next(iter(self._under_way.values()), None)
        return first is not None and time.monotonic() - first[0] > _OVERDUE

    def send(self, effects: Sequence[Effect]) -> bool:
        self._producer.poll(0)  # what was acknowledged meanwhile is not overdue
        if not self._backlog.waiting and self._overdue:
            self._recall()
        for place, effect in enumerate(effects):
            # Behind others that wait: one customer's events keep their order.
            if self._backlog.waiting or not self._produce(effect, self._settled):
                self._backlog.keep(effects[place:])
                return False
        return True

    def _recall(self) -> None:
        """Take back what is under way; an event that reached Kafka all the same will be there twice."""
        self._producer.purge()
        self._producer.flush(_RECALL)

    def _produce(self, effect: Effect, settled: Callable[[int, bool], None]) -> bool:
        number = self._number
        try:
            self._producer.produce(
                self._topic,
                self._of(effect),
                key=effect.customer.encode(),
                on_delivery=lambda error, _: settled(number, error is None),
            )
        except BufferError:
            return False
        self._number += 1
        self._under_way[number] = (time.monotonic(), effect)
        return True

    def _settled(self, number: int, delivered: bool) -> None:
        _, effect = self._under_way.pop(number)
        if not delivered:
            # When memory is full too, the decision log still has it; nothing else can be done here.
            with suppress(SpoolFull):
                self._backlog.keep([effect])

    def _redelivered(self, number: int, delivered: bool) -> None:
        del self._under_way[number]
        self._failed = self._failed or not delivered

    async def tick(self) -> None:
        self._producer.poll(0)
        self._backlog.retry_disk()
        if self._backlog.waiting and not self._under_way and self._draining is None:
            self._draining = asyncio.create_task(self._drain())
            self._draining.add_done_callback(self._drained)

    def _drained(self, task: asyncio.Task[None]) -> None:
        self._draining = None
        if not task.cancelled():
            task.exception()

    async def _drain(self) -> None:
        """Produce the backlog in order, part by part."""
        while part := self._backlog.part():
            self._failed = False
            for effect in part:
                while not self._produce(effect, self._redelivered):
                    await self._poll()
            while self._under_way:
                await self._poll()
            if self._failed:
                return
            self._backlog.delivered()
        self._backlog.clear()  # no await since the last look: nothing can have been added in between

    async def _poll(self) -> None:
        await asyncio.sleep(_POLL)
        self._producer.poll(0)

    async def close(self) -> None:
        """Wait up to five seconds for what is under way, and leave the rest to the next worker."""
        await self.tick()
        until = time.monotonic() + 5.0
        while (self._under_way or self._draining) and not self._overdue and time.monotonic() < until:
            await self._poll()
        if self._draining is not None:
            self._draining.cancel()
        self._recall()
        self._backlog.close()
