"""The service's connections against a real cluster."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from bentos.base.metrics import Metrics
from bentos.base.work import Work
from bentos.effects.event_sinks import open_sinks
from bentos.effects.outbox import Effect
from bentos.features.online_reader import OnlineReader
from bentos.once.claims import answer_key, answer_value
from bentos.once.once import Once
from bentos.wire.redis_cluster import ClusterConnection, connection_to, key_of
from bentos.wire.redis_connection import pack
from stores.cluster_slots import slot
from stores.keys import open_keys
from stores.settings import load_settings
from tests.bentos.redis_cluster_processes import client_of, cluster, cluster_port, url_of
from tests.bentos.redis_process import Server, serving
from tests.bentos.running import store_features, transaction

__all__ = ["cluster"]  # a fixture

PROJECT = "tollgate"


def key_on(half: int, prefix: bytes) -> bytes:
    return next(key for n in range(1000) if slot(key := b"%b-%d" % (prefix, n)) // 8192 == half)


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"foo",
        b"{user1000}.following",
        b"foo{}{bar}",
        b"foo{{bar}}zap",
        b"foo{bar}{zap}",
        b"\x00{\xff}\r\n",
    ],
)
def test_a_keys_slot_is_what_redis_says(cluster: list[Server], key: bytes) -> None:
    assert slot(key) == cluster[0].client().execute_command("CLUSTER KEYSLOT", key)


def test_the_key_of_a_packed_command_is_found() -> None:
    key = b"a\r\nkey$3\r\n"
    assert key_of(pack(b"GET", key)) == key
    assert key_of(pack(b"SET", key, b"v", b"NX")) == key
    assert key_of(pack(b"EVAL", b"return 1\r\n", b"2", key, b"other")) == key


def test_features_of_a_batch_come_from_every_node_of_a_cluster(cluster: list[Server]) -> None:
    rows = [
        transaction(transaction_id=f"c-{n}", customer_id=f"customer-{n}", card_id=f"card-{n}")
        for n in range(16)
    ]
    store = client_of(cluster)
    for row in rows:
        store_features(store, PROJECT, row)

    async def run() -> None:
        chosen = load_settings().changed(
            redis_url=url_of(cluster), feast_project=PROJECT, feature_deadline_ms=1000
        )
        reader, once = (
            OnlineReader(chosen, Metrics()),
            Once(chosen, Metrics(), open_keys(chosen).seal("answers")),
        )
        loop = asyncio.get_running_loop()
        batch = [Work(row, loop.create_future(), 0.0) for row in rows]
        found = await reader.read(batch, once.claims(batch))
        assert found.shortfall is None
        claimed = await once.settle(batch, found.replies, found.ask)
        assert claimed.to_decide == batch
        assert claimed.everywhere
        assert {status for of_row in found.online.status for status in of_row.values()} == {"fresh"}
        assert not np.isnan(found.online.profiles[:, 0]).any()
        await reader.close()

    asyncio.run(run())


def test_a_server_that_answers_with_errors_is_named_as_the_reason(tmp_path: Path) -> None:
    with serving(tmp_path, "--cluster-enabled", "yes", port=cluster_port()) as server:
        # Half of the slots are nobody's: by Redis's default this refuses the other half, too.
        server.client().execute_command("CLUSTER ADDSLOTS", *range(8192))

        async def run() -> None:
            chosen = load_settings().changed(redis_url=url_of([server]), feature_deadline_ms=1000)
            reader, once = (
                OnlineReader(chosen, Metrics()),
                Once(chosen, Metrics(), open_keys(chosen).seal("answers")),
            )
            work = Work(transaction(), asyncio.get_running_loop().create_future(), 0.0)
            found = await reader.read([work], once.claims([work]))
            claimed = await once.settle([work], found.replies, found.ask)
            assert list(claimed.to_decide) == [work]
            assert not claimed.everywhere
            assert found.shortfall == "features:refused"
            assert set(found.online.status[0].values()) == {"timeout"}
            assert (await reader.read([work])).shortfall == "features:refused"
            await reader.close()

        asyncio.run(run())


def test_answers_and_events_reach_a_cluster_once(cluster: list[Server], tmp_path: Path) -> None:
    chosen = load_settings().changed(
        home=tmp_path, redis_url=url_of(cluster), topic="clustered", partitions=2
    )
    seal = open_keys(chosen).seal("answers")
    keys = [answer_key("p", f"t{n}") for n in range(20)]
    effects = [
        Effect(key, answer_value(seal, key, b"d" * 16, b"{}"), n % 2, b"t%d" % n)
        for n, key in enumerate(keys)
    ]

    async def run() -> None:
        _, sinks = open_sinks(chosen, open_keys(load_settings()).seal("outbox"))
        for sink in sinks:
            await sink.start()
            assert sink.send(effects)
            assert sink.send(effects[:5])
        for sink in sinks:
            await sink.close()

    asyncio.run(run())
    store = client_of(cluster)
    for partition in range(2):
        events = [fields[b"v"] for _, fields in store.xrange(f"tollgate:clustered:{partition}")]
        assert events == [b"t%d" % n for n in range(20) if n % 2 == partition]
    assert all(store.get(effect.key) == effect.answer for effect in effects)
    assert list(tmp_path.rglob("*.open")) == []


def test_a_slot_that_moved_is_followed(cluster: list[Server]) -> None:
    key = key_on(0, b"moves")
    names = [server.client().execute_command("CLUSTER MYID").decode() for server in cluster]

    async def run() -> None:
        connection = connection_to(url_of(cluster))
        await connection.open()
        try:
            for server in reversed(cluster):  # the new owner first
                server.client().execute_command("CLUSTER SETSLOT", slot(key), "NODE", names[1])
            assert await connection.exchange([pack(b"SET", key, b"1"), pack(b"GET", key)], 2.0) == [
                b"OK",
                b"1",
            ]
            assert cluster[1].client().get(key) == b"1"
        finally:
            cluster[1].client().delete(key)
            for server in cluster:
                server.client().execute_command("CLUSTER SETSLOT", slot(key), "NODE", names[0])
            connection.close()

    asyncio.run(run())


def test_a_frozen_node_costs_only_its_own_keys(cluster: list[Server]) -> None:
    here, away = key_on(0, b"here"), key_on(1, b"away")
    commands = [pack(b"ECHO", here), pack(b"GET", away), pack(b"GET", here)]

    async def run() -> None:
        connection = connection_to(url_of(cluster))
        assert isinstance(connection, ClusterConnection)
        assert await connection.exchange(commands[1:], 2.0) == [None, None]
        os.kill(cluster[1].process.pid, signal.SIGSTOP)
        try:
            replies = await connection.ask([pack(b"SET", here, b"1"), *commands[1:]], 0.5)
            assert replies.gaps
            assert list(replies) == [b"OK", None, b"1"]
        finally:
            os.kill(cluster[1].process.pid, signal.SIGCONT)
        until = time.monotonic() + 10
        while replies.gaps and time.monotonic() < until:
            replies = await connection.ask(commands[1:], 0.5)
        assert list(replies) == [None, b"1"]
        connection.close()

    asyncio.run(run())
