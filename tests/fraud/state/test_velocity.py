"""The velocity state, held to the oracle."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fraud.features.entities import ENTITIES
from fraud.state.observation import Observation
from fraud.state.velocity import STATE_VERSION, StateError, VelocityState
from fraud.state.view import describe
from tests.fraud.arrivals import DAY, HOUR, MINUTE, START_MS, Stream, arrival, scripts, streams
from tests.fraud.reading import assert_as_told, built, read, read_times, told

places = st.integers(0, len(ENTITIES) - 1)
# Shrinking long scripts takes minutes; the seed that hypothesis prints repeats a failure.
some = settings(
    max_examples=60, phases=(Phase.generate,), deadline=None, suppress_health_check=list(HealthCheck)
)
few = settings(
    max_examples=15, phases=(Phase.generate,), deadline=None, suppress_health_check=list(HealthCheck)
)


def assert_all_as_told(state: VelocityState, arrivals: list[Observation], place: int, *, exact: bool) -> None:
    times = read_times(arrivals)
    requested = [arrivals[-1 - number % 2 % len(arrivals)].tracked[place] for number in range(len(times))]
    newest = max(arrivals, key=lambda seen: seen.event_ms)
    assert_as_told(state.pack(), told(place, arrivals), times, requested, exact=exact)
    # To the transaction of the newest event, at its own time: as before it, if it is alone there.
    if sum(seen.event_ms == newest.event_ms for seen in arrivals) == 1:
        own = [newest.event_ms], requested[:1]
        assert_as_told(state.pack(), told(place, arrivals), *own, exact=exact, own=newest.transaction_key)


def test_a_window_begins_at_its_length_before_the_read_and_ends_just_before_it() -> None:
    #  minute     0         1         2         3
    #             a         b                   |read for d: 1m [2, 3)  5m [-2, 3)
    #             c (same time as a)            d (its own event does not count)
    arrivals = [
        arrival(START_MS, 1, name="a"), arrival(START_MS, 2, name="c"),
        arrival(START_MS + MINUTE, 4, name="b"),
        arrival(START_MS + 3 * MINUTE, 8, name="d"),
    ]  # fmt: skip
    found = read(built(0, arrivals[:3]).pack(), 0, START_MS + 3 * MINUTE)
    assert found.total[0].tolist() == [0, 7, 7, 7, 7]
    own = arrivals[3].transaction_key
    found = read(built(0, arrivals).pack(), 0, START_MS + 3 * MINUTE, own=own)
    assert found.total[0].tolist() == [0, 7, 7, 7, 7]
    #  one minute after b: b is on the edge of the 1m window, which is inside it
    found = read(built(0, arrivals[:3]).pack(), 0, START_MS + 2 * MINUTE)
    assert found.total[0].tolist() == [4, 7, 7, 7, 7]
    #  one millisecond later it has left
    found = read(built(0, arrivals[:3]).pack(), 0, START_MS + 2 * MINUTE + 1)
    assert found.total[0].tolist() == [0, 7, 7, 7, 7]


def test_what_arrived_before_counts_whatever_time_it_states() -> None:
    #  minute     0         1         2         3
    #             a         b                   c     arrived in this order
    #                       |read: as of c, 1m (2, 3]  5m (-2, 3]
    arrivals = [arrival(START_MS, 1), arrival(START_MS + MINUTE, 2), arrival(START_MS + 3 * MINUTE, 4)]
    packed = built(0, arrivals).pack()
    for at_ms in (START_MS + MINUTE, START_MS + 3 * MINUTE):
        found = read(packed, 0, at_ms)
        assert found.total[0].tolist() == [4, 7, 7, 7, 7]
        assert found.since_last[0] == 0


@pytest.mark.parametrize("step", [0, 1, -1, -6 * MINUTE])
def test_a_burst_counts_itself_in_order_of_arrival(step: int) -> None:
    #  all the same millisecond, each a little later or earlier than the one before, each 6 minutes earlier
    state, place = VelocityState(ENTITIES[1]), 1
    for number in range(9):
        at_ms = START_MS + number * step
        packed = state.pack()
        assert number == 0 or read(packed, place, at_ms).count[0, -1] == number
        state.add(arrival(at_ms, name=f"n{number}"), place)


def test_events_of_another_time_are_not_waited_for() -> None:
    #  day    0          1 (of a replay that was there before)   |read at 0
    packed = built(0, [arrival(START_MS - MINUTE, 1), arrival(START_MS + DAY, 2)]).pack()
    assert read(packed, 0, START_MS).total[0].tolist() == [1, 1, 1, 1, 1]


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
def test_a_restart_at_any_moment_changes_nothing(
    arrivals: list[Observation], place: int, data: st.DataObject
) -> None:
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
    arrivals: list[Observation], place: int, rng: random.Random
) -> None:
    newest = max(seen.event_ms for seen in arrivals)
    recent = [seen for seen in arrivals if seen.event_ms > newest - 2 * HOUR]
    rng.shuffle(recent)
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
@given(streams, places, st.floats(0, 1))
def test_busy_history_and_live_merge_within_two_percent(stream: Stream, place: int, share: float) -> None:
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


def sizes_of(place: int, arrivals: list[Observation]) -> list[int]:
    """Bytes after each arrival."""
    state = VelocityState(ENTITIES[place])
    sizes = []
    for seen in arrivals:
        state.add(seen, place)
        sizes.append(len(state.pack()))
    return sizes


@pytest.mark.parametrize("place", range(len(ENTITIES)))
def test_a_state_is_bounded_in_size(place: int) -> None:
    regular = [arrival(START_MS + number * 144 * MINUTE, merchant=number) for number in range(60)]
    assert max(sizes_of(place, regular)) <= 512
    at_random = sorted(sizes_of(place, Stream(11, 600, 10).arrivals()))  # some days have twenty of the ten
    assert at_random[300] <= 512
    assert at_random[570] <= 700
    busy = Stream(7, 8_000, 100_000, late=0.02, sigma=2.0, cards=8_000).arrivals()
    assert len(built(place, busy).pack()) <= 16_000


@pytest.mark.parametrize("moments", [1, 2, 3, 700])
def test_any_number_of_events_at_the_same_moment_is_counted(moments: int) -> None:
    arrivals = [
        arrival(START_MS + number * moments // 2_000, number, name=f"n{number}") for number in range(2_000)
    ]
    packed, oracle = built(2, arrivals).pack(), told(2, arrivals)
    assert len(packed) <= 16_000
    newest = arrivals[-1].event_ms
    times = [newest + 1, newest + MINUTE - 1, newest + MINUTE, newest + DAY - 2, newest + DAY]
    assert_as_told(packed, oracle, times, [(0,)] * len(times), exact=moments == 1)


def test_a_flood_of_late_events_keeps_the_size_bounded() -> None:
    on_time = [arrival(START_MS + number * 500, number, name=f"a{number}") for number in range(4_000)]
    late = [arrival(seen.event_ms + 1, 77, name=f"b{number}") for number, seen in enumerate(on_time)]
    state = built(2, on_time)
    for number, seen in enumerate(late):
        state.add(seen, 2)
        if number % 100 == 0:
            assert len(state.pack()) <= 16_000
    found = read(state.pack(), 2, late[-1].event_ms + 1)
    assert abs(found.count[0, -1] - 8_000) <= 0.02 * 8_000


@some
@given(st.binary(max_size=200), places, st.randoms(use_true_random=False))
def test_garbage_is_refused_with_a_sentence_and_never_crashes(
    noise: bytes, place: int, rng: random.Random
) -> None:
    entity = ENTITIES[place]
    whole = bytearray(built(place, Stream(rng.randrange(4), 150, 100).arrivals()).pack())
    for byte in noise[: rng.randrange(9)]:
        whole[rng.choice([rng.randrange(len(whole)), rng.randrange(16)])] = byte
    for data in (noise, bytes(whole), bytes(whole[: rng.randrange(len(whole))]), bytes(whole) + b"\0" * 8):
        try:
            state = VelocityState.unpack(entity, data)
        except StateError as error:
            assert str(error)
            continue
        assert VelocityState.unpack(entity, state.pack()).pack() == state.pack()
        state.add(arrival(START_MS + 40 * DAY, 5), place)
        assert describe(state.pack())["entity"] == entity.name


def test_another_version_is_refused_and_says_what_to_do() -> None:
    packed = bytearray(built(0, [arrival(START_MS)]).pack())
    packed[0] = STATE_VERSION + 1
    with pytest.raises(StateError, match=f"version {STATE_VERSION + 1}.*rebuild"):
        VelocityState.unpack(ENTITIES[0], bytes(packed))


def test_a_state_is_fresh_as_long_as_its_version_is_within_the_ttl_edge_included() -> None:
    #  state's version: START + 1 us          read: START + 30 days | one ms later
    packed = built(0, [arrival(START_MS)]).pack()
    assert read(packed, 0, START_MS + 30 * DAY).present[0]
    assert not read(packed, 0, START_MS + 30 * DAY + 1).present[0]


def test_an_entity_that_was_away_for_longer_than_the_ttl_starts_anew() -> None:
    #  day 0             31           32                      as if day 0 never was
    later = [arrival(START_MS + 31 * DAY), arrival(START_MS + 32 * DAY, device=1)]
    away = built(0, [arrival(START_MS, device=1), *later])
    assert away.pack() == built(0, later).pack()


def test_the_event_before_the_newest_is_known_however_old() -> None:
    #  day    0                         5 (own update has arrived)  |read at 5
    own = arrival(START_MS + 5 * DAY)
    packed = built(0, [arrival(START_MS), own]).pack()
    found = read(packed, 0, own.event_ms, own=own.transaction_key)
    assert found.since_last[0] == 5 * DAY / 1000
