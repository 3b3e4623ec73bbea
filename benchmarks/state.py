"""What velocity state costs: microseconds to parse, observe, add, pack and read; bytes held.

Prints JSON. Times are processor time, the smallest of many rounds, so that a busy machine
disturbs them little; compare them with each other rather than with another machine's.

    python -m benchmarks.state
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np

from fraud.contract.transaction import Transaction, parse_transaction
from fraud.features.entities import ENTITIES
from fraud.features.feature_list import PROFILE_INPUTS
from fraud.features.on_demand import transaction_matrix
from fraud.features.request import request_row
from fraud.state.observation import Observation, observe
from fraud.state.velocity import VelocityState
from fraud.state.windows import read_windows

_START = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
_DAY = 86_400.0
_ROUNDS = 12
_TTL_MS = 30 * 86_400_000
#: Rows of the batches that are read.
_BATCHES = (1, 3, 8, 32, 256)


def transactions(number: int, per_day: float, seed: int) -> list[bytes]:
    """JSON of one customer's transactions: two devices, one country, forty merchants."""
    rng = random.Random(seed)
    at = _START
    bodies = []
    for index in range(number):
        at += rng.expovariate(per_day / _DAY)
        moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = {
            "transaction_id": f"t{index:x}z{rng.getrandbits(32):x}", "event_time": moment,
            "customer_id": "customer-1", "card_id": "card-1", "terminal_id": "terminal-1",
            "merchant_id": f"merchant-{rng.randrange(40)}",
            "device_id": f"device-{int(rng.random() < 0.1)}", "ip": "203.0.113.7",
            "amount": f"{rng.lognormvariate(3, 1):.2f}", "currency": "EUR", "channel": "pos", "country": "DE",
            "latitude": round(52 + rng.random(), 5), "longitude": round(13 + rng.random(), 5),
        }  # fmt: skip
        bodies.append(json.dumps(body).encode())
    return bodies


def fastest(work: Callable[[], object], operations: int) -> float:
    """Microseconds of processor time for one of `operations`, in the fastest round."""
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.process_time_ns()
        work()
        best = min(best, time.process_time_ns() - begun)
    return round(best / operations / 1000, 2)


def state_after(seen: list[Observation], place: int) -> VelocityState:
    state = VelocityState(ENTITIES[place])
    for observation in seen:
        state.add(observation, place)
    return state


def add_and_pack(seen: list[Observation]) -> dict[str, dict[str, float]]:
    """Per entity: one add, one pack after it, and one unpack."""
    figures = {}
    for place, entity in enumerate(ENTITIES):
        state = state_after(seen, place)
        packed = state.pack()
        figures[entity.name] = {
            "add_us": fastest(partial(state_after, seen, place), len(seen)),
            "pack_us": fastest(partial(repeat, state.pack), 1_000),
            "unpack_us": fastest(partial(repeat, partial(VelocityState.unpack, entity, packed)), 1_000),
        }
    return figures


def repeat(work: Callable[[], object], times: int = 1_000) -> None:
    for _ in range(times):
        work()


