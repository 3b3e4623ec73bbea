"""The flow's connections against real servers: a password, TLS and a cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis
from redis.cluster import RedisCluster

from fraud.features.entities import ENTITIES
from stores.cluster_slots import slot
from stores.redis_layout import decode_bytes, entity_key, field
from stores.settings import Settings, settings
from streaming.log.redis_source import RedisStreamReader
from streaming.online.online_writer import OnlineWriter
from streaming.states.shard_batch import Writes
from tests.bentos.redis_cluster_processes import client_of, cluster, url_of
from tests.bentos.redis_process import Server, serving
from tests.bentos.wire.test_redis_servers import behind_tls

__all__ = ["cluster"]  # a fixture

ENTITY = ENTITIES[0]
NAMES = [f"c{index}" for index in range(300)]


def states(store: redis.Redis | RedisCluster) -> list[bytes | None]:
    name = field(ENTITY.velocity_view, ENTITY.state_feature)
    found = [store.hget(entity_key("tollgate", ENTITY.key, value), name) for value in NAMES]  # type: ignore[arg-type]
    return [decode_bytes(state) if state else None for state in found]  # type: ignore[arg-type]


def write(url: str, version: int, state: bytes) -> int:
    writer = OnlineWriter(url, "tollgate")
    written = writer.write([Writes(0, NAMES, [version] * len(NAMES), [state] * len(NAMES), 0)])
    assert writer.versions(0, [*NAMES[:3], "nobody"])[3] == 0
    writer.close()
    return written


def test_states_reach_every_node_of_a_cluster_and_the_newest_wins(cluster: list[Server]) -> None:
    assert write(url_of(cluster), 20, b"new") == len(NAMES)
    assert write(url_of(cluster), 10, b"old") == 0
    for server in cluster:  # as after a restart
        server.client().script_flush()
    assert write(url_of(cluster), 30, b"newer") == len(NAMES)
    assert states(client_of(cluster)) == [b"newer"] * len(NAMES)
    assert all(server.client().dbsize() > 0 for server in cluster)


#   half 0            half 1
#   MIGRATING  ---->  IMPORTING     a key that is not there yet: ASK
#   NODE       ---->  NODE          the slot has a new master: MOVED
def test_a_slot_on_its_way_to_another_master_is_followed(cluster: list[Server]) -> None:
    value = next(name for name in NAMES if slot(entity_key("tollgate", ENTITY.key, name)) < 8192)
    key = entity_key("tollgate", ENTITY.key, value)
    names = [server.client().execute_command("CLUSTER MYID").decode() for server in cluster]
    for server in cluster:
        server.client().execute_command("CLUSTER SETSLOT", slot(key), "NODE", names[0])
    cluster[0].client().delete(key)
    writer = OnlineWriter(url_of(cluster), "tollgate")
    others = [name for name in NAMES if name != value]
    more = Writes(0, others, [50] * len(others), [b"state"] * len(others), 0)
    writer.write([more])
    try:
        cluster[1].client().execute_command("CLUSTER SETSLOT", slot(key), "IMPORTING", names[0])
        cluster[0].client().execute_command("CLUSTER SETSLOT", slot(key), "MIGRATING", names[1])
        assert writer.write([Writes(0, [value], [51], [b"asked"], 0)]) == 1
        for server in reversed(cluster):
            server.client().execute_command("CLUSTER SETSLOT", slot(key), "NODE", names[1])
        assert writer.write([Writes(0, [value], [52], [b"moved"], 0), more]) == len(NAMES)
        assert writer.versions(0, [value]) == [52]
        stored = cluster[1].client().hget(key, field(ENTITY.velocity_view, ENTITY.state_feature))
        assert decode_bytes(stored) == b"moved"
    finally:
        cluster[1].client().delete(key)
        for server in cluster:
            server.client().execute_command("CLUSTER SETSLOT", slot(key), "NODE", names[0])
        writer.close()


def test_streams_on_a_cluster_are_written_and_read(
    cluster: list[Server], configured: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streaming.log.publish import open_writer

    monkeypatch.setenv("TOLLGATE_EVENT_LOG_URL", url_of(cluster))
    monkeypatch.setenv("TOLLGATE_PARTITIONS", "6")
    settings.cache_clear()
    with open_writer(settings(), "clustered") as writer:
        for partition in range(6):
            writer.publish_raw(partition, b"event %d" % partition)
    for partition in range(6):
        reader = RedisStreamReader(url_of(cluster), "clustered", partition, None, 10)
        end = reader.end()
        assert reader.read().payloads == [b"event %d" % partition]
        assert reader.reached(end)
        reader.close()


def test_states_are_written_through_tls_with_a_password_and_not_to_a_stranger(tmp_path: Path) -> None:
    async def both(port: int, trusted: Path) -> None:
        url = f"rediss://:secret@127.0.0.1:{port}/0"
        assert await asyncio.to_thread(write, f"{url}?ssl_ca_certs={trusted}", 5, b"state") == len(NAMES)
        with pytest.raises(redis.ConnectionError, match="certificate"):
            await asyncio.to_thread(write, url, 6, b"state")

    with serving(tmp_path, "--requirepass", "secret") as server:
        asyncio.run(behind_tls(server, tmp_path / "tls", both))
        assert states(server.client(password="secret")) == [b"state"] * len(NAMES)
