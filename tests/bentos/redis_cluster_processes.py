"""A Redis Cluster of two masters, for the tests that want one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.cluster import ClusterNode, RedisCluster

from tests.bentos.redis_process import Server, serving
from tests.bentos.running import wait_for
from tests.streaming.broker import free_ports


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
