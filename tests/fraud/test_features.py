"""The request-time features: the same bits one by one and in any batch, and never a crash."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraud.features.entities import ENTITIES
from fraud.features.feature_list import PROFILE_INPUTS, TRANSACTION_FEATURES
from fraud.features.on_demand import (
    on_demand,
    packed_rows,
    request_rows,
    transaction_features,
    transaction_matrix,
)
from fraud.features.request import REQUEST_FIELDS
from fraud.state.observation import NO_LOCATION, stable_hash
from fraud.state.windows import joined
from tests.fraud.arrivals import DAY, HOUR, START_MS, Stream, pack_location
from tests.fraud.reading import built

some = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def states_of_all_sizes() -> list[list[bytes | None]]:
    """Per entity: states with no, few, exactly folded and many events, old ones, and what is no state."""
    streams = [
        Stream(seed, events, per_day, late=0.05, twice=0.05, bursts=bursts).arrivals()
        for seed, (events, per_day, bursts) in enumerate(
            [(1, 10, 0), (12, 10, 0), (40, 20, 0.2), (90, 80, 0), (400, 400, 0.1), (3_000, 30_000, 0)]
        )
    ]
    return [
        [
            None, b"", b"hello world", b"\2" * 96, b"\3" * 96,
            *[built(place, stream).pack() for stream in streams],
        ]
        for place in range(len(ENTITIES))
    ]  # fmt: skip


STATES = states_of_all_sizes()


def rows_of(
    seed: int, rows: int
) -> tuple[list[list[bytes | None]], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Random requests at random times against random states, with values missing."""
    rng = random.Random(seed)
    states = [[rng.choice(column) for _ in range(rows)] for column in STATES]
    ends = [START_MS, START_MS + 12 * HOUR, START_MS + DAY, START_MS + DAY + 3 * HOUR, START_MS + 31 * DAY]
    request = {
        "event_ms": [rng.choice(ends) + rng.randrange(DAY) for _ in range(rows)],
        "amount_reference": [rng.choice([0, 1, 999, 12_345, 2**31 - 1]) for _ in range(rows)],
        "location": [
            rng.choice([NO_LOCATION, pack_location(rng.uniform(-90, 90), rng.uniform(-180, 180))])
            for _ in range(rows)
        ],
    }
    for name in REQUEST_FIELDS:
        if name.endswith("_hash"):
            text = name.removesuffix("_hash")
            names = ["DE", f"{text}-0", f"{text}-1", f"{text}-7", "customer"]
            request[name] = [rng.choice([0, *map(stable_hash, names)]) for _ in range(rows)]
        elif name not in request:
            request[name] = [rng.randrange(-1, 3) for _ in range(rows)]
    profiles = {
        name: [rng.choice([math.nan, 0.0, rng.uniform(0, 50_000)]) for _ in range(rows)]
        for name in PROFILE_INPUTS
    }
    return (
        states,
        {name: np.array(values, dtype=np.int64) for name, values in request.items()},
        {name: np.array(values, dtype=np.float64) for name, values in profiles.items()},
    )


def taken(rows: tuple, chosen: list[int]) -> tuple:  # type: ignore[type-arg]
    """The chosen rows, in that order."""
    states, request, profiles = rows
    return (
        [[column[row] for row in chosen] for column in states],
        {name: values[chosen] for name, values in request.items()},
        {name: values[chosen] for name, values in profiles.items()},
    )


@some
@given(st.integers(0, 2**32), st.integers(1, 70), st.randoms(use_true_random=False))
def test_a_row_has_the_same_bits_alone_and_in_any_batch_in_any_order(
    seed: int, rows: int, rng: random.Random
) -> None:
    everything = rows_of(seed, rows)
    whole = transaction_matrix(*everything)
    order = list(range(rows))
    rng.shuffle(order)
    at = 0
    while at < rows:
        chosen = order[at : at + rng.choice([1, 2, 3, 5, 17])]
        part = transaction_matrix(*taken(everything, chosen))
        different = part.view(np.int64) != whole[chosen].view(np.int64)
        names = {TRANSACTION_FEATURES[column].name for column in np.argwhere(different)[:, 1]}
        assert not different.any(), names
        at += len(chosen)


@some
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_requests_at_hand_as_tuples_give_the_matrix(seed: int, rows: int) -> None:
    states, request, profiles = rows_of(seed, rows)
    requests = list(zip(*[request[name].tolist() for name in REQUEST_FIELDS], strict=True))
    known = np.stack([profiles[name] for name in PROFILE_INPUTS], axis=1)
    found = packed_rows(
        *joined([state for column in states for state in column]), request_rows(requests), known
    )
    assert found.tobytes() == transaction_matrix(states, request, profiles).tobytes()


def test_no_rows_give_an_empty_matrix() -> None:
    assert transaction_matrix(*rows_of(1, 0)).shape == (0, len(TRANSACTION_FEATURES))


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_the_on_demand_view_gives_what_the_matrix_gives(rows: int) -> None:
    states, request, profiles = rows_of(rows, rows)
    inputs: dict[str, list[object]] = {
        **{name: values.tolist() for name, values in request.items()},
        **{name: values.tolist() for name, values in profiles.items()},
        **{entity.state_feature: list(column) for entity, column in zip(ENTITIES, states, strict=True)},
    }
    expected = transaction_features(states, request, profiles)
    found = on_demand(inputs)
    assert list(found) == list(expected) == [feature.name for feature in TRANSACTION_FEATURES]
    for name, values in expected.items():
        assert np.array_equal(np.array(found[name]), values, equal_nan=True), name


def test_the_on_demand_view_survives_what_feast_applies_it_to() -> None:
    for rows in (1, 5):
        for state in (b"hello world", None, "text", b"", STATES[0][-1], STATES[1][-1]):
            for number in (0, None, -1, 2**62, -(2**62)):
                inputs: dict[str, list[object]] = {name: [number] * rows for name in REQUEST_FIELDS}
                inputs |= {entity.state_feature: [state] * rows for entity in ENTITIES}
                inputs |= {name: [None] * rows for name in PROFILE_INPUTS[1:]}
                found = on_demand(inputs)
                assert all(len(values) == rows for values in found.values())


@some
@given(st.binary(max_size=400), st.integers(0, 2**32), st.integers(0, 5), st.integers(1, 5))
def test_damaged_states_never_crash_a_read(noise: bytes, seed: int, place: int, rows: int) -> None:
    rng = random.Random(seed)
    states, request, profiles = rows_of(seed, rows)
    damaged = bytearray(rng.choice([state for state in STATES[place] if state and len(state) > 96]))
    for byte in noise:
        damaged[rng.randrange(len(damaged))] = byte
    states[place] = [bytes(damaged)] * rows
    assert transaction_matrix(states, request, profiles).shape == (rows, len(TRANSACTION_FEATURES))
    states[place] = [noise] * rows
    assert transaction_matrix(states, request, profiles).shape == (rows, len(TRANSACTION_FEATURES))
