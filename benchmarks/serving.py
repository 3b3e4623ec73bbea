"""`make bench-serving`: how fast the scoring service is, beside yardsticks -> results/bench/serving.json.

Every ratio is of services that were measured in turn, in this run, on this machine, with the load
generator and Redis beside them. Turns are short and alternate: a ratio is the median of the ratios of
neighbouring turns, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import uvloop

from benchmarks.serving_bench import PROJECT, Bench, Saturation, bulk_requests, ratio, requests_for, say
from benchmarks.serving_closed_loop import saturate
from benchmarks.serving_data import build_model, fill_store
from benchmarks.serving_limits import impatient, redis_store, workers_2
from benchmarks.serving_load import Load
from benchmarks.serving_read import read_ratios
from embedded.processes import stop_on_sigterm
from embedded.redis_server import start_redis
from stores.settings import settings

#: Arrival rates at which both ways of batching are shown, requests a second.
RATES: Final = (50, 200, 500, 1000, 1500)


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
    rates = {name: median(one.rates) for name, one in found.items()}
    rate = rates["fastapi_onnx"] * 0.75
    p99: dict[str, list[float]] = {"tollgate": [], "fastapi_onnx": []}
    for turn in range(bench.turns):
        for name in sorted(p99, reverse=turn % 2 == 0):
            p99[name].append(bench.at(bench.service(name), rate, 2 * bench.seconds).milliseconds(99))
            say(f"turn {turn + 1}: {name} at {rate:.0f}/s, p99 {p99[name][-1]:.2f} ms")
    bench.stop("fastapi_onnx")
    return {
        "single": {
            **{f"ratio_to_{name}": ratio(found["tollgate"].rates, found[name].rates) for name in names[1:]},
            "requests_per_second": {name: round(value, 1) for name, value in rates.items()},
            "turns": {name: [round(rate) for rate in one.rates] for name, one in found.items()},
            "service_cpu_us": {name: round(median(one.cpu_us), 1) for name, one in found.items()},
            "generator_busy": {name: round(median(one.generator), 2) for name, one in found.items()},
        },
        "same_rate": {
            "rate": round(rate, 1),
            "p99_ms": {name: round(median(values), 3) for name, values in p99.items()},
            "turns": {name: [round(value, 2) for value in values] for name, values in p99.items()},
            "p99_ratio_to_fastapi_onnx": ratio(p99["tollgate"], p99["fastapi_onnx"]),
        },
    }


def lone(bench: Bench) -> dict[str, Any]:
    """One connection that waits for each answer before it sends the next request."""
    found: dict[str, list[float]] = {"tollgate": [], "floor": []}
    for turn in range(2 * bench.turns):
        for name in sorted(found, reverse=turn % 2 == 0):
            running = bench.service(name)
            load = saturate(running.port, requests_for(running.port, 500), connections=1, seconds=60)
            found[name].append(load.milliseconds(50))
            say(f"turn {turn + 1}: {name} lone {found[name][-1]:.3f} ms")
    return {
        "lone": {
            "p50_ratio_to_floor": ratio(found["tollgate"], found["floor"]),
            "p50_ms": {name: round(median(values), 3) for name, values in found.items()},
        }
    }


def bulk(bench: Bench) -> dict[str, Any]:
    """Requests of 64 transactions, four connections at once."""
    found: dict[str, list[float]] = {"tollgate": [], "floor": []}
    for turn in range(bench.turns):
        for name in sorted(found, reverse=turn % 2 == 0):
            running = bench.service(name)
            ready = list(bulk_requests(running.port, int(bench.seconds * 200), 64))
            load = saturate(running.port, ready, connections=4, seconds=bench.seconds)
            running.settle()
            found[name].append(load.rate * 64)
            say(f"turn {turn + 1}: {name} bulk {found[name][-1]:.0f} transactions/s")
    return {
        "bulk_64": {
            "ratio_to_floor": ratio(found["tollgate"], found["floor"]),
            "transactions_per_second": {name: round(median(values), 1) for name, values in found.items()},
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
            "p99_ratio_to_floor": ratio(*[[_p99(load) for load in loads] for loads in runs.values()]),
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
                "requests_per_second": round(median(one.rates), 1),
                "p50_ms": round(median([load.milliseconds(50) for load in latencies[number]]), 3),
                "p99_ms": round(median([load.milliseconds(99) for load in latencies[number]]), 3),
            }
            for number, one in found.items()
        ]
    }


PARTS: Final[dict[str, Callable[[Bench], dict[str, Any]]]] = {
    "read": read, "single": single, "lone": lone, "bulk": bulk, "rate_1000": rate_1000,
    "by_rate": by_rate, "in_flight": in_flight, "workers_2": workers_2,
    "impatient": impatient, "redis_store": redis_store,
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


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="short turns, for a look while developing")
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to measure; others stay"
    )
    options = parser.parse_args()
    stop_on_sigterm()
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