def reading(parsed: list[Transaction], seen: list[Observation]) -> dict[str, Any]:
    """Microseconds a row to read all windows of six entities, and to compute every feature."""
    most = max(_BATCHES)
    states = [VelocityState(entity) for entity in ENTITIES]
    snapshots: list[list[bytes | None]] = [[] for _ in ENTITIES]
    for number, observation in enumerate(seen):
        for place, state in enumerate(states):
            if number >= len(seen) - most:
                snapshots[place].append(state.pack())
            state.add(observation, place)
    rows = [request_row(transaction) for transaction in parsed[-most:]]
    request = {name: np.array([row[name] for row in rows], dtype=np.int64) for name in rows[0]}
    profiles = {name: np.linspace(1.0, 900.0, most) for name in PROFILE_INPUTS}
    figures: dict[str, Any] = {}
    for size in _BATCHES:
        some = [column[:size] for column in snapshots]
        flat = [state for column in some for state in column]
        asked = {name: values[:size] for name, values in request.items()}
        known = {name: values[:size] for name, values in profiles.items()}
        places = np.repeat(np.arange(len(ENTITIES)), size)
        times = np.tile(asked["event_ms"], len(ENTITIES))
        requested = np.zeros((len(flat), 3), dtype=np.int64)
        windows = partial(read_windows, flat, places, times, requested, _TTL_MS)
        features = partial(transaction_matrix, some, asked, known)
        repeats = max(2, 100 // size)
        figures[str(size)] = {
            "windows_us_per_row": fastest(partial(repeat, windows, repeats), repeats * size),
            "features_us_per_row": fastest(partial(repeat, features, repeats), repeats * size),
        }
    return figures


def sizes() -> dict[str, Any]:
    """Bytes packed: a customer of 10 transactions a day, and entities of 100,000 in one day."""
    seen = [observe(parse_transaction(body)) for body in transactions(600, 10, seed=2)]
    evenly = [
        changed(observation, int(_START * 1000) + number * 8_640_000, observation.amount)
        for number, observation in enumerate(seen)
    ]
    at_random = sorted(packed_sizes(seen, 0))
    busy = {}
    for place, entity in enumerate(ENTITIES):
        busy[entity.name] = max(packed_sizes(crowd(seen[0], 100_000, seed=place), place, every=500))
    return {
        "bytes_10_per_day": max(packed_sizes(evenly, 0)),
        "bytes_10_per_day_at_random": {
            "p50": at_random[len(at_random) // 2],
            "p95": at_random[len(at_random) * 95 // 100],
            "most": at_random[-1],
        },
        "bytes_100000_per_day": max(busy.values()),
        "bytes_100000_per_day_by_entity": busy,
    }


def packed_sizes(seen: Iterable[Observation], place: int, every: int = 1) -> list[int]:
    """Bytes of the packed state after every so many observations."""
    state = VelocityState(ENTITIES[place])
    found = []
    for number, observation in enumerate(seen):
        state.add(observation, place)
        if number % every == 0:
            found.append(len(state.pack()))
    return found


def crowd(like: Observation, number: int, seed: int) -> Iterator[Observation]:
    """A day of `number` observations, each with counterparties never seen before."""
    rng = random.Random(seed)
    at = _START * 1000
    for _ in range(number):
        at += rng.expovariate(number / _DAY / 1000)
        keys = tuple([tuple([rng.randbytes(6) for _ in table]) for table in like.keys])
        yield changed(like, int(at), min(int(rng.lognormvariate(8, 1.5)), 2**31 - 1), keys)


def changed(
    seen: Observation, event_ms: int, amount: int, keys: tuple[tuple[bytes, ...], ...] | None = None
) -> Observation:
    """`seen` at another time, of another amount and with other counterparties."""
    word = seen.word & ~0xFFFFFFFF | amount
    record = event_ms.to_bytes(8, "little") + seen.record[8:]
    return Observation(
        event_ms, seen.transaction_key, word, record, seen.ids, keys or seen.keys, seen.location
    )


def measure() -> dict[str, Any]:
    """Every figure, as one document."""
    bodies = transactions(2_000, 15, seed=1)
    parsed = [parse_transaction(body) for body in bodies]
    seen = [observe(transaction) for transaction in parsed]
    entities = add_and_pack(seen)
    return {
        "parse_us": fastest(lambda: [parse_transaction(body) for body in bodies], len(bodies)),
        "observe_us": fastest(lambda: [observe(transaction) for transaction in parsed], len(parsed)),
        "six_adds_us": round(sum([figures["add_us"] for figures in entities.values()]), 2),
        "six_packs_us": round(sum([figures["pack_us"] for figures in entities.values()]), 2),
        "entities": entities,
        "read": reading(parsed, seen),
        "state": sizes(),
    }


if __name__ == "__main__":
    json.dump(measure(), sys.stdout, indent=2)
    sys.stdout.write("\n")
