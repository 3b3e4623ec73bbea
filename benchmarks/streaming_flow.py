"""How many events a second the flow takes in, beside the same state class in a plain loop."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

from embedded.redis_server import RedisServer, start_redis
from fraud.contract.transaction import parse_transaction
from fraud.features.entities import ENTITIES
from fraud.state.observation import observe
from fraud.state.velocity import VelocityState
from stores.redis_layout import decode_timestamp, entity_key, ts_field
from stores.settings import REPOSITORY, settings
from streaming.log.load import Event, Load, events
from streaming.log.publish import open_writer
from tests.streaming.broker import free_ports

_PATIENCE_S = 900
#: Events of a plain loop: the first so many of the flow's.
_LOOP_EVENTS = 100_000


@contextmanager
def platform(**variables: str) -> Iterator[RedisServer]:
    """A home and a Redis of one's own, known to this process and those it starts."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder) / "redis")
        os.environ.update(TOLLGATE_HOME=str(Path(folder) / "home"), TOLLGATE_REDIS_URL=server.url)
        os.environ.update(TOLLGATE_STREAM_PORT=str(free_ports(4)), **variables)
        settings.cache_clear()
        try:
            yield server
        finally:
            server.stop()
            os.environ.clear()
            os.environ.update(before)
            settings.cache_clear()


@contextmanager
def flow(processes: int) -> Iterator[int]:
    """The flow, started and reading; stopped cleanly at the end. Yields its process id."""
    process = subprocess.Popen(
        [sys.executable, "-m", "streaming.flow", "--processes", str(processes)],
        cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "TOLLGATE_STREAM_PORTS_FENCED": "true"},
    )  # fmt: skip
    try:
        warm = list(
            events(Load(50 * settings().event_log.partitions, seed=99), settings().event_log.partitions)
        )
        publish(warm)
        await_visible(warm)
        yield process.pid
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def publish(load: list[Event]) -> None:
    with open_writer(settings()) as writer:
        for event in load:
            writer.publish_raw(event.partition, event.payload)


def await_visible(load: list[Event]) -> None:
    """Wait until Redis shows the last event of every partition, to each of its entities: all before
    it are visible then."""
    configured = settings()
    last = {event.partition: event.transaction for event in load if event.transaction}
    deadline = time.monotonic() + _PATIENCE_S
    with redis.Redis.from_url(configured.redis.url) as client:
        for transaction, entity in itertools.product(last.values(), ENTITIES):
            value = getattr(transaction, entity.key)
            if value is None:
                continue
            key = entity_key(configured.feast.project, entity.key, value)
            while True:
                stored = client.hget(key, ts_field(entity.velocity_view))
                if stored and decode_timestamp(stored) > transaction.event_ms * 1000:
                    break
                if time.monotonic() > deadline:
                    raise SystemExit("the flow did not keep up: its last events are not visible")
                time.sleep(0.02)


def plain_loop(load: list[Event]) -> float:
    """Events a second of parse, dedupe, observe and add, in one loop over dictionaries."""
    states: list[dict[str, VelocityState]] = [{} for _ in ENTITIES]
    known: set[int] = set()
    now_ms = time.time_ns() // 1_000_000
    began = time.perf_counter()
    for event in load:
        seen = observe(parse_transaction(event.payload, now_ms=now_ms))
        if seen.transaction_key in known:
            continue
        known.add(seen.transaction_key)
        for place, value in enumerate(seen.ids):
            if value is not None:
                state = states[place].get(value)
                if state is None:
                    state = states[place][value] = VelocityState(ENTITIES[place])
                state.add(seen, place)
    return len(load) / (time.perf_counter() - began)


def two_plain_loops(load: list[Event]) -> float:
    """What two plain loops at once do beside one: how much of a second core this machine gives now."""
    context = multiprocessing.get_context("fork")
    alone = plain_loop(load)
    with context.Pool(2) as pool:
        both: list[float] = pool.map(plain_loop, [load, load], chunksize=1)
    return sum(both) / alone


@dataclass(frozen=True, slots=True)
class Run:
    """Events a second, and the processor microseconds that an event took of each process."""

    rate: float
    flow_us: float
    redis_us: float
    producer_us: float

    def figures(self) -> dict[str, float]:
        names = ("flow_us", "redis_us", "producer_us")
        return {name: round(getattr(self, name), 1) for name in names}


def processor_seconds(pid: int) -> float:
    """Processor time of a process and all that it started, so far."""
    process = psutil.Process(pid)
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def run_flow(load: list[Event], processes: int) -> Run:
    """`load` through the flow: dedupe, six entities, arrival log, Redis, snapshots."""
    with platform() as server, flow(processes) as pid:
        used = processor_seconds(pid), processor_seconds(server.pid), time.process_time()
        began = time.perf_counter()
        publish(load)
        await_visible(load)
        seconds = time.perf_counter() - began
        now = processor_seconds(pid), processor_seconds(server.pid), time.process_time()
    cost = [(after - before) / len(load) * 1e6 for after, before in zip(now, used, strict=True)]
    return Run(len(load) / seconds, *cost)


def measure_flow(count: int, repeats: int) -> dict[str, object]:
    """`six_entities`, the best of `repeats`, and `two_processes_ratio`, the median of their pairs.

    A pair is a run of one process and a run of two, one after the other, so that both meet the machine
    at about the same speed; every other pair begins with two.

    `most_two_processes_ratio` is what one process's run allows: all of an event's processor time
    spread evenly over the machine's cores, against the one that the flow has to itself.
    `two_plain_loops_ratio` is what two independent loops reach where nothing is shared but the machine.
    """
    load = list(events(Load(count, customers=5_000, merchants=2_000, step_ms=20), 2))
    plain, one, two, loops = [], [], [], []
    for turn in range(repeats):
        loops.append(two_plain_loops(load[:_LOOP_EVENTS]))
        plain.append(plain_loop(load[:_LOOP_EVENTS]))
        runs = {processes: run_flow(load, processes) for processes in ((1, 2) if turn % 2 == 0 else (2, 1))}
        one.append(runs[1])
        two.append(runs[2])
    alone, pair = max(one, key=_rate), max(two, key=_rate)
    ratios = [both.rate / single.rate for single, both in zip(one, two, strict=True)]
    work = alone.flow_us + alone.redis_us + alone.producer_us
    return {
        "six_entities": {
            "events_per_s": round(alone.rate),
            "ratio_to_plain_loop": round(alone.rate / max(plain), 3),
            "plain_loop_events_per_s": round(max(plain)),
            "events": count,
            "runs_events_per_s": [round(run.rate) for run in one],
            "processor": alone.figures(),
        },
        "two_processes_ratio": round(statistics.median(ratios), 3),
        "two_processes": {
            "ratios": [round(ratio, 2) for ratio in ratios],
            "events_per_s": round(pair.rate),
            "runs_events_per_s": [round(run.rate) for run in two],
            "two_plain_loops_ratio": round(max(loops), 2),
            "processor": pair.figures(),
            "most_two_processes_ratio": round(min(2.0, (os.cpu_count() or 1) * 1e6 / work / alone.rate), 3),
        },
    }


def _rate(run: Run) -> float:
    return run.rate
