"""How many different values a state counts beyond its table, against sets of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud.declared.declaration import Aggregate, StreamView
from fraud.declared.layout import DISTINCT, DISTINCT_ERROR, DISTINCT_MEDIAN, layout_of
from fraud.declared.loops import read_states
from fraud.declared.seen import DeclaredSeen
from fraud.declared.sketch import Sketch, packed_bytes
from fraud.declared.sketch_loops import cell_of, estimate, sketch_words
from fraud.declared.sketch_size import MOST_BYTES, REGISTERS
from fraud.declared.state import DeclaredState
from fraud.state.layout import StateError
from fraud.state.observation import stable_hash

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
START = 1_760_000_000_000
WINDOWS = (MINUTE, HOUR, DAY, 30 * DAY)
VIEW = StreamView(
    "merchant_risk", "merchant", "merchant_id", 30 * DAY,
    tuple([Aggregate(f"cards_{window}", "count_distinct", "card_id", window) for window in WINDOWS]),
)  # fmt: skip
LAYOUT = layout_of(VIEW)

Uses = Sequence[tuple[int, str]]


def state_of(uses: Uses) -> DeclaredState:
    state = DeclaredState(LAYOUT)
    for number, (time, card) in enumerate(uses):
        key = stable_hash(card).to_bytes(8, "little", signed=True)[2:]
        state.add(DeclaredSeen(time, LAYOUT.record.pack(time, number << 32, key)))
    return state


def read(state: DeclaredState, at: int) -> list[float]:
    data = state.pack()
    matrix = np.empty((1, len(WINDOWS)))
    read_states(
        np.frombuffer(data, dtype=np.int64), np.array([0, len(data) // 8]), LAYOUT.shape, LAYOUT.operations,
        np.array([at]), LAYOUT.ttl_ms, np.zeros((1, 1), dtype=np.int64), np.zeros((1, 0)), matrix,
    )  # fmt: skip
    return matrix[0].tolist()


def truth(uses: Uses, at: int) -> list[int]:
    return [len({card for time, card in uses if at - window <= time < at}) for window in WINDOWS]


@pytest.mark.parametrize(("different", "entities"), [(100, 60), (1_000, 40), (20_000, 6)])
def test_many_different_values_are_counted_within_the_bound(different: int, entities: int) -> None:
    errors = []
    for entity in range(entities):
        draw = np.random.default_rng(entity)
        times = START + np.sort(draw.integers(0, DAY, different))
        uses = [(int(time), f"{entity}-{place}") for place, time in enumerate(times)]
        state = state_of(uses)
        assert len(state.pack()) <= LAYOUT.most_bytes() <= 16_384
        for at in (uses[-1][0] + 1, uses[-1][0] + HOUR // 2):
            for found, wanted in zip(read(state, at), truth(uses, at), strict=True):
                if wanted <= DISTINCT:
                    assert found == wanted
                else:
                    errors.append(abs(found - wanted) / wanted)
    assert max(errors) <= DISTINCT_ERROR and np.median(errors) <= DISTINCT_MEDIAN


#     table  64 values ───────────────────────────┐ 65th
#     uses   a b c ... (each again and again) ... │ the sketch begins
@pytest.mark.parametrize("different", [1, 63, 64])
def test_up_to_the_exact_limit_the_count_is_exact_however_often_they_come(different: int) -> None:
    uses = [(START + place * 500, f"card-{place * 7919 % different}") for place in range(3_000)]
    for at in (uses[-1][0], uses[-1][0] + 1, uses[-1][0] + HOUR):
        assert read(state_of(uses), at) == truth(uses, at)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3 * HOUR), st.integers(0, 400)), min_size=1, max_size=700), st.randoms()
)
def test_order_late_events_and_packing_change_nothing_but_the_grouping_of_times(
    parts: list[tuple[int, int]], chance: object
) -> None:
    uses = sorted([(START + step, f"card-{card}") for step, card in parts])
    shuffled = list(uses)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    state = state_of(shuffled)
    again = DeclaredState.unpack(LAYOUT, state.pack())
    assert again.pack() == state.pack()
    # A resumed state goes on as one that was never packed.
    more = DeclaredSeen(uses[-1][0] + 1, LAYOUT.record.pack(uses[-1][0] + 1, 7 << 33, b"abcdef"))
    assert state.add(more) and again.add(more)
    assert again.pack() == state.pack()
    at = uses[-1][0] + 1
    for found, wanted in zip(read(state_of(shuffled), at), truth(uses, at), strict=True):
        assert found == wanted if wanted <= DISTINCT else abs(found - wanted) <= DISTINCT_ERROR * wanted


def test_sketches_merge_to_what_one_of_all_counts() -> None:
    draw = np.random.default_rng(3)
    uses = [
        (START + int(time), f"card-{card}")
        for time, card in zip(
            np.sort(draw.integers(0, DAY, 9_000)), draw.integers(0, 5_000, 9_000), strict=True
        )
    ]
    state = state_of(uses[4_000:])
    assert state.merge(state_of(uses[:4_000]))
    at = uses[-1][0] + 1
    for found, wanted, whole in zip(read(state, at), truth(uses, at), read(state_of(uses), at), strict=True):
        assert abs(found - wanted) <= max(DISTINCT_ERROR * wanted, 0)
        assert abs(found - whole) <= 0.05 * wanted
    assert len(state.pack()) <= LAYOUT.most_bytes()


def test_a_sketch_is_dropped_once_no_window_reaches_back_to_it() -> None:
    uses = [(START + place, f"card-{place}") for place in range(2_000)]
    state = state_of([*uses, (uses[-1][0] + 31 * DAY, "card-1")])
    assert len(state.pack()) < 3_000
    assert read(state, uses[-1][0] + 31 * DAY + 1) == [1, 1, 1, 1]


def test_the_estimate_is_the_number_that_makes_the_expected_bitmap() -> None:
    # Row r of a register is hit with probability 1 - exp(-n / registers / 2**(r + 1)); the last row takes the rest.
    for different in (10, 1_000, 100_000, 5_000_000):
        shares = np.array([*[0.5 ** (row + 1) for row in range(13)], 0.5**13])
        expected = REGISTERS * -np.expm1(-different / REGISTERS * shares)
        assert estimate(expected) == pytest.approx(different, rel=1e-3)


def test_values_spread_over_registers_and_rows_as_the_estimate_supposes() -> None:
    cells = np.array(
        [cell_of(key) for key in range(40_000)]
    )  # small numbers in a row: the hash has to mix them
    rows = np.bincount(cells // REGISTERS, minlength=14)
    assert rows[0] == pytest.approx(20_000, rel=0.03) and rows[3] == pytest.approx(2_500, rel=0.1)
    registers = np.bincount(cells % REGISTERS, minlength=REGISTERS)
    mean = 40_000 / REGISTERS
    assert ((registers - mean) ** 2 / mean).sum() == pytest.approx(REGISTERS, rel=0.2)


@pytest.mark.parametrize("different", [0, 1, 300, 5_000])
def test_packed_sketches_say_their_length_and_refuse_damage(different: int) -> None:
    sketch = Sketch()
    for place in range(different):
        sketch.add(stable_hash(f"{place}").to_bytes(8, "little", signed=True)[2:], START + place, 0)
    data, groups = sketch.pack(), len(sketch.times)
    assert packed_bytes(data, 0, groups) == len(data) <= MOST_BYTES and len(data) % 8 == 0
    assert 8 * sketch_words(np.frombuffer(data, dtype=np.int64), 0, groups) == len(data)
    assert Sketch.unpack(data, groups).pack() == data
    if different > 1:
        with pytest.raises(ValueError, match="in no group"):
            Sketch.unpack(data[:8] + data[16:] + bytes(8), groups - 1)


def test_a_state_with_a_cut_sketch_is_refused_and_read_as_missing() -> None:
    state = state_of([(START + place, f"card-{place}") for place in range(2_000)])
    data = state.pack()
    with pytest.raises(StateError, match="cut short"):
        DeclaredState.unpack(LAYOUT, data[:-8])
    matrix = np.empty((1, len(WINDOWS)))
    read_states(
        np.frombuffer(data[:-8], dtype=np.int64), np.array([0, len(data) // 8 - 1]), LAYOUT.shape,
        LAYOUT.operations, np.array([START + 5_000]), LAYOUT.ttl_ms, np.zeros((1, 1), dtype=np.int64),
        np.zeros((1, 0)), matrix,
    )  # fmt: skip
    assert np.isnan(matrix).all()
