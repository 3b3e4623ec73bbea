from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fraud.features.feature_list import VECTOR
from monitoring.parity.comparison import ParityError, compare, views_of_features
from monitoring.parity.report import write_report

FEATURES = ("customer_txn_count_1h", "merchant_amount_mean_30d", "txn_amount")
START = datetime(2018, 8, 1, tzinfo=UTC)


def served(rows: int = 50, **changes: object) -> pa.Table:
    generator = np.random.default_rng(0)
    columns: dict[str, object] = {
        "transaction_id": [f"t{row}" for row in range(rows)],
        "event_timestamp": pa.array(
            [START + timedelta(minutes=row) for row in range(rows)], pa.timestamp("us", "UTC")
        ),
        "created_timestamp": pa.array(
            [START + timedelta(minutes=row) for row in range(rows)], pa.timestamp("us", "UTC")
        ),
        "customer_id": [f"c{row % 5}" for row in range(rows)],
        "merchant_id": [f"m{row % 7}" for row in range(rows)],
        **{name: pa.array(generator.lognormal(size=rows)) for name in FEATURES},
        "feature_status": [{"customer_velocity": "fresh", "merchant_profile": "fresh"} for _ in range(rows)],
        "view_timestamps": [
            {"customer_velocity": START + timedelta(minutes=row - 5, microseconds=1)} for row in range(rows)
        ],
        **changes,
    }
    map_type = pa.map_(pa.string(), pa.string())
    stamp_type = pa.map_(pa.string(), pa.timestamp("us", "UTC"))
    columns["feature_status"] = pa.array([list(d.items()) for d in columns["feature_status"]], map_type)  # type: ignore[attr-defined]
    columns["view_timestamps"] = pa.array([list(d.items()) for d in columns["view_timestamps"]], stamp_type)  # type: ignore[attr-defined]
    return pa.table(columns)


def with_value(table: pa.Table, feature: str, row: int, value: float | None) -> pa.Table:
    values = table[feature].to_pylist()
    values[row] = value
    return table.set_column(table.column_names.index(feature), feature, pa.array(values, pa.float64()))


def test_equal_tables_in_another_order_have_nothing_to_report() -> None:
    table = served()
    report = compare(table, table.take(pa.array(range(49, -1, -1))), FEATURES)
    assert (report.rows, report.features, report.mismatched_rows) == (50, 3, 0)
    assert report.values_exact == 150
    assert report.worst_feature is None
    assert report.causes == {}
    assert not report.failed()


def test_missing_equals_missing_whether_null_or_nan() -> None:
    left = with_value(served(), "txn_amount", 3, None)
    right = with_value(served(), "txn_amount", 3, float("nan"))
    assert compare(left, right, FEATURES).mismatched_rows == 0


def test_float_noise_is_told_apart_from_a_difference() -> None:
    table = served()
    value = table["txn_amount"][3].as_py()
    report = compare(table, with_value(table, "txn_amount", 3, value * (1 + 1e-12)), FEATURES)
    assert (report.mismatched_rows, report.values_noise, report.worst_feature) == (0, 1, "txn_amount")
    report = compare(table, with_value(table, "txn_amount", 3, value * (1 + 1e-6)), FEATURES)
    assert report.mismatched_rows == 1
    assert report.max_abs_diff == pytest.approx(value * 1e-6, rel=1e-6)


def test_what_serving_said_of_a_view_is_the_cause() -> None:
    statuses = [{"customer_velocity": "fresh", "merchant_profile": "fresh"} for _ in range(50)]
    statuses[4]["merchant_profile"] = "stale"
    statuses[5]["customer_velocity"] = "timeout"
    table = with_value(
        with_value(served(feature_status=statuses), FEATURES[1], 4, None), FEATURES[0], 5, None
    )
    report = compare(table, served(), FEATURES)
    assert report.causes == {"timeout": 1, "stale": 1}
    assert report.failed()
    assert not report.failed(allowed_share=0.05)


def test_a_state_older_than_the_previous_transaction_is_late() -> None:
    # customer c0:  t0 ----5 min---- t5 ----5 min---- t10    serving saw only what t0 left
    stamps = [{"customer_velocity": START + timedelta(minutes=row - 5, microseconds=1)} for row in range(50)]
    stamps[10] = {"customer_velocity": START + timedelta(microseconds=1)}
    report = compare(with_value(served(view_timestamps=stamps), FEATURES[0], 10, 99.0), served(), FEATURES)
    assert report.causes == {"late": 1}


