"""How many events a second the flow takes in, beside the same state class in a plain loop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from embedded.redis_server import RedisServer, start_redis
from fraud.contract import parse_transaction
from fraud.entities import ENTITIES
from fraud.observation import observe
from fraud.redis_layout import decode_timestamp, entity_key, ts_field
from fraud.settings import REPOSITORY, settings
from fraud.velocity import VelocityState
from streaming.load import Event, Load, events
from streaming.publish import open_writer
from tests.streaming.broker import free_ports

_PATIENCE_S = 900


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
def flow(processes: int) -> Iterator[None]:
    """The flow, started and reading; stopped cleanly at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "streaming.flow", "--processes", str(processes)],
        cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        warm = list(events(Load(50 * settings().partitions, seed=99), settings().partitions))
        publish(warm)
        await_visible(warm)
        yield
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
    """Wait until Redis shows the last event of every partition: all before it are visible then."""
    configured = settings()
    last = {event.partition: event.transaction for event in load if event.transaction}
    customer = ENTITIES[0]
    deadline = time.monotonic() + _PATIENCE_S
    with redis.Redis.from_url(configured.redis_url) as client:
        for transaction in last.values():
            key = entity_key(configured.feast_project, customer.key, transaction.customer_id)
            while True:
                stored = client.hget(key, ts_field(customer.velocity_view))
                if stored and decode_timestamp(stored) > transaction.event_ms * 1000:
                    break
                if time.monotonic() > deadline:
                    raise SystemExit("the flow did not keep up: its last events are not visible")
                time.sleep(0.005)


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


def flow_rate(load: list[Event], processes: int) -> float:
    """Events a second through the flow: dedupe, six entities, arrival log, Redis, snapshots."""
    with platform(), flow(processes):
        began = time.perf_counter()
        publish(load)
        await_visible(load)
        return len(load) / (time.perf_counter() - began)


def measure_flow(count: int, repeats: int) -> dict[str, object]:
    """`six_entities` and `two_processes_ratio`; the best of `repeats`, taken in turn."""
    load = list(events(Load(count, customers=5_000, merchants=2_000, step_ms=20), 2))
    plain, one, two = [], [], []
    for _ in range(repeats):
        plain.append(plain_loop(load))
        one.append(flow_rate(load, 1))
        two.append(flow_rate(load, 2))
    return {
        "six_entities": {
            "events_per_s": round(max(one)),
            "ratio_to_plain_loop": round(max(one) / max(plain), 3),
            "plain_loop_events_per_s": round(max(plain)),
            "events": count,
            "runs_events_per_s": [round(rate) for rate in one],
        },
        "two_processes_ratio": round(max(two) / max(one), 3),
    }
