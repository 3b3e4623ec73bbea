"""`make bench-serving`: how fast the scoring service is, beside yardsticks -> results/bench/serving.json.

Every ratio is of services that were measured in turn, in this run, on this machine, with the load
generator and Redis beside them. Turns are short and alternate: a ratio is the median of the ratios of
neighbouring turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis
import uvloop

from benchmarks.serving_data import bodies, build_model, fill_store
from benchmarks.serving_load import Load, at_rate, http_request, saturate
from benchmarks.serving_read import read_ratios
from benchmarks.serving_services import Running, start
from embedded.redis_server import start_redis
from fraud.settings import settings

PROJECT: Final = "tollgate"
#: Arrival rates at which both ways of batching are shown, requests a second.
RATES: Final = (50, 200, 500, 1000, 1500)
_counter = itertools.count()


def _requests(port: int, number: int) -> list[bytes]:
    """Single requests, no id ever used twice."""
    return [
        http_request(port, "/v1/score", body)
        for body in bodies(number, f"r{next(_counter)}", seed=next(_counter))
    ]


def _bulk(port: int, number: int, size: int) -> Iterator[bytes]:
    every = bodies(number * size, f"b{next(_counter)}", seed=next(_counter))
    for first in range(0, len(every), size):
        yield http_request(port, "/v1/score/batch", b"[" + b",".join(every[first : first + size]) + b"]")


def _run(load: Any) -> Load:
    return uvloop.run(load)  # type: ignore[no-any-return]


@dataclass(slots=True)
class Saturation:
    """Turns of one service at saturation: answers a second, CPU microseconds of the service an
    answer, and the share of its own core that the load generator was busy for."""

    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    generator: list[float] = field(default_factory=list)

    def turn(self, running: Running, seconds: float, connections: int = 32) -> float:
        # Requests are made before the clock starts, more than any service here can take.
        ready = iter(_requests(running.port, int(seconds * 16_000)))
        busy, used = time.process_time(), running.cpu_seconds()
        load = _run(saturate(running.port, ready, connections=connections, seconds=seconds))
        answers = load.statuses[200]
        if answers < 0.5 * sum(load.statuses.values()) or not answers:
            raise RuntimeError(f"{running.name} does not answer well: {dict(load.statuses)}")
        self.rates.append(load.rate)
        self.generator.append((time.process_time() - busy) / load.seconds)
        running.settle()
        self.cpu_us.append((running.cpu_seconds() - used) / answers * 1e6)
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
        requests = _requests(running.port, int(rate * seconds))
        if path != "/v1/score":
            requests = [
                http_request(running.port, path, b"[" + request.partition(b"\r\n\r\n")[2] + b"]")
                for request in requests
            ]
        return _run(at_rate(running.port, requests, rate=rate, connections=64))


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median ratio of neighbouring turns."""
    return round(_median([one / other for one, other in zip(above, below, strict=True)]), 3)


def read(bench: Bench) -> dict[str, Any]:
    """The online read beside a raw pipelined HMGET with protobuf decoding."""
    return {"read": read_ratios(bench.url, PROJECT, turns=20 if bench.turns == 1 else 80)}


