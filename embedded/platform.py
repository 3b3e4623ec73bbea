"""The embedded platform: Redis, the stream and the service, started together and ended together.

`python -m embedded.platform up` leaves them serving, `down` ends them, `serve` runs the
service alone in the foreground.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from embedded.processes import Child, ProcessFailedError, answers, module_command
from embedded.redis_server import free_port, password_file, start_redis
from machine.linux import has_ended
from stores.redis_clients import AWAY, ServerError, connect
from stores.redis_url import RedisAddress
from stores.settings import Settings, settings

SERVICE = "bentos.service:FraudScorer"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class PlatformError(RuntimeError):
    """The platform cannot be started or ended; the text says what to do."""


class Running(msgspec.Struct, frozen=True):
    """What `up` left running: process ids by name, and where it answers."""

    pids: dict[str, int]
    url: str
    redis_url: str
    stream_metrics_port: int = 0


def state_file(config: Settings) -> Path:
    return config.home / "platform.json"


def service_environment(config: Settings) -> dict[str, str]:
    """What `bentoml serve` needs beside the settings."""
    return {"BENTOML_HOME": str(config.home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True", "TZ": "UTC"}


def service_command(config: Settings) -> list[str]:
    """The plain `bentoml serve` command of the scoring service."""
    return [
        str(Path(sys.executable).with_name("bentoml")), "serve", SERVICE,
        "--host", config.serve.host, "--port", str(config.serve.port),
    ]  # fmt: skip


def start_service(config: Settings) -> Child:
    """Start the service and wait until it says that it is ready (60 seconds at most)."""
    child = Child(
        "the service",
        service_command(config),
        config.home / "logs" / "service.log",
        service_environment(config),
    )
    try:
        child.wait_until(lambda: answers(f"{service_url(config)}/readyz"), 60)
    except ProcessFailedError:
        child.stop(5)
        raise
    return child


def start_stream(config: Settings, metrics_port: int = 0) -> Child:
    """Start the velocity flow; its metrics are on `metrics_port`, or where the settings say."""
    port = metrics_port or config.stream.metrics_port
    environment = {"TZ": "UTC", "TOLLGATE_STREAM_METRICS_PORT": str(port)}
    child = Child(
        "the stream", module_command("streaming.flow"), config.home / "logs" / "stream.log", environment
    )
    time.sleep(0.5)
    child.check()
    return child


def service_url(config: Settings) -> str:
    return f"http://{config.serve.host}:{config.serve.port}"


def up() -> int:
    """Start what is not running: Redis (if its address is this machine), the stream, the service."""
    password_file(settings().home / "redis")
    settings.cache_clear()  # the address names the file from now on
    config = settings()
    if state_file(config).exists():
        raise PlatformError("the platform is already up (or was not ended): run `make down` first")
    if not (config.home / "bentoml").exists():
        raise PlatformError("there is no model to serve yet: run `make demo` once, or train one")
    pids: dict[str, int] = {}
    children: list[Child] = []
    address = config.redis.address
    try:
        ours = address.kind == "single" and address.nodes and address.nodes[0][0] in _LOOPBACK
        if ours and not _redis_answers(address):
            server = start_redis(
                config.home / "redis", address.nodes[0][1], durable=True, password=address.login.password
            )
            pids["redis"] = server.pid
        metrics_port = config.stream.metrics_port or free_port()
        children.append(start_stream(config, metrics_port))
        children.append(start_service(config))
        pids |= {name: child.pid for name, child in zip(("stream", "service"), children, strict=True)}
    except ProcessFailedError:
        for child in children:
            child.stop(5)
        if "redis" in pids:
            os.kill(pids["redis"], signal.SIGTERM)
        raise
    running = Running(pids, service_url(config), address.shown, metrics_port)
    state_file(config).write_bytes(msgspec.json.encode(running))
    print(
        f"serving at {running.url}/v1/score, online store {running.redis_url}, logs in {config.home / 'logs'}"
    )
    print("end it with `make down`")
    return 0


def down() -> int:
    """End what `up` started, the service first, so that what it logs still finds its place."""
    config = settings()
    path = state_file(config)
    if not path.exists():
        print("nothing is up")
        return 0
    running = msgspec.json.decode(path.read_bytes(), type=Running)
    for name in ("service", "stream", "redis"):
        pid = running.pids.get(name)
        if pid is not None and not _end(pid):
            print(f"{name} (process {pid}) did not end in 20 s and was killed")
    path.unlink()
    print("the platform is down")
    return 0


def _end(pid: int) -> bool:
    """Ask a process to end; kill it after 20 seconds. True if it ended by itself."""
    try:
        os.kill(pid, signal.SIGTERM)
        for _ in range(400):
            time.sleep(0.05)
            if has_ended(pid):
                return True
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    return False


def _redis_answers(address: RedisAddress) -> bool:
    try:
        with connect(address, timeout=1) as client:
            return bool(client.ping())
    except (*AWAY, ServerError):
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("up", "down", "serve"))
    command = parser.parse_args().command
    try:
        if command == "serve":
            config = settings()
            arguments = service_command(config)
            os.execvpe(arguments[0], arguments, {**os.environ, **service_environment(config)})
        return up() if command == "up" else down()
    except (PlatformError, ProcessFailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
