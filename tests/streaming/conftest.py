"""A flow of one's own: settings, a clean Redis, and the flow as a process that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from embedded.redis_server import RedisServer
from stores.settings import Settings, settings
from streaming.states.disk import Disk
from streaming.states.redo_files import RedoFiles
from streaming.states.shards import ShardLogic
from streaming.states.state_bases import StateBases
from tests.streaming.broker import Broker, free_ports, start_broker
from tests.streaming.one_shard import Start

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def configured(home: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of an empty home and an empty Redis, with short snapshot intervals."""
    with redis.Redis(port=redis_server.port) as client:
        client.flushall()
    monkeypatch.setenv("TOLLGATE_REDIS_URL", redis_server.url)
    monkeypatch.setenv("TOLLGATE_STREAM_SNAPSHOT_SECONDS", "0.2")
    monkeypatch.setenv("TOLLGATE_STREAM_PORT", str(free_ports(4)))
    monkeypatch.setenv("TOLLGATE_STREAM_PORTS_FENCED", "true")  # as far as a test's machine goes
    settings.cache_clear()
    yield settings()


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    started = start_broker()
    yield started
    started.stop()


@pytest.fixture(params=["redis", "kafka", "jsonl"])
def log(
    request: pytest.FixtureRequest, configured: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings of each kind of event log, with a topic of its own and two partitions."""
    topic = f"events-{time.time_ns()}"
    monkeypatch.setenv("TOLLGATE_EVENT_LOG", request.param)
    monkeypatch.setenv("TOLLGATE_KAFKA_BOOTSTRAP", broker.bootstrap)
    monkeypatch.setenv("TOLLGATE_TOPIC", topic)
    monkeypatch.setenv("TOLLGATE_AUTHORIZATIONS_TOPIC", f"to-score-{topic}")
    monkeypatch.setenv("TOLLGATE_PREDICTIONS_TOPIC", f"scored-{topic}")
    monkeypatch.setenv("TOLLGATE_STREAM_BATCH", "40")
    settings.cache_clear()
    if request.param == "kafka":
        for name in (
            topic,
            settings().event_log.authorizations_topic,
            settings().event_log.predictions_topic,
        ):
            broker.create_topic(name, 2)
    return settings()


class FlowProcess:
    """`python -m streaming.flow` with this process's settings."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streaming.flow", *arguments],
            cwd=REPOSITORY, env=dict(os.environ), start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def finish(self) -> str:
        """Wait for the end; return what it printed; fail unless it ended cleanly."""
        output, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, output
        return output

    def stop(self) -> str:
        """Ask for a clean stop and wait for it."""
        self.process.send_signal(signal.SIGTERM)
        return self.finish()

    def kill(self) -> None:
        """kill -9 the process and any process it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def flow(configured: Settings) -> Iterator[Callable[..., FlowProcess]]:
    """Starts the flow; whatever is still running at the end of the test is killed."""
    started: list[FlowProcess] = []

    def start(*arguments: str) -> FlowProcess:
        started.append(FlowProcess(*arguments))
        return started[-1]

    yield start
    for process in started:
        if process.process.poll() is None:
            process.kill()


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until `condition` holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A shard over one partition, whose online store holds `stored` versions."""

    disk = Disk()

    def build(snapshot: tuple[object, ...] | None = None, stored: int = 0) -> ShardLogic:
        bases, files = StateBases(tmp_path / "states", disk), RedoFiles(tmp_path / "redo", disk)
        return ShardLogic(
            1, lambda _place, values: [stored] * len(values), bases, files, lambda: None, snapshot
        )

    yield build
    disk.close()
