"""Starts and ends the services of a benchmark run, each with a home and a Redis database."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from embedded.redis_server import free_port
from stores.decisions import journal_folder


def _rows_in(segment: Path) -> bool:
    """Whether a segment of a journal is there and holds anything."""
    with suppress(FileNotFoundError):  # it has been converted
        return segment.stat().st_size > 0
    return False


@dataclass(slots=True)
class Running:
    """A service that answers on a loopback port."""

    name: str
    port: int
    home: Path
    process: subprocess.Popen[bytes]

    def cpu_seconds(self) -> float:
        """CPU time that it and its workers have used."""
        first = psutil.Process(self.process.pid)
        used = 0.0
        for one in (first, *first.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                used += times.user + times.system
        return used

    def settle(self, seconds: float = 20.0) -> None:
        """Wait until its log converters have nothing left to do, of the segments that are still open either:
        they wait for an idle processor, and what they do then should be counted, and done, before the next
        turn. (In another service's turn they would have a session's whole share of the processors.)"""
        journal = journal_folder(self.home)
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(_rows_in(segment) for segment in journal.glob("*")):
            time.sleep(0.1)

    def stop(self) -> None:
        """Ask it to end, and end what has not 20 seconds later: it, or a worker that outlived it."""
        workers: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):  # it may have ended by itself
            workers = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        _, left = psutil.wait_procs(workers, 20)
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.kill()
        self.process.wait()


def start(
    name: str,
    home: Path,
    redis_url: str,
    *,
    port: int | None = None,
    wait: float = 300,
    service: str = "bentos.service:FraudScorer",
    folder: Path | None = None,
    wrapper: Sequence[str] = (),
    **more: str,
) -> Running:
    """Start `name` (tollgate, or a yardstick) and wait until it answers /readyz.

    `service` is what `bentoml serve` is given, run in `folder` and under the command `wrapper`;
    `more` are environment variables.
    """
    port = port or free_port()
    environment = os.environ | {
        "TOLLGATE_HOME": str(home), "TOLLGATE_REDIS_URL": redis_url, "TOLLGATE_LOG_LEVEL": "WARNING",
        "TOLLGATE_SERVE_REPLAY": "true", "TZ": "UTC",
        "BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True",
    } | more  # fmt: skip
    if name == "tollgate":
        command = [str(Path(sys.executable).with_name("bentoml")), "serve", service,
                   "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    else:
        command = [sys.executable, "-m", "benchmarks.serving_yardsticks", name, str(port)]
    home.mkdir(parents=True, exist_ok=True)
    with (home / f"{name}-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [*wrapper, *command],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    running = Running(name, port, home, process)
    try:
        deadline = time.monotonic() + wait
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                tail = (home / f"{name}-{port}.log").read_text()[-2000:]
                raise RuntimeError(f"{name} did not start; it printed:\n{tail}")
            time.sleep(0.1)
    except BaseException:  # an interrupt too: nobody else could end it
        running.stop()
        raise
    return running


def answers(port: int) -> bool:
    """Whether the service on `port` says that it is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
