from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monitoring.drift.command import main
from monitoring.drift.evidently_report import LARGEST_PAGE
from monitoring.drift.report import DriftInputError, DriftResult, drift_report

MakeDecisions = Callable[..., pd.DataFrame]
NOT_IN_REFERENCE = ["decision", "amount_reference", "customer_id", "channel"]


@pytest.fixture(scope="module")
def reference(make_decisions: MakeDecisions) -> pd.DataFrame:
    return make_decisions(30_000, seed=1, days=28, start="2018-08-01").drop(columns=NOT_IN_REFERENCE)


def report(reference: pd.DataFrame, current: pd.DataFrame, out: Path, **options: object) -> DriftResult:
    return drift_report(reference, current, out, decide_at=(0.2, 0.4), evidently=False, **options)  # type: ignore[arg-type]


def test_a_quiet_week_asks_for_nothing(
    reference: pd.DataFrame, make_decisions: MakeDecisions, tmp_path: Path
) -> None:
    result = report(reference, make_decisions(seed=2), tmp_path)
    assert result.verdict.action == "nothing"
    assert result.drifted_features == []
    assert result.exit_code == 0


def test_larger_amounts_are_named_and_dated(
    reference: pd.DataFrame, make_decisions: MakeDecisions, tmp_path: Path
) -> None:
    quiet = make_decisions(6_000, seed=2, days=2, start="2018-09-03")
    moved = make_decisions(15_000, seed=3, days=5, start="2018-09-05", amounts=1.5)
    result = report(reference, pd.concat([quiet, moved], ignore_index=True), tmp_path)
    assert result.drifted_features == ["txn_amount"]
    assert result.since["txn_amount"].day == "2018-09-05"
    assert result.verdict.action == "watch"


def test_a_field_that_goes_missing_is_traced_to_its_feed_first(
    reference: pd.DataFrame, make_decisions: MakeDecisions, tmp_path: Path
) -> None:
    result = report(reference, make_decisions(seed=2, missing=0.3), tmp_path)
    assert result.drifted_features == ["device_age"]
    assert "find why device_age is missing" in result.verdict.todo


def test_a_model_that_ranks_worse_on_matured_labels_is_to_be_retrained(
    reference: pd.DataFrame, make_decisions: MakeDecisions, tmp_path: Path
) -> None:
    worse = make_decisions(30_000, seed=5, sharpness=0.4)
    result = report(reference, make_decisions(seed=2), tmp_path, labelled=worse)
    assert result.verdict.action == "retrain"
    assert result.exit_code == 4
    assert any("average precision" in text for text in result.verdict.changed)


def test_halved_amounts_of_frauds_are_seen_in_matured_labels(
    make_decisions: MakeDecisions, tmp_path: Path
) -> None:
    from monitoring.drift.performance import performance

    before = make_decisions(30_000, seed=5)
    baseline = {name: e.value for name, e in performance(before, replicates=5).statistics.items()}
    after = make_decisions(30_000, seed=6)
    frauds = after["is_fraud"] == 1
    after.loc[frauds, "amount_reference"] = after.loc[frauds, "amount_reference"] // 2
    result = report(before.drop(columns=NOT_IN_REFERENCE), after, tmp_path, labelled=after, baseline=baseline)
    assert [signal.name for signal in result.performance if signal.beyond] == ["fraud_amount"]


def test_part_of_a_week_leaves_calendar_features_out(
    reference: pd.DataFrame, make_decisions: MakeDecisions, tmp_path: Path
) -> None:
    afternoon = make_decisions(5_000, seed=2, days=0.3)
    afternoon["txn_hour"] = 15.0
    result = report(reference, afternoon, tmp_path)
    assert result.left_out == ["txn_hour"]
    assert "txn_hour" not in result.drifted_features


def test_an_empty_week_is_refused_in_words(reference: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DriftInputError, match="holds no row"):
        report(reference, reference.head(0), tmp_path)


