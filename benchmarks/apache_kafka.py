"""Apache Kafka itself on loopback, for tests and rehearsals: one broker, over SASL and TLS or in plain text.

Its jars come from Maven Central once, into `.venv/tools/kafka` (`python -m benchmarks.apache_kafka` fetches
them); it needs Java 17 or later, which Spark needs too. Nothing that a user runs needs it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]

from embedded.redis_server import free_port

LIBS: Final = Path(sys.prefix) / "tools" / "kafka" / "libs"
_POM: Final = Path(__file__).parent / "kafka" / "pom.xml"
_CLUSTER: Final = "dG9sbGdhdGUtdGVzdHMtMQ"
_JAAS: Final = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_LEAST_JARS: Final = 50


def fetch() -> bool:
    """Bring the jars from Maven Central, if they are not here yet; whether they are here now."""
    if len(list(LIBS.glob("*.jar"))) >= _LEAST_JARS:
        return True
    try:
        subprocess.run(
            ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={LIBS}"],
            check=True, timeout=600, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def available() -> bool:
    """Whether it can be started here."""
    return len(list(LIBS.glob("*.jar"))) >= _LEAST_JARS


@dataclass(slots=True)
class KafkaServer:
    """A broker whose topics lie in `folder`; `users` are names with their passwords, none for plain text.

    `certificate` and `key` are PEM files of the server, `authority` the one that its clients trust.
    """

    folder: Path
    port: int
    users: dict[str, str] = field(default_factory=dict)
    authority: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self, user: str | None = None) -> dict[str, Any]:
        """What a client of librdkafka needs, as properties."""
        if not self.users:
            return {"bootstrap.servers": self.bootstrap}
        name = user or next(iter(self.users))
        return {
            "bootstrap.servers": self.bootstrap, "security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN",
            "sasl.username": name, "sasl.password": self.users[name], "ssl.ca.location": str(self.authority),
        }  # fmt: skip

    def environment(self, secret: Path) -> dict[str, str]:
        """The same as settings of the platform, with the password in the file `secret`."""
        found = self.client()
        made = {"TOLLGATE_EVENT_LOG": "kafka", "TOLLGATE_KAFKA_BOOTSTRAP": self.bootstrap}
        if self.users:
            secret.write_text(found["sasl.password"] + "\n")
            made |= {
                "TOLLGATE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
                "TOLLGATE_KAFKA_SASL_MECHANISM": "PLAIN",
                "TOLLGATE_KAFKA_SASL_USERNAME": found["sasl.username"],
                "TOLLGATE_KAFKA_SASL_PASSWORD_FILE": str(secret),
                "TOLLGATE_KAFKA_SSL_CA_LOCATION": found["ssl.ca.location"],
            }
        return made

    def create_topic(self, name: str, partitions: int) -> None:
        admin = AdminClient(self.client())
        for made in admin.create_topics([NewTopic(name, partitions, 1)]).values():
            made.result(30)

    def add_partitions(self, name: str, total: int) -> None:
        admin = AdminClient(self.client())
        for made in admin.create_partitions([NewPartitions(name, total)]).values():
            made.result(30)

    def start(self) -> None:
        """Start it, with what it kept, and wait until it answers (60 seconds at most)."""
        self.process = _java(
            "kafka.Kafka", str(self.folder / "server.properties"), log=self.folder / "server.log"
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                AdminClient(self.client() | {"log_level": "0"}).list_topics(timeout=2)
                return
            except KafkaException:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError((self.folder / "server.log").read_text()[-2000:]) from None
                time.sleep(0.2)

    def kill(self) -> None:
        """kill -9; what it acknowledged is on disk or in the system's cache."""
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


def start_kafka(
    folder: Path, users: dict[str, str] | None = None, certificate: Path | None = None,
    key: Path | None = None, authority: Path | None = None,
) -> KafkaServer:  # fmt: skip
    """A new broker; with `users` it asks for a password over TLS, with `certificate` and `key`."""
    folder.mkdir(parents=True, exist_ok=True)
    server = KafkaServer(folder, free_port(), users or {}, authority)
    controller = free_port()
    protocol = "SASL_SSL" if users else "PLAINTEXT"
    lines = {
        "process.roles": "broker,controller", "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"CLIENTS://127.0.0.1:{server.port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"CLIENTS://127.0.0.1:{server.port}",
        "listener.security.protocol.map": f"CLIENTS:{protocol},CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER", "inter.broker.listener.name": "CLIENTS",
        "log.dirs": str(folder / "logs"), "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1", "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1", "group.initial.rebalance.delay.ms": "0",
        "message.max.bytes": "4194304", "replica.fetch.max.bytes": "4194304",
    }  # fmt: skip
    if users:
        assert certificate is not None and key is not None
        names = " ".join(f'user_{name}="{secret}"' for name, secret in users.items())
        own, secret = next(iter(users.items()))
        (folder / "server.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
        assert authority is not None
        lines |= {
            "ssl.keystore.type": "PEM", "ssl.keystore.location": str(folder / "server.pem"),
            "ssl.truststore.type": "PEM", "ssl.truststore.location": str(authority),
            "sasl.enabled.mechanisms": "PLAIN", "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.clients.plain.sasl.jaas.config":
                f'{_JAAS} username="{own}" password="{secret}" {names};',
        }  # fmt: skip
    path = folder / "server.properties"
    path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    path.chmod(0o600)
    made = _java(
        "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(path), log=folder / "format.log"
    )
    if made.wait(60) != 0:
        raise RuntimeError((folder / "format.log").read_text()[-2000:])
    server.start()
    return server


def consumer_groups(server: KafkaServer, group: str) -> str:
    """What Kafka's own tool prints of `group`."""
    found = server.client()
    path = server.folder / "tool.properties"
    lines = ""
    if server.users:
        lines = (
            f"security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nssl.truststore.type=PEM\n"
            f"ssl.truststore.location={server.authority}\n"
            f'sasl.jaas.config={_JAAS} username="{found["sasl.username"]}" '
            f'password="{found["sasl.password"]}";\n'
        )
    path.write_text(lines)
    path.chmod(0o600)
    done = subprocess.run(
        [*_command("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"), "--bootstrap-server",
         server.bootstrap, "--command-config", str(path), "--describe", "--group", group],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def _command(main: str) -> list[str]:
    return ["java", "-Xmx384m", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", f"{LIBS}/*", main]


def _java(main: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [*_command(main), *arguments], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


if __name__ == "__main__":
    raise SystemExit(0 if fetch() else "the jars of Apache Kafka cannot be had here")
