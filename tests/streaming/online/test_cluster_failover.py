"""The flow's sink on a Redis Cluster that loses masters: it waits, goes on, and loses nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fraud.features.entities import ENTITIES
from stores.event_log import stream_name
from stores.redis_clients import AWAY
from stores.redis_layout import decode_bytes, entity_key, field
from stores.settings import Settings, settings
from streaming.log.batch import LogAwayError
from streaming.log.redis_source import RedisStreamReader
from streaming.online.redis_sink import OnlineStorePartition
from streaming.states.shard_batch import Writes
from tests.bentos.failing_cluster import FailingCluster, failing_cluster
from tests.bentos.running import wait_for

ENTITY = ENTITIES[0]
NAMES = [f"c{index}" for index in range(60)]


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[FailingCluster]:
    with failing_cluster(tmp_path / "cluster") as failing:
        yield failing


@pytest.fixture
def sink(
    failing: FailingCluster, configured: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OnlineStorePartition]:
    monkeypatch.setenv("TOLLGATE_REDIS_URL", failing.url)
    monkeypatch.setenv("TOLLGATE_STREAM_PATIENCE_SECONDS", "120")
    settings.cache_clear()
    sink = OnlineStorePartition(settings(), threading.Event())
    yield sink
    sink.close()


def batch(version: int, names: list[str] = NAMES) -> list[tuple[str, Writes]]:
    return [("customer:0", Writes(0, names, [version] * len(names), [b"state %d" % version] * len(names), 0))]


def stored(failing: FailingCluster, names: list[str] = NAMES) -> set[bytes | None]:
    name = field(ENTITY.velocity_view, ENTITY.state_feature)
    store = failing.client()
    found = [store.hget(entity_key("tollgate", ENTITY.key, value), name) for value in names]
    store.close()
    return {decode_bytes(state) if state else None for state in found}


def of_share(failing: FailingCluster, share: int) -> list[str]:
    return [name for name in NAMES if failing.share(entity_key("tollgate", ENTITY.key, name)) == share]


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_the_sink_goes_on_after_a_failover_and_has_written_all_it_was_given(
    failing: FailingCluster, sink: OnlineStorePartition, how: str
) -> None:
    sink.write_batch(batch(1))
    failing.replicate(0)
    getattr(failing, how)(0)
    version, until = 1, time.monotonic() + 120
    while not failing.promoted(0) or version < 6:
        version += 1
        sink.write_batch(batch(version))  # waits while the cluster has no master for some keys
        assert time.monotonic() < until
    sink.settle()
    assert stored(failing) == {b"state %d" % version}


def test_what_a_lost_master_acknowledged_but_never_replicated_is_written_again(
    failing: FailingCluster, sink: OnlineStorePartition
) -> None:
    mine, others = of_share(failing, 0), of_share(failing, 1)
    sink.write_batch(batch(1))
    failing.replicate(0)
    failing.kill(0)
    assert wait_for(lambda: failing.promoted(0), 60)
    store = failing.client()
    for name in mine:  # as if the replica had never heard of them
        assert store.delete(entity_key("tollgate", ENTITY.key, name)) == 1
    store.close()
    sink.write_batch(batch(3, mine[:1]))
    sink.write_batch(batch(3, others))
    assert stored(failing, mine[1:]) == {b"state 1"}
    assert stored(failing, mine[:1] + others) == {b"state 3"}


def test_the_sink_waits_for_a_cluster_of_which_no_node_answers(
    failing: FailingCluster, sink: OnlineStorePartition
) -> None:
    sink.write_batch(batch(1))
    nodes = failing.masters + failing.replicas
    for node in nodes:
        os.kill(node.process.pid, signal.SIGSTOP)
    writing = threading.Thread(target=sink.write_batch, args=(batch(2),))
    writing.start()
    writing.join(8)
    assert writing.is_alive()
    for node in nodes:
        os.kill(node.process.pid, signal.SIGCONT)
    writing.join(90)
    assert not writing.is_alive()
    assert stored(failing) == {b"state 2"}


def test_the_flow_reads_on_where_it_was_when_its_streams_master_is_lost(failing: FailingCluster) -> None:
    partition = next(n for n in range(100) if failing.share(stream_name("lost", n).encode()) == 0)
    store, stream = failing.client(), stream_name("lost", partition)
    reader = RedisStreamReader(failing.url, "lost", partition, None, 10)
    store.xadd(stream, {"v": "before"})
    assert reader.read().payloads == [b"before"]
    failing.replicate(0)
    failing.kill(0)
    with pytest.raises(LogAwayError):
        reader.read()
    assert wait_for(lambda: failing.promoted(0), 60)

    def append() -> bool:
        with suppress(*AWAY):
            return bool(store.xadd(stream, {"v": "after"}))
        return False

    found: list[bytes] = []

    def read_on() -> bool:
        with suppress(LogAwayError):
            found.extend(reader.read().payloads)
        return bool(found)

    assert wait_for(append, 30)
    assert wait_for(read_on, 30)
    assert found == [b"after"]
    reader.close()
    store.close()