def test_the_page_opens_with_words_and_holds_evidently_in_under_five_megabytes(
    reference: pd.DataFrame, make_decisions: MakeDecisions, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    result = drift_report(
        reference, make_decisions(seed=2, amounts=1.5), tmp_path, week="2018-W36", decide_at=(0.2, 0.4),
        workspace=workspace,
    )  # fmt: skip
    page = result.report.read_text()
    assert len(page.encode()) < LARGEST_PAGE
    assert page.index("What changed") < page.index("drawDashboard")
    assert page.index("What to do" if "What to do" in page else "Watch") < page.index("drawDashboard")
    assert 'src="http' not in page
    content = json.loads(result.json.read_text())
    assert content["drifted_features"] == ["txn_amount"]
    tested = {test["name"]: test["status"] for test in content["evidently"]["tests"]}
    assert any("txn_amount" in name and status == "FAIL" for name, status in tested.items())
    assert any("device_age" in name and status == "SUCCESS" for name, status in tested.items())
    assert "tollgate_drift_action 1" in (tmp_path / "drift.prom").read_text()
    kept = list(workspace.rglob("snapshots/*.json"))
    assert len(kept) == 1 and "2018-W36" in kept[0].read_text()


def test_a_week_that_is_reported_again_replaces_itself_in_the_workspace(tmp_path: Path) -> None:
    from monitoring.drift.evidently_report import keep, run
    from monitoring.drift.measures import measure
    from monitoring.drift.thresholds import Thresholds

    generator = np.random.default_rng(3)
    earlier, later = (pd.DataFrame({"amount": generator.random(500)}) for _ in range(2))
    found = measure(earlier, later, ["amount"], Thresholds())
    for week in ("2018-W36", "2018-W37", "2018-W36"):
        keep(run(earlier, later, found, week=week), tmp_path)
    assert len(list(tmp_path.rglob("snapshots/*.json"))) == 2


def test_the_command_reads_model_folder_log_and_labels_and_returns_the_verdict(
    reference: pd.DataFrame,
    make_decisions: MakeDecisions,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    reference.to_parquet(model / "reference.parquet")
    features = ["txn_amount", "customer_txn_count_1h", "device_age", "ip_nothing"]
    facts = {"thresholds": {"review": 0.2, "block": 0.4}, "gain": {"txn_amount": 1.0}, "features": features}
    (model / "manifest.json").write_text(json.dumps(facts))
    log = make_decisions(20_000, seed=7, days=14, start="2018-08-27").assign(
        transaction_id=lambda frame: [f"t{place}" for place in range(len(frame))],
        event_timestamp=lambda frame: frame["event_timestamp"].astype("datetime64[us, UTC]"),
    )
    frauds = log[log["is_fraud"] == 1]
    folder = home / "decisions" / "date=2018-09-03" / "hour=00"
    folder.mkdir(parents=True)
    log.drop(columns="is_fraud").to_parquet(folder / "part.parquet")
    labels = home / "lake" / "labels" / "date=2018-09-04"
    labels.mkdir(parents=True)
    known = frauds["event_timestamp"] + pd.Timedelta(days=2)
    pq.write_table(
        pa.table(
            {
                "transaction_id": frauds["transaction_id"].tolist(),
                "created_timestamp": pa.array(known.astype("datetime64[us, UTC]")),
                "is_fraud": [True] * len(frauds),
                "source": ["chargeback"] * len(frauds),
            }
        ),
        labels / "part.parquet",
    )
    code = main(["--reference", str(model), "--week", "2018-W36", "--exit-code"])
    assert code == 0, capsys.readouterr().err
    content = json.loads((tmp_path / "results" / "drift" / "2018-W36" / "drift.json").read_text())
    assert content["week"] == "2018-W36"
    assert content["matured"]["frauds"] > 100


def test_the_command_says_what_is_missing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "train and save one first" in capsys.readouterr().err


def test_a_view_that_goes_stale_is_named_before_its_columns(
    reference: pd.DataFrame, make_decisions: MakeDecisions, tmp_path: Path
) -> None:
    week = make_decisions(seed=2)
    week["feature_status"] = [
        [("card_profile", "stale" if place % 10 == 0 else "fresh"), ("card_velocity", "fresh")]
        for place in range(len(week))
    ]
    result = report(reference, week, tmp_path)
    assert result.verdict.action == "watch"
    assert "card profile was stale or timed out in 10.0% of decisions" in result.verdict.changed
    assert "First see to what fills card_profile" in result.verdict.todo
    assert result.freshness["card_velocity"] == {"fresh": 1.0}


def test_segments_tell_where_the_score_moved(
    reference: pd.DataFrame, make_decisions: MakeDecisions, tmp_path: Path
) -> None:
    week = make_decisions(seed=2)
    night = week["txn_hour"] < 6
    week.loc[night, "score"] = week.loc[night, "score"] * 3
    coded = reference.assign(txn_category=7)
    week = week.assign(txn_category=7, merchant_category="5411")
    result = report(coded, week, tmp_path)
    assert "category 5411" in {segment.name for segment in result.segments}
    assert result.segments[0].name == "hour 00-06 UTC"
    assert result.segments[0].moved > 3 * result.segments[1].moved


def test_the_shares_of_reasons_move_when_an_input_does(make_decisions: MakeDecisions, tmp_path: Path) -> None:
    import lightgbm

    from monitoring.drift.attribution import attribution_drift

    names = ["txn_amount", "customer_txn_count_1h", "customer_amount_sum_24h"]
    frame = make_decisions(5_000, seed=3)
    target = (frame["txn_amount"] > 40) * 1.0 + (frame["customer_txn_count_1h"] > 1) * 1.0
    booster = lightgbm.train({"verbose": -1, "num_leaves": 7}, lightgbm.Dataset(frame[names], target), 20)
    booster.save_model(tmp_path / "model.txt")
    same = attribution_drift(tmp_path / "model.txt", names, frame, make_decisions(5_000, seed=4))
    other = make_decisions(5_000, seed=4)
    other["customer_txn_count_1h"] = 0.0
    moved = attribution_drift(tmp_path / "model.txt", names, frame, other)
    assert same.moved < 0.05 < moved.moved


def test_weeks_side_by_side_link_to_their_reports(
    reference: pd.DataFrame, make_decisions: MakeDecisions, tmp_path: Path
) -> None:
    from monitoring.drift.trend import write_trend

    for place, amounts in enumerate((1.0, 1.0, 1.5)):
        week = f"2018-W{36 + place}"
        report(reference, make_decisions(5_000, seed=place, amounts=amounts), tmp_path / week, week=week)
    page = write_trend(tmp_path)
    assert page is not None
    text = page.read_text()
    assert "3 reports" in text and 'href="2018-W38/drift.html"' in text


def test_a_thinned_reference_is_weighed_back_before_it_is_compared(make_decisions: MakeDecisions) -> None:
    from monitoring.drift.command import representative

    whole = make_decisions(40_000, seed=1)
    genuine = whole["is_fraud"] == 0
    kept = whole[~genuine | (whole.index % 10 == 0)]
    thinned = kept.assign(weight=np.where(kept["is_fraud"] == 1, 1.0, 10.0))
    again = representative(thinned)
    assert "weight" not in again
    assert again["score"].mean() == pytest.approx(whole["score"].mean(), rel=0.1)
    assert thinned["score"].mean() > 1.5 * whole["score"].mean()


@pytest.mark.finding(
    "L3", "low", "Evidently wrote category texts raw into its script: stored cross-site scripting"
)
def test_a_category_that_is_markup_is_text_on_the_page() -> None:
    from monitoring.drift.evidently_report import run
    from monitoring.drift.measures import measure
    from monitoring.drift.thresholds import Thresholds

    markup = "</script><img src=x onerror=alert(1)>"
    earlier, later = (pd.DataFrame({"merchant_category": [markup, "5411"] * times}) for times in (400, 300))
    found = measure(earlier, later, ["merchant_category"], Thresholds())
    html = run(earlier, later, found, week="2018-W36").html
    assert "<img src=x" not in html
    assert "onerror=alert(1)" in html.replace("\\u203a", "")
