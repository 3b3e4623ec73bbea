"""The parts of the serving benchmark beyond one well-behaved load: a second worker, callers that come back
at once when they are turned away, and what Redis keeps and does for a transaction."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
from typing import Any, Final

import redis

from benchmarks.serving_bench import PROJECT, Bench, Saturation, ratio, requests_for, say
from benchmarks.serving_closed_loop import saturate
from benchmarks.serving_data import fill_store, transactions
from bentos.features.online_features import OnlineFeatures, table_plan
from embedded.redis_server import start_redis

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

    Each worker has 64 connections, which is two full batches: more do not make one worker faster
    (`impatient`). `same_connections` are two workers that share 64; `anywhere` are two that the kernel moves
    about (`TOLLGATE_MACHINE_PIN=false`). `two_loops_ratio_to_one` is what these cores give two programs that
    share nothing and wait for nobody: on a virtual machine less than 2.
    """
    two = {"TOLLGATE_SERVE_WORKERS": "2"}
    # By name: the service's label, its settings, connections.
    cases: dict[str, tuple[str, dict[str, str], int]] = {
        "one": ("tollgate", {}, 64),
        "two": ("two_workers", two, 128),
        "same_connections": ("two_workers", two, 64),
        "anywhere": ("two_anywhere", {**two, "TOLLGATE_MACHINE_PIN": "false"}, 128),
    }
    found = {name: Saturation() for name in cases}
    loops = []
    for turn in range(3 * bench.turns):
        loops.append(_loops(2) / _loops(1))
        for name in cases if turn % 2 == 0 else reversed(cases):
            label, chosen, connections = cases[name]
            running = bench.service("tollgate", label, **chosen)
            rate = found[name].turn(running, bench.seconds / 2, connections)
            say(f"turn {turn + 1}: {name} {rate:.0f}/s")
    bench.stop("two_workers", "two_anywhere")
    one = found["one"].rates
    return {
        "workers_2": {
            "ratio_to_one": ratio(found["two"].rates, one),
            **{
                f"{name}_ratio_to_one": ratio(found[name].rates, one)
                for name in ("same_connections", "anywhere")
            },
            "two_loops_ratio_to_one": round(statistics.median(loops), 3),
            "requests_per_second": {
                name: round(statistics.median(each.rates), 1) for name, each in found.items()
            },
            "turns": {name: [round(rate) for rate in each.rates] for name, each in found.items()},
        }
    }


def impatient(bench: Bench) -> dict[str, Any]:
    """One worker and ever more connections whose callers, when they are turned away, come back at once."""
    running = bench.service("tollgate")
    rows = []
    for connections in (64, 128, 192, 256):
        loads = []
        for _ in range(min(4, bench.turns)):
            ready = requests_for(running.port, int(bench.seconds * 24_000))
            loads.append(saturate(running.port, ready, connections=connections, seconds=bench.seconds))
            running.settle()
        rows.append(
            {
                "connections": connections,
                "decisions_per_second": round(statistics.median(load.rate for load in loads)),
                "turned_away_per_second": round(
                    statistics.median(load.statuses[503] / load.seconds for load in loads)
                ),
            }
        )
        say(f"{rows[-1]}")
    return {"impatient": rows}


def redis_store(bench: Bench) -> dict[str, Any]:
    """Bytes that Redis keeps for an entity (profile and state) and for an answer, and microseconds that it
    takes for a read of an entity, by what it says itself; of entities also with its own limit of 64 bytes
    for the values of a hash that is a list."""
    bench.service("tollgate")  # its first turn leaves answers
    features = OnlineFeatures(table_plan(PROJECT))
    reads = [features.commands([one]) for one in transactions(3000, "store")]
    ours, usual = [start_redis(bench.root / name) for name in ("store", "usual")]
    try:
        with redis.Redis.from_url(usual.url) as client:
            client.config_set("hash-max-ziplist-value", 64)
        urls = {"": ours.url, "_with_redis_defaults": usual.url}
        for url in urls.values():
            fill_store(url, PROJECT)
        found: dict[str, list[float]] = {name: [] for name in urls}
        for _ in range(5):
            for name, url in urls.items():
                found[name].append(_read_us(url, reads))
        entities = {f"entity_bytes{name}": _bytes_a_key(url, "hash") for name, url in urls.items()}
        times = {f"read_us{name}": round(statistics.median(each), 2) for name, each in found.items()}
        return {"redis_store": {**entities, **times, "answer_bytes": _bytes_a_key(bench.url, "string")}}
    finally:
        ours.stop()
        usual.stop()


def _read_us(url: str, reads: list[list[bytes]]) -> float:
    """Redis's own microseconds for an HMGET, over packed `reads`, one transaction after the other."""
    with redis.Redis.from_url(url) as client:
        client.config_resetstat()
        connection = client.connection_pool.get_connection()
        for commands in reads:
            connection.send_packed_command(commands)
            for _ in commands:
                connection.read_response()
        client.connection_pool.release(connection)
        return float(client.info("commandstats")["cmdstat_hmget"]["usec_per_call"])


def _bytes_a_key(url: str, kind: str) -> int:
    """The mean of MEMORY USAGE over the first thousand keys of a type."""
    with redis.Redis.from_url(url) as client:
        keys = list(itertools.islice(client.scan_iter(count=1000, _type=kind), 1000))
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.memory_usage(key)
            sizes: list[int] = pipe.execute()
    return round(statistics.mean(sizes))
