"""Read one packed state, and hold what it says against the oracle."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from fraud.features.entities import ENTITIES, VELOCITY_TTL, WINDOWS
from fraud.state.observation import Observation
from fraud.state.velocity import DISTINCT_LIMIT, EXACT_EVENTS, VelocityState
from fraud.state.windows import WindowRead, read_windows
from tests.fraud.oracle import Answer, Oracle

TTL_MS = int(VELOCITY_TTL.total_seconds() * 1000)
ERROR = 0.02


def built(place: int, arrivals: Iterable[Observation]) -> VelocityState:
    """The state that `arrivals` leave."""
    state = VelocityState(ENTITIES[place])
    for seen in arrivals:
        state.add(seen, place)
    return state


def told(place: int, arrivals: Iterable[Observation]) -> Oracle:
    """The oracle that has heard of `arrivals`."""
    oracle = Oracle(place)
    for seen in arrivals:
        oracle.add(seen)
    return oracle


def read(
    state: bytes | None, place: int, at_ms: int, requested: Sequence[int] = (), own: int = 0
) -> WindowRead:
    """`read_windows` for one state."""
    padded = [*requested, 0, 0, 0][:3]
    columns = np.array([place]), np.array([at_ms]), np.array([padded])
    return read_windows([state], *columns, TTL_MS, np.array([own]))


def read_times(arrivals: Sequence[Observation]) -> list[int]:
    """Times worth reading at: just before the newest event's, that, just after it, and every window's edges."""
    newest = max(seen.event_ms for seen in arrivals)
    times = {newest + shift for shift in (-90_000, -1, 0, 1)}
    for window in WINDOWS:
        times |= {newest + window.milliseconds + shift for shift in (-1, 0, 1)}
        for seen in arrivals[-3:]:
            times |= {seen.event_ms + window.milliseconds + shift for shift in (0, 1)}
    return sorted(time for time in times if time >= newest - 90_000)


def assert_as_told(
    state: bytes, oracle: Oracle, times: Sequence[int], requested: Sequence[Sequence[int]], *, exact: bool,
    own: int = 0,
) -> None:  # fmt: skip
    """Every feature of `state` at each of `times` is the oracle's, to a transaction of the identity `own`;
    within the error where not `exact`.

    Distinct counts and novelty are held to it as far as the tables' limits promise.
    """
    rows = len(times)
    padded = [[*keys, 0, 0, 0][:3] for keys in requested]
    columns = np.full(rows, oracle.place), np.array(times), np.array(padded)
    found = read_windows([state] * rows, *columns, TTL_MS, np.full(rows, own))
    for row, at_ms in enumerate(times):
        expected = oracle.read(at_ms, requested[row], TTL_MS, own)
        assert bool(found.present[row]) is expected.present
        if expected.present:
            _assert_row(found, row, expected, oracle, exact=exact)


def _assert_row(found: WindowRead, row: int, expected: Answer, oracle: Oracle, *, exact: bool) -> None:
    _assert_sums(found, row, expected, exact=exact or expected.count[-1] <= EXACT_EVENTS)
    assert _same(found.since_last[row], expected.since_last)
    assert _same(found.since_first[row], expected.since_first)
    assert _same(found.located_ms[row], expected.located_ms)
    if expected.location is not None:
        assert found.location[row] == expected.location
    for table, distinct in enumerate(expected.distinct):
        if table < len(oracle.entity.counterparties):
            assert found.distinct[row, table].tolist() == [min(number, DISTINCT_LIMIT) for number in distinct]
        if distinct[-1] <= DISTINCT_LIMIT:
            assert found.seen[row, table] == expected.seen[table]


def _assert_sums(found: WindowRead, row: int, expected: Answer, *, exact: bool) -> None:
    for window in range(len(WINDOWS)):
        count, total = float(found.count[row, window]), float(found.total[row, window])
        if exact:
            assert count == expected.count[window]
            assert total == expected.total[window]
            assert found.squares[row, window] == float(expected.squares[window])
        else:
            assert abs(count - expected.count[window]) <= ERROR * expected.count[window], WINDOWS[window]
            assert abs(total - expected.total[window]) <= ERROR * expected.total[window], WINDOWS[window]


def _same(found: float, expected: float) -> bool:
    return bool(found == expected) or (math.isnan(found) and math.isnan(expected))
