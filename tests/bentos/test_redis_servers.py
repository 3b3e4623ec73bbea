"""The service's connections against real servers: password, TLS, Sentinel and Cluster."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.cluster import ClusterNode, RedisCluster

from bentos.event_sinks import open_sinks
from bentos.memory import Memory
from bentos.metrics import Metrics
from bentos.online_reader import OnlineReader
from bentos.outbox import Effect, answer_key, answer_value
from bentos.redis_cluster import ClusterConnection, Gaps, connection_to, key_of, slot
from bentos.redis_connection import RedisConnection, RedisUnavailable, pack
from bentos.work import Work
from embedded.redis_server import binary, free_port
from fraud.settings import load_settings
from tests.bentos.running import store_features, transaction, wait_for
from tests.streaming.broker import free_ports

PROJECT = "tollgate"


@dataclass
class Server:
    """A redis-server (or a sentinel) with options of its own."""

    process: subprocess.Popen[bytes]
    port: int

    def client(self, **how: object) -> redis.Redis:
        return redis.Redis(port=self.port, **how)  # type: ignore[arg-type]


@contextmanager
def serving(folder: Path, *options: str, port: int | None = None) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    process = subprocess.Popen(
        [str(binary()), *options, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder),
         "--save", "", "--logfile", str(folder / "redis.log")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:

        def listens() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        assert wait_for(listens, 10), (folder / "redis.log").read_text()
        yield Server(process, port)
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.wait()


async def ask(url: str, *commands: bytes, seconds: float = 2.0) -> list[object]:
    connection = connection_to(url)
    try:
        return await connection.exchange(commands, seconds)
    finally:
        connection.close()


def test_a_password_and_a_user_open_the_door(tmp_path: Path) -> None:
    account = ("--user", "scorer", "on", ">s3cret/&", "~*", "+@all", "--user", "default", "off")
    with serving(tmp_path, *account) as server:
        where = f"127.0.0.1:{server.port}/3"
        assert asyncio.run(ask(f"redis://scorer:s3cret%2F%26@{where}", pack(b"PING"))) == [b"PONG"]
        for url in (f"redis://scorer:wrong@{where}", f"redis://:s3cret@{where}"):
            with pytest.raises(RedisUnavailable, match="refused"):
                asyncio.run(ask(url, pack(b"PING")))


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis of a test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return public, private


async def behind_tls(server: Server, folder: Path, then: Callable[[int, Path], Awaitable[None]]) -> None:
    """Run `then` with the port of a TLS terminator before `server` and the certificate to trust."""
    public, private = certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)

    async def pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

    terminator = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with terminator:
        await then(terminator.sockets[0].getsockname()[1], public)


def test_tls_is_spoken_and_a_stranger_is_not_trusted(tmp_path: Path) -> None:
    async def both(port: int, trusted: Path) -> None:
        url = f"rediss://:secret@127.0.0.1:{port}/0"
        assert await ask(f"{url}?ssl_ca_certs={trusted}", pack(b"ECHO", b"hello")) == [b"hello"]
        with pytest.raises(RedisUnavailable, match="SSL"):
            await ask(url, pack(b"PING"))

    with serving(tmp_path, "--requirepass", "secret") as server:
        asyncio.run(behind_tls(server, tmp_path / "tls", both))


#   master A ---- B replica        A is killed: the sentinel makes B the master
#        \        /
#         sentinel  <- the url names only this
def test_a_sentinel_leads_to_the_master_and_to_its_successor(tmp_path: Path) -> None:
    secret = ("--requirepass", "secret", "--masterauth", "secret")
    with (
        serving(tmp_path / "a", *secret) as first,
        serving(tmp_path / "b", *secret, "--replicaof", "127.0.0.1", str(first.port)) as second,
    ):
        folder = tmp_path / "sentinel"
        folder.mkdir()
        (folder / "sentinel.conf").write_text(
            f"sentinel monitor main 127.0.0.1 {first.port} 1\n"
            "sentinel auth-pass main secret\n"
            "sentinel down-after-milliseconds main 200\n"
            "sentinel failover-timeout main 2000\n"
        )
        with serving(folder, str(folder / "sentinel.conf"), "--sentinel") as sentinel:
            watcher = sentinel.client()
            assert wait_for(lambda: watcher.sentinel_master("main")["num-slaves"] == 1, 20)
            assert wait_for(
                lambda: second.client(password="secret").info("replication")["master_link_status"] == "up", 20
            )

            async def through_a_failover() -> list[object]:
                # The first sentinel of the list is not there: the second is asked.
                connection = connection_to(
                    f"redis+sentinel://:secret@127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main/0"
                )
                assert await connection.exchange([pack(b"SET", b"k", b"1")], 2.0) == [b"OK"]
                first.client(password="secret").wait(1, 1000)
                first.process.kill()
                until = time.monotonic() + 30
                while time.monotonic() < until:
                    with suppress(RedisUnavailable):
                        replies = await connection.exchange([pack(b"INCR", b"k"), pack(b"GET", b"k")], 0.5)
                        if replies:
                            return replies
                    await asyncio.sleep(0.05)
                return []

            assert asyncio.run(through_a_failover()) == [2, b"2"]
            assert second.client(password="secret").get("k") == b"2"


def cluster_port() -> int:
    """A free port with a free one for the cluster bus 10,000 above it."""
    return free_ports(2, apart=10_000)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two masters that own half of the slots each."""
    folder = tmp_path_factory.mktemp("cluster")
    how = (
        "--cluster-enabled",
        "yes",
        "--cluster-require-full-coverage",
        "no",
        "--cluster-node-timeout",
        "60000",
    )
    with (
        serving(folder / "0", *how, port=cluster_port()) as first,
        serving(folder / "1", *how, port=cluster_port()) as second,
    ):
        for server, slots in ((first, range(8192)), (second, range(8192, 16384))):
            server.client().execute_command("CLUSTER ADDSLOTS", *slots)
        first.client().execute_command("CLUSTER MEET", "127.0.0.1", second.port)
        assert wait_for(
            lambda: all(
                server.client().execute_command("CLUSTER INFO")["cluster_known_nodes"] == "2"
                and server.client().execute_command("CLUSTER INFO")["cluster_state"] == "ok"
                for server in (first, second)
            ),
            20,
        )
        yield [first, second]


