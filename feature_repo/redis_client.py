"""Redis clients from one URL: single, TLS, Sentinel or Cluster."""

# redis-py leaves its Cluster and Sentinel classes partly untyped.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from redis import Redis, asyncio
from redis.cluster import ClusterNode, RedisCluster
from redis.sentinel import Sentinel

DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """What a Redis URL says: `kind` is redis, redis_cluster or redis_sentinel (Feast's names).

    ``redis[s]://[user:password@]host[:port][/db]``,
    ``redis[s]+cluster://[user:password@]host:port,host:port``,
    ``redis+sentinel://[user:password@]host:port,host:port/<master>[?db=n]``.
    """

    kind: str
    nodes: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None
    db: int
    tls: bool
    master: str

    def options(self) -> dict[str, Any]:
        """Arguments that every redis-py client takes; absent ones are left out."""
        given: dict[str, Any] = {"username": self.username, "password": self.password}
        options = {name: value for name, value in given.items() if value is not None}
        if self.tls:
            options["ssl"] = True
        if self.kind != "redis_cluster":
            options["db"] = self.db
        return options


def parse_redis_url(url: str) -> RedisAddress:
    """The parts of `url`; ValueError, without the password, if it names no host."""
    scheme, _, rest = url.partition("://")
    kind = {"cluster": "redis_cluster", "sentinel": "redis_sentinel"}.get(scheme.partition("+")[2], "redis")
    parts = urlsplit(f"//{rest}")
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    nodes = []
    for host in hosts.split(","):
        name, _, port = host.rpartition(":") if ":" in host.rpartition("]")[2] else (host, "", "")
        if not name:
            raise ValueError("TOLLGATE_REDIS_URL names no host; it should look like redis://127.0.0.1:6379/0")
        nodes.append((name.strip("[]"), int(port or DEFAULT_PORT)))
    path = parts.path.strip("/")
    query = dict(parse_qsl(parts.query))
    db = query.get("db", "0") if kind == "redis_sentinel" else path or query.get("db", "0")
    return RedisAddress(
        kind=kind,
        nodes=tuple(nodes),
        username=unquote(username) or None,
        password=unquote(password) or None,
        db=int(db),
        tls=scheme.startswith("rediss"),
        master=path if kind == "redis_sentinel" and path else "mymaster",
    )


def connect(address: RedisAddress) -> Any:
    """A client; it connects with its first command."""
    options = address.options()
    if address.kind == "redis_cluster":
        return RedisCluster(startup_nodes=[ClusterNode(*node) for node in address.nodes], **options)
    if address.kind == "redis_sentinel":
        return Sentinel(list(address.nodes)).master_for(address.master, **options)
    host, port = address.nodes[0]
    return Redis(host=host, port=port, **options)


def connect_async(address: RedisAddress) -> Any:
    """An asynchronous client; it connects with its first command."""
    options = address.options()
    if address.kind == "redis_cluster":
        nodes = [asyncio.cluster.ClusterNode(*node) for node in address.nodes]
        return asyncio.RedisCluster(startup_nodes=nodes, **options)
    if address.kind == "redis_sentinel":
        return asyncio.Sentinel(list(address.nodes)).master_for(address.master, **options)
    host, port = address.nodes[0]
    return asyncio.Redis(host=host, port=port, **options)
