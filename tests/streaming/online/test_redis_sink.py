"""The sink: Feast's bytes, newest wins, and a Redis that goes away."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from embedded.redis_server import free_port, start_redis
from fraud.features.entities import ENTITIES
from stores.redis_layout import (
    decode_bytes,
    decode_timestamp,
    encode_bytes,
    encode_timestamp,
    entity_key,
    field,
    ts_field,
)
from stores.settings import Settings, settings
from streaming.online.online_rows import KeyEncoder, timestamp
from streaming.online.online_rows import value as value_bytes
from streaming.online.online_writer import MOST_KEYS, OnlineWriter
from streaming.online.redis_sink import OnlineStorePartition, OnlineStoreSink
from streaming.states.shard_batch import Writes

ENTITY = ENTITIES[0]


def stored(url: str, project: str, value: str) -> tuple[int, bytes] | None:
    with redis.Redis.from_url(url) as client:
        fields = [ts_field(ENTITY.velocity_view), field(ENTITY.velocity_view, ENTITY.state_feature)]
        version, state = client.hmget(entity_key(project, ENTITY.key, value), fields)
    return (decode_timestamp(version), decode_bytes(state)) if version and state else None


def one(value: str, version: int, state: bytes) -> Writes:
    return Writes(0, [value], [version], [state], 0)


def test_more_keys_than_one_call_takes_are_all_written(configured: Settings) -> None:
    writer = OnlineWriter(configured.redis.url, configured.feast.project)
    names = [f"c{index}" for index in range(3 * MOST_KEYS + 1)]
    count = len(names)
    assert writer.write([Writes(0, names, [5] * count, [b"state"] * count, 0)]) == count
    assert all(stored(configured.redis.url, "tollgate", name) == (5, b"state") for name in names)
    assert writer.versions(0, [*names[:2], "nobody"]) == [5, 5, 0]
    writer.close()


def test_an_older_version_never_replaces_a_newer_one_and_a_key_is_written_once_a_batch(
    configured: Settings,
) -> None:
    writer = OnlineWriter(configured.redis.url, configured.feast.project)
    assert writer.write([one("c", 10, b"a"), one("c", 30, b"c")]) == 1
    assert writer.write([one("c", 20, b"b")]) == 0
    assert stored(configured.redis.url, "tollgate", "c") == (30, b"c")
    writer.close()


def test_a_server_that_lost_the_script_is_given_it_again(configured: Settings) -> None:
    writer = OnlineWriter(configured.redis.url, configured.feast.project)
    writer.write([one("c", 1, b"a")])
    with redis.Redis.from_url(configured.redis.url) as client:
        client.script_flush()
    assert writer.write([one("c", 2, b"b")]) == 1
    assert stored(configured.redis.url, "tollgate", "c") == (2, b"b")
    writer.close()


def test_while_redis_is_away_the_sink_waits_and_then_writes_everything_again(
    configured: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = free_port()
    first = start_redis(tmp_path / "first", port)
    monkeypatch.setenv("TOLLGATE_REDIS_URL", first.url)
    settings.cache_clear()
    sink = OnlineStorePartition(settings(), threading.Event())
    sink.write_batch([("customer:0", one("early", 1, b"a"))])
    first.process.kill()
    first.process.wait()
    writing = threading.Thread(target=sink.write_batch, args=([("customer:0", one("late", 2, b"b"))],))
    writing.start()
    second = start_redis(tmp_path / "second", port)  # empty: the first one kept nothing
    try:
        writing.join(30)
        assert not writing.is_alive()
        assert stored(second.url, "tollgate", "late") == (2, b"b")
        assert stored(second.url, "tollgate", "early") == (1, b"a")
    finally:
        sink.close()
        second.stop()


def test_what_was_sent_but_not_answered_is_sent_again(
    configured: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = free_port()
    first = start_redis(tmp_path / "first", port)
    monkeypatch.setenv("TOLLGATE_REDIS_URL", first.url)
    settings.cache_clear()
    online = OnlineStoreSink(settings(), threading.Event())
    sink = online.build("online", 0, 1)
    names = [f"c{index}" for index in range(2_000)]
    many = Writes(0, names, [7] * len(names), [b"state"] * len(names), 0)
    sink.write_batch([("customer:0", many)])  # too many to wait for the answers at once
    first.process.kill()
    first.process.wait()
    second = start_redis(tmp_path / "second", port)
    try:
        online.settle()
        assert all(stored(second.url, "tollgate", name) == (7, b"state") for name in names[::50])
        with redis.Redis.from_url(second.url) as client:
            assert client.dbsize() == len(names)
    finally:
        sink.close()
        second.stop()


def test_patience_ends_with_what_will_happen_next(
    configured: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLGATE_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    monkeypatch.setenv("TOLLGATE_STREAM_PATIENCE_SECONDS", "1")
    settings.cache_clear()
    sink = OnlineStorePartition(settings(), threading.Event())
    with pytest.raises(TimeoutError, match="resumes from its last snapshot"):
        sink.write_batch([("customer:0", one("c", 1, b"a"))])


@given(st.text(max_size=64), st.integers(0, 5), st.integers(0, 2**52), st.binary(max_size=300))
def test_the_joined_parts_are_the_bytes_of_the_layout(
    name: str, place: int, version: int, state: bytes
) -> None:
    assert KeyEncoder("tollgate", [entity.key for entity in ENTITIES]).key(place, name) == entity_key(
        "tollgate", ENTITIES[place].key, name
    )
    assert timestamp(version) == encode_timestamp(version)
    assert value_bytes(state) == encode_bytes(state)
