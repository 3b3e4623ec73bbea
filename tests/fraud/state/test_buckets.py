"""Buckets of older events, in small numbers: what is merged, what is kept apart, and how it is written."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud.state import buckets
from fraud.state.buckets import (
    MAX_BUCKETS,
    Bucket,
    base_of,
    compress,
    describe,
    forget,
    pack,
    pack_base,
    pack_single,
    packed_size,
    single,
    unpack,
)

#: A bucket of two events (30 and 40 cents, at 1,000 and 1,500) and one of one (7 cents, at 2,000).
TWO: Bucket = (1_500, 1_000, 2, 70, 2_500.0)
ONE: Bucket = (2_000, 2_000, 1, 7, 49.0)
#: What every reader counts before any bucket, when it is so much that all may merge, or nothing.
MUCH = (10**6, 10**6)
NOTHING = (0, 0)


def test_the_bucket_of_one_event_begins_and_ends_with_it() -> None:
    assert single(2_000, 7) == ONE
    assert unpack(pack_base(500) + pack_single(500, 2_000, 7)) == [ONE]


def test_packed_buckets_are_laid_out_as_the_text_says() -> None:
    #  base in 8 bytes; then oldest and newest after it in 4 each, count << 44 | sum in 8, squares in 8
    written = struct.pack("<qIIqdIIqd", 1_000, 0, 500, 2 << 44 | 70, 2_500.0, 1_000, 1_000, 1 << 44 | 7, 49.0)
    assert pack([TWO, ONE]) == written and unpack(written) == [TWO, ONE]
    assert base_of(written) == 1_000
    assert (packed_size(0), packed_size(1), packed_size(2)) == (0, 32, len(written))


def test_no_buckets_are_nothing_at_all() -> None:
    assert pack([]) == b"" and unpack(b"") == []


def test_times_may_lie_before_1970() -> None:
    early: Bucket = (-5, -9, 2, 3, 5.0)
    assert unpack(pack([early, ONE])) == [early, ONE]
    assert base_of(pack([ONE, early])) == -9


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 99), st.integers(0, 10**9))
    )
)
def test_what_is_packed_is_unpacked(given_buckets: list[tuple[int, int, int, int]]) -> None:
    made = [(at + more, at, count, total, float(total)) for at, more, count, total in given_buckets]
    assert unpack(pack(made)) == made


def test_figures_are_named_for_people() -> None:
    assert describe(pack([TWO])) == [
        {"newest_ms": 1_500, "oldest_ms": 1_000, "count": 2, "sum": 70, "squares": 2_500.0}
    ]


@pytest.mark.parametrize(
    ("oldest", "left"), [(1_499, [TWO, ONE]), (1_500, [ONE]), (1_999, [ONE]), (2_000, []), (9_999, [])]
)
def test_a_bucket_is_forgotten_once_its_newest_event_is(oldest: int, left: list[Bucket]) -> None:
    packed = pack([TWO, ONE])
    forget(packed, oldest)
    assert unpack(packed) == left and len(packed) == packed_size(len(left))


def test_buckets_beside_much_newer_money_are_merged_to_one() -> None:
    assert compress([TWO, ONE], *MUCH) == [(2_000, 1_000, 3, 77, 2_549.0)]


def test_nothing_newer_lets_nothing_merge_and_the_oldest_stand_first() -> None:
    assert compress([ONE, TWO], *NOTHING) == [TWO, ONE]
    assert compress([], *MUCH) == []


def test_the_given_buckets_stay_as_they_are() -> None:
    given_buckets = [ONE, TWO]
    compress(given_buckets, *MUCH)
    assert given_buckets == [ONE, TWO]


@pytest.mark.parametrize(
    ("count", "total", "merged"),
    [
        (75, 10**6, True),  # 4 % of 75 are the 3 events of both
        (74, 10**6, False),
        (10**6, 1_925, True),  # 4 % of 1,925 cents are 77
        (10**6, 1_924, False),
    ],
)
def test_half_of_a_bucket_is_at_most_two_percent_of_what_is_newer(
    count: int, total: int, merged: bool
) -> None:
    assert len(compress([TWO, ONE], count, total)) == (1 if merged else 2)


def test_a_closed_bucket_counts_as_newer_for_those_before_it() -> None:
    #  newest first: 100 events; then two buckets of 2, which 4 % of 100 let merge, of 99 not
    for events, left in ((100, 2), (99, 3)):
        newest: Bucket = (9_000, 8_000, events, 10**6, 0.0)
        older: list[Bucket] = [(5_000, 4_000, 2, 0, 0.0), (3_000, 2_000, 2, 0, 0.0)]
        assert len(compress([newest, *older], *NOTHING)) == left
    for cents, left in ((100, 2), (99, 3)):
        newest = (9_000, 8_000, 10**4, cents, 0.0)
        older = [(5_000, 4_000, 1, 2, 0.0), (3_000, 2_000, 1, 2, 0.0)]
        assert len(compress([newest, *older], *NOTHING)) == left


def test_events_of_one_moment_always_merge() -> None:
    same = [single(1_000, cents) for cents in (1, 2, 3)]
    assert compress(same, *NOTHING) == [(1_000, 1_000, 3, 6, 14.0)]
    assert len(compress([*same, single(1_001, 1)], *NOTHING)) == 2


def test_a_moment_is_kept_apart_where_its_count_or_sum_would_not_fit() -> None:
    most_count, most_sum = 2**19 - 1, 2**44 - 1
    for first, merged in (
        ((1_000, 1_000, most_count - 1, 5, 0.0), 1),
        ((1_000, 1_000, most_count, 5, 0.0), 2),
    ):
        assert len(compress([first, single(1_000, 1)], *NOTHING)) == merged
    for total, merged in ((most_sum - 1, 1), (most_sum, 2)):
        assert len(compress([(1_000, 1_000, 1, total, 0.0), single(1_000, 1)], *NOTHING)) == merged


def test_merging_ends_where_count_or_sum_would_not_fit() -> None:
    most_count, most_sum, much = 2**19 - 1, 2**44 - 1, 10**18
    for count, merged in ((most_count - 1, 1), (most_count, 2)):
        assert len(compress([(2_000, 1_500, count, 0, 0.0), single(1_000, 0)], much, much)) == merged
    for total, merged in ((most_sum - 1, 1), (most_sum, 2)):
        assert len(compress([(2_000, 1_500, 1, total, 0.0), single(1_000, 1)], much, much)) == merged


def test_a_late_bucket_within_a_closed_one_spans_no_edge_too() -> None:
    #  newest first:   8000 ------------- 3000     closed: its neighbour would be too much
    #                        5000 - 4500           begins inside: takes nothing in
    #                                4200 - 4100
    first: Bucket = (8_000, 3_000, 10**5, 10**5, 0.0)
    late: list[Bucket] = [(5_000, 4_500, 2, 2, 0.0), (4_200, 4_100, 2, 2, 0.0)]
    assert compress([first, *late], *NOTHING) == [late[1], late[0], first]
    #  the same two before its oldest event may merge; one that ends with it may, too
    for shift in (1_200, 2_000):
        before = [(newest - shift - 800, oldest - shift - 800, *rest) for newest, oldest, *rest in late]
        assert len(compress([first, *before], *NOTHING)) == 2  # type: ignore[list-item]
    ends_with_it: list[Bucket] = [(3_000, 2_500, 2, 2, 0.0), (2_400, 2_300, 2, 2, 0.0)]
    assert len(compress([first, *ends_with_it], *NOTHING)) == 2


def test_the_border_is_the_oldest_of_all_closed_buckets() -> None:
    #  the second closed bucket ends later than the first began: the border stays at 3,000
    first: Bucket = (8_000, 3_000, 10**5, 10**5, 0.0)
    second: Bucket = (7_000, 6_000, 10**5, 10**5, 0.0)
    late: list[Bucket] = [(5_000, 4_500, 2, 2, 0.0), (4_200, 4_100, 2, 2, 0.0)]
    assert len(compress([first, second, *late], *NOTHING)) == 4


def test_a_merged_bucket_begins_with_its_oldest_event() -> None:
    nested: list[Bucket] = [(8_000, 3_000, 1, 1, 1.0), (7_000, 6_000, 1, 1, 1.0), (6_500, 2_000, 1, 1, 1.0)]
    assert compress(nested, *MUCH) == [(8_000, 2_000, 3, 3, 3.0)]


@pytest.mark.parametrize(("number", "left"), [(MAX_BUCKETS, MAX_BUCKETS), (MAX_BUCKETS + 1, MAX_BUCKETS)])
def test_there_are_never_more_than_the_most(number: int, left: int) -> None:
    #  each has more events than all newer ones together: no error lets any merge with its neighbour
    made: list[Bucket] = [(10 * at, 10 * at - 5, 1, 2 ** min(number - at, 43), 0.0) for at in range(number)]
    found = compress(made, *NOTHING)
    assert len(found) <= left


def test_with_nothing_newer_at_all_the_oldest_are_lost() -> None:
    #  events of no money: 4 % of no cents let nothing merge, whatever the error
    made = [(10 * at, 10 * at - 5, 0, 0, 0.0) for at in range(MAX_BUCKETS + 7)]
    counted: list[Bucket] = [(newest, oldest, 1, 10**12, 0.0) for newest, oldest, *_ in made]
    found = compress(counted, *NOTHING)
    assert len(found) <= MAX_BUCKETS and found == sorted(found)
    assert found[-1] == counted[-1]


def test_the_error_grows_by_a_quarter_until_all_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    #  20 events, one bucket each, and room for 5: the first slack of 4 % x 1.25^n that yields 5 or fewer
    monkeypatch.setattr(buckets, "MAX_BUCKETS", 5)
    made = [(10 * at, 10 * at - 5, 1, 100, 1.0) for at in range(20)]
    slack, merged = 0.04, buckets._merge(sorted(made, reverse=True), 10, 1_000, 0.04)
    while len(merged) > 5:
        slack *= 1.25
        merged = buckets._merge(sorted(made, reverse=True), 10, 1_000, slack)
    assert slack > 0.06
    assert compress(made, 10, 1_000) == merged[::-1]
    assert sum(bucket[2] for bucket in merged) == 20 and sum(bucket[3] for bucket in merged) == 2_000
