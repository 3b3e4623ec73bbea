"""The velocity state, held to the oracle."""

from __future__ import annotations

import itertools

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fraud.entities import ENTITIES
from fraud.observation import Observation
from fraud.velocity import EXACT_EVENTS, VelocityState
from tests.fraud.arrivals import DAY, HOUR, MINUTE, START_MS, Stream, arrival, scripts, streams
from tests.fraud.reading import assert_as_told, built, read, read_times, told

places = st.integers(0, len(ENTITIES) - 1)
some = settings(max_examples=60, phases=(Phase.generate,), deadline=None, suppress_health_check=list(HealthCheck))
few = settings(max_examples=15, phases=(Phase.generate,), deadline=None, suppress_health_check=list(HealthCheck))


def assert_all_as_told(state: VelocityState, arrivals: list[Observation], place: int, *, exact: bool) -> None:
    times = read_times(arrivals)
    requested = [arrivals[-1 - number % 2 % len(arrivals)].tracked[place] for number in range(len(times))]
    assert_as_told(state.pack(), told(place, arrivals), times, requested, exact=exact)


def test_a_window_begins_at_its_length_before_the_read_and_ends_just_before_it() -> None:
    #  minute     0         1         2         3
    #             a         b                   |read: 1m [2, 3)  5m [-2, 3)
    #             c (same time as a)            d (at the read itself: not counted)
    arrivals = [
        arrival(START_MS, 1, name="a"), arrival(START_MS, 2, name="c"), arrival(START_MS + MINUTE, 4, name="b"),
        arrival(START_MS + 3 * MINUTE, 8, name="d"),
    ]  # fmt: skip
    found = read(built(0, arrivals).pack(), 0, START_MS + 3 * MINUTE)
    assert found.total[0].tolist() == [0, 7, 7, 7, 7]
    #  one minute after b: b is on the edge of the 1m window, which is inside it
    found = read(built(0, arrivals[:3]).pack(), 0, START_MS + 2 * MINUTE)
    assert found.total[0].tolist() == [4, 7, 7, 7, 7]
    #  one millisecond later it has left
    found = read(built(0, arrivals[:3]).pack(), 0, START_MS + 2 * MINUTE + 1)
    assert found.total[0].tolist() == [0, 7, 7, 7, 7]


def test_a_window_decays_without_a_new_event() -> None:
    #  hour   0 1            ...          24 25
    #         a                            |  |  24h after a it still counts, later it does not
    packed = built(0, [arrival(START_MS, 5)]).pack()
    assert read(packed, 0, START_MS + DAY).total[0, -1] == 5
    assert read(packed, 0, START_MS + DAY + 1).total[0, -1] == 0


def test_a_late_event_lands_where_it_belongs() -> None:
    #  arrival order  1        3    2
    #  minute         0        1    2      |read at 3
    arrivals = [arrival(START_MS, 1), arrival(START_MS + 2 * MINUTE, 4), arrival(START_MS + MINUTE, 2)]
    found = read(built(0, arrivals).pack(), 0, START_MS + 3 * MINUTE)
    assert found.total[0].tolist() == [4, 7, 7, 7, 7]
    found = read(built(0, arrivals).pack(), 0, START_MS + 6 * MINUTE)
    assert found.total[0].tolist() == [0, 6, 7, 7, 7]


@some
@given(scripts(), places)
def test_every_feature_is_exact_for_few_events(arrivals: list[Observation], place: int) -> None:
    assert_all_as_told(built(place, arrivals), arrivals, place, exact=True)


