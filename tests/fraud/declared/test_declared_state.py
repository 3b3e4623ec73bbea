"""Declared aggregates read from states, against the same aggregates taken from all events."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud.declared.declaration import Aggregate, Function, StreamView
from fraud.declared.layout import ERROR, STEP, Layout, layout_of
from fraud.declared.loops import read_states
from fraud.declared.seen import DeclaredSeen
from fraud.declared.state import DeclaredState
from fraud.state.layout import StateError
from fraud.state.observation import stable_hash

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
START = 1_760_000_000_000


def aggregate(function: Function, column: str = "", window: int = DAY, nth: int = 1) -> Aggregate:
    return Aggregate(f"{function}_{column}_{window}_{nth}", function, column, window, nth)


AGGREGATES = (
    *(aggregate("count", "", window) for window in (MINUTE, HOUR, 7 * DAY, 30 * DAY)),
    *(aggregate("count_if", "small", window) for window in (5 * MINUTE, DAY)),
    *(aggregate("sum", "amount", window) for window in (HOUR, 30 * DAY)),
    aggregate("mean", "amount"),
    aggregate("std", "amount", 7 * DAY),
    aggregate("max", "amount"),
    aggregate("max", "amount", HOUR),
    aggregate("min", "amount", 7 * DAY),
    aggregate("last", "score", DAY, 1),
    aggregate("last", "score", DAY, 3),
    aggregate("count_distinct", "country", DAY),
    aggregate("count_distinct", "country", HOUR),
    aggregate("new", "country", DAY),
    aggregate("zscore", "amount", DAY),
    aggregate("seconds_since_last", "", DAY),
    aggregate("seconds_since_first", "", 30 * DAY),
    aggregate("distance_km", "location", DAY),
    aggregate("speed_kmh", "location", DAY),
)
VIEW = StreamView("card_risk", "card", "card_id", 30 * DAY, AGGREGATES)
LAYOUT = layout_of(VIEW)


@dataclass(frozen=True)
class Event:
    time: int
    number: int
    amount: float = 10.0
    small: bool = False
    score: float = nan
    country: str = ""
    latitude: float = nan
    longitude: float = nan


def seen(event: Event, layout: Layout = LAYOUT) -> DeclaredSeen:
    values = {name: getattr(event, name) for name in layout.values}
    flags = sum(event.small << place for place, name in enumerate(layout.flags) if name == "small")
    word = (event.number * 2_654_435_761 & 0x7FFFFFFF) << 32 | flags
    country = stable_hash(event.country).to_bytes(8, "little", signed=True)[2:] if event.country else b""
    record = layout.record.pack(
        event.time, word, *[values[name] for name in layout.values], *[country for _ in layout.tables]
    )
    return DeclaredSeen(event.time, record)


def state_of(events: list[Event], layout: Layout = LAYOUT, since: int = 0) -> DeclaredState:
    state = DeclaredState(layout, since)
    for event in events:
        state.add(seen(event, layout))
    return state


def read(
    state: DeclaredState | bytes, at: int, asked: Event | None = None, layout: Layout = LAYOUT
) -> dict[str, float]:
    data = state if isinstance(state, bytes) else state.pack()
    hashes = [[stable_hash(asked.country) if asked and asked.country else 0 for _ in layout.tables]]
    values = [[getattr(asked, name) if asked else nan for name in layout.values]]
    matrix = np.empty((1, len(layout.operations)))
    read_states(
        np.frombuffer(data, dtype=np.int64), np.array([0, len(data) // 8]), layout.shape, layout.operations,
        np.array([at]), layout.ttl_ms, np.array(hashes, dtype=np.int64).reshape(1, -1),
        np.array(values).reshape(1, -1), matrix,
    )  # fmt: skip
    return dict(zip(layout.names, matrix[0].tolist(), strict=True))


def away(last: Event, asked: Event, at: int, function: Function) -> float:
    """By the spherical law of cosines, which the haversine formula is another form of."""
    north, east = np.radians([last.latitude, last.longitude])
    to_north, to_east = np.radians([asked.latitude, asked.longitude])
    cosine = np.sin(north) * np.sin(to_north) + np.cos(north) * np.cos(to_north) * np.cos(east - to_east)
    kilometres = float(6371.0088 * np.arccos(np.clip(cosine, -1, 1)))
    return kilometres if function == "distance_km" else kilometres / ((at - last.time) / 3_600_000)


def truth(one: Aggregate, events: list[Event], at: int, asked: Event) -> float:
    """The aggregate over every event of ``[at - window, at)``, the obvious way."""
    inside = sorted([e for e in events if at - one.window_ms <= e.time < at], key=lambda e: e.time)
    if one.column == "location":
        places = [event for event in inside if not isnan(event.latitude)]
        return away(places[-1], asked, at, one.function) if places else nan
    column = [getattr(event, one.column) for event in inside] if one.column else []
    known = [float(value) for value in column if not isinstance(value, str) and not isnan(value)]
    mean = sum(known) / len(known) if known else nan
    deviation = sqrt(sum((value - mean) ** 2 for value in known) / len(known)) if known else nan
    match one.function:
        case "count":
            return len(inside)
        case "count_if":
            return sum(column)
        case "sum":
            return sum(known)
        case "mean":
            return mean
        case "std":
            return deviation
        case "zscore":
            return (asked.amount - mean) / deviation if known and deviation > 0 else nan
        case "max":
            return max(known, default=nan)
        case "min":
            return min(known, default=nan)
        case "last":
            return known[-one.nth] if len(known) >= one.nth else nan
        case "count_distinct":
            return len({value for value in column if value})
        case "new":
            return nan if not asked.country else float(asked.country not in column)
        case "seconds_since_last":
            return (at - inside[-1].time) / 1000 if inside else nan
        case "seconds_since_first":
            before = [event.time for event in events if event.time < at]
            return min(at - min(before), one.window_ms) / 1000 if before else nan
        case _:
            raise AssertionError(f"no truth for {one.function}")


def hold(state: DeclaredState, events: list[Event], at: int, asked: Event) -> None:
    found = read(state, at, asked)
    for one in AGGREGATES:
        wanted = truth(one, events, at, asked)
        # Both formulas of a distance lose digits: arc cosines near 1, speeds after a millisecond.
        rel, least = (1e-6, 1e-3 * 3_600_000) if one.column == "location" else (1e-9, 1e-6)
        least = 1e-3 if one.function == "distance_km" else least
        assert found[one.name] == pytest.approx(wanted, rel=rel, abs=least, nan_ok=True), one.name


Part = tuple[int, int, bool, float, str, tuple[float, float]]
event_parts = st.tuples(
    st.one_of(st.integers(1, 90_000), st.integers(1, 4 * HOUR)),
    st.integers(0, 50_000),
    st.booleans(),
    st.one_of(st.just(nan), st.integers(0, 100).map(float)),
    st.sampled_from(["", "DE", "FR", "IT", "US"]),
    st.sampled_from([(nan, nan), (48.1, 11.6), (52.5, 13.4), (-33.9, 151.2)]),
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(event_parts, min_size=1, max_size=60), st.integers(1, 2 * DAY), st.sampled_from(["", "DE", "JP"])
)
def test_every_function_is_exact_while_the_events_are_few(
    parts: list[Part], later: int, country: str
) -> None:
    events, time = [], START
    for number, (step, cents, small, score, place, where) in enumerate(parts):
        time += step
        events.append(Event(time, number, float(cents), small, score, place, *where))
    state = state_of(events)
    asked = Event(time + later, -1, 123.0, country=country, latitude=40.7, longitude=-74.0)
    hold(state, events, time + later, asked)
    hold(state, events, time, asked)  # at the newest event's own time, which does not count itself
    again = DeclaredState.unpack(LAYOUT, state.pack())
    assert again.pack() == state.pack()


@settings(max_examples=40, deadline=None)
@given(st.lists(event_parts, min_size=2, max_size=60), st.randoms(use_true_random=False))
def test_events_that_come_late_or_twice_give_what_order_gives(parts: list[Part], chance: object) -> None:
    events, time = [], START
    for number, (step, cents, small, score, place, where) in enumerate(parts):
        time += min(step, 110_000)
        events.append(Event(time, number, float(cents), small, score, place, *where))
    shuffled = [*events, *events[::3]]
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    hold(
        state_of(shuffled),
        events,
        time + 1,
        Event(time + 1, -1, 99.0, country="FR", latitude=1.0, longitude=2.0),
    )


@pytest.mark.parametrize("count", [10, 1_000, 30_000])
def test_many_events_stay_within_the_stated_bounds(count: int) -> None:
    random = np.random.default_rng(7)
    times = START + np.sort(random.integers(0, 20 * DAY, count))
    times = np.unique(times)
    events = [
        Event(int(time), place, float(round(amount)), bool(small), float(place), f"{country}")
        for place, (time, amount, small, country) in enumerate(
            zip(
                times,
                random.lognormal(6, 1.5, count),
                random.random(count) < 0.03,
                random.integers(1, 40, count),
                strict=False,
            )
        )
    ]
    state = state_of(events)
    assert len(state.pack()) <= LAYOUT.most_bytes()
    for at in (events[-1].time, events[-1].time + 1, events[-1].time + 3 * HOUR):
        found = read(state, at, events[-1])
        for one in AGGREGATES:
            wanted, got = truth(one, events, at, events[-1]), found[one.name]
            if one.function in ("count", "count_if", "sum"):
                assert abs(got - wanted) <= ERROR * wanted + 1e-6, one.name
            elif one.function in ("max", "min"):
                assert got == pytest.approx(wanted, rel=STEP, nan_ok=True), one.name
            elif one.function in ("count_distinct", "new", "seconds_since_last", "last"):
                assert got == pytest.approx(wanted, nan_ok=True), one.name
            elif one.function == "mean":
                assert got == pytest.approx(wanted, rel=2 * ERROR, nan_ok=True), one.name


def test_a_value_that_a_full_table_may_have_dropped_is_not_called_new() -> None:
    events = [Event(START + place * 1000, place, country=f"c{place}") for place in range(500)]
    at = events[-1].time + 1
    name = f"new_country_{DAY}_1"
    state = state_of(events)
    assert read(state, at, Event(at, -1, country="c499"))[name] == 0.0
    assert isnan(read(state, at, Event(at, -1, country="c3"))[name])  # used, and no longer remembered
    assert isnan(read(state, at, Event(at, -1, country="never"))[name])
    # Once what was dropped lies before the window, the table knows all of it.
    later = events[-30].time + DAY
    assert read(state, later, Event(later, -1, country="c3"))[name] == 1.0
    assert read(state, later, Event(later, -1, country="c499"))[name] == 0.0


def test_descending_maxima_stay_within_a_step() -> None:
    events = [Event(START + place * 1000, place, amount=100_000.0 * 0.999**place) for place in range(5_000)]
    state = state_of(events)
    for back in (1, 20, 300, 3_600):
        at = events[-1].time + HOUR - back * 1000
        wanted = truth(aggregate("max", "amount", HOUR), events, at, events[-1])
        found = read(state, at)[f"max_amount_{HOUR}_1"]
        assert wanted <= found <= wanted * (1 + 10 * STEP)  # the step grew: sixty-four hold a fall by e**5


def test_a_window_that_reaches_back_before_what_is_known_is_null_and_no_small_number() -> None:
    since = START
    events = [Event(since + 1000 * place, place) for place in range(1, 30)]
    state = state_of(events, since=since)
    found = read(state, since + 2 * HOUR)
    assert found[f"count__{HOUR}_1"] == 0
    assert isnan(found[f"count__{7 * DAY}_1"])
    assert read(state, since + 7 * DAY)[f"count__{7 * DAY}_1"] == 29


def test_history_that_is_merged_in_ends_the_warming() -> None:
    past = [Event(START + HOUR * place, place, amount=float(place)) for place in range(100)]
    live = [Event(START + HOUR * place, place, amount=float(place)) for place in range(100, 140)]
    state, rebuilt = state_of(live, since=live[0].time), state_of(past)
    assert state.merge(DeclaredState.unpack(LAYOUT, rebuilt.pack()))
    assert not state.merge(rebuilt)
    at = live[-1].time + 1
    found = read(state, at)
    assert found[f"count__{30 * DAY}_1"] == 140
    assert found[f"max_amount_{DAY}_1"] == 139
    assert found[f"sum_amount_{30 * DAY}_1"] == sum(range(140))


def test_a_further_aggregate_over_known_columns_leaves_the_states_as_they_are() -> None:
    wider = StreamView(
        VIEW.name, "card", "card_id", VIEW.ttl_ms, (*AGGREGATES, aggregate("sum", "amount", 2 * HOUR))
    )
    assert layout_of(wider).digest == LAYOUT.digest
    longer = StreamView(VIEW.name, "card", "card_id", VIEW.ttl_ms, AGGREGATES[:3])
    assert layout_of(longer).digest != LAYOUT.digest


def test_the_state_of_another_layout_is_missing_to_readers_and_refused_by_writers() -> None:
    other = layout_of(StreamView(VIEW.name, "card", "card_id", VIEW.ttl_ms, AGGREGATES[:3]))
    data = state_of([Event(START, 1)]).pack()
    assert all(isnan(value) for value in read(data, START + 1, layout=other).values())
    with pytest.raises(StateError, match="another layout"):
        DeclaredState.unpack(other, data)
    with pytest.raises(StateError, match="cut short"):
        DeclaredState.unpack(LAYOUT, data[:-8])


def test_only_who_asks_for_long_windows_pays() -> None:
    events = [Event(START + place * HOUR, place) for place in range(300)]
    short = layout_of(StreamView("a", "card", "card_id", DAY, (aggregate("count", "", HOUR),)))
    long = layout_of(StreamView("b", "card", "card_id", DAY, (aggregate("count", "", 30 * DAY),)))
    assert len(state_of(events, short).pack()) < 150
    assert len(state_of(events, long).pack()) > 2_000