def url_of(cluster: list[Server]) -> str:
    # The first seed is not there: a cluster is entered by any node that answers.
    return f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster[0].port}"


def client_of(cluster: list[Server]) -> RedisCluster:
    return RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", cluster[0].port)])  # type: ignore[no-untyped-call]


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
        chosen = load_settings().model_copy(
            update={"redis_url": url_of(cluster), "feast_project": PROJECT, "feature_deadline_ms": 1000}
        )
        reader = OnlineReader(chosen, Metrics(), Memory())
        loop = asyncio.get_running_loop()
        found = await reader.claim_and_read([Work(row, loop.create_future(), 0.0) for row in rows])
        assert found.shortfall is None
        assert len(found.kept) == 16
        assert {status for of_row in found.online.status for status in of_row.values()} == {"fresh"}
        assert not np.isnan(found.online.profiles[:, 0]).any()
        await reader.close()

    asyncio.run(run())


def test_a_server_that_answers_with_errors_is_named_as_the_reason(tmp_path: Path) -> None:
    with serving(tmp_path, "--cluster-enabled", "yes", port=cluster_port()) as server:
        # Half of the slots are nobody's: by Redis's default this refuses the other half, too.
        server.client().execute_command("CLUSTER ADDSLOTS", *range(8192))

        async def run() -> None:
            chosen = load_settings().model_copy(
                update={"redis_url": url_of([server]), "feature_deadline_ms": 1000}
            )
            reader = OnlineReader(chosen, Metrics(), Memory())
            work = Work(transaction(), asyncio.get_running_loop().create_future(), 0.0)
            found = await reader.claim_and_read([work])
            assert found.kept == [work]
            assert found.shortfall == "features:refused"
            assert set(found.online.status[0].values()) == {"timeout"}
            assert (await reader.read([work]))[1] == "features:refused"
            await reader.close()

        asyncio.run(run())


def test_answers_and_events_reach_a_cluster_once(cluster: list[Server], tmp_path: Path) -> None:
    chosen = load_settings().model_copy(
        update={"home": tmp_path, "redis_url": url_of(cluster), "topic": "clustered", "partitions": 2}
    )
    effects = [
        Effect(answer_key("p", f"t{n}"), answer_value(b"d" * 16, b"{}"), n % 2, b"t%d" % n) for n in range(20)
    ]

    async def run() -> None:
        _, sinks = open_sinks(chosen)
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
            replies = await connection.exchange([pack(b"SET", here, b"1"), *commands[1:]], 0.5)
            assert type(replies) is Gaps
            assert replies == [b"OK", None, b"1"]
        finally:
            os.kill(cluster[1].process.pid, signal.SIGCONT)
        until = time.monotonic() + 10
        while type(replies) is Gaps and time.monotonic() < until:
            replies = await connection.exchange(commands[1:], 0.5)
        assert replies == [None, b"1"]
        connection.close()

    asyncio.run(run())


def test_a_connection_that_is_owed_an_answer_for_too_long_is_given_up(tmp_path: Path) -> None:
    with serving(tmp_path) as server:

        async def run() -> None:
            connection = RedisConnection(f"redis://127.0.0.1:{server.port}/0")
            await connection.open()
            os.kill(server.process.pid, signal.SIGSTOP)
            try:
                first = connection.send([pack(b"PING")])
                await asyncio.sleep(1.1)
                with pytest.raises(RedisUnavailable, match="too long"):
                    connection.send([pack(b"PING")])
                with pytest.raises(RedisUnavailable):
                    await first.future
                assert not connection.connected
            finally:
                os.kill(server.process.pid, signal.SIGCONT)
            assert await connection.exchange([pack(b"PING")], 5.0) == [b"PONG"]
            connection.close()

        asyncio.run(run())
