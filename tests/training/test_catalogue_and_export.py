"""The feature catalogue, one feature explained, the ONNX export, and the handbook's protocol."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import handbook_test
from fraud.features.feature_list import VECTOR
from training import explain
from training.catalogue import entries, markdown
from training.constraints import direction
from training.explain import by_value
from training.onnx_export import TOLERANCE, compare, export
from training.plan import Trained
from training.rows import Rows


def test_the_catalogue_lists_the_vector_in_its_order_with_every_fact() -> None:
    listed = entries()
    assert tuple(entry.name for entry in listed) == VECTOR
    for entry in listed:
        assert entry.meaning and entry.source and entry.freshness and entry.ttl and entry.null
    text = markdown(None)
    assert all(f"`{name}`" in text for name in VECTOR)


def test_constraints_name_features_that_exist_and_never_an_amount() -> None:
    constrained = [name for name in VECTOR if direction(name)]
    assert any("fraud" in name for name in constrained) and any(name.endswith("_5m") for name in constrained)
    assert not any("amount" in name for name in constrained)


def test_a_misspelt_feature_gets_the_nearest_names(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain.main(["card_txn_count_5"]) == 1
    assert "card_txn_count_5m" in capsys.readouterr().err


def test_a_feature_is_explained_without_any_model(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain.main(["card_txn_count_5m"]) == 0
    assert "velocity state" in capsys.readouterr().out


def test_bins_of_a_feature_hold_every_row_once() -> None:
    values = np.array([1.0, 1.0, 2.0, 3.0, np.nan, 9.0])
    rows = by_value(values, np.array([0.0, 1, 0, 0, 1, 1]), np.full(6, 0.5), bins=3)
    assert sum(row["rows"] for row in rows) == 6
    assert rows[-1]["values"] == "missing" and rows[-1]["fraud_rate"] == 1.0


def test_the_onnx_export_scores_as_the_model_does(trained: Trained, session_rows: Rows) -> None:
    pytest.importorskip("onnxmltools")
    features = session_rows.features[:2_000].astype(np.float32).astype(np.float64)
    equality = compare(trained.model, export(trained.model), features)
    assert equality.rows == 2_000
    assert equality.different == 0, equality
    assert equality.largest_difference <= TOLERANCE


def test_the_handbook_test_week_leaves_out_customers_known_by_each_day(session_rows: Rows) -> None:
    """
    train  | delay  | test        fraud of a on day 2 of training: known from the start
    0 .. 6 | 7 ..13 | 14 .. 20    fraud of b on day 9: known from test day 17 on (9 + 7, the day after)
    """
    start = date(2018, 7, 25)
    first = (start - date(1970, 1, 1)).days
    plan = [
        (2, "a", 1),
        (9, "b", 1),
        (14, "a", 0),
        (14, "b", 0),
        (16, "b", 0),
        (17, "b", 0),
        (17, "c", 0),
        (21, "c", 0),
    ]
    some = np.zeros(len(session_rows), dtype=bool)
    some[: len(plan)] = True
    rows = session_rows.take(some)
    rows = replace(
        rows,
        event_us=np.array([(first + day) * 86_400_000_000 for day, _, _ in plan]),
        label=np.array([fraud for _, _, fraud in plan], dtype=np.int8),
        described={"customer_id": np.array([name for _, name, _ in plan], dtype=object)},
    )
    kept = [
        (int(day) - first, name)
        for day, name in zip(handbook_test(rows, start).day, handbook_test(rows, start).customer, strict=True)
    ]
    assert kept == [(14, "b"), (16, "b"), (17, "c")]
