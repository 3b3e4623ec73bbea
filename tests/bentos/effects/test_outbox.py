"""What a decision has done elsewhere: remembered answers and events, while Redis or Kafka come and go."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, TopicPartition
from msgspec import structs

from bentos.effects.backlog import Backlog
from bentos.effects.event_sinks import KafkaSink, open_sinks
from bentos.effects.outbox import Effect, Outbox
from bentos.once.claims import answer_key, answer_value
from embedded.redis_server import RedisServer, free_port, start_redis
from stores.keys import open_keys
from stores.settings import load_settings
from tests.either_server import redis_server
from tests.streaming.broker import start_broker

__all__ = ["redis_server"]  # a fixture

STREAMS = [b"tollgate:test:0"]
SEAL = open_keys(load_settings()).seal("answers")
WAITING = open_keys(load_settings()).seal("outbox")


def effect(name: str) -> Effect:
    key = answer_key("p", name)
    return Effect(key, answer_value(SEAL, key, b"d" * 16, b"{}"), 0, name.encode())


def events(client: redis.Redis) -> list[bytes]:
    return [fields[b"v"] for _, fields in client.xrange("tollgate:test:0")]


def test_a_long_backlog_is_sent_again_piece_by_piece_and_in_order(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bentos.effects.backlog._PART", 1000)
    client = redis.Redis(port=redis_server.port)
    client.flushdb()

    async def run() -> None:
        outbox = Outbox(redis_server.url, tmp_path, STREAMS, seal=WAITING)
        for n in range(300):  # not started: Redis is not connected yet
            assert not outbox.send([effect(f"e{n}")])
        await outbox.tick()
        while outbox.spooled:
            await asyncio.sleep(0.01)
        assert outbox.send([effect("last")])
        await outbox.close()

    asyncio.run(run())
    assert events(client) == [b"e%d" % n for n in range(300)] + [b"last"]


def test_what_redis_owes_when_it_hangs_is_sent_again_in_order(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    server = start_redis(tmp_path / "redis")

    async def run() -> None:
        outbox = Outbox(server.url, tmp_path, STREAMS, seal=WAITING)
        await outbox.start()
        os.kill(server.pid, signal.SIGSTOP)
        assert outbox.send([effect("a"), effect("b")])
        await asyncio.sleep(1.1)
        # The connection is given up now; what was sent on it comes first.
        assert not outbox.send([effect("c")])
        assert not outbox.send([effect("d")])
        os.kill(server.pid, signal.SIGCONT)
        for _ in range(200):
            await asyncio.sleep(0.02)
            await outbox.tick()
            if not outbox.spooled:
                break
        assert outbox.send([effect("e")])
        await outbox.close()

    try:
        asyncio.run(run())
        assert events(redis.Redis(port=server.port)) == [b"a", b"b", b"c", b"d", b"e"]
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.stop()


def test_an_event_is_appended_once_however_often_it_is_sent(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    client = redis.Redis(port=redis_server.port)
    client.flushdb()

    async def run() -> None:
        outbox = Outbox(redis_server.url, tmp_path, STREAMS, seal=WAITING)
        await outbox.start()
        assert outbox.send([effect("a"), effect("b")])
        assert outbox.send([effect("a")])
        await outbox.close()

    asyncio.run(run())
    assert events(client) == [b"a", b"b"]
    assert 86_000 < client.ttl(answer_key("p", "a")) <= 86_400
    assert list(tmp_path.rglob("*.open")) == []


def test_events_wait_for_redis_and_then_go_out_in_order(tmp_path: Path) -> None:
    server = start_redis(tmp_path / "redis")
    port = server.port

    async def run() -> list[bytes]:
        outbox = Outbox(f"redis://127.0.0.1:{port}/0", tmp_path, STREAMS, seal=WAITING)
        await outbox.start()
        assert outbox.send([effect("a")])
        await asyncio.sleep(0.05)
        server.stop()
        await asyncio.sleep(0.05)
        assert not outbox.send([effect("b")])
        assert not outbox.send([effect("c"), effect("d")])
        assert outbox.spooled == 3
        again = start_redis(tmp_path / "redis2", port)
        for _ in range(100):
            await outbox.tick()
            await asyncio.sleep(0.02)
            if not outbox.spooled:
                break
        assert outbox.send([effect("e")])
        await outbox.close()
        client = redis.Redis(port=port)
        found = events(client)
        client.close()
        again.stop()
        return found

    assert asyncio.run(run()) == [b"b", b"c", b"d", b"e"]


def test_what_a_dead_worker_could_not_send_is_taken_over(tmp_path: Path, redis_server: RedisServer) -> None:
    client = redis.Redis(port=redis_server.port)
    client.flushdb()
    pid = os.fork()
    if pid == 0:
        outbox = Outbox("redis://127.0.0.1:1/0", tmp_path, seal=WAITING)
        outbox.send([effect("a"), effect("b")])
        os._exit(9)
    os.waitpid(pid, 0)

    async def run() -> None:
        outbox = Outbox(redis_server.url, tmp_path, STREAMS, seal=WAITING)
        await outbox.start()
        assert outbox.spooled == 2
        await outbox.tick()
        await outbox.close()

    asyncio.run(run())
    assert events(client) == [b"a", b"b"]


def test_events_can_go_to_files_and_answers_to_redis(tmp_path: Path, redis_server: RedisServer) -> None:
    client = redis.Redis(port=redis_server.port)
    client.flushdb()
    chosen = load_settings().changed(
        home=tmp_path,
        redis_url=redis_server.url,
        event_log="jsonl",
        topic="test",
        partitions=1,
    )

    async def run() -> None:
        _, sinks = open_sinks(chosen, WAITING)
        for sink in sinks:
            await sink.start()
            assert sink.send([effect("a"), effect("b")])
            await sink.close()

    asyncio.run(run())
    assert (tmp_path / "events" / "test-0.jsonl").read_bytes() == b"a\nb\n"
    assert events(client) == []
    assert client.get(answer_key("p", "b")) == answer_value(SEAL, answer_key("p", "b"), b"d" * 16, b"{}")


def test_events_can_go_to_another_redis(tmp_path: Path, redis_server: RedisServer) -> None:
    first, second = redis.Redis(port=redis_server.port, db=4), redis.Redis(port=redis_server.port, db=5)
    first.flushdb()
    second.flushdb()
    url = redis_server.url.removesuffix("/0")
    chosen = load_settings().changed(
        home=tmp_path,
        redis_url=f"{url}/4",
        event_log_url=f"{url}/5",
        topic="test",
        partitions=1,
    )

    async def run() -> None:
        for sink in open_sinks(chosen, WAITING)[1]:
            await sink.start()
            sink.send([effect("a")])
            sink.send([effect("a")])
            await sink.close()

    asyncio.run(run())
    assert first.get(answer_key("p", "a")) is not None
    assert events(second) == [b"a"]
    assert events(first) == []


def test_events_wait_for_kafka_on_disk_and_then_go_out_in_order(tmp_path: Path) -> None:
    broker = start_broker()
    broker.create_topic("scored", 1)

    async def run() -> None:
        away = KafkaSink(
            load_settings({"TOLLGATE_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}"}).kafka,
            "scored",
            Backlog(tmp_path / "kafka", WAITING),
        )
        await away.start()
        assert away.send([effect("a"), effect("b")])
        await asyncio.sleep(1.1)
        assert not away.send([effect("c")])  # a and b are overdue: all three wait
        assert away.spooled == 3
        await away.close()
        back = KafkaSink(
            load_settings({"TOLLGATE_KAFKA_BOOTSTRAP": broker.bootstrap}).kafka,
            "scored",
            Backlog(tmp_path / "kafka", WAITING),
        )
        await back.start()
        assert not back.send([effect("d")])
        while back.spooled:
            await back.tick()
            await asyncio.sleep(0.01)
        assert back.send([effect("e")])
        await back.close()

    try:
        asyncio.run(run())
        consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "test"})
        consumer.assign([TopicPartition("scored", 0, 0)])
        found = [message.value() for message in consumer.consume(5, timeout=10)]
        consumer.close()
    finally:
        broker.stop()
    assert found == [b"a", b"b", b"c", b"d", b"e"]
    assert list(tmp_path.rglob("*.open")) == []


def test_answers_go_to_the_topic_of_predictions_beside_the_events_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    broker = start_broker()
    for topic in ("transactions", "predictions"):
        broker.create_topic(topic, 1)
    chosen = load_settings(
        {
            "TOLLGATE_KAFKA_BOOTSTRAP": broker.bootstrap, "TOLLGATE_EVENT_LOG": "kafka",
            "TOLLGATE_SERVE_PREDICTIONS": "true", "TOLLGATE_HOME": str(tmp_path),
        }
    )  # fmt: skip

    async def run() -> None:
        sinks = open_sinks(chosen, WAITING)[1][1:]
        for sink in sinks:
            await sink.start()
            sink.send([said("a"), said("b")])
            while isinstance(sink, KafkaSink) and sink.under_way:
                await sink.tick()
                await asyncio.sleep(0.01)
            await sink.close()

    try:
        asyncio.run(run())
        found = {}
        for topic in ("transactions", "predictions"):
            consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "test"})
            consumer.assign([TopicPartition(topic, 0, 0)])
            found[topic] = [(message.key(), message.value()) for message in consumer.consume(2, timeout=10)]
            consumer.close()
    finally:
        broker.stop()
    assert found == {
        "transactions": [(b"customer", b"a"), (b"customer", b"b")],
        "predictions": [(b"customer", b"answer to a"), (b"customer", b"answer to b")],
    }


def said(name: str) -> Effect:
    return structs.replace(effect(name), customer="customer", said=f"answer to {name}".encode())
