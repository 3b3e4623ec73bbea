from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.drift.measures import decile_psi, kind_of, measure_column, register_with_evidently, sample
from monitoring.drift.thresholds import DEFAULT_LIMITS, SMALLEST_LIMITS, Thresholds, calibrate


def column(values: object) -> pd.Series:
    return pd.Series(np.asarray(values, dtype=float))


def test_psi_of_a_sample_with_itself_is_zero() -> None:
    values = np.random.default_rng(0).lognormal(3, 2, 5_000)
    assert decile_psi(values, values) == 0


@settings(deadline=None)
@given(st.integers(0, 2**31), st.floats(0.2, 3))
def test_psi_does_not_change_when_both_samples_are_stretched_alike(seed: int, sigma: float) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.lognormal(0, sigma, 500), generator.lognormal(0.2, sigma, 500)
    assert decile_psi(a, b) == pytest.approx(decile_psi(a * 4, b * 4), abs=1e-9)
    assert decile_psi(a, b) >= 0


def test_deciles_see_a_skewed_column_that_doubles_and_equal_width_bins_do_not() -> None:
    generator = np.random.default_rng(1)
    before, after = generator.lognormal(3, 1.5, 20_000), generator.lognormal(3, 1.5, 20_000) * 2
    edges = np.histogram_bin_edges(np.concatenate([before, after]), "sturges")
    wide = [np.maximum(np.histogram(x, edges)[0], 0.5) / len(x) for x in (before, after)]
    equal_width = float(np.sum((wide[1] - wide[0]) * np.log(wide[1] / wide[0])))
    assert decile_psi(before, after) > 0.1 > equal_width


def test_values_that_pile_up_on_one_number_have_a_bin_of_their_own() -> None:
    zeros = np.zeros(8_000)
    before = np.concatenate([zeros, np.linspace(1, 2, 2_000)])
    after = np.concatenate([zeros[:6_000], np.linspace(1, 2, 4_000)])
    assert decile_psi(before, after) > 0.15


def test_evidently_runs_the_decile_test_by_its_name() -> None:
    from evidently.legacy.calculations.stattests.registry import get_registered_stattest
    from evidently.legacy.core import ColumnType

    test = get_registered_stattest(register_with_evidently(), ColumnType.Numerical)
    generator = np.random.default_rng(2)
    a, b = generator.normal(size=4_000), generator.normal(1, 1, 4_000)
    assert test(pd.Series(a), pd.Series(b), ColumnType.Numerical, 0.1).drift_score == pytest.approx(
        decile_psi(a, b)
    )


def test_few_values_are_categories_and_nothing_at_all_is_empty() -> None:
    nothing = column([np.nan] * 10)
    assert kind_of(nothing, nothing) == "empty"
    assert kind_of(column([0, 1, 2] * 10), column([1] * 10)) == "category"
    assert kind_of(column(range(100)), column(range(100))) == "numeric"
    assert kind_of(pd.Series(["a", "b"]), pd.Series(["a"])) == "category"


def test_rising_missingness_is_found_although_the_values_did_not_move() -> None:
    values = np.random.default_rng(3).normal(size=10_000)
    gaps = np.where(np.random.default_rng(4).random(10_000) < 0.12, np.nan, values)
    drift = measure_column("device_age", column(values), column(gaps), Thresholds())
    assert drift.passed == ("missing",)
    assert drift.current_missing == pytest.approx(0.12, abs=0.02)


def test_a_column_that_went_missing_altogether_is_measured_without_failing() -> None:
    drift = measure_column("x", column(np.arange(1000)), column([np.nan] * 1000), Thresholds())
    assert drift.passed == ("missing",)
    assert set(drift.values) == {"missing"}


def test_infinite_values_count_as_missing() -> None:
    drift = measure_column("x", column(np.arange(1000)), column([np.inf] * 1000), Thresholds())
    assert drift.current_missing == 1.0


def test_a_sample_is_the_same_every_time_and_keeps_its_order() -> None:
    frame = pd.DataFrame({"x": range(1000)})
    assert sample(frame, 100).equals(sample(frame, 100))
    assert sample(frame, 100)["x"].is_monotonic_increasing


def test_calibration_widens_a_restless_column_and_narrows_a_still_one() -> None:
    quiet = [
        {"restless": {"wasserstein": 0.12 + week / 100}, "still": {"wasserstein": 0.004}} for week in range(6)
    ]
    thresholds = calibrate(quiet)
    assert thresholds.limit("restless", "wasserstein") == pytest.approx(0.17 * 1.5)
    assert thresholds.limit("still", "wasserstein") == SMALLEST_LIMITS["wasserstein"]
    assert thresholds.limit("unknown", "wasserstein") == DEFAULT_LIMITS["wasserstein"]
    assert thresholds.weeks == 6


def test_one_quiet_week_cannot_narrow_a_limit() -> None:
    thresholds = calibrate([{"still": {"psi": 0.001}}])
    assert thresholds.limit("still", "psi") == DEFAULT_LIMITS["psi"]


def test_thresholds_come_back_from_their_file_as_they_were(tmp_path) -> None:  # type: ignore[no-untyped-def]
    thresholds = calibrate([{"a": {"js": 0.2}}] * 4)
    thresholds.save(tmp_path / "thresholds.json")
    assert Thresholds.load(tmp_path / "thresholds.json") == thresholds


def test_a_name_that_the_reference_never_had_is_news_however_rare() -> None:
    before = column([0, 1] * 5_000)
    after = column([0, 1] * 4_980 + [4] * 40)
    assert measure_column("txn_channel", before, after, Thresholds()).passed == ("unseen",)
    assert measure_column("customer_txn_count_1h", before, after, Thresholds()).passed == ()


def test_an_age_that_grows_with_the_calendar_is_no_drift() -> None:
    days = np.random.default_rng(5).uniform(40, 60, 5_000) * 86_400
    drift = measure_column(
        "customer_seconds_since_first_txn", column(days), column(days + 30 * 86_400), Thresholds()
    )
    assert drift.passed == ()
