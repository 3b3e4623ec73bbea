"""Every event log keeps the same promise: all events, in order, resuming where a reader ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedded.redis_server import RedisServer, start_redis
from stores.settings import Settings, settings
from streaming.log import redis_source
from streaming.log.batch import LogAwayError, LogPositionError, PartitionReader
from streaming.log.jsonl_source import partition_file
from streaming.log.publish import open_writer
from streaming.log.redis_source import RedisStreamReader
from streaming.log.source import reader_opener
from tests.streaming.broker import Broker

Open = Callable[[int, str | None], PartitionReader]


def publish(log: Settings, partition: int, names: list[str]) -> None:
    with open_writer(log) as writer:
        for name in names:
            writer.publish_raw(partition, name.encode())


def read(reader: PartitionReader, count: int) -> list[str]:
    """At least `count` events, waiting for them at most 20 seconds."""
    found: list[str] = []
    deadline = time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} events came"
        batch = reader.read()
        assert len(batch.payloads) == len(batch.positions) == len(batch.appended_ms)
        assert len(batch.payloads) <= settings().stream.batch
        found.extend(payload.decode() for payload in batch.payloads)
    return found


def test_a_reader_returns_a_partition_in_order_and_a_second_one_resumes_behind_it(log: Settings) -> None:
    names = [f"e{index}" for index in range(100)]
    publish(log, 0, names)
    publish(log, 1, ["other"])
    first = reader_opener(log)(0, None)
    end = first.end()
    early = read(first, 40)
    assert not first.reached(end)
    second = reader_opener(log)(0, first.position())
    assert early + read(second, 60) == names
    assert second.reached(end)
    assert second.lag() == 0
    assert first.lag() >= 0
    assert not second.read().payloads
    publish(log, 0, ["later"])
    assert read(second, 1) == ["later"]
    first.close()
    second.close()


def test_an_empty_partition_is_read_to_its_end_at_once(log: Settings) -> None:
    reader = reader_opener(log)(1, None)
    assert reader.reached(reader.end())
    assert not reader.read().payloads
    reader.close()


def test_a_half_written_line_waits_for_its_newline(
    configured: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLGATE_EVENT_LOG", "jsonl")
    settings.cache_clear()
    path = partition_file(configured.home / "events", configured.event_log.topic, 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"whole\nhal")
    reader = reader_opener(settings())(0, None)
    assert read(reader, 1) == ["whole"]
    assert reader.reached(reader.end())
    with path.open("ab") as file:
        file.write(b"f\n")
    assert read(reader, 1) == ["half"]
    reader.close()


def test_a_file_that_was_cut_is_refused_with_what_to_do(
    configured: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLGATE_EVENT_LOG", "jsonl")
    settings.cache_clear()
    path = partition_file(configured.home / "events", configured.event_log.topic, 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one\n")
    with pytest.raises(LogPositionError, match="cut or replaced"):
        reader_opener(settings())(0, "400").read()


def test_an_offset_beyond_the_topic_is_refused_with_what_to_do(
    configured: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLGATE_EVENT_LOG", "kafka")
    monkeypatch.setenv("TOLLGATE_KAFKA_BOOTSTRAP", broker.bootstrap)
    settings.cache_clear()
    broker.create_topic(settings().event_log.topic, 1)
    reader = reader_opener(settings())(0, "77")
    with pytest.raises(LogPositionError, match="start over"):
        read(reader, 1)
    reader.close()


def test_a_redis_that_is_away_is_a_log_that_is_away(
    configured: Settings, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOLLGATE_EVENT_LOG_URL", "redis://127.0.0.1:1/0")
    settings.cache_clear()
    with pytest.raises(LogAwayError):
        reader_opener(settings())(0, None).read()


def test_a_log_that_goes_away_within_a_read_gives_what_was_read_first(
    configured: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(redis_source, "_MOST_AT_ONCE", 10)
    server = start_redis(tmp_path / "log")
    try:
        monkeypatch.setenv("TOLLGATE_EVENT_LOG_URL", server.url)
        settings.cache_clear()
        names = [f"e{index}" for index in range(35)]
        publish(settings(), 0, names)
        whole = RedisStreamReader(server.url, settings().event_log.topic, 0, None, 100)
        assert [payload.decode() for payload in whole.read().payloads] == names
        assert not whole.read().payloads
        cut = RedisStreamReader(server.url, settings().event_log.topic, 0, None, 100)
        asked, ask = [], cut._entries

        def third_finds_nobody(most: int) -> Any:
            asked.append(most)
            if len(asked) == 3:
                server.stop()
            return ask(most)

        monkeypatch.setattr(cut, "_entries", third_finds_nobody)
        batch = cut.read()
        assert [payload.decode() for payload in batch.payloads] == names[:20]
        assert cut.position() == batch.positions[-1]
        with pytest.raises(LogAwayError):
            cut.read()
    finally:
        server.stop()


def test_trimming_deletes_only_what_lies_before_the_position(configured: Settings) -> None:
    publish(configured, 0, [f"e{index}" for index in range(400)])
    reader = reader_opener(configured)(0, None)
    read(reader, 400)
    middle = reader.position()
    publish(configured, 0, ["kept"])
    reader.release(middle)
    fresh = reader_opener(configured)(0, None)
    assert "kept" in read(fresh, 1)
    reader.close()
    fresh.close()
