"""Connections to Redis from a URL: standalone, TLS, Sentinel or Cluster."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import AskError, ClusterError, RedisClusterException, TryAgainError
from redis.retry import Retry
from redis.sentinel import Sentinel

#: What redis-py raises while a server is away, restarting, loading or handing over.
AWAY = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.BusyLoadingError,
    redis.ReadOnlyError,
    ClusterError,  # the cluster is down, or a replica's master is
    AskError,  # a slot has moved, or is about to
    TryAgainError,
    RedisClusterException,  # no node can be reached, or a slot has no master
)

TIMEOUT_S = 5.0


def is_cluster(url: str) -> bool:
    """Whether `url` names a Redis Cluster, where one call may touch only one key's slot."""
    return urlsplit(url).scheme.endswith("+cluster")


def connect(url: str) -> redis.Redis:
    """A client of the server (or of the Sentinel master) that `url` names; no retries of its own."""
    parts = urlsplit(url)
    if parts.scheme == "redis+sentinel":
        return _sentinel_master(parts)
    return redis.Redis.from_url(
        url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
    )


def connect_cluster(url: str) -> RedisCluster:
    """A client of the cluster behind `redis+cluster://` or `rediss+cluster://` `url`."""
    parts = urlsplit(url)
    seeds: list[Any] = [ClusterNode(*place) for place in nodes(parts)]  # type: ignore[no-untyped-call]
    return RedisCluster(startup_nodes=seeds, socket_timeout=TIMEOUT_S, **login(parts))


def one_server(place: tuple[str, int], timeout: float, **how: Any) -> redis.Redis:
    """A client of the server at `place`, with what `login` says; no retries of its own."""
    host, port = place
    return redis.Redis(
        host=host, port=port, socket_timeout=timeout, socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0), **how,
    )  # fmt: skip


def login(parts: SplitResult) -> dict[str, Any]:
    """User, password and TLS of a URL, as redis-py takes them."""
    how: dict[str, Any] = {
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
    }
    if parts.scheme.startswith("rediss"):
        how |= {"ssl": True, "ssl_ca_certs": parse_qs(parts.query).get("ssl_ca_certs", [None])[0]}
    return how


def node_of(url: str, key: bytes | str) -> redis.Redis:
    """A client of the one server that holds `key`: of a cluster the key's node, as known just now."""
    if not is_cluster(url):
        return connect(url)
    cluster = connect_cluster(url)
    return cluster.get_redis_connection(cluster.get_node_from_key(key))  # type: ignore[no-untyped-call]


def many_keys(url: str) -> Any:
    """A client whose pipelines may hold commands on any keys, of a cluster too."""
    return connect_cluster(url) if is_cluster(url) else connect(url)


def _sentinel_master(parts: SplitResult) -> redis.Redis:
    """`redis+sentinel://[user:password@]host:port[,host:port]/<master name>[/<database>]`."""
    name, _, database = parts.path.strip("/").partition("/")
    if not name:
        raise ValueError(
            "a redis+sentinel URL should name the master: redis+sentinel://host:26379/<name>/<db>"
        )
    sentinel: Any = Sentinel(nodes(parts), socket_timeout=TIMEOUT_S)  # type: ignore[no-untyped-call]
    master = sentinel.master_for(name, db=int(database or 0), socket_timeout=TIMEOUT_S, **login(parts))
    return cast("redis.Redis", master)


def nodes(parts: SplitResult) -> list[tuple[str, int]]:
    """The hosts and ports that a URL names."""
    named = []
    for node in parts.netloc.rpartition("@")[2].split(","):
        host, _, port = node.rpartition(":")
        named.append((host or node, int(port) if host else 6379))
    return named
