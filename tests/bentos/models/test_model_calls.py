"""The model's fast calls, against LightGBM's own Python package."""

from __future__ import annotations

import json
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from bentos.models.model import Model
from bentos.models.risk_factors import PathAttribution, in_words
from fraud.features.feature_list import VECTOR
from stores.models import ModelError, model_folder, newest_version, read_manifest, read_model_files
from tests.bentos.running import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("store"), "one")


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    random = np.random.default_rng(9)
    rows = random.lognormal(2, 2, size=(65, len(VECTOR)))
    rows[random.random(rows.shape) < 0.3] = np.nan
    return rows


def test_every_call_equals_booster_predict_to_the_bit(folder: Path, rows: np.ndarray) -> None:
    booster = lightgbm.Booster(model_file=str(folder / "model.txt"))
    model = Model(read_model_files(folder))
    expected = booster.predict(rows)
    np.testing.assert_array_equal(model.raw(rows), expected)
    for size in (1, 3):
        parts = [model.raw(rows[first : first + size]) for first in range(0, len(rows), size)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
    np.testing.assert_array_equal(model.contributions(rows), booster.predict(rows, pred_contrib=True))
    np.testing.assert_array_equal(model.leaves(rows), booster.predict(rows, pred_leaf=True))
    model.close()


def test_rows_that_are_not_contiguous_score_the_same(folder: Path, rows: np.ndarray) -> None:
    model = Model(read_model_files(folder))
    np.testing.assert_array_equal(model.raw(np.asfortranarray(rows)), model.raw(rows))
    np.testing.assert_array_equal(model.raw(np.asfortranarray(rows)[3:4]), model.raw(rows)[3:4])


def test_a_model_with_another_digest_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path, "tampered")
    text = (folder / "model.txt").read_text()
    (folder / "model.txt").write_text(text.replace("leaf_value=", "leaf_value= ", 1))
    with pytest.raises(ModelError, match="digest"):
        read_model_files(folder)


def test_a_manifest_error_names_the_part(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["thresholds"]
    with pytest.raises(ModelError, match="thresholds"):
        read_manifest(json.dumps(manifest))
    with pytest.raises(ModelError, match="calibration"):
        read_manifest(
            json.dumps(manifest | {"thresholds": {"review": 0.1, "block": 0.2}, "calibration": {"z": 1}})
        )
    with pytest.raises(ModelError, match="review <= block"):
        read_manifest(json.dumps(manifest | {"thresholds": {"review": 0.3, "block": 0.2}}))


def test_calibration_is_trainings_own(folder: Path) -> None:
    from training.calibration import apply_calibration

    raw = np.array([0.0, 1e-12, 0.01, 0.2, 0.5, 0.99, 1.0])
    manifest = json.loads((folder / "manifest.json").read_text())
    for calibration in (
        {"kind": "isotonic", "x": [0.0, 0.1, 0.5, 1.0], "y": [0.0, 0.02, 0.4, 0.9]},
        {"kind": "platt", "a": 0.9, "b": -0.4},
    ):
        calibrate = read_manifest(json.dumps(manifest | {"calibration": calibration})).calibrate
        assert calibrate is not None
        np.testing.assert_array_equal(calibrate(raw), apply_calibration(calibration, raw))


def test_the_newest_model_is_the_one_that_bentoml_saved_last(tmp_path: Path) -> None:
    assert newest_version(tmp_path) is None
    save_model(tmp_path, "a")
    save_model(tmp_path, "b")
    assert newest_version(tmp_path) == "b"
    assert model_folder(tmp_path, "tollgate_fraud:b") == model_folder(tmp_path, "b")


def test_path_credits_add_up_to_the_score(folder: Path, rows: np.ndarray) -> None:
    booster = lightgbm.Booster(model_file=str(folder / "model.txt"))
    model = Model(read_model_files(folder))
    attribution = PathAttribution(model, (folder / "model.txt").read_bytes())
    trees = booster.dump_model()["tree_info"]
    start = sum(tree["tree_structure"].get("internal_value", 0.0) for tree in trees)
    for row in rows[:10]:
        score = booster.predict(row[None], raw_score=True)[0]
        assert attribution.of(row[None]).sum() == pytest.approx(score - start, abs=1e-6)


def test_reasons_are_phrases_in_order_of_weight_and_none_is_of_what_is_unknown() -> None:
    names = (
        "txn_amount", "customer_txn_count_5m", "customer_txn_count_30d", "card_new_device",
        "customer_new_country", "customer_speed_kmh",
    )  # fmt: skip
    values = np.array([123456.0, 12.0, 33.0, np.nan, 1.0, 900.4])
    reasons = in_words(names, values, np.array([0.5, 2.0, -0.1, 3.0, 1.0, 0.9]))
    assert [(reason.phrase, reason.code) for reason in reasons] == [
        ("12 purchases in 5 minutes, usually 1 a day", "V1"),
        ("first purchase in this country", "L1"),
        ("900 km/h from the last purchase to this one", "L1"),
        ("amount of 1,234.56", "A1"),
    ]
    assert in_words(names, np.full(6, np.nan), np.ones(6)) == []


def test_what_is_no_reason_is_not_told() -> None:
    names = ("customer_new_country", "card_fraud_count_7d", "txn_night", "merchant_fraud_count_1d")
    reasons = in_words(names, np.array([0.0, 0.0, 0.0, 1.0]), np.array([4.0, 3.0, 2.0, 1.0]))
    assert [reason.phrase for reason in reasons] == ["1 fraud reported at this merchant in 1 day"]
