"""A redis-server of one test, with options of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import redis

from embedded.redis_server import binary, free_port
from tests.bentos.running import wait_for


@dataclass
class Server:
    """A redis-server (or a sentinel) with options of its own."""

    process: subprocess.Popen[bytes]
    port: int

    def client(self, **how: object) -> redis.Redis:
        return redis.Redis(port=self.port, **how)  # type: ignore[arg-type]


@contextmanager
def serving(folder: Path, *options: str, port: int | None = None) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    process = subprocess.Popen(
        [str(binary()), *options, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder),
         "--save", "", "--logfile", str(folder / "redis.log")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:

        def listens() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        assert wait_for(listens, 10), (folder / "redis.log").read_text()
        yield Server(process, port)
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.wait()
