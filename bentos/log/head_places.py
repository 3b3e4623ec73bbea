"""Where heads of the decision log are put out: a folder, a stream of another Redis, a Kafka topic.

Each takes one line a minute and series, and keeps what it got: whoever writes the log's files should not
be able to write there. `read_lines` brings them back for the audit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from stores.kafka import client_config, opened
from stores.settings import Settings

SUFFIX: Final = ".heads.jsonl"
#: The stream's key in Redis, and how many heads it keeps: a year of a dozen workers is six million.
_STREAM: Final = "tollgate:heads"
_KEPT: Final = 10_000_000
#: How places other than files are named to the audit.
_KAFKA: Final = "kafka:"
_REDIS: Final = ("redis://", "rediss://", "redis+")
#: Seconds that a broker may take for one head.
_PATIENCE_S: Final = 10.0
_PAGE: Final = 1_000


class HeadPlace(Protocol):
    """Takes heads. `put` may block, and raises `OSError` where it cannot keep one."""

    def put(self, series: str, line: bytes) -> None: ...


class FolderPlace:
    """A file for each series, private to this user."""

    def __init__(self, folder: Path, home: Path) -> None:
        if folder.resolve().is_relative_to(home.resolve()):
            raise ValueError(
                f"TOLLGATE_SERVE_HEADS: {folder} lies in TOLLGATE_HOME beside the log it is to prove; name a "
                "folder elsewhere"
            )
        self._folder = folder

    def put(self, series: str, line: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / (series + SUFFIX)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class RedisPlace:
    """A stream in a Redis; its user needs `XADD` on one key and no more."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Any = None

    def put(self, series: str, line: bytes) -> None:
        import redis

        from stores.redis_clients import connect_any

        try:
            if self._client is None:
                self._client = connect_any(self._url)
            self._client.xadd(_STREAM, {"v": line}, maxlen=_KEPT, approximate=True)
        except redis.RedisError as error:
            raise OSError(0, f"Redis: {type(error).__name__}") from None


class KafkaPlace:
    """A topic, keyed by series; its user needs to produce to it and no more."""

    def __init__(self, chosen: Settings, topic: str) -> None:
        from confluent_kafka import Producer

        self._topic = topic
        self._producer: Any = opened(Producer, client_config(chosen.kafka, enable_idempotence=True))

    def put(self, series: str, line: bytes) -> None:
        from confluent_kafka import KafkaException

        failed: list[str] = ["no acknowledgement"]

        def told(error: Any, _message: object) -> None:
            failed[:] = [] if error is None else [error.name()]

        try:
            self._producer.produce(self._topic, line, key=series.encode(), on_delivery=told)
            self._producer.flush(_PATIENCE_S)
        except (BufferError, KafkaException) as error:
            failed[:] = [type(error).__name__]
        if failed:
            self._producer.purge()
            raise OSError(0, f"Kafka: {failed[0]}")


def places_of(chosen: Settings) -> list[HeadPlace]:
    """The places that the settings name; ValueError for a folder beside the log."""
    places: list[HeadPlace] = []
    if chosen.serve.heads is not None:
        places.append(FolderPlace(chosen.serve.heads, chosen.home))
    if chosen.serve.heads_redis is not None:
        places.append(RedisPlace(chosen.serve.heads_redis))
    if chosen.serve.heads_topic is not None:
        places.append(KafkaPlace(chosen, chosen.serve.heads_topic))
    return places


def read_lines(place: str, chosen: Settings) -> Iterator[tuple[str, bytes, bool]]:
    """Where a line stands, the line, and whether every line there should be a head (a collected log holds
    others). `place` is a folder, a file, an address of Redis, or `kafka:` before a topic's name."""
    if place.startswith(_KAFKA):
        yield from _of_kafka(place.removeprefix(_KAFKA), chosen)
    elif place.startswith(_REDIS):
        yield from _of_redis(place)
    else:
        folder = Path(place)
        for path in sorted(folder.glob("*" + SUFFIX)) if folder.is_dir() else [folder]:
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                yield f"{path.name}:{number}", line, path.name.endswith(SUFFIX)


def _of_redis(url: str) -> Iterator[tuple[str, bytes, bool]]:
    from stores.redis_clients import connect_any

    after = b"-"
    with connect_any(url) as client:
        while page := client.xrange(_STREAM, min=after, count=_PAGE):
            for entry, fields in page:
                yield f"{_STREAM} {entry.decode()}", fields.get(b"v", b""), True
            after = b"(" + page[-1][0]


def _of_kafka(topic: str, chosen: Settings) -> Iterator[tuple[str, bytes, bool]]:
    from confluent_kafka import Consumer, TopicPartition

    consumer: Any = opened(
        Consumer, client_config(chosen.kafka, group_id="tollgate-audit", enable_auto_commit=False)
    )
    try:
        for partition in consumer.list_topics(topic, timeout=_PATIENCE_S).topics[topic].partitions:
            there = TopicPartition(topic, partition)
            first, end = consumer.get_watermark_offsets(there, timeout=_PATIENCE_S)
            consumer.assign([TopicPartition(topic, partition, first)])
            at = first
            while at < end:
                message = consumer.poll(_PATIENCE_S)
                if message is None or message.error() is not None:
                    raise OSError(0, f"the topic {topic} cannot be read to its end")
                at = message.offset() + 1
                yield f"{topic}/{partition}:{message.offset()}", message.value() or b"", True
    finally:
        consumer.close()
