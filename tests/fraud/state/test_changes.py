"""What was declined or reversed no longer counts as spent: a state that is told so, held to the oracle."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud.features.entities import ENTITIES
from fraud.state.observation import Observation, change_of, observe_values, read_records
from fraud.state.velocity import VelocityState
from tests.fraud.arrivals import DAY, MINUTE, START_MS, arrival
from tests.fraud.reading import assert_as_told, built, read, read_times, told

IDS = ("customer", "card-0", "merchant-0", "terminal", None, None)


def paid(number: int, amount: int, apart: int = MINUTE) -> Observation:
    return arrival(START_MS + number * apart, amount, name=f"t{number}")


def change(number: int, before: int, after: int, apart: int = MINUTE) -> Observation:
    return change_of(START_MS + number * apart, f"t{number}", before, after, IDS)


@given(
    st.lists(st.tuples(st.integers(0, 50_000), st.none() | st.integers(0, 60_000)), min_size=1, max_size=60),
    st.integers(0, len(ENTITIES) - 3), st.booleans(),
)  # fmt: skip
def test_a_state_reads_as_if_the_payments_had_been_of_what_is_spent(
    payments: list[tuple[int, int | None]], place: int, packed: bool
) -> None:
    """Told after all of them; of the newest up to 60, which are exact."""
    arrivals = [paid(number, amount) for number, (amount, _) in enumerate(payments)]
    state = built(place, arrivals)
    changes = [
        change(number, amount, after) for number, (amount, after) in enumerate(payments) if after is not None
    ]
    random.Random(len(payments)).shuffle(changes)
    for one in changes:
        if packed:  # as it comes from another process, or out of a file
            (one,) = read_records(place, one.record)
        before = state.version
        if state.add(one, place):
            assert state.version == before + 1
        assert not state.add(one, place)  # told again, it changes nothing
    spent = [
        paid(number, amount if after is None else after) for number, (amount, after) in enumerate(payments)
    ]
    state = VelocityState.unpack(ENTITIES[place], state.pack())
    times = read_times(spent)
    requested = [spent[-1].tracked[place]] * len(times)
    assert_as_told(state.pack(), told(place, spent), times, requested, exact=True)


def test_of_thousands_of_payments_a_third_is_declined_within_the_bound_of_what_was_tried() -> None:
    draw = random.Random(4)
    amounts = [draw.randrange(100, 20_000) for _ in range(5_000)]
    arrivals = [paid(number, amount, 10_000) for number, amount in enumerate(amounts)]
    state = built(0, arrivals)
    declined = [number for number in range(5_000) if draw.random() < 0.33]
    assert all(state.add(change(number, amounts[number], 0, 10_000), 0) for number in declined)
    for number in declined:
        amounts[number] = 0
    at = START_MS + 5_000 * 10_000
    found = read(state.pack(), 0, at)
    oracle = told(0, [paid(number, amount, 10_000) for number, amount in enumerate(amounts)]).read(
        at, [0, 0, 0], 90 * DAY
    )
    tried = told(0, arrivals).read(at, [0, 0, 0], 90 * DAY)
    for window in range(5):
        assert found.count[0][window] == pytest.approx(oracle.count[window], rel=0.02)
        assert abs(found.total[0][window] - oracle.total[window]) <= 0.02 * tried.total[window]


def test_what_a_state_does_not_know_changes_nothing() -> None:
    state = built(0, [paid(0, 500), paid(1, 700)])
    before = state.pack()
    for unknown in (change(9, 500, 0), change_of(START_MS, "another", 500, 0, IDS),
                    change_of(START_MS - 5 * DAY, "t0", 500, 0, IDS)):  # fmt: skip
        assert not state.add(unknown, 0)
        assert not VelocityState(ENTITIES[0]).add(unknown, 0)
    assert state.pack() == before
    with pytest.raises(ValueError, match="reference cents"):
        change_of(START_MS, "t0", -1, 0, IDS)


def test_a_change_is_no_event_of_its_own() -> None:
    state = built(1, [paid(0, 500), paid(1, 700)])
    state.add(change(0, 500, 0), 1)
    found = read(state.pack(), 1, START_MS + 2 * MINUTE)
    assert found.count[0].tolist() == [1, 2, 2, 2, 2]
    assert found.total[0].tolist() == [700, 700, 700, 700, 700]
    assert found.since_last[0] == 60
    late = observe_values(START_MS + MINUTE, 5, "t9", IDS, None, None, None)
    assert state.add(late, 1)
    assert read(state.pack(), 1, START_MS + 2 * MINUTE).count[0].tolist() == [2, 3, 3, 3, 3]
