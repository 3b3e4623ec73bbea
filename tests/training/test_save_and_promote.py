"""From a trained model to the store, its card, and the decisions it may make."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bentos.models.model import Model as ServedModel
from monitoring.drift.command import representative
from stores.keys import open_keys
from stores.model_signature import model_verifies
from stores.models import read_model_files
from stores.settings import settings
from training import promote, tracking
from training.evidence import gather, with_fraud_types, write_evidence
from training.gates import card_path, registered_gate, replay_gate
from training.plan import Plan, Trained
from training.promote import PromotionError, read_deployment, read_history
from training.rows import Rows
from training.save import main as list_models
from training.save import model_folder, newest_version, reference_table, save
from training.train import main, train


@pytest.fixture
def saved(home: Path, trained: Trained, session_rows: Rows) -> str:
    return save(trained, session_rows)


@pytest.fixture
def second(home: Path, session_rows: Rows) -> str:
    plan = Plan(delay_days=7, rounds=60, patience=20, threads=1, seed=11)
    return save(train(session_rows, plan, progress=lambda _: None), session_rows)


def test_a_saved_model_is_text_and_numbers_that_the_service_scores_alike(
    saved: str, trained: Trained, session_rows: Rows
) -> None:
    folder = model_folder(saved)
    assert {path.name for path in folder.iterdir()} == {
        "model.txt",
        "manifest.json",
        "signature",
        "reference.parquet",
        "model.yaml",
    }
    served = ServedModel(read_model_files(folder))
    assert served.manifest.features == session_rows.names
    assert np.array_equal(
        served.score(session_rows.features[:500]), trained.model.score(session_rows.features[:500])
    )
    served.close()


def test_the_manifest_says_what_the_model_was_judged_by_and_made_of(saved: str, trained: Trained) -> None:
    manifest = json.loads((model_folder(saved) / "manifest.json").read_bytes())
    assert manifest["version"] == saved == newest_version()
    assert manifest["digest"] == trained.model.digest
    assert manifest["thresholds"]["review"] <= manifest["thresholds"]["block"]
    assert manifest["metrics"]["brier"] < manifest["metrics"]["brier_base_rate"]
    described = manifest["feature_reference"]["txn_amount"]
    assert described["quantiles"] == sorted(described["quantiles"]) and 0 < described["missing"] < 0.1
    assert manifest["trained_at_cut"] == "2020-02-20T00:00:00Z"


def test_the_reference_rows_are_the_test_period_scored(saved: str, trained: Trained) -> None:
    table = pq.read_table(model_folder(saved) / "reference.parquet")
    beside = {"score", "is_fraud", "event_timestamp", "weight"}
    assert set(trained.model.names) | beside == set(table.column_names)
    assert set(table.column("weight").to_pylist()) == {1.0}
    times = table.column("event_timestamp").cast("int64").to_numpy()
    assert times.min() >= trained.split.test.start
    assert len(table) == trained.metrics["rows"]


def test_the_reference_of_a_thinned_set_says_what_each_row_stands_for(
    trained: Trained, session_rows: Rows
) -> None:
    thinned = replace(session_rows, weight=np.where(session_rows.label > 0, 1.0, 4.0))
    table = reference_table(trained, thinned)
    stands_for = table.column("weight").to_numpy()
    assert np.array_equal(stands_for, np.where(table.column("is_fraud").to_numpy(), 1.0, 4.0))
    whole = representative(table.to_pandas())
    assert whole["is_fraud"].mean() < table.to_pandas()["is_fraud"].mean()


def test_saving_the_same_model_again_replaces_it(saved: str, trained: Trained, session_rows: Rows) -> None:
    assert save(trained, session_rows) == saved
    assert len(list(model_folder(saved).parent.glob("*/manifest.json"))) == 1


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.linked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.linked += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_card_holds_all_evidence_and_needs_no_other_file(saved: str, session_rows: Rows) -> None:
    page = write_evidence(saved, session_rows)
    card = json.loads(page.with_name("card.json").read_bytes())
    assert set(card["intervals"]) == {"auc", "average_precision", "precision_at_recall_70", "recall_at_fpr_2"}
    for name, (low, high) in card["intervals"].items():
        assert low <= card["metrics"][name] <= high
    assert {"merchant_category", "country", "channel", "amount"} <= set(card["slices"])
    assert sum(entry["rows"] for entry in card["slices"]["channel"]) == card["metrics"]["rows"]
    assert any(week["seen"] for week in card["weekly"]) and not card["weekly"][-1]["seen"]
    assert card["cost_of_scoring"]["bytes"] > 0 and card["shap"]["mean_absolute"]
    parsed = _Page()
    parsed.feed(page.read_text())
    assert parsed.tags.count("svg") == 7 and "script" not in parsed.tags
    assert all(link.startswith(("#", "data:")) for link in parsed.linked)


def test_figures_by_type_of_fraud_come_from_the_ground_truth(
    saved: str, session_rows: Rows, tmp_path: Path
) -> None:
    frauds = session_rows.described["transaction_id"][session_rows.label > 0]
    kinds = ["card_testing" if place % 2 else "takeover" for place in range(len(frauds))]
    pq.write_table(pa.table({"transaction_id": frauds.tolist(), "type": kinds}), tmp_path / "truth.parquet")
    card = gather(saved, with_fraud_types(session_rows, tmp_path / "truth.parquet"), rounds=5)
    found = {entry["value"]: entry["frauds"] for entry in card["slices"]["fraud_type"]}
    assert found["genuine"] == 0
    assert found["card_testing"] + found["takeover"] == card["metrics"]["frauds"]


def test_the_evidence_repeats_except_for_the_clock(saved: str, session_rows: Rows) -> None:
    first, second = (gather(saved, session_rows, rounds=20) for _ in range(2))
    for card in (first, second):
        card.pop("cost_of_scoring")
    assert json.dumps(first) == json.dumps(second)


def test_a_challenger_is_compared_with_the_champion_on_the_same_rows(
    saved: str, second: str, session_rows: Rows
) -> None:
    card = gather(second, session_rows, champion=saved, rounds=30)
    low, high = card["champion"]["interval"]
    assert card["champion"]["version"] == saved and low <= high
    assert card["champion"]["metrics"]["rows"] == card["metrics"]["rows"]


def _judge(version: str, rows: Rows) -> None:
    """The figures of the card, which the gates read, without its page."""
    path = card_path(version)
    path.parent.mkdir(parents=True, exist_ok=True)
    card = gather(version, rows, champion=read_deployment().champion, rounds=20)
    path.write_text(json.dumps(card))


def test_a_model_walks_from_register_to_champion_and_back(
    saved: str, second: str, session_rows: Rows
) -> None:
    _judge(saved, session_rows)
    promote.champion(saved)
    _judge(second, session_rows)
    promote.shadow(second)
    assert read_deployment().shadow == (second,)
    promote.canary(second, share=0.2, force=True)
    state = read_deployment()
    assert (state.champion, state.challenger, state.share, state.shadow) == (saved, second, 0.2, ())
    promote.champion(second, force=True)
    assert read_deployment().champion == second and read_deployment().challenger is None
    assert promote.rollback() == saved
    assert read_deployment().champion == saved
    assert [entry.step for entry in read_history()] == [
        "champion",
        "shadow",
        "canary",
        "champion",
        "rollback",
    ]


def test_no_step_may_be_skipped(saved: str, second: str, session_rows: Rows) -> None:
    with pytest.raises(PromotionError, match="no evidence card"):
        promote.champion(saved)
    _judge(saved, session_rows)
    promote.champion(saved)
    _judge(second, session_rows)
    with pytest.raises(PromotionError, match="not in shadow"):
        promote.canary(second)
    with pytest.raises(PromotionError, match="not the challenger"):
        promote.champion(second)
    with pytest.raises(PromotionError, match="cannot be retired"):
        promote.retire(saved)
    promote.shadow(second)
    promote.retire(second)
    assert read_deployment().shadow == ()


def test_a_model_whose_text_was_changed_is_refused(saved: str, session_rows: Rows) -> None:
    _judge(saved, session_rows)
    path = model_folder(saved) / "model.txt"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(PromotionError, match="digest"):
        promote.champion(saved)


def test_a_clearly_worse_challenger_is_refused(
    saved: str, home: Path, trained: Trained, session_rows: Rows
) -> None:
    _judge(saved, session_rows)
    promote.champion(saved)
    stump = Plan(delay_days=7, rounds=1, threads=1, settings={"num_leaves": 2})
    worse = replace(trained, model=train(session_rows, stump, progress=lambda _: None).model)
    version = save(worse, session_rows)
    _judge(version, session_rows)
    promote.shadow(version)
    with pytest.raises(PromotionError, match="average precision -"):
        promote.canary(version)


def test_replay_without_a_decision_log_has_nothing_against_a_model(saved: str) -> None:
    assert replay_gate(saved)[0]["passed"]


def test_a_saved_model_is_a_run_in_mlflow_once_with_what_it_was_judged_by(
    saved: str, session_rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_evidence(saved, session_rows, rounds=5)
    assert tracking.track(saved) == tracking.track(saved)
    (run,) = mlflow.search_runs(experiment_names=[tracking.EXPERIMENT], output_format="list")
    manifest = json.loads((model_folder(saved) / "manifest.json").read_bytes())
    assert run.data.tags["digest"] == manifest["digest"]
    assert run.data.metrics["average_precision"] == pytest.approx(manifest["metrics"]["average_precision"])
    assert run.data.params["trees"] == str(manifest["trees"])
    kept = {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert kept == {"model.txt", "manifest.json", "card.html", "card.json"}


def test_tracking_without_mlflow_says_how_to_get_it(saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(tracking.TrackingError, match="tracking"):
        tracking.track(saved)


def test_the_command_trains_saves_and_promotes_in_one_go(
    make_folder: Callable[..., Path], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["--dataset", str(make_folder()), "--champion", "--rounds", "30", "--threads", "1"])
    assert code == 0, capsys.readouterr().err
    assert read_deployment().champion == newest_version()


def test_a_saved_model_is_signed_and_one_from_elsewhere_is_signed_by_a_command(
    saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model_folder(saved)
    files = read_model_files(folder)
    seal = open_keys(settings()).seal("models")
    assert files.signature is not None
    assert model_verifies(saved, files.digest, files.signature, seal)
    assert not model_verifies("another", files.digest, files.signature, seal)
    (folder / "signature").unlink()
    assert next(check["gate"] for check in registered_gate(saved) if not check["passed"]) == "signed"
    assert list_models(["--sign", saved]) == 0
    assert read_model_files(folder).signature == files.signature
    assert list_models(["--sign", "../elsewhere"]) == 1
    assert "is no version" in capsys.readouterr().err
