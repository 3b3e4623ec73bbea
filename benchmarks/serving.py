"""`make bench-serving`: how fast the scoring service is, beside yardsticks -> results/bench/serving.json.

Every ratio is of services that were measured in turn, in this run, on this machine, with the load
generator and Redis beside them; the turns are interleaved and repeated, and the median counts.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.serving_data import bodies, build_model, fill_store
from benchmarks.serving_load import Load, at_rate, http_request, saturate
from benchmarks.serving_read import read_ratios
from benchmarks.serving_services import Running, start
from embedded.redis_server import start_redis
from fraud.settings import settings

PROJECT = "tollgate"
_counter = itertools.count()


def _requests(port: int, number: int) -> list[bytes]:
    """Single requests, no id ever used twice."""
    return [
        http_request(port, "/v1/score", body)
        for body in bodies(number, f"r{next(_counter)}", seed=next(_counter))
    ]


def _cycle(port: int, number: int) -> Iterator[bytes]:
    """Fresh requests without end, made in blocks."""
    while True:
        yield from _requests(port, number)


def _bulk(port: int, number: int, size: int) -> Iterator[bytes]:
    while True:
        every = bodies(number * size, f"b{next(_counter)}", seed=next(_counter))
        for first in range(0, len(every), size):
            yield http_request(port, "/v1/score/batch", b"[" + b",".join(every[first : first + size]) + b"]")


def _run(load: Any) -> Load:
    return uvloop.run(load)  # type: ignore[no-any-return]


def _saturation(running: Running, seconds: float, connections: int = 32) -> Load:
    ready = list(
        itertools.islice(_cycle(running.port, 4000), int(seconds * 3500))
    )  # made before the clock starts
    return _run(saturate(running.port, iter(ready), connections=connections, seconds=seconds))


def _lone(running: Running, number: int) -> float:
    """Median latency (ms) of one connection that waits for each answer."""
    load = _run(saturate(running.port, iter(_requests(running.port, number)), connections=1, seconds=60))
    return load.milliseconds(50)


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def measure(quick: bool) -> dict[str, Any]:
    """All figures; `quick` shortens every turn for a look while developing."""
    turns, seconds = (1, 3.0) if quick else (3, 8.0)
    result: dict[str, Any] = {"machine": {"cpus": os.cpu_count(), "load_before": os.getloadavg()[0]}}
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as scratch:
        root = Path(scratch)
        redis_server = start_redis(root / "redis")
        try:
            for name in ("tollgate", "floor", "fastapi_onnx", "feast_sdk", "two_workers"):
                build_model(root / name) if name == "tollgate" else _share(root / "tollgate", root / name)
            fill_store(redis_server.url, PROJECT)
            say("read")
            result["read"] = read_ratios(redis_server.url, PROJECT, quick=quick)
            result |= _services(root, redis_server.url, turns, seconds, quick)
        finally:
            redis_server.stop()
    result["machine"]["load_after"] = os.getloadavg()[0]
    return result


def _share(source: Path, home: Path) -> None:
    home.mkdir(parents=True)
    (home / "bentoml").symlink_to(source / "bentoml")


def _services(root: Path, url: str, turns: int, seconds: float, quick: bool) -> dict[str, Any]:
    running: dict[str, Running] = {}
    result: dict[str, Any] = {}
    try:
        _apply_features(root / "feast_sdk", url)
        for name in ("tollgate", "floor", "fastapi_onnx", "feast_sdk"):
            say(f"starting {name}")
            running[name] = start(name, root / name, url)
        rates: dict[str, list[float]] = {name: [] for name in running}
        lone: dict[str, list[float]] = {name: [] for name in running}
        bulk: dict[str, list[float]] = {"tollgate": [], "floor": []}
        for name in running:
            warm = _saturation(running[name], 1.0)
            if warm.statuses[200] < 0.5 * sum(warm.statuses.values()) or not warm.statuses:
                raise RuntimeError(f"{name} does not answer well: {dict(warm.statuses)}")
        for turn in range(turns):
            for name, service in running.items():
                rates[name].append(_saturation(service, seconds if name in bulk else seconds / 2).rate)
                lone[name].append(_lone(service, 300 if quick else 1500 if name in bulk else 300))
                say(f"turn {turn + 1}: {name} {rates[name][-1]:.0f}/s, lone {lone[name][-1]:.2f} ms")
            for name in bulk:
                requests = itertools.islice(_bulk(running[name].port, 40, 64), int(seconds * 60))
                load = _run(
                    saturate(running[name].port, iter(list(requests)), connections=4, seconds=seconds)
                )
                bulk[name].append(load.rate * 64)
                say(f"turn {turn + 1}: {name} bulk {bulk[name][-1]:.0f} transactions/s")
        single = {name: _median(values) for name, values in rates.items()}
        result["single"] = {
            "ratio_to_floor": round(single["tollgate"] / single["floor"], 3),
            "ratio_to_fastapi_onnx": round(single["tollgate"] / single["fastapi_onnx"], 2),
            "ratio_to_feast_sdk": round(single["tollgate"] / single["feast_sdk"], 2),
            "requests_per_second": {name: round(value, 1) for name, value in single.items()},
        }
        result["lone"] = {
            "p50_ratio_to_floor": round(_median(lone["tollgate"]) / _median(lone["floor"]), 3),
            "p50_ms": {name: round(_median(values), 3) for name, values in lone.items()},
        }
        result["bulk_64"] = {
            "ratio_to_floor": round(_median(bulk["tollgate"]) / _median(bulk["floor"]), 3),
            "transactions_per_second": {name: round(_median(values), 1) for name, values in bulk.items()},
        }
        # The same rate for both, three quarters of what the slower can take, from intended time.
        rate = single["fastapi_onnx"] * 0.75
        same = {
            name: _at(running[name], rate, 10 if not quick else 4) for name in ("tollgate", "fastapi_onnx")
        }
        result["same_rate"] = {
            "rate": round(rate, 1),
            "p99_ms": {name: load.milliseconds(99) for name, load in same.items()},
            "p99_ratio_to_fastapi_onnx": round(
                same["tollgate"].milliseconds(99) / same["fastapi_onnx"].milliseconds(99), 3
            ),
        }
        for name in ("floor", "fastapi_onnx", "feast_sdk"):
            running.pop(name).stop()
        say("1,000 requests/s")
        load = _at(running["tollgate"], 1000, 10 if quick else 60)
        result["rate_1000"] = {
            "p50_ms": load.milliseconds(50), "p95_ms": load.milliseconds(95), "p99_ms": load.milliseconds(99),
            "errors": load.errors, "seconds": round(load.seconds, 1),
        }  # fmt: skip
        result["by_rate"] = _by_rate(running["tollgate"], quick)
        one, two = [], []
        say("two workers")
        running["two_workers"] = start("tollgate", root / "two_workers", url, TOLLGATE_SERVE_WORKERS="2")
        for _ in range(turns):
            one.append(_saturation(running["tollgate"], seconds).rate)
            two.append(_saturation(running["two_workers"], seconds, 64).rate)
        result["workers_2"] = {"ratio_to_one": round(_median(two) / _median(one), 3)}
        result["stages"] = _stages(running["tollgate"].port)
    finally:
        for service in running.values():
            service.stop()
    return result


def _at(running: Running, rate: float, seconds: float, path: str = "/v1/score") -> Load:
    requests = _requests(running.port, int(rate * seconds))
    if path != "/v1/score":
        requests = [
            http_request(running.port, path, b"[" + request.partition(b"\r\n\r\n")[2] + b"]")
            for request in requests
        ]
    return _run(at_rate(running.port, requests, rate=rate, connections=64))


def _by_rate(running: Running, quick: bool) -> list[dict[str, Any]]:
    """Latency by arrival rate: the micro-batcher (`/v1/score`) beside BentoML's batchable API."""
    rows = []
    for rate in (10, 100, 300) if quick else (10, 50, 100, 200, 400, 800):
        seconds = 3 if quick else max(4.0, min(10.0, 200 / rate))
        micro = _at(running, rate, seconds)
        bento = _at(running, rate, seconds, "/v1/score/batch")
        rows.append(
            {
                "rate": rate,
                "micro_batcher": {
                    "p50_ms": micro.milliseconds(50),
                    "p99_ms": micro.milliseconds(99),
                    "errors": micro.errors,
                },
                "bentoml_batchable": {
                    "p50_ms": bento.milliseconds(50),
                    "p99_ms": bento.milliseconds(99),
                    "errors": bento.errors,
                },
            }
        )
        say(f"{rate}/s: {rows[-1]}")
    return rows


def _stages(port: int) -> dict[str, float]:
    """Mean microseconds by stage, as the service counted them."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        text = response.read().decode()
    sums: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if line.startswith(("tollgate_stage_seconds_sum", "tollgate_stage_seconds_count")):
            name, _, value = line.partition(" ")
            stage = name.split('"')[1]
            sums.setdefault(stage, {})["sum" if "_sum" in name else "count"] = float(value)
    return {stage: round(v["sum"] / v["count"] * 1e6, 1) for stage, v in sums.items() if v.get("count")}


def _apply_features(home: Path, url: str) -> None:
    """Register the definitions for the yardstick that reads through Feast."""
    import subprocess

    say("applying feature definitions")
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
    options = parser.parse_args()
    result = measure(options.quick)
    path = settings().results / "bench" / "serving.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    raise SystemExit(main())
