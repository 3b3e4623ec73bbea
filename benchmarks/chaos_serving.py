"""`make chaos-serving`: break what can break under 500 requests/s -> results/chaos/serving.json.

Every request must get a valid decision or an explicit 429/503, and every decision must be in the
log afterwards: `missing_from_log` compares the answers that callers hold with an audit. A client
whose connection breaks sends the same request again, as a payment client does. The disk is
filled by a limit on the worker's file sizes (EFBIG where ENOSPC would be), the event log by
Redis' own memory limit. Percentiles are of the requests due from the moment of the fault on;
recovery is from its mending to the last answer that was refused or degraded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import redis
import uvloop

from benchmarks.serving_data import bodies, build_model, fill_store
from benchmarks.serving_load import MOST_CONNECTIONS, at_rate, http_request
from benchmarks.serving_services import Running, start
from bentos.tools.audit import audit
from embedded.processes import stop_on_sigterm
from embedded.redis_server import RedisServer, start_redis
from fraud.contract.answer import Answer
from stores.keys import open_keys
from stores.settings import settings

RATE = 500
PROJECT = "tollgate"
_RULES = Path(__file__).resolve().parent.parent / "bentos" / "rules" / "rules.yaml"
_decode = msgspec.json.Decoder(Answer).decode


@dataclass(slots=True)
class Stage:
    """What faults act on."""

    home: Path
    rules: Path
    redis: RedisServer
    service: Running

    def workers(self) -> list[psutil.Process]:
        """The service's worker processes (not the supervisor, not the log converters)."""
        every = psutil.Process(self.service.process.pid).children()
        return [one for one in every if "_bentoml_impl.worker.service" in " ".join(one.cmdline())]

    def client(self) -> Any:
        """A plain client of the stage's Redis."""
        return redis.Redis(port=self.redis.port)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that breaks: how, and how it is mended (None: nothing to mend)."""

    name: str
    breaks: Callable[[Stage], None]
    mends: Callable[[Stage], None] | None = None
    rate: int = RATE
    shift_ms: int = 0


def _restart_redis(stage: Stage) -> None:
    stage.redis.stop()
    _start_redis(stage)


def _start_redis(stage: Stage) -> None:
    stage.redis = start_redis(stage.redis.directory, stage.redis.port, durable=True)


def _limit_files(size: int) -> Callable[[Stage], None]:
    def act(stage: Stage) -> None:
        for worker in stage.workers():
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return act


def _redis_memory(limit: str) -> Callable[[Stage], None]:
    def act(stage: Stage) -> None:
        stage.client().config_set("maxmemory", limit)

    return act


def _deploy(stage: Stage, champion: str) -> None:
    path = stage.home / "deployment.json"
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps({"champion": champion}))
    unfinished.replace(path)


def _broken_model(stage: Stage) -> None:
    source = stage.home / "bentoml" / "models" / "tollgate_fraud" / "bench"
    broken = source.with_name("broken")
    shutil.copytree(source, broken, dirs_exist_ok=True)
    (broken / "model.txt").write_text("tree\nnothing of use\n")
    _deploy(stage, "broken")


def _break_rules(stage: Stage) -> None:
    stage.rules.write_text("rules: [{name: x")


def _mend_rules(stage: Stage) -> None:
    shutil.copy(_RULES, stage.rules)


def _refill(url: str) -> None:
    """Fill the store from a process of its own: in this one it would hold up the load generator."""
    code = f"from benchmarks.serving_data import fill_store; fill_store({url!r}, {PROJECT!r}, events=2000)"
    subprocess.run([sys.executable, "-c", code], check=True)


def _empty_redis(stage: Stage) -> None:
    stage.client().flushall()


FAULTS = (
    Fault("redis_killed", lambda stage: stage.redis.stop(), _start_redis),
    Fault("redis_restarted", _restart_redis),
    Fault(
        "redis_frozen",
        lambda stage: os.kill(stage.redis.pid, signal.SIGSTOP),
        lambda stage: os.kill(stage.redis.pid, signal.SIGCONT),
    ),
    Fault(
        "redis_emptied",
        _empty_redis,
        lambda stage: _refill(stage.redis.url),
    ),
    Fault("worker_killed", lambda stage: stage.workers()[0].kill()),
    Fault("event_log_full", _redis_memory("1mb"), _redis_memory("0")),
    Fault("disk_full", _limit_files(1), _limit_files(resource.RLIM_INFINITY)),
    Fault("model_swapped", lambda stage: _deploy(stage, "second")),
    Fault("broken_model_offered", _broken_model, lambda stage: _deploy(stage, "bench")),
    Fault(
        "broken_rules_offered",
        _break_rules,
        _mend_rules,
    ),
    Fault("ten_times_the_load", lambda stage: None, lambda stage: None, rate=RATE * 10),
    Fault("clock_ahead_by_4_minutes", lambda stage: None, shift_ms=240_000),
    Fault("clock_behind_by_an_hour", lambda stage: None, shift_ms=-3_600_000),
)


def _shifted(body: bytes, shift_ms: int) -> bytes:
    if not shift_ms:
        return body
    at_ms = time.time_ns() // 1_000_000 + shift_ms
    event = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_ms // 1000)) + "Z"
    return json.dumps(json.loads(body) | {"event_time": event}).encode()


def _prepare(fault: Fault, stage: Stage) -> None:
    """Clock faults are about now: the store must be as fresh as the day it is asked for."""
    if fault.shift_ms:
        now_ms = time.time_ns() // 1_000_000 - 3_600_000
        fill_store(stage.redis.url, PROJECT, events=2000, at_ms=now_ms)


def _due(fault: Fault, seconds: float) -> list[float]:
    """When each request is due; a fault with a rate of its own has it from the break to the mending."""
    parts = (
        (0.0, seconds / 4, RATE),
        (seconds / 4, seconds * 5 / 8, fault.rate),
        (seconds * 5 / 8, seconds, RATE),
    )
    return [begin + place / rate for begin, end, rate in parts for place in range(int((end - begin) * rate))]


def run(fault: Fault, stage: Stage, seconds: float, answered: list[str]) -> dict[str, Any]:
    """Load the service, break at a quarter, mend at five eighths, and report."""
    due = _due(fault, seconds)
    number = len(due)
    requests = [
        http_request(stage.service.port, "/v1/score", _shifted(body, fault.shift_ms))
        for body in bodies(number, fault.name, seed=number)
    ]
    moments: dict[str, float] = {}

    async def scenario() -> Any:
        load = asyncio.create_task(
            at_rate(
                stage.service.port,
                requests,
                rate=due,
                # So many that the requests wait in the service, where they count, and not here.
                connections=64 if fault.rate == RATE else MOST_CONNECTIONS,
                keep=True,
                patience=20,
                repeat=5,
            )
        )
        begun = time.perf_counter()
        await asyncio.sleep(seconds / 4)
        moments["broken"] = time.perf_counter() - begun
        await asyncio.to_thread(fault.breaks, stage)
        if fault.mends is not None:
            await asyncio.sleep(seconds * 3 / 8)
            await asyncio.to_thread(fault.mends, stage)
        moments["mended"] = time.perf_counter() - begun
        return await load

    load = uvloop.run(scenario())
    rejected = degraded = invalid = 0
    last_bad = 0.0
    timed = zip((answer for answer in load.answers if answer[1]), load.latencies, strict=True)
    since = [seconds for (at, _, _), seconds in timed if at >= moments["broken"]]
    for at, status, body in load.answers:
        if status == 200:
            answer = _decode(body)
            answered.append(answer.transaction_id)
            if answer.degraded:
                degraded += 1
                last_bad = max(last_bad, at)
        elif status in (429, 503):
            rejected += 1
            last_bad = max(last_bad, at)
        elif status:
            invalid += 1
    return {
        "name": fault.name, "requests": number, "answered": load.statuses[200], "rejected": rejected,
        "unanswered": load.unanswered + invalid, "repeated": load.repeated, "degraded": degraded,
        "p99_ms": round(float(np.percentile(since, 99)) * 1000, 3),
        "p50_ms": round(float(np.percentile(since, 50)) * 1000, 3),
        "recovery_s": round(max(0.0, last_bad - moments["mended"]), 2),
    }  # fmt: skip


def main() -> int:
    stop_on_sigterm()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos_serving", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="length of each fault's run")
    parser.add_argument("--only", nargs="*", help="names of faults")
    options = parser.parse_args()
    answered: list[str] = []
    results = []
    with tempfile.TemporaryDirectory(prefix="tollgate-chaos-") as scratch:
        root = Path(scratch)
        home, rules = root / "home", root / "rules.yaml"
        shutil.copy(_RULES, rules)
        build_model(home, "second", trees=100)
        build_model(home, "bench")
        with ExitStack() as undo:
            server = start_redis(root / "redis", durable=True)
            undo.callback(server.stop)
            fill_store(server.url, PROJECT, events=5000)
            service = start(
                "tollgate", home, server.url, TOLLGATE_SERVE_WORKERS="2", TOLLGATE_RULES_FILE=str(rules)
            )
            stage = Stage(home, rules, server, service)
            undo.callback(lambda: stage.redis.stop())  # by then it may be another one
            undo.callback(lambda: stage.service.stop())
            time.sleep(3)  # until both workers are up
            for fault in FAULTS:
                if options.only and fault.name not in options.only:
                    continue
                _prepare(fault, stage)
                results.append(run(fault, stage, options.seconds, answered))
                print(json.dumps(results[-1]), file=sys.stderr, flush=True)
                time.sleep(2)
        time.sleep(2)
        subprocess.run(
            [sys.executable, "-m", "bentos.log.decision_files"], check=True, stdout=subprocess.DEVNULL,
            env=os.environ | {"TOLLGATE_HOME": str(home)},
        )  # fmt: skip
        findings = audit(home, open_keys(settings()).seal("log", retired=True), answered)
    missing = [problem for problem in findings.problems if "was answered but" in problem]
    report = {
        "rate": RATE,
        "faults": results,
        "decisions_logged": findings.entries,
        "missing_from_log": len(missing),
        "log_problems": [problem for problem in findings.problems if problem not in missing][:20],
    }
    path = settings().results / "chaos" / "serving.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    broken = missing or report["log_problems"] or any(result["unanswered"] for result in results)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