@few
@given(streams, places)
def test_counts_and_sums_stay_within_two_percent_for_many_events(stream: Stream, place: int) -> None:
    arrivals = stream.arrivals()
    for size in sorted({len(arrivals) // 3, len(arrivals)}):
        assert_all_as_told(built(place, arrivals[:size]), arrivals[:size], place, exact=False)


@some
@given(scripts(), places)
def test_a_duplicate_changes_nothing(arrivals: list[Observation], place: int) -> None:
    state = built(place, arrivals)
    before = state.pack()
    retained = max(seen.event_ms for seen in arrivals) - DAY - 2 * HOUR
    for seen in arrivals:
        if seen.event_ms > retained:
            assert not state.add(seen, place)
    assert state.pack() == before


@some
@given(scripts(), places, st.data())
def test_a_restart_at_any_moment_changes_nothing(arrivals: list[Observation], place: int, data: st.DataObject) -> None:
    restarts = data.draw(st.sets(st.integers(0, len(arrivals))))
    state = VelocityState(ENTITIES[place])
    for number, seen in enumerate(arrivals):
        if number in restarts:
            state = VelocityState.unpack(ENTITIES[place], state.pack())
        state.add(seen, place)
    assert state.pack() == built(place, arrivals).pack()


@few
@given(streams, places, st.integers(1, 7))
def test_a_restart_of_a_busy_entity_changes_nothing(stream: Stream, place: int, every: int) -> None:
    arrivals = stream.arrivals()
    state = VelocityState(ENTITIES[place])
    for number, seen in enumerate(arrivals):
        if number % every == 0:
            state = VelocityState.unpack(ENTITIES[place], state.pack())
        state.add(seen, place)
    assert state.pack() == built(place, arrivals).pack()


@some
@given(scripts(30), places, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter_within_the_lateness(
    arrivals: list[Observation], place: int, rng: object
) -> None:
    newest = max(seen.event_ms for seen in arrivals)
    recent = [seen for seen in arrivals if seen.event_ms > newest - 2 * HOUR]
    rng.shuffle(recent)  # type: ignore[attr-defined]
    assert_all_as_told(built(place, recent), recent, place, exact=True)


@some
@given(scripts(), places, st.data())
def test_versions_grow_strictly_and_say_when_an_update_was_known(
    arrivals: list[Observation], place: int, data: st.DataObject
) -> None:
    state = VelocityState(ENTITIES[place])
    before = 0
    for seen in arrivals:
        added = state.add(seen, place)
        assert state.version == (max(seen.event_ms * 1000 + 1, before + 1) if added else before)
        before = state.version


@some
@given(scripts(), places, st.data())
def test_history_and_live_split_anywhere_merge_to_the_whole(
    arrivals: list[Observation], place: int, data: st.DataObject
) -> None:
    split = data.draw(st.integers(0, len(arrivals)))
    shared = data.draw(st.integers(0, min(split, 10)))
    history, live = built(place, arrivals[:split]), built(place, arrivals[split - shared :])
    if not history.version:
        assert not live.merge(history)
        return
    assert live.merge(history)
    merged = live.pack()
    assert_merged_as_told(merged, arrivals, place)
    assert not live.merge(history)
    assert live.pack() == merged


def assert_merged_as_told(merged: bytes, arrivals: list[Observation], place: int) -> None:
    newest = max(seen.event_ms for seen in arrivals)
    times = [at_ms for at_ms in read_times(arrivals) if at_ms - newest < 29 * DAY]
    requested = [arrivals[-1].tracked[place]] * len(times)
    assert_as_told(merged, told(place, arrivals), times, requested, exact=False)


@few
@given(streams, places, st.floats(0, 1), st.integers(0, EXACT_EVENTS))
def test_busy_history_and_live_merge_within_two_percent(
    stream: Stream, place: int, share: float, shared: int
) -> None:
    arrivals = stream.arrivals()
    split = int(share * len(arrivals))
    history = built(place, arrivals[:split])
    live = built(place, arrivals[split:])
    live.merge(history)
    assert_merged_as_told(live.pack(), arrivals, place)
    for seen in itertools.islice(arrivals, split, split + 200):  # it goes on after the merge
        again = arrival(seen.event_ms + 3 * HOUR, seen.amount, name=f"again {seen.transaction_key}")
        live.add(again, place)
    VelocityState.unpack(ENTITIES[place], live.pack())
