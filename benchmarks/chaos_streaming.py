"""Kill the velocity flow at random moments, on Redis Streams and on Kafka, and count what is wrong.

    python -m benchmarks.chaos_streaming [--events 110000] [--kills 11] [--seed 1]

For each event log: a real Redis (durable) and, for Kafka, a real broker; a seeded load with
duplicates, late and broken events; kill -9 of every process of the flow at random moments, with
another number of processes after each; Redis restarted once under way. Then every window
feature of every entity in Redis is compared with the reference aggregator over the raw events,
the arrival log is counted, and dead letters are compared with what was broken. Writes
results/chaos/streaming.json.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import redis

from embedded.processes import stop_on_sigterm
from embedded.redis_server import RedisServer, start_redis
from fraud.features.entities import ENTITIES, VELOCITY_TTL
from fraud.state.observation import Observation, observe, use_identity
from fraud.state.windows import read_windows
from stores.keys import open_keys
from stores.lake import read_transactions
from stores.redis_layout import decode_bytes, entity_key
from stores.redis_layout import field as redis_field
from stores.settings import REPOSITORY, Settings, settings
from streaming.ingest.dead_letters import letters_folder, read_letters
from streaming.log.load import Event, Load, events
from streaming.log.publish import open_writer
from tests.fraud.oracle import Oracle
from tests.streaming.broker import free_ports, start_broker

_TTL_MS = int(VELOCITY_TTL.total_seconds() * 1000)
_CHUNK = 500


@dataclass
class Finding:
    """What one run found wrong. Counts are over all six entities."""

    kills: int = 0
    events: int = 0
    lost: int = 0
    double_counted: int = 0
    wrong_features: int = 0
    features_compared: int = 0
    entities: int = 0
    arrival_rows: dict[str, int] = field(default_factory=dict)
    dead_letters: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class Flow:
    """The flow in a process group of its own."""

    def __init__(self, processes: int, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streaming.flow", "--processes", str(processes), *arguments],
            cwd=REPOSITORY, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, "TOLLGATE_STREAM_PORTS_FENCED": "true"},
        )  # fmt: skip

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Kill it if it runs."""
        if self.running():
            self.kill()

    def finish(self) -> None:
        _, errors = self._process.communicate()
        if self._process.returncode:
            raise SystemExit(f"the flow ended with {self._process.returncode}: {errors.decode()[-3000:]}")


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Settings from `variables`, here and in every process started inside."""
    before = dict(os.environ)
    os.environ.update(variables)
    settings.cache_clear()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        settings.cache_clear()


def states_written(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("commandstats").get("cmdstat_hset", {"calls": 0})["calls"])


def torment(server: RedisServer, load: list[Event], kills: int, seed: int, undo: ExitStack) -> None:
    """Publish `load` while the flow is killed `kills` times; what is started here, `undo` ends."""
    draw = random.Random(seed)
    configured = settings()
    share = -(-len(load) // kills)
    for attempt in range(kills):
        processes = (1, 2, 3, 1)[attempt % 4]
        part = load[attempt * share : (attempt + 1) * share]
        halfway = len(part) // 2
        flow = Flow(processes)
        undo.callback(flow.end)
        before = states_written(server.url)
        publish(configured, part[:halfway])
        while states_written(server.url) == before:
            if not flow.running():
                flow.finish()
                raise SystemExit("the flow ended by itself")
            time.sleep(0.01)
        if attempt == kills // 2:
            server = restart(server, hard=configured.event_log.kind != "redis")
            undo.callback(server.stop)
        publish(configured, part[halfway:])
        time.sleep(draw.uniform(0, 3))
        flow.kill()
        print(
            f"  {configured.event_log.kind}: kill {attempt + 1} of {kills} ({processes} processes)",
            flush=True,
        )
    last = Flow(2, "--drain")
    undo.callback(last.end)
    last.finish()


def publish(configured: Settings, part: list[Event]) -> None:
    with open_writer(configured) as writer:
        for event in part:
            writer.publish_raw(event.partition, event.payload)


def restart(server: RedisServer, *, hard: bool) -> RedisServer:
    """Restart Redis on the same port and file: by kill -9 where it does not hold the event log."""
    if hard:
        server.process.kill()
        server.process.wait()
    else:
        server.stop()
    print("  Redis restarted" + (" after kill -9" if hard else ""), flush=True)
    return start_redis(server.directory, server.port, durable=True)


def judge(load: list[Event]) -> Finding:
    """Compare Redis, the arrival log and the dead letters with `load`."""
    found = Finding(events=len(load))
    configured = settings()
    oracles, newest = tell_oracles(load)
    found.entities = len(oracles)
    states = stored_states(configured, list(oracles))
    for at_ms in (newest + 1, newest + 40 * 60_000):
        compare(found, oracles, states, at_ms, count=at_ms == newest + 1)
    accepted = Counter(
        event.transaction.transaction_id
        for event in load
        if event.kind in ("new", "late") and event.transaction
    )
    rows = Counter(read_transactions(configured.lake).column("transaction_id").to_pylist())
    found.arrival_rows = {"expected": len(accepted), "found": rows.total()}
    found.lost += len(accepted.keys() - rows.keys())
    found.double_counted += rows.total() - len(rows)
    broken = Counter(event.payload for event in load if event.kind == "broken")
    letters = Counter(
        base64.b64decode(letter.original) for _, letter in read_letters(letters_folder(configured))
    )
    found.dead_letters = {
        "expected": broken.total(), "found": letters.total(), "strangers": (letters - broken).total(),
    }  # fmt: skip
    return found


def tell_oracles(load: list[Event]) -> tuple[dict[tuple[int, str], Oracle], int]:
    """An oracle per entity value, told of every distinct valid event, and the newest event time."""
    oracles: dict[tuple[int, str], Oracle] = {}
    newest = 0
    for event in load:
        if event.kind not in ("new", "late") or event.transaction is None:
            continue
        seen: Observation = observe(event.transaction)
        newest = max(newest, seen.event_ms)
        for place, value in enumerate(seen.ids):
            if value is not None:
                if (place, value) not in oracles:
                    oracles[place, value] = Oracle(place)
                oracles[place, value].add(seen)
    return oracles, newest


def stored_states(configured: Settings, keys: list[tuple[int, str]]) -> list[bytes | None]:
    """The packed state that Redis holds for each of `keys`."""
    found: list[bytes | None] = []
    with redis.Redis.from_url(configured.redis.url) as client:
        for at in range(0, len(keys), 2_000):
            pipeline = client.pipeline(transaction=False)
            for place, value in keys[at : at + 2_000]:
                entity = ENTITIES[place]
                key = entity_key(configured.feast.project, entity.key, value)
                pipeline.hget(key, redis_field(entity.velocity_view, entity.state_feature))
            found.extend([decode_bytes(packed) if packed else None for packed in pipeline.execute()])
    return found


def compare(
    found: Finding,
    oracles: dict[tuple[int, str], Oracle],
    states: list[bytes | None],
    at_ms: int,
    *,
    count: bool,
) -> None:
    """Add to `found` every window feature at `at_ms` that differs from the oracle's."""
    places = np.array([place for place, _ in oracles], dtype=np.int64)
    requested = np.zeros((len(states), 3), dtype=np.int64)
    for row, oracle in enumerate(oracles.values()):
        tracked = oracle.arrived[-1].tracked
        requested[row, : len(tracked)] = tracked
    read = read_windows(states, places, np.full(len(states), at_ms), requested, _TTL_MS)
    for row, ((place, _), oracle) in enumerate(oracles.items()):
        expected = oracle.read(at_ms, requested[row].tolist(), _TTL_MS)
        tables = len(ENTITIES[place].counterparties)
        pairs = [
            *zip(read.count[row], expected.count, strict=True),
            *zip(read.total[row], expected.total, strict=True),
            *zip(read.squares[row], expected.squares, strict=True),
            *((read.distinct[row, table, window], expected.distinct[table][window])
              for table in range(tables) for window in range(read.count.shape[1])),
            *((read.seen[row, table], float(seen)) for table, seen in enumerate(expected.seen)),
            (read.since_last[row], expected.since_last),
            (read.since_first[row], expected.since_first),
        ]  # fmt: skip
        if expected.location is not None:
            pairs += [(read.location[row], expected.location), (read.located_ms[row], expected.located_ms)]
        found.features_compared += len(pairs)
        found.wrong_features += sum(bool(have != want) for have, want in pairs)
        if count:
            difference = int(read.count[row, -1]) - expected.count[-1]
            found.lost += max(0, -difference)
            found.double_counted += max(0, difference)


