"""How exact declared aggregates are: every function over bursts of events, against DuckDB.

A burst lies within three days and has as many different counterparties as events. States are read at its
end and up to five days later, over windows from a minute to thirty days; DuckDB answers the same from all
events. Errors are relative where the truth is not 0.
"""

from __future__ import annotations

from math import isnan, nan
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from fraud.declared.declaration import Aggregate, Function, StreamView
from fraud.declared.layout import (
    DISTINCT,
    DISTINCT_ERROR,
    DISTINCT_MEDIAN,
    ERROR,
    EXACT,
    STEP,
    Layout,
    layout_of,
)
from fraud.declared.loops import read_states
from fraud.declared.seen import DeclaredSeen
from fraud.declared.sketch_loops import cell_of, estimate
from fraud.declared.sketch_size import CELLS, MOST_BYTES, REGISTERS, ROWS
from fraud.declared.state import DeclaredState
from machine.compiled import compiled

BURSTS: Final = (10, 1_000, 100_000)
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
WINDOWS: Final = (MINUTE, HOUR, DAY, 7 * DAY, 30 * DAY)
START: Final = 1_760_000_000_000
#: Milliseconds behind the newest event at which states are read.
LATER: Final = (0, 1, 50_000, HOUR // 2, DAY // 2, 5 * DAY)
ENTITIES: Final = 1_000
MOST_COUNTERPARTIES: Final = 1_000_000
#: Where the transaction that is scored is.
HERE: Final = (48.137, 11.575)

#: Function, column and number, and the same in DuckDB over the events of a window, `h` being milliseconds
#: since the last event with a place.
_LAST: Final = "(list(amount ORDER BY t DESC, number DESC))[{}]"
_KM: Final = (
    f"2 * 6371.0088 * asin(sqrt(least(1, pow(sin(radians({HERE[0]} - north) / 2), 2) + cos(radians(north)) * "
    f"cos(radians({HERE[0]})) * pow(sin(radians({HERE[1]} - east) / 2), 2))))"
)
FUNCTIONS: Final[tuple[tuple[Function, str, int, str], ...]] = (
    ("count", "", 1, "count(*)"),
    ("count_if", "flagged", 1, "count(*) FILTER (flagged)"),
    ("sum", "amount", 1, "coalesce(sum(amount), 0)"),
    ("mean", "amount", 1, "avg(amount)"),
    ("std", "amount", 1, "stddev_pop(amount)"),
    ("max", "amount", 1, "max(amount)"),
    ("min", "amount", 1, "min(amount)"),
    ("last", "amount", 1, _LAST.format(1)),
    ("last", "amount", 3, _LAST.format(3)),
    ("count_distinct", "other", 1, "count(DISTINCT other)"),
    ("new", "other", 1, "1 - max(CASE WHEN other = asked THEN 1 ELSE 0 END)"),
    ("seconds_since_last", "", 1, "min(read_at - t) / 1000.0"),
    ("seconds_since_first", "", 1, "first_seen"),
    ("distance_km", "location", 1, f"arg_max({_KM}, (t, number))"),
    ("speed_kmh", "location", 1, f"arg_max({_KM} / ((read_at - t) / 3600000.0), (t, number))"),
)
AGGREGATES: Final = tuple(
    Aggregate(f"{function}_{nth}_{window}", function, column, window, nth)
    for function, column, nth, _ in FUNCTIONS
    for window in WINDOWS
)
LAYOUT: Final = layout_of(StreamView("priced", "card", "card_id", 30 * DAY, AGGREGATES))


def accuracy() -> list[dict[str, Any]]:
    """The worst error of every function and window over bursts, beside its bound."""
    report = []
    for burst in BURSTS:
        worst = _worst(burst)
        report += [
            {"function": each.function if each.nth == 1 else f"{each.function}:{each.nth}",
             "window": each.window_ms // 1000, "events": burst, "worst_error": round(worst[each.name], 6),
             "bound": bound_of(each.function, burst)}
            for each in AGGREGATES
        ]  # fmt: skip
    return report


def bound_of(function: str, events: int) -> float:
    """The largest error that is stated for so many events, and as many different counterparties."""
    if events <= EXACT:
        return 0.0
    if function in ("count", "count_if", "sum"):
        return ERROR
    stated = {"mean": 2 * ERROR, "std": 4 * ERROR, "max": STEP, "min": STEP, "count_distinct": DISTINCT_ERROR}
    return stated.get(function, 0.0)


def _worst(burst: int) -> dict[str, float]:
    draw = np.random.default_rng(burst)
    times = START + np.sort(draw.integers(0, 3 * DAY, burst))
    amounts, flags = np.round(draw.lognormal(7, 1.5, burst)), draw.random(burst) < 0.05
    places = draw.uniform(-60, 60, (burst, 2))
    state = DeclaredState(LAYOUT)
    for number in range(burst):
        at = int(times[number])
        columns = {"amount": amounts[number], "latitude": places[number, 0], "longitude": places[number, 1]}
        record = LAYOUT.record.pack(
            at, number << 33 | int(flags[number]), *[columns[name] for name in LAYOUT.values], _key(number)
        )
        state.add(DeclaredSeen(at, record))
    base = duckdb.connect()
    base.register("given", pa.table({
        "t": times, "number": np.arange(burst), "amount": amounts, "flagged": flags,
        "other": np.arange(burst), "north": places[:, 0], "east": places[:, 1],
    }))  # fmt: skip
    base.execute("CREATE TABLE events AS SELECT * FROM given")
    worst = dict.fromkeys([each.name for each in AGGREGATES], 0.0)
    for later in LATER:
        at = int(times[-1]) + later
        for asked in (
            burst - 1,
            burst // 2,
            burst + 7,
        ):  # one that came last, one long ago, one that never did
            found, wanted = _read(LAYOUT, state.pack(), at, asked), _truth(base, at, asked)
            for each in AGGREGATES:
                error = _error(each.function, found[each.name], wanted[each.name])
                worst[each.name] = max(worst[each.name], error)
    return worst


def _key(number: int) -> bytes:
    return (number + 1).to_bytes(6, "little")


def _read(layout: Layout, data: bytes, at: int, asked: int) -> dict[str, float]:
    matrix = np.empty((1, len(layout.names)))
    # What tables keep of a hash are its upper six bytes.
    hashes = np.array([[asked + 1 << 16]], dtype=np.int64)
    values = {"amount": nan, "latitude": HERE[0], "longitude": HERE[1]}
    read_states(
        np.frombuffer(data, dtype=np.int64), np.array([0, len(data) // 8]), layout.shape, layout.operations,
        np.array([at]), layout.ttl_ms, hashes, np.array([[values[name] for name in layout.values]]), matrix,
    )  # fmt: skip
    return dict(zip(layout.names, matrix[0].tolist(), strict=True))


def _truth(base: duckdb.DuckDBPyConnection, at: int, asked: int) -> dict[str, float]:
    """Every aggregate by DuckDB, NaN for null."""
    found = {}
    for window in WINDOWS:
        columns = ", ".join([sql for *_, sql in FUNCTIONS])
        first_seen = (
            f"SELECT least({at} - min(t), {window}) / 1000.0 AS first_seen FROM events WHERE t < {at}"
        )
        row = base.execute(
            f"SELECT {columns} FROM (SELECT *, {at} AS read_at, {asked} AS asked FROM events "
            f"WHERE t >= {at - window} AND t < {at}), ({first_seen}) GROUP BY first_seen"
        ).fetchone()
        for place, (function, _, nth, _) in enumerate(FUNCTIONS):
            value = None if row is None else row[place]
            found[f"{function}_{nth}_{window}"] = nan if value is None else float(value)
        if row is None:  # no event inside: counts and sums are 0, and whatever is asked for is new
            first = base.execute(first_seen).fetchone()
            found[f"seconds_since_first_1_{window}"] = (
                nan if first is None or first[0] is None else float(first[0])
            )
            for name in ("count", "count_if", "sum", "count_distinct"):
                found[f"{name}_1_{window}"] = 0.0
            found[f"new_1_{window}"] = 1.0
    return found


def _error(function: str, got: float, truth: float) -> float:
    if function == "new" and isnan(got):
        return 0.0  # it says that it does not know
    if isnan(truth) or isnan(got):
        return 0.0 if isnan(truth) and isnan(got) else 1.0
    error = abs(got - truth) / abs(truth) if truth else abs(got)
    return 0.0 if error < 1e-9 else error


@compiled
def _estimated(different: int, seed: int) -> float:
    """What a sketch that was hit by so many random values estimates."""
    hit = np.zeros(ROWS)
    seen = np.zeros(CELLS, dtype=np.bool_)
    key = seed
    for _ in range(different):
        key = (key * 25_214_903_917 + 11) & 0xFFFFFFFFFFFF
        cell = cell_of(key)
        if not seen[cell]:
            seen[cell] = True
            hit[cell // REGISTERS] += 1.0
    return float(estimate(hit))


def distinct() -> dict[str, Any]:
    """Errors of 1,000 entities with up to a million counterparties each, and the largest packed sketch.

    A third of them have 1,000, a third 30,000, the others 1,000,000; what a full sketch of these takes is
    measured on one real state.
    """
    errors = np.array(
        [
            abs(_estimated(counterparties, 7919 * entity + 1) - counterparties) / counterparties
            for entity in range(ENTITIES)
            for counterparties in [(1_000, 30_000, MOST_COUNTERPARTIES)[entity % 3]]
        ]
    )
    layout = layout_of(
        StreamView("busy", "m", "merchant_id", 30 * DAY, (Aggregate("a", "count_distinct", "other", DAY),))
    )
    state = DeclaredState(layout)
    count = MOST_COUNTERPARTIES
    for number in range(count):
        at = START + number * DAY // count
        state.add(DeclaredSeen(at, layout.record.pack(at, number << 33, _key(number))))
    data = state.pack()
    matrix = np.empty((1, 1))
    read_states(
        np.frombuffer(data, dtype=np.int64), np.array([0, len(data) // 8]), layout.shape, layout.operations,
        np.array([START + DAY]), layout.ttl_ms, np.zeros((1, 1), dtype=np.int64), np.zeros((1, 0)), matrix,
    )  # fmt: skip
    return {
        "entities": ENTITIES, "counterparties": [1_000, 30_000, MOST_COUNTERPARTIES], "exact_up_to": DISTINCT,
        "median_error": round(float(np.median(errors)), 4), "median_bound": DISTINCT_MEDIAN,
        "worst_error": round(float(errors.max()), 4), "bound": DISTINCT_ERROR,
        "sketch_bytes": MOST_BYTES, "state_bytes": len(data), "state_of": count,
        "state_error": round(abs(float(matrix[0, 0]) - count) / count, 4),
    }  # fmt: skip