def single(bench: Bench) -> dict[str, Any]:
    """Single requests at saturation, and at one rate that all but the slowest can take."""
    names = ("tollgate", "floor", "fastapi_onnx", "feast_sdk")
    found = {name: Saturation() for name in names}
    for name in names:
        bench.service(name)
    for turn in range(bench.turns):
        # There and back, so that a machine that slows down slows both alike.
        for name in names if turn % 2 == 0 else names[::-1]:
            rate = found[name].turn(bench.service(name), bench.seconds)
            say(f"turn {turn + 1}: {name} {rate:.0f}/s")
    bench.stop("feast_sdk")
    rates = {name: _median(one.rates) for name, one in found.items()}
    rate = rates["fastapi_onnx"] * 0.75
    p99: dict[str, list[float]] = {"tollgate": [], "fastapi_onnx": []}
    for turn in range(bench.turns):
        for name in sorted(p99, reverse=turn % 2 == 0):
            p99[name].append(bench.at(bench.service(name), rate, 2 * bench.seconds).milliseconds(99))
            say(f"turn {turn + 1}: {name} at {rate:.0f}/s, p99 {p99[name][-1]:.2f} ms")
    bench.stop("fastapi_onnx")
    return {
        "single": {
            **{f"ratio_to_{name}": _ratio(found["tollgate"].rates, found[name].rates) for name in names[1:]},
            "requests_per_second": {name: round(value, 1) for name, value in rates.items()},
            "turns": {name: [round(rate) for rate in one.rates] for name, one in found.items()},
            "service_cpu_us": {name: round(_median(one.cpu_us), 1) for name, one in found.items()},
            "generator_busy": {name: round(_median(one.generator), 2) for name, one in found.items()},
        },
        "same_rate": {
            "rate": round(rate, 1),
            "p99_ms": {name: round(_median(values), 3) for name, values in p99.items()},
            "turns": {name: [round(value, 2) for value in values] for name, values in p99.items()},
            "p99_ratio_to_fastapi_onnx": _ratio(p99["tollgate"], p99["fastapi_onnx"]),
        },
    }


def lone(bench: Bench) -> dict[str, Any]:
    """One connection that waits for each answer before it sends the next request."""
    found: dict[str, list[float]] = {"tollgate": [], "floor": []}
    for turn in range(2 * bench.turns):
        for name in sorted(found, reverse=turn % 2 == 0):
            running = bench.service(name)
            requests = iter(_requests(running.port, 500))
            load = _run(saturate(running.port, requests, connections=1, seconds=60))
            found[name].append(load.milliseconds(50))
            say(f"turn {turn + 1}: {name} lone {found[name][-1]:.3f} ms")
    return {
        "lone": {
            "p50_ratio_to_floor": _ratio(found["tollgate"], found["floor"]),
            "p50_ms": {name: round(_median(values), 3) for name, values in found.items()},
        }
    }


def bulk(bench: Bench) -> dict[str, Any]:
    """Requests of 64 transactions, four connections at once."""
    found: dict[str, list[float]] = {"tollgate": [], "floor": []}
    for turn in range(bench.turns):
        for name in sorted(found, reverse=turn % 2 == 0):
            running = bench.service(name)
            ready = iter(list(_bulk(running.port, int(bench.seconds * 160), 64)))
            load = _run(saturate(running.port, ready, connections=4, seconds=bench.seconds))
            found[name].append(load.rate * 64)
            say(f"turn {turn + 1}: {name} bulk {found[name][-1]:.0f} transactions/s")
    return {
        "bulk_64": {
            "ratio_to_floor": _ratio(found["tollgate"], found["floor"]),
            "transactions_per_second": {name: round(_median(values), 1) for name, values in found.items()},
        }
    }


