"""Size of packed states, and what reading the windows of six entities costs."""

from __future__ import annotations

import random
import statistics
import time

import numpy as np

from fraud.features.entities import ENTITIES, VELOCITY_TTL
from fraud.state.observation import Observation, observe_values
from fraud.state.velocity import VelocityState
from fraud.state.windows import read_windows

_BATCH = 32
DEVICE = [entity.name for entity in ENTITIES].index("device")
_START_MS = 1_772_323_200_000
_DAY_S = 86_400
_TTL_MS = int(VELOCITY_TTL.total_seconds() * 1000)


def measure_state() -> dict[str, float]:
    """Packed bytes of the largest kind of entity by its daily events, and the cost of reading.

    At 10 events a day (a Poisson stream) the median over the second half of 60 days, beside it the
    95th percentile and the largest, which a day of 19 events leaves; at 100,000 the largest.
    """
    kinds = range(len(ENTITIES))
    calm = [_sizes(place, 10, 60) for place in kinds]
    busy = [_sizes(place, 100_000, 1.2) for place in kinds]
    return {
        "bytes_10_per_day": max(statistics.median(sizes) for sizes in calm),
        "bytes_10_per_day_p95": max(statistics.quantiles(sizes, n=20)[-1] for sizes in calm),
        "bytes_10_per_day_largest": max(max(sizes) for sizes in calm),
        "bytes_100000_per_day": max(max(sizes) for sizes in busy),
        "read_us_per_transaction": round(_read_cost(), 1),
    }


def _history(place: int, per_day: int, days: float) -> list[Observation]:
    """A Poisson stream of one entity: many counterparties, two devices, three countries."""
    draw = random.Random(place)
    others = max(15, per_day // 10)
    moment = 0.0
    found = []
    for index in range(int(per_day * days)):
        moment += draw.expovariate(per_day / _DAY_S)
        names = [f"{entity.name}-{draw.randrange(others)}" for entity in ENTITIES]
        names[DEVICE] = f"device-{draw.randrange(2)}"
        if ENTITIES[place].name in ("device", "ip") and per_day <= 10:  # a household's
            names[0], names[1] = f"customer-{draw.randrange(2)}", f"card-{draw.randrange(3)}"
        found.append(
            observe_values(
                _START_MS + int(moment * 1000), draw.randrange(100, 50_000), f"t{index}", tuple(names),
                draw.choice(("DE", "FR", "NL")), draw.uniform(47, 54), draw.uniform(5, 15),
            )
        )  # fmt: skip
    return found


def _sizes(place: int, per_day: int, days: float) -> list[int]:
    """Packed sizes over the second half of the entity's life."""
    history = _history(place, per_day, days)
    state = VelocityState(ENTITIES[place])
    sizes = []
    for index, seen in enumerate(history):
        state.add(seen, place)
        if index > len(history) // 2 and index % 7 == 0:
            sizes.append(len(state.pack()))
    return sizes


def _read_cost() -> float:
    """Microseconds a transaction to read every window of six entities, 32 transactions at once."""
    states: list[bytes | None] = []
    newest = 0
    for place in range(len(ENTITIES)):
        state = VelocityState(ENTITIES[place])
        for seen in _history(place, 10, 30):
            state.add(seen, place)
        states.append(state.pack())
    newest = max(
        VelocityState.unpack(ENTITIES[place], state or b"").newest_ms for place, state in enumerate(states)
    )
    rows = states * _BATCH
    places = np.tile(np.arange(len(ENTITIES)), _BATCH)
    at_ms = np.full(len(rows), newest + 1, dtype=np.int64)
    requested = np.zeros((len(rows), 3), dtype=np.int64)
    best = float("inf")
    for _ in range(200):
        began = time.perf_counter()
        read_windows(rows, places, at_ms, requested, _TTL_MS)
        best = min(best, time.perf_counter() - began)
    return best / _BATCH * 1e6
