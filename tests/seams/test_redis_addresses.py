"""One table of Redis addresses through every client there is, against real servers.

What the service writes by its own connection, the stream, Feast's store, the tools and the status
page find there, and the other way round: one URL means the same server, database, user and trust
to all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from bentos.effects.outbox import remembered_answers
from bentos.once.claims import answer_key, answer_value
from bentos.wire.redis_cluster import connection_to
from bentos.wire.redis_connection import RedisUnavailable, pack
from embedded.platform import _redis_answers
from feature_repo.online_store import NewestWinsRedisOnlineStore, NewestWinsRedisOnlineStoreConfig
from fraud.features.entities import ENTITIES
from monitoring.status.health import event_log, redis_part
from stores.keys import open_keys
from stores.redis_clients import AWAY, connect_any, connect_async, node_of
from stores.redis_layout import decode_bytes, entity_key, field
from stores.redis_url import parse_redis_url
from stores.settings import load_settings
from streaming.log.redis_source import RedisStreamReader, redis_appender
from streaming.online.online_writer import OnlineWriter
from streaming.states.shard_batch import Writes
from tests.bentos.redis_cluster_processes import cluster_port
from tests.bentos.redis_process import Server, serving
from tests.bentos.running import wait_for
from tests.certificates import Authority, authority
from tests.tls_proxy import tls_before

ENTITY = ENTITIES[0]
SECRET = "s3cret/&?"
ESCAPED = "s3cret%2F%26%3F"


def two_masters(folder: Path, stack: ExitStack, ports: list[int], *options: list[str]) -> None:
    """A cluster: each of the masters owns half of the slots."""
    how = ["--cluster-enabled", "yes", "--cluster-node-timeout", "60000", "--requirepass", SECRET]
    servers = [
        stack.enter_context(serving(folder / str(port), *how, *more, port=port))
        for port, more in zip(ports, options, strict=True)
    ]
    for server, slots in zip(servers, (range(8192), range(8192, 16384)), strict=True):
        server.client(password=SECRET).execute_command("CLUSTER ADDSLOTS", *slots)
    servers[0].client(password=SECRET).execute_command("CLUSTER MEET", "127.0.0.1", servers[1].port)

    def whole(server: Server) -> bool:
        told = server.client(password=SECRET).execute_command("CLUSTER INFO")
        return bool(told["cluster_state"] == "ok" and told["cluster_known_nodes"] == "2")

    assert wait_for(lambda: all(whole(server) for server in servers), 30)


def trio(folder: Path, stack: ExitStack, master: int) -> list[Server]:
    """Three sentinels, two of which must agree; whoever asks them needs a login, too."""
    sentinels = []
    for number in range(3):
        where = folder / f"sentinel-{number}"
        where.mkdir(parents=True)
        (where / "sentinel.conf").write_text(
            f"sentinel monitor main 127.0.0.1 {master} 2\nsentinel auth-pass main {SECRET}\n"
            'requirepass "watch/er"\nsentinel sentinel-pass "watch/er"\n'
        )
        sentinels.append(stack.enter_context(serving(where, str(where / "sentinel.conf"), "--sentinel")))
    for sentinel in sentinels:
        watcher = sentinel.client(password="watch/er")
        assert wait_for(lambda: watcher.sentinel_master("main")["num-other-sentinels"] == 2, 20)  # noqa: B023
    return sentinels


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory, trusted: Authority) -> Iterator[dict[str, str]]:
    """By kind of address, a URL that leads to a real server of that kind."""
    folder = tmp_path_factory.mktemp("servers")
    users = (
        "--user", "scorer", "on", f">{SECRET}", "~*", "&*", "+@all",
        "--user", "default", "on", f">{SECRET}", "~*", "&*", "+@all",
    )  # fmt: skip
    (folder / "password").write_text(f"{SECRET}\n")
    with ExitStack() as stack:
        socket = folder / "socket"
        single = stack.enter_context(serving(folder / "single", *users, "--unixsocket", str(socket)))
        secured = stack.enter_context(tls_before(single.port, trusted))
        asked = stack.enter_context(tls_before(single.port, trusted, clients=True))
        own, key = trusted.issue("scorer")
        ca = f"ssl_ca_certs={trusted.certificate}"
        sentinels = trio(folder, stack, single.port)
        named = {b"%d" % single.port: b"%d" % secured}
        watched = [stack.enter_context(tls_before(each.port, trusted, mapped=named)) for each in sentinels]
        two_masters(folder, stack, ports := [cluster_port(), cluster_port()], [], [])
        hidden, announced = [cluster_port(), cluster_port()], [cluster_port(), cluster_port()]
        two_masters(folder, stack, hidden, *(["--cluster-announce-port", str(port)] for port in announced))
        for port, at in zip(hidden, announced, strict=True):
            stack.enter_context(tls_before(port, trusted, at=at))
        asking = "sentinel_password=watch%2Fer"
        yield {
            "a password": f"redis://:{ESCAPED}@127.0.0.1:{single.port}/1",
            "a user": f"redis://scorer:{ESCAPED}@127.0.0.1:{single.port}/2",
            "a password from a file": f"redis://scorer@127.0.0.1:{single.port}?db=3&password_file={folder}/password",
            "a Unix socket": f"unix://scorer:{ESCAPED}@{socket}?db=4",
            "TLS": f"rediss://:{ESCAPED}@127.0.0.1:{secured}/5?{ca}",
            "TLS with certificates on both sides":
                f"rediss://:{ESCAPED}@127.0.0.1:{asked}/6?{ca}&ssl_certfile={own}&ssl_keyfile={key}",
            "sentinels": f"redis+sentinel://:{ESCAPED}@127.0.0.1:1,"
                + ",".join(f"127.0.0.1:{each.port}" for each in sentinels) + f"/main/7?{asking}",
            "sentinels with the database as an option":
                f"redis+sentinel://:{ESCAPED}@127.0.0.1:{sentinels[0].port}/main?db=8&{asking}",
            "sentinels with TLS": f"rediss+sentinel://:{ESCAPED}@"
                + ",".join(f"127.0.0.1:{port}" for port in watched) + f"/main/9?{asking}&{ca}",
            "a cluster": f"redis+cluster://:{ESCAPED}@127.0.0.1:1,127.0.0.1:{ports[0]}",
            "a cluster with TLS": f"rediss+cluster://:{ESCAPED}@127.0.0.1:{announced[0]}?{ca}",
        }  # fmt: skip


KINDS = [
    "a password", "a user", "a password from a file", "a Unix socket", "TLS",
    "TLS with certificates on both sides", "sentinels", "sentinels with the database as an option",
    "sentinels with TLS", "a cluster", "a cluster with TLS",
]  # fmt: skip


async def by_the_service(url: str, *commands: tuple[bytes, ...]) -> list[Any]:
    connection = connection_to(url)
    try:
        # Connecting has a quarter of a second: a busy machine may take two for it.
        for _ in range(20):
            try:
                return await connection.exchange([pack(*command) for command in commands], 5.0)
            except RedisUnavailable as error:
                refused = error
                await asyncio.sleep(0.1)
        raise refused
    finally:
        connection.close()


async def asynchronously(url: str, key: str) -> bytes:
    async with connect_async(url) as client:
        return bytes(await client.get(key))


def feast_client(url: str) -> Any:
    client = NewestWinsRedisOnlineStore()._get_client(NewestWinsRedisOnlineStoreConfig(redis_url=url))
    return closing(client)


def by_feast(url: str, key: str) -> bytes:
    with feast_client(url) as client:
        return bytes(client.get(key))


def by_a_tool(url: str, key: str) -> bytes:
    with connect_any(url) as client:
        return bytes(client.get(key))


async def feast_async(url: str, key: str) -> bytes:
    store = NewestWinsRedisOnlineStore()
    client = await store._get_client_async(NewestWinsRedisOnlineStoreConfig(redis_url=url))
    async with client:
        return bytes(await client.get(key))


def one_server(url: str, key: str) -> bytes:
    with node_of(url, key) as client:
        return bytes(client.get(key))  # type: ignore[arg-type]


READERS: dict[str, Callable[[str, str], bytes]] = {
    "the tools": by_a_tool,
    "the stream": one_server,
    "Feast's store": by_feast,
    "Feast's store, asynchronously": lambda url, key: asyncio.run(feast_async(url, key)),
    "the replay": lambda url, key: asyncio.run(asynchronously(url, key)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_service_wrote_every_client_finds(urls: dict[str, str], kind: str) -> None:
    url = urls[kind]
    for number in range(4):  # on several nodes
        key = f"seam:{number}"
        assert asyncio.run(by_the_service(url, (b"SET", key.encode(), kind.encode()))) == [b"OK"]
        found = {name: read(url, key).decode() for name, read in READERS.items()}
        assert found == dict.fromkeys(READERS, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_stream_wrote_the_service_and_the_store_find(urls: dict[str, str], kind: str) -> None:
    url = urls[kind]
    writer = OnlineWriter(url, "seams")
    names = [f"c{number}" for number in range(20)]
    assert writer.write([Writes(0, names, [7] * 20, [kind.encode()] * 20, 0)]) == 20
    assert writer.versions(0, names) == [7] * 20
    writer.close()
    state = field(ENTITY.velocity_view, ENTITY.state_feature)
    keys = [entity_key("seams", ENTITY.key, name) for name in names]
    found = asyncio.run(by_the_service(url, *((b"HGET", key, state) for key in keys)))
    assert [decode_bytes(value) for value in found] == [kind.encode()] * 20
    with feast_client(url) as store:
        assert all(decode_bytes(store.hget(key, state)) == kind.encode() for key in keys)


@pytest.mark.parametrize("kind", KINDS)
def test_events_appended_are_read_and_the_status_page_counts_them(urls: dict[str, str], kind: str) -> None:
    url = urls[kind]
    append, close = redis_appender(url, "seams")
    append([(partition, kind.encode(), None) for partition in range(4)])
    close()
    for partition in range(4):
        reader = RedisStreamReader(url, "seams", partition, None, 10)
        assert reader.read().payloads == [kind.encode()]
        reader.close()
    config = load_settings({}).changed(redis_url=url, topic="seams", partitions=4)
    assert (redis_part(config).tone, event_log(config).figure) == ("good", "4 events")
    assert "masters" in " ".join(redis_part(config).lines) or "cluster" not in kind
    where = parse_redis_url(url)
    assert where.kind == "cluster" or _redis_answers(where)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_the_service_remembers_the_audit_finds(
    urls: dict[str, str], kind: str, tmp_path: Path
) -> None:
    url = urls[kind]
    seal, key = open_keys(load_settings({}).changed(home=tmp_path)).seal("answers"), answer_key("seams", "t1")
    asyncio.run(by_the_service(url, (b"SET", key, answer_value(seal, key, b"d" * 16, b"{}"))))
    assert list(remembered_answers(url, "seams", seal)) == [("t1", b"{}")]


@pytest.mark.parametrize("kind", ["TLS", "sentinels with TLS", "a cluster with TLS"])
def test_a_server_of_another_authority_is_trusted_by_no_client(
    urls: dict[str, str], kind: str, tmp_path: Path
) -> None:
    stranger = authority(tmp_path / "stranger").certificate
    url, _, _ = urls[kind].partition("ssl_ca_certs=")
    url += f"ssl_ca_certs={stranger}"
    with pytest.raises(RedisUnavailable):
        asyncio.run(by_the_service(url, (b"PING",)))
    with pytest.raises(AWAY), connect_any(url, retry=False) as client:
        client.get("seam:0")
    assert redis_part(load_settings({}).changed(redis_url=url)).tone == "bad"


@pytest.mark.parametrize("kind", ["a password", "TLS", "sentinels", "a cluster"])
def test_a_wrong_password_opens_nothing_and_is_not_shown(urls: dict[str, str], kind: str) -> None:
    url = urls[kind].replace(ESCAPED, "hunter2")
    with pytest.raises(RedisUnavailable) as refused:
        asyncio.run(by_the_service(url, (b"PING",)))
    assert "hunter2" not in str(refused.value)
    with pytest.raises(AWAY) as away, connect_any(url, retry=False) as client:
        client.get("seam:0")
    assert "hunter2" not in str(away.value)
    part = redis_part(load_settings({}).changed(redis_url=url))
    assert part.tone == "bad" and "hunter2" not in repr(part)
