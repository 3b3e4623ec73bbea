"""A Redis Cluster with replicas, whose masters the tests may kill or freeze."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry

from stores.cluster_slots import SLOTS, slot
from tests.bentos.redis_cluster_processes import cluster_port
from tests.bentos.redis_process import Server, serving
from tests.bentos.running import wait_for

MASTERS = 3
#: Long enough that a busy machine does not take a slow master for a dead one.
NODE_TIMEOUT_MS = 3_000


@dataclass
class FailingCluster:
    """Three masters, a third of the slots each, and one replica of each."""

    masters: list[Server]
    replicas: list[Server]

    @property
    def url(self) -> str:
        """Names two of the nodes: one that the tests kill first, and one that they leave alone."""
        return f"redis+cluster://127.0.0.1:{self.masters[0].port},127.0.0.1:{self.masters[2].port}"

    def client(self) -> Any:
        # The replicas first: a frozen master would hold up whoever asks it.
        nodes: list[Any] = [ClusterNode("127.0.0.1", node.port) for node in self.replicas]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, socket_timeout=2)

    def share(self, key: bytes) -> int:
        """Which master owned `key` at first."""
        return slot(key) * MASTERS // SLOTS

    def replicate(self, share: int) -> None:
        """Wait until the replica has everything that its master acknowledged."""
        offset = info(self.masters[share], "replication")["master_repl_offset"]
        assert wait_for(lambda: info(self.replicas[share], "replication")["slave_repl_offset"] >= offset, 20)

    def kill(self, share: int) -> None:
        self.masters[share].process.kill()
        self.masters[share].process.wait()

    def freeze(self, share: int) -> None:
        os.kill(self.masters[share].process.pid, signal.SIGSTOP)

    def promoted(self, share: int) -> bool:
        """Whether the share's replica has become its master."""
        return bool(info(self.replicas[share], "replication")["role"] == "master")


def info(server: Server, section: str) -> dict[str, Any]:
    # No retries of the client's own: they wait about a second each.
    with redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as client:
        found: dict[str, Any] = client.info(section)
        return found


@contextmanager
def failing_cluster(folder: Path) -> Iterator[FailingCluster]:
    """The cluster, once every node knows every other and each replica follows its master.

    By Redis's default no master answers while slots have none: the others' errors are tested, too.
    """
    how = (
        "--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS),
        "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0",
    )  # fmt: skip
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(folder / str(place), *how, port=cluster_port()))
            for place in range(2 * MASTERS)
        ]
        masters, replicas = servers[:MASTERS], servers[MASTERS:]
        for place, master in enumerate(masters):
            edges = [-(-SLOTS * edge // MASTERS) for edge in (place, place + 1)]
            master.client().execute_command("CLUSTER ADDSLOTS", *range(*edges))
            # Epochs of their own at once; the nodes would settle them between themselves, slowly.
            master.client().execute_command("CLUSTER SET-CONFIG-EPOCH", place + 1)
        for server in servers[1:]:
            masters[0].client().execute_command("CLUSTER MEET", "127.0.0.1", server.port)

        def known(server: Server) -> int:
            return int(server.client().execute_command("CLUSTER INFO")["cluster_known_nodes"])

        assert wait_for(lambda: all(known(server) == len(servers) for server in servers), 30)
        for master, replica in zip(masters, replicas, strict=True):
            name = master.client().execute_command("CLUSTER MYID")
            replica.client().execute_command("CLUSTER REPLICATE", name)

        def whole() -> bool:
            return all(
                server.client().execute_command("CLUSTER INFO")["cluster_state"] == "ok" for server in servers
            ) and all(info(replica, "replication").get("master_link_status") == "up" for replica in replicas)

        assert wait_for(whole, 60), [server.client().execute_command("CLUSTER NODES") for server in servers]
        yield FailingCluster(masters, replicas)
