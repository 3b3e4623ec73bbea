"""redis-py's clients of any address: a server, a Unix socket, Sentinel's master or a Cluster.

Everything opens Redis here, but for the service's hot path, whose connections are its own
(`bentos.wire`) and take the same address.
"""

# redis-py leaves its Cluster and Sentinel classes partly untyped.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any, Final, cast

import redis
from redis import asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import AskError, ClusterError, RedisClusterException, TryAgainError
from redis.retry import Retry
from redis.sentinel import Sentinel

from stores.redis_url import Login, RedisAddress, address_of

#: What redis-py raises while a server is away, restarting, loading or handing over.
AWAY: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.BusyLoadingError,
    redis.ReadOnlyError,
    ClusterError,  # the cluster is down, or a replica's master is
    AskError,  # a slot has moved, or is about to
    TryAgainError,
    RedisClusterException,  # no node can be reached, or a slot has no master
)

#: What a server says that refuses a command, or whoever asks.
ServerError = redis.ResponseError

TIMEOUT_S: Final = 5.0


def _login(login: Login) -> dict[str, Any]:
    return {"username": login.username, "password": login.password}


def _tls(address: RedisAddress) -> dict[str, Any]:
    tls = address.tls
    if tls is None:
        return {}
    return {
        "ssl": True,
        "ssl_ca_certs": tls.ca_certificates,
        "ssl_certfile": tls.certificate,
        "ssl_keyfile": tls.key,
        "ssl_check_hostname": tls.check_hostname,
    }


def _timeouts(timeout: float) -> dict[str, Any]:
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout}


def _once() -> dict[str, Any]:
    return {"retry": Retry(NoBackoff(), 0)}


def _entering(address: RedisAddress, timeout: float, *, retry: bool) -> dict[str, Any]:
    how = {**_login(address.login), **_tls(address), **_timeouts(timeout)}
    return how if retry else how | _once()


def _server(address: RedisAddress) -> dict[str, Any]:
    if address.path:
        return {"unix_socket_path": address.path, "db": address.database}
    host, port = address.nodes[0]
    return {"host": host, "port": port, "db": address.database}


def connect(where: str | RedisAddress, *, timeout: float = TIMEOUT_S, retry: bool = False) -> redis.Redis:
    """A client of the server, or of the master that the sentinels name; connects when it is used.

    With `retry` it tries again for some seconds, as redis-py does by itself.
    """
    address = address_of(where)
    entering = _entering(address, timeout, retry=retry)
    if address.kind == "cluster":
        raise ValueError("a cluster has no one server: use `connect_cluster`, `connect_any` or `node_of`")
    if address.kind == "sentinel":
        master = _sentinels(Sentinel, address, timeout).master_for(
            address.master, db=address.database, **entering
        )
        return cast("redis.Redis", master)
    return redis.Redis(**_server(address), **entering)


def connect_cluster(
    where: str | RedisAddress, *, timeout: float = TIMEOUT_S, retry: bool = True
) -> RedisCluster:
    """A client of the cluster."""
    address = address_of(where)
    seeds: list[Any] = [ClusterNode(*place) for place in address.nodes]
    return RedisCluster(startup_nodes=seeds, **_entering(address, timeout, retry=retry))


def connect_any(where: str | RedisAddress, *, timeout: float = TIMEOUT_S, retry: bool = True) -> Any:
    """A client whose pipelines may hold commands on any keys, of a cluster too."""
    address = address_of(where)
    opened = connect_cluster if address.kind == "cluster" else connect
    return opened(address, timeout=timeout, retry=retry)


def connect_async(where: str | RedisAddress, *, timeout: float = TIMEOUT_S) -> Any:
    """`connect_any`, asynchronous."""
    address = address_of(where)
    entering = _entering(address, timeout, retry=True)
    if address.kind == "cluster":
        nodes = [asyncio.cluster.ClusterNode(*place) for place in address.nodes]
        return asyncio.RedisCluster(startup_nodes=nodes, **entering)
    if address.kind == "sentinel":
        sentinels = _sentinels(asyncio.Sentinel, address, timeout)
        return sentinels.master_for(address.master, db=address.database, **entering)
    return asyncio.Redis(**_server(address), **entering)


def node_of(where: str | RedisAddress, key: bytes | str) -> redis.Redis:
    """A client of the one server that holds `key`: of a cluster the key's node, as known just now."""
    address = address_of(where)
    if address.kind != "cluster":
        return connect(address)
    cluster = connect_cluster(address)
    return cluster.get_redis_connection(cluster.get_node_from_key(key))


def _sentinels(kind: Any, address: RedisAddress, timeout: float) -> Any:
    # Each is asked once: there are others, and redis-py would wait for seconds for one that is away.
    once: Any = {"retry": AsyncRetry(NoBackoff(), 0)} if kind is asyncio.Sentinel else _once()
    asking = {**_login(address.sentinel), **_tls(address), **_timeouts(timeout), **once}
    return kind(list(address.nodes), sentinel_kwargs=asking)