def run(log: str, chosen: argparse.Namespace) -> Finding:
    """One torment on `log`, and its judgement."""
    began = time.monotonic()
    with ExitStack() as undo:
        home = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        broker = start_broker() if log == "kafka" else None
        if broker:
            undo.callback(broker.stop)
        server = start_redis(home / "redis", durable=True)
        undo.callback(server.stop)
        undo.enter_context(
            environment(
                TOLLGATE_HOME=str(home / "home"), TOLLGATE_REDIS_URL=server.url, TOLLGATE_EVENT_LOG=log,
                TOLLGATE_KAFKA_BOOTSTRAP=broker.bootstrap if broker else "127.0.0.1:9092",
                TOLLGATE_PARTITIONS="4", TOLLGATE_STREAM_SNAPSHOT_SECONDS="0.5",
                TOLLGATE_STREAM_PORT=str(free_ports(4)),
                TOLLGATE_STREAM_BATCH="500",  # few, so that a restart finds a backlog, whose states are held
            )
        )  # fmt: skip
        if broker:
            broker.create_topic(settings().event_log.topic, 4)
        load = list(
            events(
                Load(
                    chosen.events, chosen.seed, customers=4_000, merchants=4_000,
                    duplicates=0.02, late=0.02, broken=0.001,
                ),
                4,
            )
        )  # fmt: skip
        torment(server, load, chosen.kills, chosen.seed, undo)
        found = judge(load)
    found.kills = chosen.kills
    found.seconds = round(time.monotonic() - began, 1)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos_streaming", description=__doc__)
    parser.add_argument("--events", type=int, default=110_000, help="per event log")
    parser.add_argument("--kills", type=int, default=11, help="per event log")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--logs", nargs="+", default=["redis", "kafka"], choices=("redis", "kafka", "jsonl"))
    chosen = parser.parse_args()
    use_identity(open_keys(settings()).identity)  # as the flow does
    stop_on_sigterm()
    results = settings().results
    runs = {log: run(log, chosen) for log in chosen.logs}
    summed = {
        name: sum(getattr(found, name) for found in runs.values())
        for name in ("kills", "events", "lost", "double_counted", "wrong_features", "features_compared")
    }
    letters = {
        side: sum(found.dead_letters[side] for found in runs.values())
        for side in ("expected", "found", "strangers")
    }
    report = {**summed, "dead_letters": letters, "runs": {log: vars(found) for log, found in runs.items()}}
    path = results / "chaos" / "streaming.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    wrong = summed["lost"] or summed["double_counted"] or summed["wrong_features"]
    return 1 if wrong or letters["expected"] != letters["found"] or letters["strangers"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
