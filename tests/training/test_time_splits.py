"""Splits in time: nothing of the future, and a label delay between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.split import DAY_US, SplitError, iso, prequential, split_by_time


@given(days=st.integers(20, 400), delay=st.integers(0, 8), test=st.integers(1, 14))
def test_every_period_starts_a_label_delay_after_the_one_before(days: int, delay: int, test: int) -> None:
    if days - 2 * delay < 4:
        return
    split = split_by_time(0, days * DAY_US, delay_days=delay, validation_days=test, test_days=test)
    #   fit ......|gap|validation|gap|test|end
    assert split.fit.start == 0 < split.fit.end
    assert split.validation.start - split.fit.end in (0, delay * DAY_US)
    assert split.gap_days == pytest.approx(min(delay, split.gap_days))
    if days >= 8 * delay:
        assert split.gap_days == pytest.approx(delay)
    assert split.validation.start < split.validation.end
    assert split.test.start < split.test.end == days * DAY_US
    assert split.fit.days >= 0.39 * days


def test_a_short_history_gives_up_the_first_gap_before_the_second() -> None:
    short = split_by_time(0, 28 * DAY_US, delay_days=7)
    assert short.validation.start == short.fit.end
    assert short.gap_days == pytest.approx(7)
    shorter = split_by_time(0, 8 * DAY_US, delay_days=7)
    assert 0 < shorter.gap_days < 7


def test_a_short_history_is_refused_with_what_to_do() -> None:
    with pytest.raises(SplitError, match="longer history"):
        split_by_time(0, 2 * DAY_US, delay_days=7)


def test_prequential_folds_walk_forward_and_wait_out_the_delay() -> None:
    folds = prequential(0, 100 * DAY_US, folds=4, delay_days=7, test_days=7, train_days=30)
    assert [fold.test.end for fold in folds] == [day * DAY_US for day in (79, 86, 93, 100)]
    for fold in folds:
        assert fold.test.start - fold.train.end == 7 * DAY_US
        assert fold.train.days == 30


def test_folds_without_anything_to_train_on_are_refused() -> None:
    with pytest.raises(SplitError, match="fewer"):
        prequential(0, 20 * DAY_US, folds=3, delay_days=7, test_days=7)


def test_times_are_written_in_utc() -> None:
    assert iso(1_577_836_800_000_000) == "2020-01-01T00:00:00Z"
