"""What the parts of the serving benchmark share: services in turns, requests, ratios."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.serving_closed_loop import saturate
from benchmarks.serving_data import bodies
from benchmarks.serving_load import MOST_RATE, Load, at_rate, http_request
from benchmarks.serving_services import Running, start

PROJECT: Final = "tollgate"
#: Seconds of each turn at saturation that are not counted: processors come out of their idle states.
_RUN_UP: Final = 0.3
_counter = itertools.count()


def requests_for(port: int, number: int) -> list[bytes]:
    """Single requests, no id ever used twice."""
    return [
        http_request(port, "/v1/score", body)
        for body in bodies(number, f"r{next(_counter)}", seed=next(_counter))
    ]


def bulk_requests(port: int, number: int, size: int) -> Iterator[bytes]:
    """Bulk requests of `size` transactions each, no id ever used twice."""
    every = bodies(number * size, f"b{next(_counter)}", seed=next(_counter))
    for first in range(0, len(every), size):
        yield http_request(port, "/v1/score/batch", b"[" + b",".join(every[first : first + size]) + b"]")


@dataclass(slots=True)
class Saturation:
    """Turns of one service at saturation: answers a second, CPU microseconds of the service an
    answer, and the share of its own core that the load generator was busy for."""

    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    generator: list[float] = field(default_factory=list)

    def turn(self, running: Running, seconds: float, connections: int = 32) -> float:
        """One turn; returns its answers a second. RuntimeError if half of the answers are no decisions."""
        # Requests are made before the clock starts, more than any service here can take.
        run_up, ready = (requests_for(running.port, int(each * MOST_RATE)) for each in (_RUN_UP, seconds))
        used = running.cpu_seconds()
        before = saturate(running.port, run_up, connections=connections, seconds=_RUN_UP)
        busy = time.process_time()
        load = saturate(running.port, ready, connections=connections, seconds=seconds)
        self.generator.append((time.process_time() - busy) / load.seconds)
        answers = load.statuses[200]
        if answers < 0.5 * sum(load.statuses.values()) or not answers:
            raise RuntimeError(f"{running.name} does not answer well: {dict(load.statuses)}")
        self.rates.append(load.rate)
        running.settle()
        self.cpu_us.append((running.cpu_seconds() - used) / (before.statuses[200] + answers) * 1e6)
        return load.rate


@dataclass(slots=True)
class Bench:
    """What the parts of a run share: Redis, a model, and services that are started when asked for."""

    root: Path
    url: str
    turns: int
    seconds: float
    running: dict[str, Running] = field(default_factory=dict)

    def service(self, name: str, label: str | None = None, **settings_of_it: str) -> Running:
        """The service `name`, warm; `label` tells apart those with settings of their own."""
        label = label or name
        if label not in self.running:
            say(f"starting {label}")
            home = self.root / label
            home.mkdir(parents=True)
            (home / "bentoml").symlink_to(self.root / "model" / "bentoml")
            if name == "feast_sdk":
                _apply_features(home, self.url)
            self.running[label] = start(name, home, self.url, **settings_of_it)  # type: ignore[arg-type]  # settings
            Saturation().turn(self.running[label], 1.0)
        return self.running[label]

    def stop(self, *labels: str) -> None:
        for label in labels:
            if label in self.running:
                self.running.pop(label).stop()

    def at(self, running: Running, rate: float, seconds: float, path: str = "/v1/score") -> Load:
        """Open loop at `rate` for `seconds`; to the bulk route as lists of one."""
        requests = requests_for(running.port, int(rate * seconds))
        if path != "/v1/score":
            requests = [
                http_request(running.port, path, b"[" + request.partition(b"\r\n\r\n")[2] + b"]")
                for request in requests
            ]
        return uvloop.run(at_rate(running.port, requests, rate=rate, connections=64))


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median ratio of neighbouring turns."""
    return round(statistics.median([one / other for one, other in zip(above, below, strict=True)]), 3)


def _apply_features(home: Path, url: str) -> None:
    """Register the definitions for the yardstick that reads through Feast."""
    environment = os.environ | {"TOLLGATE_HOME": str(home), "TOLLGATE_REDIS_URL": url, "TZ": "UTC"}
    subprocess.run(
        [sys.executable, "-c", "from feature_repo.store import apply_definitions; apply_definitions()"],
        env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
