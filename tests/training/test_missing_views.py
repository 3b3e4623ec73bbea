"""Training under missing views: what is masked, what is chosen for it, and the gate on what comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bentos.models.by_pattern import ByPattern
from fraud.contract.transaction import Transaction
from stores.models import Limits, read_manifest
from stores.patterns import EVERYTHING, views
from training.calibration import apply_calibration
from training.disturbed import by_pattern, decided
from training.evidence import saved_model
from training.gates import card_path, outage_gate
from training.missing import DEFAULT_RATES, MOST_STOPPED, log_loss, rates, with_masked
from training.missing_log import count_patterns
from training.model import Sample
from training.plan import Trained
from training.promote import read_deployment
from training.rows import Rows
from training.save import model_folder, newest_version, save
from training.thresholds import CostModel, within
from training.train import main

NAMES = ("customer_txn_count_1h", "customer_txn_count_7d", "txn_amount")


def test_rates_are_the_stated_ones_and_the_logs_where_it_says_more() -> None:
    patterns = views().patterns()
    stated = rates(patterns)
    assert sum(stated.values()) == pytest.approx(sum(DEFAULT_RATES.values()))
    assert rates(patterns, {"profiles": 0.2, "states": 1e-6}) == stated | {"profiles": 0.2}


def test_masked_copies_weigh_what_their_patterns_are_frequent_and_a_row_what_it_weighed() -> None:
    rows = 40_000
    sample = Sample(np.ones((rows, 3)), np.zeros(rows, dtype=np.int8), np.full(rows, 2.0))
    shares = {"states": 0.04, "profiles": 0.02, EVERYTHING: 0.01}
    made = with_masked(sample, NAMES, shares, np.array([False, False, False]), seed=1)
    assert made.weight is not None and len(made.label) == 2 * rows
    assert made.weight.sum() == pytest.approx(2.0 * rows, rel=0.01)
    lost = np.isnan(made.features)
    for pattern, columns in {
        "states": (True, False),
        "profiles": (False, True),
        EVERYTHING: (True, True),
    }.items():
        mine = (lost[:, :2] == columns).all(axis=1)
        assert made.weight[mine].sum() / made.weight.sum() == pytest.approx(shares[pattern], rel=0.05)
    assert not lost[:, 2].any() and not lost[:rows].any()


def test_thresholds_find_what_was_found_before_as_far_as_the_most_allows() -> None:
    """A ranking by hand: ten rows, four frauds; two rows were stopped before, both frauds."""
    label = np.array([1, 1, 0, 1, 0, 0, 1, 0, 0, 0])
    before = np.array([0.9, 0.8, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    after = np.array([0.20, 0.35, 0.50, 0.45, 0.3, 0.1, 0.05, 0.04, 0.03, 0.02])
    amount = np.full(10, 50_000.0)

    def chosen(most: float) -> tuple[float, float, float]:
        found = within(
            "states", label, amount, (before, 0.5), after, CostModel(), most=most, calibration=None
        )  # fmt: skip
        return found.review, found.stopped_share, found.recall

    # The two that find as many frauds as before are the second and third of the new ranking.
    assert chosen(3.0) == (pytest.approx((0.35 + 0.3) / 2), 0.3, 0.5)
    assert chosen(1.0) == (pytest.approx((0.45 + 0.35) / 2), 0.2, 0.25)
    assert chosen(0.1)[1:] == (0.0, 0.0)


def test_under_every_pattern_a_model_stops_at_most_the_stated_multiple(
    trained: Trained, session_rows: Rows, home: object
) -> None:
    version = save(trained, session_rows)
    model, manifest = saved_model(version)
    late = session_rows.take(session_rows.mature & trained.split.test.mask(session_rows.event_us))
    figures = by_pattern(model, manifest, late)
    usual = figures[0]["review_rate"] + figures[0]["block_rate"]
    assert figures[0]["name"] == "undisturbed" and figures[-1]["name"] == EVERYTHING
    for each in figures[1:]:
        spread = 3 * (max(usual, 1 / len(late)) / len(late)) ** 0.5
        assert each["review_rate"] + each["block_rate"] <= MOST_STOPPED[each["kind"]] * (usual + spread)
    _card(version, figures)
    assert outage_gate(version)[0]["passed"], outage_gate(version)


def test_a_model_that_would_send_an_outage_to_the_analysts_is_refused(
    trained: Trained, session_rows: Rows, home: object
) -> None:
    version = save(trained, session_rows)
    assert not outage_gate(version)[0]["passed"]  # no figures yet
    figures = by_pattern(*saved_model(version), session_rows)
    figures[-1] |= {"review_rate": 0.9, "reviews_per_day": 0.9 * len(session_rows) / 50}
    _card(version, figures)
    (check,) = outage_gate(version)
    assert not check["passed"] and f"without {EVERYTHING}" in check["reason"]


def test_a_first_model_that_a_gate_refuses_is_saved_and_the_reason_said(
    make_folder: Callable[..., Path],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flood = [{"gate": "outage", "passed": False, "reason": "at worst without everything: 900%"}]
    monkeypatch.setattr("training.promote.outage_gate", lambda version: flood)
    assert main(["--dataset", str(make_folder()), "--champion", "--rounds", "20", "--threads", "1"]) == 1
    assert "is not made champion: outage: at worst" in capsys.readouterr().err
    assert newest_version() is not None and read_deployment().champion is None


def _card(version: str, figures: list[dict[str, object]]) -> None:
    card_path(version).parent.mkdir(parents=True, exist_ok=True)
    card_path(version).write_text(json.dumps({"patterns": figures, "alerts_per_day": 100}))


def test_the_service_decides_a_row_without_its_views_as_training_judged_it(
    trained: Trained, session_rows: Rows, home: object
) -> None:
    """The manifest crosses over: scores and thresholds of the service's lookup are training's own."""
    version = save(trained, session_rows)
    model, raw_manifest = saved_model(version)
    manifest = read_manifest((model_folder(version) / "manifest.json").read_text())
    limits = ByPattern(manifest.limits, manifest.patterns)
    everything = views().patterns()[-1]
    expected = decided(model, raw_manifest, session_rows, everything)
    status = dict.fromkeys(views().key, "timeout")
    found: Limits = limits.of(status, _transaction())
    columns = [name == "txn_amount" or not name.startswith(("card_", "terminal_")) for name in model.names]
    blank = np.where(columns, session_rows.features, np.nan)
    scores = found.score(model.raw(blank))
    np.testing.assert_array_equal(scores, expected.score)
    np.testing.assert_array_equal(scores >= found.thresholds.block, expected.block)
    known: Mapping[str, str] = dict.fromkeys(views().key, "fresh")
    assert limits.of(known, _transaction()) is limits.undisturbed


def _transaction() -> Transaction:
    from tests.bentos.running import transaction

    return transaction()


def test_log_loss_is_the_textbooks() -> None:
    label, probability = np.array([1, 0, 0, 1]), np.array([0.8, 0.1, 0.4, 0.35])
    assert log_loss(label, probability) == pytest.approx(0.4722879)
    assert log_loss(label[:2], probability[:2], np.array([3.0, 1.0])) == pytest.approx(
        (3 * -np.log(0.8) - np.log(0.9)) / 4
    )


def test_the_log_is_counted_by_pattern() -> None:
    usual = dict.fromkeys(views().key, "fresh")
    frozen = dict.fromkeys(views().key, "timeout")
    stale = usual | {"card_profile": "stale"}
    statuses = [usual, usual, stale, frozen, frozen]
    keys = {
        name: ["x"] * 5
        for name in ("customer_id", "card_id", "merchant_id", "terminal_id", "device_id", "ip")
    }
    table = pa.table(
        {
            "feature_status": pa.array(
                [list(s.items()) for s in statuses], pa.map_(pa.string(), pa.string())
            ),
            **keys,
        }
    )
    assert count_patterns(table) == {"card_profile": 1, EVERYTHING: 2}


def test_a_thinned_set_keeps_its_weights_under_a_pattern(
    trained: Trained, session_rows: Rows, home: object
) -> None:
    version = save(trained, session_rows)
    model, manifest = saved_model(version)
    thinned = replace(session_rows, weight=np.where(session_rows.label > 0, 1.0, 4.0))
    plain, weighted = (by_pattern(model, manifest, rows)[-1] for rows in (session_rows, thinned))
    assert weighted["base_brier"] < plain["base_brier"]
    assert apply_calibration(None, np.array([0.5])) == 0.5
