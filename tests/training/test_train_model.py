"""Training: judged on the future, refused when it should be, and behaving as the domain demands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fraud.features.profiles import USUAL_PLACE
from training.columns import left_out
from training.ensemble import SECOND, judge_ensemble, log_odds, merged
from training.folds import folds_of, grow, sample_of
from training.model import Model, Sample, fit, text_of, thin_genuine
from training.plan import Plan, Trained
from training.refusal import DivergedError, LeakError, refuse, strongest_feature
from training.rows import Rows, TrainingSetError, read_rows
from training.split import Fold, Span, SplitError
from training.train import main, plan_split
from training.train import train as train_aloud


def train(rows: Rows, plan: Plan, data: dict[str, Any] | None = None) -> Trained:
    return train_aloud(rows, plan, data=data, progress=lambda _: None)


SMALL = Plan(delay_days=7, rounds=40, patience=10, threads=1)


def test_the_model_beats_the_base_rate_and_finds_fraud(trained: Trained) -> None:
    assert trained.metrics["brier"] < trained.metrics["brier_base_rate"]
    assert trained.metrics["auc"] > 0.75
    assert trained.metrics["avg_prediction"] == pytest.approx(trained.metrics["base_rate"], rel=0.5)
    assert 0 < trained.thresholds.review <= trained.thresholds.block


def test_the_same_rows_and_seed_give_the_same_bytes(session_rows: Rows) -> None:
    first, second = (train(session_rows, SMALL) for _ in range(2))
    assert first.model.text == second.model.text
    assert first.model.calibration == second.model.calibration
    assert train(session_rows, replace(SMALL, seed=8)).model.text != first.model.text


def test_immature_rows_teach_nothing(session_rows: Rows) -> None:
    """Labels that no one knew at the cut can say anything without changing the model."""
    flipped = replace(
        session_rows, label=np.where(session_rows.mature, session_rows.label, 1).astype(np.int8)
    )
    assert train(flipped, SMALL).model.text == train(session_rows, SMALL).model.text


def test_the_test_period_teaches_nothing(session_rows: Rows) -> None:
    trained = train(session_rows, SMALL)
    late = session_rows.event_us >= trained.split.test.start
    noise = session_rows.features.copy()
    noise[late] = np.random.default_rng(1).permutation(noise[late])
    shuffled = replace(session_rows, features=noise)
    assert train(shuffled, SMALL).model.text == trained.model.text


def test_the_final_trees_may_be_grown_again_on_every_mature_row(session_rows: Rows) -> None:
    judged = train(session_rows, SMALL)
    final = train(session_rows, replace(SMALL, final="everything"))
    assert final.metrics == judged.metrics
    assert final.model.text != judged.model.text


def test_a_feature_that_knows_the_label_is_refused_and_named(session_rows: Rows) -> None:
    leaking = session_rows.features.copy()
    place = session_rows.names.index("noise_a")
    leaking[:, place] = session_rows.label + np.random.default_rng(1).normal(0, 0.05, len(session_rows))
    with pytest.raises(LeakError, match="noise_a"):
        train(replace(session_rows, features=leaking), SMALL)


def test_a_lower_ceiling_refuses_what_the_label_delay_does_not_allow(session_rows: Rows) -> None:
    with pytest.raises(LeakError, match=r"above 0\.6"):
        train(session_rows, replace(SMALL, auc_ceiling=0.6))


def test_probabilities_worse_than_the_base_rate_are_refused(session_rows: Rows) -> None:
    figures = {"brier": 0.05, "brier_base_rate": 0.02, "auc": 0.9, "frauds": 80.0}
    with pytest.raises(DivergedError, match="learning rate"):
        refuse(figures, session_rows)
    refuse({**figures, "brier": 0.0201, "frauds": 12.0}, session_rows)  # noise, with so few


def test_the_strongest_feature_alone_is_the_one_fraud_follows(session_rows: Rows) -> None:
    assert strongest_feature(session_rows)[0] in ("terminal_fraud_rate_1d", "card_txn_count_5m")


def test_a_set_without_mature_labels_says_what_to_do(session_rows: Rows) -> None:
    with pytest.raises(SplitError, match="later cut"):
        train(replace(session_rows, mature=np.zeros(len(session_rows), dtype=bool)), SMALL)


def test_search_keeps_to_its_budget_and_reports_its_trials(session_rows: Rows) -> None:
    trained = train(session_rows, replace(SMALL, search_seconds=1.0))
    assert trained.trials
    best = max(trial["average_precision"] for trial in trained.trials)
    assert any(
        trial["average_precision"] == best
        and trial["settings"]["num_leaves"] == trained.settings["num_leaves"]
        for trial in trained.trials
    )


#   fit ...........|held|              both held-out periods end before the test period, and
#   fit ................|held| gap |test|   the newest is the one that calibrates
def test_the_folds_that_choose_walk_forward_and_never_reach_the_test_period(session_rows: Rows) -> None:
    split = plan_split(session_rows, SMALL)
    folds = folds_of(split, replace(SMALL, folds=2))
    assert folds[-1] == Fold(split.fit, split.validation) and len(folds) == 2
    assert folds[0].train.start == split.fit.start and folds[0].test.end <= folds[1].test.start
    assert all(fold.train.end <= fold.test.start < fold.test.end <= split.validation.end for fold in folds)
    assert folds_of(split, replace(SMALL, folds=9))[-1] == folds[-1]


def test_trees_are_chosen_by_the_mean_over_the_folds(session_rows: Rows) -> None:
    split = plan_split(session_rows, SMALL)
    folds = folds_of(split, replace(SMALL, folds=2))
    keep = np.zeros(len(session_rows.names), dtype=bool)

    def chosen(*folds: Fold) -> tuple[int, float]:
        grown = grow(session_rows, folds, {}, SMALL, keep, monotone=None, threads=1)
        return grown.trees, grown.average_precision

    alone = chosen(folds[1])
    assert chosen(folds[1], folds[1]) == alone
    assert chosen(*folds)[1] != alone[1]
    without_fraud = Fold(folds[0].train, Span(split.test.end, split.test.end + 1))
    assert chosen(without_fraud, folds[1]) == alone


def test_merged_trees_give_the_weighted_log_odds_and_explain_them(session_rows: Rows) -> None:
    sample = Sample(session_rows.features, session_rows.label)
    members = []
    for settings, rounds in (({}, 12), (SECOND, 9)):
        booster, _ = fit(sample, session_rows.names, settings, rounds=rounds, threads=1)
        members.append(Model(text_of(booster, rounds), session_rows.names))
    both = replace(members[0], text=merged({members[0].text: 0.7, members[1].text: 0.3}))
    rows = session_rows.features[:500]
    margins = [log_odds(model.raw(rows)) for model in (*members, both)]
    assert both.booster.num_trees() == 21
    assert margins[2] == pytest.approx(0.7 * margins[0] + 0.3 * margins[1], abs=1e-9)
    assert both.contributions(rows).sum(axis=1) == pytest.approx(margins[2], abs=1e-9)


def test_a_second_learner_is_kept_only_if_it_is_surely_better(session_rows: Rows) -> None:
    random = np.random.default_rng(2)
    label = session_rows.label
    good, other = (1 / (1 + np.exp(-(4.0 * label - 3 + random.normal(size=len(label))))) for _ in range(2))
    noise = random.random(len(label))
    assert judge_ensemble(label, [good, other], rounds=40).kept
    useless = judge_ensemble(label, [good, noise], rounds=40)
    assert not useless.kept and useless.weights[0] >= 0.9
    trained = train(session_rows, replace(SMALL, ensemble=True, folds=1))
    assert trained.ensemble is not None
    assert trained.model.booster.num_trees() == trained.trees


def test_thinned_genuine_rows_still_stand_for_all_of_them(session_rows: Rows) -> None:
    keep, stands_for = thin_genuine(session_rows.label, 4_000, seed=1)
    assert stands_for is not None and keep.sum() == len(stands_for) < 4_300
    assert session_rows.label[keep].sum() == session_rows.label.sum()
    assert stands_for.sum() == pytest.approx(len(session_rows))


def test_a_thinned_set_is_calibrated_to_the_whole(session_rows: Rows) -> None:
    keep = (session_rows.label > 0) | (np.random.default_rng(3).random(len(session_rows)) < 0.25)
    thinned = replace(session_rows.take(keep), weight=np.where(session_rows.label > 0, 1.0, 4.0)[keep])
    trained = train(thinned, SMALL)
    whole = train(session_rows, SMALL)
    assert trained.metrics["avg_prediction"] == pytest.approx(whole.metrics["avg_prediction"], rel=0.35)
    assert trained.metrics["average_precision"] == pytest.approx(whole.metrics["average_precision"], abs=0.12)


def test_columns_that_are_constant_or_repeat_another_are_left_out() -> None:
    values = np.random.default_rng(1).normal(size=(50, 3))
    values[3, 0] = np.nan
    features = np.column_stack(
        (values, values[:, 0], np.full(50, 7.0), np.full(50, np.nan), values[:, 1] + 1e-9)
    )
    assert left_out(features).tolist() == [False, False, False, True, True, True, False]


def test_where_a_customer_lives_is_never_split_on(make_rows: Callable[..., Rows]) -> None:
    rows = make_rows()
    # Even where it tells fraud better than anything else does.
    renamed = {"terminal_fraud_rate_1d": USUAL_PLACE[0], "noise_a": USUAL_PLACE[1]}
    grown = train(replace(rows, names=tuple(renamed.get(name, name) for name in rows.names)), SMALL)
    assert set(USUAL_PLACE) <= set(grown.left_out)
    assert not set(USUAL_PLACE) & set(grown.model.booster.trees_to_dataframe()["split_feature"])
    assert "card_txn_count_5m" in set(grown.model.booster.trees_to_dataframe()["split_feature"])


def test_what_trees_are_grown_on_is_a_copy_without_the_columns_left_out(session_rows: Rows) -> None:
    before = session_rows.features.copy()
    drop = np.zeros(len(session_rows.names), dtype=bool)
    drop[2] = True
    mask = session_rows.event_us < np.median(session_rows.event_us)
    sample = sample_of(session_rows, mask, drop, replace(SMALL, most_rows=2_000, missing={}))
    assert not sample.features[:, 2].any() and len(sample.label) < mask.sum()
    assert sample.label.sum() == session_rows.label[mask].sum()
    assert np.array_equal(session_rows.features, before, equal_nan=True)


def test_a_flag_that_is_only_sometimes_missing_is_kept() -> None:
    column = np.ones((10, 1))
    column[4] = np.nan
    assert not left_out(column).any()


# What the model does, whatever its trees look like.


def _typical(rows: Rows) -> np.ndarray:
    return np.nanmedian(rows.features, axis=0)


def test_minimum_a_burst_at_a_risky_terminal_scores_far_above_a_typical_row(
    trained: Trained, session_rows: Rows
) -> None:
    typical = _typical(session_rows)
    clear = typical.copy()
    clear[session_rows.names.index("card_txn_count_5m")] = 5
    clear[session_rows.names.index("terminal_fraud_rate_1d")] = 0.8
    low, high = trained.model.score(np.vstack((typical, clear)))
    assert high > 20 * low and high >= trained.thresholds.review


@pytest.mark.parametrize("name", ["card_txn_count_5m", "terminal_fraud_rate_1d"])
def test_direction_more_velocity_and_more_known_fraud_never_lower_the_score(
    trained: Trained, session_rows: Rows, name: str
) -> None:
    place = session_rows.names.index(name)
    for row in session_rows.features[:25]:
        ladder = np.repeat(row[None, :], 30, axis=0)
        ladder[:, place] = np.linspace(0, 10, 30)
        assert np.all(np.diff(trained.model.score(ladder)) >= 0)


def test_invariance_ids_are_no_input_so_renaming_them_changes_no_score(
    trained: Trained, session_rows: Rows
) -> None:
    renamed = replace(
        session_rows, described={**session_rows.described, "customer_id": np.arange(len(session_rows))}
    )
    assert train(renamed, trained.plan, data=trained.data).model.text == trained.model.text


def test_a_missing_value_is_not_a_zero(trained: Trained, session_rows: Rows) -> None:
    row = session_rows.features[:200].copy()
    place = session_rows.names.index("terminal_fraud_rate_1d")
    missing, zero = row.copy(), row.copy()
    missing[:, place], zero[:, place] = np.nan, 0.0
    assert not np.array_equal(trained.model.raw(missing), trained.model.raw(zero))


def test_a_row_scores_the_same_alone_and_in_company(trained: Trained, session_rows: Rows) -> None:
    together = trained.model.score(session_rows.features[:50])
    alone = [float(trained.model.score(session_rows.features[place : place + 1])[0]) for place in range(50)]
    assert together.tolist() == alone


def test_a_folder_that_is_no_training_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingSetError, match=r"training\.dataset"):
        read_rows(tmp_path)


def test_a_set_read_back_is_sorted_by_event_time(make_folder: Callable[..., Path]) -> None:
    rows = read_rows(make_folder(rows=2_000))
    assert np.all(np.diff(rows.event_us) >= 0)
    assert rows.features.shape == (2_000, len(rows.names))
    assert np.isnan(rows.features).any()


def test_the_command_reports_a_refusal_and_saves_nothing(
    make_folder: Callable[..., Path], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--dataset", str(make_folder()), "--auc-ceiling", "0.6", "--rounds", "20", "--threads", "1"])
    assert code == 1
    assert "leaking" in capsys.readouterr().err
    assert not (home / "bentoml").exists()