def rate_1000(bench: Bench) -> dict[str, Any]:
    """1,000 requests a second for a minute, from the intended send time: three times, the floor for half as
    long after each, which says what of it is the machine's. The figures are those of the middle p99.
    """
    runs: dict[str, list[Load]] = {"tollgate": [], "floor": []}
    seconds = {"tollgate": 10, "floor": 5} if bench.turns == 1 else {"tollgate": 60, "floor": 30}
    busy, begun = time.process_time(), time.perf_counter()
    for turn in range(1 if bench.turns == 1 else 3):
        for name, loads in runs.items():
            loads.append(bench.at(bench.service(name), 1000, seconds[name]))
            say(f"turn {turn + 1}: {name} at 1,000/s {_latency(loads[-1])}")
    generator = (time.process_time() - busy) / (time.perf_counter() - begun)
    bench.stop("floor")
    middle = {name: sorted(loads, key=_p99)[len(loads) // 2] for name, loads in runs.items()}
    return {
        "rate_1000": {
            **_latency(middle["tollgate"]),
            "errors": sum([load.errors for load in runs["tollgate"]]),
            "seconds": round(middle["tollgate"].seconds, 1),
            "generator_busy": round(generator, 2),
            "floor": _latency(middle["floor"]),
            "p99_ratio_to_floor": _ratio(*[[_p99(load) for load in loads] for loads in runs.values()]),
            "turns": {name: [_latency(load) for load in loads] for name, loads in runs.items()},
        }
    }


def _latency(load: Load) -> dict[str, float]:
    return {f"p{percentile}_ms": load.milliseconds(percentile) for percentile in (50, 95, 99)}


def _p99(load: Load) -> float:
    return load.milliseconds(99)


def by_rate(bench: Bench) -> dict[str, Any]:
    """Latency by arrival rate: the micro-batcher (`/v1/score`) beside BentoML's batchable API."""
    running = bench.service("tollgate")
    rows = []
    for rate in RATES:
        row: dict[str, Any] = {"rate": rate}
        for name, path in (("micro_batcher", "/v1/score"), ("bentoml_batchable", "/v1/score/batch")):
            load = bench.at(running, rate, 2 if bench.turns == 1 else 6, path)
            row[name] = {
                "p50_ms": load.milliseconds(50), "p99_ms": load.milliseconds(99), "errors": load.errors,
            }  # fmt: skip
        rows.append(row)
        say(f"{row}")
    return {"by_rate": rows}


def in_flight(bench: Bench) -> dict[str, Any]:
    """One micro-batch under way at once beside two: at saturation, and at 1,000 requests a second."""
    found = {number: Saturation() for number in (1, 2)}
    latencies: dict[int, list[Load]] = {number: [] for number in found}
    for turn in range(2 if bench.turns > 1 else 1):
        for number in sorted(found, reverse=turn % 2 == 1):
            running = bench.service("tollgate", f"in_flight_{number}", TOLLGATE_SERVE_IN_FLIGHT=str(number))
            found[number].turn(running, bench.seconds)
            latencies[number].append(bench.at(running, 1000, 4 * bench.seconds))
            say(f"{number} under way: {found[number].rates[-1]:.0f}/s")
    bench.stop(*(f"in_flight_{number}" for number in found))
    return {
        "in_flight": [
            {
                "batches": number,
                "requests_per_second": round(_median(one.rates), 1),
                "p50_ms": round(_median([load.milliseconds(50) for load in latencies[number]]), 3),
                "p99_ms": round(_median([load.milliseconds(99) for load in latencies[number]]), 3),
            }
            for number, one in found.items()
        ]
    }


#: Counts for half a second, on its own.
_LOOP: Final = """
from time import perf_counter
end, rounds = perf_counter() + 0.5, 0
while perf_counter() < end:
    rounds += 1
print(rounds)
"""


def _loops(number: int) -> int:
    """What so many plain loops get done at once, in processes of their own."""
    started = [subprocess.Popen([sys.executable, "-c", _LOOP], stdout=subprocess.PIPE) for _ in range(number)]
    return sum(int(one.communicate()[0]) for one in started)


def workers_2(bench: Bench) -> dict[str, Any]:
    """Two workers beside one; the load generator and Redis are on the same cores.

    `two_loops_ratio_to_one` is what these cores give two programs that share nothing and wait for nobody: on
    a virtual machine less than 2.
    """
    labels = {1: "tollgate", 2: "two_workers"}
    found = {number: Saturation() for number in labels}
    loops = []
    for turn in range(bench.turns):
        loops.append(_loops(2) / _loops(1))
        for number in sorted(found, reverse=turn % 2 == 1):
            running = bench.service("tollgate", labels[number], TOLLGATE_SERVE_WORKERS=str(number))
            found[number].turn(running, bench.seconds, 64)
        say(f"turn {turn + 1}: one worker {found[1].rates[-1]:.0f}/s, two {found[2].rates[-1]:.0f}/s")
    bench.stop("two_workers")
    one, two = found.values()
    return {
        "workers_2": {
            "ratio_to_one": _ratio(two.rates, one.rates),
            "two_loops_ratio_to_one": round(_median(loops), 3),
            "requests_per_second": {"one": round(_median(one.rates), 1), "two": round(_median(two.rates), 1)},
        }
    }


def redis_memory(bench: Bench) -> dict[str, Any]:
    """Bytes that Redis keeps for an entity (profile and state) and for an answer, by what it says itself; for
    an entity also with its own limit of 64 bytes for values of a hash that is a list."""
    bench.service("tollgate")  # its first turn leaves answers
    usual = start_redis(bench.root / "usual")
    try:
        redis.Redis.from_url(usual.url).config_set("hash-max-ziplist-value", 64)
        fill_store(usual.url, PROJECT)
        return {
            "redis_memory": {
                "entity_bytes": _bytes_a_key(bench.url, "hash"),
                "entity_with_redis_defaults_bytes": _bytes_a_key(usual.url, "hash"),
                "answer_bytes": _bytes_a_key(bench.url, "string"),
            }
        }
    finally:
        usual.stop()


def _bytes_a_key(url: str, kind: str) -> int:
    """The mean of MEMORY USAGE over the first thousand keys of a type."""
    with redis.Redis.from_url(url) as client:
        keys = list(itertools.islice(client.scan_iter(count=1000, _type=kind), 1000))
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.memory_usage(key)
            sizes: list[int] = pipe.execute()
    return round(statistics.mean(sizes))


PARTS: Final[dict[str, Callable[[Bench], dict[str, Any]]]] = {
    "read": read, "single": single, "lone": lone, "bulk": bulk, "rate_1000": rate_1000,
    "by_rate": by_rate, "in_flight": in_flight, "workers_2": workers_2,
    "redis_memory": redis_memory,
}  # fmt: skip


def measure(parts: Sequence[str], *, quick: bool) -> Iterator[dict[str, Any]]:
    """The figures of `parts`, one after the other, each with the conditions it was measured in; `quick`
    shortens every turn for a look while developing."""
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as scratch:
        root = Path(scratch)
        redis_server = start_redis(root / "redis")
        bench = Bench(root, redis_server.url, *((1, 2.0) if quick else (8, 2.0)))
        try:
            build_model(root / "model")
            fill_store(redis_server.url, PROJECT)
            for part in parts:
                say(part)
                begun, load = time.monotonic(), os.getloadavg()[0]
                figures = PARTS[part](bench)
                conditions = {
                    "load_before": round(load, 2), "seconds": round(time.monotonic() - begun, 1),
                    "quick": quick,
                }  # fmt: skip
                yield figures | {"conditions": {part: conditions}}
        finally:
            bench.stop(*list(bench.running))
            redis_server.stop()


def _apply_features(home: Path, url: str) -> None:
    """Register the definitions for the yardstick that reads through Feast."""
    environment = os.environ | {"TOLLGATE_HOME": str(home), "TOLLGATE_REDIS_URL": url, "TZ": "UTC"}
    subprocess.run(
        [sys.executable, "-c", "from feature_repo.store import apply_definitions; apply_definitions()"],
        env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="short turns, for a look while developing")
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to measure; others stay"
    )
    options = parser.parse_args()
    path = settings().results / "bench" / "serving.json"
    result = json.loads(path.read_text()) if path.exists() and set(options.only) != set(PARTS) else {}
    result["machine"] = {"cpus": os.cpu_count()}
    path.parent.mkdir(parents=True, exist_ok=True)
    for figures in measure(options.only, quick=options.quick):
        conditions = result.get("conditions", {}) | figures["conditions"]
        result |= figures | {"conditions": conditions}
        path.write_text(json.dumps(result, indent=2) + "\n")  # what was measured stays, whatever comes
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    raise SystemExit(main())
