"""States of version 2: what the last program with that version packed is read as it was."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fraud.features.entities import ENTITIES
from fraud.state.layout import OLD_VERSION
from fraud.state.observation import Observation
from fraud.state.upgrade import readable, upgraded
from fraud.state.velocity import StateError, VelocityState
from fraud.state.windows import read_windows
from tests.fraud import version_2
from tests.fraud.arrivals import DAY, START_MS, Stream, scripts, streams
from tests.fraud.reading import TTL_MS, assert_as_told, built, read_times, told
from tests.fraud.version_2 import WRITTEN

PLACES = range(len(ENTITIES))
some = settings(
    max_examples=40, phases=(Phase.generate,), deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("place", PLACES)
def test_what_version_2_wrote_is_what_this_version_would_have_written(place: int) -> None:
    stream, data = WRITTEN[place]
    assert data[0] == OLD_VERSION
    assert upgraded(ENTITIES[place], data) == built(place, stream.arrivals()).pack()
    assert VelocityState.unpack(ENTITIES[place], data).pack() == upgraded(ENTITIES[place], data)


@pytest.mark.parametrize("place", PLACES)
def test_what_version_2_wrote_is_read_as_the_oracle_tells_it(place: int) -> None:
    stream, data = WRITTEN[place]
    arrivals = stream.arrivals()
    times = read_times(arrivals)
    requested = [arrivals[number % len(arrivals)].tracked[place] for number in range(len(times))]
    assert_as_told(data, told(place, arrivals), times, requested, exact=place != 2)


@pytest.mark.parametrize("place", PLACES)
def test_the_tests_pack_version_2_as_it_did(place: int) -> None:
    stream, data = WRITTEN[place]
    assert version_2.packed(built(place, stream.arrivals())) == version_2.without_low_bits(data)


@some
@given(scripts() | streams, st.sampled_from(PLACES))
def test_any_state_of_version_2_is_read_and_goes_on(script: list[Observation] | Stream, place: int) -> None:
    arrivals = script.arrivals()[:400] if isinstance(script, Stream) else script
    half = len(arrivals) // 2
    state = built(place, arrivals[:half])
    assert upgraded(ENTITIES[place], version_2.packed(state)) == state.pack()
    resumed = VelocityState.unpack(ENTITIES[place], version_2.packed(state))
    for seen in arrivals[half:]:
        state.add(seen, place)
        resumed.add(seen, place)
    assert resumed.pack() == state.pack()


def test_a_read_of_old_new_and_missing_states_finds_each_in_its_place() -> None:
    states = [built(place, WRITTEN[place][0].arrivals()).pack() for place in PLACES]
    places = np.repeat(np.arange(len(PLACES)), 4)
    mixed = [each for place in PLACES for each in (states[place], WRITTEN[place][1], None, b"\2" * 96)]
    new = [each for state in states for each in (state, state, None, None)]
    at_ms = np.full(len(places), START_MS + 2 * DAY)
    requested = np.zeros((len(places), 3), dtype=np.int64)
    found = read_windows(mixed, places, at_ms, requested, TTL_MS)
    expected = read_windows(new, places, at_ms, requested, TTL_MS)
    assert found.present.tolist() == [True, True, False, False] * len(PLACES)
    for name in ("count", "total", "squares", "distinct", "since_last", "since_first", "located_ms"):
        assert np.array_equal(getattr(found, name), getattr(expected, name), equal_nan=True), name


@some
@given(st.binary(max_size=200), st.sampled_from(PLACES), st.randoms(use_true_random=False))
def test_damaged_bytes_of_version_2_are_refused_with_a_sentence_or_read(
    noise: bytes, place: int, rng: random.Random
) -> None:
    whole = bytearray(WRITTEN[place][1])
    for byte in noise[: rng.randrange(9)]:
        whole[rng.choice([rng.randrange(len(whole)), rng.randrange(1, 64)])] = byte
    for data in (
        b"\2" + noise,
        bytes(whole),
        bytes(whole[: rng.randrange(len(whole))]),
        bytes(whole) + b"\0" * 8,
    ):
        try:
            state = VelocityState.unpack(ENTITIES[place], data)
        except StateError as error:
            assert str(error)
            continue
        assert readable(place, data) is not None
        assert VelocityState.unpack(ENTITIES[place], state.pack()).pack() == state.pack()


def test_bytes_of_another_entity_are_refused() -> None:
    with pytest.raises(StateError, match="another entity's"):
        upgraded(ENTITIES[1], WRITTEN[0][1])
