"""The tables of last uses: what an entry can hold, and what is forgotten in time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud.features.entities import ENTITIES
from fraud.state.last_seen import ENTRY_BYTES, NEVER, SPAN_MS, append, entries, entry, forget, insert
from fraud.state.observation import Observation
from fraud.state.velocity import VelocityState
from tests.fraud.arrivals import DAY, START_MS, arrival
from tests.fraud.reading import assert_as_told, built, read, told

DEVICE = 1
keys = st.binary(min_size=6, max_size=6)
times = st.integers(946_684_800_000, (1 << 47) - 1)


@given(keys, times, st.integers(1, SPAN_MS - 1))
def test_an_entry_keeps_both_uses_to_the_millisecond(key: bytes, last: int, apart: int) -> None:
    assert len(entry(key, last, last - apart)) == ENTRY_BYTES
    assert list(entries(entry(key, last, last - apart))) == [(key, last, last - apart)]
    assert list(entries(entry(key, last, NEVER))) == [(key, last, NEVER)]


@pytest.mark.parametrize(("apart", "known"), [(SPAN_MS - 1, True), (SPAN_MS, False), (SPAN_MS + 1, False)])
def test_a_use_too_long_before_the_last_one_is_never(apart: int, known: bool) -> None:
    ((_, last, before),) = entries(entry(b"key-01", START_MS, START_MS - apart))
    assert (last, before) == (START_MS, START_MS - apart if known else NEVER)


def test_uses_go_where_they_belong_in_any_order() -> None:
    table = bytearray()
    append(table, b"key-01", START_MS.to_bytes(6, "little"), 0, 3 * ENTRY_BYTES)
    insert(table, b"key-02", (START_MS - 5,), 0, 3 * ENTRY_BYTES)
    insert(table, b"key-01", (START_MS - 9,), 0, 3 * ENTRY_BYTES)
    insert(table, b"key-01", (START_MS - 7,), 0, 3 * ENTRY_BYTES)
    assert list(entries(table)) == [
        (b"key-02", START_MS - 5, NEVER), (b"key-01", START_MS, START_MS - 7)
    ]  # fmt: skip
    insert(table, b"key-03", (START_MS + 1,), START_MS - 5, 2 * ENTRY_BYTES)
    assert [key for key, _, _ in entries(table)] == [b"key-01", b"key-03"]
    insert(table, b"key-03", (START_MS + 1,), START_MS + 1, 2 * ENTRY_BYTES)
    assert [key for key, _, _ in entries(table)] == [b"key-03"]


def used(table: bytearray) -> list[tuple[bytes, int, int]]:
    return list(entries(table))


def test_an_added_key_was_never_used_before_and_the_first_beyond_the_bound_goes() -> None:
    table = bytearray()
    for number in range(4):
        append(table, b"key-0%d" % number, (START_MS + number).to_bytes(6, "little"), 0, 3 * ENTRY_BYTES)
    assert used(table) == [(b"key-0%d" % number, START_MS + number, NEVER) for number in (1, 2, 3)]


def test_what_was_last_used_before_a_time_is_forgotten_and_what_was_used_at_it_is_not() -> None:
    table = bytearray()
    for number in range(3):
        append(table, b"key-0%d" % number, (START_MS + number).to_bytes(6, "little"), START_MS + 1, 99_999)
    assert [key for key, _, _ in used(table)] == [b"key-01", b"key-02"]
    forget(table, START_MS + 2)
    assert [key for key, _, _ in used(table)] == [b"key-02"]
    forget(table, START_MS + 3)
    assert table == b""
    forget(table, START_MS + 3)
    assert table == b""


def test_an_entry_is_laid_out_as_the_text_says() -> None:
    #  6 of the key, the low 4 of the use before, 6 of the last use
    last, before = 0x0123_89AB_CDEF, 0x0123_89AB_0000
    assert entry(b"key-01", last, before) == b"key-01" + bytes.fromhex("0000ab89efcdab892301")
    assert entry(b"key-01", last, NEVER) == b"key-01" + bytes.fromhex("efcdab89efcdab892301")
    wrapped = 1_800_000_000_000 >> 32 << 32  # the use before it had higher low bytes
    assert used(bytearray(entry(b"key-01", wrapped + 5, wrapped - 5))) == [
        (b"key-01", wrapped + 5, wrapped - 5)
    ]


def slow_insert(table: bytes, key: bytes, uses: tuple[int, ...], oldest: int, most_bytes: int) -> bytes:
    """What `insert` does, by taking the table apart and putting it in order again."""
    known = {name: times for name, *times in entries(table)}
    times = sorted({*uses, NEVER, *known.get(key, ())})
    known[key] = [times[-1], times[-2]]
    kept = [(last, before, name) for name, (last, before) in known.items() if last >= oldest]
    kept.sort(key=lambda found: found[0])
    return b"".join([entry(name, last, before) for last, before, name in kept])[-most_bytes:]


@given(
    st.lists(
        st.tuples(
            # Keys of which one reads as another across two values, and times with ties.
            st.sampled_from([b"aaaaaa", b"aaaaab", b"baaaaa", b"bbbbbb", b"\0\0\0\0\0\0"]),
            st.lists(st.integers(START_MS, START_MS + 6), min_size=1, max_size=2),
            st.integers(START_MS - 1, START_MS + 3),
        ),
        max_size=12,
    ),
    st.integers(1, 4),
)
def test_a_use_is_inserted_as_if_the_table_were_put_in_order_anew(
    inserted: list[tuple[bytes, list[int], int]], most: int
) -> None:
    table = bytearray()
    for key, uses, oldest in inserted:
        expected = slow_insert(bytes(table), key, tuple(uses), oldest, most * ENTRY_BYTES)
        insert(table, key, tuple(uses), oldest, most * ENTRY_BYTES)
        assert bytes(table) == expected


def daily(days: float, devices: dict[float, int]) -> list[Observation]:
    """An event every half day; at some of these days with a device."""
    halves = [number / 2 for number in range(int(2 * days) + 1)]
    return [arrival(START_MS + int(day * DAY), device=devices.get(day)) for day in halves]


@pytest.mark.parametrize("away", [12, 29.5, 30, 30.5, 49.5, 50, 51.5, 52, 60, 99.5, 150])
def test_a_device_that_was_away_is_as_new_as_it_is(away: float) -> None:
    #  day     0                          away (its own update has arrived)  |read at that time
    #  device  1    none in the meantime  1
    arrivals = daily(away, {0: 1, away: 1})
    newest = arrivals[-1].event_ms
    requested = [arrivals[0].tracked[0]] * 3
    times = [newest, newest + 1, newest + 30 * DAY]
    state, oracle = built(0, arrivals).pack(), told(0, arrivals)
    assert_as_told(state, oracle, times, requested, exact=True)
    assert_as_told(state, oracle, times, requested, exact=True, own=arrivals[-1].transaction_key)


def test_a_use_is_remembered_to_the_end_of_its_retention() -> None:
    #  day     0          30 (another device)  |read at 30: a use exactly 30 days ago counts
    arrivals = daily(30, {0: 1, 30: 2})
    own = arrivals[-1].transaction_key
    found = read(built(0, arrivals).pack(), 0, START_MS + 30 * DAY, arrivals[0].tracked[0], own)
    assert found.seen[0, DEVICE] == 1.0


@pytest.mark.parametrize("end", [40, 55, 75])
def test_a_merge_with_a_later_life_forgets_what_is_past_its_retention(end: int) -> None:
    #  day     0   10 ....... end | end: device 1 again
    #  state   device 1  other: no device
    state, other = built(0, daily(5, {0: 1})), built(0, daily(end, {})[20:])
    assert state.merge(other)
    again = arrival(START_MS + end * DAY + 1, device=1)
    state.add(again, 0)
    packed = state.pack()
    own = again.transaction_key
    assert read(packed, 0, again.event_ms, again.tracked[0], own).seen[0, DEVICE] == 0.0
    assert read(packed, 0, again.event_ms, again.tracked[0]).seen[0, DEVICE] == 1.0
    assert VelocityState.unpack(ENTITIES[0], packed).pack() == packed


def test_a_key_whose_bytes_lie_across_two_values_by_chance_is_still_told_apart() -> None:
    first = arrival(START_MS, merchant=1)
    inside = entry(first.keys[0][0], START_MS, NEVER)[3:9]
    keys = ((inside, b"", b""), *first.keys[1:])
    odd = Observation(
        START_MS + 5, 7, 7 << 32 | 5, (START_MS + 5).to_bytes(8, "little"), first.ids, keys, None
    )
    later = arrival(START_MS + 9, merchant=1)
    packed = built(0, [first, odd, later]).pack()
    at_ms = later.event_ms + 1
    assert read(packed, 0, at_ms).distinct[0, 0, -1] == 2
    for seen in (first, odd):
        assert read(packed, 0, at_ms, seen.tracked[0]).seen[0, 0] == 1.0
    across = [int.from_bytes(b"\0\0" + inside, "little", signed=True)]
    assert read(packed, 0, at_ms, across).seen[0, 0] == 1.0
    without = built(0, [first, later]).pack()
    assert inside in without
    assert read(without, 0, at_ms, odd.tracked[0]).seen[0, 0] == 0.0
    assert read(without, 0, at_ms, across).seen[0, 0] == 0.0
