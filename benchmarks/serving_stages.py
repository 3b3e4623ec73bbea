"""Where the time of a scored transaction goes, stage by stage -> results/bench/serving_stages.json.

    python -m benchmarks.serving_stages

The service's own engine runs in this process against a real Redis, on batches of several sizes.
Each stage is a function of the service that is timed where the service calls it; time spent in a
timed function that another one calls counts for the inner one alone. What HTTP, the event loop
and the operating system add is the CPU time of the running service less that of the engine.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, Final

import numpy as np
import uvloop

from benchmarks.serving_data import CALLER, bodies, build_model, fill_store, transactions
from embedded.processes import stop_on_sigterm
from embedded.redis_server import start_redis
from stores.settings import load_settings, settings

SIZES: Final = (1, 4, 16, 64)
#: In the order of a transaction's way.
STAGES: Final = (
    "parse and check", "work and digest", "keys and commands", "redis round trip", "decode",
    "request fields", "velocity windows", "model", "rules", "decide", "answer", "decision log",
    "event and memory",
)  # fmt: skip


@dataclass(slots=True)
class Stopwatch:
    """Adds up the exclusive wall time of the functions it wraps."""

    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    _stack: list[float] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._stack.append(0.0)
        begun = perf_counter()
        try:
            yield
        finally:
            took = perf_counter() - begun
            self.spent[name] += took - self._stack.pop()
            if self._stack:
                self._stack[-1] += took

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        spent, stack = self.spent, self._stack

        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            stack.append(0.0)
            begun = perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                took = perf_counter() - begun
                spent[name] += took - stack.pop()
                if stack:
                    stack[-1] += took

        @functools.wraps(function)
        async def awaited(*arguments: Any, **named: Any) -> Any:
            with self.stage(name):
                return await function(*arguments, **named)

        return awaited if asyncio.iscoroutinefunction(function) else timed


@contextmanager
def timed_stages(watch: Stopwatch) -> Iterator[None]:
    """The service's stages, wrapped where it calls them."""
    from bentos.effects import outbox
    from bentos.features.online_features import OnlineFeatures
    from bentos.log.decision_log import DecisionLog
    from bentos.models.model_scores import ModelScores
    from bentos.once.memory import Memory
    from bentos.once.once import Once
    from bentos.scoring import engine, scorer
    from bentos.wire.redis_connection import RedisConnection

    places: list[tuple[str, Any, str]] = [
        ("parse and check", engine, "parse_measured"),
        ("work and digest", engine, "Work"),
        ("keys and commands", Once, "claims"),
        ("keys and commands", OnlineFeatures, "commands"),
        ("redis round trip", RedisConnection, "ask"),
        ("decode", OnlineFeatures, "rows"),
        ("decode", Once, "settle"),
        ("request fields", scorer, "request_values"),
        ("velocity windows", scorer, "vector"),
        ("model", ModelScores, "of"),
        ("rules", scorer.Scorer, "_hits"),
        ("decide", scorer.Scorer, "_finish"),
        ("answer", scorer, "_encode_answer"),
        ("decision log", scorer, "log_row"),
        ("decision log", DecisionLog, "append"),
        ("event and memory", outbox.Outbox, "send"),
        ("event and memory", Once, "value"),
        ("event and memory", Memory, "remember"),
    ]
    with ExitStack() as undo:
        for name, owner, attribute in places:
            original = getattr(owner, attribute)
            setattr(owner, attribute, watch.wrap(name, original))
            undo.callback(setattr, owner, attribute, original)
        yield


def _undisturbed(values: Sequence[float]) -> float:
    """The lower quartile: what else the machine does only ever adds."""
    return statistics.quantiles(values, n=4)[0]


