"""From an event's append to its state being visible to somebody else, at a steady rate."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

import redis

from benchmarks.streaming_flow import flow, platform
from fraud.features.entities import ENTITIES
from stores.redis_layout import decode_timestamp, entity_key, ts_field
from stores.settings import settings
from streaming.log.load import Load, events
from streaming.log.publish import open_writer

#: Every so many events one is watched.
_WATCHED = 20
_PATIENCE_S = 30.0


def measure_freshness(rate: int, seconds: int) -> dict[str, float]:
    """Percentiles in milliseconds at `rate` events/s for `seconds`, recovery snapshots on.

    Open loop: an event counts from the time at which it was due, so that a producer that is
    held up does not hide it. The reader is another process that polls Redis.
    """
    with platform(), flow(1):
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        reader = context.Process(target=_read, args=(theirs, settings().redis.url), daemon=True)
        reader.start()
        ours.recv()
        _produce(ours, rate, seconds)
        ours.send(None)
        delays = sorted(ours.recv())
        reader.join()
    return {
        "p50_ms": round(1000 * delays[len(delays) // 2], 2),
        "p99_ms": round(1000 * delays[int(len(delays) * 0.99)], 2),
        "worst_ms": round(1000 * delays[-1], 2),
        "watched": len(delays),
        "events_per_s": rate,
        "seconds": seconds,
    }


def _produce(reader: Connection, rate: int, seconds: int) -> None:
    configured = settings()
    customer = ENTITIES[0]
    load = Load(rate * seconds, seed=7, customers=5_000, merchants=2_000, step_ms=20)
    load_events = list(events(load, configured.event_log.partitions))
    began = time.time() + 0.5
    with open_writer(configured) as writer:
        for index, event in enumerate(load_events):
            due = began + index / rate
            wait = due - time.time()
            if wait > 0:
                writer.flush()
                time.sleep(wait)
            writer.publish_raw(event.partition, event.payload)
            if index % _WATCHED == 0 and event.transaction:
                writer.flush()
                key = entity_key(configured.feast.project, customer.key, event.transaction.customer_id)
                reader.send((key, event.transaction.event_ms * 1000, due))


def _read(producer: Connection, url: str) -> None:
    """Poll Redis for the watched keys; answer with the delays once the producer has ended."""
    view = ts_field(ENTITIES[0].velocity_view)
    waiting: list[tuple[bytes, int, float]] = []
    delays: list[float] = []
    ended = 0.0
    with redis.Redis.from_url(url) as client:
        producer.send("ready")
        while not ended or (waiting and time.time() < ended + _PATIENCE_S):
            while producer.poll():
                watched: Any = producer.recv()
                if watched is None:
                    ended = time.time()
                    break
                waiting.append(watched)
            if not waiting:
                time.sleep(0.0005)
                continue
            pipeline: Any = client.pipeline(transaction=False)
            for key, _, _ in waiting:
                pipeline.hget(key, view)
            stored = pipeline.execute()
            now = time.time()
            late = []
            for item, found in zip(waiting, stored, strict=True):
                if found is not None and decode_timestamp(found) > item[1]:
                    delays.append(now - item[2])
                else:
                    late.append(item)
            waiting = late
            time.sleep(0.0005)
    delays.extend(_PATIENCE_S for _ in waiting)
    producer.send(delays)