def test_of_two_transactions_at_one_instant_the_later_one_has_to_see_the_other() -> None:
    # customer c0: t10 and t15 carry one time; t15 was known a microsecond later
    times = [START + timedelta(minutes=row) for row in range(50)]
    times[15] = times[10]
    known = [*times[:15], times[10] + timedelta(microseconds=1), *times[16:]]
    stamps = [{"customer_velocity": START + timedelta(minutes=row - 5, microseconds=1)} for row in range(50)]
    changes = {
        "event_timestamp": pa.array(times, pa.timestamp("us", "UTC")),
        "created_timestamp": pa.array(known, pa.timestamp("us", "UTC")),
    }
    stamps[15] = stamps[10]
    table = served(view_timestamps=stamps, **changes)
    assert compare(with_value(table, FEATURES[0], 15, 99.0), table, FEATURES).causes == {"late": 1}
    stamps[15] = {"customer_velocity": times[10] + timedelta(microseconds=1)}
    table = served(view_timestamps=stamps, **changes)
    assert compare(with_value(table, FEATURES[0], 15, 99.0), table, FEATURES).causes == {"unexplained": 1}


def test_a_late_event_has_the_version_after_the_one_before_it() -> None:
    # customer c0: t5 arrives with a time before t0's, and t10 reads only what t0 left
    times = [START + timedelta(minutes=row) for row in range(50)]
    times[5] = START - timedelta(minutes=3)
    stamps = [{"customer_velocity": START + timedelta(hours=2)} for _ in range(50)]
    stamps[10] = {"customer_velocity": START + timedelta(microseconds=1)}
    event = pa.array(times, pa.timestamp("us", "UTC"))
    table = served(view_timestamps=stamps, event_timestamp=event)
    assert compare(with_value(table, FEATURES[0], 10, 99.0), table, FEATURES).causes == {"late": 1}


def test_a_sample_is_held_against_all_decisions_of_the_time() -> None:
    stamps = [{"customer_velocity": START + timedelta(minutes=row - 5, microseconds=1)} for row in range(50)]
    stamps[10] = {"customer_velocity": START + timedelta(microseconds=1)}
    whole = served(view_timestamps=stamps)
    sample = whole.filter(pa.array([row != 5 for row in range(50)]))
    wrong = with_value(sample, FEATURES[0], 9, 99.0)
    assert compare(wrong, whole, FEATURES).causes == {"unexplained": 1}
    assert compare(wrong, whole, FEATURES, arrivals=whole).causes == {"late": 1}


def test_a_difference_without_a_known_cause_always_fails() -> None:
    report = compare(with_value(served(), "txn_amount", 7, 1e6), served(), FEATURES)
    assert report.causes == {"unexplained": 1}
    assert report.failed(allowed_share=1.0)
    assert report.worst_feature == "txn_amount"
    assert report.examples[0]["row"] == 7


def test_a_served_row_that_the_rebuild_lacks_is_counted() -> None:
    report = compare(served(), served().slice(10), FEATURES)
    assert (report.rows, report.unmatched) == (40, 10)
    assert report.failed(allowed_share=1.0)


def test_a_fanned_out_rebuild_is_refused() -> None:
    with pytest.raises(ParityError, match="fanned"):
        compare(served(), pa.concat_tables([served(), served(1)]), FEATURES)


def test_every_feature_of_the_vector_knows_its_views() -> None:
    views = views_of_features()
    assert set(VECTOR) <= set(views)
    assert views["customer_txn_count_1h"] == ("customer_velocity",)
    assert "merchant_profile" in views["merchant_amount_mean_30d"]


def test_both_reports_are_written_without_identifiers(tmp_path: Path) -> None:
    report = compare(with_value(served(), "txn_amount", 7, None), served(), FEATURES)
    as_json, as_html = write_report(report, tmp_path)
    content = json.loads(as_json.read_text())
    assert content["mismatched_rows"] == 1
    text = as_json.read_text() + as_html.read_text()
    assert "t7" not in text and "c2" not in text
