"""The service's connections against real servers: password, TLS and Sentinel."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bentos.wire.redis_cluster import connection_to
from bentos.wire.redis_connection import RedisConnection, RedisUnavailable, pack
from embedded.redis_server import free_port
from tests.bentos.redis_process import Server, serving
from tests.bentos.running import wait_for


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