async def _measure(size: int, batches: int) -> dict[str, Any]:
    """Microseconds a transaction in batches of `size`: of blocks of batches, each apart."""
    from bentos.service import open_engine

    engine = open_engine(load_settings())
    # The process that converts the log would outlive this engine, and work beside the next size's.
    engine._convert = lambda: None  # type: ignore[method-assign]
    await engine.start()
    prefixes = itertools.count()

    async def block(number: int) -> tuple[float, float]:
        """Wall and CPU seconds of `number` batches, one after the other."""
        raws = bodies(number * size, f"s{os.getpid()}-{size}-{next(prefixes)}", seed=next(prefixes))
        wall, cpu = perf_counter(), thread_time()
        for first in range(0, len(raws), size):
            now = perf_counter()
            parsed = [engine.parse(raw, CALLER) for raw in raws[first : first + size]]
            answers = [engine.submit(asked, now, engine.bulk) for asked in parsed]
            await asyncio.gather(*answers)
        return perf_counter() - wall, thread_time() - cpu

    per_block = max(3, batches // 24)
    await block(per_block)
    plain, watches = [], []
    for _ in range(24):  # in turns, so that both meet the machine at the same speed
        plain.append(await block(per_block))
        watch = Stopwatch()
        with timed_stages(watch):
            await block(per_block)
        watches.append(watch.spent)
    await engine.stop()
    scale = 1e6 / (per_block * size)
    stages = {name: round(_undisturbed([watch[name] for watch in watches]) * scale, 2) for name in STAGES}
    wall, cpu = (_undisturbed(values) * scale for values in zip(*plain, strict=True))
    return {
        "rows": size, "wall_us": round(wall, 2), "cpu_us": round(cpu, 2),
        "stages_us": stages | {"between the stages": round(max(0.0, wall - sum(stages.values())), 2)},
    }  # fmt: skip


async def _cache_best_case(url: str, project: str, turns: int) -> list[dict[str, float]]:
    """Microseconds a transaction of the whole online read, and of one that finds every profile in
    a local cache and asks Redis for velocity states alone: the most that a cache could save."""
    from bentos.features.online_features import OnlineFeatures, table_plan
    from bentos.features.row_loops import Layout, Rows, fill_rows
    from bentos.wire.redis_connection import RedisConnection, pack
    from fraud.features.entities import ENTITIES
    from stores.redis_layout import field as hash_field
    from stores.redis_layout import ts_field

    features = OnlineFeatures(table_plan(project))
    entities = features.plan.entities
    widths = [len(entity.profile.features) for entity in entities]
    ttl_us = np.array([view.ttl_us for entity in entities for view in (entity.profile, entity.velocity)])
    none = np.zeros(len(entities), dtype=np.int64)
    wanted = [
        # `fill_rows` wants a profile and its timestamp, be it one without values.
        (ts_field(view), ts_field(view), hash_field(view, state))
        for view, state in ((entity.velocity_view, entity.state_feature) for entity in ENTITIES)
    ]
    connection = RedisConnection(url)
    await connection.open()
    found = []
    for size in SIZES:
        whole, states = [], []
        for turn in range(turns):
            rows = transactions(size, "cache", seed=turn)
            at = [row.event_ms * 1000 for row in rows]
            keys = features.keys(rows)
            cached = {key: np.ones(widths[place % len(widths)]) for place, key in enumerate(keys)}
            begun = perf_counter()
            replies = await connection.ask(features.commands(rows), 5.0)
            features.rows(rows, at, replies)
            between = perf_counter()
            commands = [
                pack(b"HMGET", key, *names)
                for key, names in zip(features.keys(rows), itertools.cycle(wanted), strict=False)
            ]
            replies = await connection.ask(commands, 5.0)
            views = (size, 2 * len(entities))
            fill_rows(
                np.frombuffer(replies.data, np.uint8), replies.begins, 0,
                np.frombuffer(b"\1" * len(keys), np.uint8).reshape(size, len(entities)),
                Layout(none, ttl_us, np.arange(len(ttl_us)), none[:0]),
                Rows(
                    np.empty((size, 0)), np.empty((size, 0)),
                    np.empty(len(replies.data) >> 3, dtype=np.int64),
                    np.empty(len(keys) + 1, dtype=np.int64), np.empty(views, dtype=np.uint8),
                    np.empty(views, dtype=np.int64), np.array(at),
                ),
            )  # fmt: skip
            np.concatenate([cached[key] for key in keys]).reshape(size, -1)
            whole.append(between - begun)
            states.append(perf_counter() - between)
        scale = 1e6 / size
        found.append(
            {
                "rows": size,
                "read_us": round(_undisturbed(whole) * scale, 2),
                "states_only_us": round(_undisturbed(states) * scale, 2),
            }
        )
    connection.close()
    return found


def measure(batches: int = 600) -> dict[str, Any]:
    """Every size; the engine's home and Redis are temporary."""
    with tempfile.TemporaryDirectory(prefix="tollgate-stages-") as scratch:
        root = Path(scratch)
        redis_server = start_redis(root / "redis")
        try:
            os.environ |= {"TOLLGATE_HOME": str(root / "home"), "TOLLGATE_REDIS_URL": redis_server.url}
            build_model(root / "home")
            fill_store(redis_server.url, load_settings().feast.project)
            sizes = [uvloop.run(_measure(size, max(60, batches // size))) for size in SIZES]
            cache = uvloop.run(_cache_best_case(redis_server.url, load_settings().feast.project, 60))
        finally:
            redis_server.stop()
    return {"batches": sizes, "cache_best_case": cache}


def main() -> int:
    stop_on_sigterm()
    path = settings().results / "bench" / "serving_stages.json"
    load = os.getloadavg()[0]
    result = {"machine": {"cpus": os.cpu_count(), "load_before": load}} | measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2), file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
